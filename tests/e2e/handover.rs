//! A reload by a new process: it takes the socket at once, and the old one finishes its streams.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::HANG;
use super::client::{Client, hello};
use super::ending::{echo, finish, streams};
use super::server::{Server, hooks_file};
use super::upstream::Upstream;

/// The folder and the sockets that systemd gives to a service.
struct Manager {
    folder: PathBuf,
    notices: UnixDatagram,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let notices = UnixDatagram::bind(folder.join("notify")).unwrap();
        notices.set_read_timeout(Some(HANG)).unwrap();
        Manager { folder, notices }
    }

    fn serve(&self, arguments: &[&str]) -> Server {
        let notify = self.folder.join("notify");
        let environment = [
            ("RUNTIME_DIRECTORY", self.folder.to_str().unwrap()),
            ("NOTIFY_SOCKET", notify.to_str().unwrap()),
        ];
        let server = Server::run(&[&["serve"], arguments].concat(), &environment);
        server.wait_for("upstream default: ");
        server
    }

    /// Runs `sparkgap reload` as an `ExecReload=` line does. Returns whether it succeeded, and the log of the new
    /// process.
    fn reload(&self, arguments: &[&str]) -> (bool, String) {
        let log = self.folder.join("log");
        let status = Command::new(env!("CARGO_BIN_EXE_sparkgap"))
            .args(["reload", "serve"])
            .args(arguments)
            .env_clear()
            .env("RUNTIME_DIRECTORY", &self.folder)
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .status()
            .unwrap();
        (status.success(), fs::read_to_string(log).unwrap())
    }

    /// Waits for a report that has this line, and returns the rest of the line.
    fn told(&self, line: &str) -> String {
        let mut notice = [0; 4096];
        loop {
            let size = self.notices.recv(&mut notice).unwrap();
            let text = std::str::from_utf8(&notice[..size]).unwrap();
            if let Some(rest) = text.lines().find_map(|told| told.strip_prefix(line)) {
                return rest.to_owned();
            }
        }
    }

    /// The new process by the report of its number. It ends with the test.
    fn main_process(&self) -> MainProcess {
        MainProcess(self.told("MAINPID=").parse().unwrap())
    }
}

/// A process that is not a child of this one.
struct MainProcess(u32);

impl Drop for MainProcess {
    fn drop(&mut self) {
        let kill = format!("kill -KILL {}", self.0);
        let _ = Command::new("/bin/sh").args(["-c", &kill]).status();
    }
}

#[test]
fn a_reload_takes_new_options_and_lets_old_streams_finish() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let gate = echo(&first, 3);
    let manager = Manager::new("handover");
    let mut old = manager.serve(&["--upstream", &first.url()]);
    manager.told("READY=1");
    let mut idle = old.connect();
    idle.ask(b"GET /health HTTP/1.1\r\n\r\n");
    let streams = streams(&old, 3);
    let (is_done, log) = manager.reload(&["--upstream", &second.url(), "--prefix", "/new"]);
    assert!(is_done, "{log}");
    let new = manager.main_process();
    assert_eq!(manager.told("READY=1"), "", "the new process is the service");
    assert_eq!(idle.rest(), b"", "an idle connection of the old process is closed");
    old.wait_for("a new process serves now; this one finishes 3 requests");
    // The new one serves while the streams of the old one run.
    let body = hello().to_string();
    let request = format!(
        "POST /new/v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(Client::connect(old.address).ask(request.as_bytes()).status, 200);
    assert_eq!((first.seen().len(), second.seen().len()), (3, 1));
    // It can be replaced as well.
    let (is_done, log) = manager.reload(&["--upstream", &second.url()]);
    assert!(is_done, "{log}");
    let newest = manager.main_process();
    assert_ne!(new.0, newest.0);
    manager.told("READY=1");
    Client::connect(old.address).post(&hello()).message();
    gate.open();
    finish(streams);
    assert!(old.ended().success());
    old.wait_for("stopped");
    Client::connect(old.address).post(&hello()).message();
}

#[test]
fn a_reload_with_a_mistake_changes_nothing_and_says_why() {
    let upstream = Upstream::start();
    let manager = Manager::new("handover-broken");
    let server = manager.serve(&["--upstream", &upstream.url()]);
    let broken = hooks_file("handover-broken", "return { api = 1, on_request = 7 }");
    for (arguments, reason) in [
        (&["--hooks", &broken][..], "handover-broken.lua"),
        (&["--upstrem", "x"], "--upstrem"),
        (&["--api-key-file", "/nowhere"], "/nowhere"),
        (&["--listen", "127.0.0.1:1"], "--listen 127.0.0.1:1 has no effect"),
    ] {
        let (is_done, log) = manager.reload(arguments);
        assert!(!is_done && log.contains(reason), "{log}");
        assert!(log.contains("reload failed: the new process did not start"), "{log}");
        server.wait_for("reload failed: the new process did not start; this one goes on");
        server.connect().post(&hello()).message();
    }
    drop(server);
    let (is_done, log) = manager.reload(&["--upstream", &upstream.url()]);
    assert!(!is_done && log.contains("control"), "no process runs: {log}");
}

#[test]
fn a_server_that_has_handed_over_ends_its_streams_when_it_is_told_to() {
    let upstream = Upstream::start();
    let gate = echo(&upstream, 1);
    let manager = Manager::new("handover-stop");
    let mut old = manager.serve(&["--upstream", &upstream.url(), "--drain", "1"]);
    let streams = streams(&old, 1);
    let (is_done, log) = manager.reload(&["--upstream", &upstream.url()]);
    assert!(is_done, "{log}");
    let _new = manager.main_process();
    old.wait_for("a new process serves now");
    old.signal("TERM");
    super::ending::told_of_the_stop(streams);
    assert!(old.ended().success());
    gate.open();
}

#[test]
fn a_reload_hands_the_state_folder_over() {
    let upstream = Upstream::start();
    let gate = echo(&upstream, 2);
    let manager = Manager::new("handover-state");
    let state = manager.folder.join("state");
    let state = state.to_str().unwrap();
    let hooks = hooks_file(
        "handover-state",
        r#"return { on_log = function(rec) log.info("call " .. shared.incr("calls", 1) .. " of this folder") end }"#,
    );
    let arguments = ["--upstream", &upstream.url(), "--state", state, "--hooks", &hooks];
    let mut old = manager.serve(&arguments);
    Client::connect(old.address).ask(&super::client::post(b"{"));
    let streams = streams(&old, 2);
    let (is_done, log) = manager.reload(&arguments);
    assert!(is_done && !log.contains("without history"), "{log}");
    let _new = manager.main_process();
    // The new process writes while the old one finishes its streams, and adds them.
    Client::connect(old.address).post(&hello()).message();
    gate.open();
    finish(streams);
    assert!(old.ended().success());
    let until = std::time::Instant::now() + HANG;
    loop {
        let (_, rows, stderr) = super::server::output(&["requests", "--state", state]);
        if rows.lines().count() == 4 {
            break;
        }
        assert!(std::time::Instant::now() < until, "{rows}{stderr}");
    }
}
