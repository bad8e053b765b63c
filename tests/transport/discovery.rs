//! `GET /models`: the recorded servers, restarts, failures.

use std::thread::JoinHandle;
use std::time::Duration;

use sparkgap::dialect::ServerKind;
use sparkgap::fleet::Upstream;
use sparkgap::transport::{CallLimits, Failure, Path};

use crate::support::*;

/// Answers each request, on a connection of its own, with the next of these.
fn answering(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    scripted(move |listener| {
        let mut stream = accept(listener);
        let mut heads = Vec::new();
        for text in answers {
            heads.push(read_request(&mut stream).0);
            answer(&mut stream, &text);
        }
        heads
    })
}

/// A recorded response with the length of its body: vLLM's recorded body is 23 bytes shorter than its head says, as if
/// the model's path in it had been shortened afterwards.
fn replay(recording: &str) -> String {
    let (head, body) = recording.split_once("\r\n\r\n").unwrap();
    let head = head.lines().filter(|line| !line.to_lowercase().starts_with("content-length:"));
    let head = head.fold(String::new(), |head, line| head + line + "\r\n");
    format!("{head}content-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn the_recorded_servers_are_discovered() {
    for (recording, flavour, window) in [
        (include_str!("../recordings/vllm/GET_v1_models.response.txt"), ServerKind::Vllm, 8192),
        (include_str!("../recordings/llama.cpp/GET_v1_models.response.txt"), ServerKind::LlamaCpp, 4096),
    ] {
        let (url, script) = answering(vec![replay(recording)]);
        let upstream = upstream(&url);
        assert_eq!(upstream.discovered().flavour, ServerKind::Unknown);
        assert_eq!(upstream.model(), None);
        let discovered = upstream.discover(&nobody()).unwrap();
        assert_eq!((discovered.flavour, discovered.window("qwen3")), (flavour, Some(window)));
        assert_eq!(discovered, upstream.discovered());
        assert_eq!(upstream.model().as_deref(), Some("qwen3"));
        assert!(script.join().unwrap().concat().starts_with("GET /v1/models HTTP/1.1\r\n"));
    }
}

fn listing(model: &str) -> String {
    let body = format!("{{\"data\":[{{\"id\":\"{model}\"}}]}}");
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn discovery_is_fresh_after_a_lost_connection() {
    let (url, script) = scripted(|listener| {
        let mut first = answered(listener, &listing("old"));
        read_request(&mut first);
        drop(first);
        // The retry of the stale connection is lost as well: the upstream restarts.
        drop(accept(listener));
        let _second = answered(listener, &listing("new"));
    });
    let upstream = upstream_with(&url, CallLimits { discovery_interval: Duration::ZERO, ..patient() });
    for _ in 0..2 {
        // It asks only once, since the answer is not stale.
        assert_eq!(upstream.discovered_fresh(&nobody()).models[0].id, "old");
    }
    assert!(upstream.post(CHAT, b"{}", &nobody()).is_err());
    assert_eq!(upstream.discovered().models[0].id, "old");
    assert_eq!(upstream.discovered_fresh(&nobody()).models[0].id, "new");
    script.join().unwrap();
}

#[test]
fn a_server_that_was_started_anew_while_nobody_asked_is_noticed() {
    let (closed, was_closed) = std::sync::mpsc::channel();
    let (url, script) = scripted(move |listener| {
        let mut first = answered(listener, &listing("old"));
        read_request(&mut first);
        answer(&mut first, OK);
        drop(first);
        closed.send(()).unwrap();
        let _second = answered(listener, &listing("new"));
    });
    // The interval between two questions does not count here.
    let upstream = upstream_with(&url, CallLimits { discovery_interval: HANG, ..CallLimits::default() });
    assert_eq!(upstream.discovered_fresh(&nobody()).models[0].id, "old");
    read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap());
    let generation = upstream.generation();
    was_closed.recv_timeout(HANG).unwrap();
    assert_eq!(upstream.discovered_fresh(&nobody()).models[0].id, "new");
    assert_ne!(upstream.generation(), generation);
    script.join().unwrap();
}

#[test]
fn a_failed_discovery_keeps_the_known_models() {
    let broken = |text: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    let answers = vec![
        listing("a"),
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned(),
        broken("<html>"),
        broken("{\"error\":\"x\"}"),
        broken(&" ".repeat((4 << 20) + 1)),
    ];
    let (url, script) = answering(answers);
    let upstream = upstream(&url);
    upstream.discover(&nobody()).unwrap();
    assert_eq!(upstream.discover(&nobody()).unwrap_err(), Failure::Status(401));
    for _ in 0..3 {
        let failure = upstream.discover(&nobody()).unwrap_err();
        assert!(matches!(failure, Failure::Protocol(_) | Failure::TooLarge(_)), "{failure:?}");
    }
    assert_eq!(upstream.discovered().models[0].id, "a");
    script.join().unwrap();
}

#[test]
fn questions_that_need_no_model_have_a_limit_of_their_own() {
    let discover = |upstream: &Upstream| upstream.discover(&nobody()).err();
    let ask = |upstream: &Upstream| upstream.ask(Path::Root("/tokenize"), b"{}", &nobody()).err();
    for asked in [discover, ask] {
        let (url, script) = scripted(|listener| wait_for_close(&mut accept(listener)));
        let upstream = upstream_with(&url, CallLimits { discovery_timeout: SOON, ..CallLimits::default() });
        assert_eq!(asked(&upstream), Some(Failure::Timeout("before the first byte")));
        script.join().unwrap();
    }
}
