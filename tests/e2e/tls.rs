//! HTTPS on the listening side. The certificate is the one of the calls to upstreams (`tests/transport/tls`).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::HANG;
use super::client::{hello, hello_stream, post};
use super::server::{Server, output, output_in};
use super::upstream::{Then, Upstream, delta};

type Secure = StreamOwned<ClientConnection, TcpStream>;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transport/tls").join(name);
    path.to_str().unwrap().to_owned()
}

fn start(upstream: &Upstream, options: &[&str]) -> Server {
    let (certificate, key) = (file("server.pem"), file("server.key"));
    Server::start_with(upstream, &[&["--tls-cert", &certificate, "--tls-key", &key], options].concat())
}

fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(HANG)).unwrap();
    socket.set_write_timeout(Some(HANG)).unwrap();
    socket
}

fn connect(server: &Server) -> Secure {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket(server.address))
}

/// Reads until the bytes end with this text.
fn read_until(stream: &mut impl Read, end: &str) -> String {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(end.as_bytes()) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&read));
        read.extend(byte);
    }
    String::from_utf8(read).unwrap()
}

/// A certificate and a key of the test's own, to be changed.
fn copies(name: &str) -> (PathBuf, PathBuf) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let copy = |from: &str| {
        let to = folder.join(format!("tls-{name}-{from}"));
        std::fs::copy(file(from), &to).unwrap();
        to
    };
    (copy("server.pem"), copy("server.key"))
}

#[test]
fn one_connection_serves_whole_and_streamed_answers() {
    let upstream = Upstream::start();
    let server = start(&upstream, &[]);
    assert!(server.log().contains(" listens on https://"), "{}", server.log());
    let mut client = connect(&server);
    for body in [hello_stream(), hello_stream()] {
        client.write_all(&post(body.to_string().as_bytes())).unwrap();
        let answer = read_until(&mut client, "0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("message_stop"), "{answer}");
    }
    client.write_all(b"GET /env HTTP/1.1\r\nhost: localhost:4000\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    // The end is announced: otherwise this would be an error.
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(r#""ANTHROPIC_BASE_URL":"https://localhost:4000""#), "{answer}");
}

#[test]
fn requests_that_come_together_are_all_answered() {
    let upstream = Upstream::start();
    let server = start(&upstream, &[]);
    let mut client = connect(&server);
    // More than one read takes, in one record.
    let one = format!("GET /api/hello HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(3000));
    client.write_all(one.repeat(5).as_bytes()).unwrap();
    for _ in 0..5 {
        let answer = read_until(&mut client, r#"{"name":"sparkgap"}"#);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[test]
fn a_request_that_comes_with_the_end_of_the_handshake_is_answered() {
    let upstream = Upstream::start();
    let server = start(&upstream, &[]);
    let mut client = connect(&server);
    let (tls, socket) = (&mut client.conn, &mut client.sock);
    // Until the server's part is here, nothing but the handshake can be sent.
    while tls.wants_write() {
        tls.write_tls(socket).unwrap();
    }
    while tls.is_handshaking() {
        tls.read_tls(socket).unwrap();
        tls.process_new_packets().unwrap();
    }
    tls.writer().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut together = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut together).unwrap();
    }
    socket.write_all(&together).unwrap();
    assert!(read_until(&mut client, "}").starts_with("HTTP/1.1 200 "));
}

#[test]
fn large_bodies_come_and_go() {
    let upstream = Upstream::start();
    let server = start(&upstream, &[]);
    let long = "y".repeat(3_000_000);
    let mut body = hello();
    body["messages"][0]["content"] = long.clone().into();
    body["stream"] = true.into();
    let said = long.clone();
    upstream.next(move |call| {
        call.stream_head();
        call.chunk(&delta(serde_json::json!({"content": said.get(..20_000).unwrap()})));
        call.chunk(&super::upstream::finish("stop"));
        call.done()
    });
    let mut client = connect(&server);
    client.write_all(&post(body.to_string().as_bytes())).unwrap();
    let answer = read_until(&mut client, "0\r\n\r\n");
    assert!(answer.contains("message_stop") && answer.matches('y').count() >= 20_000, "{}", answer.len());
    let sent = upstream.only_seen().body.to_string();
    assert!(sent.contains(&long));
}

#[test]
fn a_client_that_leaves_ends_its_request() {
    let upstream = Upstream::start();
    let server = start(&upstream, &[]);
    let (begun, has_begun) = channel();
    let (ended, has_ended) = channel();
    upstream.next(move |call| {
        begun.send(()).unwrap();
        call.wait_for_close();
        ended.send(()).unwrap();
        Then::Close
    });
    let mut client = connect(&server);
    client.write_all(&post(hello_stream().to_string().as_bytes())).unwrap();
    client.flush().unwrap();
    has_begun.recv_timeout(HANG).unwrap();
    drop(client);
    has_ended.recv_timeout(HANG).unwrap();
    server.wait_for("the client has left");
}

#[test]
fn plain_http_is_told_what_to_use() {
    let upstream = Upstream::start();
    let server = start(&upstream, &[]);
    for request in ["GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", "\r\n", "x"] {
        let mut plain = socket(server.address);
        plain.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        plain.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("this port speaks HTTPS: use https:// instead of http://"), "{answer}");
    }
    // The other mistake was always told so.
    let plain = Server::start(&upstream);
    let mut tls = socket(plain.address);
    tls.write_all(&[0x16, 3, 1, 0, 5]).unwrap();
    assert!(read_until(&mut tls, "}").contains("this port speaks plain HTTP"));
}

#[test]
fn a_handshake_that_does_not_come_is_ended() {
    let upstream = Upstream::start();
    let server = start(&upstream, &["--head-timeout", "1"]);
    for sent in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0, 1, 0], b"\x16not TLS at all, whatever it begins with"]
    {
        let mut client = socket(server.address);
        client.write_all(sent).unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
        // At most an alert of TLS.
        assert!(rest.len() <= 7, "{rest:?}");
    }
    // Half a request within TLS has the same limit.
    let mut client = connect(&server);
    client.write_all(b"GET /health HT").unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.starts_with("HTTP/1.1 408 "), "{rest}");
    // Half a record as well, though its bytes never become any of a request.
    let mut client = connect(&server);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    read_until(&mut client, "}");
    client.sock.write_all(&[0x17, 3, 3, 0, 100, 1, 2, 3]).unwrap();
    let mut rest = Vec::new();
    let _ = client.sock.read_to_end(&mut rest);
    let mut other = connect(&server);
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    read_until(&mut other, "}");
}

#[test]
fn the_certificate_is_loaded_again_at_sighup() {
    let upstream = Upstream::start();
    let (certificate, key) = copies("reload");
    let files = [certificate.to_str().unwrap(), key.to_str().unwrap()];
    let server = Server::start_with(&upstream, &["--tls-cert", files[0], "--tls-key", files[1]]);
    let works = || {
        let mut client = connect(&server);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        read_until(&mut client, "}");
    };
    let mut open = connect(&server);
    open.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    read_until(&mut open, "}");
    // A broken file changes nothing.
    std::fs::write(&certificate, "").unwrap();
    server.hang_up();
    let line = server.wait_for("reload failed");
    assert!(line.contains("no PEM certificate"), "{line}");
    works();
    // The new certificate is one that this client does not trust.
    std::fs::copy(file("other.pem"), &certificate).unwrap();
    std::fs::copy(file("other.key"), &key).unwrap();
    server.hang_up();
    server.wait_for("hooks loaded");
    let mut client = connect(&server);
    let refused = client.write_all(b"GET / HTTP/1.1\r\n\r\n").and_then(|()| client.read(&mut [0]));
    assert!(refused.unwrap_err().to_string().contains("certificate"));
    // A connection that was open goes on.
    open.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    read_until(&mut open, "}");
}

#[test]
fn mistakes_are_named_at_the_start_and_by_check() {
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let upstream = ["--upstream", "http://127.0.0.1:1/v1"];
    for (options, expected) in [
        (vec!["--tls-cert", &certificate], "belong together: give both"),
        (vec!["--tls-key", &key], "belong together: give both"),
        (vec!["--tls-cert", &key, "--tls-key", &certificate], "are the two files swapped?"),
        (vec!["--tls-cert", "/no/such", "--tls-key", &key], "--tls-cert /no/such: No such file"),
    ] {
        for command in ["serve", "check"] {
            let listen: &[&str] = if command == "serve" { &["--listen", "127.0.0.1:0"] } else { &[] };
            let (code, _, stderr) = output(&[&[command], &upstream[..], listen, &options].concat());
            assert!(code != Some(0) && stderr.contains(expected), "{command} {options:?}: {stderr}");
        }
    }
    let whole = ["check", "--tls-cert", &certificate, "--tls-key", &key];
    let (code, _, stderr) = output(&[&whole[..], &upstream].concat());
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn commands_ask_a_server_with_a_private_certificate() {
    let upstream = Upstream::start();
    let server = start(&upstream, &[]);
    let url = format!("https://{}", server.address);
    let (ca, other) = (file("ca.pem"), file("other.pem"));
    let trusting = [("SPARKGAP_CA_FILE", ca.as_str())];
    assert_eq!(output_in(&["health", &url], &trusting), (Some(0), "healthy\n".into(), String::new()));
    let (code, lines, stderr) = output_in(&["env", "--remote", &url], &trusting);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(lines.contains(&format!("export ANTHROPIC_BASE_URL='{url}';")), "{lines}");
    for ca_file in ["", &other, "/no/such"] {
        let (code, _, stderr) = output_in(&["health", &url], &[("SPARKGAP_CA_FILE", ca_file)]);
        assert!(code == Some(1) && !stderr.is_empty(), "{ca_file}: {stderr}");
    }
    let (code, _, stderr) = output(&["env", "--remote", &url]);
    assert!(code == Some(1) && stderr.contains("SPARKGAP_CA_FILE=FILE"), "{stderr}");
}
