//! The handover of the listening sockets from a running process to its successor, which a reload starts.
//!
//! A reload cannot give a process another program, and the service manager gives it neither other options nor other
//! keys. So the command `reload` starts a whole new process in the service, as an `ExecReload=` line:
//!
//! ```text
//!  reload command        running process (main)            successor
//!       │── connects ──────────►│
//!       │◄─ sockets, variables ─│
//!       │── starts, with the connection as its stdin ─────────►│ reads its configuration
//!       │                       │◄───────────────── "ready" ───│ could serve now
//!       │                       │── MAINPID to the manager     │
//!       │                       │─────────────────── "go" ────►│ accepts
//!       │◄──────────────────────┼─────────────── "serving" ────│
//!     ends                finishes its streams
//! ```
//!
//! If the successor ends before it is ready, the connection ends, and the running process goes on as before. Both
//! processes have the same sockets, so no client is refused at any time.
//!
//! Only processes of the same user and root can connect: the control socket stands in the service's `RuntimeDirectory=`
//! with the mode of its umask, 0600 at most.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// The most listening sockets that are handed over.
const SOCKETS_MAX: usize = 16;

/// The most bytes of a message: a few variables, or a word and a number.
const MESSAGE_SIZE_MAX: usize = 4096;

/// The time for a successor to become ready. It reads files and starts threads, and asks no upstream.
const READY_TIME: Duration = Duration::from_secs(60);

/// The number of the first listening socket in the successor, far above those that a new process has already.
const FIRST_SOCKET: i32 = 100;

/// Marks a successor in its environment.
const SUCCESSOR: &str = "SPARKGAP_SUCCESSOR";

/// Variables of the running process that its successor needs, and that a reload command does not get from systemd.
const VARIABLES: [&str; 2] = ["NOTIFY_SOCKET", "WATCHDOG_USEC"];

const READY: &str = "ready ";
const GO: &[u8] = b"go\n";
const SERVING: &[u8] = b"serving\n";

/// The path of the control socket. `None`: the service manager has made no folder for it.
fn control_path() -> Option<PathBuf> {
    std::env::var_os("RUNTIME_DIRECTORY").map(|folder| Path::new(&folder).join("control"))
}

/// The socket on which a running process hears of its successor.
#[derive(Debug)]
pub struct ControlSocket(UnixListener);

impl ControlSocket {
    /// Listens in the place of a predecessor. `None`: the service manager has made no folder for it.
    ///
    /// # Errors
    /// The socket cannot be made there.
    pub fn listen() -> io::Result<Option<ControlSocket>> {
        let Some(path) = control_path() else { return Ok(None) };
        // The new socket takes the old one's place in one step, so that no reload finds none.
        let new = path.with_extension("new");
        let _ = std::fs::remove_file(&new);
        let listener = UnixListener::bind(&new)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&new, &path)?;
        Ok(Some(ControlSocket(listener)))
    }

    /// Waits for a successor that is ready to serve on these sockets. `Ok(None)`: a reload has failed.
    ///
    /// # Errors
    /// The socket has failed.
    pub fn next_successor(&self, sockets: &[TcpListener]) -> io::Result<Option<Successor>> {
        let (connection, _) = self.0.accept()?;
        Ok(Successor::await_ready(connection, sockets).ok().flatten())
    }
}

/// A process that is ready to serve in the place of this one.
#[derive(Debug)]
pub struct Successor {
    connection: UnixStream,
    pid: u32,
}

impl Successor {
    fn await_ready(mut connection: UnixStream, sockets: &[TcpListener]) -> io::Result<Option<Successor>> {
        connection.set_read_timeout(Some(READY_TIME))?;
        connection.set_write_timeout(Some(READY_TIME))?;
        send_sockets(&connection, sockets)?;
        let word = read_line(&mut connection)?;
        let pid = word.strip_prefix(READY).and_then(|pid| pid.parse().ok());
        Ok(pid.map(|pid| Successor { connection, pid }))
    }

    /// Makes it the main process of the service, and lets it serve.
    ///
    /// # Errors
    /// It has ended meanwhile.
    pub fn let_serve(mut self) -> io::Result<()> {
        // Before the word, since the service manager believes the reports of the main process only.
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::MainPid(self.pid)]) {
            log::debug!("cannot tell the service manager: {error}");
        }
        self.connection.write_all(GO)
    }
}

/// Sends the sockets, and as text the variables that the successor needs.
fn send_sockets(connection: &UnixStream, sockets: &[TcpListener]) -> io::Result<()> {
    let lines = VARIABLES.iter().filter_map(|name| Some(format!("{name}={}\n", std::env::var(name).ok()?)));
    let text = format!("{}\n", lines.collect::<String>());
    let sockets: Vec<BorrowedFd<'_>> =
        sockets.iter().take(SOCKETS_MAX).map(|socket| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&sockets));
    // It is shorter than a socket's buffer, so it is sent whole. No flag against SIGPIPE, which Rust programs ignore.
    rustix::net::sendmsg(connection, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::empty())?;
    Ok(())
}

/// The sockets and variables that a running process hands out.
struct Inheritance {
    sockets: Vec<OwnedFd>,
    variables: Vec<(String, String)>,
}

fn receive_sockets(connection: &UnixStream) -> io::Result<Inheritance> {
    let mut text = vec![0; MESSAGE_SIZE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut text)];
    let received = rustix::net::recvmsg(connection, parts, &mut control, RecvFlags::empty())?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            sockets.extend(descriptors);
        }
    }
    for socket in &sockets {
        // The flag of `recvmsg` for this is Linux's alone. This command has one thread, which starts nothing meanwhile.
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::CLOEXEC)?;
    }
    if sockets.is_empty() {
        return Err(io::Error::other("it handed over no socket"));
    }
    text.truncate(received.bytes);
    let text = String::from_utf8_lossy(&text);
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Ok(Inheritance { sockets, variables })
}

/// Reads one line, byte for byte, so that nothing behind it is taken.
fn read_line(from: &mut impl io::Read) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MESSAGE_SIZE_MAX && from.read(&mut byte)? == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Starts a successor of the running process, with these arguments, and waits until it serves.
///
/// # Errors
/// No process of this service runs, or the new one did not become ready: text for the operator.
pub fn start_successor(arguments: &[String]) -> Result<(), String> {
    let path = control_path().ok_or(
        "there is no RUNTIME_DIRECTORY, so this is not the service: run systemctl reload sparkgap, or kill -HUP PID",
    )?;
    let text = |error: io::Error| format!("{}: {error}", path.display());
    let connection = UnixStream::connect(&path).map_err(text)?;
    let inheritance = receive_sockets(&connection).map_err(text)?;
    let mut serving = spawn(arguments, connection, inheritance).map_err(|error| error.to_string())?;
    // It keeps its end of the pipe open until it serves or ends.
    let said = read_line(&mut serving).map_err(|error| error.to_string())?;
    match said.as_bytes() == SERVING.trim_ascii_end() {
        true => Ok(()),
        false => {
            Err("the new process did not start, see the lines above; the running one goes on as it was"
                .into())
        }
    }
}

/// Starts the process, as a child of the service manager's and not of this command. Returns its stdout.
fn spawn(
    arguments: &[String],
    connection: UnixStream,
    inheritance: Inheritance,
) -> io::Result<std::process::ChildStdout> {
    // A background job of a shell gets no stdin, unless it is kept under another number.
    const IN_BACKGROUND: &str = "exec 3<&0; \"$0\" \"$@\" <&3 3<&- &";
    let mut passed = Vec::new();
    for (number, socket) in (FIRST_SOCKET..).zip(&inheritance.sockets) {
        let kept = rustix::io::fcntl_dupfd_cloexec(socket, number)?;
        // Without close-on-exec, so that it stays open in the new process.
        rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty())?;
        passed.push(kept);
    }
    let count = passed.len().to_string();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", IN_BACKGROUND]).arg(std::env::current_exe()?).args(arguments);
    shell.envs(inheritance.variables).env(SUCCESSOR, "1");
    shell.env("LISTEN_FDS", count).env("LISTEN_FDS_FIRST_FD", FIRST_SOCKET.to_string());
    shell.env_remove("LISTEN_PID").env_remove("WATCHDOG_PID");
    let mut child = shell.stdin(Stdio::from(OwnedFd::from(connection))).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
    child.wait()?;
    // The command keeps its own end of the pipe, and of the connection, in `shell`.
    drop(shell);
    Ok(stdout)
}

/// True if a reload has started this process, to serve in the place of another one.
pub fn is_successor() -> bool {
    std::env::var_os(SUCCESSOR).is_some()
}

/// Waits, in a successor, until the running process lets it serve. Returns at once in any other process. Call it when
/// nothing but the sockets is missing.
///
/// # Errors
/// The running process goes on to serve itself.
pub fn await_turn() -> io::Result<()> {
    if !is_successor() {
        return Ok(());
    }
    // The connection to the running process is stdin.
    let mut connection = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    connection.write_all(format!("{READY}{}\n", std::process::id()).as_bytes())?;
    if read_line(&mut connection)?.as_bytes() != GO.trim_ascii_end() {
        return Err(io::Error::other("the running process did not hand over"));
    }
    Ok(())
}

/// Tells the reload command that this successor serves. Does nothing in any other process.
pub fn confirm() {
    if is_successor() {
        // Errors are ignored: the command may have been stopped, and nothing depends on it any more.
        let _ = io::stdout().write_all(SERVING);
        let _ = io::stdout().flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_variables_arrive() {
        let (near, far) = UnixStream::pair().unwrap();
        let sockets = ["127.0.0.1:0"; 3].map(|address| TcpListener::bind(address).unwrap());
        send_sockets(&near, &sockets).unwrap();
        let inheritance = receive_sockets(&far).unwrap();
        let addresses: Vec<_> = inheritance
            .sockets
            .into_iter()
            .map(|socket| TcpListener::from(socket).local_addr().unwrap())
            .collect();
        assert_eq!(addresses, sockets.each_ref().map(|socket| socket.local_addr().unwrap()));
        drop(near);
        assert!(receive_sockets(&far).is_err(), "a process that ends hands over nothing");
    }

    #[test]
    fn a_successor_that_ends_before_it_is_ready_changes_nothing() {
        let sockets = [TcpListener::bind("127.0.0.1:0").unwrap()];
        for (said, is_ready) in [("", false), ("ready", false), ("ready x\n", false), ("ready 7\n", true)] {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(said.as_bytes()).unwrap();
            far.shutdown(std::net::Shutdown::Write).unwrap();
            let successor = Successor::await_ready(near, &sockets).unwrap();
            assert_eq!(successor.map(|successor| successor.pid), is_ready.then_some(7), "{said}");
        }
    }
}
