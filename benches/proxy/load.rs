//! The clients: one that waits for a first token, many that ask as fast as they can, and many that listen.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::epolled::{Epoll, interest};
use super::upstream::{SETTLE, TIME_MARK, WORD};

/// The longest wait. No measurement takes that long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads an answer to its end without looking at its content.
#[derive(Default)]
struct Answer {
    head: Vec<u8>,
    /// The bytes of the body that are still to come; `None` if it is chunked.
    left: Option<usize>,
    is_headed: bool,
    tail: [u8; 7],
}

impl Answer {
    /// Takes bytes. Returns true if the answer is complete.
    fn take(&mut self, bytes: &[u8]) -> bool {
        if self.is_headed {
            return self.take_body(bytes);
        }
        self.head.extend_from_slice(bytes);
        let Some(end) = memchr::memmem::find(&self.head, b"\r\n\r\n") else { return false };
        let mut head = std::mem::take(&mut self.head);
        let body = head.split_off(end + 4);
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        assert!(text.starts_with("http/1.1 200"), "{text}{}", String::from_utf8_lossy(&body));
        self.left = text
            .split_once("content-length: ")
            .and_then(|(_, rest)| rest.split("\r\n").next())
            .map(|length| length.trim().parse().unwrap());
        self.is_headed = true;
        self.take_body(&body)
    }

    fn take_body(&mut self, bytes: &[u8]) -> bool {
        if let Some(left) = &mut self.left {
            *left -= bytes.len();
            return *left == 0;
        }
        let last = &bytes[bytes.len().saturating_sub(7)..];
        self.tail.rotate_left(last.len());
        let kept = 7 - last.len();
        self.tail[kept..].copy_from_slice(last);
        self.tail == *b"\r\n0\r\n\r\n"
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One client with one connection.
pub(crate) struct Client {
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Client {
        Client { address, stream: connect(address), buffer: vec![0; 256 * 1024] }
    }

    /// Asks, and returns the time until the first word.
    pub(crate) fn first_token(&mut self, request: &[u8]) -> Duration {
        let asked = Instant::now();
        match self.try_first_token(request, asked) {
            Ok(took) => took,
            Err(_) => {
                // The server closed the connection between two requests, so the client connects again.
                let asked = Instant::now();
                self.stream = connect(self.address);
                self.try_first_token(request, asked).unwrap()
            }
        }
    }

    fn try_first_token(&mut self, request: &[u8], asked: Instant) -> io::Result<Duration> {
        self.stream.write_all(request)?;
        let mut answer = Answer::default();
        let mut took = None;
        loop {
            let count = self.stream.read(&mut self.buffer)?;
            let bytes = &self.buffer[..count];
            if count == 0 && took.is_none() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if took.is_none() && memchr::memmem::find(bytes, WORD.as_bytes()).is_some() {
                took = Some(asked.elapsed());
            }
            if count == 0 {
                self.stream = connect(self.address);
            }
            match took {
                Some(took) if count == 0 || answer.take(bytes) => return Ok(took),
                Some(_) => {}
                None => _ = answer.take(bytes),
            }
        }
    }

    /// Asks, waits for the first word if there is to be one and for `ready`, and leaves. Returns the time when it left.
    pub(crate) fn leave(
        address: SocketAddr,
        request: &[u8],
        has_word: bool,
        ready: impl FnOnce(),
    ) -> Instant {
        let mut client = Client::new(address);
        client.stream.write_all(request).unwrap();
        ready();
        let mut is_waiting = has_word;
        while is_waiting {
            let count = client.stream.read(&mut client.buffer).unwrap();
            is_waiting = memchr::memmem::find(&client.buffer[..count], WORD.as_bytes()).is_none();
        }
        std::thread::sleep(Duration::from_millis(3));
        let left = Instant::now();
        drop(client);
        left
    }
}

/// True if a request is answered. Used to wait until a server has started.
pub(crate) fn answers(address: SocketAddr, request: &[u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    _ = stream.set_read_timeout(Some(PATIENCE));
    if stream.write_all(request).is_err() {
        return false;
    }
    let mut answer = Answer::default();
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => {
                if answer.take(&buffer[..count]) {
                    return true;
                }
            }
            _ => return false,
        }
    }
}

struct Asking {
    stream: TcpStream,
    answer: Answer,
}

/// Asks on this many connections, on each as soon as the last answer came, until `go_on` returns false for the number
/// of answers so far. Answers under way are still read. Returns the number of answers and the time.
pub(crate) fn ask_on(
    address: SocketAddr,
    request: &[u8],
    connections: usize,
    mut go_on: impl FnMut(u64) -> bool,
) -> (u64, Duration) {
    let epoll = Epoll::new();
    let mut asking: Vec<Asking> = Vec::new();
    for at in 0..connections {
        let stream = connect(address);
        epoll.add(&stream, at, interest(false));
        asking.push(Asking { stream, answer: Answer::default() });
    }
    let began = Instant::now();
    asking.iter_mut().for_each(|asking| asking.stream.write_all(request).unwrap());
    let (mut answers, mut open) = (0, connections);
    let mut buffer = vec![0; 256 * 1024];
    let mut events = Vec::new();
    while open > 0 {
        epoll.wait(&mut events, Some(&Timespec { tv_sec: 60, tv_nsec: 0 }));
        assert!(!events.is_empty(), "{address} hangs: {answers} answers, {open} open");
        for event in events.drain(..) {
            let at = usize::try_from(event.data.u64()).unwrap();
            let one = &mut asking[at];
            let count = one.stream.read(&mut buffer).unwrap();
            if count > 0 && !one.answer.take(&buffer[..count]) {
                continue;
            }
            let answer = std::mem::take(&mut one.answer);
            // A close in the middle of an answer without a length is that answer's end. After a close between two
            // answers it asks again.
            answers += u64::from(count > 0 || answer.is_headed);
            if count == 0 {
                one.stream = connect(address);
                epoll.add(&one.stream, at, interest(false));
            }
            if go_on(answers) {
                one.stream.write_all(request).unwrap();
            } else {
                epoll.change(&one.stream, at, epoll::EventFlags::empty());
                open -= 1;
            }
        }
    }
    (answers, began.elapsed())
}

/// The figures of many listeners.
pub(crate) struct Heard {
    /// The times from the upstream's write to the client's read, in nanoseconds, sorted.
    pub(crate) latencies: Vec<u64>,
    /// The number of listeners that received anything at all.
    pub(crate) streams: usize,
}

/// Opens this many streams of timed events, waits until all have settled, calls `begin`, listens for a time, and calls
/// `end`.
pub(crate) fn listen(
    address: SocketAddr,
    request: &[u8],
    streams: usize,
    began: Instant,
    time: Duration,
    mut begin: impl FnMut(),
    mut end: impl FnMut(),
) -> Heard {
    // This is fast enough for thousands of streams, and slow enough that no server's backlog overflows.
    let pace = Duration::from_micros(if streams > 1000 { 700 } else { 1500 });
    let epoll = Epoll::new();
    let mut connections: Vec<TcpStream> = Vec::with_capacity(streams);
    let mut heard = Heard { latencies: Vec::new(), streams: 0 };
    let mut has_heard = vec![false; streams];
    let mut events = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let start = Instant::now();
    let mut counts_from = None;
    loop {
        let now = Instant::now();
        let opened = u32::try_from(connections.len()).unwrap();
        if connections.len() < streams && now - start >= pace * opened {
            let mut stream = connect(address);
            stream.write_all(request).unwrap();
            epoll.add(&stream, connections.len(), interest(false));
            connections.push(stream);
            if connections.len() == streams {
                counts_from = Some(now + SETTLE);
            }
        }
        if counts_from.is_some_and(|from| now >= from) && heard.streams == 0 {
            begin();
            heard.streams = 1;
        }
        if counts_from.is_some_and(|from| now >= from + time) {
            break;
        }
        epoll.wait(&mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 500_000 }));
        for event in events.drain(..) {
            let at = usize::try_from(event.data.u64()).unwrap();
            let count = connections[at].read(&mut buffer).unwrap();
            assert!(count > 0, "{address} closed a stream");
            let now = u64::try_from(began.elapsed().as_nanos()).unwrap();
            if heard.streams > 0 {
                has_heard[at] = true;
                times(&buffer[..count], |sent| heard.latencies.push(now - sent));
            }
        }
    }
    end();
    heard.streams = has_heard.iter().filter(|heard| **heard).count();
    heard.latencies.sort_unstable();
    heard
}

/// Finds the times in the text of events.
fn times(bytes: &[u8], mut found: impl FnMut(u64)) {
    for at in memchr::memmem::find_iter(bytes, TIME_MARK) {
        let digits = bytes[at + TIME_MARK.len()..].iter();
        let mut digits = digits.take_while(|byte| byte.is_ascii_digit()).peekable();
        if digits.peek().is_some() {
            found(digits.fold(0, |n, digit| n * 10 + u64::from(digit - b'0')));
        }
    }
}
