//! The limits on time, each set by its option, and the error that the client gets.

use std::sync::mpsc::channel;

use super::HANG;
use super::client::{hello, hello_stream, post};
use super::server::{Server, hooks_file};
use super::upstream::{Then, Upstream, deaf, delta, text_chunks};
use super::validator::Ended;

#[test]
fn a_connection_that_does_not_come() {
    let (address, _held) = deaf();
    let url = format!("http://{address}/v1");
    let server = Server::run(&["serve", "--upstream", &url, "--connect-timeout", "1"], &[]);
    for body in [hello(), hello_stream()] {
        let answer = server.connect().post(&body);
        assert_eq!((answer.status, answer.header("retry-after")), (504, Some("1")), "{}", answer.text());
        let told = ("timeout_error".to_owned(), "upstream 'default' timed out while connecting".to_owned());
        assert_eq!(answer.error(), told);
    }
}

#[test]
fn a_first_byte_that_does_not_come() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--first-byte-timeout", "1"]);
    for (body, head) in [(hello(), false), (hello_stream(), false), (hello_stream(), true)] {
        upstream.next(move |call| {
            if head {
                call.stream_head();
            }
            call.wait_for_close();
            Then::Close
        });
        let answer = server.connect().post(&body);
        assert_eq!((answer.status, answer.header("x-should-retry")), (504, Some("true")));
        assert_eq!(answer.error().1, "upstream 'default' timed out before the first byte");
    }
    assert_eq!(upstream.seen().len(), 3, "no prompt is computed twice for this");
}

#[test]
fn a_next_byte_that_does_not_come() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--idle-timeout", "1"]);
    for body in [hello(), hello_stream()] {
        upstream.next(|call| {
            call.stream_head();
            text_chunks("Half an").iter().take(2).for_each(|chunk| call.chunk(chunk));
            call.wait_for_close();
            Then::Close
        });
        let answer = server.connect().post(&body);
        let message = "upstream 'default' timed out between two bytes of the response";
        if body.get("stream").is_some() {
            assert_eq!(answer.events().0, Ended::Failed);
            assert_eq!(answer.data("error")[0]["error"]["message"], message);
        } else {
            assert_eq!((answer.status, answer.error().1.as_str()), (504, message));
        }
    }
}

#[test]
fn a_request_that_does_not_come_to_its_end() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--head-timeout", "1", "--body-timeout", "1"]);
    let whole = post(hello().to_string().as_bytes());
    for size in [10, whole.len() - 5] {
        let mut client = server.connect();
        client.send(&whole[..size]);
        let answer = client.receive();
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        let told = ("timeout_error".to_owned(), "the request did not arrive in time".to_owned());
        assert_eq!(answer.error(), told);
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn a_connection_without_a_request() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--keep-alive", "1"]);
    let mut client = server.connect();
    client.post(&hello()).message();
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_client_that_takes_nothing_is_dropped_and_its_upstream_with_it() {
    let upstream = Upstream::start();
    let (closed, was_closed) = channel();
    upstream.next(move |call| {
        call.stream_head();
        let chunk = format!("data: {}\n\n", delta(serde_json::json!({"content": "x".repeat(4096)})));
        while call.try_piece(&chunk).is_ok() {}
        closed.send(()).unwrap();
        Then::Close
    });
    let server = Server::start_with(&upstream, &["--write-timeout", "1"]);
    let mut stuck = server.connect();
    stuck.send(&post(hello_stream().to_string().as_bytes()));
    was_closed.recv_timeout(HANG).unwrap();
    assert!(server.wait_for("took nothing of its answer").contains(" 499 "));
    assert_eq!(server.health()["cancelled"]["unread"], 1);
    server.connect().post(&hello()).message();
    drop(stuck);
}

#[test]
fn a_slow_hook_is_silence_and_no_more() {
    let upstream = Upstream::start();
    let lua = r#"local clock = os.clock
    return { api = 1, on_request = function(req)
        local n = 0
        for i = 1, 300000 do n = n + i end
    end }"#;
    let hooks = hooks_file("patience-hook", lua);
    let server =
        Server::start_with(&upstream, &["--hooks", &hooks, "--open-after", "0", "--ping-every", "1"]);
    for _ in 0..4 {
        assert_eq!(server.connect().post(&hello_stream()).whole_events()[0]["text"], "Hello.");
    }
    upstream.next(|call| {
        call.wait_for_close();
        Then::Close
    });
    let mut client = server.connect();
    client.send(&post(hello_stream().to_string().as_bytes()));
    client.head();
    client.read_until("event: ping");
    client.read_until("event: ping");
}

#[test]
fn no_try_again_once_the_answer_has_begun() {
    let upstream = Upstream::start();
    let (go, may_go) = channel::<()>();
    upstream.next(move |call| {
        may_go.recv().unwrap();
        call.whole(503, r#"{"error":{"message":"Loading model","code":503}}"#)
    });
    let server = Server::start_with(&upstream, &["--open-after", "0"]);
    let mut client = server.connect();
    client.send(&post(hello_stream().to_string().as_bytes()));
    assert_eq!(client.head().status, 200);
    client.read_until("event: ping");
    go.send(()).unwrap();
    let rest = client.read_until("event: error");
    assert!(rest.contains("overloaded_error") && rest.contains("Loading model"), "{rest}");
    client.send(b"");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_done_mark_ends_the_answer_even_if_the_body_goes_on() {
    for body in [hello(), hello_stream()] {
        let upstream = Upstream::start();
        let (closed, was_closed) = channel();
        upstream.next(move |call| {
            call.stream_head();
            text_chunks("Hello.").iter().for_each(|chunk| call.chunk(chunk));
            call.piece("data: [DONE]\n\n");
            // The end of the body never comes.
            call.wait_for_close();
            closed.send(()).unwrap();
            Then::Close
        });
        let server = Server::start_with(&upstream, &["--ping-every", "0"]);
        let mut client = server.connect();
        let answer = client.post(&body);
        match body.get("stream") {
            None => assert_eq!(answer.message()[0]["text"], "Hello."),
            Some(_) => assert_eq!(answer.whole_events()[0]["text"], "Hello."),
        }
        was_closed.recv_timeout(HANG).unwrap();
        client.post(&body);
    }
}
