//! `GET /models`: the recorded servers, restarts, failures.

use std::io::Write as _;
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use sparkgap::config::Secret;
use sparkgap::dialect::ServerKind;
use sparkgap::fleet::Upstream;
use sparkgap::transport::{CallLimits, Failure, Path};

use crate::support::*;

/// Answers each request, on a connection of its own, with the next of these.
fn answering(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    scripted(move |listener| {
        let mut heads = Vec::new();
        for text in answers {
            let mut stream = accept(listener);
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
        let discovered = upstream.discover().unwrap();
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

/// The first model, after the facts were renewed as before a request.
fn fresh_model(upstream: &Upstream) -> String {
    upstream.notice_closed();
    upstream.refresh(&nobody()).unwrap();
    upstream.discovered().models.first().unwrap().id.clone()
}

#[test]
fn discovery_is_fresh_after_a_lost_connection() {
    let (url, script) = scripted(|listener| {
        drop(answered(listener, &listing("old")));
        // The upstream restarts.
        drop(accept(listener));
        drop(answered(listener, &listing("new")));
    });
    let upstream = upstream_with(&url, CallLimits { discovery_interval: Duration::ZERO, ..patient() });
    for _ in 0..2 {
        // It asks only once, since the answer is not stale.
        assert_eq!(fresh_model(&upstream), "old");
    }
    assert!(upstream.post(CHAT, b"{}", &nobody()).is_err());
    assert_eq!(upstream.discovered().models[0].id, "old");
    assert_eq!(fresh_model(&upstream), "new");
    script.join().unwrap();
}

#[test]
fn a_server_that_was_started_anew_while_nobody_asked_is_noticed() {
    let (closed, was_closed) = channel();
    let (url, script) = scripted(move |listener| {
        drop(answered(listener, &listing("old")));
        let mut first = accept(listener);
        for _ in 0..2 {
            read_request(&mut first);
            answer(&mut first, OK);
        }
        drop(first);
        closed.send(()).unwrap();
        drop(answered(listener, &listing("new")));
    });
    // The interval between two questions does not count here.
    let upstream = upstream_with(&url, CallLimits { discovery_interval: HANG, ..CallLimits::default() });
    assert_eq!(fresh_model(&upstream), "old");
    for _ in 0..2 {
        read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap());
    }
    let generation = upstream.generation();
    was_closed.recv_timeout(HANG).unwrap();
    assert_eq!(fresh_model(&upstream), "new");
    assert_ne!(upstream.generation(), generation);
    script.join().unwrap();
}

#[test]
fn a_client_that_leaves_does_not_end_the_question_of_others() {
    let (open, opened) = channel::<()>();
    let (begun, has_begun) = channel();
    let (url, script) = scripted(move |listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        begun.send(()).unwrap();
        opened.recv_timeout(HANG).unwrap();
        answer(&mut stream, &listing("a"));
        nobody_waits(listener)
    });
    let upstream = upstream(&url);
    assert_eq!(upstream.refresh(&leaving_client()), Err(Failure::ClientGone));
    has_begun.recv_timeout(HANG).unwrap();
    let other = {
        let upstream = upstream.clone();
        std::thread::spawn(move || fresh_model(&upstream))
    };
    open.send(()).unwrap();
    assert_eq!(other.join().unwrap(), "a");
    assert!(script.join().unwrap(), "one question served both");
}

#[test]
fn a_listing_without_end_holds_nobody_longer_than_its_limit() {
    let (url, script) = scripted(|listener| {
        let mut stream = answered(listener, "HTTP/1.1 200 OK\r\n\r\n");
        // A byte now and then does not extend the limit.
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        while stream.write_all(b" ").is_ok() {
            let _ = stream.peek(&mut [0]);
        }
    });
    let upstream = upstream_with(&url, CallLimits { discovery_timeout: SOON, ..CallLimits::default() });
    assert_eq!(upstream.discover().unwrap_err(), Failure::Timeout("before the end of the answer"));
    // The server answers, so the next request does not wait for another question.
    assert_eq!(upstream.refresh(&leaving_client()), Ok(()));
    script.join().unwrap();
}

#[test]
fn a_question_carries_the_key_to_its_own_host_only() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = other.local_addr().unwrap();
    let (url, script) = answering(vec![format!(
        "HTTP/1.1 302 Found\r\nlocation: http://{target}/v1/models\r\ncontent-length: 0\r\n\r\n"
    )]);
    let mut config = config(&url);
    config.api_key = Some(Secret::new("sk-hush"));
    let upstream = Upstream::new(config, &CallLimits::default()).unwrap();
    let failure = upstream.discover().unwrap_err();
    assert!(
        matches!(&failure, Failure::Redirected(302, to) if to.contains(&target.to_string())),
        "{failure:?}"
    );
    assert!(failure.to_string().contains("redirects are never"), "{failure}");
    let head = script.join().unwrap().concat().to_lowercase();
    assert!(head.starts_with("get /v1/models http/1.1\r\n"), "{head}");
    for line in ["authorization: bearer sk-hush", "accept-encoding: identity", "user-agent: sparkgap/"] {
        assert_eq!(head.matches(line).count(), 1, "{line}: {head}");
    }
    assert_eq!(head.matches("\nhost: ").count(), 1, "{head}");
    assert!(nobody_waits(&other), "the redirect was not followed");
}

#[test]
fn the_failures_of_a_question_have_the_names_of_those_of_calls() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = upstream(&format!("http://{gone}/v1")).discover().unwrap_err();
    assert!(failure.is_refused(), "{failure:?}");
    for (text, expected) in [
        ("", "Reset"),
        ("SSH-2.0-OpenSSH_9.6\r\n", "Protocol"),
        ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx", "Encoded"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", "Reset"),
    ] {
        let (url, script) = answering(vec![text.to_owned()]);
        let failure = upstream(&url).discover().unwrap_err();
        assert!(format!("{failure:?}").starts_with(expected), "{text}: {failure:?}");
        script.join().unwrap();
    }
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
    upstream.discover().unwrap();
    assert_eq!(upstream.discover().unwrap_err(), Failure::Status(401));
    for _ in 0..3 {
        let failure = upstream.discover().unwrap_err();
        assert!(matches!(failure, Failure::Protocol(_) | Failure::TooLarge(_)), "{failure:?}");
    }
    assert_eq!(upstream.discovered().models[0].id, "a");
    script.join().unwrap();
}

#[test]
fn questions_that_need_no_model_have_a_limit_of_their_own() {
    let discover = |upstream: &Upstream| upstream.discover().err();
    let ask = |upstream: &Upstream| upstream.ask(Path::Root("/tokenize"), b"{}", &nobody()).err();
    for (asked, what) in
        [(discover as fn(&Upstream) -> _, "before the end of the answer"), (ask, "before the first byte")]
    {
        let (url, script) = scripted(|listener| wait_for_close(&mut accept(listener)));
        let upstream = upstream_with(&url, CallLimits { discovery_timeout: SOON, ..CallLimits::default() });
        assert_eq!(asked(&upstream), Some(Failure::Timeout(what)));
        script.join().unwrap();
    }
}

#[test]
fn the_definition_of_a_model_is_asked_for_once_for_each_listing() {
    let page = |body: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    let listing =
        page(r#"{"data":[{"id":"nomic:1","owned_by":"library"},{"id":"m:1","owned_by":"library"}]}"#);
    let none = page(r#"{"models":[]}"#);
    let (url, script) = answering(vec![
        listing.clone(),
        none.clone(),
        page(r#"{"capabilities":["embedding"]}"#),
        page(r#"{"parameters":"num_ctx 16384","capabilities":["completion","tools"]}"#),
        listing.clone(),
        none,
        listing.clone(),
        // A page that fails once leaves everything as it was.
        "HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n".to_owned(),
        listing,
        page(r#"{"models":[{"name":"m:1","context_length":4096}]}"#),
    ]);
    let upstream = upstream(&url);
    for window in [16_384, 16_384, 16_384, 4096] {
        let found = upstream.discover().unwrap();
        assert_eq!((found.flavour, found.window("m:1")), (ServerKind::Ollama, Some(window)));
        assert_eq!(upstream.model().as_deref(), Some("m:1"));
    }
    assert_eq!(upstream.generation(), 0, "another window of a model is not another server");
    let heads: Vec<String> =
        script.join().unwrap().iter().map(|head| head.lines().next().unwrap().to_owned()).collect();
    let asked = |start: &str| heads.iter().filter(|head| head.starts_with(start)).count();
    assert_eq!((asked("GET /v1/models "), asked("GET /api/ps "), asked("POST /api/show ")), (4, 4, 2));
}
