//! The client leaves, in every phase of a call.

use std::io;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use sparkgap::transport::{Failure, Wait};

use crate::support::*;

#[test]
fn a_dropped_response_closes_the_upstream_connection() {
    let (url, script) = scripted(|listener| {
        let mut stream = answered(listener, &format!("{STREAM_HEAD}2\r\nok\r\n"));
        wait_for_close(&mut stream);
    });
    let upstream = upstream(&url);
    let mut response = upstream.post(CHAT, b"{}", &nobody()).unwrap();
    read_exactly(&mut response, 2);
    drop(response);
    // The upstream itself stays alive: the connection closes because the response was dropped.
    script.join().unwrap();
    drop(upstream);
}

// covers: 89
#[test]
fn a_client_that_leaves_before_the_body_ends_the_call() {
    for head in ["", STREAM_HEAD] {
        let (url, script) = scripted(move |listener| {
            let mut stream = answered(listener, head);
            wait_for_close(&mut stream);
            nobody_waits(listener)
        });
        let upstream = upstream(&url);
        let failure = upstream.post(CHAT, b"{}", &leaving_client()).unwrap_err();
        assert_eq!(failure, Failure::ClientGone);
        assert!(script.join().unwrap(), "no second try for nobody");
        drop(upstream);
    }
}

// covers: 89
#[test]
fn a_client_that_leaves_within_the_body_ends_the_read() {
    // This holds even if the connection's end marks the body's end: a client's hang-up must not read as that end.
    let bodies = ["transfer-encoding: chunked\r\n\r\n2\r\nok\r\n", "content-length: 9\r\n\r\nok", "\r\nok"];
    for body in bodies {
        let (url, script) = scripted(move |listener| {
            let mut stream = answered(listener, &format!("HTTP/1.1 200 OK\r\n{body}"));
            wait_for_close(&mut stream);
        });
        let upstream = upstream(&url);
        let (ours, far) = client_pair();
        let wait: Rc<dyn Wait> = Rc::new(Client { socket: Some(ours), ..Client::default() });
        let mut response = upstream.post(CHAT, b"{}", &wait).unwrap();
        read_exactly(&mut response, 2);
        drop(far);
        let error = response.read(&mut [0; 64]).unwrap_err();
        assert_eq!(error, Failure::ClientGone);
        // The connection is closed already, although the response is still held, and every further read fails.
        script.join().unwrap();
        assert_eq!(response.read(&mut [0; 64]).unwrap_err(), Failure::ClientGone);
    }
}

#[test]
fn a_client_that_leaves_while_its_request_is_sent_ends_the_call() {
    let (done, finish) = mpsc::channel::<()>();
    let (url, script) = scripted(move |listener| {
        let stream = accept(listener);
        let _ = finish.recv_timeout(HANG);
        drop(stream);
    });
    let failure = upstream(&url).post(CHAT, &vec![b' '; 32 << 20], &leaving_client()).unwrap_err();
    assert_eq!(failure, Failure::ClientGone);
    done.send(()).unwrap();
    script.join().unwrap();
}

#[test]
fn a_client_that_cannot_be_written_to_ends_the_call() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        wait_for_close(&mut stream);
    });
    let (ours, _far) = client_pair();
    let wait: Rc<dyn Wait> = Rc::new(Client {
        socket: Some(ours),
        patience: Some(Duration::ZERO),
        on_silence: Some(Box::new(|_| Err(io::ErrorKind::BrokenPipe.into()))),
        ..Client::default()
    });
    assert_eq!(upstream(&url).post(CHAT, b"{}", &wait).unwrap_err(), Failure::ClientGone);
    script.join().unwrap();
}

#[test]
fn a_client_that_leaves_during_the_connect_ends_the_call() {
    let (listener, _queue) = full_listener();
    let upstream = upstream(&format!("http://{}/v1", listener.local_addr().unwrap()));
    assert_eq!(upstream.post(CHAT, b"{}", &leaving_client()).unwrap_err(), Failure::ClientGone);
}
