//! The other questions of clients: the list of models, and the number of tokens of a prompt.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::HANG;
use super::client::{Answer, hello, post};
use super::server::Server;
use super::upstream::{MODEL, TOKENS, Upstream, WINDOW};

// covers: 102
#[test]
fn models_are_listed_to_each_client_in_its_own_shape() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    let listing =
        client.ask(b"GET /v1/models?limit=1000 HTTP/1.1\r\nanthropic-version: 2023-06-01\r\n\r\n").json();
    let data = listing["data"].as_array().unwrap();
    assert!(data.iter().any(|model| model["id"] == MODEL && model["type"] == "model"), "{listing}");
    // Claude Code shows only names that hold `claude` or `anthropic`.
    let is_shown = |id: &str| id.contains("claude") || id.contains("anthropic");
    let shown = data.iter().find(|model| is_shown(model["id"].as_str().unwrap())).unwrap();
    assert_eq!(listing["has_more"], false);
    let listing = client.ask(b"GET /v1/models HTTP/1.1\r\n\r\n").json();
    assert_eq!((&listing["object"], &listing["data"][0]["object"]), (&json!("list"), &json!("model")));
    let path = format!("GET /v1/models/{} HTTP/1.1\r\nx-api-key: a\r\n\r\n", shown["id"].as_str().unwrap());
    assert_eq!(client.ask(path.as_bytes()).json()["id"], shown["id"]);
    let answer = client.ask(b"GET /v1/models/none HTTP/1.1\r\nx-api-key: a\r\n\r\n");
    assert_eq!((answer.status, answer.error()), (404, ("not_found_error".into(), "model: none".into())));
    // A listed name can be asked for.
    let mut body = hello();
    body["model"] = shown["id"].clone();
    client.post(&body).message();
    assert_eq!(upstream.only_seen().body["model"], MODEL);
}

// covers: 103
#[test]
fn the_listing_comes_in_pages() {
    let upstream = Upstream::start();
    let models: Vec<Value> = (0..5).map(|i| json!({"id": format!("org/m{i}"), "owned_by": "vllm"})).collect();
    upstream.set_page("/v1/models", 200, &json!({"object": "list", "data": models}).to_string());
    let server = Server::start(&upstream);
    let mut client = server.connect();
    let mut ask = |query: &str| {
        let request = format!("GET /v1/models{query} HTTP/1.1\r\nanthropic-version: 2023-06-01\r\n\r\n");
        client.ask(request.as_bytes()).json()
    };
    let all: Vec<Value> = ask("")["data"].as_array().unwrap().clone();
    assert!(all.len() >= 5, "{all:?}");
    let (mut walked, mut query) = (Vec::new(), "?limit=1".to_owned());
    while walked.len() < all.len() {
        let page = ask(&query);
        assert_eq!((page["data"].as_array().unwrap().len(), &page["first_id"]), (1, &page["last_id"]));
        walked.push(page["data"][0].clone());
        assert_eq!(page["has_more"], walked.len() < all.len(), "{page}");
        query = format!("?limit=1&after_id={}", page["last_id"].as_str().unwrap());
    }
    assert_eq!(walked, all);
    // The name has a slash, plain and encoded.
    for path in ["/org/m3", "/org%2Fm3"] {
        assert_eq!(ask(path)["id"], "org/m3");
    }
}

/// Asks for the number of tokens of a body.
fn count(server: &Server, body: &Value) -> Answer {
    let request = String::from_utf8(post(body.to_string().as_bytes())).unwrap();
    let request = request.replacen("/v1/messages", "/v1/messages/count_tokens?beta=true", 1);
    server.connect().ask(request.as_bytes())
}

/// A body as Claude Code sends it to have it counted: without a limit for the answer.
fn countable() -> Value {
    let mut body = hello();
    body.as_object_mut().unwrap().remove("max_tokens");
    body
}

// covers: 99
#[test]
fn tokens_are_counted_by_the_upstream() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut body = countable();
    let answer = count(&server, &body);
    assert_eq!((answer.status, &answer.json()["input_tokens"]), (200, &json!(TOKENS)), "{}", answer.text());
    body["messages"] = json!([]);
    assert_eq!(count(&server, &body).error().1, "messages: at least one message is required");
    assert_eq!(upstream.seen().len(), 0);
}

// covers: 101
#[test]
fn a_prompt_beyond_the_window_is_counted_all_the_same() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    upstream.set_tokens(WINDOW + 1000);
    let answer = count(&server, &countable());
    assert_eq!((answer.status, &answer.json()["input_tokens"]), (200, &json!(WINDOW + 1000)));
}

// covers: 100
#[test]
fn without_an_upstream_tokens_are_estimated() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::run(&["serve", "--upstream", &format!("http://{nobody}/v1")], &[]);
    let mut body = countable();
    body["messages"][0]["content"] = "a few words ".repeat(1000).into();
    let answer = count(&server, &body);
    let tokens = answer.json()["input_tokens"].as_u64().unwrap();
    assert!(answer.status == 200 && (2000..6000).contains(&tokens), "{}", answer.text());
}

#[test]
fn the_first_requests_wait_until_the_model_is_known() {
    let (upstream, was_asked, open) = Upstream::start_gated();
    let server = Server::run(&["serve", "--upstream", &upstream.url()], &[]);
    let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&post(hello().to_string().as_bytes()));
    }
    // The start asks, and nobody else.
    was_asked.recv_timeout(HANG).unwrap();
    // These requests give the others time for questions that they must not ask.
    (0..100).for_each(|_| _ = server.connect().ask(b"GET /health HTTP/1.1\r\n\r\n"));
    assert!(was_asked.try_recv().is_err(), "asked twice");
    open.send(()).unwrap();
    for mut client in clients {
        client.receive().message();
    }
    let seen = upstream.seen();
    assert!(seen.iter().all(|seen| seen.body["model"] == MODEL), "{seen:?}");
}

#[test]
fn clients_that_leave_before_the_model_is_known_hold_nothing() {
    let (upstream, was_asked, open) = Upstream::start_gated();
    let server = Server::run(&["serve", "--upstream", &upstream.url()], &[]);
    was_asked.recv_timeout(HANG).unwrap();
    let clients: Vec<_> = (0..5)
        .map(|_| {
            let mut client = server.connect();
            client.send(&post(hello().to_string().as_bytes()));
            client
        })
        .collect();
    let mut stays = server.connect();
    stays.send(&post(hello().to_string().as_bytes()));
    drop(clients);
    (0..5).for_each(|_| _ = server.wait_for(" 499 "));
    server.wait_until(|health| health["cancelled"]["connect"] == 5);
    assert!(upstream.seen().is_empty(), "no request is sent for a client that has left");
    open.send(()).unwrap();
    stays.receive().message();
    assert_eq!(upstream.only_seen().body["model"], MODEL);
}

#[test]
fn several_upstreams_are_asked_for_their_models_at_the_same_time() {
    let upstreams = [Upstream::start_gated(), Upstream::start_gated()];
    let arguments = upstreams.each_ref().map(|(upstream, ..)| upstream.url());
    let [first, second] = &arguments;
    let server = Server::run(&["serve", "--upstream", first, "--upstream", second], &[]);
    let mut client = server.connect();
    client.send(b"GET /v1/models HTTP/1.1\r\n\r\n");
    // Neither has answered when both are asked.
    upstreams.iter().for_each(|(_, was_asked, _)| was_asked.recv_timeout(HANG).unwrap());
    upstreams.iter().for_each(|(.., open)| open.send(()).unwrap());
    let answer = client.receive();
    assert_eq!((answer.status, &answer.json()["data"][0]["max_model_len"]), (200, &json!(WINDOW)));
}

#[test]
fn a_further_page_tells_the_kind_the_loaded_model_and_its_window() {
    let upstream = Upstream::start();
    let names = ["hf.co/unsloth/Nemotron:Q4_K_M", "hf.co/unsloth/Qwen3-Coder:Q4_K_M"];
    let listed = names.map(|name| json!({"id": name, "object": "model", "owned_by": "unsloth"}));
    upstream.set_page("/v1/models", 200, &json!({"data": listed}).to_string());
    let loaded = json!({"models": names.map(|name| json!({"name": name, "context_length": 32_768}))});
    upstream.set_page("/api/ps", 200, &loaded.to_string());
    let server = Server::start(&upstream);
    server.connect().post(&hello()).message();
    let seen = upstream.only_seen();
    assert_eq!(seen.body["model"], names[0]);
    // Ollama has no arguments of templates.
    assert_eq!(seen.body.get("chat_template_kwargs"), None);
    let request = b"GET /v1/models HTTP/1.1\r\nanthropic-version: 2023-06-01\r\n\r\n";
    let listing = server.connect().ask(request).json();
    assert!(listing.to_string().contains("32768"), "{listing}");
}

#[test]
fn members_that_a_cloud_refuses_are_not_sent_to_it() {
    let upstream = Upstream::start();
    let mut body = hello();
    body["top_k"] = json!(20);
    for (listed, is_sent) in [
        (json!({"id": "gpt-oss-120b", "owned_by": "Cerebras"}), false),
        (json!({"id": "a", "owned_by": "Meta", "active": true, "context_window": 131_072}), false),
        (json!({"id": "b", "owned_by": "openai", "created": 1_677_610_602_u64}), true),
        (json!({"id": "c", "owned_by": "system", "max_model_len": 131_072}), true),
        (json!({"id": "mistralai/Devstral-Small", "owned_by": "vllm"}), true),
    ] {
        upstream.set_page("/v1/models", 200, &json!({"data": [listed]}).to_string());
        let server = Server::start(&upstream);
        server.connect().post(&body).message();
        let sent = upstream.seen().pop().unwrap().body;
        assert_eq!(sent.get("top_k").is_some(), is_sent, "{listed}");
        let has_switch = is_sent && listed["owned_by"] != "vllm";
        assert_eq!(sent.get("chat_template_kwargs").is_some(), has_switch, "{listed}");
    }
}

/// An upstream that serves a model with this window.
fn with_window(window: u64) -> Upstream {
    let upstream = Upstream::start();
    let models = json!([{"id": MODEL, "owned_by": "vllm", "max_model_len": window}]);
    upstream.set_page("/v1/models", 200, &json!({"object": "list", "data": models}).to_string());
    upstream
}

#[test]
fn of_different_windows_clients_are_told_the_smallest_and_prompts_go_where_they_fit() {
    let (large, small) = (with_window(131_072), with_window(8_192));
    for order in [[&large, &small], [&small, &large]] {
        let [first, second] = order.map(Upstream::url);
        let server = Server::run(&["serve", "--upstream", &first, "--upstream", &second], &[]);
        server.wait_for(
            "clients are told the smallest window of its upstreams (8192 tokens; the largest has 131072)",
        );
        let listing = server.connect().ask(b"GET /v1/models HTTP/1.1\r\n\r\n").json();
        assert_eq!(listing["data"][0]["max_model_len"], 8_192, "{listing}");
        let before = small.seen().len();
        for turn in 0..6 {
            let mut body = hello();
            body["messages"][0]["content"] =
                format!("{turn} {}", "some words of a long prompt ".repeat(4_000)).into();
            server.connect().post(&body).message();
        }
        assert_eq!(small.seen().len(), before, "a prompt went where it does not fit");
    }
}

#[test]
fn an_empty_listing_is_logged_as_one() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 200, r#"{"object":"list","data":[]}"#);
    let server = Server::start(&upstream);
    server.wait_for("lists no model");
    assert!(!server.log().contains("serves \n"), "{}", server.log());
}
