//! Memory, threads and sockets stay bounded, whatever is sent or not read; and the next client is served.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::json;

use super::HANG;
use super::client::{hello, hello_stream, post};
use super::server::Server;
use super::upstream::{Then, Upstream, delta, text_chunks};
use super::validator::Ended;

const MIB: u64 = 1024 * 1024;

#[test]
fn an_upstream_that_sends_one_endless_line() {
    for body in [hello(), hello_stream()] {
        let upstream = Upstream::start();
        let (closed, was_closed) = channel();
        upstream.next(move |call| {
            call.stream_head();
            call.chunk(&delta(json!({"content": "Half"})));
            let piece = "data: ".to_owned() + &"x".repeat(1 << 20);
            let mut sent = 0;
            while call.try_piece(if sent == 0 { &piece } else { &piece[6..] }).is_ok() {
                sent += 1;
            }
            closed.send(sent).unwrap();
            Then::Close
        });
        let server = Server::start(&upstream);
        let answer = server.connect().post(&body);
        if body.get("stream").is_some() {
            assert_eq!(answer.events().0, Ended::Failed);
            assert_eq!(
                answer.data("error")[0]["error"]["message"],
                "the upstream sent an event that is too long"
            );
        } else {
            assert_eq!(
                (answer.status, answer.error().1.as_str()),
                (502, "the upstream sent an event that is too long")
            );
        }
        assert!(was_closed.recv_timeout(HANG).unwrap() < 64, "it is given up soon after the limit of 16 MiB");
        assert!(server.peak() < 100 * MIB, "{} MiB", server.peak() / MIB);
        server.connect().post(&hello()).message();
    }
}

#[test]
fn an_answer_without_end_is_refused_in_bounded_memory() {
    let upstream = Upstream::start();
    upstream.next(|call| {
        call.stream_head();
        let chunk = format!("data: {}\n\n", delta(json!({"content": "x".repeat(256 * 1024)})));
        while call.try_piece(&chunk).is_ok() {}
        Then::Close
    });
    let server = Server::start(&upstream);
    let answer = server.connect().post(&hello());
    assert_eq!((answer.status, answer.error().1.as_str()), (502, "the upstream's answer is too long"));
    assert!(server.peak() < 250 * MIB, "{} MiB", server.peak() / MIB);
}

#[test]
fn a_client_that_reads_slowly_slows_the_upstream() {
    let upstream = Upstream::start();
    let (held, is_held) = channel();
    upstream.next(move |call| {
        call.stream_head();
        call.give_up_writes_after(Duration::from_secs(2));
        let chunk = format!("data: {}\n\n", delta(json!({"content": "x".repeat(64 * 1024)})));
        let mut sent = 0_u64;
        while call.try_piece(&chunk).is_ok() {
            sent += chunk.len() as u64;
        }
        held.send(sent).unwrap();
        Then::Close
    });
    let server = Server::start(&upstream);
    let before = server.memory();
    let mut slow = server.connect();
    slow.send(&post(hello_stream().to_string().as_bytes()));
    // It reads byte by byte, and only a few bytes.
    (0..3).for_each(|_| slow.byte());
    let sent = is_held.recv_timeout(HANG).unwrap();
    assert!(sent < 128 * MIB, "the upstream was not held back: {} MiB", sent / MIB);
    assert!(
        server.peak() < before + 32 * MIB,
        "{} MiB before, {} MiB then",
        before / MIB,
        server.peak() / MIB
    );
    for _ in 0..10 {
        server.connect().post(&hello_stream()).whole_events();
    }
}

#[test]
fn a_thousand_slow_heads() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--head-timeout", "3"]);
    server.connect().post(&hello()).message();
    let before = server.usage();
    let slow: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.write_all(b"POST /v1/messages HTTP/1.1\r\nx-slow: ").unwrap();
            stream
        })
        .collect();
    // Another client is served at the same time.
    server.connect().post(&hello_stream()).whole_events();
    let then = server.memory();
    assert!(then < before.memory + 64 * MIB, "{} MiB before, {} MiB then", before.memory / MIB, then / MIB);
    // All slow heads are ended, while their clients are still connected.
    server.wait_for_usage(|usage| usage.threads <= before.threads + 1 && usage.sockets <= before.sockets + 1);
    drop(slow);
    server.connect().post(&hello()).message();
}

#[test]
fn connections_beyond_the_limit_are_told_to_come_back() {
    let upstream = Upstream::start();
    let server = Server::start_with(&upstream, &["--connections-max", "2"]);
    let (asked, was_asked) = channel();
    let gates: Vec<_> = (0..2)
        .map(|_| {
            let (go, may_go) = channel::<()>();
            let asked = asked.clone();
            upstream.next(move |call| {
                asked.send(()).unwrap();
                may_go.recv_timeout(HANG).unwrap();
                call.stream_head();
                text_chunks("Served.").iter().for_each(|chunk| call.chunk(chunk));
                call.done()
            });
            go
        })
        .collect();
    // A connection without a request would make room.
    let mut kept = [server.connect(), server.connect()];
    for client in &mut kept {
        client.send(&post(hello().to_string().as_bytes()));
        was_asked.recv_timeout(HANG).unwrap();
    }
    let mut third = server.connect();
    let answer = third.receive();
    assert_eq!((answer.status, answer.header("retry-after")), (529, Some("1")));
    assert_eq!(answer.error(), ("overloaded_error".to_owned(), "too many connections".to_owned()));
    assert_eq!(third.rest(), b"");
    gates.iter().for_each(|go| go.send(()).unwrap());
    for client in &mut kept {
        client.receive().message();
    }
    // A client has the last byte of its answer a moment before the server has the place.
    let until = Instant::now() + HANG;
    loop {
        let answer = server.connect().post(&hello());
        if answer.status != 529 || Instant::now() > until {
            answer.message();
            return;
        }
    }
}

/// 50 clients send 32 MiB each at the same time, as text and as the JSON that takes the most memory for its size. Run
/// it by hand: `cargo test --release --test e2e -- --ignored --nocapture bodies_of_32_mib`
#[test]
#[ignore = "1.6 GB of requests"]
fn bodies_of_32_mib_on_50_connections() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for (name, filler) in [("text", "word "), ("arrays", "[],"), ("numbers", "1,")] {
        let count = ((32 << 20) - 400) / filler.len();
        let text = filler.repeat(count);
        let content = if name == "text" { format!("\"{text}\"") } else { format!("[{}1]", text) };
        let key = if name == "text" { "Hi" } else { "metadata" };
        let body = match name {
            "text" => hello().to_string().replace("\"Hi\"", &content),
            _ => hello().to_string().replacen('{', &format!("{{\"{key}\":{content},"), 1),
        };
        let request = post(body.as_bytes());
        let clients = server.send_at_once(50, &request);
        let statuses: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        let count = |status| statuses.iter().filter(|found| **found == status).count();
        println!("{name}: {} served, {} sent away; peak {} MiB", count(200), count(529), server.peak() / MIB);
        server.connect().post(&hello()).message();
    }
}
