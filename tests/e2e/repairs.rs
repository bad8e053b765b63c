//! Repairs: a request that the upstream refuses is changed and sent again, and later requests are changed at once.
//! docs/repairs.md has the table.

use serde_json::{Value, json};

use super::client::hello;
use super::server::{Server, hooks_file};
use super::upstream::{Upstream, delta, finish, usage};

/// A refusal, a request that gets it, and the sign of a request that the upstream takes.
struct Row {
    name: &'static str,
    said: &'static str,
    ask: fn(&mut Value),
    is_taken: fn(&Value) -> bool,
}

fn run_tool(schema: &Value) -> Value {
    json!([{"name": "Run", "description": "Runs.", "input_schema": schema}])
}

fn plain_tool() -> Value {
    run_tool(&json!({"type": "object", "properties": {"command": {"type": "string"}}}))
}

fn image(kind: &str, data: &str) -> Value {
    json!({"type": "image", "source": {"type": "base64", "media_type": format!("image/{kind}"), "data": data}})
}

fn text(words: &str) -> Value {
    json!({"type": "text", "text": words})
}

fn call(id: &str) -> Value {
    json!({"type": "tool_use", "id": id, "name": "Run", "input": {"command": "ls"}})
}

fn result(id: &str) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": "a b"})
}

/// A question, an answer of these blocks, and what the client says to it.
fn turn(answer: &Value, then: &Value) -> Value {
    json!([{"role": "user", "content": "look"}, {"role": "assistant", "content": answer}, {"role": "user", "content": then}])
}

/// An answer that was thought about, and called a tool.
fn thought() -> Value {
    let thinking = json!({"type": "thinking", "thinking": "I look.", "signature": ""});
    turn(&json!([thinking, call("a1")]), &json!([result("a1")]))
}

fn set_tools(body: &mut Value) {
    body["tools"] = plain_tool();
}

fn set_images(body: &mut Value) {
    body["messages"][0]["content"] =
        json!([text("look"), image("png", "AAAA"), image("webp", "BBBB"), image("png", "CCCC")]);
}

fn images(body: &Value) -> String {
    let body = body["messages"].to_string();
    ["AAAA", "BBBB", "CCCC"].into_iter().filter(|data| body.contains(data)).collect()
}

fn roles(body: &Value) -> String {
    let messages = body["messages"].as_array().unwrap();
    messages.iter().map(|message| message["role"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

const ROWS: &[Row] = &[
    Row {
        name: "thinking",
        said: r#""m" does not support thinking"#,
        ask: |body| body["output_config"] = json!({"effort": "high"}),
        is_taken: |body| body.get("reasoning_effort").is_none(),
    },
    Row {
        name: "effort",
        said: "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'reasoning_effort'), 'msg': \"Input should be 'low', 'medium' or 'high'\", 'input': 'xhigh'}",
        ask: |body| body["output_config"] = json!({"effort": "xhigh"}),
        is_taken: |body| body["reasoning_effort"] == "high",
    },
    Row {
        name: "template arguments",
        said: "chat_template is not supported for Mistral tokenizers.",
        ask: |_| {},
        is_taken: |body| body.get("chat_template_kwargs").is_none(),
    },
    Row {
        name: "images",
        said: "Model does not support images. Please use a model that does.",
        ask: set_images,
        is_taken: |body| images(body).is_empty(),
    },
    Row {
        name: "too many images",
        said: "At most 1 image(s) may be provided in one prompt.",
        ask: set_images,
        is_taken: |body| images(body) == "CCCC",
    },
    Row {
        name: "an image that cannot be decoded",
        said: "Failed to load image or audio file",
        ask: set_images,
        is_taken: |body| images(body) == "AAAACCCC",
    },
    Row {
        name: "a broken image",
        said: "cannot identify image file <_io.BytesIO object at 0x7f>",
        ask: |body| {
            body["messages"][0]["content"] = json!([text("look"), image("png", "AAAA"), image("png", "CCCC")])
        },
        is_taken: |body| images(body) == "AAAA",
    },
    Row {
        name: "a pattern",
        said: "Failed to initialize samplers: failed to parse grammar",
        ask: |body| {
            let to = json!({"type": "string", "pattern": "\\d+"});
            body["tools"] = run_tool(&json!({"type": "object", "properties": {"to": to}}));
        },
        is_taken: |body| {
            let tools = body["tools"].to_string();
            !tools.contains("pattern") && tools.contains("properties")
        },
    },
    Row {
        name: "a schema",
        said: "JSON schema conversion failed:\nError resolving ref #/x: x not in {}",
        ask: |body| {
            body["tools"] = run_tool(&json!({"type": "object", "properties": {"to": {"$ref": "#/x"}}}))
        },
        is_taken: |body| body["tools"][0]["function"]["parameters"] == json!({"type": "object"}),
    },
    Row {
        name: "a strict tool",
        said: "Invalid schema for function 'Run': In context=(), 'additionalProperties' is required to be supplied and to be false.",
        ask: |body| {
            set_tools(body);
            body["tools"][0]["strict"] = true.into();
        },
        is_taken: |body| body["tools"][0]["function"].get("strict").is_none(),
    },
    Row {
        name: "a user behind a tool",
        said: "Unexpected role 'user' after role 'tool'",
        ask: |body| body["messages"] = turn(&json!([call("a1")]), &json!([result("a1"), text("stop")])),
        is_taken: |body| roles(body) == "user assistant tool assistant user",
    },
    Row {
        name: "a system message",
        said: "System role not supported",
        ask: |body| body["system"] = "be brief".into(),
        is_taken: |body| roles(body) == "developer user",
    },
    Row {
        name: "call ids",
        said: "Tool call id was toolu_01 but must be a-z, A-Z, 0-9, with a length of 9.",
        ask: |body| body["messages"] = turn(&json!([call("toolu_01")]), &json!([result("toolu_01")])),
        is_taken: |body| {
            let (id, answered) =
                (&body["messages"][1]["tool_calls"][0]["id"], &body["messages"][2]["tool_call_id"]);
            id == answered && id.as_str().unwrap().len() == 9
        },
    },
    Row {
        name: "several calls",
        said: "This model only supports single tool-calls at once!",
        ask: |body| {
            body["messages"] = turn(&json!([call("a1"), call("a2")]), &json!([result("a1"), result("a2")]))
        },
        is_taken: |body| roles(body) == "user assistant tool assistant tool",
    },
    Row {
        name: "text beside calls",
        said: "Assistant message must have either content or tool_calls, but not both.",
        ask: |body| body["messages"] = turn(&json!([text("I look."), call("a1")]), &json!([result("a1")])),
        is_taken: |body| roles(body) == "user assistant assistant tool",
    },
    Row {
        name: "content of null",
        said: "Invalid value for 'content': expected a string, got null.",
        ask: |body| body["messages"] = turn(&json!([call("a1")]), &json!([result("a1")])),
        is_taken: |body| body["messages"][1]["content"] == "",
    },
    Row {
        name: "content in parts",
        said: "messages.0.content must be a string",
        ask: set_images,
        is_taken: |body| body["messages"][0]["content"].is_string(),
    },
    Row {
        name: "a named choice",
        said: "Invalid tool_choice type: 'object'. Supported string values: none, auto, required",
        ask: |body| {
            set_tools(body);
            body["tool_choice"] = json!({"type": "tool", "name": "Run"});
        },
        is_taken: |body| body["tool_choice"] == "required",
    },
    Row {
        name: "a forced choice",
        said: "deepseek-reasoner does not support this tool_choice",
        ask: |body| {
            set_tools(body);
            body["tool_choice"] = json!({"type": "any"});
        },
        is_taken: |body| body.get("tool_choice").is_none(),
    },
    Row {
        name: "calls without a parser",
        said: "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set",
        ask: set_tools,
        is_taken: |body| body["tool_choice"] == "none" && body["tools"][0]["function"]["name"] == "Run",
    },
    Row {
        name: "one call at a time",
        said: "parallel_tool_calls is not supported",
        ask: |body| {
            set_tools(body);
            body["tool_choice"] = json!({"type": "auto", "disable_parallel_tool_use": true});
        },
        is_taken: |body| body.get("parallel_tool_calls").is_none(),
    },
    Row {
        name: "a format",
        said: "This response_format type is unavailable now",
        ask: |body| {
            body["output_config"] = json!({"format": {"type": "json_schema", "schema": {"type": "object"}}})
        },
        is_taken: |body| {
            body.get("response_format").is_none()
                && body["messages"].to_string().contains("Answer only with JSON")
        },
    },
    Row {
        name: "a strict format",
        said: "Invalid schema for response_format 'output': In context=(), 'required' is required to be supplied and to be an array including every key in properties.",
        ask: |body| {
            body["output_config"] = json!({"format": {"type": "json_schema", "schema": {"type": "object"}}})
        },
        is_taken: |body| body["response_format"]["json_schema"]["strict"] == false,
    },
    Row {
        name: "stop sequences",
        said: "Invalid 'stop': array too long. Expected an array with maximum length 1",
        ask: |body| body["stop_sequences"] = json!(["a", "b"]),
        is_taken: |body| body.get("stop").is_none(),
    },
    Row {
        name: "top_k",
        said: "Unrecognized request argument supplied: top_k",
        ask: |body| body["top_k"] = 20.into(),
        is_taken: |body| body.get("top_k").is_none(),
    },
    Row {
        name: "an extra member",
        said: "[{'type': 'extra_forbidden', 'loc': ('body', 'min_p'), 'msg': 'Extra inputs are not permitted', 'input': 0}]",
        ask: |body| body["min_p"] = json!(0.1),
        is_taken: |body| body.get("min_p").is_none(),
    },
    Row {
        name: "stream_options",
        said: "'stream_options' is not supported",
        ask: |_| {},
        is_taken: |body| body.get("stream_options").is_none(),
    },
    Row {
        name: "reasoning in the history",
        said: "Extra inputs are not permitted, field: 'messages[1].reasoning', value: 'The prompt exceeds the context window, so tool_choice is none'",
        ask: |body| body["messages"] = thought(),
        is_taken: |body| body["messages"][1].get("reasoning").is_none(),
    },
    Row {
        name: "reasoning that is missing",
        said: "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1",
        ask: |body| body["messages"] = turn(&json!([call("a1")]), &json!([result("a1")])),
        is_taken: |body| body["messages"][1]["reasoning_content"] == " ",
    },
    Row {
        name: "a template's argument",
        said: "Extra inputs are not permitted, field: 'chat_template_kwargs.enable_thinking', value: True",
        ask: |_| {},
        is_taken: |body| body["chat_template_kwargs"].get("enable_thinking").is_none(),
    },
    Row {
        name: "a temperature",
        said: "invalid temperature: only 1 is allowed for this model",
        ask: |body| body["temperature"] = json!(0.5),
        is_taken: |body| body.get("temperature").is_none(),
    },
    Row {
        name: "the limit's name",
        said: "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        ask: |_| {},
        is_taken: |body| body["max_completion_tokens"] == 100 && body.get("max_tokens").is_none(),
    },
    Row {
        name: "the limit's size",
        said: "max_tokens is too large: 100. This model supports at most 64 completion tokens, whereas you provided 100.",
        ask: |_| {},
        is_taken: |body| body["max_tokens"] == 64,
    },
];

fn refusal(said: &str) -> String {
    json!({"error": {"message": said, "type": "BadRequestError", "param": null, "code": 400}}).to_string()
}

/// An upstream that lists these models and counts nothing.
fn upstream_of(models: &[String]) -> Upstream {
    let upstream = Upstream::start();
    let models: Vec<Value> =
        models.iter().map(|id| json!({"id": id, "owned_by": "me", "max_model_len": 8192})).collect();
    upstream.set_page("/v1/models", 200, &json!({"data": models}).to_string());
    upstream
}

fn bodies(upstream: &Upstream) -> Vec<Value> {
    upstream.seen().into_iter().map(|seen| seen.body).collect()
}

/// Refuses so many requests in these words until one is taken, as a real server would.
fn refuse_until(
    upstream: &Upstream,
    requests: usize,
    said: &str,
    is_taken: impl Fn(&Value) -> bool + Copy + Send + 'static,
) {
    for _ in 0..requests {
        let said = refusal(said);
        upstream.next(move |call| {
            if !is_taken(&call.asked) {
                return call.whole(400, &said);
            }
            call.stream_head();
            call.chunk(&delta(json!({"content": "ok"})));
            call.chunk(&finish("stop"));
            call.done()
        });
    }
}

#[test]
fn every_refusal_is_repaired_once_and_then_avoided() {
    let model = |at: usize| format!("m{at}");
    let upstream = upstream_of(&(0..ROWS.len()).map(model).collect::<Vec<_>>());
    let server = Server::start(&upstream);
    for (at, row) in ROWS.iter().enumerate() {
        let mut body = hello();
        body["model"] = model(at).into();
        body["max_tokens"] = 100.into();
        (row.ask)(&mut body);
        let before = upstream.seen().len();
        let is_taken = row.is_taken;
        refuse_until(&upstream, 6, row.said, is_taken);
        let answer = server.connect().post(&body);
        assert_eq!(answer.status, 200, "{}: {}", row.name, answer.text());
        let tries = upstream.seen().len() - before;
        assert!((2..=5).contains(&tries), "{}: {tries} tries", row.name);
        server.connect().post(&body).message();
        let seen = bodies(&upstream);
        assert_eq!(seen.len(), before + tries + 1, "{}: changed at once from then on", row.name);
        assert_eq!(seen[before + tries - 1], seen[before + tries], "{}: and to the same bytes", row.name);
        // Use up the scripts that are left.
        while upstream.seen().len() < before + 6 {
            server.connect().post(&body).message();
        }
    }
    let log = server.terminate_and_log();
    for (at, row) in ROWS.iter().enumerate() {
        let told = log.matches(&format!(" upstream default: m{at} ")).count();
        assert!((1..=4).contains(&told), "{}: told {told} times\n{log}", row.name);
    }
}

#[test]
fn several_faults_of_one_request_are_repaired() {
    let upstream = upstream_of(&["m".to_string()]);
    let server = Server::start(&upstream);
    let mut body = hello();
    set_images(&mut body);
    body["top_k"] = 20.into();
    body["min_p"] = json!(0.1);
    upstream.next_answer(400, &refusal("m is not a multimodal model"));
    // A server that starts uses up no repair.
    upstream.next_answer(503, r#"{"error":{"message":"Loading model","code":503}}"#);
    upstream.next_answer(400, &refusal("Unknown parameter: 'top_k'."));
    upstream.next_answer(400, &refusal("max_tokens=100 cannot be greater than max_model_len=64."));
    upstream.next_answer(422, r#"{"detail":[{"type":"extra_forbidden","loc":["body","min_p"],"msg":"Extra inputs are not permitted"}]}"#);
    server.connect().post(&body).message();
    let seen = bodies(&upstream);
    assert_eq!(seen.len(), 6);
    let last = seen.last().unwrap();
    assert!(images(last).is_empty() && last.get("top_k").is_none() && last.get("min_p").is_none(), "{last}");
    assert!(last["max_tokens"].as_u64().unwrap() <= 64);
}

#[test]
fn a_request_is_repaired_six_times_at_most_and_each_repair_is_made_once() {
    let upstream = upstream_of(&["m".to_string()]);
    let server = Server::start(&upstream);
    let mut body = hello();
    for key in [
        "min_p",
        "seed",
        "top_k",
        "cache_salt",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
    ] {
        body[key] = json!(1);
        upstream.next_answer(400, &refusal(&format!("Unknown parameter: '{key}'.")));
    }
    let answer = server.connect().post(&body);
    assert_eq!(answer.status, 400);
    assert!(answer.error().1.starts_with("Unknown parameter: 'repetition_penalty'."), "{}", answer.text());
    assert_eq!(upstream.seen().len(), 7);

    // Each of the six was followed by another refusal, so it helped, and the client's next try is changed at once.
    for _ in 0..2 {
        upstream.next_answer(400, &refusal("Unknown parameter: 'repetition_penalty'."));
    }
    assert_eq!(server.connect().post(&body).status, 400, "the same refusal again is told");
    let seen = bodies(&upstream);
    assert_eq!(seen.len(), 9);
    assert!(seen[7].get("min_p").is_none() && seen[7].get("repetition_penalty").is_some(), "{}", seen[7]);
    // A repair that was followed by the same refusal has not helped.
    server.connect().post(&body).message();
    assert!(bodies(&upstream).pop().unwrap().get("repetition_penalty").is_some());
}

#[test]
fn an_unknown_refusal_is_told_in_full() {
    let upstream = upstream_of(&["m".to_string()]);
    let server = Server::start(&upstream);
    upstream.next_answer(
        400,
        &refusal(
            "1 validation error for Request\nmessages.0.content\n  Input should be shorter [type=too_long]",
        ),
    );
    let (kind, message) = server.connect().post(&hello()).error();
    assert_eq!(kind, "invalid_request_error");
    assert!(
        message.starts_with("1 validation error for Request messages.0.content Input should be shorter"),
        "{message}"
    );
    assert!(message.contains("sparkgap doctor"), "{message}");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_reload_forgets_repairs() {
    let upstream = upstream_of(&["m".to_string()]);
    let upstreams = format!("{{ a = {{ url = \"{}\" }} }}", upstream.url());
    let path = hooks_file("repairs-reload", &format!("return {{ api = 1, upstreams = {upstreams} }}"));
    let server = Server::run(&["serve", "--hooks", &path], &[]);
    server.wait_for("upstream a: ");
    let mut body = hello();
    body["top_k"] = 20.into();
    let has_top_k = || upstream.seen().pop().unwrap().body.get("top_k").is_some();
    upstream.next_answer(400, &refusal("Unknown parameter: 'top_k'."));
    server.connect().post(&body).message();
    server.connect().post(&body).message();
    assert!(!has_top_k());
    server.hang_up();
    server.wait_for("hooks loaded: ");
    server.connect().post(&body).message();
    assert!(has_top_k());
}

#[test]
fn a_model_of_mistral_is_never_refused_for_what_its_name_tells() {
    let upstream = upstream_of(&["Devstral-Small-2".to_string()]);
    let server = Server::start(&upstream);
    let mut body = hello();
    let long = "mcp__".repeat(20);
    body["messages"] = turn(&json!([call("toolu_01")]), &json!([result("toolu_01"), text("stop")]));
    body["tools"] = plain_tool();
    body["tools"][0]["name"] = long.clone().into();
    // The model calls the tool by the name that it was told.
    upstream.next(|call| {
        let name = call.asked["tools"][0]["function"]["name"].clone();
        assert!(name.as_str().unwrap().len() <= 64, "{name}");
        call.stream_head();
        let function = json!({"name": name, "arguments": r#"{"command": "ls"}"#});
        call.chunk(&delta(json!({"tool_calls": [{"index": 0, "id": "aB3dE6gH9", "type": "function", "function": function}]})));
        call.chunk(&finish("tool_calls"));
        call.chunk(&usage(20, 5));
        call.done()
    });
    let message = server.connect().post(&body).message();
    assert_eq!((&message[0]["name"], &message[0]["id"]), (&long.into(), &"aB3dE6gH9".into()));
    let seen = upstream.only_seen().body;
    assert_eq!(roles(&seen), "user assistant tool assistant user");
    assert_eq!(seen["messages"][1]["tool_calls"][0]["id"].as_str().unwrap().len(), 9);
}

#[test]
fn an_answer_that_only_thought_is_an_empty_answer() {
    let upstream = upstream_of(&["m".to_string()]);
    let server = Server::start(&upstream);
    let said = "Could not finish the message because max_tokens or model output limit was reached. Please try again with higher max_tokens.";
    let mut body = hello();
    body["max_tokens"] = 1.into();
    upstream.next_answer(400, &refusal(said));
    let answer = server.connect().post(&body);
    assert_eq!(
        (answer.status, &answer.json()["stop_reason"]),
        (200, &json!("max_tokens")),
        "{}",
        answer.text()
    );
    assert_eq!(upstream.seen().len(), 1);
}

/// Serves one request of the client at an upstream that cannot decode some of the images, and returns its tries.
fn ask_blind(
    upstream: &Upstream,
    server: &Server,
    body: &Value,
    broken: &'static [&'static str],
) -> Vec<Value> {
    let before = upstream.seen().len();
    refuse_until(upstream, 7, "Failed to load image or audio file", |asked| {
        !broken.iter().any(|data| asked.to_string().contains(data))
    });
    let answer = server.connect().post(body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = bodies(upstream).split_off(before);
    // Use up the scripts that are left.
    while upstream.seen().len() < before + 7 {
        server.connect().post(&hello()).message();
    }
    seen
}

#[test]
fn only_the_broken_image_is_lost_and_the_others_come_back() {
    let upstream = upstream_of(&["m".to_string()]);
    let server = Server::start(&upstream);
    let mut body = hello();
    set_images(&mut body);
    let tries = ask_blind(&upstream, &server, &body, &["AAAA"]);
    // Without those that few servers decode, without the newest, and so on: each guess that was wrong is taken back.
    let sent: Vec<String> = tries.iter().map(images).collect();
    assert_eq!(sent, ["AAAABBBBCCCC", "AAAACCCC", "AAAABBBB", "AAAACCCC", "BBBBCCCC"]);
    // The guesses that were wrong are not remembered.
    let tries = ask_blind(&upstream, &server, &body, &["AAAA"]);
    assert_eq!(tries.iter().map(images).collect::<Vec<_>>(), ["BBBBCCCC"]);
}

#[test]
fn the_oldest_of_many_images_does_not_end_the_conversation() {
    let upstream = upstream_of(&["m".to_string()]);
    let server = Server::start(&upstream);
    let mut body = hello();
    let names = ["AAAA", "BBBB", "CCCC", "DDDD", "EEEE", "FFFF", "GGGG", "HHHH"];
    let all = names.map(|data| image("png", data));
    body["messages"][0]["content"] = all.to_vec().into();
    let tries = ask_blind(&upstream, &server, &body, &["AAAA"]);
    assert_eq!(tries.len(), 7, "the last repair leaves all of them out");
    assert_eq!(images(tries.last().unwrap()), "");
    // These images are remembered, and a new one is sent.
    body["messages"][0]["content"] = json!([image("png", "AAAA"), image("png", "IIII")]);
    let tries = ask_blind(&upstream, &server, &body, &["AAAA"]);
    assert_eq!(tries.len(), 1);
    assert!(tries[0].to_string().contains("IIII") && images(&tries[0]).is_empty());
}
