//! Calls over TLS. The certificates in the folder beside this file are valid for a hundred years, and serve these tests
//! only. `ca.pem` signs `server.pem`, which is for `localhost` and 127.0.0.1; the authority's key was not kept.
//! `other.pem` is signed by itself, so that nobody trusts it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sparkgap::transport::{Failure, trust};

use crate::support::*;

pub(crate) type Stream = StreamOwned<ServerConnection, TcpStream>;

pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transport/tls").join(name)
}

fn trust_ours() {
    trust(&file("ca.pem")).unwrap();
}

/// The scripted side of a TLS connection, before its handshake.
pub(crate) fn accept_tls(listener: &TcpListener) -> Stream {
    let certificate = CertificateDer::from_pem_file(file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), accept(listener))
}

/// Starts a script whose upstream is trusted. Returns its URL.
fn scripted_tls<T: Send + 'static>(
    script: impl FnOnce(&TcpListener) -> T + Send + 'static,
) -> (String, JoinHandle<T>) {
    trust_ours();
    let (url, script) = scripted(script);
    (url.replace("http://", "https://"), script)
}

#[test]
fn calls_go_out_whole_and_share_a_connection() {
    let (url, script) = scripted_tls(|listener| {
        let mut stream = accept_tls(listener);
        let mut bodies = Vec::new();
        for _ in 0..2 {
            bodies.push(read_request(&mut stream).1);
            answer(&mut stream, STREAM_HEAD);
            for _ in 0..3 {
                answer(&mut stream, "2\r\nok\r\n");
            }
            answer(&mut stream, "0\r\n\r\n");
        }
        wait_for_close(&mut stream);
        (bodies, nobody_waits(listener))
    });
    let upstream = upstream(&url);
    let sent = [vec![b'x'; 3 << 20], b"{}".to_vec()];
    for body in &sent {
        assert_eq!(read_all(upstream.post(CHAT, body, &nobody()).unwrap()), "okokok");
    }
    drop(upstream);
    let (bodies, alone) = script.join().unwrap();
    assert!(bodies == sent && alone);
}

#[test]
fn questions_trust_the_same_authorities() {
    let (url, script) = scripted_tls(|listener| {
        let mut stream = accept_tls(listener);
        let head = read_request(&mut stream).0;
        let body = r#"{"data":[{"id":"a"}]}"#;
        answer(&mut stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        head
    });
    assert_eq!(upstream(&url).discover().unwrap().models[0].id, "a");
    assert!(script.join().unwrap().starts_with("GET /v1/models "));
}

#[test]
fn bytes_after_an_answer_do_not_answer_the_next_call() {
    let (url, script) = scripted_tls(|listener| {
        let mut first = accept_tls(listener);
        read_request(&mut first);
        answer(&mut first, &format!("{}{OK}", long_answer()));
        wait_for_close(&mut first);
        let mut second = accept_tls(listener);
        read_request(&mut second);
        answer(&mut second, OK);
    });
    let upstream = upstream(&url);
    for size in [9000, 2] {
        assert_eq!(read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap()).len(), size);
    }
    script.join().unwrap();
}

#[test]
fn a_close_without_a_tls_message_ends_only_bodies_without_a_length() {
    for (head, part, whole) in [
        ("HTTP/1.1 200 OK\r\n\r\n", "ok", true),
        (STREAM_HEAD, "2\r\nok\r\n", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", "ok", false),
    ] {
        let (url, script) = scripted_tls(move |listener| {
            let mut stream = accept_tls(listener);
            read_request(&mut stream);
            answer(&mut stream, head);
            answer(&mut stream, part);
        });
        let response = upstream(&url).post(CHAT, b"{}", &nobody()).unwrap();
        let read = response.read_all(100);
        assert_eq!(read.as_deref().ok(), whole.then_some(&b"ok"[..]), "{head}");
        if let Err(error) = read {
            assert!(matches!(error, Failure::Truncated(_)), "{error}");
        }
        script.join().unwrap();
    }
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    trust_ours();
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let url = format!("https://{}/v1", listener.local_addr().unwrap());
    let script = thread::spawn(move || {
        for _ in 0..2 {
            let mut stream = accept_tls(&listener);
            assert!(stream.read(&mut [0]).is_err());
        }
    });
    let upstream = upstream(&url);
    let failures = [upstream.post(CHAT, b"{}", &nobody()).unwrap_err(), upstream.discover().unwrap_err()];
    script.join().unwrap();
    for failure in failures {
        assert!(matches!(&failure, Failure::Tls(why) if why.contains("certificate")), "{failure:?}");
    }
}

#[test]
fn a_client_that_leaves_closes_the_connection() {
    // Not before the head has been sent: on a slow machine the handshake alone has silences.
    let (sent, was_sent) = channel();
    let (url, script) = scripted_tls(move |listener| {
        let mut stream = accept_tls(listener);
        read_request(&mut stream);
        answer(&mut stream, STREAM_HEAD);
        stream.flush().unwrap();
        sent.send(()).unwrap();
        // TLS reports an end without its close message as an error.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let client = client_that_leaves_when(move || was_sent.try_recv().is_ok());
    let failure = upstream(&url).post(CHAT, b"{}", &client).unwrap_err();
    assert_eq!(failure, Failure::ClientGone);
    script.join().unwrap();
}
