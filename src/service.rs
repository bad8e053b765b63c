//! The service manager (systemd): receives listening sockets and credentials from it, and reports to it (ready,
//! reloading, stopping, still alive, one line of status).
//!
//! The only module that knows systemd. Without a service manager it receives nothing and reports nothing.

mod handover;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

pub use handover::{ControlSocket, Successor, await_turn, confirm, is_successor, start_successor};

/// The largest credential that is read, in bytes. systemd itself refuses those over 1 MiB; a key has one line.
const CREDENTIAL_SIZE_MAX: u64 = 64 * 1024;

/// The sockets that the service manager listens on for us (`LISTEN_FDS`), in the order of its configuration; empty if
/// there are none. They outlive this process, so that no client is refused during a restart.
///
/// Call it once, before any thread starts, since it clears these environment variables.
///
/// # Errors
/// One of them is not a TCP socket.
pub fn listeners() -> io::Result<Vec<TcpListener>> {
    let mut handed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..handed.len() {
        listeners.extend(handed.take_tcp_listener(index)?);
    }
    Ok(listeners)
}

/// A folder of credentials that a reload has copied. Once it exists, those that the service manager has loaded at the
/// start are out of date.
const RELOADED_CREDENTIALS: &str = "SPARKGAP_CREDENTIALS";

/// A value by its name: the environment variable, otherwise the credential (`LoadCredential=NAME:FILE`) without its
/// line end. `None` if neither exists.
pub fn variable(name: &str) -> Option<String> {
    if let Ok(value) = std::env::var(name) {
        return Some(value);
    }
    let reloaded = std::env::var_os(RELOADED_CREDENTIALS).filter(|folder| Path::new(folder).is_dir());
    credential(Path::new(&reloaded.or_else(|| std::env::var_os("CREDENTIALS_DIRECTORY"))?), name)
}

fn credential(folder: &Path, name: &str) -> Option<String> {
    // This must be a plain name, which cannot lead out of the folder.
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return None;
    }
    let file = fs::File::open(folder.join(name)).ok()?;
    let mut value = String::new();
    file.take(CREDENTIAL_SIZE_MAX).read_to_string(&mut value).ok()?;
    value.truncate(value.trim_end().len());
    Some(value)
}

/// The folder that the service manager keeps for the service over restarts (`StateDirectory=`), if it does.
pub fn state_folder() -> Option<PathBuf> {
    let folders = std::env::var_os("STATE_DIRECTORY")?;
    // Several folders are separated by colons.
    std::env::split_paths(&folders).find(|folder| !folder.as_os_str().is_empty())
}

/// True if stderr is the journal. The variable alone does not show it: a program that is started from a terminal
/// inherits it from the desktop.
pub fn stderr_is_journal() -> bool {
    let Some(journal) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(fs::File::from);
    stderr
        .and_then(|stderr| stderr.metadata())
        .is_ok_and(|stderr| journal == *OsStr::new(&format!("{}:{}", stderr.dev(), stderr.ino())))
}

/// True if a service manager receives these reports.
pub fn is_managed() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// The longest time between two [`alive`] reports before the service manager ends this process; `None`: it does not
/// watch.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

/// Reports that connections are accepted, or, after [`reloading`], that the reload is done.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports that the configuration is being reloaded. [`ready`] must follow.
pub fn reloading() {
    // systemd 253 and newer treat a message without the time as a fault.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::debug!("no monotonic clock: {error}"),
    }
}

/// Reports that no more connections are accepted.
pub fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Reports one line for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Reports that the process is not stuck.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!("cannot tell the service manager: {error}");
    }
}

/// The most memory that the process may use, in bytes: the least of the machine's memory and the limits of its control
/// group and the groups above it (`MemoryMax=` of a unit, the limit of a container).
pub fn memory_limit() -> usize {
    let machine = machine_memory();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().flat_map(|line| group_limits(Path::new(CGROUP_ROOT), line));
    usize::try_from(limits.fold(machine, u64::min)).unwrap_or(usize::MAX)
}

/// The machine's memory, in bytes.
#[cfg(target_os = "linux")]
fn machine_memory() -> u64 {
    let system = rustix::system::sysinfo();
    system.totalram.saturating_mul(system.mem_unit.into())
}

/// Elsewhere the memory of a small Mac is assumed, since the call that tells needs unsafe code; `--memory-max` sets the
/// limit itself.
#[cfg(not(target_os = "linux"))]
fn machine_memory() -> u64 {
    8 << 30
}

/// The folder in which control groups are mounted.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The memory limits of one of the process's control groups and of those above it. The group is found by its line in
/// `/proc/self/cgroup`: `0::/path` (version 2) or `4:memory:/path` (version 1).
fn group_limits(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return Vec::new() };
    let (mounts, file) = match controllers {
        // If both versions are in use, the second is mounted in this folder.
        "" => (vec![root.to_path_buf(), root.join("unified")], "memory.max"),
        _ if controllers.split(',').any(|one| one == "memory") => {
            (vec![root.join("memory")], "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let mut limits = Vec::new();
    for mount in mounts {
        // In a container, this path may differ from the mounted one; then only the top group can be read.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let limit = fs::read_to_string(mount.join(group).join(file)).ok();
            limits.extend(limit.and_then(|limit| limit.trim().parse::<u64>().ok()));
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_without_the_line_end() {
        let folder = std::env::temp_dir().join(format!("sparkgap-credentials-{}", std::process::id()));
        fs::create_dir_all(folder.join("inner")).unwrap();
        fs::write(folder.join("SPARK_KEY"), "sk-1\n").unwrap();
        fs::write(folder.join("inner/OTHER"), "sk-2").unwrap();
        assert_eq!(credential(&folder, "SPARK_KEY").as_deref(), Some("sk-1"));
        for name in ["OTHER", "", "inner", "inner/OTHER", "..", "../x", "./SPARK_KEY"] {
            assert_eq!(credential(&folder, name), None, "{name}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn limits_of_control_groups_are_found() {
        let root = std::env::temp_dir().join(format!("sparkgap-cgroup-{}", std::process::id()));
        for (file, limit) in [
            ("system.slice/sparkgap.service/memory.max", "max"),
            ("system.slice/memory.max", "2147483648"),
            ("memory/a/memory.limit_in_bytes", "1000"),
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{limit}\n")).unwrap();
        }
        for (line, limits) in [
            ("0::/system.slice/sparkgap.service", vec![2_147_483_648]),
            ("4:memory:/a", vec![1000, 9_223_372_036_854_771_712]),
            ("4:cpu,memory:/not/mounted", vec![9_223_372_036_854_771_712]),
            ("5:cpu:/a", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(group_limits(&root, line), limits, "{line}");
        }
        fs::remove_dir_all(root).unwrap();
        assert!(memory_limit() > 0);
    }
}
