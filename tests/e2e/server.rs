//! The binary under test, as a child process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::HANG;
use super::client::Client;
use super::upstream::Upstream;

/// Writes a hooks file and returns its path.
pub(crate) fn hooks_file(name: &str, lua: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.lua"));
    std::fs::write(&path, lua).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The resources that a process holds.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) memory: u64,
    pub(crate) threads: u64,
    pub(crate) sockets: usize,
}

/// A running sparkgap. It ends with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Receives a message when `log` has grown.
    grown: Receiver<()>,
    /// All of stderr.
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts `serve` in front of this upstream, and waits until its model is known.
    pub(crate) fn start(upstream: &Upstream) -> Server {
        Server::start_with(upstream, &[])
    }

    /// Starts `serve` in front of this upstream with more arguments.
    pub(crate) fn start_with(upstream: &Upstream, arguments: &[&str]) -> Server {
        let url = upstream.url();
        let arguments = [&["serve", "--upstream", &url], arguments].concat();
        let server = Server::run(&arguments, &[]);
        // Without this wait the first request may come before the upstream's models are known.
        server.wait_for("upstream default: ");
        server
    }

    /// Runs any command that listens.
    pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sparkgap"));
        command.args(arguments).args(["--listen", "127.0.0.1:0"]).env_clear().stdin(Stdio::null());
        Server::spawn(command.envs(environment.iter().copied()))
    }

    /// Starts `serve` in front of this upstream in a process that may have only `files_max` open files.
    pub(crate) fn start_with_files(upstream: &Upstream, files_max: u32) -> Server {
        let limited = format!("ulimit -n {files_max} && exec \"$0\" \"$@\"");
        let mut command = Command::new("/bin/sh");
        command.args([
            "-c",
            &limited,
            env!("CARGO_BIN_EXE_sparkgap"),
            "serve",
            "--upstream",
            &upstream.url(),
        ]);
        command.args(["--listen", "127.0.0.1:0"]).env_clear().stdin(Stdio::null());
        let server = Server::spawn(&mut command);
        server.wait_for("upstream default: ");
        server
    }

    /// Runs a command with a listening socket that it gets as a service manager would hand it over: as descriptor 3.
    pub(crate) fn run_activated(arguments: &[&str], socket: OwnedFd) -> Server {
        const HAND_OVER: &str = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec \"$0\" \"$@\"";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", HAND_OVER, env!("CARGO_BIN_EXE_sparkgap")]).args(arguments);
        Server::spawn(command.env_clear().stdin(Stdio::from(socket)))
    }

    pub(crate) fn spawn(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (grows, grown) = channel();
        let log = Arc::new(Mutex::new(String::new()));
        let all = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let line = line.unwrap();
                all.lock().unwrap().push_str(&format!("{line}\n"));
                // A test that has ended waits for no line.
                let _ = grows.send(());
            }
        });
        let mut server = Server { child, address: ([127, 0, 0, 1], 0).into(), grown, log };
        let line = server.wait_for(" listens on http");
        let (_, rest) = line.split_once("://").unwrap();
        server.address = rest.split(['/', '"']).next().unwrap().parse().unwrap();
        server
    }

    /// Returns the first line on stderr that holds this text, whether it was written already or comes later.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        loop {
            if let Some(line) = self.log().lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            let grown = self.grown.recv_timeout(HANG);
            assert!(grown.is_ok(), "no line with '{text}' in:\n{}", self.log());
        }
    }

    /// The log so far. Lines may be missing, so a test waits for a line, or ends the server and takes the whole log.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends `request` on `count` connections, each in a thread of its own, which returns the status of its answer.
    pub(crate) fn send_at_once(&self, count: usize, request: &[u8]) -> Vec<thread::JoinHandle<u16>> {
        let request: Arc<[u8]> = request.into();
        let send = |_| {
            let (mut client, request) = (self.connect(), Arc::clone(&request));
            thread::spawn(move || {
                client.send(&request);
                client.receive().status
            })
        };
        (0..count).map(send).collect()
    }

    /// The answer of `/health`.
    pub(crate) fn health(&self) -> Value {
        self.connect().ask(b"GET /health HTTP/1.1\r\n\r\n").json()
    }

    /// Asks for `/health` until the answer meets the condition.
    pub(crate) fn wait_until(&self, told: impl Fn(&Value) -> bool) {
        let until = Instant::now() + HANG;
        loop {
            let health = self.health();
            if told(&health) {
                return;
            }
            assert!(Instant::now() < until, "{health}");
        }
    }

    /// The resources that the process holds now.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            memory: self.memory(),
            threads: self.status("Threads:"),
            sockets: std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count(),
        }
    }

    /// The memory in use, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:") * 1024
    }

    /// The most memory that was ever in use, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM:") * 1024
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits until the process holds no more than this.
    pub(crate) fn wait_for_usage(&self, is_enough: impl Fn(&Usage) -> bool) {
        let until = Instant::now() + HANG;
        loop {
            let usage = self.usage();
            if is_enough(&usage) {
                return;
            }
            assert!(Instant::now() < until, "{usage:?}");
            thread::yield_now();
        }
    }

    /// Waits for the end of the process.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Sends SIGTERM and waits for the end. Returns true if the exit status is a success.
    pub(crate) fn terminate(mut self) -> bool {
        self.signal("TERM");
        self.child.wait().unwrap().success()
    }

    /// Ends the process in order and returns its whole log.
    pub(crate) fn terminate_and_log(mut self) -> String {
        self.signal("TERM");
        self.child.wait().unwrap();
        // The thread that reads the log ends with the pipe, and closes its end of the channel.
        while self.grown.recv_timeout(HANG).is_ok() {}
        self.log()
    }

    /// Sends SIGHUP, which reloads the hooks.
    pub(crate) fn hang_up(&self) {
        self.signal("HUP");
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("/bin/sh").args(["-c", &kill]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command that ends by itself, and returns its exit code, stdout and stderr.
pub(crate) fn output(arguments: &[&str]) -> (Option<i32>, String, String) {
    output_in(arguments, &[])
}

/// Runs a command that ends by itself in this environment, and returns its exit code, stdout and stderr.
pub(crate) fn output_in(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sparkgap"));
    let command = command.args(arguments).env_clear().envs(environment.iter().copied());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The beginning of stdout of a command that does not end by itself; the command is then ended.
pub(crate) fn first_output(arguments: &[&str], until: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sparkgap"))
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut text = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&text).contains(until) && stdout.read(&mut byte).unwrap() > 0 {
        text.extend(byte);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    String::from_utf8(text).unwrap()
}
