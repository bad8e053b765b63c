//! The demo, `check`, and the texts of the command line.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::client::{hello, hello_stream};
use super::server::{Server, first_output, output};

const BASH: &str = r#"[{"name": "Read", "input_schema": {"type": "object"}}, {"name": "Bash", "description": "Runs a command",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}, "timeout": {"type": "number"}}, "required": ["command"]}}]"#;

#[test]
fn the_demo_thinks_calls_a_tool_and_ends() {
    let server = Server::run(&["demo"], &[]);
    server.wait_for("upstream default: vllm, serves demo");
    let mut client = server.connect();
    let mut body = hello_stream();
    body["thinking"] = json!({"type": "adaptive"});
    body["tools"] = serde_json::from_str(BASH).unwrap();
    let answer = client.post(&body);
    let content = answer.whole_events();
    let kinds: Vec<&str> = content.iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use"]);
    assert_eq!(content[2]["name"], "Bash");
    assert!(content[2]["input"]["command"].as_str().unwrap().starts_with("echo "), "{content:?}");
    assert_eq!(answer.data("message_delta")[0]["delta"]["stop_reason"], "tool_use");

    let result =
        json!({"type": "tool_result", "tool_use_id": content[2]["id"], "content": "Hello from here"});
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": content}));
    messages.push(json!({"role": "user", "content": [result]}));
    messages.push(json!({"role": "system", "content": "Be brief."}));
    body["stream"] = false.into();
    let content = client.post(&body).message();
    let text = content.last().unwrap()["text"].as_str().unwrap();
    assert!(text.contains("Hello from here") && !text.contains("Be brief"), "{text}");
}

#[test]
fn the_demo_without_tools_says_so() {
    let server = Server::run(&["demo"], &[]);
    let content = server.connect().post(&hello()).message();
    assert_eq!(content.len(), 1);
    assert!(content[0]["text"].as_str().unwrap().contains("demo"));
}

#[test]
fn the_demo_streams_only_on_request() {
    let server = Server::run(&["demo"], &[]);
    for (more, kind) in [("", "json"), (",\"stream\":false", "json"), (",\"stream\":true", "event-stream")] {
        let body = format!(r#"{{"model":"demo","messages":[{{"role":"user","content":"Hi"}}]{more}}}"#);
        let length = body.len();
        let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json";
        let request = format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}");
        let answer = server.connect().ask(request.as_bytes());
        assert!(answer.header("content-type").unwrap().ends_with(kind), "{answer:?}");
        if kind == "json" {
            let choice = &answer.json()["choices"][0];
            assert_eq!(choice["finish_reason"], "stop");
            assert!(choice["message"]["content"].as_str().unwrap().contains("demo"), "{choice}");
        }
    }
}

#[test]
fn the_demo_prints_the_line_that_starts_claude_code() {
    let text = first_output(&["demo", "--listen", "127.0.0.1:0"], " claude\n");
    let base = text.strip_prefix("sparkgap listens on ").unwrap().lines().next().unwrap();
    assert!(base.starts_with("http://127.0.0.1:"), "{text}");
    let program = env!("CARGO_BIN_EXE_sparkgap");
    assert!(text.contains(&format!("\n  SPARKGAP_URL={base} {program} claude\n")), "{text}");
}

#[test]
fn the_busy_demo_has_boxes_and_people() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("busy-demo");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).unwrap();
    let server = Server::run(&["demo", "--busy"], &[("TMPDIR", folder.to_str().unwrap())]);
    server.wait_until(|health| {
        health["pool"].as_object().unwrap().len() == 3 && health["requests"].as_u64() >= Some(3)
    });
    let mut client = server.connect();
    client.send(b"GET /ui/events HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(client.head().status, 200);
    let text = client.read_until("\"finished\":[{");
    assert!(text.contains("claude-opus-5-5") && text.contains("\"agent\":"), "{text}");
    let id = text.rsplit_once("\"request_id\":\"").map_or("", |(_, rest)| rest).split('"').next().unwrap();
    let target = format!("GET /ui/recording/{id}?part=client_body HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let recorded = loop {
        let answer = server.connect().ask(target.as_bytes());
        if answer.status == 200 {
            break answer.json();
        }
        // It is still running, or not written yet.
        assert!(matches!(answer.status, 404 | 409), "{answer:?}");
    };
    assert!(recorded["text"].as_str().unwrap().starts_with("{\n  \"model\": \"claude-"), "{recorded}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    assert!(server.terminate());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "the recordings of the demo end with it");
}

#[test]
fn check_prints_how_names_are_mapped() {
    let (code, text, _) = output(&["check", "--upstream", "http://127.0.0.1:1/v1"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("http://127.0.0.1:1/v1") && text.contains("->"), "{text}");
    let (code, text, _) = output(&["check", "--json", "--upstream", "http://127.0.0.1:1/v1"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &value["upstreams"][0]["name"]), (Some(0), &json!("default")));
}

#[test]
fn each_mistake_ends_with_the_expected_form() {
    for (arguments, status, expected) in [
        (&["serve", "--upstream", "spark:8000"][..], 78, "--upstream: "),
        (&["check", "--hooks", "/does/not/exist.lua"], 1, "/does/not/exist.lua"),
        (&["serve", "--listen", "nowhere"], 1, "cannot listen on nowhere"),
        (&["--upstrem", "x"], 64, "--upstrem"),
        (&["serve", "--log-level", "loud"], 64, "loud"),
    ] {
        let (code, stdout, stderr) = output(arguments);
        assert_eq!((code, stdout.as_str()), (Some(status), ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected) && !stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn help_and_version_are_printed() {
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["demo", "--help"],
        &["check", "--help"],
        &["hook", "--help"],
        &["import", "--help"],
    ] {
        let (code, text, _) = output(arguments);
        assert!(code == Some(0) && text.contains("Examples:"), "{arguments:?}: {text}");
    }
    let (code, text, _) = output(&["--version"]);
    assert_eq!((code, text), (Some(0), format!("sparkgap {}\n", env!("CARGO_PKG_VERSION"))));
}
