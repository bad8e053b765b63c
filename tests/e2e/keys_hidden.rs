//! Keys that clients and upstreams write into texts: those that others read have stars in their place.

use std::fs;

use serde_json::{Value, json};

use super::client::{Answer, hello, hello_stream};
use super::recorder::{CANARY, folder, rows, run, start};
use super::server::Server;
use super::upstream::{Gate, Upstream, text_chunks};

/// The key of another client.
const OTHER: &str = "sk-0123456789abcdef";

/// A server with two clients and a folder of the state.
fn with_keys(upstream: &Upstream, name: &str, more: &[&str]) -> (Server, std::path::PathBuf) {
    let folder = folder(name);
    let keys = folder.with_extension("keys");
    fs::write(&keys, format!("{CANARY} anna\n{OTHER} bob\n")).unwrap();
    let server = start(upstream, &folder, &[&["--api-key-file", keys.to_str().unwrap()], more].concat());
    (server, folder)
}

fn own() -> String {
    format!("x-api-key: {CANARY}\r\n")
}

fn post(path: &str, headers: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

fn get(server: &Server, method: &str, target: &str, headers: &str) -> Answer {
    let head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n{headers}\r\n");
    server.connect().ask(head.as_bytes())
}

#[test]
fn an_error_that_repeats_keys_has_stars_for_all_but_its_client() {
    let upstream = Upstream::start();
    let hooks = super::server::hooks_file(
        "keys-hidden",
        "return { on_log = function(record) log.warn('on_log: ' .. tostring(record.error)) end }",
    );
    let (server, folder) = with_keys(&upstream, "error-keys", &["--record", "all", "--hooks", &hooks]);
    let words = format!(
        "no: sk-CANARYU1abcdefghijklmnop1 ghp_CANARY4711abcdefghi password=CANARY-4711 {CANARY} {}",
        CANARY.replace('/', "\\/").replace('c', "\\u0063")
    );
    let error = json!({"error": {"message": words, "type": "BadRequestError", "code": 400}}).to_string();
    for path in ["/v1/messages", "/v1/chat/completions", "/v1/messages/count_tokens"] {
        upstream.next_answer(400, &error);
        let answer = server.connect().ask(&post(path, &own(), &hello()));
        assert!(answer.status != 400 || answer.text().contains("CANARYU1"), "{}", answer.text());
    }
    let activity = get(&server, "GET", "/activity", &own()).text().to_owned();
    let log = server.terminate_and_log();
    let (_, failed, _) = run(&folder, &["requests", "--failed"]);
    let (_, shown, _) = run(&folder, &["show", "last"]);
    for (place, text) in [("activity", &activity), ("log", &log), ("rows", &failed), ("recording", &shown)] {
        assert!(text.contains("***"), "{place}: {text}");
        for secret in ["CANARY", CANARY, "anary"] {
            assert!(!text.contains(secret), "{secret} in {place}: {text}");
        }
    }
    assert!(log.contains("on_log: "), "{log}");
    assert!(!format!("{:?}", rows(&folder)).contains("CANARY"));
}

#[test]
fn a_key_as_the_name_of_a_model_is_hidden_while_the_request_runs() {
    let upstream = Upstream::start();
    let (server, _) = with_keys(&upstream, "running-keys", &[]);
    let mut body = hello_stream();
    body["model"] = CANARY.into();
    for path in ["/v1/messages", "/v1/chat/completions"] {
        let (gate, has_come) = (Gate::default(), Gate::default());
        let (until, come) = (gate.clone(), has_come.clone());
        upstream.next(move |call| {
            come.open();
            until.wait();
            call.stream_head();
            text_chunks("Hi").iter().for_each(|chunk| call.chunk(chunk));
            call.done()
        });
        let mut client = server.connect();
        let more =
            format!("{}x-claude-code-session-id: {CANARY}\r\nx-claude-code-agent-id: {CANARY}\r\n", own());
        client.send(&post(path, &more, &body));
        has_come.wait();
        let mut viewer = server.connect();
        let head = format!("GET /ui/events HTTP/1.1\r\nhost: localhost\r\nx-api-key: {OTHER}\r\n\r\n");
        viewer.send(head.as_bytes());
        assert_eq!(viewer.head().status, 200);
        let event = String::from_utf8(viewer.piece().unwrap()).unwrap();
        let activity = get(&server, "GET", "/activity", &own()).text().to_owned();
        for text in [&event, &activity] {
            assert!(text.contains("\"phase\"") && text.contains("****") && !text.contains(CANARY), "{text}");
        }
        gate.open();
        assert_eq!(client.receive().status, 200);
    }
}

#[test]
fn a_refused_request_tells_the_log_nothing_of_its_key() {
    let upstream = Upstream::start();
    for format in ["text", "json"] {
        let (server, _) = with_keys(&upstream, &format!("refused-keys-{format}"), &["--log-format", format]);
        let long = "x".repeat(490);
        let mut sent = 0;
        for (method, target, more) in [
            ("GET", format!("/v1/{CANARY}"), String::new()),
            ("GET", format!("/v1/models/{CANARY}"), String::new()),
            ("GET", format!("/ui/recording/{CANARY}"), String::new()),
            ("POST", format!("/v1/audio/{CANARY}"), String::new()),
            ("GET", format!("/v1/{long}{CANARY}"), String::new()),
            ("GET", "/v1/models".to_owned(), "origin: http://canary.4711.example\r\n".to_owned()),
        ] {
            let answer = get(&server, method, &target, &format!("{}{more}", own()));
            assert!(answer.status >= 400, "{target} {}", answer.status);
            sent += 1;
        }
        let plain = "sk-canary-0123456789-model";
        for (method, target, more) in [
            (plain, "/v1/models".to_owned(), String::new()),
            ("GET", "/v1/models".to_owned(), format!("origin: http://{plain}\r\n")),
        ] {
            let answer = get(&server, method, &target, &format!("x-api-key: {plain}\r\n{more}"));
            assert!(answer.status >= 400, "{method} {target} {}", answer.status);
            sent += 1;
        }
        let log = server.terminate_and_log();
        assert!(log.matches("req_").count() >= sent - 1 && log.contains("***"), "{log}");
        let has_beginning = log.contains(&CANARY[..10]) && !log.contains("canary.4711.example");
        assert!(!log.contains(CANARY) && !log.contains(plain) && !has_beginning, "{log}");
    }
}
