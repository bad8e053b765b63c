//! The time limits of a call.

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sparkgap::error::{Kind, Retry};
use sparkgap::transport::{CallLimits, Failure, Wait};

use crate::support::*;

#[test]
fn a_connect_has_a_limit() {
    let (listener, _queue) = full_listener();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let upstream = upstream_with(&url, CallLimits { connect_timeout: SOON, ..CallLimits::default() });
    assert_eq!(upstream.discover().unwrap_err(), Failure::Timeout("while connecting"));
    let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
    assert_eq!(failure, Failure::Timeout("while connecting"));
    assert_eq!(failure.to_error("spark").kind, Kind::Timeout);
}

#[test]
fn the_first_byte_has_a_limit_that_silences_do_not_move() {
    // vLLM sends its head at once, which is not an answer yet.
    for head in ["", STREAM_HEAD] {
        let (url, script) = scripted(move |listener| {
            let mut stream = answered(listener, head);
            wait_for_close(&mut stream);
        });
        let options = CallLimits { first_byte_timeout: SOON, ..CallLimits::default() };
        let wait: Rc<dyn Wait> =
            Rc::new(Client { patience: Some(Duration::from_millis(1)), ..Client::default() });
        let failure = upstream_with(&url, options).post(CHAT, b"{}", &wait).unwrap_err();
        assert_eq!(failure, Failure::Timeout("before the first byte"));
        script.join().unwrap();
    }
}

#[test]
fn the_next_byte_has_a_limit() {
    let (url, script) = scripted(|listener| {
        let mut stream = answered(listener, &format!("{STREAM_HEAD}2\r\nok\r\n"));
        wait_for_close(&mut stream);
    });
    let upstream = upstream_with(&url, CallLimits { idle_timeout: SOON, ..CallLimits::default() });
    let mut response = upstream.post(CHAT, b"{}", &nobody()).unwrap();
    read_exactly(&mut response, 2);
    let failure = response.read(&mut [0; 9]).unwrap_err();
    assert_eq!(failure, Failure::Timeout("between two bytes of the response"));
    script.join().unwrap();
}

#[test]
fn an_upstream_that_takes_no_bytes_has_a_limit() {
    let (done, finish) = mpsc::channel::<()>();
    let (url, script) = scripted(move |listener| {
        let stream = accept(listener);
        let _ = finish.recv_timeout(HANG);
        drop(stream);
    });
    let upstream = upstream_with(&url, CallLimits { send_timeout: SOON, ..CallLimits::default() });
    let failure = upstream.post(CHAT, &vec![b' '; 32 << 20], &nobody()).unwrap_err();
    assert_eq!(failure, Failure::Timeout("while sending the request"));
    done.send(()).unwrap();
    script.join().unwrap();
}

/// Limits that notice within moments that a server has stopped.
fn quick_pulse() -> CallLimits {
    CallLimits { pulse_after: SOON, pulse_every: Duration::from_millis(1), ..CallLimits::default() }
}

#[test]
fn a_silent_server_that_refuses_connections_has_stopped() {
    for begun in ["", STREAM_HEAD, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let script = thread::spawn(move || {
            let mut stream = answered(&listener, begun);
            drop(listener);
            wait_for_close(&mut stream);
        });
        let upstream = upstream_with(&url, quick_pulse());
        let failure = upstream.post(CHAT, b"{}", &nobody()).and_then(|response| response.read_all(9));
        let failure = failure.unwrap_err();
        assert_eq!(failure, Failure::Stopped, "{begun}");
        let error = failure.to_error("spark");
        assert_eq!((error.kind, error.retry), (Kind::BadGateway, Retry::After(1)));
        assert_eq!(error.message, "upstream 'spark' has stopped: it is silent and refuses new connections");
        script.join().unwrap();
    }
}

#[test]
fn a_silent_server_that_accepts_connections_is_waited_for() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        // It is busy until attempts to connect wait in its backlog.
        let attempts = [accept(listener), accept(listener)];
        answer(&mut stream, OK);
        drop(attempts);
    });
    let response = upstream_with(&url, quick_pulse()).post(CHAT, b"{}", &nobody()).unwrap();
    assert_eq!(response.read_all(9).unwrap(), b"ok");
    script.join().unwrap();
}

#[test]
fn an_attempt_that_is_neither_accepted_nor_refused_shows_nothing() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        let _full = fill(listener);
        wait_for_close(&mut stream);
    });
    let limits = CallLimits { first_byte_timeout: 10 * SOON, ..quick_pulse() };
    let failure = upstream_with(&url, limits).post(CHAT, b"{}", &nobody()).unwrap_err();
    assert_eq!(failure, Failure::Timeout("before the first byte"));
    script.join().unwrap();
}
