//! The client leaves, in every phase of its request: the upstream's connection is closed, the counter goes up, and a
//! line of the log says 499.

use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use super::HANG;
use super::client::{hello, hello_stream, post};
use super::server::{Server, hooks_file};
use super::upstream::{Then, Upstream, text_chunks};

/// An upstream that holds its next request until the other side closes. It reports when it was asked, and when the
/// connection was closed. `chunks` is the number of chunks that it sends before; `None`: not even the head.
fn holding(upstream: &Upstream, chunks: Option<usize>) -> (Receiver<()>, Receiver<()>) {
    let (asked, was_asked) = channel();
    let (closed, was_closed) = channel();
    upstream.next(move |call| {
        if let Some(count) = chunks {
            call.stream_head();
            text_chunks("Some words ").iter().take(count).for_each(|chunk| call.chunk(chunk));
        }
        asked.send(()).unwrap();
        call.wait_for_close();
        // The test may have ended already.
        let _ = closed.send(());
        Then::Close
    });
    (was_asked, was_closed)
}

fn cancelled(server: &Server, phase: &str) {
    server.wait_for(&format!("the client has left ({phase})"));
    assert!(server.wait_for(" 499 ").contains("claude-sonnet-5"));
    assert_eq!(server.health()["cancelled"][phase], 1, "{}", server.health());
    let all =
        server.health()["cancelled"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>();
    assert_eq!(all, 1, "{}", server.health());
    assert_eq!(server.health()["streams"], 0);
    server.connect().post(&hello()).message();
}

// covers: 89
#[test]
fn before_the_upstreams_first_byte() {
    // vLLM sends its head at once.
    for (body, chunks) in [(hello(), None), (hello_stream(), None), (hello_stream(), Some(0))] {
        let upstream = Upstream::start();
        let (was_asked, was_closed) = holding(&upstream, chunks);
        let server = Server::start(&upstream);
        let mut client = server.connect();
        client.send(&post(body.to_string().as_bytes()));
        was_asked.recv_timeout(HANG).unwrap();
        drop(client);
        was_closed.recv_timeout(HANG).unwrap();
        cancelled(&server, "head");
        assert_eq!(upstream.seen().len(), 2, "it is not asked again for a client that has left");
    }
}

#[test]
fn after_the_beginning_and_before_the_upstreams_first_byte() {
    let upstream = Upstream::start();
    let (_asked, was_closed) = holding(&upstream, None);
    let server = Server::start_with(&upstream, &["--open-after", "0"]);
    let mut client = server.connect();
    client.send(&post(hello_stream().to_string().as_bytes()));
    assert_eq!(client.head().status, 200);
    client.read_until("event: ping");
    drop(client);
    was_closed.recv_timeout(HANG).unwrap();
    cancelled(&server, "head");
}

#[test]
fn before_the_model_says_anything() {
    let upstream = Upstream::start();
    // Only the role has come; llama.cpp also sends its progress while it reads the prompt.
    let (_asked, was_closed) = holding(&upstream, Some(1));
    let server = Server::start(&upstream);
    let mut client = server.connect();
    client.send(&post(hello_stream().to_string().as_bytes()));
    let begun = (0..10_000).any(|_| server.health()["streams"] == 1);
    assert!(begun, "{}", server.health());
    drop(client);
    was_closed.recv_timeout(HANG).unwrap();
    let line = server.wait_for(" 499 ");
    assert!(!line.contains(" first "), "a role is no first token: {line}");
}

// covers: 89
#[test]
fn in_mid_answer() {
    for (body, phase) in [(hello(), "whole"), (hello_stream(), "stream")] {
        let upstream = Upstream::start();
        let (was_asked, was_closed) = holding(&upstream, Some(2));
        let lua = r#"return { api = 1, on_event = function(event) log.info("a piece") end }"#;
        let server = Server::start_with(&upstream, &["--hooks", &hooks_file("leaving-whole", lua)]);
        let mut client = server.connect();
        client.send(&post(body.to_string().as_bytes()));
        was_asked.recv_timeout(HANG).unwrap();
        match phase {
            "stream" => {
                client.head();
                client.read_until("Some");
                assert_eq!(server.health()["streams"], 1);
            }
            _ => _ = server.wait_for("a piece"),
        }
        drop(client);
        was_closed.recv_timeout(HANG).unwrap();
        cancelled(&server, phase);
    }
}

#[test]
fn while_its_request_arrives() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let whole = post(hello().to_string().as_bytes());
    let mut client = server.connect();
    client.send(&whole[..whole.len() - 10]);
    drop(client);
    server.wait_for("the client has left (body)");
    assert_eq!(server.health()["cancelled"]["body"], 1);
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn while_it_waits_for_its_turn() {
    let upstream = Upstream::start();
    let (was_asked, was_closed) = holding(&upstream, Some(2));
    let server = limited(&upstream, "leaving-queue", &["--open-after", "0", "--ping-every", "1"]);
    let mut first = server.connect();
    first.send(&post(hello_stream().to_string().as_bytes()));
    was_asked.recv_timeout(HANG).unwrap();
    // The second client waits, and gets pings.
    let mut second = server.connect();
    second.send(&post(hello_stream().to_string().as_bytes()));
    assert_eq!(second.head().status, 200);
    second.read_until("event: ping");
    second.read_until("event: ping");
    assert_eq!(upstream.seen().len(), 1);
    drop(second);
    server.wait_for("the client has left (queue)");
    assert_eq!(server.health()["cancelled"]["queue"], 1);
    drop(first);
    was_closed.recv_timeout(HANG).unwrap();
    server.connect().post(&hello()).message();
    assert_eq!(upstream.seen().len(), 2, "the one that left was never asked");
}

/// One request at a time.
fn limited(upstream: &Upstream, name: &str, arguments: &[&str]) -> Server {
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ default = {{ url = "{}", max_in_flight = 1 }} }} }}"#,
        upstream.url()
    );
    let server = Server::run(&[&["serve", "--hooks", &hooks_file(name, &lua)], arguments].concat(), &[]);
    server.wait_for("upstream default: ");
    server
}

#[test]
fn the_place_goes_to_the_next_in_turn() {
    let upstream = Upstream::start();
    let (was_asked, _closed) = holding(&upstream, Some(2));
    let server = limited(&upstream, "leaving-turns", &["--open-after", "0"]);
    let mut first = server.connect();
    first.send(&post(hello_stream().to_string().as_bytes()));
    was_asked.recv_timeout(HANG).unwrap();
    let mut waiting: Vec<_> = (0..5)
        .map(|i| {
            let mut body = hello_stream();
            body["messages"][0]["content"] = i.to_string().into();
            let mut client = server.connect();
            client.send(&post(body.to_string().as_bytes()));
            client.head();
            // It waits from here on, before the next one comes.
            client.read_until("event: ping");
            client
        })
        .collect();
    drop(first);
    for client in &mut waiting {
        client.read_until("message_stop");
    }
    let asked: Vec<_> =
        upstream.seen().iter().skip(1).map(|seen| seen.body["messages"][0]["content"].clone()).collect();
    assert_eq!(asked, ["0", "1", "2", "3", "4"]);
}

#[test]
fn while_a_hook_runs() {
    let upstream = Upstream::start();
    // The hook reports that it runs, and then spins until its time is over.
    let lua = r#"return { api = 1, on_request = function(req)
        if req.stream then log.info("the hook runs") while true do end end
    end }"#;
    let server = Server::start_with(&upstream, &["--hooks", &hooks_file("leaving-hook", lua)]);
    let mut client = server.connect();
    client.send(&post(hello_stream().to_string().as_bytes()));
    server.wait_for("the hook runs");
    drop(client);
    server.wait_for("the client has left (hook)");
    assert_eq!(server.health()["cancelled"]["hook"], 1);
    assert_eq!(server.health()["hook_failures"], 1, "it ran out of time");
    assert_eq!(upstream.seen().len(), 0, "nothing is asked for who has left");
}

#[test]
fn while_a_connection_is_made() {
    let (address, _full) = super::upstream::deaf();
    let server = Server::run(
        &["serve", "--upstream", &format!("http://{address}/v1"), "--connect-timeout", "60"],
        &[],
    );
    let mut client = server.connect();
    client.send(&post(hello_stream().to_string().as_bytes()));
    server.wait_until(|health| health["requests"].as_u64() >= Some(1));
    drop(client);
    server.wait_for("the client has left (connect)");
    let cancelled = server.health()["cancelled"].clone();
    assert_eq!(cancelled["connect"], 1, "{cancelled}");
}
