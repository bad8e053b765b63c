//! The service: whether it is ready, and what it tells its operator without being asked by a client.

use std::time::Instant;

use serde_json::json;

use super::HANG;
use super::client::{Answer, Client, hello, hello_stream, post};
use super::physics::engine::Profile;
use super::physics::server::ModelServer;
use super::server::{Server, hooks_file, output};
use super::upstream::{self, Upstream};

const READY: &[u8] = b"GET /ready HTTP/1.1\r\n\r\n";

/// Asks for `/ready` until it has this status.
fn wait_for_ready(server: &Server, status: u16) -> Answer {
    let until = Instant::now() + HANG;
    loop {
        let answer = server.connect().ask(READY);
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < until, "{}", answer.text());
        std::thread::yield_now();
    }
}

#[test]
fn an_upstream_that_comes_back_is_noticed_without_a_request() {
    let (address, socket) = upstream::closed();
    let server = Server::run(&["serve", "--upstream", &format!("http://{address}/v1")], &[]);
    server.wait_for("upstream default did not answer");
    let answer = wait_for_ready(&server, 503);
    assert_eq!(answer.json()["status"], "no upstream can be reached");
    assert_eq!(answer.json()["upstreams"]["default"], "down");
    assert_eq!(server.health()["status"], "ok", "the server itself is well");
    let _upstream = Upstream::open(socket);
    let answer = wait_for_ready(&server, 200);
    assert_eq!(answer.json()["status"], "ready");
    assert_eq!(answer.json()["upstreams"]["default"], "up");
    server.wait_for("upstream default: ");
}

#[test]
fn boxes_that_answer_no_request_are_not_ready_though_they_list_their_models() {
    let boxes = [(); 2].map(|()| ModelServer::start(Profile::spark(), 500.0));
    let [one, two] = [0, 1].map(|at: usize| boxes[at].url());
    let server = Server::run(&["serve", "--upstream", &one, "--upstream", &two, "--hang-after", "2"], &[]);
    wait_for_ready(&server, 200);
    boxes.iter().for_each(|one| one.set_speed(0.0));
    let mut clients: Vec<Client> = (0..6)
        .map(|at| {
            let mut body = hello_stream();
            body["messages"][0]["content"] = format!("Read module {at}. {}", "word ".repeat(400)).into();
            let mut client = server.connect();
            client.send(&post(body.to_string().as_bytes()));
            client
        })
        .collect();
    let answer = wait_for_ready(&server, 503);
    assert_eq!(answer.json()["upstreams"], json!({"default": "out", "upstream2": "out"}));
    boxes.iter().for_each(|one| one.set_speed(1.0));
    // The engines work again, so their trials are due.
    wait_for_ready(&server, 200);
    for client in &mut clients {
        assert_eq!(client.head().status, 200);
        client.read_until("message_stop");
    }
}

#[test]
fn an_upstream_without_a_listing_is_ready() {
    let upstream = Upstream::start();
    upstream.set_page("/v1/models", 404, "{}");
    let server = Server::run(&["serve", "--upstream", &upstream.url()], &[]);
    wait_for_ready(&server, 200);
}

#[test]
fn a_server_that_stops_is_not_ready() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    // The head of the question is not complete, so the stop leaves this connection open.
    let mut client = server.connect();
    let (begun, rest) = READY.split_at(READY.len() - 2);
    client.send(begun);
    // A thread accepts one connection after the other, so the first one has its thread now.
    assert_eq!(server.connect().ask(READY).status, 200);
    server.signal("TERM");
    server.wait_for("asked to stop");
    client.send(rest);
    let answer = client.receive();
    assert_eq!((answer.status, answer.json()["status"].as_str()), (503, Some("draining")));
}

#[test]
fn probes_are_no_requests_and_failures_are_warnings() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    for probe in ["/health", "/ready", "/"] {
        let request = format!("GET {probe} HTTP/1.1\r\n\r\n");
        assert_eq!(server.connect().ask(request.as_bytes()).status, 200);
    }
    assert_eq!(server.health()["requests"], 0);
    server.connect().post(&hello()).message();
    assert_eq!(server.connect().ask(b"GET /nowhere HTTP/1.1\r\n\r\n").status, 404);
    assert_eq!(server.health()["requests"], 2);
    assert!(server.wait_for(" 200 end_turn ").contains(" INFO "));
    upstream.next_answer(500, r#"{"error": {"message": "out of order"}}"#);
    assert_eq!(server.connect().post(&hello()).status, 500);
    assert!(server.wait_for("out of order").contains(" WARN "));
    // A client that leaves is not a failure.
    let gate = upstream::Gate::default();
    let held = gate.clone();
    upstream.next(move |call| {
        held.wait();
        call.done()
    });
    let mut client = server.connect();
    client.send(&post(hello_stream().to_string().as_bytes()));
    server.wait_until(|_| upstream.seen().len() == 3);
    drop(client);
    assert!(server.wait_for("the client has left").contains(" INFO "));
    gate.open();
}

#[test]
fn a_configuration_with_a_mistake_has_an_exit_status_of_its_own() {
    let broken = hooks_file("service-broken", "return { api = 1, on_request = 7 }");
    let (address, socket) = upstream::closed();
    rustix::net::listen(&socket, 1).unwrap();
    for (arguments, status, told) in [
        (&["--hooks", &broken][..], 78, "service-broken.lua"),
        (&["--upstream", "127.0.0.1:8000"], 78, "--upstream"),
        (&["--upstream", "http://127.0.0.1:9/v1", "--ca-file", "/nowhere"], 78, "--ca-file"),
        (&["--upstream", "http://127.0.0.1:9/v1", "--api-key-file", "/nowhere"], 78, "/nowhere"),
        (&["--upstreams", "x"], 64, "--upstreams"),
        (&["--drain", "soon"], 64, "soon"),
    ] {
        let listen = ["--listen", "127.0.0.1:0"];
        let (code, _, stderr) = output(&[&["serve"], arguments, &listen].concat());
        assert_eq!(code, Some(status), "{arguments:?} {stderr}");
        assert!(stderr.contains(told), "{stderr}");
    }
    // A port in use may be free at the next start.
    let port = address.to_string();
    let (code, _, stderr) = output(&["serve", "--upstream", "http://127.0.0.1:9/v1", "--listen", &port]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cannot listen on"), "{stderr}");
}

#[test]
fn reasons_for_a_failed_start_are_errors_of_the_journal() {
    use std::os::unix::fs::MetadataExt as _;
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("service-journal");
    let journal = std::fs::File::create(&path).unwrap();
    let found = journal.metadata().unwrap();
    let broken = hooks_file("service-journal", "return { api = 1, on_request = 7 }");
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_sparkgap"))
        .args(["serve", "--hooks", &broken, "--listen", "127.0.0.1:0"])
        .env_clear()
        .env("JOURNAL_STREAM", format!("{}:{}", found.dev(), found.ino()))
        .stderr(journal)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(78));
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.lines().count() > 1 && text.lines().all(|line| line.starts_with("<3>")), "{text}");
}

#[test]
fn a_signal_changes_the_level_of_the_log() {
    let upstream = Upstream::start();
    let server = Server::start(&upstream);
    server.signal("USR1");
    server.wait_for("log level: DEBUG");
    server.signal("USR1");
    server.wait_for("log level: TRACE");
    server.connect().post(&hello()).message();
    server.wait_for("from the client: ");
    server.signal("USR1");
    server.wait_for("log level: INFO");
    server.connect().post(&hello()).message();
    let log = server.terminate_and_log();
    assert_eq!(log.matches("from the client: ").count(), 1, "{log}");
}
