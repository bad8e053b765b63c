//! `eval "$(sparkgap env)" && claude` in real shells: whatever goes wrong, the command behind it does not run.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use super::server::{Server, hooks_file, output, output_in};
use super::upstream::Upstream;

const SPARKGAP: &str = env!("CARGO_BIN_EXE_sparkgap");

/// The shells of this machine that read the same lines. `dash` and `bash` are always there.
pub(crate) fn shells() -> Vec<String> {
    let mut found = Vec::new();
    for name in ["sh", "dash", "bash", "zsh", "fish"] {
        let mut places =
            ["/bin", "/usr/bin", "/usr/local/bin"].iter().map(|folder| format!("{folder}/{name}"));
        match places.find(|place| Path::new(place).exists()) {
            Some(place) => found.push(place),
            None => eprintln!("SKIPPED: there is no {name} on this machine"),
        }
    }
    for name in ["dash", "bash"] {
        assert!(found.iter().any(|shell| shell.ends_with(name)), "no {name}");
    }
    found
}

/// The output of a shell and its exit code.
pub(crate) fn run(shell: &str, script: &str) -> (String, Option<i32>) {
    let mut command = Command::new(shell);
    command
        .args(["-c", script])
        .env_clear()
        .env("HOME", env!("CARGO_TARGET_TMPDIR"))
        .env("PATH", "/usr/bin:/bin");
    let done = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    (String::from_utf8(done.stdout).unwrap(), done.status.code())
}

/// Evaluates the answer to these arguments in each shell: nothing behind it may run.
fn starts_nothing(arguments: &str) {
    for shell in shells() {
        let script = format!("eval \"$({SPARKGAP} env {arguments})\" && echo STARTED");
        let (said, code) = run(&shell, &script);
        assert!(said.is_empty() && code != Some(0), "{shell}: {arguments}: {said} {code:?}");
    }
    let script = format!("eval $({SPARKGAP} env {arguments}) && echo STARTED");
    assert_eq!(run("/bin/sh", &script).0, "", "without quotes: {arguments}");
}

/// A server that answers every request with these bytes and closes.
fn raw(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            read_head(&mut stream);
            // Whoever asked may have left.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

fn read_head(stream: &mut TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
        head.extend(byte);
    }
}

#[test]
fn an_environment_is_set_and_the_command_runs() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let arguments = format!("--remote {}", server.address);
    for shell in shells() {
        let script =
            format!("eval \"$({SPARKGAP} env {arguments})\" && echo $ANTHROPIC_BASE_URL $ANTHROPIC_MODEL");
        let expected = format!("http://{} qwen3\n", server.address);
        assert_eq!(run(&shell, &script), (expected, Some(0)), "{shell}");
    }
    for shell in ["/bin/sh", "/bin/bash"] {
        let script = format!("set -e; eval \"$({SPARKGAP} env {arguments})\"; echo ALIVE");
        assert_eq!(run(shell, &script).0, "ALIVE\n", "{shell}");
    }
}

#[test]
fn nothing_runs_where_no_sparkgap_answers() {
    starts_nothing("--remote http://127.0.0.1:1");
    starts_nothing("--remote not-a-host-anywhere.invalid:4000");
    starts_nothing("--remote ftp://127.0.0.1");
    let (code, stdout, stderr) = output(&["env", "--remote", "http://127.0.0.1:1"]);
    assert_eq!((code, stdout.as_str()), (Some(1), "false\n"));
    assert!(stderr.contains("no sparkgap answers at http://127.0.0.1:1 "), "{stderr}");
    let (code, stdout, _) = output(&["env", "--json", "--remote", "http://127.0.0.1:1"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "JSON has nothing that could be used");
}

#[test]
fn nothing_runs_after_a_mistake_in_the_arguments() {
    for arguments in ["--remot http://127.0.0.1:1", "--remote", "extra", "--api-key"] {
        starts_nothing(arguments);
    }
    let wrong = OsString::from_vec(b"--remote=\xff".to_vec());
    let done = Command::new(SPARKGAP).arg("env").arg(wrong).output().unwrap();
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(1), &b"false\n"[..]));
}

#[test]
fn nothing_runs_without_the_right_key() {
    let upstream = Upstream::start();
    let keys = hooks_file("evaluation-keys", "sk-right anna\n");
    let server = Server::start_with(&upstream, &["--api-key-file", &keys]);
    starts_nothing(&format!("--remote {}", server.address));
    starts_nothing(&format!("--remote {} --api-key sk-wrong", server.address));
}

#[test]
fn nothing_runs_after_half_an_answer() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"env\":{\"ANTHROPIC_BASE_URL\":\"http://box\"}}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2b\r\n{\"env\":{\"ANTHROPIC_BASE_URL\":\"http://box\"}}\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\n{\"env\":{\"ANTHROPIC_BASE_URL\":\"http://box\"},",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"env\":{}}",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"env\":[]}",
        "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    ] {
        let address = raw(answer);
        let (code, stdout, stderr) = output(&["env", "--remote", &address.to_string()]);
        assert_eq!((code, stdout.as_str()), (Some(1), "false\n"), "{answer}: {stderr}");
        let (code, stdout, _) = output(&["env", "--json", "--remote", &address.to_string()]);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{answer}");
    }
}

#[test]
fn no_value_of_an_answer_ends_its_quotes_in_any_shell() {
    for value in [r"\\'; echo STARTED #", r"a\nb", "a\\u0000b"] {
        let body = format!(r#"{{"env":{{"ANTHROPIC_BASE_URL":"http://box","ANTHROPIC_MODEL":"{value}"}}}}"#);
        let upstream = Upstream::start();
        upstream.set_page("/env", 200, &body);
        let url = upstream.url();
        starts_nothing(&format!("--remote {}", url.trim_end_matches("/v1")));
    }
    let upstream = Upstream::start();
    upstream.set_page("/env", 200, r#"{"env":{"ANTHROPIC_BASE_URL":"http://box","ANTHROPIC_MODEL":"a'; echo BAD; '$(echo BAD)`echo BAD`"}}"#);
    let url = upstream.url();
    for shell in shells() {
        let script = format!("eval \"$({SPARKGAP} env --remote {})\"", url.trim_end_matches("/v1"));
        assert_eq!(run(&shell, &script), (String::new(), Some(0)), "{shell}");
    }
}

#[test]
fn nothing_runs_where_sparkgap_is_killed_before_it_has_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = listener.local_addr().unwrap().to_string();
    for json in [false, true] {
        let mut command = Command::new(SPARKGAP);
        command.args(["env", "--remote", &remote]).args(json.then_some("--json"));
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        // It waits for an answer now.
        let (mut stream, _) = listener.accept().unwrap();
        read_head(&mut stream);
        child.kill().unwrap();
        let done = child.wait_with_output().unwrap();
        let said = String::from_utf8(done.stdout).unwrap();
        assert_eq!(said, if json { "" } else { "false" });
    }
    for shell in shells() {
        assert_eq!(run(&shell, "eval \"false\" && echo STARTED").0, "", "{shell}");
    }
}

#[test]
fn a_stdout_that_takes_nothing_is_an_error() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(SPARKGAP);
    command.args(["env", "--remote", &server.address.to_string()]);
    let done = command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8(done.stderr).unwrap().contains("cannot write the environment to stdout"));
}

#[test]
fn a_model_server_that_is_down_is_named_and_starts_nothing() {
    let server = Server::run(&["serve", "--upstream", "http://127.0.0.1:1/v1"], &[]);
    let remote = server.address.to_string();
    let (code, stdout, stderr) = output(&["env", "--remote", &remote]);
    assert_eq!((code, stdout.as_str()), (Some(1), "false\n"));
    assert!(
        stderr.contains("upstream 'default' cannot be reached") && stderr.contains("start it"),
        "{stderr}"
    );
    starts_nothing(&format!("--remote {remote}"));
    let (code, _, stderr) = output_in(&["claude"], &[("SPARKGAP_URL", &remote)]);
    assert!(code == Some(1) && stderr.contains("upstream 'default' cannot be reached"), "{stderr}");
}

#[test]
fn a_model_server_that_is_down_may_be_described_in_lua() {
    let lua = "return { api = 1, upstreams = { box = { url = 'http://127.0.0.1:1/v1', model = 'm', window = 65536 } }, aliases = { { '*', upstream = 'box' } } }";
    let server = Server::run(&["serve", "--hooks", &hooks_file("evaluation-described", lua)], &[]);
    let (code, stdout, stderr) = output(&["env", "--remote", &server.address.to_string()]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("export CLAUDE_CODE_MAX_CONTEXT_TOKENS='65536';"), "{stdout}");
    assert!(stdout.contains("export ANTHROPIC_MODEL='m';"), "{stdout}");
}
