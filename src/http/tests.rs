//! Scripted conversations over streams in memory. Each is fed whole, in pieces of several small sizes, and with other
//! bytes after it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;

use super::*;
use crate::error::Error;
use crate::error::Kind;

const POST: &str = "POST /v1/messages?beta=true HTTP/1.1\r\nHost: a\r\n";

/// The result of a read after the end of the script.
#[derive(Clone, Copy)]
enum ClientEnd {
    Eof,
    Error(io::ErrorKind),
}

/// A client that sends its script in pieces and notes every write.
struct Script {
    pieces: VecDeque<Vec<u8>>,
    end: ClientEnd,
    writes: Vec<Vec<u8>>,
    write_size_max: usize,
    reads: usize,
}

impl Script {
    fn new(bytes: &[u8], piece_size: usize) -> Self {
        Script {
            pieces: bytes.chunks(piece_size).map(<[u8]>::to_vec).collect(),
            end: ClientEnd::Eof,
            writes: Vec::new(),
            write_size_max: usize::MAX,
            reads: 0,
        }
    }

    fn written(&self) -> String {
        String::from_utf8(self.writes.concat()).unwrap()
    }
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        let Some(mut piece) = self.pieces.pop_front() else {
            return match self.end {
                ClientEnd::Eof => Ok(0),
                ClientEnd::Error(kind) => Err(kind.into()),
            };
        };
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        let rest = piece.split_off(count);
        if !rest.is_empty() {
            self.pieces.push_front(rest);
        }
        Ok(count)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.write_size_max == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(self.write_size_max);
        self.writes.push(bytes[..count].to_vec());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connect(bytes: impl AsRef<[u8]>) -> Connection<Script> {
    Connection::new(Script::new(bytes.as_ref(), usize::MAX), RequestLimits::default())
}

/// The same bytes whole, and cut into pieces of several sizes.
fn feeds(bytes: &[u8]) -> impl Iterator<Item = Connection<Script>> {
    [usize::MAX, 1, 2, 3, 7, 64]
        .into_iter()
        .map(|size| Connection::new(Script::new(bytes, size), RequestLimits::default()))
}

fn body<S: Read + Write>(connection: &mut Connection<S>) -> Result<String, RequestFailure> {
    let mut body = Vec::new();
    connection.read_body(&mut body).map(|()| String::from_utf8_lossy(&body).into_owned())
}

fn rejected<T: std::fmt::Debug>(result: Result<T, RequestFailure>) -> Kind {
    match result {
        Err(RequestFailure::Reject(error)) => error.kind,
        other => panic!("not rejected: {other:?}"),
    }
}

#[test]
fn a_request_is_read_however_it_is_cut() {
    let bytes = format!("{POST}X-Api-Key: k\r\nContent-Length: 5\r\n\r\nhello");
    for mut connection in feeds(bytes.as_bytes()) {
        let request = connection.read_head().unwrap().unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/messages"));
        assert_eq!(request.query.as_deref(), Some("beta=true"));
        assert_eq!(request.header("x-API-key"), Some("k"));
        assert_eq!(request.header("missing"), None);
        assert_eq!(body(&mut connection).unwrap(), "hello");
        connection.respond(200, &[], b"").unwrap();
        assert!(!connection.must_close() && !connection.has_unread());
        assert!(connection.read_head().unwrap().is_none());
    }
}

#[test]
fn a_chunked_body_is_decoded_however_it_is_cut() {
    let bytes = format!(
        "{POST}Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    );
    for mut connection in feeds(bytes.as_bytes()) {
        connection.read_head().unwrap().unwrap();
        let mut buffer = b"before ".to_vec();
        connection.read_body(&mut buffer).unwrap();
        assert_eq!(buffer, b"before hello world");
        assert_eq!(body(&mut connection).unwrap(), "", "a second time there is nothing");
        connection.respond(200, &[], b"").unwrap();
        assert_eq!(connection.read_head().unwrap().unwrap().method, "GET");
    }
}

#[test]
fn pipelined_requests_are_read_one_after_the_other() {
    let bytes = format!(
        "{POST}Content-Length: 2\r\n\r\nhi\r\n{POST}Content-Length: 0\r\n\r\nGET /b HTTP/1.1\r\n\r\n"
    );
    for mut connection in feeds(bytes.as_bytes()) {
        for (path, text) in [("/v1/messages", "hi"), ("/v1/messages", ""), ("/b", "")] {
            assert_eq!(connection.read_head().unwrap().unwrap().path, path);
            assert_eq!(body(&mut connection).unwrap(), text);
            connection.respond(200, &[], b"").unwrap();
            assert!(!connection.must_close());
        }
        assert!(connection.read_head().unwrap().is_none());
    }
}

#[test]
fn a_body_larger_than_any_buffer_arrives_whole() {
    let text = "0123456789".repeat(300_000);
    for size in [usize::MAX, 1000] {
        let bytes = format!("{POST}Content-Length: {}\r\n\r\n{text}", text.len());
        let mut connection = Connection::new(Script::new(bytes.as_bytes(), size), RequestLimits::default());
        connection.read_head().unwrap().unwrap();
        assert_eq!(body(&mut connection).unwrap(), text);
        let bytes =
            format!("{POST}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n", text.len());
        let mut connection = Connection::new(Script::new(bytes.as_bytes(), size), RequestLimits::default());
        connection.read_head().unwrap().unwrap();
        assert_eq!(body(&mut connection).unwrap(), text);
    }
}

#[test]
fn unknown_methods_and_bodies_of_get_are_accepted() {
    let mut connection = connect("BREW /pot HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
    let request = connection.read_head().unwrap().unwrap();
    assert_eq!(request.method, "BREW");
    connection.respond(405, &[], b"").unwrap();
    connection.read_head().unwrap().unwrap();
    assert_eq!(body(&mut connection).unwrap(), "abc");
}

#[test]
fn a_hundred_and_twenty_eight_headers_are_accepted() {
    let headers = |count: usize| (0..count).map(|i| format!("x-{i}: {i}\r\n")).collect::<String>();
    let mut connection = connect(format!("GET / HTTP/1.1\r\n{}\r\n", headers(128)));
    assert_eq!(connection.read_head().unwrap().unwrap().headers.len(), 128);
    let mut connection = connect(format!("GET / HTTP/1.1\r\n{}\r\n", headers(129)));
    assert_eq!(rejected(connection.read_head()), Kind::HeadersTooLarge);
}

#[test]
fn bad_heads_are_rejected_and_answered_with_a_close() {
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    let endless = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(64 * 1024));
    let cases: &[(&str, u16)] = &[
        ("GET\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nname : value\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\na: b\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\na: b\x01c\r\n\r\n", 400),
        ("GET / x HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        ("\x16\x03\x01\x02", 400),
        ("\0GET", 400),
        (&long, 431),
        (&endless, 431),
        ("POST / HTTP/1.1\r\n\r\n", 411),
        ("PUT / HTTP/1.1\r\n\r\n", 411),
        ("PATCH / HTTP/1.0\r\n\r\n", 411),
        ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ];
    for (bytes, status) in cases {
        for mut connection in feeds(bytes.as_bytes()) {
            let kind = rejected(connection.read_head());
            let name: String = bytes.chars().take(80).collect();
            assert_eq!(kind.status(), *status, "{name:?}");
            assert!(connection.must_close() && connection.has_unread() && !connection.response_begun());
            connection.respond_error(&Error::new(kind, "no"), "req_1").unwrap();
            let written = connection.stream().written();
            assert!(written.starts_with(&format!("HTTP/1.1 {status} ")), "{written}");
            assert!(written.contains("\r\nrequest-id: req_1\r\n"), "{written}");
            assert!(written.contains("\r\nconnection: close\r\n"), "{written}");
            assert!(connection.must_close());
            assert!(connection.read_head().unwrap().is_none());
        }
    }
}

#[test]
fn bad_chunks_are_rejected() {
    for bytes in [
        "x\r\n",
        "-1\r\n",
        "fffffffffffffffff\r\n",
        "2\r\nabc\r\n",
        &format!("1;{}\r\na\r\n", "x".repeat(5000)),
        &"1".repeat(10_000),
        &format!("0\r\n{}", "a: b\r\n".repeat(20_000)),
        &format!("0\r\na: {}", "b".repeat(20_000)),
    ] {
        let bytes = format!("{POST}Transfer-Encoding: chunked\r\n\r\n{bytes}");
        for mut connection in feeds(bytes.as_bytes()) {
            connection.read_head().unwrap().unwrap();
            assert_eq!(rejected(body(&mut connection)), Kind::InvalidRequest, "{bytes:.100}");
            connection.respond(400, &[], b"").unwrap();
            assert!(connection.must_close() && connection.has_unread());
        }
    }
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let limits = RequestLimits { body_size_max: 4, ..RequestLimits::default() };
    let head = format!("{POST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let mut connection = Connection::new(Script::new(head.as_bytes(), usize::MAX), limits);
    connection.read_head().unwrap().unwrap();
    assert_eq!(rejected(body(&mut connection)), Kind::RequestTooLarge);
    assert_eq!((connection.stream().reads, connection.stream().written().as_str()), (1, ""));
    connection.respond(413, &[], b"").unwrap();
    assert!(connection.must_close());

    let chunked = format!("{POST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\nff\r\n");
    let mut connection = Connection::new(Script::new(chunked.as_bytes(), 1), limits);
    connection.read_head().unwrap().unwrap();
    assert_eq!(rejected(body(&mut connection)), Kind::RequestTooLarge);
    assert!(!connection.stream().pieces.is_empty(), "refused as soon as it is over");

    // The error is about the size, whatever else is wrong after it and however the bytes are cut.
    for piece_size in [1, 7, usize::MAX] {
        let script = Script::new(chunked.replace("ff", "no").as_bytes(), piece_size);
        let mut connection = Connection::new(script, limits);
        connection.read_head().unwrap().unwrap();
        assert_eq!(rejected(body(&mut connection)), Kind::RequestTooLarge);
    }
}

#[test]
fn a_promised_length_is_not_set_aside_at_once() {
    let mut connection = connect(format!("{POST}Content-Length: 30000000\r\n\r\nabc"));
    connection.read_head().unwrap().unwrap();
    let mut body = Vec::new();
    assert!(matches!(connection.read_body(&mut body), Err(RequestFailure::Closed)));
    assert_eq!(body, b"abc");
    assert!(body.capacity() < 2_000_000, "{}", body.capacity());
}

#[test]
fn a_client_that_leaves_early_needs_no_answer() {
    assert!(connect("").read_head().unwrap().is_none());
    assert!(connect("\r\n\r\n").read_head().unwrap().is_none());
    let whole = format!("{POST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    for size in 1..whole.len() {
        let mut connection = connect(&whole.as_bytes()[..size]);
        let result = connection.read_head().and_then(|_| body(&mut connection));
        assert!(matches!(result, Err(RequestFailure::Closed)), "{size}: {result:?}");
    }
    let whole = format!("{POST}Content-Length: 3\r\n\r\nabc");
    for size in 1..whole.len() {
        let mut connection = connect(&whole.as_bytes()[..size]);
        let result = connection.read_head().and_then(|_| body(&mut connection));
        assert!(matches!(result, Err(RequestFailure::Closed)), "{size}: {result:?}");
    }
}

#[test]
fn a_failed_read_is_judged_by_its_place_in_the_request() {
    let fail = |bytes: &str, kind| {
        let mut connection = connect(bytes);
        connection.stream.end = ClientEnd::Error(kind);
        connection.read_head().and_then(|head| match head {
            Some(_) => body(&mut connection).map(Some),
            None => Ok(None),
        })
    };
    for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut] {
        assert!(fail("", kind).unwrap().is_none());
        assert_eq!(rejected(fail("GET", kind)), Kind::RequestTimeout);
        assert_eq!(rejected(fail(&format!("{POST}Content-Length: 3\r\n\r\na"), kind)), Kind::RequestTimeout);
        assert_eq!(
            rejected(fail(&format!("{POST}Transfer-Encoding: chunked\r\n\r\n"), kind)),
            Kind::RequestTimeout
        );
    }
    assert!(matches!(fail("", io::ErrorKind::ConnectionReset), Err(RequestFailure::Closed)));
    assert!(matches!(fail("GET", io::ErrorKind::ConnectionReset), Err(RequestFailure::Closed)));
    assert!(matches!(fail("GET", io::ErrorKind::Other), Err(RequestFailure::Io(_))));
}

#[test]
fn wait_gets_the_kind_of_bytes_that_are_awaited() {
    let mut connection =
        Connection::new(Script::new(b"\r\nGET / HTTP/1.1\r\n\r\n", 8), RequestLimits::default());
    let mut waits = Vec::new();
    let head = connection.read_head_with(|_, waiting| {
        waits.push(waiting);
        Ok(())
    });
    assert!(head.unwrap().is_some());
    assert_eq!(waits, [Waiting::Idle, Waiting::Head, Waiting::Head]);
    connection.respond(200, &[], b"").unwrap();
    let head = connection.read_head_with(|_, _| Err(io::ErrorKind::TimedOut.into()));
    assert!(head.unwrap().is_none());
}

#[test]
fn continue_is_sent_to_a_client_that_waits_for_it() {
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    let head = format!("{POST}Expect: 100-Continue\r\n");
    for (bytes, piece_size, expected) in [
        (format!("{head}Content-Length: 1\r\n\r\na"), head.len() + 21, CONTINUE),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"), head.len() + 30, CONTINUE),
        (format!("{head}Content-Length: 1\r\n\r\na"), usize::MAX, ""),
        (format!("{head}Content-Length: 0\r\n\r\n"), usize::MAX, ""),
    ] {
        let mut connection =
            Connection::new(Script::new(bytes.as_bytes(), piece_size), RequestLimits::default());
        connection.read_head().unwrap().unwrap();
        body(&mut connection).unwrap();
        assert_eq!(connection.stream().written(), expected, "{bytes:?}");
    }
}

#[test]
fn a_response_is_one_write() {
    let mut connection = connect("GET / HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    connection.read_head().unwrap().unwrap();
    connection.respond(529, &[("a", "b")], b"body").unwrap();
    connection.read_head().unwrap().unwrap();
    connection.respond(200, &[], b"body").unwrap();
    connection.read_head().unwrap().unwrap();
    connection.respond(204, &[], b"").unwrap();
    assert_eq!(
        connection.stream().writes,
        [
            &b"HTTP/1.1 529 Overloaded\r\na: b\r\ncontent-length: 4\r\n\r\nbody"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
        ]
    );
}

#[test]
fn a_stream_is_one_write_per_chunk() {
    let mut connection = connect("GET / HTTP/1.1\r\n\r\n");
    connection.read_head().unwrap().unwrap();
    connection.start_stream(200, &[("a", "b")]).unwrap();
    assert!(connection.stream().writes.is_empty() && !connection.response_begun());
    connection.write(b"data: hello, world\n\n").unwrap();
    connection.write(b"").unwrap();
    assert!(connection.response_begun() && connection.must_close());
    connection.write(b"x").unwrap();
    connection.finish().unwrap();
    assert!(!connection.must_close());
    assert_eq!(
        connection.stream().writes,
        [
            &b"HTTP/1.1 200 OK\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n14\r\ndata: hello, world\n\n\r\n"
                [..],
            b"1\r\nx\r\n",
            b"0\r\n\r\n",
        ]
    );
}

#[test]
fn partial_writes_lose_nothing() {
    let mut connection = connect("GET / HTTP/1.1\r\n\r\n");
    connection.stream.write_size_max = 3;
    connection.read_head().unwrap().unwrap();
    connection.start_stream(200, &[]).unwrap();
    connection.write(b"").unwrap();
    connection.write(b"hello").unwrap();
    connection.finish().unwrap();
    assert_eq!(
        connection.stream().written(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    );
}

#[test]
fn a_failed_write_ends_the_connection() {
    let mut connection = connect("GET / HTTP/1.1\r\n\r\n");
    connection.read_head().unwrap().unwrap();
    connection.start_stream(200, &[]).unwrap();
    connection.write(b"a").unwrap();
    connection.stream.write_size_max = 0;
    assert_eq!(connection.write(b"b").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(connection.must_close() && connection.response_begun());
    assert!(connection.finish().is_err());
    assert!(connection.respond(500, &[], b"").is_err());
}

#[test]
fn http_1_0_gets_no_chunks_and_keeps_the_connection_only_when_asked() {
    let mut connection = connect("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET / HTTP/1.0\r\n\r\n");
    connection.read_head().unwrap().unwrap();
    connection.respond(200, &[], b"").unwrap();
    assert!(!connection.must_close());
    connection.read_head().unwrap().unwrap();
    connection.start_stream(200, &[]).unwrap();
    connection.write(b"raw").unwrap();
    connection.finish().unwrap();
    assert!(connection.must_close());
    assert_eq!(
        connection.stream().written(),
        "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\nconnection: close\r\n\r\nraw"
    );
}

#[test]
fn a_streamed_response_to_head_has_no_body() {
    let mut connection = connect("HEAD / HTTP/1.1\r\n\r\n");
    connection.read_head().unwrap().unwrap();
    connection.start_stream(200, &[]).unwrap();
    connection.write(b"a").unwrap();
    connection.finish().unwrap();
    assert_eq!(connection.stream().written(), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    assert!(!connection.must_close());
}

#[test]
fn an_error_replaces_a_prepared_stream() {
    let mut connection = connect("GET / HTTP/1.1\r\n\r\n");
    connection.read_head().unwrap().unwrap();
    connection.start_stream(200, &[]).unwrap();
    connection.respond(502, &[], b"no").unwrap();
    assert_eq!(connection.stream().written(), "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nno");
}

#[test]
fn the_response_says_that_the_connection_ends() {
    let close = |bytes: &str, prepare: fn(&mut Connection<Script>)| {
        let mut connection = connect(bytes);
        connection.read_head().unwrap().unwrap();
        prepare(&mut connection);
        connection.respond(200, &[], b"").unwrap();
        assert_eq!(
            connection.must_close(),
            connection.stream().written().contains("\r\nconnection: close\r\n")
        );
        connection.must_close()
    };
    let unread = "GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\na";
    assert!(!close("GET / HTTP/1.1\r\n\r\n", |_| {}));
    assert!(close("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", |_| {}));
    assert!(close(unread, |_| {}));
    assert!(!close(unread, |connection| connection.read_body(&mut Vec::new()).unwrap()));
    assert!(close("GET / HTTP/1.1\r\n\r\n", |connection| connection.close_after_response()));
    assert!(close("GET / HTTP/1.1\r\n\r\n", |connection| {
        let end = Arc::new(ServerEnd::default());
        connection.end_with(end.clone());
        end.begin_drain();
    }));
}

#[test]
fn headers_cannot_break_out_of_the_head() {
    for header in [
        ("a", "b\r\nc: d"),
        ("a", "b\nc"),
        ("a\r\nb", "c"),
        ("a b", "c"),
        ("", "c"),
        ("Content-Length", "1"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
    ] {
        let mut connection = connect("GET / HTTP/1.1\r\n\r\n");
        connection.read_head().unwrap().unwrap();
        let error = connection.respond(200, &[header], b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{header:?}");
        assert!(connection.start_stream(200, &[header]).is_err());
        connection.respond(500, &[], b"").unwrap();
    }
}

#[test]
fn responses_out_of_turn_are_errors() {
    let mut connection = connect("GET / HTTP/1.1\r\n\r\n");
    assert!(connection.respond(200, &[], b"").is_err());
    connection.read_head().unwrap().unwrap();
    assert!(connection.write(b"a").is_err());
    assert!(connection.finish().is_err());
    assert!(connection.respond(100, &[], b"").is_err());
    assert!(connection.respond(99, &[], b"").is_err());
    assert!(connection.must_close(), "a request without a response");
    connection.respond(200, &[], b"").unwrap();
    assert!(connection.respond(200, &[], b"").is_err());
    assert_eq!(connection.stream().writes.len(), 1);
}

#[test]
fn an_idle_connection_keeps_no_buffers() {
    let mut connection = connect(format!("{POST}Content-Length: 100000\r\n\r\n{}", "x".repeat(100_000)));
    connection.read_head().unwrap().unwrap();
    body(&mut connection).unwrap();
    connection.respond(200, &[], &[b'y'; 100_000]).unwrap();
    assert!(connection.read_head().unwrap().is_none());
    assert_eq!((connection.buffer.capacity(), connection.output.capacity()), (0, 0));
}

/// A text that describes the result of everything that a client sent.
fn outcome(connection: &mut Connection<Script>) -> String {
    let mut outcome = String::new();
    loop {
        let result = connection.read_head().and_then(|head| match head {
            Some(request) => Ok(Some((request.method, request.path, body(connection)?))),
            None => Ok(None),
        });
        match result {
            Ok(Some(request)) => outcome.push_str(&format!("{request:?} ")),
            Ok(None) => return outcome + "end",
            Err(failure) => return outcome + &failure.to_string(),
        }
        connection.respond(200, &[], b"").unwrap();
    }
}

#[test]
fn damaged_requests_are_read_the_same_however_they_are_cut() {
    let whole = format!(
        "{POST}Content-Length: 2\r\n\r\nhi{POST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\na: b\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    );
    const SPICE: &[u8] = b"\r\n :;,0129afGx\t\0+-";
    let mut random: usize = 1;
    let mut next = |limit: usize| {
        // Knuth's generator gives the same cases in every run.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    for _ in 0..3000 {
        let mut bytes = whole.clone().into_bytes();
        for _ in 0..=next(3) {
            let at = next(bytes.len());
            match next(3) {
                0 => bytes[at] = SPICE[next(SPICE.len())],
                1 => bytes.insert(at, SPICE[next(SPICE.len())]),
                _ => drop(bytes.remove(at)),
            }
        }
        let outcomes: Vec<String> = feeds(&bytes).map(|mut connection| outcome(&mut connection)).collect();
        for other in &outcomes {
            assert_eq!(*other, outcomes[0], "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
