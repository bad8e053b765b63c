//! The scripted upstream: one thread, one epoll, and answers that are made in advance.
//!
//! A request's `max_tokens` says which script to play, because every proxy passes it on: see [`Script`].

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::epolled::{Epoll, interest};
use crate::workloads;

/// The events in a block of the answers at full speed. Each is a chunk of its own, as uvicorn sends them.
pub(crate) const BLOCK_EVENTS: u64 = 256;

/// The word that every short answer has.
pub(crate) const WORD: &str = "Hello";

/// The bytes before the time in the text of a timed event, and the byte that ends the time.
pub(crate) const TIME_MARK: &[u8] = b"\":\"at";

/// The script that the upstream plays. Its number is `count * 10` plus the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// A word and the end, at once; not streamed if the request does not ask for a stream.
    Short,
    /// This many events, as fast as the client reads them.
    Flood(u64),
    /// An event at each interval, given in ms, until the client leaves.
    Timed(u64),
    /// A first event, then silence until the client leaves.
    OneEvent,
    /// Silence until the client leaves.
    Silence,
}

impl Script {
    pub(crate) fn max_tokens(self) -> u64 {
        match self {
            Script::Short => 10,
            Script::Flood(events) => events * 10 + 1,
            Script::Timed(interval_ms) => interval_ms * 10 + 2,
            Script::OneEvent => 13,
            Script::Silence => 14,
        }
    }

    fn from_max_tokens(n: u64) -> Script {
        match n % 10 {
            1 => Script::Flood(n / 10),
            2 => Script::Timed(n / 10),
            3 => Script::OneEvent,
            4 => Script::Silence,
            _ => Script::Short,
        }
    }
}

/// The course of a request that is answered with silence.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    Request,
    Gone(Instant),
}

/// A running upstream; it ends with the process.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Receiver<Seen>,
    /// The start of the clock of timed events.
    pub(crate) began: Instant,
}

impl Upstream {
    pub(crate) fn start() -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = channel();
        let began = Instant::now();
        std::thread::spawn(move || Loop::new(listener, sender, began).run());
        Upstream { address, seen, began }
    }
}

/// The bytes that are to be written to one client.
enum Output {
    Nothing,
    Bytes(Vec<u8>, usize),
    /// The blocks left, and the bytes of the current block that were sent.
    Flood(u64, usize),
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    /// The size of the request in `input`, once its head has come.
    size: Option<usize>,
    output: Output,
    script: Script,
    is_waiting_to_write: bool,
}

struct Loop {
    epoll: Epoll,
    listener: TcpListener,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    seen: Sender<Seen>,
    began: Instant,
    /// The streams of timed events, by the millisecond at which the next event is due.
    due: VecDeque<Vec<(usize, u64)>>,
    now_ms: u64,
    timed: u64,
    texts: Texts,
}

const LISTENER: usize = usize::MAX;

/// The longest time that a timed event may lie ahead, in ms.
const INTERVAL_MS_MAX: usize = 1024;

impl Loop {
    fn new(listener: TcpListener, seen: Sender<Seen>, began: Instant) -> Loop {
        listener.set_nonblocking(true).unwrap();
        let epoll = Epoll::new();
        epoll.add(&listener, LISTENER, interest(false));
        let due = (0..INTERVAL_MS_MAX).map(|_| Vec::new()).collect();
        let (clients, free, texts) = (Vec::new(), Vec::new(), Texts::new());
        Loop { epoll, listener, clients, free, seen, began, due, now_ms: 0, timed: 0, texts }
    }

    fn run(mut self) {
        let mut events = Vec::with_capacity(1024);
        loop {
            let timeout = (self.timed > 0).then_some(Timespec { tv_sec: 0, tv_nsec: 500_000 });
            self.epoll.wait(&mut events, timeout.as_ref());
            for event in events.drain(..) {
                let at = usize::try_from(event.data.u64()).unwrap();
                if at == LISTENER { self.accept() } else { self.serve(at, event.flags) }
            }
            self.send_due();
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).unwrap();
            stream.set_nodelay(true).unwrap();
            let at = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            self.epoll.add(&stream, at, interest(false));
            self.clients[at] = Some(Client {
                stream,
                input: Vec::new(),
                size: None,
                output: Output::Nothing,
                script: Script::Short,
                is_waiting_to_write: false,
            });
        }
    }

    fn serve(&mut self, at: usize, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::OUT) {
            self.send(at);
        }
        let gone =
            flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR | epoll::EventFlags::RDHUP);
        if gone || (flags.contains(epoll::EventFlags::IN) && self.read(at).is_err()) {
            self.close(at);
        }
    }

    fn close(&mut self, at: usize) {
        let Some(client) = self.clients[at].take() else { return };
        match client.script {
            Script::OneEvent | Script::Silence => _ = self.seen.send(Seen::Gone(Instant::now())),
            Script::Timed(_) => self.timed -= 1,
            Script::Short | Script::Flood(_) => {}
        }
        // Dropping the stream closes it and takes it out of the epoll. Its place may still be in the timed list.
        self.free.push(at);
    }

    fn read(&mut self, at: usize) -> io::Result<()> {
        let Some(client) = &mut self.clients[at] else { return Ok(()) };
        let mut buffer = [0; 128 * 1024];
        match client.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => client.input.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        if client.size.is_none() {
            client.size = request_size(&client.input);
        }
        if client.size.is_some_and(|size| client.input.len() >= size) {
            let client = self.clients[at].as_mut().unwrap();
            let request = std::mem::take(&mut client.input);
            client.size = None;
            self.answer(at, &request);
            if let Some(client) = &mut self.clients[at] {
                client.input = request; // keeps its capacity
                client.input.clear();
            }
        }
        Ok(())
    }

    fn answer(&mut self, at: usize, request: &[u8]) {
        let client = self.clients[at].as_mut().unwrap();
        if request.starts_with(b"GET ") {
            client.output = Output::Bytes(self.texts.models.clone(), 0);
            return self.send(at);
        }
        client.script = Script::from_max_tokens(number_after(request, b"\"max_tokens\":").unwrap_or(0));
        let script = client.script;
        client.output = match script {
            Script::Short if last(request, b"\"stream\":true").is_some() => {
                Output::Bytes(self.texts.short.clone(), 0)
            }
            Script::Short => Output::Bytes(self.texts.whole.clone(), 0),
            Script::Flood(events) => {
                // The head has to be sent before the blocks; it always fits.
                client.stream.write_all(&self.texts.head).unwrap();
                Output::Flood(events.div_ceil(BLOCK_EVENTS), 0)
            }
            Script::OneEvent => Output::Bytes(self.texts.one_event.clone(), 0),
            Script::Timed(_) => Output::Bytes(self.texts.head.clone(), 0),
            Script::Silence => Output::Nothing,
        };
        match script {
            Script::OneEvent | Script::Silence => _ = self.seen.send(Seen::Request),
            Script::Timed(interval) => {
                self.timed += 1;
                if self.timed == 1 {
                    self.now_ms = self.elapsed_ms();
                }
                // The streams are spread evenly over the interval, whenever they began.
                let first = self.timed * 7 % interval + 1;
                self.later(at, first, interval);
            }
            Script::Short | Script::Flood(_) => {}
        }
        self.send(at);
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    fn later(&mut self, at: usize, after_ms: u64, interval: u64) {
        let slot = usize::try_from(self.now_ms + after_ms).unwrap() % INTERVAL_MS_MAX;
        self.due[slot].push((at, interval));
    }

    fn send_due(&mut self) {
        if self.timed == 0 {
            self.due.iter_mut().for_each(Vec::clear);
            return;
        }
        let until = self.elapsed_ms();
        while self.now_ms < until {
            self.now_ms += 1;
            let slot = usize::try_from(self.now_ms).unwrap() % INTERVAL_MS_MAX;
            let mut streams = std::mem::take(&mut self.due[slot]);
            for (at, interval) in streams.drain(..) {
                self.send_timed(at, interval);
            }
            if self.due[slot].is_empty() {
                self.due[slot] = streams; // keeps its capacity
            }
        }
    }

    fn send_timed(&mut self, at: usize, interval: u64) {
        let Some(client) = &mut self.clients[at] else { return };
        if client.script != Script::Timed(interval) {
            return;
        }
        if let Output::Nothing = client.output {
            let since = self.began.elapsed().as_nanos();
            let mut event = Vec::with_capacity(256);
            workloads::text_event(&format!("at{since} "), &mut event);
            client.output = Output::Bytes(chunk(&event), 0);
        }
        self.send(at);
        self.later(at, interval, interval);
    }

    fn send(&mut self, at: usize) {
        let Some(client) = &mut self.clients[at] else { return };
        let done = client.send(&self.texts);
        if done == client.is_waiting_to_write {
            client.is_waiting_to_write = !done;
            self.epoll.change(&client.stream, at, interest(!done));
        }
    }
}

impl Client {
    /// Writes as much as fits, but only a few blocks, so that others get their turn. Returns true if everything was
    /// written.
    fn send(&mut self, texts: &Texts) -> bool {
        for _ in 0..4 {
            let rest = match &self.output {
                Output::Nothing => return true,
                Output::Bytes(bytes, sent) => &bytes[*sent..],
                Output::Flood(0, sent) => &texts.end[*sent..],
                Output::Flood(_, sent) => &texts.block[*sent..],
            };
            let whole = rest.len();
            let count = match (&self.stream).write(rest) {
                Ok(count) => count,
                // The next read finds a client that has left.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            };
            self.output = match std::mem::replace(&mut self.output, Output::Nothing) {
                Output::Bytes(bytes, sent) if count < whole => Output::Bytes(bytes, sent + count),
                Output::Flood(blocks, sent) if count < whole => Output::Flood(blocks, sent + count),
                Output::Flood(blocks, _) if blocks > 0 => Output::Flood(blocks - 1, 0),
                _ => Output::Nothing,
            };
        }
        matches!(self.output, Output::Nothing)
    }
}

/// The answers, made once.
struct Texts {
    models: Vec<u8>,
    whole: Vec<u8>,
    short: Vec<u8>,
    one_event: Vec<u8>,
    head: Vec<u8>,
    block: Vec<u8>,
    end: Vec<u8>,
}

const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

fn whole(json: &str) -> Vec<u8> {
    let length = json.len();
    format!("HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}")
        .into_bytes()
}

/// Each event of `events` as a chunk of its own.
fn chunks(events: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(events).unwrap();
    text.split_inclusive("\n\n").flat_map(|event| chunk(event.as_bytes())).collect()
}

impl Texts {
    fn new() -> Texts {
        let mut first = Vec::new();
        workloads::first_event(&mut first);
        let mut word = Vec::new();
        workloads::text_event(WORD, &mut word);
        let mut last = Vec::new();
        workloads::last_events("stop", &mut last);
        let mut block = Vec::new();
        for at in 0..BLOCK_EVENTS {
            workloads::text_event(
                [" the", " file", "\n    ", " &self", " is"][usize::try_from(at % 5).unwrap()],
                &mut block,
            );
        }
        let end = [chunks(&last), b"0\r\n\r\n".to_vec()].concat();
        let head = [STREAM_HEAD, &chunks(&first)].concat();
        Texts {
            models: whole(
                r#"{"object":"list","data":[{"id":"qwen3","object":"model","owned_by":"vllm","max_model_len":1000000000}]}"#,
            ),
            whole: whole(&format!(
                r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1795369563,"model":"qwen3","choices":[{{"index":0,"message":{{"role":"assistant","content":"{WORD}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":14,"total_tokens":15,"completion_tokens":1}}}}"#
            )),
            short: [&head[..], &chunks(&word), &end].concat(),
            one_event: [&head[..], &chunks(&word)].concat(),
            head,
            block: chunks(&block),
            end,
        }
    }
}

/// The size of the whole request that begins with these bytes, if its head is complete. A chunked body ends with its
/// last chunk.
fn request_size(bytes: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?.to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked") {
        return bytes.ends_with(b"0\r\n\r\n").then_some(bytes.len());
    }
    Some(head + usize::try_from(number_after(text.as_bytes(), b"content-length: ").unwrap_or(0)).unwrap())
}

/// The place of `what`. Proxies put such members at the beginning or at the end, so those are searched first.
fn last(bytes: &[u8], what: &[u8]) -> Option<usize> {
    const NEAR: usize = 4096;
    let tail = bytes.len().saturating_sub(NEAR);
    let near = memchr::memmem::find(&bytes[tail..], what).map(|at| tail + at);
    near.or_else(|| memchr::memmem::find(bytes, what))
}

fn number_after(bytes: &[u8], what: &[u8]) -> Option<u64> {
    let at = last(bytes, what)? + what.len();
    let digits =
        bytes[at..].iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

/// The time that a stream of timed events is watched before its figures count.
pub(crate) const SETTLE: Duration = Duration::from_secs(1);
