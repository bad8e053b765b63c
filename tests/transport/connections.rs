//! How the connections to one upstream are made: its headers, its proxy, the authorities of its certificate.

use std::net::TcpListener;
use std::thread::JoinHandle;

use sparkgap::config::{ConnectionSettings, Secret, UpstreamConfig};
use sparkgap::fleet::Upstream;
use sparkgap::transport::{CallLimits, Failure};

use crate::support::*;
use crate::tls::{accept_tls, file};

fn connected(url: &str, connection: ConnectionSettings) -> Upstream {
    let config = UpstreamConfig { connection, ..config(url) };
    Upstream::new(config, &CallLimits::default()).unwrap()
}

/// A proxy that answers `CONNECT` with `line`, and then plays the server. Returns the heads that it has read.
fn proxy(line: &'static str, answers: Vec<String>) -> (ConnectionSettings, JoinHandle<Vec<String>>) {
    let (url, script) = scripted(move |listener: &TcpListener| {
        let mut heads = Vec::new();
        for text in answers {
            let mut stream = accept(listener);
            heads.push(read_head(&mut stream));
            answer(&mut stream, &format!("{line}\r\nvia: a proxy\r\n\r\n"));
            if line.contains(" 200 ") {
                heads.push(read_request(&mut stream).0);
                answer(&mut stream, &text);
            }
        }
        heads
    });
    let http_proxy = Some(url.trim_end_matches("/v1").to_owned());
    (ConnectionSettings { http_proxy, ..ConnectionSettings::default() }, script)
}

fn listing() -> String {
    let body = r#"{"data":[{"id":"qwen3"}]}"#;
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn calls_and_questions_go_through_the_proxy() {
    let (connection, script) = proxy("HTTP/1.1 200 Connection established", vec![listing(), OK.to_owned()]);
    // The name is looked up by the proxy, if at all.
    let upstream = connected("http://models.invalid:8000/v1", connection);
    assert_eq!(upstream.discover().unwrap().models[0].id, "qwen3");
    assert_eq!(read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap()), "ok");
    let heads = script.join().unwrap();
    let first = |at: usize| heads[at].lines().next().unwrap().to_owned();
    assert_eq!(first(0), "CONNECT models.invalid:8000 HTTP/1.1");
    assert_eq!(first(1), "GET /v1/models HTTP/1.1");
    assert_eq!(first(2), "CONNECT models.invalid:8000 HTTP/1.1");
    assert_eq!(first(3), "POST /v1/chat/completions HTTP/1.1");
}

#[test]
fn a_proxy_that_refuses_is_named_as_the_reason() {
    let (connection, script) = proxy("HTTP/1.1 403 Forbidden", vec![String::new()]);
    let upstream = connected("http://models.invalid:8000/v1", connection);
    let Err(Failure::Refused(why)) = upstream.post(CHAT, b"{}", &nobody()) else { panic!("it was sent") };
    assert_eq!(why, "the proxy does not connect to models.invalid:8000: HTTP/1.1 403 Forbidden");
    script.join().unwrap();
}

#[test]
fn each_request_has_the_headers_of_its_upstream() {
    let (url, script) = scripted(|listener: &TcpListener| {
        [listing(), OK.to_owned()].map(|text| {
            let mut stream = accept(listener);
            let head = read_request(&mut stream).0;
            answer(&mut stream, &text);
            head
        })
    });
    let headers = vec![("x-team".to_owned(), Secret::new("blue-key-1"))];
    let upstream = connected(&url, ConnectionSettings { headers, ..ConnectionSettings::default() });
    upstream.discover().unwrap();
    read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap());
    for head in script.join().unwrap() {
        assert!(head.to_lowercase().contains("x-team: blue-key-1\r\n"), "{head}");
    }
    // Its value may be a key, which a server may repeat in an error.
    let mut text = "no access with blue-key-1".to_owned();
    upstream.endpoint().hide_keys(&mut text);
    assert_eq!(text, "no access with ***");
    for (name, value) in [("x team", "a"), ("x-team", "a\r\nb: c")] {
        let headers = vec![(name.to_owned(), Secret::new(value))];
        let connection = ConnectionSettings { headers, ..ConnectionSettings::default() };
        let config = UpstreamConfig { connection, ..config(&url) };
        assert!(Upstream::new(config, &CallLimits::default()).is_err(), "{name}");
    }
}

#[test]
fn the_authority_of_one_upstream_is_its_own() {
    for (authority, verifies_tls, is_trusted) in
        [("ca.pem", true, true), ("other.pem", true, false), ("other.pem", false, true)]
    {
        let (url, script) = scripted(|listener: &TcpListener| {
            for text in [listing(), OK.to_owned()] {
                let mut stream = accept_tls(listener);
                let mut byte = [0];
                // A client that does not trust the certificate ends the handshake.
                if std::io::Read::read_exact(&mut stream, &mut byte).is_ok() {
                    read_request(&mut stream);
                    answer(&mut stream, &text);
                }
            }
        });
        let ca_file = Some(file(authority));
        let connection = ConnectionSettings { ca_file, verifies_tls, ..ConnectionSettings::default() };
        let upstream = connected(&url.replace("http://", "https://"), connection);
        assert_eq!(upstream.discover().is_ok(), is_trusted, "{authority} {verifies_tls}");
        assert_eq!(upstream.post(CHAT, b"{}", &nobody()).is_ok(), is_trusted, "{authority} {verifies_tls}");
        script.join().unwrap();
    }
    for (name, complaint) in [("no/such", "ca_file: "), ("server.key", "holds no PEM certificate")] {
        let connection = ConnectionSettings { ca_file: Some(file(name)), ..ConnectionSettings::default() };
        let config = UpstreamConfig { connection, ..config("https://h/v1") };
        let error = Upstream::new(config, &CallLimits::default()).err().unwrap();
        assert!(error.contains(complaint), "{error}");
    }
}

#[test]
fn a_file_of_authorities_that_has_changed_is_noticed() {
    let path = std::env::temp_dir().join(format!("sparkgap-authority-{}.pem", std::process::id()));
    std::fs::copy(file("ca.pem"), &path).unwrap();
    let connection = ConnectionSettings { ca_file: Some(path.clone()), ..ConnectionSettings::default() };
    let config = UpstreamConfig { connection, ..config("https://h/v1") };
    let upstream = Upstream::new(config.clone(), &CallLimits::default()).unwrap();
    assert!(upstream.endpoint().has_current_authorities(&config));
    std::fs::copy(file("other.pem"), &path).unwrap();
    assert!(!upstream.endpoint().has_current_authorities(&config));
    std::fs::remove_file(&path).unwrap();
    assert!(!upstream.endpoint().has_current_authorities(&config));
}
