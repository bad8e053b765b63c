//! Upstreams that refuse, break off, or send invalid responses.

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use sparkgap::config::Secret;
use sparkgap::error::{Kind, Retry};
use sparkgap::fleet::Upstream;
use sparkgap::transport::{CallLimits, Failure};

use crate::support::*;

#[test]
fn a_port_without_a_listener_refuses_the_call() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let failure = upstream(&url).post(CHAT, b"{}", &nobody()).unwrap_err();
    assert!(matches!(failure, Failure::Refused(_)), "{failure:?}");
    let error = failure.to_error("spark");
    assert_eq!((error.kind, error.retry), (Kind::BadGateway, Retry::After(1)));
    assert_eq!(error.message, "upstream 'spark' cannot be reached");
}

#[test]
fn a_fresh_connection_that_closes_is_not_retried() {
    for partial in ["", "HTTP/1.1 200 OK\r\nconte"] {
        let (url, script) = scripted(move |listener| {
            let mut stream = answered(listener, partial);
            stream.shutdown(Shutdown::Write).unwrap();
            wait_for_close(&mut stream);
            nobody_waits(listener)
        });
        let failure = upstream(&url).post(CHAT, b"{}", &nobody()).unwrap_err();
        assert!(matches!(failure, Failure::Reset(_)), "{failure:?}");
        assert!(script.join().unwrap());
    }
}

#[test]
fn a_reused_connection_that_closes_within_the_head_is_not_retried() {
    let (url, script) = scripted(|listener| {
        let mut stream = answered(listener, OK);
        read_request(&mut stream);
        answer(&mut stream, "HTTP/1.1 200 OK\r\nconte");
        drop(stream);
    });
    let upstream = upstream(&url);
    read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap());
    let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
    assert!(matches!(failure, Failure::Reset(_)), "{failure:?}");
    script.join().unwrap();
}

#[test]
fn the_retry_is_the_last_one() {
    let (url, script) = scripted(|listener| {
        let mut first = answered(listener, OK);
        read_request(&mut first);
        drop(first);
        let mut second = accept(listener);
        read_request(&mut second);
        second.shutdown(Shutdown::Write).unwrap();
        wait_for_close(&mut second);
        nobody_waits(listener)
    });
    let upstream = upstream_with(&url, patient());
    read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap());
    let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
    assert!(matches!(failure, Failure::Reset(_)), "{failure:?}");
    assert!(script.join().unwrap());
}

#[test]
fn what_a_server_may_have_worked_on_is_not_sent_again() {
    // Lost later than at once, on a pooled connection; and after an interim response, however soon.
    let late = CallLimits { loss_at_once: Duration::ZERO, ..CallLimits::default() };
    for (options, interim) in [(late, ""), (patient(), "HTTP/1.1 100 Continue\r\n\r\n")] {
        let (url, script) = scripted(move |listener| {
            let mut first = answered(listener, OK);
            read_request(&mut first);
            answer(&mut first, interim);
            first.shutdown(Shutdown::Write).unwrap();
            wait_for_close(&mut first);
            nobody_waits(listener)
        });
        let upstream = upstream_with(&url, options);
        read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap());
        let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
        assert!(matches!(failure, Failure::Reset(_)) && !failure.is_refused(), "{failure:?}");
        assert!(script.join().unwrap(), "one connection");
    }
}

#[test]
fn a_refusal_tells_whether_it_came_at_once() {
    for (loss_at_once, expected) in [(HANG, true), (Duration::ZERO, false)] {
        let (url, script) = scripted(|listener| {
            let _stream =
                answered(listener, "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno");
        });
        let upstream = upstream_with(&url, CallLimits { loss_at_once, ..CallLimits::default() });
        let response = upstream.post(CHAT, b"{}", &nobody()).unwrap();
        assert_eq!((response.status, response.is_at_once), (503, expected));
        script.join().unwrap();
    }
}

#[test]
fn a_body_that_breaks_off_never_seems_to_end() {
    for (head, part) in [(STREAM_HEAD, "2\r\nok\r\n"), ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", "ok")]
    {
        let (url, script) = scripted(move |listener| {
            let mut stream = answered(listener, head);
            answer(&mut stream, part);
        });
        let mut response = upstream(&url).post(CHAT, b"{}", &nobody()).unwrap();
        read_exactly(&mut response, 2);
        for _ in 0..2 {
            let failure = response.read(&mut [0; 9]).unwrap_err();
            assert!(matches!(failure, Failure::Truncated(_)), "{failure:?}");
        }
        script.join().unwrap();
    }
}

#[test]
fn unsupported_answers_are_failures() {
    for (text, expected) in [
        ("HTTP/1.1 307 Moved\r\nlocation: http://other/\r\ncontent-length: 0\r\n\r\n", "redirects are never"),
        ("HTTP/1.1 301 Moved\r\nlocation: /v1/x\r\ncontent-length: 2\r\n\r\nxx", "redirects are never"),
        (
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx",
            "content-encoding 'gzip'",
        ),
        ("SSH-2.0-OpenSSH_9.6\r\n", "not HTTP"),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", "no upgrade"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n", "malformed chunk"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nxx", "only chunked"),
        ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", ""),
    ] {
        let (url, script) = scripted(move |listener| {
            let mut stream = answered(listener, text);
            wait_for_close(&mut stream);
            nobody_waits(listener)
        });
        let upstream = upstream(&url);
        let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
        let is_of_kind = match &failure {
            Failure::Redirected(..) => text.contains(" Moved"),
            Failure::Encoded(_) => text.contains("content-encoding"),
            failure => matches!(failure, Failure::Protocol(_)),
        };
        assert!(is_of_kind && failure.to_string().contains(expected), "{text}: {failure:?}");
        assert_eq!(failure.to_error("spark").retry, Retry::Never);
        // After a redirect without a body the connection can be used again; it closes with the upstream.
        drop(upstream);
        assert!(script.join().unwrap());
    }
}

#[test]
fn a_head_without_end_is_refused() {
    let (url, script) = scripted(|listener| {
        let mut stream = answered(listener, "HTTP/1.1 200 OK\r\n");
        while stream.write_all(format!("x: {}\r\n", "y".repeat(8000)).as_bytes()).is_ok() {}
    });
    let failure = upstream(&url).post(CHAT, b"{}", &nobody()).unwrap_err();
    assert!(matches!(failure, Failure::Protocol(_)), "{failure:?}");
    script.join().unwrap();
}

#[test]
fn interim_responses_without_end_are_refused() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        while stream.write_all("HTTP/1.1 100 Continue\r\n\r\n".repeat(100).as_bytes()).is_ok() {}
    });
    let failure = upstream(&url).post(CHAT, b"{}", &nobody()).unwrap_err();
    assert!(matches!(&failure, Failure::Protocol(why) if why.contains("too many")), "{failure:?}");
    script.join().unwrap();
}

#[test]
fn https_to_a_plaintext_server_is_a_tls_failure() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        stream.peek(&mut [0]).unwrap();
        answer(&mut stream, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        wait_for_close(&mut stream);
    });
    let upstream = upstream(&url.replace("http://", "https://"));
    let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
    assert!(matches!(failure, Failure::Tls(_)), "{failure:?}");
    assert_eq!(failure.to_error("spark").message, "upstream 'spark' cannot be reached by TLS");
    script.join().unwrap();
}

#[test]
fn a_tls_server_that_closes_in_the_handshake_may_be_tried_again() {
    let (url, script) = scripted(|listener| {
        let stream = accept(listener);
        stream.peek(&mut [0]).unwrap();
    });
    let failure = upstream(&url.replace("http://", "https://")).post(CHAT, b"{}", &nobody()).unwrap_err();
    assert!(matches!(failure, Failure::Refused(_)), "{failure:?}");
    script.join().unwrap();
}

#[test]
fn a_tls_handshake_has_the_limit_of_the_connect() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        wait_for_close(&mut stream);
    });
    let url = url.replace("http://", "https://");
    let upstream = upstream_with(&url, CallLimits { connect_timeout: SOON, ..CallLimits::default() });
    let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
    assert_eq!(failure, Failure::Timeout("while connecting"));
    script.join().unwrap();
}

#[test]
fn a_key_with_a_line_end_is_refused_and_not_shown() {
    let mut config = config("http://h/v1");
    config.api_key = Some(Secret::new("sk-hush\n"));
    let error = Upstream::new(config, &CallLimits::default()).unwrap_err();
    assert!(error.contains("key") && !error.contains("hush"), "{error}");
}
