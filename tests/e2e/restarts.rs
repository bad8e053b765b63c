//! Another model, or another window, at the address of an upstream: the next request is served by it.

use std::sync::mpsc::channel;

use serde_json::{Value, json};

use super::HANG;
use super::client::{hello, hello_stream};
use super::server::{Server, hooks_file};
use super::upstream::{MODEL, Then, Upstream, WINDOW};

/// More tokens than any window here has.
const TOKENS: u64 = 100_000;

/// From now on the upstream lists this model.
fn list(upstream: &Upstream, model: &str, window: u64) {
    let model = json!({"id": model, "object": "model", "owned_by": "vllm", "max_model_len": window});
    upstream.set_page("/v1/models", 200, &json!({"object": "list", "data": [model]}).to_string());
}

/// The next request is refused as vLLM refuses one for a model that it does not have.
fn refuse(upstream: &Upstream) {
    upstream.next(|call| {
        let error = format!("The model `{}` does not exist.", call.asked["model"].as_str().unwrap());
        call.whole(
            404,
            &json!({"error": {"message": error, "type": "NotFoundError", "code": 404}}).to_string(),
        )
    });
}

fn greedy(mut body: Value) -> Value {
    body["max_tokens"] = TOKENS.into();
    body
}

/// The model and the limit of each request that the upstream got.
fn asked(upstream: &Upstream) -> Vec<(String, u64)> {
    let told =
        |body: &Value| (body["model"].as_str().unwrap().to_owned(), body["max_tokens"].as_u64().unwrap());
    upstream.seen().iter().map(|seen| told(&seen.body)).collect()
}

#[test]
fn a_404_for_a_model_is_followed_by_the_right_name_and_window() {
    for body in [hello(), hello_stream()] {
        for window in [WINDOW / 2, WINDOW * 2] {
            let upstream = Upstream::start();
            let server = Server::start(&upstream);
            server.connect().post(&greedy(body.clone()));
            list(&upstream, "glm", window);
            refuse(&upstream);
            let answer = server.connect().post(&greedy(body.clone()));
            assert_eq!(answer.status, 200, "{}", answer.text());
            let asked = asked(&upstream);
            let models: Vec<&str> = asked.iter().map(|(model, _)| model.as_str()).collect();
            assert_eq!(models, [MODEL, MODEL, "glm"]);
            assert!((window / 2..window).contains(&asked[2].1), "{asked:?}");
            assert!((WINDOW / 2..WINDOW).contains(&asked[1].1), "{asked:?}");
            let log = server.terminate_and_log();
            assert!(log.contains("-> default/glm "), "the log names the model that answered: {log}");
        }
    }
}

#[test]
fn a_model_that_was_guessed_is_corrected_as_soon_as_the_server_names_its_own() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 503, "{}");
    let server = Server::run(&["serve", "--upstream", &upstream.url()], &[]);
    server.wait_for("upstream default did not answer: status 503");
    refuse(&upstream);
    // The listing is there by the time of the refusal.
    list(&upstream, MODEL, WINDOW);
    server.connect().post(&hello()).message();
    let models: Vec<String> = asked(&upstream).into_iter().map(|(model, _)| model).collect();
    assert_eq!(models, ["claude-sonnet-5", MODEL]);
}

#[test]
fn a_404_stays_one_if_the_listing_has_no_other_name() {
    let lua = |url: &str| {
        format!(
            r#"return {{ api = 1, upstreams = {{ box = {{ url = "{url}" }} }},
                aliases = {{ {{ "fixed", upstream = "box", model = "gone" }}, {{ "*", upstream = "box" }} }} }}"#
        )
    };
    let upstream = Upstream::start();
    let file = hooks_file("restarts_404", &lua(&upstream.url()));
    let server = Server::run(&["serve", "--hooks", &file], &[]);
    server.wait_for("upstream box: ");
    // The second name is an alias's: the listing cannot name another one for it.
    for model in ["claude-sonnet-5", "fixed"] {
        let before = upstream.seen().len();
        refuse(&upstream);
        let mut body = hello();
        body["model"] = model.into();
        let answer = server.connect().post(&body);
        assert_eq!((answer.status, answer.error().1), (404, format!("model: {model}")));
        assert_eq!(upstream.seen().len(), before + 1, "{model}");
    }
}

#[test]
fn a_connection_that_was_closed_has_the_models_asked_for_before_the_next_request() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for _ in 0..2 {
        let (closed, was_closed) = channel();
        upstream.next(move |call| {
            let answer = r#"{"choices":[{"message":{"content":"Hello."},"finish_reason":"stop"}]}"#;
            call.whole(200, answer);
            call.close();
            closed.send(()).unwrap();
            Then::Close
        });
        server.connect().post(&greedy(hello())).message();
        was_closed.recv_timeout(HANG).unwrap();
        list(&upstream, "glm", WINDOW / 2);
    }
    let [first, second] = &asked(&upstream)[..] else { unreachable!() };
    assert_eq!((first.0.as_str(), second.0.as_str()), (MODEL, "glm"));
    assert!(second.1 < WINDOW / 2, "{second:?}");
}

#[test]
fn a_server_that_changes_its_mind_without_end_is_not_followed_without_end() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for _ in 0..8 {
        let pages = upstream.page_setter();
        upstream.next(move |call| {
            let next = format!("{}x", call.asked["model"].as_str().unwrap());
            let model = json!({"id": next, "owned_by": "vllm"});
            pages.set("/v1/models", 200, &json!({"data": [model]}).to_string());
            call.whole(404, r#"{"error":{"message":"The model does not exist.","code":404}}"#)
        });
    }
    assert_eq!(server.connect().post(&hello()).status, 404);
    assert_eq!(upstream.seen().len(), 3);
}
