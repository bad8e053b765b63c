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
