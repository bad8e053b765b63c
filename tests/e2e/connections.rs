//! The connections to the upstream: kept, replaced when stale, closed when the client leaves.

use std::sync::mpsc::channel;

use serde_json::json;

use super::HANG;
use super::client::{hello, hello_stream, post};
use super::server::Server;
use super::upstream::{Then, Upstream, text_chunks};

#[test]
fn one_connection_serves_request_after_request() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for _ in 0..5 {
        // Each client has a new connection all the same.
        server.connect().post(&hello()).message();
        server.connect().post(&hello_stream()).whole_events();
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 10);
    assert!(seen.iter().all(|one| one.connection == seen[0].connection), "{seen:?}");
}

#[test]
fn a_connection_that_went_stale_is_replaced_unnoticed() {
    for body in [hello(), hello_stream()] {
        let upstream = Upstream::start();
        let server = Server::start(&upstream);
        let mut client = server.connect();
        client.post(&hello()).message();
        // The upstream ends it at the moment when the next request comes.
        upstream.next(|_| Then::Close);
        upstream.next_chunks(text_chunks("Again."));
        let answer = client.post(&body);
        match body.get("stream") {
            None => assert_eq!(answer.message()[0]["text"], "Again."),
            Some(_) => assert_eq!(answer.whole_events()[0]["text"], "Again."),
        }
        let seen = upstream.seen();
        assert_eq!(seen.len(), 3, "asked twice, since the first may not have arrived");
        assert_ne!(seen[1].connection, seen[2].connection);
        assert_eq!(seen[1].body, seen[2].body);
    }
}

#[test]
fn an_upstream_that_only_closes_connections_is_asked_once_on_a_new_one() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    client.post(&hello()).message();
    // The pooled connection, which may have been stale, and a new one, on which a model may have been at work.
    (0..2).for_each(|_| upstream.next(|_| Then::Close));
    let answer = client.post(&hello());
    assert_eq!((answer.status, answer.header("retry-after")), (502, Some("1")));
    assert_eq!(answer.error().1, "upstream 'default' closed the connection without an answer");
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn without_open_files_left_the_client_is_told_to_come_back_and_the_upstream_is_not_blamed() {
    const FILES_MAX: u32 = 40;
    let upstream = Upstream::start();
    let server = Server::start_with_files(&upstream, FILES_MAX);
    let mut client = server.connect();
    // After this answer no connection is kept, so that the next request needs a new one.
    upstream.next(|call| {
        let message = json!({"role": "assistant", "content": "Hello."});
        let body = json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]});
        call.whole_with(200, "connection: close\r\n", &body.to_string());
        Then::Close
    });
    client.post(&hello()).message();
    let idle: Vec<_> = (0..FILES_MAX).map(|_| server.connect()).collect();
    server.wait_for("cannot accept connections");
    let answer = client.post(&hello());
    assert_eq!((answer.status, answer.header("retry-after")), (529, Some("5")));
    let (kind, what) = answer.error();
    assert_eq!(kind, "overloaded_error");
    assert_eq!(what, "sparkgap has no open files or threads left for this request");
    drop(idle);
    server.wait_for_usage(|usage| usage.sockets < FILES_MAX as usize / 2);
    client.post(&hello()).message();
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn a_client_that_reads_nothing_more_does_not_hold_up_the_others() {
    let upstream = Upstream::start();
    let (begun, has_begun) = channel();
    upstream.next(move |call| {
        call.stream_head();
        text_chunks("Some words ").iter().take(2).for_each(|chunk| call.chunk(chunk));
        begun.send(()).unwrap();
        call.wait_for_close();
        Then::Close
    });
    let server = Server::start(&upstream);
    let mut slow = server.connect();
    slow.send(&post(hello_stream().to_string().as_bytes()));
    has_begun.recv_timeout(HANG).unwrap();
    for _ in 0..20 {
        server.connect().post(&hello_stream()).whole_events();
    }
}
