//! Tool calls through the binary: what a hook is asked about, and ids that come again.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::client::{hello, hello_stream};
use super::server::Server;
use super::upstream::{Then, Upstream, delta, finish, usage};
use super::validator::Ended;

fn serve(name: &str, lua: &str) -> Server {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("calls-{name}.lua"));
    fs::write(&path, lua).unwrap();
    Server::run(&["serve", "--hooks", path.to_str().unwrap()], &[])
}

fn call(index: u64, id: &str, arguments: &str) -> Value {
    let function = json!({"name": "f", "arguments": arguments});
    delta(json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}))
}

fn with_tool(mut body: Value) -> Value {
    body["tools"] = json!([{"name": "f", "input_schema": {"type": "object"}}]);
    body
}

#[test]
fn a_hook_is_not_asked_about_a_call_that_was_cut() {
    let upstream = Upstream::start();
    let server = serve(
        "cut",
        &format!(
            r#"return {{ api = 1, upstreams = {{ a = {{ url = "{}" }} }},
                on_tool_call = function(call) call.name = "seen_" .. call.name end }}"#,
            upstream.url()
        ),
    );
    let mut client = server.connect();
    // Cut behind its name, inside a string, and behind a placeholder when the upstream breaks off.
    for (arguments, breaks) in
        [("", false), ("{\"a\": \"x", false), ("", true), ("{}", true), ("{\"a\": 1", true)]
    {
        let chunks = [call(0, "c0", "{\"a\": 0}"), call(1, "c1", arguments)];
        upstream.next(move |call| {
            call.stream_head();
            chunks.iter().for_each(|chunk| call.chunk(chunk));
            if breaks {
                return Then::Close;
            }
            call.chunk(&finish("length"));
            call.chunk(&usage(10, 5));
            call.done()
        });
        let (ended, blocks) = client.post(&with_tool(hello_stream())).events();
        assert_eq!(ended, if breaks { Ended::Failed } else { Ended::Whole }, "{arguments:?}");
        let names: Vec<&Value> = blocks.iter().map(|block| &block["name"]).collect();
        // A call that had not ended for the client before the break, or not begun, is not shown at all.
        let is_beginning = ["seen_f", "f"].iter().zip(&names).all(|(wanted, name)| *name == wanted);
        assert!(is_beginning && (breaks || names.len() == 2), "{arguments:?} {blocks:?}");
        assert!(blocks.iter().skip(1).all(|block| !block["input"].is_object()), "{arguments:?} {blocks:?}");
    }
}

#[test]
fn a_call_that_breaks_off_before_its_first_value_is_unfinished_where_hooks_see_events() {
    let upstream = Upstream::start();
    let server = serve(
        "broken",
        &format!(
            r#"return {{ api = 1, upstreams = {{ a = {{ url = "{}" }} }}, on_event = function() end }}"#,
            upstream.url()
        ),
    );
    let mut client = server.connect();
    // The part of the arguments that was sent when the connection was lost: nothing, or the first value's beginning.
    for arguments in ["{", "{\"a\"", "{\"a\": 1", "{\"a\": \"x", "{\"a\": [1"] {
        let chunk = call(0, "c0", arguments);
        upstream.next(move |call| {
            call.stream_head();
            call.chunk(&chunk);
            Then::Close
        });
        let (ended, blocks) = client.post(&with_tool(hello_stream())).events();
        assert_eq!((ended, blocks.len()), (Ended::Failed, 1), "{arguments}");
        assert!(!blocks[0]["input"].is_object(), "{arguments} {blocks:?}");
    }
}

#[test]
fn a_server_that_counts_its_calls_from_zero_sees_its_own_ids() {
    let upstream = Upstream::start();
    let server = Server::run(&["serve", "--upstream", &upstream.url()], &[]);
    let mut client = server.connect();
    let mut body = with_tool(hello());
    let mut shown = Vec::new();
    for turn in 0..50 {
        upstream.next_chunks(vec![call(0, "call_0", &format!("{{\"a\": {turn}}}")), finish("tool_calls")]);
        let content = client.post(&body).message();
        let id = content[0]["id"].as_str().unwrap().to_owned();
        let result = json!([{"type": "tool_result", "tool_use_id": id, "content": turn.to_string()}]);
        let messages = body["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": content}));
        messages.push(json!({"role": "user", "content": result}));
        shown.push(id);
    }
    assert_eq!(shown[0], "call_0");
    shown.sort_unstable();
    shown.dedup();
    assert_eq!(shown.len(), 50, "every turn has an id of its own");
    let seen = upstream.seen();
    let last = seen[49].body["messages"].as_array().unwrap();
    for message in last {
        let calls = message["tool_calls"].as_array().into_iter().flatten();
        let ids = calls.map(|call| &call["id"]).chain(message.get("tool_call_id"));
        assert!(ids.into_iter().all(|id| id == "call_0"), "{message}");
    }
    // Messages that were sent once are sent again, byte for byte.
    for pair in seen.windows(2) {
        let [one, other] = pair else { continue };
        let (one, other) = (&one.body["messages"], &other.body["messages"]);
        let sent = one.as_array().unwrap();
        assert_eq!(sent.as_slice(), &other.as_array().unwrap()[..sent.len()]);
    }
}
