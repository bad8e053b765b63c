//! Web searches beside other tools: the model of a scripted upstream calls the function that stands for the search, a scripted
//! SearXNG answers, and the model goes on in the same message.

use std::path::Path;

use serde_json::{Value, json};

use super::client::{Answer, post};
use super::search::silent_engine;
use super::server::{Server, hooks_file, output};
use super::upstream::{Gate, Then, Upstream, delta, finish, usage};
use super::validator::Ended;

/// A request that offers a web search and a tool of the client.
fn question() -> Value {
    json!({"model": "claude-sonnet-5-5", "max_tokens": 1_000, "stream": true,
        "messages": [{"role": "user", "content": "How new is Rust 2027?"}],
        "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
            {"name": "Bash", "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}}}]})
}

fn with(mut body: Value, more: &Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn whole() -> Value {
    with(question(), &json!({"stream": false}))
}

fn call(index: u64, name: &str, arguments: &str) -> Value {
    delta(json!({"tool_calls": [{"index": index, "id": format!("call_{name}_{index}"), "type": "function",
        "function": {"name": name, "arguments": arguments}}]}))
}

fn search(query: &str) -> Value {
    call(0, "web_search", &json!({"query": query}).to_string())
}

fn text(text: &str) -> Value {
    delta(json!({"content": text}))
}

/// An answer of these chunks that ends with its calls.
fn calls(chunks: &[Value], prompt: u64, completion: u64) -> Vec<Value> {
    [chunks, &[finish("tool_calls"), usage(prompt, completion)]].concat()
}

fn last(said: &str, prompt: u64, completion: u64) -> Vec<Value> {
    vec![text(said), finish("stop"), usage(prompt, completion)]
}

fn page(title: &str) -> String {
    json!({"results": [{"url": "https://rust-lang.org/", "title": title, "content": "A language for everyone."}]}).to_string()
}

/// A sparkgap with an engine that answers these queries, and more keys in its file.
fn serve(name: &str, upstream: &Upstream, queries: &[&str], more: &str) -> (Server, Upstream) {
    let engine = Upstream::start();
    for query in queries {
        engine.set_page(&format!("/search?q={query}&format=json"), 200, &page(query));
    }
    let lua = format!(
        r#"return {{ upstreams = {{ box = {{ url = "{}" }} }}, search = {{ searxng = "{}" }}, {more} }}"#,
        upstream.url(),
        engine.url().trim_end_matches("/v1")
    );
    (Server::run(&["--hooks", &hooks_file(name, &lua)], &[]), engine)
}

fn kinds(content: &[Value]) -> Vec<&str> {
    content.iter().map(|block| block["type"].as_str().unwrap()).collect()
}

/// The end of a stream: its stop reason and its usage.
fn end(answer: &Answer) -> (String, Value) {
    let ends: Vec<Value> = answer
        .data("message_delta")
        .into_iter()
        .filter(|end| !end["delta"]["stop_reason"].is_null())
        .collect();
    assert_eq!((ends.len(), answer.data("message_start").len()), (1, 1), "{}", answer.text());
    (ends[0]["delta"]["stop_reason"].as_str().unwrap().to_owned(), ends[0]["usage"].clone())
}

fn code(content: &[Value], at: usize) -> &Value {
    &content[at]["content"]["error_code"]
}

#[test]
fn the_model_searches_and_goes_on_in_the_same_message() {
    let upstream = Upstream::start();
    let (server, _engine) = serve("rounds", &upstream, &["a", "b"], "");
    for body in [question(), whole()] {
        let before = upstream.seen().len();
        let thinks = delta(json!({"reasoning_content": "I must look."}));
        upstream.next_chunks(calls(&[thinks, text("\n\nLet me look."), search("a")], 100, 20));
        upstream.next_chunks(calls(&[search("b")], 200, 10));
        upstream.next_chunks(last("It is new.", 300, 5));
        let answer = server.connect().post(&body);
        let is_stream = body["stream"] == true;
        let content = if is_stream { answer.whole_events() } else { answer.message() };
        let searched = ["server_tool_use", "web_search_tool_result"];
        assert_eq!(kinds(&content), [&["thinking", "text"][..], &searched, &searched, &["text"]].concat());
        assert_eq!(
            (&content[2]["input"], &content[4]["input"]),
            (&json!({"query": "a"}), &json!({"query": "b"}))
        );
        assert_eq!(content[3]["tool_use_id"], content[2]["id"]);
        assert_eq!(content[3]["content"][0]["title"], "a");
        assert_eq!(content[6]["text"], "It is new.");
        let (reason, usage) = match is_stream {
            true => end(&answer),
            false => ("end_turn".to_owned(), answer.json()["usage"].clone()),
        };
        assert_eq!((reason.as_str(), &usage["output_tokens"]), ("end_turn", &json!(35)));
        assert_eq!(usage["input_tokens"], 600);
        assert_eq!(usage["server_tool_use"], json!({"web_search_requests": 2}));
        let line = server.wait_for(answer.header("request-id").unwrap());
        assert!(line.contains(" end_turn in 600 out 35 cached 0 searches 2 "), "{line}");

        let seen = &upstream.seen()[before..];
        let names = |body: &Value| -> Vec<String> {
            let tools = body["tools"].as_array().unwrap();
            tools.iter().map(|tool| tool["function"]["name"].as_str().unwrap().to_owned()).collect()
        };
        assert!(seen.iter().all(|seen| names(&seen.body) == ["web_search", "Bash"]), "{seen:?}");
        let (first, second) = (&seen[0].body["messages"], seen[1].body["messages"].as_array().unwrap());
        assert_eq!(second[..1], first.as_array().unwrap()[..]);
        assert_eq!(second[1]["content"], "\n\nLet me look.");
        assert_eq!(second[1]["reasoning"], "I must look.");
        assert_eq!(second[1]["tool_calls"][0]["function"]["arguments"], r#"{"query":"a"}"#);
        assert_eq!(second[2]["tool_call_id"], second[1]["tool_calls"][0]["id"]);
        let results = second[2]["content"].as_str().unwrap();
        assert!(results.contains("1. a\nhttps://rust-lang.org/\nA language for everyone."), "{results}");
        let third = seen[2].body["messages"].as_array().unwrap();
        assert_eq!((third.len(), &third[..3]), (5, &second[..]));
        let limits: Vec<&Value> = seen.iter().map(|seen| &seen.body["max_tokens"]).collect();
        assert_eq!(limits, [&json!(1_000), &json!(980), &json!(970)]);
    }
    let metrics = server.connect().ask(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert!(metrics.text().contains("sparkgap_searches_total 4"), "{}", metrics.text());
}

#[test]
fn searches_and_calls_of_the_client_in_one_answer_end_it() {
    let upstream = Upstream::start();
    let (server, _engine) = serve("rounds-mixed", &upstream, &["a", "b"], "");
    let bash = |index| call(index, "Bash", r#"{"command":"ls"}"#);
    let search = |index: u64, query: &str| call(index, "web_search", &json!({"query": query}).to_string());
    for (chunks, expected) in
        [(vec![search(0, "a"), bash(1), search(2, "b")], "ssc"), (vec![bash(0), search(1, "a")], "cs")]
    {
        upstream.next_chunks(calls(&chunks, 10, 5));
        let answer = server.connect().post(&question());
        let content = answer.whole_events();
        let expected: Vec<&str> = expected
            .chars()
            .flat_map(|kind| match kind {
                's' => vec!["server_tool_use", "web_search_tool_result"],
                _ => vec!["tool_use"],
            })
            .collect();
        assert_eq!(kinds(&content), expected);
        let used = content.iter().find(|block| block["type"] == "tool_use").unwrap();
        assert_eq!((&used["name"], &used["input"]), (&json!("Bash"), &json!({"command": "ls"})));
        assert_eq!(end(&answer).0, "tool_use");
    }
    assert_eq!(upstream.seen().len(), 2, "the model was asked again");
    // Several searches make one round; only the first call counts for a client that wants one.
    upstream.next_chunks(calls(&[search(0, "a"), search(1, "b")], 10, 5));
    upstream.next_chunks(last("Done.", 10, 5));
    let both = server.connect().post(&whole()).message();
    assert_eq!(both.len(), 5, "{both:?}");
    let one = with(whole(), &json!({"tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}));
    upstream.next_chunks(calls(&[search(0, "a"), bash(1), search(2, "b")], 10, 5));
    upstream.next_chunks(last("Done.", 10, 5));
    assert_eq!(
        kinds(&server.connect().post(&one).message()),
        ["server_tool_use", "web_search_tool_result", "text"]
    );
}

#[test]
fn a_forced_search_is_forced_once() {
    let upstream = Upstream::start();
    let (server, _engine) = serve("rounds-forced", &upstream, &["a"], "");
    for choice in [json!({"type": "tool", "name": "web_search"}), json!({"type": "any"})] {
        let before = upstream.seen().len();
        upstream.next_chunks(calls(&[search("a")], 10, 5));
        upstream.next_chunks(last("Done.", 10, 5));
        let content = server.connect().post(&with(whole(), &json!({"tool_choice": choice}))).message();
        assert_eq!(content.len(), 3);
        let seen = upstream.seen();
        assert_ne!(seen[before].body["tool_choice"], "auto");
        assert_eq!(seen[before + 1].body["tool_choice"], "auto");
    }
    upstream.next_chunks(last("No.", 10, 5));
    let none = with(whole(), &json!({"tool_choice": {"type": "none"}}));
    assert_eq!(kinds(&server.connect().post(&none).message()), ["text"]);
}

#[test]
fn a_model_that_searches_too_often_is_told_and_then_offered_no_search() {
    let upstream = Upstream::start();
    let (server, engine) = serve("rounds-many", &upstream, &["a"], "");
    let mut once = question();
    once["tools"][0]["max_uses"] = json!(1);
    upstream.next_chunks(calls(&[search("a")], 10, 5));
    upstream.next_chunks(calls(&[search("b")], 10, 5));
    upstream.next_chunks(last("Enough.", 10, 5));
    let answer = server.connect().post(&once);
    let content = answer.whole_events();
    assert_eq!((content.len(), code(&content, 3)), (5, &json!("max_uses_exceeded")));
    assert_eq!(end(&answer).1["server_tool_use"], json!({"web_search_requests": 1}));
    let seen = upstream.seen();
    assert_eq!(seen[1].body["tools"].as_array().unwrap().len(), 2);
    assert_eq!(seen[2].body["tools"].as_array().unwrap().len(), 1);
    let told = seen[2].body["messages"].as_array().unwrap().last().unwrap()["content"].clone();
    assert_eq!(told, "The search failed: max_uses_exceeded.");
    assert!(engine.seen().is_empty());

    // A model that calls it all the same ends its message.
    for _ in 0..3 {
        upstream.next_chunks(calls(&[search("a")], 10, 5));
    }
    let answer = server.connect().post(&once);
    let content = answer.whole_events();
    assert_eq!((content.len(), code(&content, 5)), (6, &json!("max_uses_exceeded")));
    assert_eq!((end(&answer).0.as_str(), upstream.seen().len()), ("end_turn", 6));

    // A client cannot set any number of searches.
    let mut many = question();
    many["tools"][0]["max_uses"] = json!(1_000_000);
    for _ in 0..34 {
        upstream.next_chunks(calls(&[search("a")], 10, 5));
    }
    let answer = server.connect().post(&many);
    assert_eq!(end(&answer).1["server_tool_use"], json!({"web_search_requests": 32}));
    assert_eq!(answer.whole_events().len(), 68);
}

#[test]
fn a_search_that_fails_goes_to_the_model_too() {
    let upstream = Upstream::start();
    let (server, engine) = serve("rounds-failed", &upstream, &[], "");
    engine.set_page("/search?q=down&format=json", 500, "x");
    let long = "x".repeat(100_000);
    for (call, expected, told) in [
        (search("down"), "unavailable", "web search is unavailable"),
        (search(""), "invalid_tool_input", "invalid_tool_input"),
        (call(0, "web_search", r#"{"q":"a"}"#), "invalid_tool_input", "invalid_tool_input"),
        (call(0, "web_search", "rust 2027"), "invalid_tool_input", "invalid_tool_input"),
        (call(0, "web_search", "{}"), "invalid_tool_input", "invalid_tool_input"),
        (search(&long), "query_too_long", "query_too_long"),
    ] {
        upstream.next_chunks(calls(&[call], 10, 5));
        upstream.next_chunks(last("I could not look.", 10, 5));
        let answer = server.connect().post(&question());
        let content = answer.whole_events();
        assert_eq!((kinds(&content)[2], code(&content, 1)), ("text", &json!(expected)));
        assert!(content[0].to_string().len() < 2_000);
        assert_eq!(end(&answer).1["server_tool_use"], Value::Null);
        let body = upstream.seen().pop().unwrap().body;
        let messages = body["messages"].as_array().unwrap();
        assert!(messages.last().unwrap()["content"].as_str().unwrap().contains(told), "{expected}");
        let arguments = messages[1]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
        assert!(serde_json::from_str::<Value>(arguments).unwrap().is_object(), "{arguments}");
    }
}

#[test]
fn a_search_that_was_cut_is_not_made() {
    let upstream = Upstream::start();
    let (server, engine) = serve("rounds-cut", &upstream, &["a"], "");
    let half = call(0, "web_search", r#"{"query":"a"#);
    upstream.next_chunks(vec![text("Look."), half.clone(), finish("length"), usage(10, 1_000)]);
    let answer = server.connect().post(&question());
    assert_eq!(kinds(&answer.whole_events()), ["text"]);
    assert_eq!(end(&answer).0, "max_tokens");
    // A whole one at the limit leaves no tokens for another round.
    upstream.next_chunks(vec![search("a"), finish("length"), usage(10, 1_000)]);
    assert_eq!(end(&server.connect().post(&question())).0, "max_tokens");
    // A stream that breaks in the middle of a call, and in the next round.
    upstream.next(move |call| {
        call.stream_head();
        call.chunk(&text("Look."));
        call.chunk(&half);
        call.close();
        Then::Close
    });
    let (ended, content) = server.connect().post(&question()).events();
    assert!(ended == Ended::Failed && kinds(&content) == ["text"], "{ended:?} {content:?}");
    upstream.next_chunks(calls(&[search("a")], 10, 5));
    upstream.next_answer(400, r#"{"error":{"message":"no","type":"BadRequestError","code":400}}"#);
    let (ended, content) = server.connect().post(&question()).events();
    assert!(ended == Ended::Failed && content.len() == 2, "{ended:?} {content:?}");
    upstream.next_chunks(calls(&[search("a")], 10, 5));
    upstream.next_answer(400, r#"{"error":{"message":"no","type":"BadRequestError","code":400}}"#);
    assert_eq!(server.connect().post(&whole()).status, 400);
    assert!(engine.seen().is_empty());
}

#[test]
fn a_call_that_sparkgap_does_not_offer_is_the_client_s() {
    let upstream = Upstream::start();
    // No engine: the search is left out, and a call of it is passed on.
    let plain = Server::start(&upstream);
    upstream.next_chunks(calls(&[search("a")], 10, 5));
    let answer = plain.connect().post(&question());
    assert_eq!((kinds(&answer.whole_events()), end(&answer).0.as_str()), (vec!["tool_use"], "tool_use"));
    plain.wait_for("server tool web_search_20250305");

    // A tool of the client that has the name.
    let (server, _engine) = serve("rounds-clash", &upstream, &["a"], "");
    let mut clash = question();
    let own = json!({"name": "web_search", "description": "Mine.", "input_schema": {"type": "object"}});
    clash["tools"].as_array_mut().unwrap().push(own);
    upstream.next_chunks(calls(&[search("a")], 10, 5));
    assert_eq!(kinds(&server.connect().post(&clash).whole_events()), ["tool_use"]);
    let tools = upstream.seen().pop().unwrap().body["tools"].clone();
    assert_eq!((tools.as_array().unwrap().len(), &tools[1]["function"]["description"]), (2, &json!("Mine.")));
    server.wait_for("since a tool of the client has its name: web_search");
}

#[test]
fn a_call_in_text_is_a_search_too() {
    let upstream = Upstream::start();
    let (server, _engine) = serve("rounds-rescued", &upstream, &["a"], "");
    let lost =
        "Look.\n<tool_call>\n{\"name\": \"web_search\", \"arguments\": {\"query\": \"a\"}}\n</tool_call>";
    upstream.next_chunks(last(lost, 10, 5));
    upstream.next_chunks(last("Done.", 10, 5));
    let answer = server.connect().post(&question());
    let content = answer.whole_events();
    assert_eq!(kinds(&content), ["text", "server_tool_use", "web_search_tool_result", "text"]);
    let line = server.wait_for(answer.header("request-id").unwrap());
    assert!(line.contains(" rescued 1 hermes searches 1 "), "{line}");
}

#[test]
fn an_upstream_that_answers_as_a_whole_and_with_refusals_searches_too() {
    let upstream = Upstream::start();
    let (server, _engine) = serve("rounds-whole", &upstream, &["a"], "");
    let function = json!({"name": "web_search", "arguments": r#"{"query":"a"}"#});
    let message = json!({"role": "assistant", "content": null,
        "tool_calls": [{"id": "x", "type": "function", "function": function}]});
    let body = json!({"object": "chat.completion", "usage": {"prompt_tokens": 9, "completion_tokens": 5},
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]});
    upstream.next_answer(200, &body.to_string());
    // The next round needs a repair of the request.
    let refusal = json!({"error": {"message": "This model's maximum context length is 1024 tokens. However, you requested 1100 tokens (500 in the messages, 600 in the completion).", "type": "BadRequestError", "code": 400}});
    upstream.next_answer(400, &refusal.to_string());
    upstream.next_chunks(last("Done.", 500, 5));
    let answer = server.connect().post(&question());
    assert_eq!(kinds(&answer.whole_events()), ["server_tool_use", "web_search_tool_result", "text"]);
    assert_eq!(end(&answer).1["input_tokens"], 509);
    let seen = upstream.seen();
    assert_eq!((seen.len(), &seen[2].body["messages"]), (3, &seen[1].body["messages"]));
    assert!(seen[2].body["max_tokens"].as_u64() < seen[1].body["max_tokens"].as_u64());
}

#[test]
fn hooks_answer_and_refuse_the_searches_of_a_model() {
    let upstream = Upstream::start();
    let hook = r#"on_search = function(query, req)
        if query == "own" then return { results = { { url = "http://wiki.lan/", snippet = "Ours." } } } end
        if query == "broken" then return { results = "many" } end
    end"#;
    let lua = format!(
        r#"return {{ upstreams = {{ box = {{ url = "{}" }} }}, policy = "closed", {hook} }}"#,
        upstream.url()
    );
    let server = Server::run(&["--hooks", &hooks_file("rounds-hook", &lua)], &[]);
    upstream.next_chunks(calls(&[search("own")], 10, 5));
    upstream.next_chunks(last("Done.", 10, 5));
    let content = server.connect().post(&whole()).message();
    assert_eq!(content[1]["content"][0]["url"], "http://wiki.lan/");
    for body in [question(), whole()] {
        upstream.next_chunks(calls(&[search("broken")], 10, 5));
        let answer = server.connect().post(&body);
        match body["stream"] == true {
            true => assert!(answer.events().0 == Ended::Failed),
            false => assert_eq!(answer.status, 403),
        }
    }
    assert_eq!(upstream.seen().len(), 4);
}

#[test]
fn an_answer_with_searches_is_replayed_to_the_same_bytes() {
    let upstream = Upstream::start();
    let engine = Upstream::start();
    engine.set_page("/search?q=a&format=json", 200, &page("a"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("search-rounds");
    let _ = std::fs::remove_dir_all(&folder);
    let state = folder.to_str().unwrap();
    let lua = format!(
        r#"return {{ upstreams = {{ box = {{ url = "{}" }} }}, search = {{ searxng = "{}" }} }}"#,
        upstream.url(),
        engine.url().trim_end_matches("/v1")
    );
    let hooks = hooks_file("rounds-record", &lua);
    let server = Server::run(&["--hooks", &hooks, "--state", state, "--record", "all"], &[]);
    let mut ids = Vec::new();
    for body in [question(), whole()] {
        let bash = call(1, "Bash", r#"{"command":"ls"}"#);
        upstream.next_chunks(calls(&[text("Look."), search("a")], 10, 5));
        upstream.next_chunks(calls(&[search("b")], 10, 5));
        upstream.next_chunks(calls(&[search("a"), bash], 20, 5));
        let answer = server.connect().post(&body);
        assert_eq!(answer.status, 200);
        ids.push(answer.header("request-id").unwrap().to_owned());
        upstream.next_chunks(calls(&[search("a")], 10, 5));
        upstream.next_answer(400, r#"{"error":{"message":"no","type":"BadRequestError","code":400}}"#);
        ids.push(server.connect().post(&body).header("request-id").unwrap().to_owned());
    }
    server.terminate_and_log();
    for id in ids {
        let (code, out, err) = output(&["replay", &id, "--offline", "--state", state]);
        assert!(code == Some(0) && out.contains("the same "), "{out}{err}");
    }
}

#[test]
fn a_box_that_breaks_off_after_a_search_is_not_replaced_in_the_same_message() {
    let (one, other) = (Upstream::start(), Upstream::start());
    let engine = Upstream::start();
    engine.set_page("/search?q=a&format=json", 200, &page("a"));
    let lua = format!(
        r#"return {{ upstreams = {{ one = {{ url = "{}" }}, other = {{ url = "{}" }} }},
            aliases = {{ {{ "*", upstream = {{ "one", "other" }} }} }}, search = {{ searxng = "{}" }} }}"#,
        one.url(),
        other.url(),
        engine.url().trim_end_matches("/v1")
    );
    let server = Server::run(&["--hooks", &hooks_file("rounds-pool", &lua)], &[]);
    for upstream in [&one, &other] {
        upstream.next_chunks(calls(&[search("a")], 10, 5));
        upstream.next(|call| {
            call.stream_head();
            call.chunk(&text("Half"));
            call.close();
            Then::Close
        });
    }
    // The connection is cut, so that the client asks again; then the other box answers from the beginning.
    let mut client = server.connect();
    client.send(&post(question().to_string().as_bytes()));
    client.head();
    client.read_until("web_search_tool_result");
    assert!(!String::from_utf8(client.rest()).unwrap().contains("message_stop"));
    server.wait_for("cut off, so that the client asks again");
    assert_eq!(one.seen().len() + other.seen().len(), 2);
    // A client that does not stream gets the whole answer of the other box.
    let answer = server.connect().post(&whole());
    assert_eq!(kinds(&answer.message()).last(), Some(&"text"));
}

#[test]
fn a_client_that_leaves_during_a_search_ends_it() {
    let upstream = Upstream::start();
    let (address, was_asked) = silent_engine();
    let lua = format!(
        r#"return {{ upstreams = {{ box = {{ url = "{}" }} }}, search = {{ searxng = "http://{address}" }} }}"#,
        upstream.url()
    );
    let hooks = hooks_file("rounds-leave", &lua);
    let server = Server::run(&["serve", "--open-after", "0", "--ping-every", "1", "--hooks", &hooks], &[]);
    upstream.next_chunks(calls(&[search("a")], 10, 5));
    let mut client = server.connect();
    client.send(&post(question().to_string().as_bytes()));
    let _engine = was_asked.recv_timeout(super::HANG).unwrap();
    client.head();
    client.read_until("event: ping\ndata: {\"type\":\"ping\"}\n\nevent: ping");
    drop(client);
    server.wait_for("the client has left");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn the_next_prompt_is_read_with_pings_and_ends_with_its_client() {
    let upstream = Upstream::start();
    let engine = Upstream::start();
    engine.set_page("/search?q=a&format=json", 200, &page("a"));
    let lua = format!(
        r#"return {{ upstreams = {{ box = {{ url = "{}" }} }}, search = {{ searxng = "{}" }} }}"#,
        upstream.url(),
        engine.url().trim_end_matches("/v1")
    );
    let hooks = hooks_file("rounds-pings", &lua);
    let server = Server::run(&["serve", "--open-after", "0", "--ping-every", "1", "--hooks", &hooks], &[]);
    let (gate, closed) = (Gate::default(), Gate::default());
    let (is_open, is_closed) = (gate.clone(), closed.clone());
    upstream.next_chunks(calls(&[search("a")], 10, 5));
    upstream.next(move |call| {
        is_open.wait();
        call.stream_head();
        call.chunk(&text("Half"));
        call.wait_for_close();
        is_closed.open();
        Then::Close
    });
    let mut client = server.connect();
    client.send(&post(question().to_string().as_bytes()));
    client.head();
    client.read_until("web_search_tool_result");
    client.read_until("event: ping");
    gate.open();
    client.read_until("Half");
    drop(client);
    closed.wait();
    let line = server.wait_for("the client has left");
    assert!(line.contains(" searches 1 "), "{line}");
}

#[test]
fn rounds_that_use_up_the_limit_of_tokens_end_the_message() {
    let upstream = Upstream::start();
    let (server, _engine) = serve("rounds-limit", &upstream, &["a"], "");
    for body in [question(), whole()] {
        upstream.next_chunks(calls(&[search("a")], 10, 600));
        upstream.next_chunks(calls(&[search("a")], 10, 400));
        let answer = server.connect().post(&body);
        let reason = match body["stream"] == true {
            true => answer.data("message_delta")[0]["delta"]["stop_reason"].clone(),
            false => answer.json()["stop_reason"].clone(),
        };
        assert_eq!(reason, "max_tokens");
    }
    assert_eq!(upstream.seen().len(), 4);
}

#[test]
fn a_number_as_the_query_means_its_digits() {
    let upstream = Upstream::start();
    let (server, _engine) = serve("rounds-number", &upstream, &["2027"], "");
    upstream.next_chunks(calls(&[call(0, "web_search", r#"{"query": 2027}"#)], 10, 5));
    upstream.next_chunks(last("Done.", 10, 5));
    let content = server.connect().post(&whole()).message();
    assert_eq!(content[0]["input"]["query"], "2027");
    assert_eq!(content[1]["content"][0]["title"], "2027");
}
