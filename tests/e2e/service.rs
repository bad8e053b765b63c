//! The service: whether it is ready, and what it tells its operator without being asked by a client.

use std::time::Instant;

use super::HANG;
use super::client::{Answer, hello, hello_stream, post};
use super::server::Server;
use super::upstream::{self, Upstream};

const READY: &[u8] = b"GET /ready HTTP/1.1\r\n\r\n";

/// Asks for `/ready` until it has this status.
fn wait_for_ready(server: &Server, status: u16) -> Answer {
    let until = Instant::now() + HANG;
    loop {
        let answer = server.connect().ask(READY);
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < until, "{}", answer.text());
        std::thread::yield_now();
    }
}

#[test]
fn an_upstream_that_comes_back_is_noticed_without_a_request() {
    let (address, socket) = upstream::closed();
    let server = Server::run(&["serve", "--upstream", &format!("http://{address}/v1")], &[]);
    server.wait_for("upstream default did not answer");
    let answer = wait_for_ready(&server, 503);
    assert_eq!(answer.json()["status"], "no upstream can be reached");
    assert_eq!(answer.json()["upstreams"]["default"], "down");
    assert_eq!(server.health()["status"], "ok", "the server itself is well");
    let _upstream = Upstream::open(socket);
    let answer = wait_for_ready(&server, 200);
    assert_eq!(answer.json()["status"], "ready");
    assert_eq!(answer.json()["upstreams"]["default"], "up");
    server.wait_for("upstream default: ");
}

#[test]
fn an_upstream_without_a_listing_is_ready() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 404, "{}");
    let server = Server::run(&["serve", "--upstream", &upstream.url()], &[]);
    wait_for_ready(&server, 200);
}

#[test]
fn a_server_that_stops_is_not_ready() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    // The head of the question is not complete, so the stop leaves this connection open.
    let mut client = server.connect();
    let (begun, rest) = READY.split_at(READY.len() - 2);
    client.send(begun);
    // A thread accepts one connection after the other, so the first one has its thread now.
    assert_eq!(server.connect().ask(READY).status, 200);
    server.signal("TERM");
    server.wait_for("asked to stop");
    client.send(rest);
    let answer = client.receive();
    assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("draining")));
}

#[test]
fn probes_are_no_requests_and_failures_are_warnings() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for probe in ["/health", "/ready", "/"] {
        let request = format!("GET {probe} HTTP/1.1\r\n\r\n");
        assert_eq!(server.connect().ask(request.as_bytes()).status, 200);
    }
    assert_eq!(server.health()["requests"], 0);
    server.connect().post(&hello()).message();
    assert_eq!(server.connect().ask(b"GET /nowhere HTTP/1.1\r\n\r\n").status, 404);
    assert_eq!(server.health()["requests"], 2);
    assert!(server.wait_for(" 200 end_turn ").contains(" INFO "));
    upstream.next_answer(500, r#"{"error": {"message": "out of order"}}"#);
    assert_eq!(server.connect().post(&hello()).status, 500);
    assert!(server.wait_for("out of order").contains(" WARN "));
    // A client that leaves is no failure.
    let gate = upstream::Gate::default();
    let held = gate.clone();
    upstream.next(move |call| {
        held.wait();
        call.done()
    });
    let mut client = server.connect();
    client.send(&post(hello_stream().to_string().as_bytes()));
    server.wait_until(|_| upstream.seen().len() == 3);
    drop(client);
    assert!(server.wait_for("the client has left").contains(" INFO "));
    gate.open();
}
