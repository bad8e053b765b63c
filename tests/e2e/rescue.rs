//! Calls that the server did not recognize, and loops: what the client, the operator and the upstream see.

use serde_json::{Value, json};

use super::client::{hello, hello_stream};
use super::server::{Server, hooks_file};
use super::upstream::{MODEL, Upstream, delta, finish, usage};

const CALL: &str = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";

fn with_tools(mut body: Value) -> Value {
    body["tools"] = json!([{"name": "weather",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]);
    body
}

/// An answer that is this text, in two pieces.
fn text(text: &str) -> Vec<Value> {
    let (first, second) = text.split_at(text.len() / 2);
    let piece = |text: &str| delta(json!({"content": text}));
    vec![piece(first), piece(second), finish("stop"), usage(10, 20)]
}

// covers: 126
#[test]
fn a_call_in_text_is_a_tool_use_and_its_flag_is_said_once() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    (0..2).for_each(|_| upstream.next_chunks(text(CALL)));
    let streamed = server.connect().post(&with_tools(hello_stream()));
    let blocks = streamed.whole_events();
    assert_eq!((&blocks[0]["name"], &blocks[0]["input"]), (&json!("weather"), &json!({"city": "Oslo"})));
    let line = server.wait_for(streamed.header("request-id").unwrap());
    assert!(line.contains(" tool_use ") && line.contains(" rescued 1 hermes "), "{line}");
    let whole = server.connect().post(&with_tools(hello()));
    assert_eq!((whole.message().len(), &whole.json()["stop_reason"]), (1, &json!("tool_use")));
    server.wait_until(|health| health["rescued_calls"] == 2);
    let log = server.terminate_and_log();
    assert_eq!(log.matches("--enable-auto-tool-choice --tool-call-parser hermes").count(), 1, "{log}");
    assert_eq!(log.matches(&format!("hermes {MODEL} at ")).count(), 1, "{log}");
}

// covers: 126, 128, 129
#[test]
fn the_operator_can_switch_each_of_them() {
    let upstream = Upstream::start();
    let lua = format!(
        r#"return {{ upstreams = {{ box = {{ url = "{}", rescue_tool_calls = false, loops = "break" }} }} }}"#,
        upstream.url()
    );
    let hooks = hooks_file("rescue", &lua);
    let server = Server::run(&["--hooks", &hooks], &[]);
    upstream.next_chunks(text(CALL));
    let told = server.connect().post(&with_tools(hello()));
    assert_eq!(told.message(), [json!({"type": "text", "text": CALL})]);

    let line = "Let me look at the sky.\n";
    upstream.next_chunks(text(&line.repeat(30)));
    let told = server.connect().post(&hello());
    assert_eq!(told.message()[0]["text"], line.repeat(20));
    assert_eq!(told.json()["stop_reason"], "end_turn");
    let logged = server.wait_for(told.header("request-id").unwrap());
    assert!(logged.contains(" loop-broken "), "{logged}");

    let mut body = with_tools(hello());
    let messages = body["messages"].as_array_mut().unwrap();
    for i in 0..6 {
        let id = format!("toolu_{i}");
        let call = json!({"type": "tool_use", "id": id, "name": "weather", "input": {"city": "Oslo"}});
        messages.push(json!({"role": "assistant", "content": [call]}));
        let result = json!({"type": "tool_result", "tool_use_id": id, "content": "rain"});
        messages.push(json!({"role": "user", "content": [result]}));
    }
    upstream.next_chunks(text("It rains in Oslo."));
    let told = server.connect().post(&body);
    assert_eq!(told.message()[0]["text"], "It rains in Oslo.");
    let logged = server.wait_for(told.header("request-id").unwrap());
    assert!(logged.contains(" loop 6 loop-broken "), "{logged}");
    let sent = upstream.seen().pop().unwrap().body;
    assert_eq!(sent["tool_choice"], "none");
    server.wait_until(|health| health["broken_loops"] == 2);
}

/// An answer of a server that counts each piece, whose parser has dropped what came behind this text.
fn dropped(text: &str, tokens: u64) -> Vec<Value> {
    let mut piece = delta(json!({"content": text}));
    piece["usage"] = json!({"prompt_tokens": 10, "completion_tokens": 3});
    let piece = if text.is_empty() { delta(json!({"content": ""})) } else { piece };
    vec![piece, finish("stop"), usage(10, tokens)]
}

#[test]
fn after_a_dropped_call_later_ones_come_as_text() {
    for said in ["", "Let me look. "] {
        let upstream = Upstream::start();
        let server = Server::start(&upstream);
        upstream.next_chunks(dropped(said, 25));
        let lost = server.connect().post(&with_tools(hello_stream()));
        assert!(lost.whole_events().iter().all(|block| block["type"] == "text"), "nothing brings it back");
        (0..2).for_each(|_| upstream.next_chunks(text(CALL)));
        for _ in 0..2 {
            let found = server.connect().post(&with_tools(hello()));
            assert_eq!(found.message()[0]["input"], json!({"city": "Oslo"}));
        }
        let seen = upstream.seen();
        assert!(seen[0].body.get("tool_choice").is_none_or(|choice| choice == "auto"), "{}", seen[0].body);
        assert_eq!(
            (&seen[1].body["tool_choice"], &seen[2].body["tool_choice"]),
            (&json!("none"), &json!("none"))
        );
        // A request without tools, and one that forces a call, stay as they are.
        server.connect().post(&hello());
        let mut forced = with_tools(hello());
        forced["tool_choice"] = json!({"type": "any"});
        server.connect().post(&forced);
        let seen = upstream.seen();
        assert!(seen[3].body.get("tool_choice").is_none());
        assert_eq!(seen[4].body["tool_choice"], "required");
        let log = server.terminate_and_log();
        assert_eq!(log.matches("they are asked for as text, and found there").count(), 1, "{log}");
    }
}

#[test]
fn a_server_that_has_recognized_a_call_is_not_asked_for_text_when_the_model_slips() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let function = json!({"name": "weather", "arguments": "{\"city\": \"Oslo\"}"});
    let call = json!({"index": 0, "id": "call_1", "type": "function", "function": function});
    upstream.next_chunks(vec![delta(json!({"tool_calls": [call]})), finish("tool_calls"), usage(10, 25)]);
    (0..2).for_each(|_| upstream.next_chunks(dropped("", 25)));
    (0..4).for_each(|_| _ = server.connect().post(&with_tools(hello())));
    assert!(upstream.seen().iter().all(|seen| seen.body["tool_choice"] != "none"));
}

#[test]
fn only_dropped_calls_have_calls_come_as_text() {
    let upstream = Upstream::start();
    let lua = format!(
        r#"return {{ upstreams = {{ box = {{ url = "{}", rescue_tool_calls = false }} }} }}"#,
        upstream.url()
    );
    let hooks = hooks_file("dropped", &lua);
    let refusing = Server::run(&["--hooks", &hooks], &[]);
    let refusal =
        r#"{"error":{"message":"\"auto\" tool choice requires --enable-auto-tool-choice","code":400}}"#;
    upstream.next_answer(400, refusal);
    let told = refusing.connect().post(&with_tools(hello()));
    assert!(
        told.status == 400 && told.json().to_string().contains("--enable-auto-tool-choice"),
        "the flag is said"
    );
    upstream.next_chunks(dropped("", 25));
    refusing.connect().post(&with_tools(hello()));

    // A server that counts thinking and does not show it: `none` would forbid its calls.
    let lua = format!(
        r#"return {{ upstreams = {{ box = {{ url = "{}", flavour = "openai" }} }} }}"#,
        upstream.url()
    );
    let hidden = Server::run(&["--hooks", &hooks_file("hidden", &lua)], &[]);
    (0..2).for_each(|_| upstream.next_chunks(dropped("", 25)));
    (0..2).for_each(|_| _ = hidden.connect().post(&with_tools(hello())));

    let server = Server::start(&upstream);
    // Few tokens, an answer that met its limit, a server that counts only at the end, and a call.
    upstream.next_chunks(dropped("", 7));
    upstream.next_chunks(vec![delta(json!({"content": ""})), finish("length"), usage(10, 25)]);
    upstream.next_chunks(text("It rains."));
    let function = json!({"name": "weather", "arguments": "{\"city\": \"Oslo\"}"});
    let call = json!({"index": 0, "id": "call_1", "type": "function", "function": function});
    upstream.next_chunks(vec![delta(json!({"tool_calls": [call]})), finish("tool_calls"), usage(10, 25)]);
    (0..5).for_each(|_| _ = server.connect().post(&with_tools(hello())));
    assert!(upstream.seen().iter().all(|seen| seen.body["tool_choice"] != "none"));
}
