#!/bin/sh
# Installs sparkgap from this folder: an unpacked archive, or a checkout in which it was built. Never downloads.
#
#     ./install.sh --upstream http://192.168.68.155:8888/v1 --listen 4000
#
# Run it again to upgrade, or with other values to change them. Values and the new program are tested before anything is
# replaced, files that are the same stay, the service restarts only if something changed, and everything that was
# replaced comes back if it does not start.
set -eu
# Files and folders get the modes that are written here, whatever the caller's umask.
umask 022

# The manual and the completions of shells, which only an archive has.
generated='share/man/man1/sparkgap.1 share/bash-completion/completions/sparkgap share/zsh/site-functions/_sparkgap
share/fish/vendor_completions.d/sparkgap.fish'

usage() {
    cat <<'END'
usage: ./install.sh [options]

  --upstream URL   the model server, written to /etc/sparkgap/sparkgap.env; may be repeated
  --listen ADDR    PORT (all addresses) or ADDRESS:PORT instead of 127.0.0.1:4000. Other machines then need a key; the
                   first one is made, and shown, where /etc/sparkgap/credentials/CLIENT_KEYS holds none
  --binary FILE    this program instead of the one found here
  --prefix DIR     instead of the folder of the last installation, or /usr/local
  --no-start       install, and leave the service as it is
  --rollback       exchange the program and its units for the ones that the last upgrade replaced
  --uninstall      remove all but the configuration
  --purge          remove the configuration too: hooks, credentials, drop-ins; and the
                   history of requests and usage
  --dry-run        test the values, and say what would be done
  --version        print the versions of the program here and of the installed one

DESTDIR=DIR in the environment puts everything below DIR, starts nothing and makes no key, for packages.

Exit status: 0 done, and the service runs; 1 failed, and nothing has changed; 3 installed, and the service does not run.
END
}

main() {
    prefix=''
    destdir=${DESTDIR:-}
    action=install
    binary='' listen='' upstreams='' dry='' start=yes
    arguments "$@"
    here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
    find_out
    paths
    # True if the service has to take something new; true if it has to restart for that; true if its socket has to; the
    # version that was installed; a key that was made; a file that is being written.
    changed='' unit_changed='' socket_changed='' version='' new_key='' fresh=''
    work=$(mktemp -d)
    trap 'rm -rf "$work" ${fresh:+"$fresh"}' EXIT
    trap 'exit 130' INT TERM
    case $action in
        install) do_install ;;
        rollback) do_rollback ;;
        version) do_version ;;
        uninstall) do_uninstall ;;
        purge) do_uninstall && do_purge ;;
    esac
}

arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            --upstream | --listen | --binary | --prefix)
                [ $# -ge 2 ] || fail "$1 needs a value; see --help" ;;
        esac
        case $1 in
            --upstream) check_url "$2" && upstreams="${upstreams:+$upstreams }--upstream $2" && shift 2 ;;
            --listen) check_listen "$2" && listen=$2 && shift 2 ;;
            --binary) binary=$2 && shift 2 ;;
            --prefix) prefix=${2%/} && check_prefix && shift 2 ;;
            --no-start) start= && shift ;;
            --rollback | --uninstall | --purge | --version) action=${1#--} && shift ;;
            --dry-run) dry=yes && shift ;;
            --help | -h) usage && exit 0 ;;
            *) fail "unknown option $1; see --help" ;;
        esac
    done
}

# The URL becomes a word in a quoted line that systemd splits; the program checks everything else about it.
check_url() {
    case $1 in
        '' | -*) fail "--upstream needs a URL, such as http://192.168.68.155:8888/v1" ;;
        *[\"\'\\\$\`[:space:][:cntrl:]]*)
            fail "--upstream: a URL has no spaces, quotes, backslashes, dollars or line ends; write them as %20 and so on" ;;
    esac
}

# Accepts only what systemd does in ListenStream=: it takes no names.
check_listen() {
    wrong="--listen takes PORT or ADDRESS:PORT, such as 4000, 192.168.68.10:4000 or [::1]:4000, and not '$1'"
    port=${1##*:}
    case $port in
        '' | *[!0-9]* | 0* | ??????*) fail "$wrong" ;;
    esac
    [ "$port" -le 65535 ] || fail "$wrong: the largest port is 65535"
    [ "$port" != "$1" ] || return 0
    host=${1%:*}
    case $host in
        '['*[!0-9a-fA-F:.]*']' | '[]') fail "$wrong" ;;
        '['*:*']') ;;
        *[!0-9.]* | '' | .* | *. | *..*) fail "$wrong: systemd listens on addresses, not on names" ;;
        *)
            rest=$host. parts=0
            while [ -n "$rest" ]; do
                part=${rest%%.*} rest=${rest#*.} parts=$((parts + 1))
                case $part in ????* | 0?*) fail "$wrong" ;; esac
                [ "$part" -le 255 ] || fail "$wrong"
            done
            [ $parts = 4 ] || fail "$wrong" ;;
    esac
}

check_prefix() {
    case $prefix in
        /*) ;;
        *) fail "--prefix must begin with /" ;;
    esac
    case $prefix in
        *[!A-Za-z0-9/._-]*) fail "--prefix may hold letters, digits and / . _ - only" ;;
    esac
}

# Finds out the machine's systemd, and whether files of the system can be written.
find_out() {
    for command in id uname mktemp cmp cp mv rm chmod mkdir sed cut head tail sort cat dirname sha256sum od tr grep stat xargs; do
        command -v "$command" >/dev/null || fail "the command $command is needed"
    done
    systemd='' system=yes
    if [ -z "$destdir" ] && [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then
        systemd=$(systemctl --version | head -n 1 | cut -d ' ' -f 2)
        systemd=${systemd%%[!0-9]*}
    fi
    if [ -z "$destdir" ] && [ "$(id -u)" != 0 ]; then
        system='' systemd=''
    fi
}

paths() {
    if [ -z "$prefix" ]; then prefix=$(installed_prefix); fi
    bin=$destdir$prefix/bin
    share=$destdir$prefix/share/sparkgap
    etc=$destdir/etc/sparkgap
    state=$destdir/var/lib/sparkgap
    dropins=$destdir/etc/systemd/system
    # systemd reads units from this folder too; the one in /etc belongs to the owner.
    case $prefix in
        /usr) units=$destdir/usr/lib/systemd/system ;;
        *) units=$destdir/usr/local/lib/systemd/system ;;
    esac
}

# The folder that the installed unit names, so that an upgrade and --uninstall find what was installed.
installed_prefix() {
    found=$(sed -n 's|^ExecStart=\(/.*\)/bin/sparkgap .*|\1|p' "$destdir/usr/local/lib/systemd/system/sparkgap.service" \
        2>/dev/null | head -n 1) || true
    echo "${found:-/usr/local}"
}

# Refuses places that cannot be written.
check_rights() {
    [ -z "$system" ] || return 0
    [ "$action" != purge ] || fail "run it as root: the configuration is root's"
    parent=$prefix
    while [ ! -e "$parent" ]; do parent=$(dirname -- "$parent"); done
    [ -w "$parent" ] || fail "$prefix is not yours to write: run it as root, or with --prefix ~/.local"
}

# Refuses places that the service could not run its program from, or that belong to a package.
check_place() {
    check_rights
    [ -n "$system" ] || return 0
    case $prefix/ in
        /home/* | /root/* | /run/* | /tmp/* | /var/tmp/* | /boot/* | /media/* | /mnt/* | /dev/* | /proc/* | /sys/*)
            fail "--prefix $prefix: the service is walled off from that folder; use /usr/local or /opt/sparkgap" ;;
    esac
    if [ -z "$destdir" ] && command -v dpkg-query >/dev/null &&
        [ "$(dpkg-query -W -f '${db:Status-Status}' sparkgap 2>/dev/null)" = installed ]; then
        fail "sparkgap is installed as a Debian package here: upgrade it by apt, or remove it first (apt remove sparkgap)"
    fi
}

do_install() {
    check_place
    case $(uname -m) in
        x86_64) arch=x86_64 ;;
        aarch64 | arm64) arch=aarch64 ;;
        *) [ -n "$binary" ] || fail "no sparkgap for $(uname -m): x86_64 and aarch64 are there; build it with cargo and use --binary" ;;
    esac
    verify
    find_binary
    stage
    try_values
    install_binary
    install_shared
    [ -z "$system" ] || install_config
    if [ -n "$systemd" ] || [ -n "$destdir" ]; then install_units; fi
    keep_previous
    if [ -n "$systemd" ]; then start_service; else say_how_to_run; fi
}

# Checks the files against the checksums that an archive contains.
verify() {
    [ -e "$here/SHA256SUMS" ] || return 0
    (cd "$here" && sha256sum -c SHA256SUMS >"$work/sums" 2>&1) || {
        sed '/: OK$/d' "$work/sums" >&2
        fail "this archive is damaged; nothing was changed"
    }
}

find_binary() {
    if [ -z "$binary" ]; then
        for found in sparkgap "target/dist/$arch/sparkgap" "target/$arch-unknown-linux-musl/release/sparkgap" \
            target/release/sparkgap; do
            if [ -f "$here/$found" ]; then
                binary=$here/$found
                break
            fi
        done
    fi
    [ -n "$binary" ] || fail "no program here: build it first (cargo build --release), or name it with --binary"
    [ -f "$binary" ] || fail "there is no $binary"
}

# Copies the program beside the old one and tries it there, so that the installed program is always complete. The program
# of a package may be another machine's, which cannot be tried.
stage() {
    program=$binary
    if [ -z "$dry" ]; then
        mkdir -p "$bin"
        write_fresh "$binary" "$bin" 755
        program=$fresh
    fi
    version=$("$program" --version 2>&1) || {
        [ -n "$destdir" ] || fail "the new program does not run here ($version); nothing was changed"
        version='not tried' program=''
    }
}

# Tests the configuration as it is going to be with the new program, before anything is replaced. A configuration that
# was broken before does not stop an upgrade, unless its service runs.
try_values() {
    environment=$etc/sparkgap.env
    [ -e "$environment" ] || environment=$here/systemd/sparkgap.env.example
    for file in "$etc/sparkgap.env" "$dropins/sparkgap.socket.d/listen.conf"; do
        [ ! -h "$file" ] || [ -z "$upstreams$listen" ] || fail "$file is a link: change the file that it leads to"
    done
    if [ -n "$upstreams" ] && [ -n "$system" ]; then
        set_upstreams "$environment" >"$work/env"
        environment=$work/env
    fi
    [ -n "$program" ] && [ -n "$system" ] || return 0
    if [ -n "$upstreams" ] || { [ -n "$systemd" ] && systemctl --quiet is-active sparkgap.service; }; then
        why=$(check_config "$program" "$environment") || fail "$why
nothing was changed: the new program refuses this configuration"
    fi
}

# set_upstreams FILE: prints the file with the upstreams in it, in the place of its own line or of the example.
set_upstreams() {
    place='#SPARKGAP_UPSTREAM='
    if grep -q '^SPARKGAP_UPSTREAM=' "$1"; then place=SPARKGAP_UPSTREAM=; fi
    ! grep -q '^SPARKGAP_UPSTREAM=.*\\$' "$1" || fail "$1: SPARKGAP_UPSTREAM has more than one line: edit it there"
    written=
    while IFS= read -r text || [ -n "$text" ]; do
        case $text in
            "$place"*)
                [ -n "$written" ] || printf 'SPARKGAP_UPSTREAM="%s"\n' "$upstreams"
                written=yes ;;
            *) printf '%s\n' "$text" ;;
        esac
    done <"$1"
    [ -n "$written" ] || printf 'SPARKGAP_UPSTREAM="%s"\n' "$upstreams"
}

# check_config PROGRAM FILE: the program's own check. xargs splits the line into words as systemd does in the unit.
check_config() {
    hooks=$etc/hooks
    [ -d "$hooks" ] || hooks=$here/hooks/default.lua
    configured=$(sed -n 's/^SPARKGAP_UPSTREAM=//p' "$2" | tail -n 1 | sed "s/^\"\(.*\)\"\$/\1/; s/^'\(.*\)'\$/\1/")
    printf '%s\n' "$configured" | xargs "$1" check --hooks "$hooks" 2>&1
}

install_binary() {
    if cmp -s "$binary" "$bin/sparkgap"; then
        [ -z "$fresh" ] || rm -f "$fresh"
        say "unchanged  $bin/sparkgap"
    elif [ -n "$dry" ]; then
        say "would install $bin/sparkgap ($version)"
    else
        move_fresh "$bin/sparkgap"
        say "installed  $bin/sparkgap ($version)"
    fi
    fresh=''
}

# Installs files for people to read. They do not need a restart.
install_shared() {
    before=$changed
    for file in README.md CHANGELOG.md LICENSE LICENSE-MIT LICENSE-APACHE THIRD-PARTY.txt systemd/sparkgap.env.example; do
        [ ! -f "$here/$file" ] || install_file "$here/$file" "$share/${file##*/}"
    done
    for file in "$here"/docs/*.md "$here"/hooks/*.* "$here"/hooks/examples/*.*; do
        [ ! -f "$file" ] || install_file "$file" "$share/${file#"$here"/}"
    done
    for file in $generated; do
        [ ! -f "$here/$file" ] || install_file "$here/$file" "$destdir$prefix/$file"
    done
    changed=$before
}

# Installs the configuration, which belongs to the owner from then on.
install_config() {
    for folder in "$etc" "$etc/hooks"; do
        [ -d "$folder" ] || run mkdir -p -m 755 "$folder"
    done
    [ -d "$etc/credentials" ] || run mkdir -m 700 "$etc/credentials"
    # If there are no hooks, installs the default file: an example that changes nothing yet.
    set -- "$etc"/hooks/*.lua
    [ -e "$1" ] || install_file "$here/hooks/default.lua" "$etc/hooks/default.lua"
    if [ -n "$upstreams" ]; then
        config_file "$work/env" "$etc/sparkgap.env"
    elif [ ! -e "$etc/sparkgap.env" ]; then
        config_file "$here/systemd/sparkgap.env.example" "$etc/sparkgap.env"
    fi
    if [ -n "$listen" ]; then
        client_key
        printf '[Socket]\nListenStream=\nListenStream=%s\n' "$listen" >"$work/listen"
        socket_file config_file "$work/listen" "$dropins/sparkgap.socket.d/listen.conf"
    fi
}

# True if other machines reach the address.
is_open() {
    case $listen in
        '' | 127.* | '[::1]:'*) return 1 ;;
    esac
}

# Makes a key for clients. Everybody who reaches the port could use the model, so the service does not start on an open
# port without keys. A package has none, since all machines would have the same.
client_key() {
    is_open || return 0
    if [ -e "$etc/credentials/CLIENT_KEYS" ] || grep -qs '^SPARKGAP_OPTIONS=.*--allow-anonymous' "$etc/sparkgap.env"; then
        return
    fi
    if [ -n "$destdir" ]; then
        say "no key     is in a package: on each machine, sparkgap key new NAME >> /etc/sparkgap/credentials/CLIENT_KEYS"
        return
    fi
    changed=yes
    if [ -n "$dry" ]; then
        say "would make a key for clients in $etc/credentials/CLIENT_KEYS"
        return
    fi
    new_key=sk-$(od -An -N 16 -tx1 /dev/urandom | tr -d ' \n')
    (umask 077 && printf '%s first\n' "$new_key" >"$work/keys")
    replace "$work/keys" "$etc/credentials/CLIENT_KEYS" 600
}

install_units() {
    sed "s|/usr/local/bin|$prefix/bin|g; s|/usr/local/share|$prefix/share|g" \
        "$here/systemd/sparkgap.service" >"$work/sparkgap.service"
    case $prefix in
        /usr | /usr/*) ;;
        *) sed -i "s|^ExecPaths=.*|& $prefix/bin|" "$work/sparkgap.service" ;;
    esac
    if [ -n "$systemd" ] && [ "$systemd" -lt 250 ]; then
        sed -i 's|^LoadCredential=|#&|' "$work/sparkgap.service"
        say "systemd $systemd takes no folder of credentials: add LoadCredential=SPARKGAP_UPSTREAM_KEY:FILE yourself"
    fi
    before=$changed
    changed=''
    install_file "$work/sparkgap.service" "$units/sparkgap.service"
    unit_changed=$changed
    changed=$changed$before
    socket_file install_file "$here/systemd/sparkgap.socket" "$units/sparkgap.socket"
}

# socket_file HOW FROM TO: installs a file, and notes that the socket has to be opened again if the file changed.
socket_file() {
    before=$changed
    changed=''
    "$@"
    [ -z "$changed" ] || socket_changed=yes
    changed=$changed$before
}

start_service() {
    [ -z "$dry" ] || { say "would start or restart the service, if anything changed"; return; }
    systemctl daemon-reload
    if [ -z "$start" ]; then
        say "not started, as asked: systemctl enable --now sparkgap.socket sparkgap.service"
        return
    fi
    if ! why=$(check_config "$bin/sparkgap" "$etc/sparkgap.env"); then
        say "$why"
        say "not started: name a model server with --upstream, or in /etc/sparkgap/sparkgap.env, then"
        say "    systemctl enable --now sparkgap.socket sparkgap.service"
        exit 3
    fi
    systemctl --quiet enable sparkgap.socket sparkgap.service
    if systemctl --quiet is-active sparkgap.service && [ -z "$changed" ]; then
        say "unchanged  the service runs on"
        return
    fi
    if [ -n "$unit_changed" ]; then say "restarting the service; requests in progress may finish first (up to 90 s)"; fi
    if restart && answers; then say_how_to_use; else undo; fi
}

say_how_to_use() {
    say "running    sparkgap on $(address); with Claude Code here:"
    if [ -n "$new_key" ]; then
        say "           (made a key for clients, $new_key, in $etc/credentials/CLIENT_KEYS)"
    fi
    if [ -e "$etc/credentials/CLIENT_KEYS" ]; then key="SPARKGAP_API_KEY=${new_key:-KEY} "; else key=; fi
    say "    SPARKGAP_URL=http://$(address) ${key}sparkgap claude"
}

# Without systemd: the command that does what the service would do.
say_how_to_run() {
    [ -z "$destdir" ] || return 0
    command="$prefix/bin/sparkgap serve ${upstreams:---upstream http://192.168.68.155:8888/v1}"
    case $listen in
        '') ;;
        *:*) command="$command --listen $listen" ;;
        *) command="$command --listen 0.0.0.0:$listen" ;;
    esac
    if [ -n "$system" ]; then
        command="$command --hooks $etc/hooks"
        if [ -e "$etc/credentials/CLIENT_KEYS" ]; then command="$command --api-key-file $etc/credentials/CLIENT_KEYS"; fi
    elif is_open; then
        say "make a key: (umask 077; $prefix/bin/sparkgap key new NAME >> KEYS)"
        command="$command --api-key-file KEYS"
    fi
    [ -z "$new_key" ] || say "made       a key for clients, $new_key, in $etc/credentials/CLIENT_KEYS"
    say "run it:    $command"
}

restart() {
    if [ -n "$socket_changed" ] && systemctl --quiet is-active sparkgap.socket; then
        # The address changed, so the socket cannot stay open this time.
        systemctl stop sparkgap.service sparkgap.socket || return 1
    fi
    systemctl start sparkgap.socket || return 1
    # A new process takes over at once by a reload, and answers in progress finish. systemd applies another unit only at
    # a restart.
    if [ -z "$unit_changed" ] && systemctl --quiet is-active sparkgap.service; then
        systemctl reload sparkgap.service
    else
        systemctl restart sparkgap.service
    fi
}

address() {
    listening=$(systemctl show --property=Listen --value sparkgap.socket | head -n 1 | cut -d ' ' -f 1)
    case $listening in
        '[::]:'*) echo "127.0.0.1:${listening##*:}" ;;
        0.0.0.0:*) echo "127.0.0.1:${listening##*:}" ;;
        *) echo "$listening" ;;
    esac
}

# True if the service is active and answers a request. systemd only has the program's report; the answer is the proof.
answers() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        if systemctl --quiet is-active sparkgap.service && ask "http://$(address)"; then return 0; fi
        sleep 1
    done
    return 1
}

# A program from before `sparkgap health` is asked with the tools that are there.
ask() {
    if "$bin/sparkgap" health "$1" >/dev/null 2>&1; then
        return 0
    elif command -v curl >/dev/null; then
        curl --silent --fail --noproxy '*' --max-time 5 --output /dev/null "$1/health"
    else
        command -v wget >/dev/null && wget -q -T 5 -O /dev/null "$1/health"
    fi
}

# Says why the service does not run, puts everything back that was replaced, and fails.
undo() {
    # A port in use is the socket's failure, so its lines count as well.
    journalctl --no-pager --quiet --output cat --lines 12 -u sparkgap.service -u sparkgap.socket >&2 || true
    why="the service does not start (its last lines are above)"
    [ -e "$work/replaced" ] || fail "$why"
    while IFS= read -r path; do
        copy=$(remembered "$path")
        if [ -n "$copy" ]; then move "$copy" "$path"; else rm -f "$path"; fi
    done <"$work/replaced"
    systemctl daemon-reload
    systemctl stop sparkgap.service sparkgap.socket 2>/dev/null || true
    systemctl reset-failed sparkgap.service sparkgap.socket 2>/dev/null || true
    if [ ! -e "$bin/sparkgap" ]; then
        systemctl --quiet disable sparkgap.socket sparkgap.service 2>/dev/null || true
        fail "$why; what was installed is removed again"
    elif restart && answers; then
        fail "$why; everything is as it was before, and runs"
    fi
    fail "$why; everything is as it was before, and does not start either: journalctl -u sparkgap.service -u sparkgap.socket"
}

# Exchanges the installed program and units for the ones that the last upgrade replaced. The configuration stays.
do_rollback() {
    check_place
    binary=$share/previous/sparkgap
    [ -e "$binary" ] || fail "no previous program is kept below $share/previous: only an upgrade leaves one"
    for file in sparkgap sparkgap.service sparkgap.socket; do
        [ ! -e "$share/previous/$file" ] || cp -p "$share/previous/$file" "$work/$file"
    done
    binary=$work/sparkgap
    stage
    try_values
    install_binary
    [ ! -e "$work/sparkgap.service" ] || install_file "$work/sparkgap.service" "$units/sparkgap.service"
    [ ! -e "$work/sparkgap.socket" ] || socket_file install_file "$work/sparkgap.socket" "$units/sparkgap.socket"
    keep_previous
    if [ -n "$systemd" ]; then start_service; fi
}

# Keeps the program and the units that this run has replaced, for --rollback.
keep_previous() {
    [ -z "$dry" ] || return 0
    copy=$(remembered "$bin/sparkgap")
    [ -n "$copy" ] || return 0
    replace "$copy" "$share/previous/sparkgap" 755
    for unit in sparkgap.service sparkgap.socket; do
        copy=$(remembered "$units/$unit")
        copy=${copy:-$units/$unit}
        [ ! -e "$copy" ] || replace "$copy" "$share/previous/$unit" 644
    done
}

do_version() {
    arch=$(uname -m)
    (find_binary && say "here       $("$binary" --version)") || true
    if [ -x "$bin/sparkgap" ]; then
        say "installed  $("$bin/sparkgap" --version) in $bin"
    else
        say "installed  none in $bin"
    fi
}

do_uninstall() {
    check_rights
    installed=$(installed_prefix)
    if [ -n "$system" ] && [ ! -e "$bin/sparkgap" ] && [ -e "$destdir$installed/bin/sparkgap" ]; then
        fail "sparkgap is installed below $installed, not below $prefix: --prefix $installed, or leave --prefix out"
    fi
    if [ -n "$systemd" ] && [ -e "$units/sparkgap.service" ]; then
        run systemctl --quiet disable --now sparkgap.socket sparkgap.service
    fi
    remove "$bin/sparkgap" "$bin/.sparkgap.previous" "$units/sparkgap.service" "$units/sparkgap.socket" "$share"
    for file in $generated; do
        remove "$destdir$prefix/$file"
    done
    if [ -n "$systemd" ]; then
        run systemctl daemon-reload
        [ -n "$dry" ] || systemctl reset-failed sparkgap.service sparkgap.socket 2>/dev/null || true
    fi
    if [ "$action" = uninstall ]; then
        # With DynamicUser= systemd keeps the folder below private, and the other path is a link to it.
        for kept in "$etc" "$state"; do
            if [ -d "$kept" ]; then say "kept       $kept (--purge removes it)"; fi
        done
    fi
}

do_purge() {
    remove "$etc" "$state" "$destdir/var/lib/private/sparkgap" "$dropins/sparkgap.socket.d" "$dropins/sparkgap.service.d"
    if [ -n "$systemd" ]; then run systemctl daemon-reload; fi
}

remove() {
    for path in "$@"; do
        if [ -e "$path" ] || [ -h "$path" ]; then
            run rm -rf "$path"
            [ -n "$dry" ] || say "removed    $path"
        fi
    done
}

# install_file FROM TO: replaces a file that differs. A link is not what is to stand there, wherever it leads.
install_file() {
    if [ ! -h "$2" ] && cmp -s "$1" "$2"; then return; fi
    if [ -n "$dry" ]; then
        changed=yes
        say "would install $2"
        return
    fi
    replace "$1" "$2" 644
}

# config_file FROM TO: installs a file of the owner's, or changes it as asked; the old one stays beside it.
config_file() {
    if [ ! -e "$2" ]; then
        install_file "$1" "$2"
        [ -n "$dry" ] || say "installed  $2"
    elif cmp -s "$1" "$2"; then
        :
    elif [ -n "$dry" ]; then
        changed=yes
        say "would change $2"
    else
        mode=$(stat -c %a "$2")
        replace "$2" "$2.previous" "$mode"
        replace "$1" "$2" "$mode"
        say "changed    $2 (the old one is $2.previous)"
    fi
}

# replace FROM TO MODE: writes a new file beside TO, then renames it, so that TO is always complete.
replace() {
    mkdir -p "$(dirname -- "$2")"
    write_fresh "$1" "$(dirname -- "$2")" "$3"
    move_fresh "$2"
}

# write_fresh FROM FOLDER MODE: a copy in this folder, named in $fresh. mktemp makes a file that did not exist, so a link
# that somebody has planted is not written through.
write_fresh() {
    fresh=$(mktemp "$2/.sparkgap.XXXXXX")
    cat "$1" >"$fresh" || fail "$2 cannot be written (is the disk full?); nothing was changed there"
    chmod "$3" "$fresh"
}

move_fresh() {
    remember "$1"
    move "$fresh" "$1"
    fresh='' changed=yes
}

# move FROM TO: renames. `mv` would move into a folder that a link leads to.
move() {
    [ ! -h "$2" ] || rm -f "$2"
    [ ! -d "$2" ] || fail "$2 is a folder"
    mv -f "$1" "$2"
}

# Keeps a copy of a file as it was before this run, for `undo`. The copy's name is the number of the path's line.
remember() {
    if [ -z "$systemd" ] && [ "$1" != "$bin/sparkgap" ]; then return; fi
    if grep -qsxF -- "$1" "$work/replaced"; then return; fi
    printf '%s\n' "$1" >>"$work/replaced"
    if [ -e "$1" ]; then
        mkdir -p "$work/undo"
        cp -p "$1" "$work/undo/$(grep -nxF -- "$1" "$work/replaced" | cut -d : -f 1)"
    fi
}

# remembered PATH: prints where the copy is, if there is one.
remembered() {
    number=$(grep -nsxF -- "$1" "$work/replaced" | cut -d : -f 1)
    if [ -n "$number" ] && [ -e "$work/undo/$number" ]; then echo "$work/undo/$number"; fi
}

run() {
    if [ -n "$dry" ]; then say "would run $*"; else "$@"; fi
}

say() {
    printf '%s\n' "$*"
}

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

main "$@"
