//! An upstream that speaks the Messages API itself: bytes pass as they are, keys reach nobody else, and a request that fails
//! there before its first byte goes to a box.

use std::io::Write as _;
use std::time::Instant;

use serde_json::{Value, json};

use super::client::{Answer, hello, hello_stream, post_with};
use super::messages_api::{MessagesApi, stream, streamed};
use super::server::{Server, hooks_file, output};
use super::upstream::{MODEL, Upstream, closed};

/// A key of a client for the API.
const CANARY: &str = "sk-ant-canary-0123456789";

pub(super) const KEY: &str = "x-api-key: sk-ant-canary-0123456789\r\n";

/// Starts `serve` with `claude-opus-*` at the API and all other models at a box, and more Lua in the table.
pub(super) fn start_with(
    name: &str,
    cloud: &str,
    boxed: &Upstream,
    aliases: &str,
    more: &str,
    arguments: &[&str],
) -> Server {
    let lua = format!(
        r#"return {{ api = 1,
            upstreams = {{
              cloud = {{ url = "{cloud}", protocol = "messages", auth = "client" }},
              box = {{ url = "{}" }},
            }},
            aliases = {{ {aliases} {{ "*", upstream = "box" }} }},
            {more} }}"#,
        boxed.url()
    );
    let file = hooks_file(&format!("cloud-{name}"), &lua);
    let server = Server::run(&[&["serve", "--hooks", &file], arguments].concat(), &[]);
    server.wait_for("upstream box: ");
    server
}

pub(super) const OPUS: &str = r#"{ "claude-opus-*", upstream = "cloud" },"#;
pub(super) const BACKED: &str = r#"{ "claude-opus-*", upstream = "cloud", backup = { "box" } },"#;

pub(super) fn start(name: &str, api: &MessagesApi, boxed: &Upstream, aliases: &str, more: &str) -> Server {
    start_with(name, &api.url(), boxed, aliases, more, &[])
}

pub(super) fn ask(server: &Server, headers: &str, body: &str) -> Answer {
    server.connect().ask(&post_with(headers, body.as_bytes()))
}

pub(super) fn opus(mut body: Value) -> String {
    body["model"] = "claude-opus-5".into();
    body.to_string()
}

#[test]
fn bytes_pass_as_they_are_in_both_directions() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("bytes", &api, &boxed, OPUS, "");
    let odd = concat!(
        "\r\n {\"stream\" :true,\"x\":123456789012345678901234567890, \"y\":1e2,\"y\":-0.0, \"model\"\t: \"claude-opus-5\",",
        "\"messages\":[{\"role\":\"user\",\"content\":\"\\u00e9\\/\\ud83d\\ude00 <&>\"},{\"role\":\"wizard\",\"content\":7}],\n\"new_field\":{\"b\":1,\"a\":2}}  "
    );
    let events = "event: message_start\r\ndata: {\"type\":\"message_start\",\"odd\":1e2}\r\n\r\n: comment\n\nevent: new\ndata: {\"a\" : 30000000000000000000000000000000}\n\ndata: not json\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    api.next_bytes(streamed(events));
    let headers = format!(
        "{KEY}anthropic-version: 2026-10-21\r\nanthropic-beta: a-2025,b-2026\r\nx-claude-code-session-id: s\r\nuser-agent: claude-cli/2 (external, cli)\r\nX-App: cli\r\nx-secret: mine\r\ncookie: c=d\r\nx-forwarded-for: 10.0.0.9\r\n"
    );
    let request = post_with(&headers, odd.as_bytes());
    let request =
        String::from_utf8(request).unwrap().replace("/v1/messages HTTP", "/v1/messages?beta=true HTTP");
    let answer = server.connect().ask(request.as_bytes());
    assert_eq!((answer.status, answer.text()), (200, events));
    assert_eq!(answer.header("request-id"), Some("req_cloud"));
    assert_eq!(answer.header("anthropic-ratelimit-requests-remaining"), Some("49"));
    assert_eq!((answer.header("set-cookie"), answer.header("server")), (None, None));
    let got = &api.got()[0];
    assert_eq!(String::from_utf8(got.body.clone()).unwrap(), odd);
    assert!(got.head.starts_with("POST /v1/messages?beta=true HTTP/1.1\r\n"), "{}", got.head);
    for (name, value) in [
        ("x-api-key", Some(CANARY)),
        ("anthropic-version", Some("2026-10-21")),
        ("anthropic-beta", Some("a-2025,b-2026")),
        ("x-claude-code-session-id", Some("s")),
        ("user-agent", Some("claude-cli/2 (external, cli)")),
        ("x-app", Some("cli")),
        ("x-secret", None),
        ("cookie", None),
        ("x-forwarded-for", None),
        ("authorization", None),
    ] {
        assert_eq!(got.header(name), value, "{name}: {}", got.head);
    }
    assert_eq!(got.head.matches("user-agent").count(), 1);
    assert!(boxed.seen().is_empty());
}

#[test]
fn answers_that_are_not_streams_pass_with_their_status_and_headers() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("whole", &api, &boxed, OPUS, "");
    let error = "{\"type\":\"error\", \"error\":{\"type\":\"new_error\",\"message\":\"Slow down.\"}}\n";
    for (status, headers) in [
        (200, ""),
        (400, "x-should-retry: false\r\n"),
        (401, ""),
        (404, ""),
        (413, ""),
        (429, "retry-after: 7\r\nanthropic-ratelimit-unified-status: rejected\r\n"),
        (500, ""),
        (529, "retry-after-ms: 1500\r\n"),
    ] {
        api.next_answer(status, &format!("request-id: req_x\r\n{headers}"), error);
        for body in [opus(hello_stream())] {
            let answer = ask(&server, KEY, &body);
            assert_eq!((answer.status, answer.text()), (status, error));
            assert_eq!(answer.header("request-id"), Some("req_x"));
            for line in headers.lines() {
                let (name, value) = line.split_once(": ").unwrap();
                assert_eq!(answer.header(name), Some(value), "{status}");
            }
        }
    }
    // Nothing is sent twice: the client decides.
    assert_eq!(api.got().len(), 8);
    server.wait_for("Slow down.");
    // An error without a body, and one that is not JSON.
    api.next_answer(502, "", "");
    assert_eq!(ask(&server, KEY, &opus(hello())).status, 502);
    api.next_bytes("HTTP/1.1 503 x\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<h1>");
    let answer = ask(&server, KEY, &opus(hello()));
    assert_eq!(
        (answer.status, answer.text(), answer.header("content-type")),
        (503, "<h1>", Some("text/html"))
    );
    assert!(server.terminate_and_log().contains("/claude-opus-5"));
}

#[test]
fn other_names_of_a_model_are_written_into_the_client_s_bytes() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let alias =
        r#"{ "smart", upstream = "cloud", model = "claude-opus-5" }, { "claude-*", upstream = "cloud" },"#;
    let server = start("names", &api, &boxed, alias, "");
    for (name, expected) in [
        ("smart", "claude-opus-5"),
        ("claude-x", "claude-x"),
        ("anthropic/claude-x", "claude-x"),
        ("claude-x[1m]", "claude-x"),
    ] {
        let body = format!(
            "{{\"max_tokens\":9, \"model\":\"{name}\" ,\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}]}}"
        );
        assert_eq!(ask(&server, KEY, &body).status, 200);
        let got = String::from_utf8(api.got().pop().unwrap().body).unwrap();
        assert_eq!(got, body.replace(name, expected));
    }
    let body = hello();
    let count = format!(
        "POST /v1/messages/count_tokens?beta=true HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{KEY}"
    );
    let text = opus(body);
    let request = format!("{count}content-length: {}\r\n\r\n{text}", text.len());
    let answer = server.connect().ask(request.as_bytes());
    assert_eq!((answer.status, answer.text()), (200, r#"{"input_tokens":1234}"#));
    let got = api.got().pop().unwrap();
    assert!(got.head.starts_with("POST /v1/messages/count_tokens?beta=true "), "{}", got.head);
    assert_eq!(String::from_utf8(got.body).unwrap(), text);
}

#[test]
fn a_hook_that_changes_nothing_changes_no_byte_and_one_that_does_is_heard() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let more = r#"
        on_request = function(req)
          for _, name in ipairs({ "x-api-key", "authorization", "x-sparkgap-key" }) do
            if pcall(function() return req.headers[name] end) then req.body.seen = name end
          end
          if req.headers["x-edit"] then req.body.metadata = { user_id = "edited" } end
        end,
        on_upstream_request = function(body, req)
          if req.headers["x-late"] then body.top_k = 5 end
        end,"#;
    let server = start("hooks", &api, &boxed, OPUS, more);
    let body = "{ \"model\":\"claude-opus-5\", \"n\":1e2, \"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"\\u0048i\"}] }";
    assert_eq!(ask(&server, KEY, body).status, 200);
    assert_eq!(String::from_utf8(api.got().pop().unwrap().body).unwrap(), body);
    for (header, key) in [("x-edit: 1\r\n", "metadata"), ("x-late: 1\r\n", "top_k")] {
        assert_eq!(ask(&server, &format!("{KEY}{header}"), body).status, 200);
        let got: Value = serde_json::from_slice(&api.got().pop().unwrap().body).unwrap();
        assert!(!got[key].is_null() && got["messages"][0]["content"] == "Hi", "{got}");
    }
    // A closed hook that sees answers cannot see these.
    let closed = r#"on_tool_call = { policy = "closed", run = function() end },"#;
    let server = start("closed", &api, &boxed, OPUS, closed);
    let answer = ask(&server, KEY, &opus(hello()));
    assert_eq!(answer.status, 403);
    assert!(answer.error().1.contains("on_tool_call"), "{}", answer.text());
}

#[test]
fn the_upstream_s_own_key_reaches_no_client() {
    const OWN: &str = "sk-ant-own-0123456789";
    let api = MessagesApi::start();
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ cloud = {{ url = "{}", protocol = "messages", api_key = "{OWN}" }} }} }}"#,
        api.url()
    );
    let server = Server::run(&["serve", "--hooks", &hooks_file("cloud-own-key", &lua)], &[]);
    server.wait_for("listens on");
    // One byte that is not UTF-8 does not let the key through, and stays if there is no key.
    for (key, path) in [(OWN, ""), (OWN, "/count_tokens"), ("none", ""), ("none", "/count_tokens")] {
        let body = [b"bad key \xff", key.as_bytes(), b"."].concat();
        let head = format!("HTTP/1.1 400 Bad\r\nrequest-id: {key}\r\ncontent-length: {}\r\n\r\n", body.len());
        api.next_bytes([head.as_bytes(), &body].concat());
        let request = String::from_utf8(post_with("", opus(hello()).as_bytes())).unwrap();
        let request = request.replace("/v1/messages ", &format!("/v1/messages{path} "));
        let answer = server.connect().ask(request.as_bytes());
        assert_eq!(answer.status, 400);
        assert_eq!(answer.body == body, key != OWN, "{path}: {}", String::from_utf8_lossy(&answer.body));
        assert!(!String::from_utf8_lossy(&answer.body).contains(OWN));
        assert_ne!(answer.header("request-id"), Some(OWN));
    }
}

#[test]
fn a_client_s_key_reaches_its_upstream_and_nothing_else() {
    let keys = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cloud-keys");
    std::fs::write(&keys, "sk-sparkgap-0123456789 anna\n").unwrap();
    let arguments = ["--api-key-file", keys.to_str().unwrap(), "--log-level", "trace"];
    let more = r#"
        on_request = function(req) log.info("seen", pcall(function() return req.headers["x-api-key"] end)) end,
        on_error = function(err) log.info(err.message) end,"#;
    let own = "x-sparkgap-key: sk-sparkgap-0123456789\r\n";
    let bearer = format!("Authorization: Bearer {CANARY}\r\n");
    let echo = format!(
        "{{\"type\":\"error\",\"error\":{{\"type\":\"x\",\"message\":\"your key {CANARY} is bad\"}}}}"
    );
    for (name, key) in [("x-api-key", KEY), ("bearer", &bearer)] {
        let (api, boxed) = (MessagesApi::start(), Upstream::start());
        let name = format!("hidden-{name}");
        let server = start_with(&name, &api.url(), &boxed, BACKED, more, &arguments);
        let headers = format!("{own}{key}");
        // Answered by the API; refused with the key in the error; broken off; not HTTP; answered by the box.
        assert_eq!(ask(&server, &headers, &opus(hello())).status, 200);
        let got = api.got().pop().unwrap();
        assert!(got.head.contains(CANARY) && !got.head.contains("sk-sparkgap"), "{}", got.head);
        // A client whose only key is sparkgap's own has none for the API.
        let before = api.got().len();
        for headers in [
            own.to_owned(),
            "x-api-key: sk-sparkgap-0123456789\r\n".to_owned(),
            format!("{own}authorization: Bearer sk-sparkgap-0123456789\r\n"),
        ] {
            let answer = ask(&server, &headers, &opus(hello()));
            assert_eq!((answer.status, answer.error().1.contains("x-sparkgap-key")), (401, true));
        }
        assert_eq!(api.got().len(), before);
        for status in [400, 401, 403, 404] {
            api.next_answer(status, &format!("anthropic-echo: {CANARY}\r\n"), &echo);
            assert_eq!(ask(&server, &headers, &opus(hello())).text(), echo);
        }
        api.next(|stream, _| stream.write_all(format!("{CANARY}\r\n\r\n").as_bytes()).is_err());
        api.next_bytes(format!(
            "HTTP/1.1 302 Found\r\nlocation: https://x/{CANARY}\r\ncontent-length: 0\r\n\r\n"
        ));
        for status in [429, 529, 500, 503] {
            api.next_answer(status, "retry-after: 0\r\n", &echo);
        }
        for _ in 0..6 {
            assert_eq!(ask(&server, &headers, &opus(hello())).status, 200);
        }
        assert_eq!(ask(&server, &headers, &hello().to_string()).status, 200);
        api.next_bytes(streamed(&format!("event: error\ndata: {echo}\n\n")));
        ask(&server, &headers, &opus(hello_stream()));
        // A body that is not JSON, a wrong key, another path.
        assert_eq!(ask(&server, &headers, "{").status, 400);
        assert_eq!(ask(&server, key, &opus(hello())).status, 401);
        let models = format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        let env = models.replace("/v1/models", "/env");
        for request in [&models, &env] {
            assert!(!server.connect().ask(request.as_bytes()).text().contains(CANARY));
        }
        let health = server.health().to_string();
        let seen = format!("{:?}", boxed.seen());
        assert!(
            !boxed.seen().is_empty() && !seen.contains(CANARY) && !seen.contains("sk-sparkgap"),
            "{seen}"
        );
        let log = server.terminate_and_log();
        // The level trace shows whole bodies, also of errors that repeat a key.
        let lines: Vec<&str> =
            log.lines().filter(|line| line.contains("canary") && !line.contains("your key")).collect();
        assert!(lines.is_empty() && !log.contains("sk-sparkgap"), "{lines:?}");
        let shown: Vec<&str> =
            log.lines().filter(|line| line.contains(CANARY) && !line.contains("TRACE")).collect();
        assert!(shown.is_empty() && log.contains("your key ***"), "{shown:?}");
        assert!(!health.contains("canary"));
    }
}

#[test]
fn a_request_that_fails_before_its_first_byte_goes_to_the_box() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("fallback", &api, &boxed, BACKED, "");
    let busy = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let fails = [super::messages_api::whole(429, "retry-after: 60\r\n", "{}"), streamed(busy)];
    for (number, failure) in fails.into_iter().enumerate() {
        api.next_bytes(failure);
        let answer = ask(&server, KEY, &opus(hello_stream()));
        assert_eq!(answer.whole_events()[0]["text"], "Hello.");
        assert_eq!(boxed.seen().len(), number + 1);
        assert_eq!(boxed.seen()[number].body["model"], MODEL);
        let id = answer.header("request-id").unwrap().to_owned();
        let line = server.wait_for(&format!("{id} 127.0.0.1 - "));
        assert!(line.contains("-> box/") && line.contains("failover"), "{line}");
    }
    // A 429 is the limit of the client's own key: after it other clients still got the API. Its being busy holds for all.
    assert_eq!(api.got().len(), 2);
    server.wait_for("upstream cloud: full");
    server.wait_until(|health| health["pool"]["cloud"]["state"] == "full");
    for status in [529, 503, 500, 504] {
        let server = start(&format!("fallback-{status}"), &api, &boxed, BACKED, "");
        api.next_answer(status, "", "{}");
        let answer = ask(&server, KEY, &opus(hello()));
        assert_eq!(answer.message()[0]["text"], "Hello.", "{status}");
    }
}

#[test]
fn a_dead_api_is_replaced_and_a_refusal_is_not() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("refusal", &api, &boxed, BACKED, "");
    for status in [400, 401, 403, 404, 413] {
        api.next_answer(status, "", "{\"e\":1}");
        let answer = ask(&server, KEY, &opus(hello()));
        assert_eq!((answer.status, answer.text()), (status, "{\"e\":1}"));
    }
    assert!(boxed.seen().is_empty());
    let (address, _held) = closed();
    let server = start_with("dead", &format!("http://{address}"), &boxed, BACKED, "", &[]);
    assert_eq!(ask(&server, KEY, &opus(hello())).message()[0]["text"], "Hello.");
    // A request that sparkgap cannot read itself goes only to the API.
    let odd = r#"{"model":"claude-opus-5","messages":[{"role":"wizard","content":7}]}"#;
    assert!(ask(&server, KEY, odd).status >= 500);
    assert_eq!(boxed.seen().len(), 1);
}

#[test]
fn an_answer_that_breaks_off_ends_the_connection_and_nothing_is_added() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("cut", &api, &boxed, BACKED, "");
    let events = "event: message_start\ndata: {\"type\":\"message_start\"}\n\n";
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{events}\r\n",
        events.len()
    );
    api.next(move |stream, _| {
        stream.write_all(head.as_bytes()).unwrap();
        false
    });
    let mut client = server.connect();
    client.send(&post_with(KEY, opus(hello_stream()).as_bytes()));
    client.head();
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(
        rest.contains(events) && !rest.contains("event: error") && !rest.ends_with("0\r\n\r\n"),
        "{rest}"
    );
    server.wait_for("cut off, so that the client asks again");
    assert!(boxed.seen().is_empty());
}

#[test]
fn a_slow_api_gets_pings_before_its_first_byte_and_none_after() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let patience = ["--open-after", "1", "--ping-every", "1"];
    let server = start_with("slow", &api.url(), &boxed, BACKED, "", &patience);
    let (open, opened) = std::sync::mpsc::channel::<Vec<u8>>();
    api.next(move |stream, _| stream.write_all(&opened.recv().unwrap()).is_ok());
    let mut client = server.connect();
    client.send(&post_with(KEY, opus(hello_stream()).as_bytes()));
    assert_eq!(client.head().status, 200);
    let pings = client.read_until("event: ping\ndata: {\"type\":\"ping\"}\n\n");
    assert!(!pings.contains("message_start"));
    let message =
        json!({"content": [{"type": "text", "text": "late"}], "usage": {}, "stop_reason": "end_turn"});
    let answer = stream(&message);
    open.send(answer.clone()).unwrap();
    let rest = client.read_until("message_stop\"}\n\n");
    assert!(
        String::from_utf8(answer)
            .unwrap()
            .contains(rest.trim_start_matches("event: ping\ndata: {\"type\":\"ping\"}\n\n"))
    );
    assert_eq!(client.piece(), None);
    // A failure after pings still goes to the box, whose message begins then.
    let (open, opened) = std::sync::mpsc::channel::<Vec<u8>>();
    api.next(move |stream, _| stream.write_all(&opened.recv().unwrap()).is_ok());
    client.send(&post_with(KEY, opus(hello_stream()).as_bytes()));
    client.head();
    client.read_until("event: ping");
    open.send(super::messages_api::whole(529, "", "{}")).unwrap();
    let rest = client.read_until("message_stop\"}\n\n");
    assert!(rest.contains("message_start") && rest.contains("Hello."), "{rest}");
    assert_eq!(client.piece(), None);
}

#[test]
fn a_client_that_leaves_ends_the_request_at_the_api() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("leaves", &api, &boxed, OPUS, "");
    let (end, ended) = std::sync::mpsc::channel();
    api.next(move |stream, _| {
        let events = "event: ping\ndata: {}\n\n";
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        stream.write_all(format!("{head}{events}").as_bytes()).unwrap();
        let read = std::io::Read::read(stream, &mut [0]);
        end.send(matches!(read, Ok(0) | Err(_))).unwrap();
        false
    });
    let mut client = server.connect();
    client.send(&post_with(KEY, opus(hello_stream()).as_bytes()));
    client.read_until_head_and("event: ping");
    drop(client);
    assert!(ended.recv_timeout(super::HANG).unwrap());
    server.wait_for("the client has left");
}

#[test]
fn mistakes_in_the_configuration_are_named() {
    for (name, lua, expected) in [
        (
            "http",
            r#"upstreams = { c = { url = "http://api.example.com", protocol = "messages", auth = "client" } }"#,
            "unencrypted",
        ),
        (
            "chat",
            r#"upstreams = { c = { url = "https://api.example.com", auth = "client" } }"#,
            "protocol = \"messages\"",
        ),
        (
            "both",
            r#"upstreams = { c = { url = "https://a.example", protocol = "messages", auth = "client", api_key = "k" } }"#,
            "exclude each other",
        ),
        (
            "word",
            r#"upstreams = { c = { url = "https://a.example", protocol = "grpc" } }"#,
            "\"chat\", \"messages\"",
        ),
        (
            "whom",
            r#"upstreams = { c = { url = "https://a.example" } }, never_to = { d = { paths = { "/a" } } }"#,
            "no upstream",
        ),
        (
            "none",
            r#"upstreams = { c = { url = "https://a.example" } }, never_to = { c = {} }"#,
            "has no rule",
        ),
        (
            "empty",
            r#"upstreams = { c = { url = "https://a.example" } }, never_to = { c = { match = { " " } } }"#,
            "empty text",
        ),
        (
            "gap",
            r#"upstreams = { c = { url = "https://a.example" } }, never_to = { c = { match = { nil, "b" } } }"#,
            "without gaps",
        ),
        (
            "key",
            r#"upstreams = { c = { url = "https://a.example" } }, never_to = { c = { path = { "/a" } } }"#,
            "paths",
        ),
    ] {
        let file = hooks_file(&format!("cloud-mistake-{name}"), &format!("return {{ api = 1, {lua} }}"));
        let (code, out, error) = output(&["check", "--hooks", &file]);
        assert!(code != Some(0) && format!("{out}{error}").contains(expected), "{name}: {out}{error}");
    }
}

/// Requests with a text that must not leave, each at another place and written in another way; some split it.
fn tainted() -> Vec<Value> {
    let texts = [
        "/srv/secret/plan.txt",
        "see file:///srv//x/../SECRET",
        "-----BEGIN PRIVATE KEY-----",
        "begin\n  private key",
        r"\u002fsrv\u002fsecret",
        r#"{"a":"{\"b\":\"\\u002fsrv\\/secret\"}"}"#,
        "%2Fsrv%2Fsecret",
        "L3Nydi9zZWNyZXQvcGxhbg==",
        "data:text/plain;base64,LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t",
        "AKIAABCD1234",
    ];
    let mut all = Vec::new();
    for text in texts {
        let result =
            |content: Value| json!([{"type": "tool_result", "tool_use_id": "t", "content": content}]);
        let contents = [
            json!(text),
            json!([{"type": "text", "text": "Look."}, {"type": "text", "text": text}]),
            result(json!(text)),
            result(json!([{"type": "text", "text": text}])),
            json!([{"type": "document", "title": text, "source": {"type": "text", "media_type": "text/plain", "data": "x"}}]),
            json!([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}]),
            json!([{"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": text}]}}]),
            json!([{"type": "image", "source": {"type": "url", "url": format!("https://x/{text}")}}]),
            json!([{"type": "search_result", "source": text, "title": "x", "content": [{"type": "text", "text": "y"}]}]),
            json!([{"type": "new_block", "deep": {"er": [[{"x": text}]]}}]),
        ];
        for content in contents {
            let mut body = hello();
            body["messages"][0]["content"] = content;
            all.push(body);
        }
        for (key, value) in [
            ("system", json!(text)),
            ("system", json!([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}])),
            ("metadata", json!({"user_id": text})),
            ("stop_sequences", json!([text])),
            ("tools", json!([{"name": "n", "description": text, "input_schema": {}}])),
            ("tools", json!([{"name": "n", "input_schema": {"type": "object", "properties": {text: {}}}}])),
            ("new_field", json!({text: [1, {"a": null}]})),
        ] {
            let mut body = hello();
            body[key] = value;
            all.push(body);
        }
        let call = json!({"type": "tool_use", "id": "t", "name": "Read", "input": {"a": [{"b": text}]}});
        let mut body = hello();
        body["messages"] = json!([body["messages"][0], {"role": "assistant", "content": [call]},
            {"role": "user", "content": result(json!("ok"))}]);
        all.push(body);
    }
    for text in ["-----BEGIN PRIVATE KEY-----", "/srv/secret/plan", "AKIAABCD1234"] {
        for at in [4, 6, 8] {
            let (one, two) = text.split_at(at);
            let mut body = hello();
            body["messages"] = json!([{"role": "user", "content": [{"type": "text", "text": one}, {"type": "text", "text": two}]}]);
            all.push(body.clone());
            body["messages"] = json!([{"role": "user", "content": one}, {"role": "user", "content": two}]);
            all.push(body);
        }
    }
    all
}

const RULES: &str = r#"never_to = { cloud = {
    paths = { "/srv/secret" }, match = { "BEGIN PRIVATE KEY", { pattern = "AKIA%u%u%u%u%d+" } }, header = { ["x-project"] = "secret*" } } },"#;

#[test]
fn requests_that_must_not_leave_do_not() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let hooks = r#"
        on_request = function(req) if req.headers["x-route"] then return { upstream = "cloud" } end end,
        on_error = function(err) return { upstream = "cloud" } end,"#;
    let server = start("tainted", &api, &boxed, OPUS, &format!("{RULES}{hooks}"));
    let mut client = server.connect();
    let tainted = tainted();
    assert!(tainted.len() >= 190, "{}", tainted.len());
    let count = |body: &str| {
        let length = body.len();
        format!(
            "POST /v1/messages/count_tokens HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{KEY}content-length: {length}\r\n\r\n{body}"
        )
    };
    for (number, body) in tainted.iter().enumerate() {
        let text = opus(body.clone());
        // By its name, by a hook, for a count, and after the failure of another upstream.
        let answer = match number % 4 {
            0 => client.ask(count(&text).as_bytes()),
            1 => client.ask(&post_with(&format!("{KEY}x-route: 1\r\n"), body.to_string().as_bytes())),
            2 => {
                boxed.next_answer(500, "{}");
                let mut body = body.clone();
                body["model"] = "local".into();
                client.ask(&post_with(KEY, body.to_string().as_bytes()))
            }
            _ => client.ask(&post_with(KEY, text.as_bytes())),
        };
        assert!(answer.status == 403 || answer.status == 400, "{}: {body}", answer.text());
        assert!(!answer.text().contains("secret") && !answer.text().contains("PRIVATE"), "{}", answer.text());
    }
    let header = format!("{KEY}x-project: secret-7\r\n");
    assert_eq!(client.ask(&post_with(&header, opus(hello()).as_bytes())).status, 403);
    let beta = format!("{KEY}anthropic-beta: /srv/secret\r\n");
    assert_eq!(client.ask(&post_with(&beta, opus(hello()).as_bytes())).status, 403);
    assert!(api.got().is_empty(), "{:?}", api.got());
    assert_eq!(client.ask(&post_with(KEY, opus(hello()).as_bytes())).status, 200);
    assert_eq!(api.got().len(), 1);
    // With a backup the box answers, and a box that fails does not send them to the cloud.
    let server = start("tainted-backed", &api, &boxed, BACKED, RULES);
    let mut client = server.connect();
    let mut body = hello();
    body["system"] = "/srv/secret".into();
    assert_eq!(client.ask(&post_with(KEY, opus(body.clone()).as_bytes())).message()[0]["text"], "Hello.");
    boxed.next_answer(500, "{}");
    assert_eq!(client.ask(&post_with(KEY, opus(body).as_bytes())).status, 500);
    assert_eq!(api.got().len(), 1);
}

/// A request to a path of OpenAI's protocol.
fn post_openai(path: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n{KEY}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn openai_paths_leave_these_upstreams_out_and_obey_the_same_rules() {
    const CHAT: &str = "/v1/chat/completions";
    const SONNET: &str = r#"{ "claude-sonnet-*", upstream = "cloud", backup = { "box" } },"#;
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let rules = r#"never_to = { box = { match = { "TOP SECRET" } } },
        on_request = function(req) if req.headers["x-route"] then return { upstream = "cloud" } end end,
        on_upstream_request = function(body) if body.late then body.more = "top secret" end end,"#;
    let server = start("openai", &api, &boxed, &format!("{OPUS}{SONNET}"), rules);
    let ask = |path: &str, kind: &str, body: &str| {
        let answer = server.connect().ask(&post_openai(path, kind, body));
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        (answer.status, message)
    };
    let chat = |model: &str, text: &str| {
        json!({"model": model, "messages": [{"role": "user", "content": text}]}).to_string()
    };
    for path in [CHAT, "/v1/completions", "/v1/responses", "/v1/embeddings"] {
        let (status, message) = ask(path, "application/json", &chat("claude-opus-5", "hi"));
        assert!(status == 404 && message.contains("'cloud' has the Messages API only"), "{message}");
    }
    boxed.next_answer(200, "{}");
    assert_eq!(ask(CHAT, "application/json", &chat("claude-sonnet-5", "hi")).0, 200);
    let form = |text: &str| {
        format!(
            "--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\n{text}\r\n--x--\r\n"
        )
    };
    let late = r#"{"model":"m","late":true,"messages":[]}"#;
    let seen = boxed.seen().len();
    for (path, kind, body) in [
        (CHAT, "application/json", chat("claude-sonnet-5", "Top secret!")),
        (CHAT, "application/json", chat("m", "top  secret")),
        (CHAT, "application/json", late.to_owned()),
        ("/v1/embeddings", "application/json", r#"{"model":"m","input":["a","TOP SECRET"]}"#.to_owned()),
        ("/v1/audio/transcriptions", "multipart/form-data; boundary=x", form("top secret")),
    ] {
        let (status, message) = ask(path, kind, &body);
        assert!(status == 403 && message.contains("`match`"), "{status} {message}: {body}");
        assert!(!message.to_lowercase().contains("secret"), "{message}");
    }
    let mut binary = post_openai("/v1/audio/transcriptions", "multipart/form-data; boundary=x", &form("a b"));
    binary.iter_mut().rev().filter(|byte| **byte == b'b').take(1).for_each(|byte| *byte = 0xff);
    let answer = server.connect().ask(&binary);
    assert!(answer.status == 403 && answer.text().contains("cannot be searched"), "{}", answer.text());
    assert_eq!(boxed.seen().len(), seen);
    // A hook that must see every answer does not see these.
    let closed = r#"policy = "closed", on_tool_call = function() end,"#;
    let server = start("openai-closed", &api, &boxed, "", closed);
    let answer = server.connect().ask(&post_openai(CHAT, "application/json", &chat("m", "hi")));
    assert!(answer.status == 403 && answer.text().contains("on_tool_call"), "{}", answer.text());
    boxed.next_answer(200, "{}");
    let answer = server.connect().ask(&post_openai("/v1/embeddings", "application/json", &chat("m", "hi")));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(api.got().is_empty(), "{:?}", api.got());
}

#[test]
fn answers_that_pass_count_like_all_others() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let keys = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("cloud-limits.keys");
    std::fs::write(&keys, "sk-anna-0123456789 anna\n").unwrap();
    // An answer of the API takes 36 tokens.
    let rules = r#"keys = { anna = { tokens_per_day = 50 } },"#;
    let arguments = ["--api-key-file", keys.to_str().unwrap(), "--log-format", "json"];
    let server = start_with("counted", &api.url(), &boxed, BACKED, rules, &arguments);
    let key = format!("{KEY}x-sparkgap-key: sk-anna-0123456789\r\n");
    let send = |body: Value| {
        let mut body = body;
        body["max_tokens"] = 1.into();
        ask(&server, &key, &opus(body))
    };
    // The upstream's own header of this name gives way to the client's limit.
    let mut events = stream(
        &json!({"id": "m", "type": "message", "role": "assistant", "model": "x", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Hi."}],
        "usage": {"input_tokens": 7, "cache_read_input_tokens": 11, "cache_creation_input_tokens": 13, "output_tokens": 5}}),
    );
    let head = b"HTTP/1.1 200 OK\r\n";
    let own = b"anthropic-ratelimit-tokens-limit: 9\r\n";
    events.splice(head.len()..head.len(), own.iter().copied());
    api.next_bytes(events);
    let first = send(hello_stream());
    assert_eq!(first.status, 200, "{}", first.text());
    let limits: Vec<&String> = first
        .headers
        .iter()
        .filter(|(name, _)| name == "anthropic-ratelimit-tokens-limit")
        .map(|(_, value)| value)
        .collect();
    assert_eq!(limits, ["50"]);
    let line = server.wait_for("\"model\":\"claude-opus-5\"");
    for part in
        ["\"upstream\":\"cloud\"", "\"output_tokens\":5", "\"stop_reason\":\"end_turn\"", "\"status\":200"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    let second = send(hello());
    assert_eq!((second.status, second.header("anthropic-ratelimit-tokens-remaining")), (200, Some("14")));
    assert_eq!(send(hello()).status, 429);
    // A client has its answer before the request is counted.
    let until = Instant::now() + super::HANG;
    let page = loop {
        let page = server
            .connect()
            .ask(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nx-api-key: sk-anna-0123456789\r\n\r\n");
        let is_counted = page.text().contains("outcome=\"ok\"} 2");
        if is_counted || Instant::now() > until {
            break page;
        }
        std::thread::yield_now();
    };
    for line in [
        "sparkgap_output_tokens_total{upstream=\"cloud\"} 10",
        "sparkgap_prompt_tokens_total{upstream=\"cloud\",kind=\"cached\"} 22",
    ] {
        assert!(page.text().lines().any(|found| found == line), "{line}\n{}", page.text());
    }
    assert_eq!(server.health()["failovers"], 0);
}

#[test]
fn the_environment_leaves_the_person_s_key_to_claude_code() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let keys = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("cloud-env.keys");
    std::fs::write(&keys, "sk-anna-0123456789 anna\n").unwrap();
    let named = r#"{ "claude-cloud", upstream = "cloud", model = "claude-opus-5" },"#;
    let arguments = ["--api-key-file", keys.to_str().unwrap()];
    let server = start_with("env", &api.url(), &boxed, named, "", &arguments);
    let get = |path: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nanthropic-version: x\r\nx-sparkgap-key: sk-anna-0123456789\r\n\r\n"
        );
        server.connect().ask(request.as_bytes())
    };
    let url = format!("http://{}", server.address);
    let run = |arguments: &[&str]| {
        let (code, out, error) =
            output(&[&["env", "--remote", &url, "--api-key", "sk-anna-0123456789"], arguments].concat());
        assert_eq!(code, Some(0), "{out}{error}");
        (out, error)
    };
    let (script, notes) = run(&[]);
    assert!(notes.contains("models on upstream cloud get your own key"), "{notes}");
    for script in [script, get("/env.sh").text().to_owned()] {
        assert!(
            script.contains("ANTHROPIC_CUSTOM_HEADERS=")
                && script.contains("'x-sparkgap-key: sk-anna-0123456789'")
        );
        assert!(script.contains("ANTHROPIC_AUTH_TOKEN=''"), "{script}");
        assert!(!script.contains("ANTHROPIC_API_KEY="), "{script}");
    }
    let (script, _) = run(&["--openai"]);
    assert!(script.contains("OPENAI_API_KEY='sk-anna-0123456789'"), "{script}");
    // The names of aliases that lead there are listed; the upstream itself is not asked.
    let listing = get("/v1/models").json();
    let found = listing["data"].as_array().unwrap().iter().find(|model| model["id"] == "claude-cloud");
    assert_eq!(found.unwrap()["display_name"], "claude-cloud (claude-opus-5)");
    for path in ["/v1/messages/batches", "/v1/messages/batches/b/results", "/v1/files"] {
        let (kind, message) = get(path).error();
        assert!(kind == "not_found_error" && message.contains("batches and files do not pass"), "{message}");
    }
    assert!(api.got().is_empty(), "{:?}", api.got());
}
