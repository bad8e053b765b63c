//! Forbidden effects of a request: it must not forge lines of the log or of a response, or choose where it goes.

use std::io::ErrorKind;
use std::net::TcpListener;

use serde_json::json;

use super::client::{hello, hello_stream, post_with};
use super::server::{Server, hooks_file};
use super::upstream::Upstream;

/// A text that breaks out of a line wherever it is not escaped.
const FORGED: &str = "x\r\nx-forged: 1\r\n\r\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J\u{85}ERROR forged";

#[test]
fn no_line_is_forged() {
    let upstream = Upstream::start();
    let lua = r#"return { api = 1, on_request = function(req)
        log.info("a session: " .. (req.session or "none") .. " " .. req.model)
        if req.model:find("refuse") then return { reject = 403, message = req.model } end
    end }"#;
    let hooks = hooks_file("strangers", lua);
    let server = Server::start_with(&upstream, &["--hooks", &hooks, "--log-level", "trace"]);
    let mut odd = Vec::new();
    for key in ["model", "metadata", "unheard_of", "service_tier"] {
        let mut body = hello();
        body[key] = FORGED.into();
        odd.push(body);
    }
    let mut body = hello();
    body["model"] = format!("refuse {FORGED}").into();
    odd.push(body);
    let mut body = hello_stream();
    body["messages"][0]["role"] = FORGED.into();
    odd.push(body);
    let mut body = hello();
    body["tools"] = json!([{"name": FORGED, "input_schema": {"type": FORGED}}]);
    odd.push(body);
    let mut client = server.connect();
    for body in &odd {
        let answer = client.ask(&post_with("", body.to_string().as_bytes()));
        assert_eq!(answer.header("x-forged"), None, "{answer:?}");
        answer.has_request_id();
    }
    // Bytes that HTTP itself cannot carry are refused as a request.
    let plain = hello().to_string();
    for header in
        ["x-claude-code-session-id: a\rb\r\n", "x-claude-code-session-id: a\u{0}b\r\n", "a b: c\r\n"]
    {
        assert_eq!(server.connect().ask(&post_with(header, plain.as_bytes())).status, 400, "{header:?}");
    }
    client.ask(&post_with("x-claude-code-session-id: a\tb \u{85}c\r\n", plain.as_bytes()));
    for target in
        ["/%0d%0aERROR forged", "/%0d%0aERROR%20forged", "/\u{85}ERROR", "/?a=%0aERROR forged", "/\u{1b}[2J"]
    {
        let answer =
            server.connect().ask(format!("GET {target} HTTP/1.1\r\nconnection: close\r\n\r\n").as_bytes());
        assert!(matches!(answer.status, 200 | 400 | 404), "{target}: {answer:?}");
    }
    server.connect().ask(b"G\x1bT / HTTP/1.1\r\n\r\n");
    assert!(server.terminate_and_log().lines().all(is_line), "{}", "a line without its time");
}

/// True if the line begins with its own time and level, and nothing in it commands a terminal.
fn is_line(line: &str) -> bool {
    let (time, rest) = line.split_once(' ').unwrap_or_default();
    let level = rest.split(' ').next().unwrap_or_default();
    let whole = time.len() == 24
        && time.ends_with('Z')
        && ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level)
        && !line.contains(|c: char| c.is_control());
    assert!(whole, "{line:?}");
    whole
}

#[test]
fn no_request_chooses_where_it_goes() {
    let upstream = Upstream::start();
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let there = elsewhere.local_addr().unwrap().to_string();
    let server = Server::start(&upstream);
    let mut asked = 0;
    let mut ask = |target: &str, headers: &str, key: &str, value: &str| {
        let mut body = hello();
        body[key] = value.into();
        let body = body.to_string();
        let head = format!(
            "POST {target} HTTP/1.1\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let answer = server.connect().ask(&[head.as_bytes(), body.as_bytes()].concat());
        asked += 1;
        assert_eq!(answer.status, 200, "{head}: {}", answer.text());
    };
    let url = format!("http://{there}/v1");
    ask(&format!("http://{there}/v1/messages"), "", "x", "");
    ask(&format!("/v1/messages?upstream={url}&api_base={url}"), "", "x", "");
    for header in
        ["host", "x-forwarded-host", "forwarded", "x-upstream", "x-api-base", "referer", "via", "proxy"]
    {
        ask("/v1/messages", &format!("{header}: {there}\r\n"), "x", "");
    }
    for key in ["model", "upstream", "api_base", "base_url", "url", "host", "proxy", "metadata"] {
        ask("/v1/messages", "", key, &url);
    }
    for model in ["../../x", "default/../x", &format!("@{there}/"), "\r\nhost: x\r\n"] {
        ask("/v1/messages", "", "model", model);
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), asked);
    for one in seen {
        assert!(one.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{}", one.head);
        assert!(!one.head.contains(&there), "{}", one.head);
    }
    assert_eq!(elsewhere.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "somebody was led there");
}
