//! Calls to a scripted upstream: reuse, cancellation, time limits, failures.
//!
//! Nothing here sleeps or measures: the scripted side blocks until what it awaits has happened.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of tests fail as tests do")]

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sparkgap::config::{self, Secret};
use sparkgap::error::{Kind, Retry};
use sparkgap::openai::{Flavour, Settings};
use sparkgap::upstream::{Failure, Options, Path, Upstream, Wait};

/// Generous: it only ends a test that hangs.
const HANG: Duration = Duration::from_secs(30);

/// Small, where a limit is to pass.
const SOON: Duration = Duration::from_millis(30);

const CHAT: Path<'_> = Path::Api("/chat/completions");

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\nok";

const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Runs `script` as an upstream in a thread of its own.
fn scripted<T: Send + 'static>(
    script: impl FnOnce(&TcpListener) -> T + Send + 'static,
) -> (String, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    (url, thread::spawn(move || script(&listener)))
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.set_write_timeout(Some(HANG)).unwrap();
    stream
}

/// Whether nobody else has connected. The caller knows that the call is over.
fn nobody_waits(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    matches!(listener.accept(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Reads one request: its head and its body of the told length.
fn read_request(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let head = read_head(stream);
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

fn answer(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

/// Blocks until the other side has closed.
fn wait_for_close(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
}

fn config(url: &str) -> config::Upstream {
    config::Upstream {
        name: "spark".into(),
        url: url.into(),
        api_key: None,
        model: None,
        settings: Settings::default(),
    }
}

fn upstream(url: &str) -> Upstream {
    upstream_with(url, Options::default())
}

fn upstream_with(url: &str, options: Options) -> Upstream {
    Upstream::new(config(url), &options).unwrap()
}

/// A client that stays, or leaves, or counts the silences.
#[derive(Default)]
struct Client {
    /// Our side of its connection.
    socket: Option<TcpStream>,
    /// Its own side.
    far: RefCell<Option<TcpStream>>,
    patience: Option<Duration>,
    silences: Cell<u32>,
    /// What is done in each silence.
    on_silence: Option<OnSilence>,
}

type OnSilence = Box<dyn Fn(&Client) -> io::Result<()>>;

impl Wait for Client {
    fn client(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }
    fn patience(&self) -> Option<Duration> {
        self.patience
    }
    fn on_silence(&self) -> io::Result<()> {
        self.silences.set(self.silences.get() + 1);
        self.on_silence.as_ref().map_or(Ok(()), |act| act(self))
    }
}

fn nobody() -> Rc<dyn Wait> {
    Rc::new(Client::default())
}

/// Our side and the client's side of a connection.
fn client_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, far)
}

/// A client that leaves in the first silence.
fn leaving_client() -> Rc<dyn Wait> {
    let (ours, far) = client_pair();
    Rc::new(Client {
        socket: Some(ours),
        far: RefCell::new(Some(far)),
        patience: Some(Duration::from_millis(5)),
        on_silence: Some(Box::new(|client| {
            client.far.take();
            Ok(())
        })),
        ..Client::default()
    })
}

fn read_all(mut response: impl Read) -> String {
    let mut text = String::new();
    response.read_to_string(&mut text).unwrap();
    text
}

// ---- What works

#[test]
fn a_post_arrives_once_with_its_headers_and_its_answer_comes_back() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        let request = read_request(&mut stream);
        answer(
            &mut stream,
            "HTTP/1.1 503 Busy\r\nretry-after: 7\r\nserver: x\r\ncontent-type: a/b\r\ncontent-length: 2\r\n\r\nno",
        );
        wait_for_close(&mut stream);
        request
    });
    let upstream = upstream(&url);
    let body = vec![b'x'; 300_000];
    let response = upstream.post(CHAT, &body, &nobody()).unwrap();
    assert_eq!((response.status, response.retry_after), (503, Some(7)));
    assert_eq!((response.content_type.as_deref(), response.server.as_deref()), (Some("a/b"), Some("x")));
    assert_eq!(read_all(response), "no");
    drop(upstream);
    let (head, received) = script.join().unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
    assert!(received == body);
}

#[test]
fn a_connection_read_to_its_end_is_used_again() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        for _ in 0..3 {
            read_request(&mut stream);
            answer(&mut stream, &format!("{STREAM_HEAD}2\r\nok\r\n0\r\n\r\n"));
        }
        wait_for_close(&mut stream);
        nobody_waits(listener)
    });
    let upstream = upstream(&url);
    for _ in 0..3 {
        assert_eq!(read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap()), "ok");
    }
    drop(upstream);
    assert!(script.join().unwrap(), "one connection");
}

#[test]
fn a_stale_pooled_connection_is_retried_once_on_a_fresh_one() {
    for reset in [false, true] {
        let (url, script) = scripted(move |listener| {
            let mut first = accept(listener);
            read_request(&mut first);
            answer(&mut first, OK);
            if reset {
                // What is unread when a socket is closed makes the close a reset.
                first.peek(&mut [0]).unwrap();
            } else {
                read_request(&mut first);
            }
            drop(first);
            let mut second = accept(listener);
            let request = read_request(&mut second);
            answer(&mut second, OK);
            wait_for_close(&mut second);
            (request.1, nobody_waits(listener))
        });
        let upstream = upstream(&url);
        assert_eq!(read_all(upstream.post(CHAT, b"one", &nobody()).unwrap()), "ok");
        assert_eq!(read_all(upstream.post(CHAT, b"two", &nobody()).unwrap()), "ok");
        drop(upstream);
        assert_eq!(script.join().unwrap(), (b"two".to_vec(), true));
    }
}

#[test]
fn the_root_of_the_server_is_reached_beside_v1() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        let (head, _) = read_request(&mut stream);
        answer(&mut stream, OK);
        head
    });
    read_all(upstream(&url).post(Path::Root("/tokenize"), b"{}", &nobody()).unwrap());
    assert!(script.join().unwrap().starts_with("POST /tokenize HTTP/1.1\r\n"));
}

#[test]
fn the_key_goes_as_bearer_and_nowhere_else() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        let (head, _) = read_request(&mut stream);
        head
    });
    let mut config = config(&url);
    config.api_key = Some(Secret::new("sk-hush"));
    let upstream = Upstream::new(config, &Options::default()).unwrap();
    let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
    let head = script.join().unwrap();
    assert!(head.to_lowercase().contains("authorization: bearer sk-hush\r\n"), "{head}");
    assert_eq!(head.matches("sk-hush").count(), 1);
    for text in [
        format!("{upstream:?}"),
        format!("{failure:?} {failure}"),
        format!("{:?}", failure.to_error("spark")),
    ] {
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn silence_is_told_before_the_head_and_within_the_body() {
    let (told, silence) = mpsc::channel();
    let (url, script) = scripted(move |listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        // Two silences before the head, two within the body; the call survives them all.
        for part in [STREAM_HEAD, "2\r\nok\r\n", "0\r\n\r\n"] {
            for _ in 0..2 {
                silence.recv_timeout(HANG).unwrap();
            }
            answer(&mut stream, part);
        }
        wait_for_close(&mut stream);
    });
    let (ours, far) = client_pair();
    let client = Rc::new(Client {
        socket: Some(ours),
        patience: Some(Duration::from_millis(5)),
        on_silence: Some(Box::new(move |_| {
            // The script may be through already.
            told.send(()).or(Ok(()))
        })),
        ..Client::default()
    });
    let wait: Rc<dyn Wait> = Rc::clone(&client) as _;
    let upstream = upstream(&url);
    let response = upstream.post(CHAT, b"{}", &wait).unwrap();
    let before_head = client.silences.get();
    assert!(before_head >= 2, "{before_head}");
    assert_eq!(read_all(response), "ok");
    assert!(client.silences.get() >= before_head + 2);
    drop((upstream, far));
    script.join().unwrap();
}

#[test]
fn an_early_answer_to_a_large_request_is_read() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_head(&mut stream);
        answer(&mut stream, "HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig");
        // No more is taken, and the body in flight makes the close a reset.
        stream.shutdown(Shutdown::Read).unwrap();
    });
    let response = upstream(&url).post(CHAT, &vec![b' '; 16 << 20], &nobody()).unwrap();
    assert_eq!(response.status, 413);
    assert_eq!(read_all(response), "big");
    script.join().unwrap();
}

#[test]
fn pipelined_data_of_the_client_is_no_departure() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        answer(&mut stream, OK);
    });
    let (ours, mut far) = client_pair();
    far.write_all(b"POST /v1/messages HTTP/1.1\r\n").unwrap();
    ours.peek(&mut [0]).unwrap();
    let wait: Rc<dyn Wait> = Rc::new(Client { socket: Some(ours), ..Client::default() });
    assert_eq!(read_all(upstream(&url).post(CHAT, b"{}", &wait).unwrap()), "ok");
    script.join().unwrap();
}

// ---- The client leaves

#[test]
fn a_dropped_response_closes_the_upstream_connection() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        answer(&mut stream, &format!("{STREAM_HEAD}2\r\nok\r\n"));
        wait_for_close(&mut stream);
    });
    let upstream = upstream(&url);
    let mut response = upstream.post(CHAT, b"{}", &nobody()).unwrap();
    response.read_exact(&mut [0; 2]).unwrap();
    drop(response);
    // The upstream itself lives on: it is the response whose drop closes.
    script.join().unwrap();
    drop(upstream);
}

#[test]
fn a_client_that_leaves_before_the_head_ends_the_call() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        wait_for_close(&mut stream);
        nobody_waits(listener)
    });
    let upstream = upstream(&url);
    let failure = upstream.post(CHAT, b"{}", &leaving_client()).unwrap_err();
    assert_eq!(failure, Failure::ClientGone);
    assert!(script.join().unwrap(), "no second try for nobody");
    drop(upstream);
}

#[test]
fn a_client_that_leaves_within_the_body_ends_the_read() {
    // Also where the body's end is the connection's: a hang-up of the client must not read as that end.
    for head in [STREAM_HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
        let (url, script) = scripted(move |listener| {
            let mut stream = accept(listener);
            read_request(&mut stream);
            answer(&mut stream, head);
            wait_for_close(&mut stream);
        });
        let upstream = upstream(&url);
        let (ours, far) = client_pair();
        let wait: Rc<dyn Wait> = Rc::new(Client { socket: Some(ours), ..Client::default() });
        let mut response = upstream.post(CHAT, b"{}", &wait).unwrap();
        drop(far);
        let error = response.read(&mut [0; 64]).unwrap_err();
        assert_eq!(Failure::of(&error), Failure::ClientGone);
        // Closed already, though the response is still held; and failed for good.
        script.join().unwrap();
        assert_eq!(Failure::of(&response.read(&mut [0; 64]).unwrap_err()), Failure::ClientGone);
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

/// A listener that takes no connection, since its queue is full.
fn full_listener() -> (TcpListener, Vec<std::os::fd::OwnedFd>) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, listen, socket_with};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let fill = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let _ = connect(&socket, &address);
        socket
    };
    let queue = (0..4).map(|_| fill()).collect();
    (listener, queue)
}

#[test]
fn a_client_that_leaves_during_the_connect_ends_the_call() {
    let (listener, _queue) = full_listener();
    let upstream = upstream(&format!("http://{}/v1", listener.local_addr().unwrap()));
    assert_eq!(upstream.post(CHAT, b"{}", &leaving_client()).unwrap_err(), Failure::ClientGone);
}

// ---- Time limits

#[test]
fn a_connect_has_a_limit() {
    let (listener, _queue) = full_listener();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let upstream = upstream_with(&url, Options { connect_timeout: SOON, ..Options::default() });
    let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
    assert_eq!(failure, Failure::Timeout("while connecting"));
    assert_eq!(failure.to_error("spark").kind, Kind::Timeout);
}

#[test]
fn the_first_byte_has_a_limit_that_silences_do_not_move() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        wait_for_close(&mut stream);
    });
    let options = Options { first_byte_timeout: SOON, ..Options::default() };
    let wait: Rc<dyn Wait> =
        Rc::new(Client { patience: Some(Duration::from_millis(1)), ..Client::default() });
    let failure = upstream_with(&url, options).post(CHAT, b"{}", &wait).unwrap_err();
    assert_eq!(failure, Failure::Timeout("before the first byte"));
    script.join().unwrap();
}

#[test]
fn the_next_byte_has_a_limit() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        answer(&mut stream, &format!("{STREAM_HEAD}2\r\nok\r\n"));
        wait_for_close(&mut stream);
    });
    let upstream = upstream_with(&url, Options { idle_timeout: SOON, ..Options::default() });
    let mut response = upstream.post(CHAT, b"{}", &nobody()).unwrap();
    response.read_exact(&mut [0; 2]).unwrap();
    let failure = Failure::of(&response.read(&mut [0; 9]).unwrap_err());
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
    let upstream = upstream_with(&url, Options { send_timeout: SOON, ..Options::default() });
    let failure = upstream.post(CHAT, &vec![b' '; 32 << 20], &nobody()).unwrap_err();
    assert_eq!(failure, Failure::Timeout("while sending the request"));
    done.send(()).unwrap();
    script.join().unwrap();
}

// ---- Failures of the upstream

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let failure = upstream(&url).post(CHAT, b"{}", &nobody()).unwrap_err();
    assert!(matches!(failure, Failure::Refused(_)), "{failure:?}");
    let error = failure.to_error("spark");
    assert_eq!((error.kind, error.retry), (Kind::BadGateway, Retry::After(1)));
    assert_eq!(error.message, "upstream 'spark' cannot be reached");
}

#[test]
fn a_fresh_connection_that_closes_is_not_retried() {
    for partial in ["", "HTTP/1.1 200 OK\r\nconte"] {
        let (url, script) = scripted(move |listener| {
            let mut stream = accept(listener);
            read_request(&mut stream);
            answer(&mut stream, partial);
            stream.shutdown(Shutdown::Write).unwrap();
            wait_for_close(&mut stream);
            nobody_waits(listener)
        });
        let failure = upstream(&url).post(CHAT, b"{}", &nobody()).unwrap_err();
        assert!(matches!(failure, Failure::Reset(_)), "{failure:?}");
        assert!(script.join().unwrap());
    }
}

#[test]
fn a_reused_connection_that_closes_within_the_head_is_not_retried() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        answer(&mut stream, OK);
        read_request(&mut stream);
        answer(&mut stream, "HTTP/1.1 200 OK\r\nconte");
        drop(stream);
    });
    let upstream = upstream(&url);
    read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap());
    let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
    assert!(matches!(failure, Failure::Reset(_)), "{failure:?}");
    script.join().unwrap();
}

#[test]
fn the_retry_is_the_last_one() {
    let (url, script) = scripted(|listener| {
        let mut first = accept(listener);
        read_request(&mut first);
        answer(&mut first, OK);
        read_request(&mut first);
        drop(first);
        let mut second = accept(listener);
        read_request(&mut second);
        second.shutdown(Shutdown::Write).unwrap();
        wait_for_close(&mut second);
        nobody_waits(listener)
    });
    let upstream = upstream(&url);
    read_all(upstream.post(CHAT, b"{}", &nobody()).unwrap());
    let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
    assert!(matches!(failure, Failure::Reset(_)), "{failure:?}");
    assert!(script.join().unwrap());
}

#[test]
fn a_body_that_breaks_off_never_seems_to_end() {
    for (head, part) in [(STREAM_HEAD, "2\r\nok\r\n"), ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", "ok")]
    {
        let (url, script) = scripted(move |listener| {
            let mut stream = accept(listener);
            read_request(&mut stream);
            answer(&mut stream, head);
            answer(&mut stream, part);
        });
        let mut response = upstream(&url).post(CHAT, b"{}", &nobody()).unwrap();
        response.read_exact(&mut [0; 2]).unwrap();
        for _ in 0..2 {
            let failure = Failure::of(&response.read(&mut [0; 9]).unwrap_err());
            assert!(matches!(failure, Failure::Truncated(_)), "{failure:?}");
        }
        script.join().unwrap();
    }
}

#[test]
fn answers_that_are_not_for_us_are_failures() {
    for (text, expected) in [
        ("HTTP/1.1 307 Moved\r\nlocation: http://other/\r\ncontent-length: 0\r\n\r\n", "redirects are never"),
        ("HTTP/1.1 301 Moved\r\nlocation: /v1/x\r\ncontent-length: 2\r\n\r\nxx", "redirects are never"),
        (
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx",
            "content-encoding 'gzip'",
        ),
        ("SSH-2.0-OpenSSH_9.6\r\n", ""),
        ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", ""),
    ] {
        let (url, script) = scripted(move |listener| {
            let mut stream = accept(listener);
            read_request(&mut stream);
            answer(&mut stream, text);
            wait_for_close(&mut stream);
            nobody_waits(listener)
        });
        let upstream = upstream(&url);
        let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
        assert!(matches!(&failure, Failure::Protocol(why) if why.contains(expected)), "{text}: {failure:?}");
        assert_eq!(failure.to_error("spark").retry, Retry::Never);
        // A redirect without a body leaves a connection that can be used again; it goes with the upstream.
        drop(upstream);
        assert!(script.join().unwrap());
    }
}

#[test]
fn a_head_without_end_is_refused() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        answer(&mut stream, "HTTP/1.1 200 OK\r\n");
        while stream.write_all(format!("x: {}\r\n", "y".repeat(8000)).as_bytes()).is_ok() {}
    });
    let failure = upstream(&url).post(CHAT, b"{}", &nobody()).unwrap_err();
    assert!(matches!(failure, Failure::Protocol(_)), "{failure:?}");
    script.join().unwrap();
}

#[test]
fn https_to_a_plaintext_server_is_a_tls_failure() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        stream.peek(&mut [0]).unwrap();
        answer(&mut stream, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        wait_for_close(&mut stream);
    });
    let upstream = upstream(&url.replace("http://", "https://"));
    let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
    assert!(matches!(failure, Failure::Tls(_)), "{failure:?}");
    assert_eq!(failure.to_error("spark").message, "upstream 'spark' cannot be reached by TLS");
    script.join().unwrap();
}

#[test]
fn a_tls_handshake_has_the_limit_of_the_connect() {
    let (url, script) = scripted(|listener| {
        let mut stream = accept(listener);
        wait_for_close(&mut stream);
    });
    let url = url.replace("http://", "https://");
    let upstream = upstream_with(&url, Options { connect_timeout: SOON, ..Options::default() });
    let failure = upstream.post(CHAT, b"{}", &nobody()).unwrap_err();
    assert_eq!(failure, Failure::Timeout("while connecting"));
    script.join().unwrap();
}

#[test]
fn a_key_with_a_line_end_is_refused_without_being_told() {
    let mut config = config("http://h/v1");
    config.api_key = Some(Secret::new("sk-hush\n"));
    let error = Upstream::new(config, &Options::default()).unwrap_err();
    assert!(error.contains("key") && !error.contains("hush"), "{error}");
}

// ---- Discovery

/// Answers each request, one connection, with the next of these.
fn answering(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    scripted(move |listener| {
        let mut stream = accept(listener);
        let mut heads = Vec::new();
        for text in answers {
            heads.push(read_request(&mut stream).0);
            answer(&mut stream, &text);
        }
        heads
    })
}

/// A recorded response with the length that its body has: the recordings' paths were shortened afterwards.
fn replay(recording: &str) -> String {
    let (head, body) = recording.split_once("\r\n\r\n").unwrap();
    let head = head.lines().filter(|line| !line.to_lowercase().starts_with("content-length:"));
    let head = head.fold(String::new(), |head, line| head + line + "\r\n");
    format!("{head}content-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn the_recorded_servers_are_discovered() {
    for (recording, flavour, window) in [
        (include_str!("recordings/vllm/GET_v1_models.response.txt"), Flavour::Vllm, 8192),
        (include_str!("recordings/llama.cpp/GET_v1_models.response.txt"), Flavour::LlamaCpp, 4096),
    ] {
        let (url, script) = answering(vec![replay(recording)]);
        let upstream = upstream(&url);
        assert_eq!(upstream.discovered().flavour, Flavour::Unknown);
        assert_eq!(upstream.model(), None);
        let discovered = upstream.discover(&nobody()).unwrap();
        assert_eq!((discovered.flavour, discovered.window("qwen3")), (flavour, Some(window)));
        assert_eq!(discovered, upstream.discovered());
        assert_eq!(upstream.model().as_deref(), Some("qwen3"));
        assert!(script.join().unwrap().concat().starts_with("GET /v1/models HTTP/1.1\r\n"));
    }
}

fn listing(model: &str) -> String {
    let body = format!("{{\"data\":[{{\"id\":\"{model}\"}}]}}");
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn discovery_is_fresh_after_a_lost_connection() {
    let (url, script) = scripted(|listener| {
        let mut first = accept(listener);
        read_request(&mut first);
        answer(&mut first, &listing("old"));
        read_request(&mut first);
        drop(first);
        // The retry of the stale connection, which is lost as well: a restart.
        drop(accept(listener));
        let mut second = accept(listener);
        read_request(&mut second);
        answer(&mut second, &listing("new"));
    });
    let upstream = upstream_with(&url, Options { discovery_interval: Duration::ZERO, ..Options::default() });
    for _ in 0..2 {
        // Asked once: it is not stale.
        assert_eq!(upstream.discovered_fresh(&nobody()).models[0].id, "old");
    }
    assert!(upstream.post(CHAT, b"{}", &nobody()).is_err());
    assert_eq!(upstream.discovered().models[0].id, "old");
    assert_eq!(upstream.discovered_fresh(&nobody()).models[0].id, "new");
    script.join().unwrap();
}

#[test]
fn a_failed_discovery_leaves_what_was_known() {
    let broken = |text: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    let answers = vec![
        listing("a"),
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned(),
        broken("<html>"),
        broken("{\"error\":\"x\"}"),
        broken(&" ".repeat((4 << 20) + 1)),
    ];
    let (url, script) = answering(answers);
    let upstream = upstream(&url);
    upstream.discover(&nobody()).unwrap();
    assert_eq!(upstream.discover(&nobody()).unwrap_err(), Failure::Status(401));
    for _ in 0..3 {
        let failure = upstream.discover(&nobody()).unwrap_err();
        assert!(matches!(failure, Failure::Protocol(_)), "{failure:?}");
    }
    assert_eq!(upstream.discovered().models[0].id, "a");
    script.join().unwrap();
}

#[test]
fn discovery_has_a_limit_of_its_own() {
    let (url, script) = scripted(|listener| wait_for_close(&mut accept(listener)));
    let upstream = upstream_with(&url, Options { discovery_timeout: SOON, ..Options::default() });
    let failure = upstream.discover(&nobody()).unwrap_err();
    assert_eq!(failure, Failure::Timeout("before the first byte"));
    script.join().unwrap();
}
