//! The context window: `max_tokens` that fits it, and prompts beyond it.

use serde_json::json;

use super::client::{hello, hello_stream, post_with};
use super::server::Server;
use super::upstream::{Upstream, WINDOW, delta, finish, text_chunks, usage};

const OVERFLOW: &str = r#"{"error":{"message":"This model's maximum context length is 8192 tokens. However, your prompt contains at least 8193 input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=8193)","type":"BadRequestError","param":"input_tokens","code":400}}"#;

#[test]
fn max_tokens_is_clamped_to_what_the_window_has_left() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for (asked, prompt) in [(100, 10), (32_000, 10), (128_000, 8_000), (1, 10)] {
        let mut body = hello();
        body["max_tokens"] = asked.into();
        body["messages"][0]["content"] = "word ".repeat(prompt).into();
        server.connect().post(&body).message();
        let sent = upstream.seen().pop().unwrap().body;
        assert_eq!(sent["max_tokens"], sent["max_completion_tokens"]);
        let sent = sent["max_tokens"].as_u64().unwrap();
        assert!((1..=asked.min(WINDOW)).contains(&sent), "{asked}: {sent}");
        if asked + 1000 < WINDOW {
            assert_eq!(sent, asked);
        }
    }
}

// covers: 107
#[test]
fn a_window_that_has_shrunk_is_learned_from_the_refusal() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let told =
        "max_tokens=8000 cannot be greater than max_model_len=4096. Please request fewer output tokens.";
    let refusal = json!({"error": {"message": told, "type": "BadRequestError", "code": 400}}).to_string();
    upstream.next_answer(400, &refusal);
    upstream.next_chunks(text_chunks("Fits."));
    let mut body = hello_stream();
    body["max_tokens"] = 32_000.into();
    assert_eq!(server.connect().post(&body).whole_events()[0]["text"], "Fits.");
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    let sent = |i: usize| seen[i].body["max_tokens"].as_u64().unwrap();
    assert!(sent(0) > 4096 && sent(1) < 4096, "{} {}", sent(0), sent(1));
    let mut first = seen[0].body.clone();
    for key in ["max_tokens", "max_completion_tokens"] {
        first[key] = seen[1].body[key].clone();
    }
    assert_eq!(first, seen[1].body, "nothing else has changed");

    upstream.next_answer(400, &refusal);
    upstream.next_answer(400, &refusal);
    let answer = server.connect().post(&body);
    assert_eq!((answer.status, answer.error().0.as_str()), (400, "invalid_request_error"));
    assert_eq!(upstream.seen().len(), 4, "one more try, not more");
}

#[test]
fn a_window_that_only_an_error_reports_is_remembered() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 200, r#"{"data":[{"id":"m","owned_by":"me"}]}"#);
    let server = Server::start(&upstream);
    let told = "max_completion_tokens=40000 cannot be greater than max_model_len=32768.";
    upstream.next_answer(400, &json!({"error": {"message": told, "code": 400}}).to_string());
    let mut body = hello();
    body["max_tokens"] = 40_000.into();
    server.connect().post(&body).message();
    server.connect().post(&body).message();
    let limits: Vec<_> = upstream.seen().iter().map(|seen| seen.body["max_tokens"].as_u64()).collect();
    assert_eq!((limits.len(), limits[0]), (3, Some(40_000)));
    assert!(limits[2] < Some(32_768), "{limits:?}");
}

#[test]
fn the_beta_for_a_full_window_may_stand_in_any_of_several_headers() {
    const BETA: &str = "model-context-window-exceeded-2025-08-26";
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for (headers, expected) in [
        (format!("anthropic-beta: other,{BETA}\r\n"), "model_context_window_exceeded"),
        (
            format!("anthropic-beta: other\r\nAnthropic-Beta: {BETA} , more\r\n"),
            "model_context_window_exceeded",
        ),
        (format!("anthropic-beta: other-{BETA}\r\n"), "max_tokens"),
        (String::new(), "max_tokens"),
    ] {
        upstream.next_chunks(vec![delta(json!({"content": "a"})), finish("length"), usage(WINDOW - 90, 90)]);
        let answer = server.connect().ask(&post_with(&headers, hello().to_string().as_bytes()));
        assert_eq!(answer.json()["stop_reason"], expected, "{headers}");
    }
}

#[test]
fn a_prompt_beyond_the_window_is_told_in_the_words_that_make_clients_compact() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let (vllm, llama) = (
        OVERFLOW,
        r#"{"error":{"code":400,"message":"request (9012 tokens) exceeds the available context size (4096 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":9012,"n_ctx":4096}}"#,
    );
    for (said, told) in [
        (vllm, "prompt is too long: 8193 tokens > 8192 maximum"),
        (llama, "prompt is too long: 9012 tokens > 4096 maximum"),
    ] {
        for body in [hello(), hello_stream()] {
            upstream.next_answer(400, said);
            let answer = server.connect().post(&body);
            assert_eq!(answer.status, 400);
            assert_eq!(answer.error(), ("invalid_request_error".to_owned(), told.to_owned()));
            assert_eq!(answer.header("x-should-retry"), None);
        }
    }
    assert_eq!(upstream.seen().len(), 4, "no prompt is tried again");
}

// covers: 94
#[test]
fn an_answer_that_does_not_fit_beside_its_prompt_is_asked_for_again_with_less() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    // SGLang
    let told = "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a total of 9000 tokens: 5000 tokens from the input messages and 4000 tokens for the completion. Please reduce the number of tokens.";
    let refusal = json!({"object": "error", "message": told, "type": "BadRequestError", "code": 400});
    upstream.next_answer(400, &refusal.to_string());
    let mut body = hello();
    body["max_tokens"] = 4000.into();
    server.connect().post(&body).message();
    let sent: Vec<_> = upstream.seen().iter().map(|seen| seen.body["max_tokens"].clone()).collect();
    assert_eq!(sent, [json!(4000), json!(8192 - 5000 - 1)]);
}

// covers: 21
#[test]
fn a_thinking_budget_that_is_refused_is_left_out() {
    let upstream = Upstream::start();
    let hooks = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("thinking-budget.lua");
    let upstreams = format!("{{ a = {{ url = \"{}\", thinking_budget = true }} }}", upstream.url());
    std::fs::write(&hooks, format!("return {{ api = 1, upstreams = {upstreams} }}")).unwrap();
    let refusal = r#"{"error":{"message":"thinking_token_budget is set but reasoning_config is not configured","type":"BadRequestError","code":400}}"#;
    let mut body = hello();
    body["max_tokens"] = 4000.into();
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 2000});
    // vLLM answers with a 200 before its engine has looked at the request, or with a 400.
    for is_stream in [false, true] {
        let server = Server::run(&["serve", "--hooks", hooks.to_str().unwrap()], &[]);
        server.wait_for("upstream a: ");
        let before = upstream.seen().len();
        upstream.next(move |call| {
            if !is_stream {
                return call.whole(400, refusal);
            }
            call.stream_head();
            call.piece(&format!("data: {refusal}\n\n"));
            call.done()
        });
        for _ in 0..3 {
            server.connect().post(&body).message();
        }
        let seen = upstream.seen().split_off(before);
        let budgets: Vec<_> =
            seen.iter().map(|seen| seen.body.get("thinking_token_budget").cloned()).collect();
        assert_eq!(budgets, [Some(json!(2000)), None, None, None], "refused once, and left out from then on");
        let log = server.terminate_and_log();
        assert_eq!(log.matches("takes no thinking budget").count(), 1, "{log}");
    }
}

#[test]
fn a_lower_bound_is_counted_out() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    upstream.set_tokens(9014);
    for body in [hello(), hello_stream()] {
        upstream.next_answer(400, OVERFLOW);
        let answer = server.connect().post(&body);
        assert_eq!(answer.status, 400);
        assert_eq!(answer.error().1, "prompt is too long: 9014 tokens > 8192 maximum");
    }
}

#[test]
fn a_lower_bound_that_is_not_counted_is_raised_to_the_estimate() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    upstream.set_tokens(0);
    upstream.next_answer(400, OVERFLOW);
    let mut body = hello();
    body["messages"][0]["content"] = "a few words ".repeat(20_000).into();
    let (_, message) = server.connect().post(&body).error();
    let tokens = message.strip_prefix("prompt is too long: ").unwrap().split(' ').next().unwrap();
    let tokens: u64 = tokens.parse().unwrap();
    assert!((20_000..200_000).contains(&tokens), "{message}");
    assert!(message.ends_with(" tokens > 8192 maximum"), "{message}");
}

#[test]
fn an_image_that_the_model_refuses_is_replaced_from_then_on() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let refusal =
        r#"{"error":{"message":"qwen3 is not a multimodal model","type":"BadRequestError","code":400}}"#;
    upstream.next_answer(400, refusal);
    let mut body = hello();
    let source = json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="});
    body["messages"][0]["content"] =
        json!([{"type": "text", "text": "look"}, {"type": "image", "source": source}]);
    server.connect().post(&body).message();
    server.connect().post(&body).message();
    let seen = upstream.seen();
    assert_eq!(seen.len(), 3, "refused, mended, and without an image at once");
    let content = |i: usize| seen[i].body["messages"][0]["content"].to_string();
    assert!(content(0).contains("image_url"));
    for i in [1, 2] {
        assert!(
            !content(i).contains("image_url") && content(i).contains("model has no vision"),
            "{}",
            content(i)
        );
    }
}

#[test]
fn a_prompt_that_ollama_cuts_is_told_to_the_owner_once() {
    let upstream = Upstream::start();
    let listing =
        json!({"object": "list", "data": [{"id": "qwen3:8b", "object": "model", "owned_by": "library"}]});
    upstream.set_page("/v1/models", 200, &listing.to_string());
    let server = Server::start(&upstream);
    let mut body = hello();
    server.connect().post(&body).message();
    body["messages"][0]["content"] = "a few words ".repeat(2000).into();
    (0..2).for_each(|_| _ = server.connect().post(&body).message());
    let warning = server.wait_for("Ollama cuts");
    assert!(warning.contains("WARN") && warning.contains("qwen3:8b read 20 of about"), "{warning}");
    let log = server.terminate_and_log();
    assert_eq!(log.matches("Ollama cuts").count(), 1, "{log}");
}
