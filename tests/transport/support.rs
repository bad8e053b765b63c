//! The scripted upstream, and clients that stay, leave, or count silences.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sparkgap::config::{self};
use sparkgap::fleet::Upstream;
use sparkgap::transport::{CallLimits, Path, Response, Wait};

/// Ends a test that hangs; no working test comes near it.
pub(crate) const HANG: Duration = Duration::from_secs(30);

/// A short time, for limits that are to pass.
pub(crate) const SOON: Duration = Duration::from_millis(30);

pub(crate) const CHAT: Path<'_> = Path::Api("/chat/completions");

/// A complete answer.
pub(crate) const OK: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\nok";

/// A complete answer that is too long for one read.
pub(crate) fn long_answer() -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n{}", "x".repeat(9000))
}

/// The head of a stream.
pub(crate) const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Runs `script` as an upstream in a thread of its own.
pub(crate) fn scripted<T: Send + 'static>(
    script: impl FnOnce(&TcpListener) -> T + Send + 'static,
) -> (String, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    (url, thread::spawn(move || script(&listener)))
}

pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.set_write_timeout(Some(HANG)).unwrap();
    stream
}

/// True if nobody else has connected. The caller knows that the call is over.
pub(crate) fn nobody_waits(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    matches!(listener.accept(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Reads one request: its head, and a body of the announced length.
pub(crate) fn read_request(stream: &mut impl Read) -> (String, Vec<u8>) {
    let head = read_head(stream);
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

pub(crate) fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

pub(crate) fn answer(stream: &mut impl Write, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

/// Accepts a connection, reads one request from it, and answers with `text`. Returns the open connection.
pub(crate) fn answered(listener: &TcpListener, text: &str) -> TcpStream {
    let mut stream = accept(listener);
    read_request(&mut stream);
    answer(&mut stream, text);
    stream
}

/// Blocks until the other side has closed.
pub(crate) fn wait_for_close(stream: &mut impl Read) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        // TLS reports an end without its close message as `UnexpectedEof`.
        Err(error) => {
            let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
    }
}

pub(crate) fn config(url: &str) -> config::UpstreamConfig {
    config::UpstreamConfig::new("spark", url)
}

pub(crate) fn upstream(url: &str) -> Upstream {
    upstream_with(url, CallLimits::default())
}

pub(crate) fn upstream_with(url: &str, options: CallLimits) -> Upstream {
    Upstream::new(config(url), &options).unwrap()
}

/// Any loss of a pooled connection counts as one at once: however slow the machine is.
pub(crate) fn patient() -> CallLimits {
    CallLimits { loss_at_once: HANG, ..CallLimits::default() }
}

/// A client that stays, leaves, or counts the silences.
#[derive(Default)]
pub(crate) struct Client {
    /// The proxy's side of its connection.
    pub(crate) socket: Option<TcpStream>,
    /// The client's side.
    pub(crate) far: RefCell<Option<TcpStream>>,
    pub(crate) patience: Option<Duration>,
    pub(crate) silences: Cell<u32>,
    /// Called in each silence.
    pub(crate) on_silence: Option<OnSilence>,
}

pub(crate) type OnSilence = Box<dyn Fn(&Client) -> io::Result<()>>;

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

pub(crate) fn nobody() -> Rc<dyn Wait> {
    Rc::new(Client::default())
}

/// The proxy's side and the client's side of a connection.
pub(crate) fn client_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, far)
}

/// A client that leaves in the first silence.
pub(crate) fn leaving_client() -> Rc<dyn Wait> {
    client_that_leaves_when(|| true)
}

/// A client that leaves in the first silence in which `is_time`.
pub(crate) fn client_that_leaves_when(is_time: impl Fn() -> bool + 'static) -> Rc<dyn Wait> {
    let (ours, far) = client_pair();
    Rc::new(Client {
        socket: Some(ours),
        far: RefCell::new(Some(far)),
        patience: Some(Duration::from_millis(5)),
        on_silence: Some(Box::new(move |client| {
            if is_time() {
                client.far.take();
            }
            Ok(())
        })),
        ..Client::default()
    })
}

pub(crate) fn read_all(response: Response) -> String {
    String::from_utf8(response.read_all(64 << 20).unwrap()).unwrap()
}

/// Reads this many bytes of a body.
pub(crate) fn read_exactly(response: &mut Response, size: usize) {
    let mut left = size;
    while left > 0 {
        let count = response.read(&mut vec![0; left]).unwrap();
        assert!(count > 0, "the body has ended");
        left -= count;
    }
}

/// A listener that accepts no connection, since its queue is full.
pub(crate) fn full_listener() -> (TcpListener, Vec<OwnedFd>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let queue = fill(&listener);
    (listener, queue)
}

/// Fills the listener's queue, so that it neither accepts nor refuses a connection while the result is held.
pub(crate) fn fill(listener: &TcpListener) -> Vec<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, listen, socket_with};
    listen(listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let fill = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let _ = connect(&socket, &address);
        socket
    };
    (0..4).map(|_| fill()).collect()
}
