//! The headers that an upstream gets about the conversation of a request, and a cluster that has dropped a request.

use super::client::{hello, post_with};
use super::server::{Server, hooks_file};
use super::upstream::Upstream;

const SESSION: &str = "X-Claude-Code-Session-Id: 5f1c-22\r\n";

/// Starts `serve` with one upstream `spark` that has these further keys.
fn start(name: &str, upstream: &Upstream, keys: &str) -> Server {
    let url = upstream.url();
    let lua = format!(r#"return {{ api = 1, upstreams = {{ spark = {{ url = "{url}", {keys} }} }} }}"#);
    let server = Server::run(&["serve", "--hooks", &hooks_file(&format!("clusters-{name}"), &lua)], &[]);
    server.wait_for("upstream spark: ");
    server
}

/// The headers about conversation, client and urgency that the upstream gets for a request with these headers.
fn headers(server: &Server, upstream: &Upstream, sent: &str) -> Vec<String> {
    let answer = server.connect().ask(&post_with(sent, hello().to_string().as_bytes()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = upstream.seen().pop().unwrap();
    let is_about = |line: &&str| line.starts_with("x-");
    seen.head.lines().filter(is_about).map(str::to_owned).collect()
}

#[test]
fn every_upstream_gets_claude_code_s_names_of_session_and_agents() {
    let upstream = Upstream::start();
    let server = start("all", &upstream, "");
    let agents = "x-claude-code-agent-id: a1\r\nx-claude-code-parent-agent-id: a0\r\n";
    assert_eq!(headers(&server, &upstream, ""), [""; 0]);
    assert_eq!(
        headers(&server, &upstream, &format!("{SESSION}{agents}x-claude-code-other: x\r\n")),
        [
            "x-claude-code-session-id: 5f1c-22",
            "x-claude-code-agent-id: a1",
            "x-claude-code-parent-agent-id: a0"
        ]
    );
    // Whatever cannot be the name of a session is not passed on.
    let long = "x".repeat(257);
    for value in [long.as_str(), "", "two words", "gr\u{f6}\u{df}e", "tab\there"] {
        let sent = format!("x-claude-code-session-id: {value}\r\n");
        assert_eq!(headers(&server, &upstream, &sent), [""; 0], "{value}");
    }
}

#[test]
fn a_cluster_gets_its_own_headers_too() {
    let upstream = Upstream::start();
    for (cluster, expected) in [
        ("smg", ["x-smg-routing-key: 5f1c-22", "x-smg-priority: bulk"].as_slice()),
        ("dynamo", &["x-dynamo-session-id: 5f1c-22", "x-dynamo-request-priority: 0"]),
        ("production-stack", &["x-user-id: 5f1c-22"]),
        ("llm-d", &["x-llm-d-inference-objective: sparkgap-background"]),
    ] {
        let server = start(cluster, &upstream, &format!("cluster = \"{cluster}\""));
        let sent = format!("{SESSION}x-claude-code-request-class: auxiliary\r\n");
        let got = headers(&server, &upstream, &sent);
        assert!(expected.iter().all(|line| got.iter().any(|got| got == line)), "{cluster}: {got:?}");
        // Other clients have no session: the beginning of the conversation names it.
        let (first, second) = (headers(&server, &upstream, ""), headers(&server, &upstream, ""));
        assert!(!first.is_empty() && first == second, "{cluster}: {first:?} {second:?}");
    }
}

#[test]
fn a_request_that_a_cluster_has_dropped_shows_that_it_is_full() {
    let upstream = Upstream::start();
    let server = start("dropped", &upstream, "cluster = \"llm-d\", max_in_flight = 4");
    // Without the header the same status is a failure of the server.
    upstream.next_answer(500, r#"{"error":{"message":"no room"}}"#);
    assert_eq!(server.connect().post(&hello()).status, 500);
    let dropped = |retry_after: u32| {
        move |call: &mut super::upstream::Call| {
            let reason = "x-llm-d-request-dropped-reason: rejected-internal";
            let headers = format!("retry-after: {retry_after}\r\n{reason}\r\n");
            call.whole_with(500, &headers, r#"{"error":{"message":"no room"}}"#)
        }
    };
    // Nothing has begun to work on it, so it is sent again if that is soon.
    upstream.next(dropped(0));
    assert_eq!(server.connect().post(&hello()).status, 200);
    upstream.next(dropped(60));
    let answer = server.connect().post(&hello());
    assert_eq!((answer.status, answer.error().0.as_str()), (529, "overloaded_error"));
    assert_eq!(answer.header("retry-after"), Some("60"));
    server.wait_for("upstream spark: full");
}
