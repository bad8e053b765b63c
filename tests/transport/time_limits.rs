//! The time limits of a call.

use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use sparkgap::error::Kind;
use sparkgap::transport::{CallLimits, Failure, Wait};

use crate::support::*;

#[test]
fn a_connect_has_a_limit() {
    let (listener, _queue) = full_listener();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let upstream = upstream_with(&url, CallLimits { connect_timeout: SOON, ..CallLimits::default() });
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
