#!/bin/sh
# Installs sparkgap from this folder: an unpacked archive, or a checkout in which it was built. Never downloads.
#
#     ./install.sh --upstream http://192.168.68.155:8888/v1 --listen 4000
#
# Run it again to upgrade. Files that are the same stay, the configuration is never overwritten, the service restarts
# only if something changed, and the previous program comes back if the new one does not start.
set -eu

usage() {
    cat <<'END'
usage: ./install.sh [options]

  --upstream URL   the model server, for a new /etc/sparkgap/sparkgap.env; may be repeated
  --listen ADDR    PORT (all addresses) or ADDRESS:PORT instead of 127.0.0.1:4000. Other machines then need a key; the
                   first one is made, and shown, where /etc/sparkgap/credentials/CLIENT_KEYS holds none
  --binary FILE    this program instead of the one found here
  --prefix DIR     instead of /usr/local
  --no-start       install, and leave the service as it is
  --uninstall      remove all but the configuration
  --purge          remove the configuration too: hooks, credentials, drop-ins
  --dry-run        say what would be done

DESTDIR=DIR in the environment puts everything below DIR and starts nothing, for packages.
END
}

main() {
    prefix=/usr/local
    destdir=${DESTDIR:-}
    action=install
    binary='' listen='' upstreams='' dry='' start=yes
    arguments "$@"
    here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
    paths
    find_out
    # True if the service has to restart; true if its socket has to; the version that was installed.
    changed='' socket_changed='' unit_changed='' version=''
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    case $action in
        install) do_install ;;
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
            --upstream) upstreams="${upstreams:+$upstreams }--upstream $2" && shift 2 ;;
            --listen) listen=$2 && shift 2 ;;
            --binary) binary=$2 && shift 2 ;;
            --prefix) prefix=${2%/} && shift 2 ;;
            --no-start) start= && shift ;;
            --uninstall) action=uninstall && shift ;;
            --purge) action=purge && shift ;;
            --dry-run) dry=yes && shift ;;
            --help | -h) usage && exit 0 ;;
            *) fail "unknown option $1; see --help" ;;
        esac
    done
    case $prefix in
        /*) ;;
        *) fail "--prefix must begin with /" ;;
    esac
    case $prefix in
        *[!A-Za-z0-9/._-]*) fail "--prefix may hold letters, digits and / . _ - only" ;;
    esac
    case $upstreams in
        *[\"\'\\\$\`]* | *'
'*) fail "--upstream: no URL holds quotes, backslashes, dollars or line ends" ;;
    esac
    case $listen in
        *[!A-Za-z0-9.:\[\]-]*) fail "--listen takes PORT or ADDRESS:PORT" ;;
        "" | *[0-9]) ;;
        *) fail "--listen takes PORT or ADDRESS:PORT" ;;
    esac
}

paths() {
    bin=$destdir$prefix/bin
    share=$destdir$prefix/share/sparkgap
    etc=$destdir/etc/sparkgap
    dropins=$destdir/etc/systemd/system
    # systemd reads units from this folder too; the one in /etc belongs to the owner.
    case $prefix in
        /usr) units=$destdir/usr/lib/systemd/system ;;
        *) units=$destdir/usr/local/lib/systemd/system ;;
    esac
}

# Finds out the machine's architecture and systemd.
find_out() {
    for command in id uname mktemp cmp cp mv rm chmod mkdir sed cut head tail sort cat dirname sha256sum od tr grep; do
        command -v "$command" >/dev/null || fail "the command $command is needed"
    done
    systemd=
    if [ -z "$destdir" ] && [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then
        systemd=$(systemctl --version | head -n 1 | cut -d ' ' -f 2)
        systemd=${systemd%%[!0-9]*}
    fi
    # True if system files can be written.
    system=yes
    if [ -z "$destdir" ] && [ "$(id -u)" != 0 ]; then
        system='' systemd=''
        [ "$action" != purge ] || fail "run it as root: the configuration is root's"
        parent=$prefix
        while [ ! -e "$parent" ]; do parent=$(dirname -- "$parent"); done
        [ -w "$parent" ] || fail "$prefix is not yours to write: run it as root, or with --prefix ~/.local"
    fi
    return 0
}

do_install() {
    case $(uname -m) in
        x86_64) arch=x86_64 ;;
        aarch64 | arm64) arch=aarch64 ;;
        *) fail "no sparkgap for $(uname -m): x86_64 and aarch64 are there; build it with cargo and use --binary" ;;
    esac
    verify
    find_binary
    install_binary
    install_shared
    [ -z "$system" ] || install_config
    if [ -n "$systemd" ] || [ -n "$destdir" ]; then install_units; fi
    if [ -n "$systemd" ]; then
        start_service
    else
        say "run it:    $prefix/bin/sparkgap ${upstreams:---upstream http://192.168.68.155:8888/v1}"
    fi
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

# Copies the program beside the old one, tries it there, then renames it, so that the installed program is always
# complete.
install_binary() {
    if cmp -s "$binary" "$bin/sparkgap"; then
        say "unchanged  $bin/sparkgap"
        return
    fi
    if [ -n "$dry" ]; then
        say "would install $bin/sparkgap"
        return
    fi
    mkdir -p "$bin"
    cp "$binary" "$bin/.sparkgap.new"
    chmod 755 "$bin/.sparkgap.new"
    version=$("$bin/.sparkgap.new" --version 2>&1) || {
        rm -f "$bin/.sparkgap.new"
        fail "the new program does not run here ($version); nothing was changed"
    }
    [ ! -e "$bin/sparkgap" ] || cp -p "$bin/sparkgap" "$bin/.sparkgap.previous"
    mv -f "$bin/.sparkgap.new" "$bin/sparkgap"
    changed=yes
    say "installed  $bin/sparkgap ($version)"
}

# Installs files for people to read. They do not need a restart.
install_shared() {
    before=$changed
    for file in README.md LICENSE LICENSE-MIT LICENSE-APACHE systemd/sparkgap.env.example; do
        [ ! -f "$here/$file" ] || install_file "$here/$file" "$share/${file##*/}"
    done
    for file in "$here"/hooks/*.* "$here"/hooks/examples/*.*; do
        install_file "$file" "$share/${file#"$here"/}"
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
        sed "s|^#\\(SPARKGAP_UPSTREAM=\\).*|\\1\"$upstreams\"|" "$here/systemd/sparkgap.env.example" >"$work/env"
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

# Makes a key for clients. Everybody who reaches the port could use the model, so the service does not start on an open
# port without keys.
client_key() {
    case $listen in
        127.* | localhost:* | '[::1]:'*) return ;;
    esac
    if [ -e "$etc/credentials/CLIENT_KEYS" ] || grep -qs '^SPARKGAP_OPTIONS=.*--allow-anonymous' "$etc/sparkgap.env"; then
        return
    fi
    changed=yes
    if [ -n "$dry" ]; then
        say "would make a key for clients in $etc/credentials/CLIENT_KEYS"
        return
    fi
    key=sk-$(od -An -N 16 -tx1 /dev/urandom | tr -d ' \n')
    (umask 077 && printf '%s first\n' "$key" >"$etc/credentials/CLIENT_KEYS")
    say "made       a key for clients, $key, in $etc/credentials/CLIENT_KEYS"
}

install_units() {
    # Keeps the previous units for a roll-back.
    for unit in sparkgap.service sparkgap.socket; do
        [ ! -e "$units/$unit" ] || cp "$units/$unit" "$work/$unit.previous"
    done
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
    if ! why=$(check_config); then
        say "$why"
        say "not started: name a model server in /etc/sparkgap/sparkgap.env, then"
        say "    systemctl enable --now sparkgap.socket sparkgap.service"
        return
    fi
    systemctl --quiet enable sparkgap.socket sparkgap.service
    if systemctl --quiet is-active sparkgap.service && [ -z "$changed" ]; then
        say "unchanged  the service runs on"
        return
    fi
    if [ -n "$unit_changed" ]; then say "restarting the service; requests in progress may finish first (up to 90 s)"; fi
    if restart && answers; then
        say "running    sparkgap on $(address); with Claude Code here:"
        if [ -e "$etc/credentials/CLIENT_KEYS" ]; then key='SPARKGAP_API_KEY=KEY '; else key=; fi
        say "    SPARKGAP_URL=http://$(address) ${key}sparkgap claude"
        return
    fi
    systemctl --no-pager --lines=10 status sparkgap.service >&2 || true
    roll_back
}

# Checks the configuration with the program's own check.
check_config() {
    configured=$(sed -n 's/^SPARKGAP_UPSTREAM=//p' "$etc/sparkgap.env" | tail -n 1 | sed "s/^[\"']//; s/[\"']\$//")
    # shellcheck disable=SC2086 # split into words, as systemd does in the unit
    "$bin/sparkgap" check --hooks "$etc/hooks" $configured 2>&1
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
        if systemctl --quiet is-active sparkgap.service && ask "http://$(address)/health"; then return 0; fi
        sleep 1
    done
    return 1
}

ask() {
    if command -v curl >/dev/null; then
        curl --silent --noproxy '*' --max-time 5 --output /dev/null "$1"
    elif command -v wget >/dev/null; then
        wget -q -T 5 -O /dev/null "$1"
    fi
}

roll_back() {
    if [ ! -e "$bin/.sparkgap.previous" ] || [ -z "$version" ]; then
        fail "it does not start; see journalctl -u sparkgap"
    fi
    mv -f "$bin/.sparkgap.previous" "$bin/sparkgap"
    for unit in sparkgap.service sparkgap.socket; do
        [ ! -e "$work/$unit.previous" ] || cp "$work/$unit.previous" "$units/$unit"
    done
    systemctl daemon-reload
    systemctl reset-failed sparkgap.service sparkgap.socket 2>/dev/null || true
    if restart && answers; then
        fail "the new program does not start; the previous one is back and runs"
    fi
    fail "the new program does not start, and the previous one, which is back, does not either: journalctl -u sparkgap"
}

do_uninstall() {
    if [ -n "$systemd" ] && [ -e "$units/sparkgap.service" ]; then
        run systemctl --quiet disable --now sparkgap.socket sparkgap.service
    fi
    remove "$bin/sparkgap" "$bin/.sparkgap.previous" "$units/sparkgap.service" "$units/sparkgap.socket" "$share"
    if [ -n "$systemd" ]; then
        run systemctl daemon-reload
        [ -n "$dry" ] || systemctl reset-failed sparkgap.service sparkgap.socket 2>/dev/null || true
    fi
    if [ "$action" = uninstall ] && [ -d "$etc" ]; then say "kept       $etc (--purge removes it)"; fi
}

do_purge() {
    remove "$etc" "$dropins/sparkgap.socket.d" "$dropins/sparkgap.service.d"
    if [ -n "$systemd" ]; then run systemctl daemon-reload; fi
}

remove() {
    for path in "$@"; do
        if [ -e "$path" ]; then
            run rm -rf "$path"
            [ -n "$dry" ] || say "removed    $path"
        fi
    done
}

# install_file FROM TO: replaces a file that differs, by a rename.
install_file() {
    if cmp -s "$1" "$2"; then return; fi
    changed=yes
    if [ -n "$dry" ]; then
        say "would install $2"
        return
    fi
    mkdir -p "$(dirname -- "$2")"
    cp "$1" "$2.sparkgap-new"
    chmod 644 "$2.sparkgap-new"
    mv -f "$2.sparkgap-new" "$2"
}

# config_file FROM TO: installs a file that does not exist; otherwise puts a new version beside it.
config_file() {
    if [ ! -e "$2" ]; then
        install_file "$1" "$2"
        [ -n "$dry" ] || say "installed  $2"
    elif ! cmp -s "$1" "$2"; then
        [ -n "$dry" ] || cp "$1" "$2.new"
        say "kept       $2; what it would be is in $2.new"
    fi
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
