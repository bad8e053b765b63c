//! An upstream that is silent: the client gets the beginning of its message, and pings.

use std::sync::mpsc::{Sender, channel};

use serde_json::Value;

use super::client::{Client, hello, hello_stream, post};
use super::server::Server;
use super::upstream::{Upstream, text_chunks};
use super::validator::Ended;

/// An upstream that answers when the test says so.
fn silent(upstream: &Upstream) -> Sender<()> {
    let (go, may_go) = channel();
    upstream.next(move |call| {
        may_go.recv().unwrap();
        call.stream_head();
        text_chunks("At last.").iter().for_each(|chunk| call.chunk(chunk));
        call.done()
    });
    go
}

fn begin(server: &Server) -> (Client, super::client::Answer, String) {
    let mut client = server.connect();
    client.send(&post(hello_stream().to_string().as_bytes()));
    let answer = client.head();
    let begun = client.read_until("event: ping");
    (client, answer, begun)
}

// covers: 85
#[test]
fn a_stream_begins_before_the_first_token() {
    for open_after in ["0", "1"] {
        let upstream = Upstream::start();
        let go = silent(&upstream);
        let server = Server::start_with(&upstream, &["--open-after", open_after]);
        let (mut client, mut answer, begun) = begin(&server);
        assert!(begun.starts_with("event: message_start\n"), "{begun}");
        // The upstream answers only now.
        go.send(()).unwrap();
        answer.body = (begun + &client.read_until("message_stop\"}\n\n")).into_bytes();
        assert_eq!(answer.whole_events()[0]["text"], "At last.");
    }
}

// covers: 85
#[test]
fn pings_go_on_while_the_silence_lasts() {
    let upstream = Upstream::start();
    let go = silent(&upstream);
    let server = Server::start_with(&upstream, &["--open-after", "0", "--ping-every", "1"]);
    let (mut client, mut answer, mut begun) = begin(&server);
    begun += &client.read_until("event: ping");
    go.send(()).unwrap();
    answer.body = (begun + &client.read_until("message_stop\"}\n\n")).into_bytes();
    assert_eq!(answer.whole_events()[0]["text"], "At last.");
    assert!(answer.data("ping").len() >= 2);
}

// covers: 85
#[test]
fn where_only_pings_went_out_for_long_the_usage_so_far_does() {
    let upstream = Upstream::start();
    let go = silent(&upstream);
    let more = ["--open-after", "0", "--ping-every", "1", "--usage-every", "2"];
    let server = Server::start_with(&upstream, &more);
    let (mut client, mut answer, mut begun) = begin(&server);
    begun += &client.read_until("event: message_delta");
    begun += &client.read_until("event: ping");
    go.send(()).unwrap();
    answer.body = (begun + &client.read_until("message_stop\"}\n\n")).into_bytes();
    assert_eq!(answer.whole_events()[0]["text"], "At last.");
    let told = answer.data("message_delta");
    let reasons = told.iter().map(|data| &data["delta"]["stop_reason"]);
    assert!(reasons.clone().count() >= 2 && reasons.rev().skip(1).all(Value::is_null), "{told:?}");
}

#[test]
fn an_error_after_the_beginning_is_an_event() {
    let upstream = Upstream::start();
    let (go, may_go) = channel::<()>();
    upstream.next(move |call| {
        may_go.recv().unwrap();
        call.whole(400, r#"{"error":{"message":"no","code":400}}"#)
    });
    let server = Server::start_with(&upstream, &["--open-after", "0"]);
    let (mut client, mut answer, begun) = begin(&server);
    go.send(()).unwrap();
    let mut rest = String::new();
    while let Some(piece) = client.piece() {
        rest.push_str(&String::from_utf8(piece).unwrap());
    }
    answer.body = (begun + &rest).into_bytes();
    assert_eq!(answer.events().0, Ended::Failed);
    let error = answer.data("error")[0]["error"]["message"].clone();
    assert!(error.as_str().unwrap().starts_with("no (the model server refused"), "{error}");
    client.post(&hello()).message();
}

#[test]
fn a_client_that_does_not_stream_gets_only_the_whole_answer() {
    let upstream = Upstream::start();
    let (asked, was_asked) = channel();
    upstream.next(move |call| {
        asked.send(()).unwrap();
        call.whole(400, r#"{"error":{"message":"no","code":400}}"#)
    });
    let server = Server::start_with(&upstream, &["--open-after", "0", "--ping-every", "0"]);
    let answer = server.connect().post(&hello());
    was_asked.recv().unwrap();
    assert_eq!(answer.status, 400);
}
