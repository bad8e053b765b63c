//! HTTP itself: lengths, chunks, header limits, several requests on one connection.

use super::client::{hello, hello_stream, post, post_with};
use super::server::Server;
use super::upstream::{Upstream, text_chunks};

fn body() -> Vec<u8> {
    hello().to_string().into_bytes()
}

/// Headers as Claude Code sends them; it sends 26 at most.
fn headers(count: usize) -> String {
    (0..count).map(|i| format!("x-stainless-{i}: value {i}\r\n")).collect()
}

#[test]
fn many_headers_are_taken_and_too_many_refused() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    // The request has host, content-type and content-length as well.
    for count in [26, 64, 128] {
        server.connect().ask(&post_with(&headers(count - 3), &body())).message();
    }
    let mut client = server.connect();
    let answer = client.ask(&post_with(&headers(126), &body()));
    assert_eq!(answer.status, 431);
    assert_eq!(answer.error(), ("invalid_request_error".into(), "more than 128 request headers".into()));
    assert_eq!(client.rest(), b"");
    let large = format!("x-large: {}\r\n", "x".repeat(64 * 1024));
    let answer = server.connect().ask(&post_with(&large, &body()));
    assert_eq!(answer.status, 431);
    assert_eq!(answer.error().1, "request headers over 65536 bytes");
}

#[test]
fn a_body_over_the_limit_is_refused_whatever_it_is() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--body-size-max", "1000"]);
    let told = ("request_too_large".to_owned(), "request body over 1000 bytes".to_owned());
    let answer = server.connect().ask(&post(&[b'x'; 1001]));
    assert_eq!((answer.status, answer.error()), (413, told.clone()));
    // The refusal comes before the body is sent.
    let mut client = server.connect();
    let answer = client.ask(b"POST /v1/messages HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n");
    assert!(matches!(answer.status, 400 | 413), "{answer:?}");
    let answer = server.connect().ask(b"POST /v1/messages HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n");
    assert_eq!((answer.status, answer.error()), (413, told.clone()));
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    let chunked = format!("POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
    let answer = server.connect().ask(chunked.as_bytes());
    assert_eq!((answer.status, answer.error()), (413, told));
    server.connect().ask(&post(&[&body()[..], &[b' '; 800]].concat())).message();
}

#[test]
fn a_body_of_1_mb_arrives_whole() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let text = "äöü 漢字 🙂 \"quoted\" \\ ".repeat(40_000);
    let mut body = hello();
    body["messages"][0]["content"] = text.clone().into();
    server.connect().post(&body).message();
    let messages = &upstream.only_seen().body["messages"];
    assert_eq!(messages[0]["content"], text);
}

#[test]
fn chunked_bodies_are_taken() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    for size in [1, 7, 1000] {
        let chunks: Vec<u8> = body()
            .chunks(size)
            .flat_map(|piece| [format!("{:X};a=b\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())
            .collect();
        let head = b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
        client.ask(&[&head[..], &chunks, b"0\r\nx-trailer: y\r\n\r\n"].concat()).message();
    }
    let answer = client.ask(b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
    assert_eq!((answer.status, &answer.error().1[..16]), (400, "malformed chunk:"));
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    let request = post_with("expect: 100-continue\r\n", &body());
    let (head, rest) = request.split_at(request.len() - body().len());
    client.send(head);
    assert_eq!(client.line(), "HTTP/1.1 100 Continue");
    assert_eq!(client.line(), "");
    client.ask(rest).message();
    // A client that sends the body at once does not wait.
    client.ask(&request).message();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let upstream = Upstream::start();
    for text in ["one", "two", "three"] {
        upstream.next_chunks(text_chunks(text));
    }
    let server = Server::start(&upstream);
    let mut client = server.connect();
    let stream = post(hello_stream().to_string().as_bytes());
    client.send(&[post(&body()), stream, b"GET /nothing HTTP/1.1\r\n\r\n".to_vec(), post(&body())].concat());
    assert_eq!(client.receive().message()[0]["text"], "one");
    assert_eq!(client.receive().whole_events()[0]["text"], "two");
    assert_eq!(client.receive().status, 404);
    assert_eq!(client.receive().message()[0]["text"], "three");
}

#[test]
fn a_connection_serves_many_requests() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    for _ in 0..20 {
        client.post(&hello()).message();
        client.post(&hello_stream()).whole_events();
    }
    let answer = client.ask(&post_with("connection: close\r\n", &body()));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(client.rest(), b"");
}

#[test]
fn http_1_0_gets_a_body_that_ends_with_the_connection() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for body in [hello(), hello_stream()] {
        let body = body.to_string();
        let head = format!("POST /v1/messages HTTP/1.0\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut client = server.connect();
        let answer = client.ask(format!("{head}{body}").as_bytes());
        assert_eq!(answer.header("transfer-encoding"), None);
        match answer.header("content-length") {
            Some(_) => assert_eq!(answer.message()[0]["text"], "Hello."),
            None => assert_eq!(answer.whole_events()[0]["text"], "Hello."),
        }
        assert_eq!(client.rest(), b"");
    }
}

#[test]
fn a_head_in_single_bytes_is_a_head() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    let mut client = server.connect();
    for byte in post(&body()) {
        client.send(&[byte]);
    }
    client.receive().message();
}
