//! Calls that succeed: requests, answers, reuse, pings.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use sparkgap::config::Secret;
use sparkgap::fleet::Upstream;
use sparkgap::transport::{CallLimits, Path, Wait};

use crate::support::*;

#[test]
fn a_post_arrives_once_with_its_headers_and_its_answer_comes_back() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        let request = read_request(&mut stream);
        answer(
            &mut stream,
            "HTTP/1.1 503 Busy\r\nretry-after: 7\r\nserver: x\r\ncontent-type: a/b\r\ncontent-length: 2\r\n\r\nno",
        );
        wait_for_close(&mut stream);
        request
    });
    let upstream = upstream(&url);
    let body = vec![b'x'; 300_000];
    let response = upstream.post(CHAT, &body, &nobody()).unwrap();
    assert_eq!((response.status, response.retry_after), (503, Some(7)));
    assert_eq!((response.content_type(), response.headers.get("server")), (Some("a/b"), Some("x")));
    assert_eq!(read_all(response), "no");
    drop(upstream);
    let (head, received) = script.join().unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
    assert!(received == body);
}

#[test]
fn a_connection_read_to_its_end_is_used_again() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        for _ in 0..3 {
            read_request(&mut stream);
            answer(&mut stream, &format!("{STREAM_HEAD}2\r\nok\r\n0\r\n\r\n"));
        }
        wait_for_close(&mut stream);
        nobody_waits(listener)
    });
    let upstream = upstream(&url);
    for _ in 0..3 {
        assert_eq!(read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap()), "ok");
    }
    drop(upstream);
    assert!(script.join().unwrap(), "one connection");
}

#[test]
fn a_stale_pooled_connection_is_retried_once_on_a_fresh_one() {
    for reset in [false, true] {
        let (url, script) = scripted(move |listener| {
            let mut first = answered(listener, OK);
            if reset {
                // Unread bytes turn the close of a socket into a reset.
                first.peek(&mut [0]).unwrap();
            } else {
                read_request(&mut first);
            }
            drop(first);
            let mut second = accept(listener);
            let request = read_request(&mut second);
            answer(&mut second, OK);
            wait_for_close(&mut second);
            (request.1, nobody_waits(listener))
        });
        let upstream = upstream_with(&url, patient());
        assert_eq!(read_all(upstream.post(CHAT, b"one", &nobody()).unwrap()), "ok");
        assert_eq!(read_all(upstream.post(CHAT, b"two", &nobody()).unwrap()), "ok");
        drop(upstream);
        assert_eq!(script.join().unwrap(), (b"two".to_vec(), true));
    }
}

#[test]
fn bytes_after_an_answer_do_not_answer_the_next_call() {
    let chunked = format!("{STREAM_HEAD}2\r\nok\r\n0\r\n\r\n");
    for (whole, size) in [(OK, 2), (&chunked, 2), (&long_answer(), 9000)] {
        let unasked = format!("{whole}{OK}");
        let (url, script) = scripted(move |listener| {
            let mut first = answered(listener, &unasked);
            wait_for_close(&mut first);
            let _second = answered(listener, OK);
        });
        let upstream = upstream(&url);
        for size in [size, 2] {
            assert_eq!(read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap()).len(), size);
        }
        script.join().unwrap();
    }
}

#[test]
fn interim_responses_are_skipped() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        answer(
            &mut stream,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1",
        );
        answer(&mut stream, OK.strip_prefix("HTTP/1.1").unwrap());
    });
    assert_eq!(read_all(upstream(&url).post(CHAT, b"{}", &nobody()).unwrap()), "ok");
    script.join().unwrap();
}

#[test]
fn the_root_of_the_server_is_reached_beside_v1() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        let (head, _) = read_request(&mut stream);
        answer(&mut stream, OK);
        head
    });
    read_all(upstream(&url).post(Path::Root("/tokenize"), b"{}", &nobody()).unwrap());
    assert!(script.join().unwrap().starts_with("POST /tokenize HTTP/1.1\r\n"));
}

#[test]
fn the_key_goes_as_bearer_and_nowhere_else() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        let (head, _) = read_request(&mut stream);
        head
    });
    let mut config = config(&url);
    config.api_key = Some(Secret::new("sk-hush"));
    let upstream = Upstream::new(config, &CallLimits::default()).unwrap();
    let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
    let head = script.join().unwrap();
    assert!(head.to_lowercase().contains("authorization: bearer sk-hush\r\n"), "{head}");
    assert_eq!(head.matches("sk-hush").count(), 1);
    for text in [
        format!("{upstream:?}"),
        format!("{failure:?} {failure}"),
        format!("{:?}", failure.to_error("spark")),
    ] {
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn silence_is_reported_before_the_head_and_within_the_body() {
    let (told, silence) = mpsc::channel();
    let (url, script) = scripted(move |listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        // There are two silences before the head and two within the body; the call survives them all.
        for part in [STREAM_HEAD, "2\r\nok\r\n", "0\r\n\r\n"] {
            for _ in 0..2 {
                silence.recv_timeout(HANG).unwrap();
            }
            answer(&mut stream, part);
        }
        wait_for_close(&mut stream);
    });
    let (ours, far) = client_pair();
    let client = Rc::new(Client {
        socket: Some(ours),
        patience: Some(Duration::from_millis(5)),
        on_silence: Some(Box::new(move |_| {
            // The script may have ended already.
            told.send(()).or(Ok(()))
        })),
        ..Client::default()
    });
    let wait: Rc<dyn Wait> = Rc::clone(&client) as _;
    let upstream = upstream(&url);
    let response = upstream.post(CHAT, b"{}", &wait).unwrap();
    let before_head = client.silences.get();
    assert!(before_head >= 2, "{before_head}");
    assert_eq!(read_all(response), "ok");
    assert!(client.silences.get() >= before_head + 2);
    drop((upstream, far));
    script.join().unwrap();
}

#[test]
fn an_early_answer_to_a_large_request_is_read() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_head(&mut stream);
        answer(&mut stream, "HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig");
        // No more bytes are accepted, and the rest of the body turns the close into a reset.
        stream.shutdown(Shutdown::Read).unwrap();
    });
    let response = upstream(&url).post(CHAT, &vec![b' '; 16 << 20], &nobody()).unwrap();
    assert_eq!(response.status, 413);
    assert_eq!(read_all(response), "big");
    script.join().unwrap();
}

#[test]
fn an_early_answer_is_read_although_the_server_keeps_the_connection_and_reads_no_further() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_head(&mut stream);
        answer(&mut stream, "HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig");
        stream
    });
    let upstream = upstream(&url);
    let response = upstream.post(CHAT, &vec![b' '; 16 << 20], &nobody()).unwrap();
    assert_eq!(response.status, 413);
    assert_eq!(read_all(response), "big");
    // A part of the request is missing, so the connection cannot serve another one.
    wait_for_close(&mut script.join().unwrap());
}

#[test]
fn an_interim_answer_does_not_end_the_request() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_head(&mut stream);
        answer(&mut stream, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        stream.read_exact(&mut vec![0; 16 << 20]).unwrap();
        answer(&mut stream, OK);
    });
    assert_eq!(read_all(upstream(&url).post(CHAT, &vec![b' '; 16 << 20], &nobody()).unwrap()), "ok");
    script.join().unwrap();
}

#[test]
fn pipelined_data_of_the_client_does_not_count_as_leaving() {
    let (url, script) = scripted(|listener| {
        let _stream = answered(listener, OK);
    });
    let (ours, mut far) = client_pair();
    far.write_all(b"POST /v1/messages HTTP/1.1\r\n").unwrap();
    ours.peek(&mut [0]).unwrap();
    let wait: Rc<dyn Wait> = Rc::new(Client { socket: Some(ours), ..Client::default() });
    assert_eq!(read_all(upstream(&url).post(CHAT, b"{}", &wait).unwrap()), "ok");
    script.join().unwrap();
}
