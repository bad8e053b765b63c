//! The numbers for Prometheus, the cause of a lost prefix, and the log in JSON.

use serde_json::{Value, json};

use super::client::{Client, hello, post_with};
use super::server::{Server, hooks_file};
use super::upstream::{Upstream, finish, text_chunks, usage};

const SESSION: &str = "x-claude-code-session-id: 0b5c8f9e\r\n";

/// Makes the next answer one to a prompt of so many tokens, of which some were cached; `None`: the server does not say.
fn answer_with(upstream: &Upstream, prompt: u64, cached: Option<u64>) {
    let mut chunks = text_chunks("Hello");
    chunks.retain(|chunk| chunk.get("usage").is_none_or(Value::is_null));
    let mut counts = usage(prompt, 9);
    if let Some(cached) = cached {
        counts["usage"]["prompt_tokens_details"] = json!({"cached_tokens": cached});
    }
    chunks.push(finish("stop"));
    chunks.push(counts);
    upstream.next_chunks(chunks);
}

/// A turn of a conversation: a system prompt, tools, and these messages.
fn turn(system: &str, messages: &[&str]) -> Value {
    let mut body = hello();
    body["system"] = format!("{system} {}", "You are a helpful assistant. ".repeat(40)).into();
    body["tools"] = json!([{"name": "Read", "input_schema": {"type": "object"}}]);
    let roles = ["user", "assistant"].into_iter().cycle();
    let message = |(role, text): (&str, &&str)| json!({"role": role, "content": text.repeat(50)});
    body["messages"] = roles.zip(messages).map(message).collect();
    body
}

fn ask(client: &mut Client, body: &Value) {
    let answer = client.ask(&post_with(SESSION, body.to_string().as_bytes()));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn metrics(server: &Server) -> String {
    let answer = server.connect().ask(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    answer.text().to_owned()
}

/// The number of a series; 0 if it is not there.
fn number(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |number| number.parse().unwrap())
}

#[test]
fn a_lost_prefix_is_logged_counted_and_told() {
    let upstream = Upstream::start();
    let hooks = hooks_file(
        "lost_prefix",
        r#"return { on_log = function(rec)
            local p = rec.prefix
            log.info("told", p and p.cause or "-", p and p.at or "-", p and p.lost or "-", rec.session)
        end }"#,
    );
    let server = Server::start_with(&upstream, &["--hooks", &hooks]);
    let mut client = server.connect();
    answer_with(&upstream, 50_000, Some(0));
    ask(&mut client, &turn("A", &["one "]));
    server.wait_for("told - - - 0b5c8f9e");
    answer_with(&upstream, 52_000, Some(49_984));
    ask(&mut client, &turn("A", &["one ", "two ", "three "]));
    server.wait_for("told - - 16 0b5c8f9e");
    answer_with(&upstream, 53_000, Some(1_000));
    ask(&mut client, &turn("A", &["one ", "TWO ", "three ", "four ", "five "]));
    server.wait_for("prefix lost at message 2 (assistant): 51,000 tokens, about ");
    server.wait_for("told messages_rewritten message 2 (assistant) 51000 0b5c8f9e");
    // vLLM leaves the number out where it is 0.
    answer_with(&upstream, 54_000, None);
    ask(&mut client, &turn("B", &["one ", "TWO ", "three ", "four ", "five "]));
    server.wait_for("told system_prompt_changed system prompt, near its beginning 53000 0b5c8f9e");
    let page = metrics(&server);
    for (series, expected) in [
        (r#"sparkgap_prefix_misses_total{cause="messages_rewritten"}"#, 1.0),
        (r#"sparkgap_reprefilled_tokens_total{cause="messages_rewritten"}"#, 51_000.0),
        (r#"sparkgap_prefix_misses_total{cause="system_prompt_changed"}"#, 1.0),
        (r#"sparkgap_prefix_misses_total{cause="evicted"}"#, 0.0),
        (r#"sparkgap_requests_total{alias="other",upstream="default",lane="0",outcome="ok"}"#, 4.0),
        (r#"sparkgap_prompt_tokens_total{upstream="default",kind="cached"}"#, 50_984.0),
        (r#"sparkgap_output_tokens_total{upstream="default"}"#, 36.0),
        (r#"sparkgap_request_duration_seconds_count{upstream="default"}"#, 4.0),
        (r#"sparkgap_time_to_first_token_seconds_bucket{upstream="default",le="+Inf"}"#, 4.0),
        ("sparkgap_overhead_seconds_count", 4.0),
        (r#"sparkgap_upstream_state{upstream="default",state="well"}"#, 1.0),
        ("sparkgap_connections", 2.0),
    ] {
        assert!((number(&page, series) - expected).abs() < 1e-9, "{series}\n{page}");
    }
    assert!(!page.contains("0b5c8f9e") && !page.contains("sparkgap_client"), "{page}");
}

#[test]
fn a_hook_that_changes_the_prompt_is_the_cause() {
    let upstream = Upstream::start();
    let hooks = hooks_file(
        "stamp",
        r#"return { on_upstream_request = function(body)
            local n = shared.incr("n", 1, 3600)
            body.messages[1].content = n .. " " .. body.messages[1].content
        end }"#,
    );
    let server = Server::start_with(&upstream, &["--hooks", &hooks]);
    let mut client = server.connect();
    for messages in [&["one "][..], &["one ", "two ", "three "]] {
        answer_with(&upstream, 50_000, Some(0));
        ask(&mut client, &turn("A", messages));
    }
    server.wait_for("prefix lost at system prompt, near its beginning: 50,000 tokens");
    assert!(server.wait_for(": hook").contains("prefix lost"));
}

#[test]
fn metrics_need_a_key_unless_they_are_open() {
    let upstream = Upstream::start();
    let keys = hooks_file("metrics_keys", "sk-secret\n");
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let closed = Server::start_with(&upstream, &["--api-key-file", &keys]);
    assert_eq!(closed.connect().ask(request).status, 401);
    let with_key = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nx-api-key: sk-secret\r\n\r\n";
    assert_eq!(closed.connect().ask(with_key).status, 200);
    assert_eq!(
        closed
            .connect()
            .ask(b"POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
            .status,
        405
    );
    let open =
        Server::start_with(&upstream, &["--api-key-file", &keys, "--metrics-open", "--metrics-by-client"]);
    assert_eq!(open.connect().ask(request).status, 200);
    let models = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(open.connect().ask(models).status, 401, "only the metrics are open");
}

#[test]
fn labels_are_names_of_the_configuration() {
    let upstream = Upstream::start();
    let lua = format!(
        r#"return {{ upstreams = {{ ["sp\"ark"] = {{ url = "{}" }} }}, aliases = {{ {{ "claude-*", upstream = "sp\"ark" }}, {{ "*", upstream = "sp\"ark" }} }} }}"#,
        upstream.url()
    );
    let hooks = hooks_file("labels", &lua);
    let server = Server::run(&["serve", "--hooks", &hooks, "--metrics-by-client"], &[]);
    let mut body = hello();
    for model in ["claude-a", "claude-b", "x{\"\n}"] {
        body["model"] = model.into();
        assert_eq!(server.connect().post(&body).status, 200);
    }
    // A request counts before its line is written.
    ["claude-a", "claude-b", "x{"].iter().for_each(|model| _ = server.wait_for(&format!(" - {model}")));
    let page = metrics(&server);
    let of = |alias: &str| {
        let labels = format!(r#"alias="{alias}",upstream="sp\"ark",lane="0",outcome="ok""#);
        number(&page, &format!("sparkgap_requests_total{{{labels}}}"))
    };
    assert_eq!([of("claude-*"), of("*")].map(|count| count.to_string()), ["2", "1"], "{page}");
    assert!(
        !page.contains("claude-a")
            && number(&page, r#"sparkgap_client_requests_total{client="127.0.0.1"}"#) > 2.5
    );
}

#[test]
fn the_log_in_json_has_the_record_of_a_request() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--log-format", "json"]);
    let mut body = hello();
    body["model"] = "evil\u{1b}[2J\n{\"level\":\"error\"}".into();
    assert_eq!(server.connect().ask(&post_with(SESSION, body.to_string().as_bytes())).status, 200);
    let log = server.terminate_and_log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = lines.iter().find(|line| line.get("request").is_some()).unwrap();
    let request = &line["request"];
    assert_eq!((&line["level"], &request["model"]), (&json!("info"), &body["model"]));
    assert_eq!((&request["status"], &request["session"]), (&json!(200), &json!("0b5c8f9e")));
    assert!(request["first_byte_ms"].is_u64() && request["lane"] == 0, "{request}");
    assert!(line["message"].as_str().unwrap().contains("evil\\u{1b}[2J"), "{line}");
}

#[test]
fn the_log_in_json_has_the_record_of_a_refused_request() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--log-format", "json"]);
    assert_eq!(server.connect().ask(&post_with(SESSION, b"{")).status, 400);
    assert_eq!(server.connect().ask(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n").status, 404);
    let log = server.terminate_and_log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for status in [400, 404] {
        let request = lines.iter().map(|line| &line["request"]).find(|request| request["status"] == status);
        let request = request.unwrap();
        assert!(request["error"].is_string() && request["client"] == "127.0.0.1", "{request}");
    }
}
