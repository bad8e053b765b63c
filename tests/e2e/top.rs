//! `sparkgap top` and `sparkgap statusline`, and `GET /activity`, which both of them ask.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::client::{hello_stream, post_with};
use super::server::{Server, output_in};
use super::upstream::Upstream;

/// Runs the status line with this JSON on stdin. Returns its exit code and what it prints.
fn status_line(input: &str, environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sparkgap"));
    command.arg("statusline").env_clear().envs(environment.iter().copied());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may not read all of it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn ask(server: &Server, headers: &str) {
    let body = hello_stream().to_string();
    let answer = server.connect().ask(&post_with(headers, body.as_bytes()));
    assert_eq!(answer.status, 200);
}

#[test]
fn the_status_line_tells_of_the_last_turn() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    ask(&server, "x-claude-code-session-id: s-1\r\n");
    let url = format!("http://{}", server.address);
    let input = r#"{"session_id":"s-1","context_window":{"context_window_size":8192,"current_usage":{"input_tokens":20,"output_tokens":5}}}"#;
    let (code, line, stderr) = status_line(input, &[("ANTHROPIC_BASE_URL", &url)]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(line.starts_with("default · 20/8k 0% · cached 0% · "), "{line}");
    assert_eq!(line.lines().count(), 1);
    // Another session, no session, a hostile one, rubbish, and nothing at all.
    for input in [r#"{"session_id":"s-2"}"#, "{}", r#"{"session_id":"s-1&limit=9"}"#, "rubbish", ""] {
        let (code, line, stderr) = status_line(input, &[("SPARKGAP_URL", &url)]);
        assert_eq!((code, line.as_str(), stderr.as_str()), (Some(0), "", ""), "{input}");
    }
    // No sparkgap there: what Claude Code has told is shown.
    let (code, line, stderr) = status_line(input, &[("SPARKGAP_URL", "http://127.0.0.1:1")]);
    assert_eq!((code, line.as_str(), stderr.as_str()), (Some(0), "20/8k 0%\n", ""));
}

#[test]
fn top_prints_a_screen_and_json() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    ask(&server, "");
    let url = format!("http://{}", server.address);
    let (code, screen, stderr) = output_in(&["top", &url], &[]);
    assert!(code == Some(0) && screen.contains("0 in progress, 0 waiting"), "{screen}{stderr}");
    assert!(
        screen.contains(" 200 ") && screen.contains("claude-sonnet-5") && !screen.contains('\u{1b}'),
        "{screen}"
    );
    let (_, json, _) = output_in(&["top", "--json", "--once"], &[("SPARKGAP_URL", &url)]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["finished"][0]["status"], 200);
    let (code, _, stderr) = output_in(&["top", "127.0.0.1:1"], &[]);
    assert!(code == Some(1) && stderr.contains("no sparkgap answers at http://127.0.0.1:1"), "{stderr}");
}

#[test]
fn a_client_with_a_key_sees_its_own_requests() {
    let upstream = Upstream::start();
    let keys = Path::new(env!("CARGO_TARGET_TMPDIR")).join("top.keys");
    fs::write(&keys, "sk-anna-0123456789 anna\nsk-bert-0123456789 bert\nsk-owner-0123456789\n").unwrap();
    let server = Server::start_with(&upstream, &["--api-key-file", keys.to_str().unwrap()]);
    ask(&server, "x-api-key: sk-anna-0123456789\r\n");
    ask(&server, "x-api-key: sk-bert-0123456789\r\n");
    let url = format!("http://{}", server.address);
    let users = |key: &str| -> Vec<Value> {
        let (code, text, stderr) =
            output_in(&["top", "--json", "--once", &url], &[("SPARKGAP_API_KEY", key)]);
        assert_eq!(code, Some(0), "{stderr}");
        let told: Value = serde_json::from_str(&text).unwrap();
        told["finished"].as_array().unwrap().iter().map(|row| row["user"].clone()).collect()
    };
    assert_eq!(users("sk-anna-0123456789"), ["anna"]);
    assert_eq!(users("sk-owner-0123456789"), ["anna", "bert"]);
    let (code, _, stderr) = output_in(&["top", &url], &[]);
    assert!(code == Some(1) && stderr.contains("SPARKGAP_API_KEY"), "{stderr}");
}
