//! The facts that are learned about a model: they never cut an answer, and a fact is forgotten when it is true no
//! longer.

use serde_json::{Value, json};

use super::client::{hello, post_to};
use super::server::Server;
use super::upstream::{Gate, Then, Upstream, delta, finish, usage};

const WINDOW: u64 = 40_960;

/// A server that counts no prompts for others, and lists this window.
fn unknown_server(window: Option<u64>) -> Upstream {
    let upstream = Upstream::start();
    let listing = json!({"data": [{"id": "m", "owned_by": "me", "max_model_len": window}]});
    upstream.set_page("/v1/models", 200, &listing.to_string());
    upstream
}

/// The next answer counts so many tokens of its prompt.
fn next_counts(upstream: &Upstream, prompt: u64) {
    upstream.next_chunks(vec![delta(json!({"content": "ok"})), finish("stop"), usage(prompt, 2)]);
}

/// A request of about so many estimated tokens.
fn prompt_of(tokens: usize) -> Value {
    let mut body = hello();
    body["max_tokens"] = 32_000.into();
    body["messages"][0]["content"] = "word".repeat(tokens * 9 / 10).into();
    body
}

fn last_limit(upstream: &Upstream) -> u64 {
    upstream.seen().pop().unwrap().body["max_tokens"].as_u64().unwrap()
}

/// The server's estimate for `body`, in tokens.
fn estimate(server: &Server, body: &Value) -> u64 {
    let answer = server.connect().ask(&post_to("/v1/messages/count_tokens", body));
    answer.json()["input_tokens"].as_u64().unwrap()
}

/// Whether `told` is within a tenth of `real`.
fn is_near(told: u64, real: u64) -> bool {
    told.abs_diff(real) <= real / 10
}

#[test]
fn a_small_first_answer_cuts_no_large_one() {
    let upstream = unknown_server(Some(WINDOW));
    let server = Server::start(&upstream);
    next_counts(&upstream, 36);
    server.connect().post(&hello()).message();
    for _ in 0..3 {
        next_counts(&upstream, 16_700);
        server.connect().post(&prompt_of(16_667)).message();
        let limit = last_limit(&upstream);
        assert!(limit >= (WINDOW - 16_700) * 85 / 100, "{limit}");
    }
    assert!(is_near(estimate(&server, &prompt_of(16_667)), 16_700));
}

#[test]
fn answers_to_requests_at_the_same_time_teach_each_what_is_true() {
    for percent in [50, 150, 250] {
        let upstream = unknown_server(Some(262_144));
        let server = Server::start(&upstream);
        let gate = Gate::default();
        let sizes = [3_000, 5_000, 8_000, 12_000, 20_000, 30_000, 40_000, 50_000];
        let truth = move |size: u64| size * percent / 100 + 400;
        std::thread::scope(|scope| {
            for size in sizes {
                let gate = gate.clone();
                upstream.next(move |call| {
                    gate.wait();
                    // Requests come in any order: the count is of the prompt that came.
                    let text = call.asked["messages"][0]["content"].as_str().unwrap().len();
                    let size = u64::try_from(text).unwrap() * 10 / 36;
                    call.stream_head();
                    call.chunk(&delta(json!({"content": "ok"})));
                    call.chunk(&finish("stop"));
                    call.chunk(&usage(truth(size), 2));
                    call.done()
                });
                let mut client = server.connect();
                scope.spawn(move || client.post(&prompt_of(size.try_into().unwrap())).message());
            }
            server.wait_until(|_| upstream.seen().len() == sizes.len());
            gate.open();
        });
        for size in [4_000, 25_000, 60_000] {
            let told = estimate(&server, &prompt_of(size));
            let real = truth(u64::try_from(size).unwrap());
            assert!(is_near(told, real), "{percent} % of {size}: {told} of {real}");
        }
    }
}

#[test]
fn a_screenshot_teaches_nothing_and_cuts_nothing() {
    let upstream = unknown_server(Some(WINDOW));
    let server = Server::start(&upstream);
    let mut body = prompt_of(2_000);
    let text = json!({"type": "text", "text": body["messages"][0]["content"]});
    let source = json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="});
    let image = json!({"type": "image", "source": source});
    let mut content = vec![text];
    content.extend(std::iter::repeat_n(image, 20));
    body["messages"][0]["content"] = content.into();
    for _ in 0..3 {
        // Twenty images are estimated at 32,000 tokens, and this model makes 256 of each.
        let real = 2_000 + 20 * 256;
        next_counts(&upstream, real);
        server.connect().post(&body).message();
        let limit = last_limit(&upstream);
        assert!(limit >= (WINDOW - real).min(32_000) * 85 / 100, "{limit}");
    }
    assert!(is_near(estimate(&server, &prompt_of(10_000)), 10_000));
}

#[test]
fn an_ollama_that_cuts_prompts_teaches_nothing_and_one_that_does_not_is_believed() {
    let upstream = Upstream::start();
    let listing = json!({"data": [{"id": "m", "owned_by": "library"}]});
    upstream.set_page("/v1/models", 200, &listing.to_string());
    let server = Server::start(&upstream);
    for size in [16_000, 18_000, 25_000] {
        next_counts(&upstream, 4_096);
        server.connect().post(&prompt_of(size)).message();
    }
    server.wait_for("Ollama cuts");
    assert!(is_near(estimate(&server, &prompt_of(16_000)), 16_000));
    // Now its window is large enough.
    for size in [16_000, 18_000, 25_000] {
        next_counts(&upstream, size * 13 / 10);
        server.connect().post(&prompt_of(usize::try_from(size).unwrap())).message();
    }
    assert!(is_near(estimate(&server, &prompt_of(16_000)), 20_800));
    let log = server.terminate_and_log();
    assert_eq!(log.matches("Ollama cuts").count(), 1, "{log}");
}

#[test]
fn a_window_that_a_refused_prompt_told_is_not_held_against_answers() {
    let upstream = unknown_server(None);
    let server = Server::start(&upstream);
    // LM Studio: it refuses a prompt that is too long, and never an answer.
    let told = "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough.";
    upstream.next_answer(400, &json!({"error": told}).to_string());
    let answer = server.connect().post(&prompt_of(9_000));
    assert_eq!(answer.error().1, "prompt is too long: 9000 tokens > 4096 maximum");
    for size in [9_000, 1_000] {
        server.connect().post(&prompt_of(size)).message();
        assert_eq!(last_limit(&upstream), 32_000, "{size}");
    }
}

#[test]
fn a_window_that_an_answer_contradicts_is_forgotten() {
    let upstream = unknown_server(None);
    let server = Server::start(&upstream);
    let told = "max_tokens=32000 cannot be greater than max_model_len=8192.";
    upstream.next_answer(400, &json!({"error": {"message": told, "code": 400}}).to_string());
    server.connect().post(&prompt_of(1_000)).message();
    server.connect().post(&prompt_of(1_000)).message();
    assert!(last_limit(&upstream) < 8_192);
    // The owner has enlarged it.
    next_counts(&upstream, 20_000);
    server.connect().post(&prompt_of(20_000)).message();
    assert_eq!(last_limit(&upstream), 32_000, "either it is refused, or there is room");
    server.connect().post(&prompt_of(1_000)).message();
    assert_eq!(last_limit(&upstream), 32_000);
}

#[test]
fn an_answer_that_ended_at_a_told_window_is_the_last_one_that_did() {
    let upstream = unknown_server(None);
    let server = Server::start(&upstream);
    let told = "max_tokens=32000 cannot be greater than max_model_len=8192.";
    upstream.next_answer(400, &json!({"error": {"message": told, "code": 400}}).to_string());
    server.connect().post(&prompt_of(1_000)).message();
    upstream.next(|call| {
        let limit = call.asked["max_tokens"].as_u64().unwrap();
        call.stream_head();
        call.chunk(&delta(json!({"content": "ok"})));
        call.chunk(&finish("length"));
        call.chunk(&usage(1_000, limit));
        call.done()
    });
    server.connect().post(&prompt_of(1_000)).message();
    assert!(last_limit(&upstream) < 8_192);
    server.connect().post(&prompt_of(1_000)).message();
    assert_eq!(last_limit(&upstream), 32_000, "refused once more if the window still stands");
}

#[test]
fn a_server_that_came_with_another_listing_is_shown_images_again() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut body = hello();
    let source = json!({"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="});
    body["messages"][0]["content"] = json!([{"type": "image", "source": source}]);
    let refusal = r#"{"error":{"message":"qwen3 is not a multimodal model","code":400}}"#;
    upstream.next_answer(400, refusal);
    server.connect().post(&body).message();
    let sees = |upstream: &Upstream| upstream.seen().pop().unwrap().body.to_string().contains("image_url");
    assert!(!sees(&upstream));
    // Started anew: its connections are closed, and it lists another model under the same name.
    let listing = json!({"data": [{"id": "qwen3", "owned_by": "vllm", "root": "/models/qwen3-vl", "max_model_len": 8192}]});
    upstream.set_page("/v1/models", 200, &listing.to_string());
    upstream.next(|call| {
        call.whole(503, r#"{"error":{"message":"Loading model"}}"#);
        Then::Close
    });
    server.connect().post(&body).message();
    server.connect().post(&body).message();
    assert!(sees(&upstream));
}

#[test]
fn a_refusal_that_only_counts_to_the_room_is_repaired_by_a_count() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    upstream.set_tokens(5_000);
    let mut body = hello();
    body["max_tokens"] = 6_000.into();
    for told in [
        "You passed 2193 input tokens and requested 6000 output tokens. However, the model's context length is only 8192 tokens, resulting in a maximum input length of 2192 tokens.",
        "This model's maximum context length is 8192 tokens. However, you requested 6000 output tokens and your prompt contains at least 2193 input tokens, for a total of at least 8193 tokens.",
    ] {
        upstream.next_answer(400, &json!({"error": {"message": told, "code": 400}}).to_string());
        server.connect().post(&body).message();
        assert_eq!(last_limit(&upstream), 8_192 - 5_000 - 1, "{told}");
    }
}

#[test]
fn a_server_that_is_starting_does_not_use_up_the_repair() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    upstream.next_answer(503, r#"{"error":{"message":"Loading model","code":503}}"#);
    let told = "max_tokens=100 cannot be greater than max_model_len=64.";
    upstream.next_answer(400, &json!({"error": {"message": told, "code": 400}}).to_string());
    server.connect().post(&hello()).message();
    assert_eq!(upstream.seen().len(), 3);
}
