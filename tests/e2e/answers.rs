//! The parts of an answer that a client gets, and the request that the upstream gets.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::client::{hello, hello_stream, post_with};
use super::server::Server;
use super::upstream::{MODEL, Then, Upstream, delta, finish, text_chunks, usage};

/// Thinking, text, and two calls whose arguments come in pieces.
fn rich() -> Vec<Value> {
    let call = |call: Value| delta(json!({"tool_calls": [call]}));
    let begin = |index: u64, id: &str, name: &str| {
        call(json!({"index": index, "id": id, "type": "function", "function": {"name": name}}))
    };
    let arguments = |index: u64, text: &str| call(json!({"index": index, "function": {"arguments": text}}));
    vec![
        delta(json!({"role": "assistant", "content": ""})),
        delta(json!({"reasoning": "Two "})),
        delta(json!({"reasoning": "cities."})),
        delta(json!({"content": "\n\nLet me "})),
        delta(json!({"content": "look."})),
        begin(0, "chatcmpl-tool-1", "weather"),
        arguments(0, "{\"city\": \"Pa"),
        arguments(0, "ris\"}"),
        begin(1, "chatcmpl-tool-2", "weather"),
        arguments(1, "{\"city\": \"Oslo\"}"),
        finish("tool_calls"),
        usage(100, 40),
    ]
}

fn with_tools(mut body: Value) -> Value {
    body["thinking"] = json!({"type": "adaptive"});
    body["tools"] = json!([{"name": "weather", "description": "The weather",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]);
    body
}

// covers: 63, 112
#[test]
fn a_whole_message_is_the_fold_of_the_stream() {
    let upstream = Upstream::start();
    upstream.next_chunks(rich());
    upstream.next_chunks(rich());
    let server = Server::start(&upstream);
    let mut client = server.connect();
    let streamed = client.post(&with_tools(hello_stream()));
    let whole = client.post(&with_tools(hello()));
    let content = whole.message();
    assert_eq!(streamed.whole_events(), content);
    let kinds: Vec<&str> = content.iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use", "tool_use"]);
    assert_eq!(content[0]["thinking"], "Two cities.");
    assert_eq!(content[1]["text"], "Let me look.");
    assert_eq!(content[2]["input"], json!({"city": "Paris"}));
    assert_eq!(
        (&content[3]["id"], &content[3]["input"]),
        (&json!("chatcmpl-tool-2"), &json!({"city": "Oslo"}))
    );
    let (whole, start, end) =
        (whole.json(), &streamed.data("message_start")[0]["message"], &streamed.data("message_delta")[0]);
    for key in ["type", "role", "model"] {
        assert_eq!(whole[key], start[key], "{key}");
    }
    assert_eq!(whole["model"], "claude-sonnet-5", "the name that was asked for");
    assert_eq!(whole["stop_reason"], "tool_use");
    assert_eq!(whole["stop_reason"], end["delta"]["stop_reason"]);
    assert_eq!(
        (&whole["usage"]["input_tokens"], &whole["usage"]["output_tokens"]),
        (&json!(100), &json!(40))
    );
    assert_eq!(whole["usage"]["input_tokens"], end["usage"]["input_tokens"]);
    // The two requests are the same for the upstream: it is always asked to stream.
    let seen = upstream.seen();
    assert_eq!(seen[0].body, seen[1].body);
    assert_eq!((&seen[0].body["stream"], &seen[0].body["model"]), (&json!(true), &json!(MODEL)));
}

#[test]
fn each_piece_goes_on_at_once() {
    let upstream = Upstream::start();
    let (more, go_on) = std::sync::mpsc::channel::<()>();
    upstream.next(move |call| {
        call.stream_head();
        for chunk in text_chunks("a b c ") {
            call.chunk(&chunk);
            if chunk["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()) {
                go_on.recv().unwrap();
            }
        }
        call.done()
    });
    let server = Server::start(&upstream);
    let mut client = server.connect();
    client.send(&super::client::post(hello_stream().to_string().as_bytes()));
    assert_eq!(client.head().status, 200);
    // The upstream sends the next piece only after this one was seen here.
    for text in ["\"a ", "\"b ", "\"c "] {
        client.read_until(text);
        more.send(()).unwrap();
    }
    client.read_until("message_stop");
}

// covers: 32
#[test]
fn keys_stay_where_they_belong() {
    let upstream = Upstream::start();
    let url = upstream.url();
    let server = Server::run(
        &["serve", "--log-level", "trace", "--upstream", &url],
        &[("SPARKGAP_UPSTREAM_KEY", "sk-upstream-secret")],
    );
    server.wait_for("upstream default: ");
    let keys = "x-api-key: sk-client-one\r\nauthorization: Bearer sk-client-two\r\ncookie: sk-client-three\r\nanthropic-version: 2023-06-01\r\nanthropic-beta: a,b\r\nx-custom: sk-client-four\r\n";
    server.connect().ask(&post_with(keys, hello().to_string().as_bytes())).message();
    let seen = upstream.only_seen();
    let head = seen.head.to_ascii_lowercase();
    assert!(head.contains("\r\nauthorization: bearer sk-upstream-secret\r\n"), "{head}");
    assert_eq!(head.matches("secret").count(), 1);
    for foreign in ["sk-client", "x-api-key", "cookie", "anthropic", "x-custom"] {
        assert!(!head.contains(foreign), "{head}");
    }
    assert!(!seen.body.to_string().contains("sk-"), "{}", seen.body);
    server.connect().ask(b"GET /nothing HTTP/1.1\r\n\r\n").error();
    for stage in ["from the client: {", "to the upstream: {", "from the upstream: {", "to the client: {"] {
        server.wait_for(stage); // the keys below are searched in everything that TRACE logs
    }
    let log = server.terminate_and_log();
    for key in ["sk-client", "sk-upstream"] {
        assert!(!log.contains(key), "{log}");
    }
}

// covers: 32
#[test]
fn with_a_file_of_keys_only_their_owners_are_served() {
    let upstream = Upstream::start();
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("keys");
    std::fs::write(&file, "# ours\nsk-one Ann\nsk-two\n").unwrap();
    let server = Server::start_with(&upstream, &["--api-key-file", file.to_str().unwrap()]);
    let body = hello().to_string();
    for keys in
        ["x-api-key: sk-one\r\n", "authorization: Bearer sk-two\r\n", "authorization: bearer sk-one\r\n"]
    {
        server.connect().ask(&post_with(keys, body.as_bytes())).message();
    }
    for keys in ["", "x-api-key: sk-on\r\n", "x-api-key: \r\n", "authorization: sk-two\r\n"] {
        let answer = server.connect().ask(&post_with(keys, body.as_bytes()));
        assert_eq!((answer.status, answer.header("x-should-retry")), (401, Some("false")), "{keys}");
        assert_eq!(answer.error().0, "authentication_error");
    }
    assert_eq!(upstream.seen().len(), 3);
    assert_eq!(server.connect().ask(b"GET /health HTTP/1.1\r\n\r\n").status, 200, "anybody may know");
    let log = server.terminate_and_log();
    assert!(!log.contains("sk-"), "{log}");
    let (code, _, stderr) =
        super::server::output(&["serve", "--listen", "0.0.0.0:0", "--upstream", &upstream.url()]);
    assert!(code == Some(78) && stderr.contains("--api-key-file"), "{stderr}");
}

#[test]
fn without_a_key_none_is_sent() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    server.connect().ask(&post_with("x-api-key: a\r\n", hello().to_string().as_bytes())).message();
    assert!(!upstream.only_seen().head.to_ascii_lowercase().contains("authorization"));
}

// covers: 113
#[test]
fn no_two_answers_share_an_id() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let (mut client, mut messages, mut requests) = (server.connect(), HashSet::new(), HashSet::new());
    for i in 0..50 {
        let answer = client.post(&if i % 2 == 0 { hello() } else { hello_stream() });
        requests.insert(answer.header("request-id").unwrap().to_owned());
        let message = match i % 2 {
            0 => answer.json(),
            _ => answer.data("message_start")[0]["message"].clone(),
        };
        messages.insert(message["id"].as_str().unwrap().to_owned());
    }
    assert_eq!((messages.len(), requests.len()), (50, 50));
    assert_eq!(upstream.seen().len(), 50, "each was asked once");
}

// covers: 110
#[test]
fn the_same_request_gives_the_same_bytes() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    // 60 keys are more than some maps keep in order.
    let keys: Vec<String> = (0..60).map(|i| format!("\"k{}\":{i}", (i * 37) % 60)).collect();
    let mut body = with_tools(hello());
    body["tools"][0]["input_schema"]["properties"] = json!({});
    let body =
        body.to_string().replace("\"properties\":{}", &format!("\"properties\":{{{}}}", keys.join(",")));
    let mut client = server.connect();
    let request = post_with("", body.as_bytes());
    client.ask(&request).message();
    client.ask(&request).message();
    let seen = upstream.seen();
    assert_eq!(seen[0].body.to_string(), seen[1].body.to_string());
}

// covers: 87
#[test]
fn an_upstream_that_does_not_stream_is_understood() {
    let upstream = Upstream::start();
    let whole = json!({"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "Whole."}}], "usage": {"prompt_tokens": 9, "completion_tokens": 2}});
    let whole = whole.to_string();
    upstream.next_answer(200, &whole);
    upstream.next_answer(200, &whole);
    // The next one does not say what it sends.
    upstream.next(move |call| {
        call.write(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n {whole}", whole.len() + 1));
        Then::Keep
    });
    let server = Server::start(&upstream);
    let mut client = server.connect();
    assert_eq!(client.post(&hello()).message()[0]["text"], "Whole.");
    for _ in 0..2 {
        assert_eq!(client.post(&hello_stream()).whole_events()[0]["text"], "Whole.");
    }
}

// covers: 114
#[test]
fn the_classifier_of_auto_mode_gets_its_answer() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut body = hello();
    body["max_tokens"] = 64.into();
    body["stop_sequences"] = json!(["</block>"]);
    // vLLM names the stop string that it met, and leaves it out of the text.
    let mut end = finish("stop");
    end["choices"][0]["stop_reason"] = "</block>".into();
    upstream.next_chunks(vec![delta(json!({"content": "<block>"})), delta(json!({"content": "no"})), end]);
    let answer = server.connect().post(&body);
    assert_eq!(answer.message(), [json!({"type": "text", "text": "<block>no"})]);
    let message = answer.json();
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("stop_sequence"), &json!("</block>"))
    );
    let sent = upstream.only_seen().body;
    assert_eq!(sent["chat_template_kwargs"]["enable_thinking"], false);
    assert_eq!(sent["stop"], json!(["</block>"]));
}

// covers: 58
#[test]
fn the_log_counts_what_was_changed_in_arguments() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut body = with_tools(hello());
    body["tools"][0]["input_schema"]["properties"]["days"] = json!({"type": "integer"});
    let call = json!({"index": 0, "id": "a", "function": {"name": "weather", "arguments": "{\"days\": \"5\", \"city\": \"Oslo\""}});
    upstream.next_chunks(vec![delta(json!({"tool_calls": [call]})), finish("tool_calls")]);
    let answer = server.connect().post(&body);
    assert_eq!(answer.message()[0]["input"], json!({"days": 5, "city": "Oslo"}));
    let line = server.wait_for(answer.header("request-id").unwrap());
    assert!(line.contains(" coerced 1 repaired 1 "), "{line}");
}

#[test]
fn each_request_is_one_line_of_the_log() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let answer = server.connect().post(&hello_stream());
    let id = answer.header("request-id").unwrap();
    let line = server.wait_for(id);
    let told = "claude-sonnet-5 -> default/qwen3 stream 200 end_turn in 20 out 5 cached 0 first ";
    assert!(line.contains(told), "{line}");
    assert!(server.terminate(), "SIGTERM is an orderly end");
}
