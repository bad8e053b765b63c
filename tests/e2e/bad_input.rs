//! Bad requests: each gets its error, which names the field as the client wrote it, and disturbs no other request.

use serde_json::{Value, json};

use super::client::{Answer, hello, post, post_with};
use super::server::Server;
use super::upstream::Upstream;

/// Bodies, each with its message. All are answered with a 400.
fn bodies() -> Vec<(Vec<u8>, &'static str)> {
    const CUT: &str = "The request body is not valid JSON: the document is cut short or malformed";
    const MALFORMED: &str = "The request body is not valid JSON: malformed";
    const ESCAPE: &str = "The request body is not valid JSON: a string with a broken \\u escape";
    const DEEP: &str = "The request body is not valid JSON: nested deeper than 128 levels";
    const NO_OBJECT: &str = "The request body must be a JSON object";
    let deep = |open: &str, close: &str| {
        let (open, close) = (open.repeat(1000), close.repeat(1000));
        let body = hello().to_string().replace("\"Hi\"", &format!("{open}1{close}"));
        assert!(body.contains(&open));
        body.into_bytes()
    };
    let mut broken_utf8 = hello().to_string().into_bytes();
    let at = broken_utf8.windows(2).position(|pair| pair == b"Hi").unwrap();
    broken_utf8[at] = 0xff;
    let whole = hello().to_string();
    let changed = |from: &str, to: &str| whole.replace(from, to).into_bytes();
    vec![
        (b"".to_vec(), CUT),
        (b" ".to_vec(), CUT),
        (b"{".to_vec(), CUT),
        (b"nope".to_vec(), MALFORMED),
        (
            whole.trim_end_matches('}').into(),
            "The request body is not valid JSON: the document is cut short or malformed near byte 70",
        ),
        ([whole.as_bytes(), b"}"].concat(), "The request body is not valid JSON: malformed near byte 87"),
        (whole.repeat(2).into_bytes(), "The request body is not valid JSON: malformed near byte 87"),
        (changed(":", "="), "The request body is not valid JSON: malformed near byte 13"),
        (changed("\"Hi\"", "'Hi'"), "The request body is not valid JSON: malformed near byte 41"),
        (changed("100", "0100"), "The request body is not valid JSON: a malformed number near byte 15"),
        (changed("100", "NaN"), "The request body is not valid JSON: malformed near byte 14"),
        (changed("Hi", "a\nb"), CUT),
        (deep("[", "]"), DEEP),
        (deep("{\"a\":", "}"), DEEP),
        ("[".repeat(200_000).into_bytes(), DEEP),
        (broken_utf8, "The request body is not valid JSON: invalid UTF-8"),
        (changed("Hi", "\\u12"), ESCAPE),
        (changed("Hi", "\\ud83"), ESCAPE),
        (changed("Hi", "\\x41"), MALFORMED),
        (b"null".to_vec(), NO_OBJECT),
        (b"[]".to_vec(), NO_OBJECT),
        (b"\"text\"".to_vec(), NO_OBJECT),
        (b"1".to_vec(), NO_OBJECT),
    ]
}

/// A member of the body to change (`None` removes it), and the start of the message.
type Member = (&'static str, Option<Value>, &'static str);

fn members() -> Vec<Member> {
    vec![
        ("model", None, "model: Field required"),
        ("model", Some(json!(1)), "model: Input should be a valid string"),
        ("model", Some(json!(null)), "model: Input should be a valid string"),
        ("model", Some(json!("")), "model: String should have at least 1 character"),
        ("max_tokens", None, "max_tokens: Field required"),
        ("max_tokens", Some(json!("100")), "max_tokens: Input should be a valid integer"),
        ("max_tokens", Some(json!(1.5)), "max_tokens: Input should be a valid integer"),
        ("max_tokens", Some(json!(-1)), "max_tokens: Input should be greater than or equal to 0"),
        ("max_tokens", Some(json!(null)), "max_tokens: Input should be a valid integer"),
        ("max_tokens", Some(json!(1e300)), "max_tokens: Input should be a valid integer"),
        ("system", Some(json!(1)), "system: Input should be a valid string or a list of text blocks"),
        ("system", Some(json!([{"type": "text"}])), "system.0.text: Field required"),
        ("stream", Some(json!("true")), "stream: Input should be a valid boolean"),
        ("stream", Some(json!(1)), "stream: Input should be a valid boolean"),
        ("temperature", Some(json!("hot")), "temperature: Input should be a valid number"),
        ("stop_sequences", Some(json!("END")), "stop_sequences: Input should be a valid list"),
        (
            "stop_sequences",
            Some(json!([" \t"])),
            "stop_sequences: each stop sequence must contain non-whitespace",
        ),
        ("stop_sequences", Some(json!(["END", 1])), "stop_sequences.1: Input should be a valid string"),
        ("tools", Some(json!({})), "tools: Input should be a valid list"),
        ("tools", Some(json!([{"input_schema": {}}])), "tools.0.name: Field required"),
        (
            "tools",
            Some(json!([{"name": "", "input_schema": {}}])),
            "tools.0.name: String should have at least 1 character",
        ),
        ("tools", Some(json!([{"name": "x"}])), "tools.0.input_schema: Field required"),
        (
            "tools",
            Some(json!([{"name": "x", "input_schema": []}])),
            "tools.0.input_schema: Input should be an object",
        ),
        ("tool_choice", Some(json!("auto")), "tool_choice: Input should be an object"),
        (
            "tool_choice",
            Some(json!({"type": "some"})),
            "tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'",
        ),
        ("tool_choice", Some(json!({"type": "tool"})), "tool_choice.name: Field required"),
        ("thinking", Some(json!(true)), "thinking: Input should be an object"),
        ("thinking", Some(json!({})), "thinking.type: Field required"),
        ("thinking", Some(json!({"type": "enabled"})), "thinking.budget_tokens: Field required"),
        (
            "thinking",
            Some(json!({"type": "enabled", "budget_tokens": 1023})),
            "thinking.budget_tokens: Input should be greater than or equal to 1024",
        ),
        ("output_config", Some(json!([])), "output_config: Input should be an object"),
        (
            "output_config",
            Some(json!({"format": {"type": "xml"}})),
            "output_config.format.type: Input should be 'json_schema'",
        ),
        ("compaction", Some(json!({})), "compaction: not supported"),
    ]
}

fn messages() -> Vec<Member> {
    let user = |content: Value| Some(json!([{"role": "user", "content": content}]));
    vec![
        ("messages", None, "messages: Field required"),
        ("messages", Some(json!([])), "messages: at least one message is required"),
        ("messages", Some(json!({})), "messages: Input should be a valid list"),
        ("messages", Some(json!("Hi")), "messages: Input should be a valid list"),
        ("messages", Some(json!(["Hi"])), "messages.0: Input should be an object"),
        ("messages", Some(json!([{"content": "Hi"}])), "messages.0.role: Field required"),
        (
            "messages",
            Some(json!([{"role": "tool", "content": "Hi"}])),
            "messages.0.role: Input should be 'user' or 'assistant'",
        ),
        (
            "messages",
            Some(json!([{"role": 1, "content": "Hi"}])),
            "messages.0.role: Input should be a valid string",
        ),
        ("messages", Some(json!([{"role": "user"}])), "messages.0.content: Field required"),
        (
            "messages",
            user(json!(1)),
            "messages.0.content: Input should be a valid string or a list of blocks",
        ),
        (
            "messages",
            user(json!(null)),
            "messages.0.content: Input should be a valid string or a list of blocks",
        ),
        ("messages", user(json!("")), "messages.0: user messages must have non-empty content"),
        ("messages", user(json!(["Hi"])), "messages.0.content.0: Input should be an object"),
        ("messages", user(json!([{"text": "Hi"}])), "messages.0.content.0.type: Field required"),
        ("messages", user(json!([{"type": 1}])), "messages.0.content.0.type: Input should be a valid string"),
        ("messages", user(json!([{"type": "text"}])), "messages.0.content.0.text: Field required"),
        (
            "messages",
            user(json!([{"type": "text", "text": []}])),
            "messages.0.content.0.text: Input should be a valid string",
        ),
        ("messages", user(json!([{"type": "image"}])), "messages.0.content.0.source: Field required"),
        (
            "messages",
            user(json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png"}}])),
            "messages.0.content.0.source.data: Field required",
        ),
        (
            "messages",
            user(json!([{"type": "tool_result"}])),
            "messages.0.content.0.tool_use_id: Field required",
        ),
        (
            "messages",
            Some(
                json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]}]),
            ),
            "messages.1.content.0.name: Field required",
        ),
    ]
}

fn refused(answer: &Answer, status: u16, message: &str, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    let (kind, found) = answer.error();
    let expected = match status {
        404 => "not_found_error",
        413 => "request_too_large",
        _ => "invalid_request_error",
    };
    assert_eq!(kind, expected, "{what}");
    assert_eq!(found, message, "{what}");
}

/// A server for one connection at a time: it serves the next one only when the last one has left nothing behind.
fn server(upstream: &Upstream) -> Server {
    Server::start_with(upstream, &["--connections-max", "1"])
}

/// Asks on a new connection, once the old one's place is free.
fn ask_alone(server: &Server, bytes: &[u8], shut: bool) -> Option<Answer> {
    for _ in 0..1_000_000 {
        let mut client = server.connect();
        client.send(bytes);
        if shut {
            client.shut();
        }
        let rest = client.line();
        if rest.is_empty() {
            return None;
        }
        if rest.starts_with("HTTP/1.1 529 ") {
            continue;
        }
        let status = rest.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        while let Some((name, value)) = client.line().split_once(": ") {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        return Some(Answer { status, headers, body: client.rest() });
    }
    panic!("the server has lost its place for a connection");
}

fn is_alive(server: &Server) {
    let request = super::client::post_with("connection: close\r\n", hello().to_string().as_bytes());
    ask_alone(server, &request, false).unwrap().message();
}

// covers: 98
#[test]
fn bodies_that_are_no_request() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    for (body, message) in bodies() {
        let what = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
        refused(&client.ask(&post(&body)), 400, message, &what);
    }
    client.post(&hello()).message();
    assert_eq!(upstream.seen().len(), 1, "no bad request reaches the upstream");
}

#[test]
fn members_of_the_wrong_type_are_named() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    for (key, value, message) in members().into_iter().chain(messages()) {
        let mut body = hello();
        let what = format!("{key}: {value:?}");
        match value {
            Some(value) => body[key] = value,
            None => _ = body.as_object_mut().unwrap().remove(key),
        }
        for stream in [false, true] {
            if key != "stream" {
                body["stream"] = stream.into();
            }
            refused(&client.post(&body), 400, message, &what);
        }
    }
    client.post(&hello()).message();
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn what_is_unknown_or_odd_but_clear_is_served() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    for (key, value) in [
        ("safeguards", json!([{"type": "dangerous_tool_use"}])),
        ("context_management", json!({"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]})),
        ("metadata", json!({"user_id": "{\"device_id\":\"x\"}"})),
        ("metadata", json!(1)),
        ("unheard_of", json!({"a": [1, null]})),
        ("system", json!(null)),
        ("system", json!([])),
        ("tools", json!([])),
        ("tools", json!(null)),
        ("stop_sequences", json!([])),
        ("temperature", json!(7)),
        ("thinking", json!({"type": "invented_later"})),
        ("stream", json!(null)),
        ("max_tokens", json!(u64::MAX)),
        ("messages", json!([{"role": "user", "content": [{"type": "unheard_of", "text": "Hi"}]}])),
        ("messages", json!([{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}])),
    ] {
        let mut body = hello();
        body[key] = value;
        client.post(&body).message();
    }
    for text in ["\\ud83d\\ude42", "\\u0000", "\\u007f", "\u{feff}", "\u{202e}"] {
        client.ask(&post(hello().to_string().replace("Hi", text).as_bytes())).message();
    }
    // Only a thinking type that cannot be followed is worth a warning.
    let log = server.terminate_and_log();
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
    assert!(log.contains(" do not support it: thinking of type invented_later"), "{log}");
}

#[test]
fn half_an_emoji_is_a_replacement_character() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    for (text, expected) in [
        ("\\ud800", "\u{fffd}"),
        ("\\uDC00 x", "\u{fffd} x"),
        ("\\ud83d\\ud83d\\ude42", "\u{fffd}\u{1f642}"),
        ("\\\\ud83d", "\\ud83d"),
    ] {
        client.ask(&post(hello().to_string().replace("Hi", text).as_bytes())).message();
        assert_eq!(upstream.seen().last().unwrap().body["messages"][0]["content"], expected, "{text}");
    }
}

/// The bytes that are sent, and the status and message of the answer.
#[allow(clippy::too_many_lines, reason = "a table")]
fn requests() -> Vec<(&'static [u8], u16, &'static str)> {
    vec![
        (
            &b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\n\r\n"[..],
            411,
            "POST needs a content-length header",
        ),
        (
            b"POST /v1/messages HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            400,
            "malformed request: content-length header not a number",
        ),
        (
            b"POST /v1/messages HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
            400,
            "malformed request: conflicting content-length headers",
        ),
        (
            b"POST /v1/messages HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
            400,
            "both content-length and transfer-encoding",
        ),
        (
            b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n{}",
            400,
            "transfer-encoding: only chunked is supported",
        ),
        (b"GARBAGE\r\n\r\n", 400, "malformed request: invalid token"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "malformed request: invalid HTTP version"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "malformed request: invalid header name"),
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            400,
            "this port speaks plain HTTP: use http:// instead of https://",
        ),
        (b"\x00\x00\x00\x00", 400, "malformed request: it does not start with a method"),
        (b"GET /nothing HTTP/1.1\r\nconnection: close\r\n\r\n", 404, "Not found: GET /nothing"),
        (
            b"GET /v1/messages/ HTTP/1.1\r\nconnection: close\r\n\r\n",
            405,
            "GET is not for /v1/messages/; use POST",
        ),
        (
            b"PUT /health HTTP/1.1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            405,
            "PUT is not for /health; use GET or HEAD",
        ),
        (
            b"BREW /v1/messages HTTP/1.1\r\nconnection: close\r\n\r\n",
            405,
            "BREW is not for /v1/messages; use POST",
        ),
        (b"GET /v1/models/unheard-of HTTP/1.1\r\nconnection: close\r\n\r\n", 404, "model: unheard-of"),
        (
            b"POST /v1/messages HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
            400,
            "malformed request: content-length header not a number",
        ),
        (
            b"POST /v1/messages HTTP/1.1\r\ncontent-length: 33554433\r\n\r\n",
            413,
            "request body over 33554432 bytes",
        ),
        (
            b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            400,
            "malformed chunk: its size is not a hexadecimal number",
        ),
        (
            b"POST /v1/messages HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "transfer-encoding in an HTTP/1.0 request",
        ),
        (
            b"POST /v1/messages HTTP/1.1\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
            400,
            "content-encoding: 'gzip' is not supported; send the body as it is",
        ),
    ]
}

#[test]
fn requests_that_are_no_http() {
    let upstream = Upstream::start();
    let server = server(&upstream);
    for (bytes, status, message) in requests() {
        let what = String::from_utf8_lossy(bytes).into_owned();
        let answer = ask_alone(&server, bytes, true).unwrap_or_else(|| panic!("{what}: no answer"));
        refused(&answer, status, message, &what);
        is_alive(&server);
    }
}

// covers: 33
#[test]
fn an_encoded_body_is_refused_with_the_apis_code() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let body = [0x1f, 0x8b, 8, 0];
    let answer = server.connect().ask(&post_with("content-encoding: gzip\r\n", &body));
    assert_eq!((answer.status, answer.error().0.as_str()), (400, "invalid_request_error"));
    assert_eq!(answer.json()["error"]["details"]["error_code"], "request_body_encoding_unsupported");
    // Names for no encoding at all.
    for name in ["Identity", "none"] {
        let body = hello().to_string();
        let header = format!("content-encoding: {name}\r\n");
        assert_eq!(server.connect().ask(&post_with(&header, body.as_bytes())).status, 200, "{name}");
    }
}

#[test]
fn clients_that_leave_too_early() {
    let upstream = Upstream::start();
    let server = server(&upstream);
    let whole = post(hello().to_string().as_bytes());
    for size in [0, 1, 10, 60, whole.len() - 20, whole.len() - 1] {
        // The client ends its side of the connection, then the whole connection.
        assert!(ask_alone(&server, &whole[..size], true).is_none(), "an answer to {size} bytes");
        drop_alone(&server, &whole[..size]);
        is_alive(&server);
    }
    let chunked = b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"mo";
    assert!(ask_alone(&server, chunked, true).is_none());
    is_alive(&server);
    assert_eq!(upstream.seen().len(), 7, "only the whole ones were asked");
    let log = server.terminate_and_log();
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
}

fn drop_alone(server: &Server, bytes: &[u8]) {
    let mut client = server.connect();
    client.send(bytes);
}
