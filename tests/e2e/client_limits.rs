//! Limits of clients by their keys: requests at a time and in a minute, tokens of a day, models.

use std::path::Path;
use std::sync::mpsc::channel;

use super::client::{Answer, hello, hello_stream, post_with};
use super::server::{Server, hooks_file};
use super::upstream::{Gate, Then, Upstream, text_chunks};

/// The tokens that an answer of the upstream says it used, prompt and answer together.
const TOKENS: u64 = 25;

/// A server whose clients have the keys of anna, who has these limits, and of a guest, who has none.
fn start(upstream: &Upstream, name: &str, limits: &str, more: &[&str]) -> Server {
    let keys = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("limits-{name}.keys"));
    std::fs::write(&keys, "sk-anna-0123456789 anna\nsk-guest-0123456789 guest\n").unwrap();
    let hooks =
        hooks_file(&format!("limits-{name}"), &format!("return {{ keys = {{ anna = {{ {limits} }} }} }}"));
    let arguments = ["--api-key-file", keys.to_str().unwrap(), "--hooks", &hooks];
    Server::start_with(upstream, &[&arguments, more].concat())
}

fn request(owner: &str) -> Vec<u8> {
    let mut body = hello();
    body["max_tokens"] = 100.into();
    post_with(&format!("x-api-key: sk-{owner}-0123456789\r\n"), body.to_string().as_bytes())
}

fn ask(server: &Server, owner: &str) -> Answer {
    server.connect().ask(&request(owner))
}

/// Checks that the answer is a 429 whose text has these words.
fn is_limited(answer: &Answer, words: &str, should_retry: &str) {
    assert_eq!(answer.status, 429, "{}", answer.text());
    let (kind, message) = answer.error();
    assert_eq!(kind, "rate_limit_error");
    assert!(message.contains(words), "{message}");
    assert_eq!(answer.header("x-should-retry"), Some(should_retry));
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&after), "{after}");
}

#[test]
fn fifty_requests_at_once_do_not_exceed_the_number_in_progress() {
    let upstream = Upstream::start();
    let server = start(&upstream, "flight", "max_in_flight = 3", &[]);
    let (arrive, arrived) = channel();
    let (open, gates): (Vec<_>, Vec<_>) = (0..3).map(|_| channel::<()>()).unzip();
    for gate in gates {
        let arrive = arrive.clone();
        upstream.next(move |call| {
            arrive.send(()).unwrap();
            gate.recv().unwrap();
            call.stream_head();
            text_chunks("Hello.").iter().for_each(|chunk| call.chunk(chunk));
            call.done()
        });
    }
    let clients = server.send_at_once(50, &request("anna"));
    (0..3).for_each(|_| arrived.recv_timeout(super::HANG).unwrap());
    is_limited(&ask(&server, "anna"), "has 3 requests in progress", "true");
    assert_eq!(ask(&server, "guest").status, 200, "other clients are not limited");
    // Those that were refused end before the gate opens.
    open.iter().for_each(|gate| gate.send(()).unwrap());
    let statuses: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let count = |status| statuses.iter().filter(|it| **it == status).count();
    assert_eq!((count(200) + count(429), count(200) >= 3), (50, true), "{statuses:?}");
    assert_eq!(ask(&server, "anna").status, 200, "the places are free again");
}

#[test]
fn a_minute_has_its_requests_and_a_reload_keeps_the_count() {
    let upstream = Upstream::start();
    let server = start(&upstream, "minute", "requests_per_minute = 2", &[]);
    let first = ask(&server, "anna");
    assert_eq!((first.status, first.header("anthropic-ratelimit-requests-limit")), (200, Some("2")));
    assert_eq!(first.header("anthropic-ratelimit-requests-remaining"), Some("1"));
    assert!(first.header("anthropic-ratelimit-requests-reset").unwrap().ends_with('Z'));
    server.hang_up();
    server.wait_for("hooks loaded: ");
    assert_eq!(ask(&server, "anna").status, 200);
    is_limited(&ask(&server, "anna"), "may send 2 requests a minute", "true");
    let guest = ask(&server, "guest");
    assert_eq!((guest.status, guest.header("anthropic-ratelimit-requests-limit")), (200, None));
}

#[test]
fn a_budget_holds_over_a_restart() {
    let upstream = Upstream::start();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("limits-state");
    let _ = std::fs::remove_dir_all(&folder);
    let state = ["--state", folder.to_str().unwrap()];
    let limits = format!("tokens_per_day = {}", TOKENS + 1);
    let server = start(&upstream, "budget", &limits, &state);
    assert_eq!(ask(&server, "anna").status, 200);
    assert!(server.terminate());
    let server = start(&upstream, "budget", &limits, &state);
    let second = ask(&server, "anna");
    assert_eq!((second.status, second.header("anthropic-ratelimit-tokens-remaining")), (200, Some("1")));
    is_limited(&ask(&server, "anna"), "has used its 26 tokens of today", "false");
    assert!(server.terminate());
    let server = start(&upstream, "budget", &limits, &state);
    is_limited(&ask(&server, "anna"), "the next day begins at midnight UTC", "false");
    assert_eq!(ask(&server, "guest").status, 200);
}

#[test]
fn fifty_requests_at_once_exceed_a_budget_by_one_at_most() {
    let upstream = Upstream::start();
    // Each may use about 100 tokens, so three of them reserve the budget.
    let server = start(&upstream, "budget-at-once", "tokens_per_day = 250", &[]);
    let clients = server.send_at_once(50, &request("anna"));
    let statuses: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let served = statuses.iter().filter(|status| **status == 200).count() as u64;
    assert!((1..).contains(&served) && (served - 1) * TOKENS < 250, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
}

/// Otherwise a client could have most of each answer for nothing.
#[test]
fn an_answer_whose_client_leaves_counts_as_much_as_it_may_have_used() {
    let upstream = Upstream::start();
    let server = start(&upstream, "leaves", "tokens_per_day = 100, max_in_flight = 1", &[]);
    upstream.next(|call| {
        call.stream_head();
        text_chunks("Some words ").iter().take(2).for_each(|chunk| call.chunk(chunk));
        call.wait_for_close();
        Then::Close
    });
    let mut body = hello_stream();
    body["max_tokens"] = 100.into();
    let mut client = server.connect();
    client.send(&post_with("x-api-key: sk-anna-0123456789\r\n", body.to_string().as_bytes()));
    client.head();
    client.read_until("Some");
    is_limited(&ask(&server, "anna"), "has 1 requests in progress", "true");
    drop(client);
    server.wait_for("the client has left");
    is_limited(&ask(&server, "anna"), "has used its 100 tokens of today", "false");
}

/// The client has no part in it, and asks again.
#[test]
fn an_answer_that_its_upstream_breaks_off_costs_no_reservation() {
    let upstream = Upstream::start();
    let server = start(&upstream, "broken-off", "tokens_per_day = 100", &[]);
    upstream.next(|call| {
        call.stream_head();
        text_chunks("Some words ").iter().take(2).for_each(|chunk| call.chunk(chunk));
        Then::Close
    });
    let mut body = hello_stream();
    body["max_tokens"] = 100.into();
    let text = server
        .connect()
        .ask(&post_with("x-api-key: sk-anna-0123456789\r\n", body.to_string().as_bytes()))
        .text()
        .to_owned();
    assert!(text.contains("Some") && text.contains("event: error"), "{text}");
    let next = ask(&server, "anna");
    assert_eq!((next.status, next.header("anthropic-ratelimit-tokens-remaining")), (200, Some("100")));
}

#[test]
fn a_model_that_is_not_allowed_costs_no_request_of_the_minute() {
    let upstream = Upstream::start();
    let limits = "requests_per_minute = 1, models = { 'claude-*' }";
    let server = start(&upstream, "models-minute", limits, &[]);
    let mut body = hello();
    body["model"] = "gpt-5".into();
    for _ in 0..2 {
        let refused = post_with("x-api-key: sk-anna-0123456789\r\n", body.to_string().as_bytes());
        assert_eq!(server.connect().ask(&refused).status, 403);
    }
    body["model"] = "claude-sonnet-5".into();
    let request = post_with("x-api-key: sk-anna-0123456789\r\n", body.to_string().as_bytes());
    assert_eq!(server.connect().ask(&request).status, 200);
    assert_eq!(server.connect().ask(&request).status, 429);
}

#[test]
fn limits_for_an_owner_without_a_key_are_a_warning() {
    let upstream = Upstream::start();
    let server = start(&upstream, "no-owner", "}, zz = { max_in_flight = 1", &[]);
    server.wait_for("keys: 'zz' has limits, but no key");
    server.hang_up();
    server.wait_for("hooks loaded: ");
}

#[test]
fn a_key_may_use_its_models_only() {
    let upstream = Upstream::start();
    let server = start(&upstream, "models", r#"models = { "gpt-*" }, lane = 2"#, &[]);
    let answer = ask(&server, "anna");
    assert_eq!((answer.status, answer.error().0.as_str()), (403, "permission_error"));
    assert!(answer.error().1.contains("'anna' may use these models: gpt-*"), "{}", answer.text());
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert_eq!(upstream.seen().len(), 0);
    assert_eq!(ask(&server, "guest").status, 200);
}

#[test]
fn the_lane_of_a_key_is_that_of_its_waiting_requests() {
    let upstream = Upstream::start();
    let keys = Path::new(env!("CARGO_TARGET_TMPDIR")).join("limits-lane.keys");
    std::fs::write(&keys, "sk-anna-0123456789 anna\nsk-guest-0123456789 guest\n").unwrap();
    let lua = format!(
        "return {{ api = 1, keys = {{ anna = {{ lane = 2 }} }}, upstreams = {{ one = {{ url = '{}', max_in_flight = 1 }} }} }}",
        upstream.url()
    );
    let (hooks, keys) = (hooks_file("limits-lane", &lua), keys.to_str().unwrap());
    let server = Server::run(&["serve", "--hooks", &hooks, "--api-key-file", keys, "--open-after", "1"], &[]);
    server.wait_for("upstream one: ");
    let (gate, (came, has_come)) = (Gate::default(), channel());
    let opened = gate.clone();
    upstream.next(move |call| {
        came.send(()).unwrap();
        opened.wait();
        call.whole(200, r#"{"choices":[{"message":{"content":"First."},"finish_reason":"stop"}]}"#)
    });
    let mut first = server.connect();
    first.send(&request("guest"));
    has_come.recv_timeout(super::HANG).unwrap();
    let mut waiting = server.connect();
    let key = "x-api-key: sk-anna-0123456789\r\n";
    waiting.send(&post_with(key, hello_stream().to_string().as_bytes()));
    // It is in the line when it gets the beginning of an answer.
    waiting.head();
    let metrics =
        server.connect().ask(format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\n{key}\r\n").as_bytes());
    let queued: Vec<&str> =
        metrics.text().lines().filter(|line| line.starts_with("sparkgap_queued{")).collect();
    assert_eq!(
        queued,
        ["0", "1", "2"].map(|lane| format!("sparkgap_queued{{lane=\"{lane}\"}} {}", u8::from(lane == "2")))
    );
    gate.open();
    first.receive().message();
    waiting.read_until("message_stop");
    let line = server.wait_for(" anna claude");
    assert!(line.contains(" only lane 2 queued "), "{line}");
}

#[test]
fn mistakes_in_limits_and_prices_are_named() {
    for (lua, expected) in [
        ("keys = { anna = 3 }", "keys: expected the name of a key's owner"),
        ("keys = { { max_in_flight = 3 } }", "keys: expected the name of a key's owner"),
        ("keys = { anna = { max_in_fligth = 3 } }", "max_in_flight"),
        ("keys = { anna = { max_in_flight = 0 } }", "a whole number from 1"),
        ("keys = { anna = { models = {} } }", "a list of patterns"),
        ("keys = { anna = { models = { 7, true } } }", "a list of patterns"),
        ("keys = { anna = { lane = 3 } }", "expected 0, 1 or 2, got"),
        ("aliases = { { \"*\", price = 3 } }", "price: expected a table"),
        ("aliases = { { \"*\", price = { input = -1 } } }", "price.input: expected a number from 0"),
        ("aliases = { { \"*\", price = { output = \"x\" } } }", "price.output: expected a number"),
        ("aliases = { { \"*\", price = { outputs = 1 } } }", "output"),
    ] {
        let hooks = hooks_file("limits-mistakes", &format!("return {{ {lua} }}"));
        let arguments = ["check", "--upstream", "http://127.0.0.1:1/v1", "--hooks", &hooks];
        let (code, _, stderr) = super::server::output(&arguments);
        assert!(code == Some(1) && stderr.contains(expected), "{lua}: {stderr}");
    }
}

/// A limit that holds on one path only would be a way around it.
#[test]
fn the_limits_hold_for_openai_s_protocol_too() {
    let upstream = Upstream::start();
    let limits = "tokens_per_day = 60, models = { 'gpt-*' }";
    let server = start(&upstream, "openai", limits, &[]);
    let ask = |model: &str| {
        let body = format!(r#"{{"model":"{model}","max_completion_tokens":20,"messages":[]}}"#);
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-api-key: sk-anna-0123456789\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        server.connect().ask(&[head, body].concat().into_bytes())
    };
    let refused = ask("claude-x");
    let message = &refused.json()["error"]["message"];
    assert_eq!(refused.status, 403, "{message}");
    assert!(message.as_str().unwrap().contains("may use these models: gpt-*"), "{message}");
    let said = r#"{"id":"x","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":40,"completion_tokens":25}}"#;
    upstream.next_answer(200, said);
    let first = ask("gpt-5");
    assert_eq!((first.status, first.header("anthropic-ratelimit-tokens-limit")), (200, Some("60")));
    let second = ask("gpt-5");
    assert_eq!(second.status, 429, "{}", second.text());
    assert_eq!(second.header("x-should-retry"), Some("false"));
}
