//! The end of a server, and a reload of its hooks, under load: no answer is cut or mixed up.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::channel;
use std::time::Instant;

use super::HANG;
use super::client::{Client, hello, hello_stream, post};
use super::server::{Server, hooks_file};
use super::upstream::{Gate, Upstream, text_chunks};

/// The next `count` answers repeat their questions: the first word at once, the others when the gate opens.
pub(crate) fn echo(upstream: &Upstream, count: usize) -> Gate {
    let gate = Gate::default();
    for _ in 0..count {
        let gate = gate.clone();
        upstream.next(move |call| {
            let asked = call.asked["messages"][0]["content"].as_str().unwrap().to_owned();
            let chunks = text_chunks(&format!("{asked} {asked} {asked}"));
            let (first, others) = chunks.split_at(2);
            call.stream_head();
            first.iter().for_each(|chunk| call.chunk(chunk));
            gate.wait();
            others.iter().for_each(|chunk| call.chunk(chunk));
            call.done()
        });
    }
    gate
}

/// Clients in the middle of a stream, and the text that they have read.
pub(crate) fn streams(server: &Server, count: usize) -> Vec<(Client, super::client::Answer, String, String)> {
    let begin = |i| {
        let text = format!("stream-{i}");
        let mut body = hello_stream();
        body["messages"][0]["content"] = text.clone().into();
        let mut client = server.connect();
        client.send(&post(body.to_string().as_bytes()));
        let head = client.head();
        let begun = client.read_until(&text);
        (client, head, begun, text)
    };
    (0..count).map(begin).collect()
}

/// Checks that each client gets the rest of its own answer.
pub(crate) fn finish(streams: Vec<(Client, super::client::Answer, String, String)>) {
    for (mut client, mut answer, begun, text) in streams {
        let mut rest = begun;
        while let Some(piece) = client.piece() {
            rest.push_str(&String::from_utf8(piece).unwrap());
        }
        answer.body = rest.into_bytes();
        assert_eq!(answer.whole_events()[0]["text"], format!("{text} {text} {text}"));
    }
}

#[test]
fn a_stop_lets_streams_finish() {
    let upstream = Upstream::start();
    let gate = echo(&upstream, 20);
    let mut server = Server::start(&upstream);
    let mut idle = server.connect();
    idle.ask(b"GET /health HTTP/1.1\r\n\r\n");
    let streams = streams(&server, 20);
    server.signal("TERM");
    assert_eq!(idle.rest(), b"", "an idle connection is closed at once");
    // After a short time nobody listens any more.
    let until = Instant::now() + HANG;
    while TcpStream::connect(server.address).is_ok() {
        assert!(Instant::now() < until, "it still listens");
    }
    gate.open();
    finish(streams);
    assert!(server.ended().success());
    server.wait_for("stopped");
}

/// Checks that each client was told that its answer is cut, and that it may try again.
pub(crate) fn told_of_the_stop(streams: Vec<(Client, super::client::Answer, String, String)>) {
    for (mut client, _, mut text, _) in streams {
        while let Some(piece) = client.piece() {
            text.push_str(&String::from_utf8(piece).unwrap());
        }
        let (_, error) = text.split_once("event: error\n").unwrap();
        assert!(error.contains("overloaded_error") && error.contains("send the request again"), "{text}");
        assert!(!text.contains("message_stop"), "{text}");
    }
}

#[test]
fn the_second_signal_ends_at_once() {
    for signal in ["TERM", "INT"] {
        let upstream = Upstream::start();
        let gate = echo(&upstream, 1);
        let mut server = Server::start(&upstream);
        let streams = streams(&server, 1);
        server.signal(signal);
        server.wait_for("asked to stop");
        server.signal(signal);
        told_of_the_stop(streams);
        assert!(server.ended().success());
        gate.open();
    }
}

#[test]
fn the_end_of_a_drain_is_told_to_every_client() {
    let upstream = Upstream::start();
    let gate = echo(&upstream, 2);
    let mut server = Server::start_with(&upstream, &["--drain", "1"]);
    let streams = streams(&server, 1);
    // Nothing of this answer was sent by then, so its client gets a status.
    let mut whole = server.connect();
    whole.send(&post(hello().to_string().as_bytes()));
    server.wait_until(|_| upstream.seen().len() == 2);
    server.signal("TERM");
    told_of_the_stop(streams);
    let answer = whole.receive();
    assert_eq!((answer.status, answer.error().0.as_str()), (529, "overloaded_error"), "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    assert!(server.ended().success());
    server.wait_for("stopped with 2 connections still busy");
    server.wait_for("send the request again");
    gate.open();
}

#[test]
fn with_a_socket_of_the_service_manager_a_restart_loses_nobody() {
    let upstream = Upstream::start();
    let gate = echo(&upstream, 8);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = || {
        let socket = OwnedFd::from(listener.try_clone().unwrap());
        let arguments = ["serve", "--upstream", &upstream.url(), "--listen", "127.0.0.1:1"];
        let server = Server::run_activated(&arguments, socket);
        server.wait_for("--listen 127.0.0.1:1 has no effect");
        server.wait_for("upstream default: ");
        server
    };
    let mut old = start();
    let streams = streams(&old, 8);
    old.signal("TERM");
    old.wait_for("asked to stop");
    // Nobody accepts now; the socket keeps the connections.
    let (answered, answers) = channel();
    for _ in 0..8 {
        let (address, answered) = (old.address, answered.clone());
        std::thread::spawn(move || {
            let status = Client::connect(address).post(&hello()).status;
            answered.send(status).unwrap();
        });
    }
    let new = start();
    for _ in 0..8 {
        assert_eq!(answers.recv_timeout(HANG).unwrap(), 200);
    }
    gate.open();
    finish(streams);
    assert!(old.ended().success());
    new.connect().post(&hello()).message();
}

#[test]
fn a_reload_under_50_streams_touches_none() {
    let upstream = Upstream::start();
    let gate = echo(&upstream, 50);
    let hooks = |model: &str| {
        format!(r#"return {{ api = 1, aliases = {{ {{ "*", upstream = "default", model = "{model}" }} }} }}"#)
    };
    let path = hooks_file("ending-reload", &hooks("first"));
    let server = Server::start_with(&upstream, &["--hooks", &path]);
    let streams = streams(&server, 50);
    let hash = |server: &Server| server.health()["hooks"].as_str().unwrap().to_owned();
    let first = hash(&server);

    fs::write(&path, "return { api = 1, aliases = nonsense( }").unwrap();
    server.hang_up();
    let told = server.wait_for("reload failed; still running the previous configuration");
    assert!(told.contains("ERROR"), "{told}");
    let told = server.wait_for("ending-reload.lua:1");
    assert!(told.contains("unexpected symbol near '}'"), "file, line and reason: {told}");
    assert_eq!(hash(&server), first);
    server.connect().post(&hello()).message();
    assert_eq!(upstream.seen().pop().unwrap().body["model"], "first");

    fs::write(&path, hooks("second")).unwrap();
    server.hang_up();
    server.wait_until(|health| health["hooks"] != first.as_str());
    server.connect().post(&hello()).message();
    assert_eq!(upstream.seen().pop().unwrap().body["model"], "second");
    assert_eq!(server.health()["streams"], 50);

    gate.open();
    finish(streams);
    assert_eq!(server.health()["streams"], 0);
    assert_eq!(server.health()["cancelled"].as_object().unwrap().values().filter(|n| **n != 0).count(), 0);
}

#[test]
fn a_reload_keeps_the_queue() {
    let upstream = Upstream::start();
    let gate = echo(&upstream, 2);
    let lua = format!(
        r#"return {{ api = 1, upstreams = {{ default = {{ url = "{}", max_in_flight = 1 }} }} }}"#,
        upstream.url()
    );
    let path = hooks_file("ending-queue", &lua);
    let server = Server::run(&["serve", "--hooks", &path, "--open-after", "0"], &[]);
    server.wait_for("upstream default: ");
    let begun = streams(&server, 1);
    fs::write(&path, format!("{lua} -- changed")).unwrap();
    let before = server.health()["hooks"].clone();
    server.hang_up();
    server.wait_until(|health| health["hooks"] != before);
    let mut second = server.connect();
    second.send(&post(hello_stream().to_string().as_bytes()));
    second.head();
    second.read_until("event: ping");
    assert_eq!(upstream.seen().len(), 1, "it has one place, and that is taken");
    gate.open();
    finish(begun);
    second.read_until("message_stop");
}
