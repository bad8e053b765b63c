//! Requests to an upstream that speaks the Messages API: which ones it gets, which go elsewhere or are sent once more, and the
//! counts of odd answers.

use std::io::Write as _;
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use super::client::{Answer, hello, hello_stream, post_with};
use super::cloud::{BACKED, KEY, OPUS, ask, opus, start, start_with};
use super::messages_api::{MessagesApi, streamed, whole};
use super::server::{Server, hooks_file, output};
use super::upstream::{MODEL, Upstream, closed};

const ONE: &str = "claude-opus-5";
const OTHER: &str = "claude-opus-4";

fn error(kind: &str, message: &str) -> String {
    json!({"type": "error", "error": {"type": kind, "message": message}}).to_string()
}

/// A stream whose pieces are written one by one.
fn in_pieces(api: &MessagesApi, pieces: Vec<String>) {
    api.next(move |stream, _| {
        stream.set_nodelay(true).unwrap();
        stream
            .write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )
            .unwrap();
        for piece in pieces {
            stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").is_ok()
    });
}

#[test]
fn an_error_as_the_first_event_goes_elsewhere_in_every_form() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("first-event", &api, &boxed, BACKED, "");
    // The limit of a client's own key leaves the API in use.
    let data = error("rate_limit_error", "Slow down.");
    let plain = format!("event: error\ndata: {data}\n\n");
    let forms: Vec<Vec<String>> = vec![
        vec![plain.clone()],
        plain.chars().map(String::from).collect(),
        vec![plain.replace('\n', "\r\n")],
        vec![plain.replace('\n', "\r")],
        vec![format!("\u{feff}{plain}")],
        vec![format!(": a comment\n\n{plain}")],
        vec![format!("\n\n\n{plain}")],
        vec!["event: ping\ndata: {\"type\": \"ping\"}\n\n".to_owned(), ": wait\n".to_owned(), plain.clone()],
        vec![format!("data: {data}\nevent: error\n\n")],
        vec![format!("data: {data}\n\n")],
        vec![format!("event: error\ndata: {data}")],
        vec![format!("id: 1\nretry: 5\nevent:error\ndata:{data}\n\n")],
    ];
    for (number, form) in forms.into_iter().enumerate() {
        in_pieces(&api, form.clone());
        let answer = ask(&server, KEY, &opus(hello_stream()));
        assert_eq!(answer.whole_events()[0]["text"], "Hello.", "{form:?}: {}", answer.text());
        assert_eq!((api.got().len(), boxed.seen().len()), (number + 1, number + 1), "{form:?}");
    }
    // Pings and comments before an answer are the answer's.
    let answer = ": wait\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\nevent: message_start\ndata: {\"type\":\"message_start\"}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    in_pieces(&api, answer.chars().map(String::from).collect());
    assert_eq!(ask(&server, KEY, &opus(hello_stream())).text(), answer);
    // So is anything longer than what is held back.
    let long = format!("{}{plain}", ": comment\n".repeat(20_000));
    in_pieces(&api, vec![long.clone()]);
    assert_eq!(ask(&server, KEY, &opus(hello_stream())).text(), long);
    // A stream that ends before its first event.
    api.next(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n3\r\n: a\r\n").unwrap();
        false
    });
    assert_eq!(ask(&server, KEY, &opus(hello_stream())).whole_events()[0]["text"], "Hello.");
}

#[test]
fn errors_that_would_come_again_pass_and_are_logged_with_their_type() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("first-lasting", &api, &boxed, BACKED, "");
    for kind in
        ["invalid_request_error", "authentication_error", "permission_error", "not_found_error", "new_error"]
    {
        let events = format!("event: error\ndata: {}\n\n", error(kind, "No."));
        api.next_bytes(streamed(&events));
        let answer = ask(&server, KEY, &opus(hello_stream()));
        assert_eq!((answer.status, answer.text()), (200, events.as_str()));
        server.wait_for(&format!("upstream cloud ended its answer with {kind}: No."));
    }
    assert!(boxed.seen().is_empty());
    for kind in ["overloaded_error", "api_error", "timeout_error"] {
        let server = start(&format!("first-{kind}"), &api, &boxed, BACKED, "");
        api.next_bytes(streamed(&format!("event: error\ndata: {}\n\n", error(kind, "Busy."))));
        assert_eq!(ask(&server, KEY, &opus(hello_stream())).whole_events()[0]["text"], "Hello.", "{kind}");
    }
    // Without a backup it passes too.
    let server = start("first-alone", &api, &boxed, OPUS, "");
    let events = format!("event: error\ndata: {}\n\n", error("overloaded_error", "Busy."));
    api.next_bytes(streamed(&events));
    assert_eq!(ask(&server, KEY, &opus(hello_stream())).text(), events);
}

/// A conversation with a block of redacted thinking, and one of thinking.
fn thought(model: &str, data: &str) -> Value {
    let mut body = hello();
    body["model"] = model.into();
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    body["messages"] = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "redacted_thinking", "data": data}, {"type": "text", "text": "Yes."}]},
        {"role": "user", "content": "And?"},
    ]);
    body
}

fn post_count(body: &Value) -> Vec<u8> {
    let request = String::from_utf8(post_with(KEY, body.to_string().as_bytes())).unwrap();
    request.replace("/v1/messages ", "/v1/messages/count_tokens ").into_bytes()
}

#[test]
fn redacted_thinking_that_is_refused_is_sent_without_also_for_counts_and_in_streams() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("redacted", &api, &boxed, OPUS, "");
    let mut client = server.connect();
    let bare =
        |api: &MessagesApi| !String::from_utf8(api.got().pop().unwrap().body).unwrap().contains("redacted");
    let answer = client.ask(&post_with(KEY, thought(ONE, "unknown-1").to_string().as_bytes()));
    assert_eq!((answer.status, api.got().len(), bare(&api)), (200, 2, true), "{}", answer.text());
    let answer = client.ask(&post_count(&thought(ONE, "unknown-2")));
    assert_eq!((answer.status, answer.text(), api.got().len()), (200, r#"{"input_tokens":1234}"#, 4));
    assert!(bare(&api));
    // The same as an event.
    let refused =
        error("invalid_request_error", "messages.1.content.0: Invalid data in redacted_thinking block");
    in_pieces(&api, vec![format!("data: {refused}\n\n")]);
    let mut body = thought(ONE, "unknown-3");
    body["stream"] = true.into();
    let answer = client.ask(&post_with(KEY, body.to_string().as_bytes()));
    assert!(answer.text().contains("message_stop"), "{}", answer.text());
    assert_eq!((api.got().len(), bare(&api)), (6, true));
    // They are known from then on, and a request without thinking is not sent twice.
    for data in ["unknown-1", "unknown-2", "unknown-3"] {
        assert_eq!(client.ask(&post_with(KEY, thought(ONE, data).to_string().as_bytes())).status, 200);
    }
    api.next_answer(400, "", &refused);
    assert_eq!(client.ask(&post_with(KEY, opus(hello()).as_bytes())).status, 400);
    assert_eq!(api.got().len(), 10);
}

#[test]
fn a_block_that_one_model_has_refused_stays_for_the_one_that_made_it() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let earlier = start("refused-a", &api, &boxed, OPUS, "");
    let mut body = hello();
    body["model"] = OTHER.into();
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 1024});
    let answer = ask(&earlier, KEY, &body.to_string()).json();
    let content = answer["content"].as_array().unwrap().clone();
    assert!(content.iter().any(|block| block["type"].as_str().unwrap().ends_with("thinking")), "{content:?}");
    // After a restart nobody knows who has made it.
    let server = start("refused-b", &api, &boxed, OPUS, "");
    let calls: Vec<Value> = content
        .iter()
        .filter(|block| block["type"] == "tool_use")
        .map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": "x"}))
        .collect();
    let next = if calls.is_empty() { json!("And?") } else { json!(calls) };
    body["messages"] = json!([body["messages"][0], {"role": "assistant", "content": content}, {"role": "user", "content": next}]);
    let before = api.refused().len();
    for (model, kept) in [(ONE, false), (OTHER, true), (ONE, false)] {
        body["model"] = model.into();
        assert_eq!(ask(&server, KEY, &body.to_string()).status, 200);
        let got = String::from_utf8(api.got().pop().unwrap().body).unwrap();
        assert_eq!(got.contains("EqQB"), kept, "{model}: {got}");
    }
    assert_eq!(api.refused().len(), before + 1);
}

#[test]
fn a_backup_of_another_protocol_is_asked_for_its_own_model() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let aliases = r#"
        { "claude-cloud", upstream = "cloud", model = "claude-opus-5", backup = { "box" } },
        { "claude-named", upstream = "cloud", model = "claude-opus-5", backup = { { "box", model = "theirs" } } },
        { "smart", upstream = "box", model = "qwen3", backup = { "cloud" } },"#;
    let server = start("own-model", &api, &boxed, aliases, "");
    for (model, asked) in [("claude-cloud", MODEL), ("claude-named", "theirs")] {
        api.next_answer(429, "", "{}");
        let mut body = hello();
        body["model"] = model.into();
        assert_eq!(ask(&server, KEY, &body.to_string()).message()[0]["text"], "Hello.");
        assert_eq!(boxed.seen().last().unwrap().body["model"], asked);
        let got: Value = serde_json::from_slice(&api.got().pop().unwrap().body).unwrap();
        assert_eq!(got["model"], ONE);
    }
    boxed.next_answer(500, "{}");
    let mut body = hello();
    body["model"] = "smart".into();
    assert_eq!(ask(&server, KEY, &body.to_string()).status, 200);
    let got: Value = serde_json::from_slice(&api.got().pop().unwrap().body).unwrap();
    assert_eq!(got["model"], "smart");
}

#[test]
fn a_box_that_fails_sends_nothing_to_an_api_that_its_alias_does_not_list() {
    let (api, boxed, second) = (MessagesApi::start(), Upstream::start(), Upstream::start());
    let lua = |aliases: &str, more: &str| {
        format!(
            r#"return {{ api = 1, upstreams = {{
                a = {{ url = "{}", protocol = "messages", api_key = "sk-cloud-0123456789", model = "m" }},
                b = {{ url = "{}" }}, c = {{ url = "{}" }} }},
                aliases = {{ {aliases} }}, {more}
                on_error = function() return {{ retry = "other" }} end }}"#,
            api.url(),
            boxed.url(),
            second.url()
        )
    };
    let run = |name: &str, aliases: &str, more: &str| {
        let server = Server::run(
            &["serve", "--hooks", &hooks_file(&format!("other-{name}"), &lua(aliases, more))],
            &[],
        );
        server.wait_for("upstream b: ");
        server.wait_for("upstream c: ");
        server
    };
    let only_box = r#"{ "*", upstream = "b" }"#;
    boxed.next_answer(500, "{}");
    let server = run("third", only_box, "");
    assert_eq!(ask(&server, KEY, &hello().to_string()).message()[0]["text"], "Hello.");
    assert_eq!(second.seen().len(), 1);
    // The same holds for one that must not get some requests.
    boxed.next_answer(500, "{}");
    let server = run("kept", only_box, r#"never_to = { c = { match = { "xyz" } } },"#);
    assert_eq!(ask(&server, KEY, &hello().to_string()).status, 500);
    assert_eq!((second.seen().len(), api.got().len()), (1, 0));
    // An alias that lists it allows it.
    api.next_answer(500, "", "{}");
    boxed.next_answer(500, "{}");
    let server = run("listed", r#"{ "*", upstream = "b", backup = { "a" } }"#, "");
    assert_eq!(ask(&server, KEY, &hello().to_string()).message()[0]["text"], "Hello.");
    assert_eq!((second.seen().len(), api.got().len()), (2, 1));
    // Nor does a box that has never answered.
    let (address, _held) = closed();
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ box = {{ url = "http://{address}/v1" }},
            cloud = {{ url = "{}", protocol = "messages", api_key = "sk-cloud-0123456789", model = "m" }} }} }}"#,
        api.url()
    );
    let server = Server::run(&["serve", "--hooks", &hooks_file("other-down", &lua)], &[]);
    server.wait_for("listens on");
    assert!(ask(&server, KEY, &hello().to_string()).status >= 500);
    assert_eq!(api.got().len(), 1);
}

#[test]
fn an_api_in_a_pool_has_no_limit_of_sparkgap_s() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("unlimited", &api, &boxed, BACKED, "");
    let all = Arc::new(Barrier::new(12));
    for _ in 0..12 {
        let all = Arc::clone(&all);
        api.next(move |stream, _| {
            all.wait();
            stream.write_all(&whole(200, "", r#"{"type":"message","content":[],"usage":{}}"#)).is_ok()
        });
    }
    let answers = server.send_at_once(12, &post_with(KEY, opus(hello()).as_bytes()));
    assert!(answers.into_iter().all(|answer| answer.join().unwrap() == 200));
    assert!(boxed.seen().is_empty());
}

#[test]
fn a_stream_that_breaks_off_costs_what_was_counted_until_then() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let keys = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("cloud-broken.keys");
    std::fs::write(&keys, "sk-anna-0123456789 anna\n").unwrap();
    let arguments = ["--api-key-file", keys.to_str().unwrap()];
    let key = format!("{KEY}x-sparkgap-key: sk-anna-0123456789\r\n");
    let begun = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":3000,\"output_tokens\":1}}}\n\n";
    let failed = format!("{begun}event: error\ndata: {}\n\n", error("overloaded_error", "Busy."));
    for (name, events, is_cut) in [("cut", begun, true), ("failed", &failed, false)] {
        let rules = "keys = { anna = { tokens_per_day = 9000 } },";
        let server = start_with(&format!("broken-{name}"), &api.url(), &boxed, OPUS, rules, &arguments);
        let events = events.to_owned();
        api.next(move |stream, _| {
            let size = events.len();
            let end = if is_cut { "" } else { "0\r\n\r\n" };
            let text = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{events}\r\n{end}");
            stream.write_all(text.as_bytes()).unwrap();
            !is_cut
        });
        let mut body = hello_stream();
        body["max_tokens"] = 1.into();
        let mut client = server.connect();
        client.send(&post_with(&key, opus(body).as_bytes()));
        client.head();
        if is_cut {
            client.rest();
        }
        server.wait_for(" in 3000 out 1 cached 0");
        let answer = ask(&server, &key, &opus(hello()));
        let left = answer.header("anthropic-ratelimit-tokens-remaining").unwrap().parse::<u64>().unwrap();
        assert!(left < 6000, "{name}: {left}");
    }
}

#[test]
fn whole_answers_count_whatever_else_is_in_them_and_others_are_not_messages() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("whole-odd", &api, &boxed, OPUS, "");
    let body = r#"{"odd":1e400,"content":[{"type":"text","text":"a"}],"stop_reason":"end_turn","usage":{"input_tokens":7,"output_tokens":5}}"#;
    api.next_answer(200, "", body);
    assert_eq!(ask(&server, KEY, &opus(hello())).text(), body);
    server.wait_for(" end_turn in 7 out 5 cached 0");
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<h1>Login</h1>"
        .replace("13", "14");
    let said = |answer: &Answer| {
        let id = answer.header("request-id").unwrap().to_owned();
        let line = server.wait_for(&format!("{id} 127.0.0.1 "));
        assert!(line.contains(&format!(" whole {} ", answer.status)), "{line}");
        assert!(line.contains("something else than a message") && !line.contains("end_turn"), "{line}");
    };
    for (bytes, status, text) in [
        (page.as_str(), 200, "<h1>Login</h1>"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, ""),
        ("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}", 200, "{}"),
    ] {
        api.next_bytes(bytes);
        let answer = ask(&server, KEY, &opus(hello()));
        assert_eq!((answer.status, answer.text()), (status, text));
        said(&answer);
    }
    api.next_bytes("HTTP/1.1 204 No Content\r\n\r\n");
    let mut client = server.connect();
    client.send(&post_with(KEY, opus(hello()).as_bytes()));
    let answer = client.head();
    assert_eq!(answer.status, 204);
    said(&answer);
}

#[test]
fn the_client_reads_why_an_answer_cannot_pass() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let server = start("unusable", &api, &boxed, OPUS, "");
    for (bytes, said) in [
        (
            "HTTP/1.1 307 Temporary\r\nlocation: https://10.9.8.7/\r\ncontent-length: 0\r\n\r\n",
            "redirect (status 307)",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", "content-encoding gzip"),
    ] {
        api.next_bytes(bytes);
        let answer = ask(&server, KEY, &opus(hello()));
        assert_eq!(answer.status, 502);
        assert!(answer.text().contains(said) && !answer.text().contains("10.9"), "{}", answer.text());
    }
}

#[test]
fn a_hook_may_name_another_model_for_an_api() {
    let (api, boxed) = (MessagesApi::start(), Upstream::start());
    let more = r#"on_upstream_request = function(body, req)
        if body.model ~= "claude-opus-5" then error("saw " .. body.model) end
        body.model = "claude-opus-4"
    end,"#;
    let aliases = r#"{ "smart", upstream = "cloud", model = "claude-opus-5" },"#;
    let server = start("hook-model", &api, &boxed, aliases, more);
    let mut body = hello();
    body["model"] = "smart".into();
    let mut client = server.connect();
    for request in [post_with(KEY, body.to_string().as_bytes()), post_count(&body)] {
        assert_eq!(client.ask(&request).status, 200);
        let got: Value = serde_json::from_slice(&api.got().pop().unwrap().body).unwrap();
        assert_eq!(got["model"], OTHER);
    }
    assert!(server.terminate_and_log().contains("-> cloud/claude-opus-4"));
}

#[test]
fn a_limit_is_told_even_if_the_backup_is_down() {
    let api = MessagesApi::start();
    let boxed = Upstream::start();
    let server = start("limit-told", &api, &boxed, BACKED, "");
    let limit = error("rate_limit_error", "Slow down.");
    api.next_answer(429, "retry-after: 77\r\n", &limit);
    boxed.next_answer(500, r#"{"error":{"message":"engine died"}}"#);
    let answer = ask(&server, KEY, &opus(hello()));
    assert_eq!(
        (answer.status, answer.header("retry-after"), answer.text()),
        (429, Some("77"), limit.as_str())
    );
    server.wait_for("engine died");
    // The owner's own words go before both.
    let more = r#"on_error = function(err) return { status = 503, message = "call Anna" } end,"#;
    let server = start("limit-hook", &api, &boxed, BACKED, more);
    api.next_answer(429, "retry-after: 77\r\n", &limit);
    boxed.next_answer(500, r#"{"error":{"message":"engine died"}}"#);
    let answer = ask(&server, KEY, &opus(hello()));
    assert!(answer.status == 503 && answer.text().contains("call Anna"), "{}", answer.text());
}

#[test]
fn check_and_doctor_tell_how_an_api_is_used_and_ask_it_nothing() {
    let api = MessagesApi::start();
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{
            cloud = {{ url = "https://api.example.com", protocol = "messages", auth = "client" }},
            keyless = {{ url = "https://api.example.org/v1/messages", protocol = "messages", api_key = env "SPARKGAP_NO_SUCH" }},
            near = {{ url = "{}", protocol = "messages" }},
            box = {{ url = "http://127.0.0.1:9/v1" }} }},
            aliases = {{ {{ "a", upstream = "cloud", model = "claude-x", backup = {{ "box" }} }}, {{ "*", upstream = "cloud" }} }} }}"#,
        api.url()
    );
    let file = hooks_file("cloud-check", &lua);
    let (code, out, said) = output(&["check", "--hooks", &file]);
    assert_eq!(code, Some(0), "{out}{said}");
    for part in [
        "each client's own key",
        "it speaks the Messages API",
        "warning: it gets no key: set auth = \"client\"",
        "warning: requests would go to https://api.example.org/v1/messages/v1/messages: set url = \"https://api.example.org\"",
        "cloud claude-x; backup box its own model",
        "cloud the client's name of the model",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert_eq!(out.matches("warning").count(), 2, "{out}");
    let (_, out, _) = output(&["check", "--json", "--hooks", &file]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&told["upstreams"][0]["protocol"], &told["upstreams"][0]["auth"]),
        (&json!("messages"), &json!("client"))
    );
    assert_eq!(told["aliases"][0]["backup"][0]["model"], Value::Null);
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ near = {{ url = "{}", protocol = "messages" }} }} }}"#,
        api.url()
    );
    let (code, out, said) = output(&["doctor", "--hooks", &hooks_file("cloud-doctor", &lua)]);
    assert!(code == Some(0) && out.contains("it speaks the Messages API"), "{out}{said}");
    assert!(api.got().is_empty(), "{:?}", api.got());
}
