//! Conversations over real loopback sockets. Nothing sleeps: each wait is for a byte, an end or a channel.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;
use crate::error::{Error, Kind};
use crate::http::{LateRefusal, Request, RequestFailure, RequestLimits};
use crate::json;

/// Ends a test that would hang because of a fault; no working test comes near it.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The time limit in tests that reach a limit on purpose.
const SHORT: Duration = Duration::from_millis(50);

const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

type Held<'a> = &'a super::Client;

/// A server that is stopped, and waited for, at the end of its test.
struct TestServer {
    address: SocketAddr,
    stop: StopHandle,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl TestServer {
    fn start(options: ServerLimits, handler: impl Handler) -> TestServer {
        TestServer::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), options, handler)
    }

    fn start_on(listener: TcpListener, options: ServerLimits, handler: impl Handler) -> TestServer {
        let address = listener.local_addr().unwrap();
        let stop = StopHandle::new().unwrap();
        let its_stop = stop.clone();
        let thread = std::thread::spawn(move || {
            run(listener, Arc::new(handler), options, its_stop, &Heartbeat::new(None))
        });
        TestServer { address, stop, thread: Some(thread) }
    }

    fn connect(&self) -> TestClient {
        TestClient::connect(self.address)
    }

    /// Waits for `run` to return.
    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.trigger();
        self.stop.trigger();
        if !std::thread::panicking() {
            self.join();
        }
    }
}

struct TestClient(BufReader<TcpStream>);

#[derive(Debug)]
struct TestAnswer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl TestAnswer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl TestClient {
    fn connect(address: SocketAddr) -> TestClient {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TEST_TIMEOUT)).unwrap();
        TestClient(BufReader::new(stream))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// One whole answer with a content-length.
    fn receive(&mut self) -> TestAnswer {
        let status = self.line().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut answer = TestAnswer { status, headers, body: String::new() };
        let length: u64 = answer.header("content-length").unwrap().parse().unwrap();
        (&mut self.0).take(length).read_to_string(&mut answer.body).unwrap();
        answer
    }

    fn ask(&mut self, bytes: &[u8]) -> TestAnswer {
        self.send(bytes);
        self.receive()
    }

    /// Everything until the server closes.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).unwrap();
        rest
    }
}

/// The error type, message and request id of the error's body; the id must be the same as in the header.
fn envelope(answer: &TestAnswer) -> (String, String) {
    let mut bytes = answer.body.clone().into_bytes();
    let body = json::parse(&mut bytes).unwrap();
    let text = |value: Option<&json::Value<'_>>| value.and_then(json::Value::as_str).unwrap().to_owned();
    assert_eq!(text(body.get("type")), "error");
    let request_id = text(body.get("request_id"));
    assert!(request_id.starts_with("req_"));
    assert_eq!(answer.header("request-id"), Some(request_id.as_str()));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let error = body.get("error").unwrap();
    (text(error.get("type")), text(error.get("message")))
}

/// Responds with the request's path and body.
fn echo(connection: Held<'_>, request: Request, _: SocketAddr) -> io::Result<()> {
    let mut body = request.path.into_bytes();
    let read = connection.borrow_mut().read_body(&mut body);
    match read {
        Ok(()) => connection.borrow_mut().respond(200, &[], &body),
        Err(RequestFailure::Reject(error)) => connection.borrow_mut().respond_error(&error, "req_body"),
        Err(failure) => Err(failure.into()),
    }
}

/// A handler that reports each request, and responds when the test says so.
fn gated() -> (impl Handler, Receiver<()>, SyncSender<()>) {
    let (entered, has_entered) = sync_channel(8);
    let (go, may_go) = sync_channel::<()>(8);
    let may_go = Mutex::new(may_go);
    let handler = move |connection: Held<'_>, _: Request, _: SocketAddr| {
        entered.send(()).unwrap();
        let _ = may_go.lock().unwrap().recv();
        connection.borrow_mut().respond(200, &[], b"late")
    };
    (handler, has_entered, go)
}

#[test]
fn many_clients_ask_many_times_each() {
    let server = TestServer::start(ServerLimits::default(), echo);
    std::thread::scope(|scope| {
        for name in 0..20 {
            let mut client = server.connect();
            scope.spawn(move || {
                for i in 0..20 {
                    let body = format!("{name}.{i}");
                    let request = format!("POST /p HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    let answer = client.ask(request.as_bytes());
                    assert_eq!((answer.status, answer.body), (200, format!("/p{body}")));
                }
            });
        }
    });
}

#[test]
fn a_bad_request_is_answered_in_the_envelope() {
    let server = TestServer::start(ServerLimits::default(), echo);
    let mut client = server.connect();
    let answer = client.ask(b"POST / HTTP/1.1\r\n\r\n");
    assert_eq!((answer.status, answer.header("connection")), (411, Some("close")));
    let (kind, message) = envelope(&answer);
    assert_eq!(
        (kind.as_str(), message.as_str()),
        ("invalid_request_error", "POST needs a content-length header")
    );
    assert_eq!(client.rest(), "");
}

/// Like [`gated`], but only for requests for `/hold`; the others get an answer at once.
fn half_gated() -> (impl Handler, Receiver<()>, SyncSender<()>) {
    let (gated, has_entered, go) = gated();
    let handler =
        move |connection: Held<'_>, request: Request, client: SocketAddr| match request.path.as_str() {
            "/hold" => gated.handle(connection, request, client),
            _ => connection.borrow_mut().respond(200, &[], b""),
        };
    (handler, has_entered, go)
}

const HOLD: &[u8] = b"GET /hold HTTP/1.1\r\n\r\n";

#[test]
fn clients_beyond_the_limit_get_a_retry_after() {
    let options = ServerLimits { connections_max: 1, ..ServerLimits::default() };
    let (handler, has_entered, go) = half_gated();
    let server = TestServer::start(options, handler);
    let mut first = server.connect();
    first.send(HOLD);
    has_entered.recv_timeout(TEST_TIMEOUT).unwrap();
    for _ in 0..100 {
        let mut second = server.connect();
        let answer = second.ask(GET);
        assert_eq!((answer.status, answer.header("retry-after")), (529, Some("1")));
        assert_eq!(envelope(&answer), ("overloaded_error".to_owned(), "too many connections".to_owned()));
        assert_eq!(second.rest(), "");
    }
    go.send(()).unwrap();
    assert_eq!(first.receive().status, 200, "the first one is still served");
    drop(first);
    // The first client's thread has to notice its end before a place is free.
    while server.connect().ask(GET).status != 200 {}
}

#[test]
fn idle_connections_make_room_for_new_ones() {
    let options = ServerLimits { connections_max: 2, ..ServerLimits::default() };
    let (handler, has_entered, go) = half_gated();
    let server = TestServer::start(options, handler);
    let mut busy = server.connect();
    busy.send(HOLD);
    has_entered.recv_timeout(TEST_TIMEOUT).unwrap();
    let mut idle = server.connect();
    for _ in 0..20 {
        let mut next = server.connect();
        assert_eq!(next.ask(GET).status, 200);
        assert_eq!(idle.rest(), "", "it was closed");
        // The thread of `next` waits for another request some time after its answer has arrived.
        idle = next;
        while server.stop.busy() > 1 {
            std::thread::yield_now();
        }
    }
    go.send(()).unwrap();
    assert_eq!(busy.receive().status, 200);
}

/// A handler whose answers to `/guess` wait for so long.
fn late(delay: Duration) -> impl Handler {
    move |connection: Held<'_>, request: Request, _: SocketAddr| match request.path.as_str() {
        "/guess" => {
            // A key that was valid before does not keep the place.
            connection.borrow_mut().set_known();
            let (error, request_id) = (Error::new(Kind::Authentication, "no"), "req_late".to_owned());
            connection.borrow_mut().refuse_later(LateRefusal { delay, error, request_id });
            Ok(())
        }
        _ => connection.borrow_mut().respond(200, &[], b""),
    }
}

#[test]
fn a_connection_whose_refusal_waits_makes_room_for_a_new_one() {
    let options = ServerLimits { connections_max: 1, ..ServerLimits::default() };
    let mut server = TestServer::start(options, late(10 * TEST_TIMEOUT));
    for _ in 0..10 {
        // The thread of the last connection keeps the only place for some time after its answer has arrived.
        while server.stop.busy() > 0 {
            std::thread::yield_now();
        }
        let mut guesser = server.connect();
        guesser.send(&b"GET /guess HTTP/1.1\r\n\r\n".repeat(40));
        // Its thread has to come as far as the wait; a new connection is refused until then.
        while server.connect().ask(GET).status != 200 {}
        let mut rest = Vec::new();
        // It is closed or reset, since it has sent bytes that nobody reads.
        let _ = guesser.0.read_to_end(&mut rest);
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
    // The stop does not wait for the delay either.
    let mut guesser = server.connect();
    guesser.send(b"GET /guess HTTP/1.1\r\n\r\n");
    server.stop.trigger();
    server.join();
}

#[test]
fn a_late_refusal_is_the_last_response() {
    let server = TestServer::start(ServerLimits::default(), late(SHORT));
    let mut guesser = server.connect();
    let answer = guesser.ask(&b"GET /guess HTTP/1.1\r\n\r\n".repeat(3));
    assert_eq!((answer.status, answer.header("connection")), (401, Some("close")));
    assert_eq!(answer.header("request-id"), Some("req_late"));
    assert_eq!(guesser.rest(), "");
}

#[test]
fn requests_that_are_not_admitted_do_not_keep_a_connection() {
    let options = ServerLimits { keep_alive: SHORT, ..ServerLimits::default() };
    let server = TestServer::start(options, |connection: Held<'_>, _: Request, _: SocketAddr| {
        connection.borrow_mut().respond(200, &[], b"")
    });
    let mut client = server.connect();
    // On a busy machine the connection may be idle for the limit; then it is closed without an answer.
    while client.0.get_mut().write_all(GET).is_ok()
        && client.0.fill_buf().is_ok_and(|bytes| !bytes.is_empty())
    {
        if client.receive().header("connection") == Some("close") {
            break;
        }
    }
}

#[test]
fn a_panic_is_answered_with_a_500_and_ends_one_connection_only() {
    let server =
        TestServer::start(ServerLimits::default(), |connection: Held<'_>, request: Request, client| {
            match request.path.as_str() {
                "/early" => panic!("on purpose"),
                "/late" => {
                    connection.borrow_mut().start_stream(200, &[])?;
                    connection.borrow_mut().write(b"begun")?;
                    panic!("on purpose: {}", request.path)
                }
                _ => echo(connection, request, client),
            }
        });
    let mut other = server.connect();
    assert_eq!(other.ask(GET).status, 200);
    let mut client = server.connect();
    let answer = client.ask(b"GET /early HTTP/1.1\r\n\r\n");
    assert_eq!((answer.status, answer.header("connection")), (500, Some("close")));
    assert_eq!(envelope(&answer), ("api_error".to_owned(), "Internal server error".to_owned()));
    assert_eq!(client.rest(), "");
    let mut client = server.connect();
    client.send(b"GET /late HTTP/1.1\r\n\r\n");
    let rest = client.rest();
    assert!(rest.ends_with("\r\n\r\n5\r\nbegun\r\n"), "no last chunk: {rest}");
    assert_eq!(other.ask(GET).status, 200);
}

#[test]
fn a_missing_response_becomes_a_500() {
    let server =
        TestServer::start(ServerLimits::default(), |connection: Held<'_>, request: Request, _| match request
            .path
            .as_str()
        {
            "/silent" => Ok(()),
            "/bad-header" => connection.borrow_mut().respond(200, &[("a", "b\r\nc")], b""),
            "/prepared" => connection.borrow_mut().start_stream(200, &[]),
            "/unfinished" => {
                connection.borrow_mut().start_stream(200, &[])?;
                connection.borrow_mut().write(b"begun")
            }
            _ => {
                connection.borrow_mut().start_stream(200, &[])?;
                connection.borrow_mut().write(b"begun")?;
                Err(io::Error::other("on purpose"))
            }
        });
    for path in ["/silent", "/bad-header", "/prepared"] {
        let answer = server.connect().ask(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
        assert_eq!((answer.status, envelope(&answer).0.as_str()), (500, "api_error"), "{path}");
    }
    for path in ["/unfinished", "/failed"] {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
        let rest = client.rest();
        assert!(rest.ends_with("\r\n\r\n5\r\nbegun\r\n"), "{path}: {rest}");
    }
}

#[test]
fn a_head_that_comes_too_slowly_is_refused() {
    let server = TestServer::start(ServerLimits { head_timeout: SHORT, ..ServerLimits::default() }, echo);
    let client = server.connect();
    // The client sends a byte now and then: the wait for an answer is the pause between two of them.
    client.0.get_ref().set_read_timeout(Some(SHORT / 10)).unwrap();
    let mut stream = client.0.get_ref();
    let mut answer = Vec::new();
    let mut sent = 0;
    while answer.is_empty() && sent < 10_000 {
        let byte = GET.get(sent).unwrap_or(&b'x');
        let _ = stream.write_all(&[if *byte == b'\r' || *byte == b'\n' { b'x' } else { *byte }]);
        sent += 1;
        let mut buffer = [0; 1024];
        if let Ok(count) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..count]);
        }
    }
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_body_that_does_not_come_is_a_408() {
    let server = TestServer::start(ServerLimits { body_timeout: SHORT, ..ServerLimits::default() }, echo);
    let mut client = server.connect();
    let answer = client.ask(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe");
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    assert!(answer.body.contains("timeout_error"), "{}", answer.body);
}

#[test]
fn an_idle_connection_is_closed_without_a_response() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TestClient::connect(listener.local_addr().unwrap());
    // The request is sent before the server starts, so it cannot come too late.
    client.send(GET);
    let server =
        TestServer::start_on(listener, ServerLimits { keep_alive: SHORT, ..ServerLimits::default() }, echo);
    assert_eq!(client.receive().status, 200);
    assert_eq!(client.rest(), "");
    assert_eq!(server.connect().rest(), "");
}

#[test]
fn a_client_that_does_not_read_is_dropped() {
    let (ended, has_ended) = sync_channel(1);
    let server = TestServer::start(
        ServerLimits { write_timeout: SHORT, ..ServerLimits::default() },
        move |connection: Held<'_>, _: Request, _| {
            connection.borrow_mut().start_stream(200, &[])?;
            let data = vec![b'x'; 1024 * 1024];
            let error = loop {
                if let Err(error) = connection.borrow_mut().write(&data) {
                    break error;
                }
            };
            ended.send(error.kind()).unwrap();
            Err(error)
        },
    );
    let mut client = server.connect();
    client.send(GET);
    assert_eq!(has_ended.recv_timeout(TEST_TIMEOUT).unwrap(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_refused_body_does_not_cost_the_client_its_answer() {
    let limits = RequestLimits { body_size_max: 1_000_000, ..RequestLimits::default() };
    let server = TestServer::start(ServerLimits { limits, ..ServerLimits::default() }, echo);
    let client = server.connect();
    let mut stream = client.0.get_ref();
    stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 12000000\r\n\r\n").unwrap();
    // The body is larger than the sockets' buffers. The answer comes meanwhile; this client reads it only afterwards.
    stream.write_all(&vec![b'x'; 12_000_000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.ends_with('}'), "{answer}");
}

#[test]
fn a_stop_closes_idle_connections_and_the_listener() {
    let mut server =
        TestServer::start(ServerLimits { drain: TEST_TIMEOUT * 10, ..ServerLimits::default() }, echo);
    let mut fresh = server.connect();
    // This one is accepted after the other one.
    let mut used = server.connect();
    assert_eq!(used.ask(GET).status, 200);
    server.stop.trigger();
    assert_eq!((used.rest(), fresh.rest()), (String::new(), String::new()));
    server.join();
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn a_stop_lets_requests_in_progress_finish() {
    let (handler, has_entered, go) = gated();
    let mut server =
        TestServer::start(ServerLimits { drain: TEST_TIMEOUT * 10, ..ServerLimits::default() }, handler);
    let mut client = server.connect();
    client.send(GET);
    has_entered.recv_timeout(TEST_TIMEOUT).unwrap();
    server.stop.trigger();
    go.send(()).unwrap();
    let answer = client.receive();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(client.rest(), "");
    server.join();
}

#[test]
fn a_drain_ends_after_its_time_or_at_the_second_trigger() {
    for (drain, triggers) in [(SHORT, 1), (TEST_TIMEOUT * 10, 2)] {
        let (handler, has_entered, go) = gated();
        let mut server = TestServer::start(ServerLimits { drain, ..ServerLimits::default() }, handler);
        let mut client = server.connect();
        client.send(GET);
        has_entered.recv_timeout(TEST_TIMEOUT).unwrap();
        for _ in 0..triggers {
            server.stop.trigger();
        }
        server.join();
        drop(go);
    }
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let server = TestServer::start(ServerLimits { connections_max: 1, ..ServerLimits::default() }, echo);
    for bytes in [&b""[..], b"GET", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe"] {
        let mut client = server.connect();
        client.send(bytes);
        drop(client);
        while server.connect().ask(GET).status != 200 {}
    }
}
