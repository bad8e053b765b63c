//! An upstream's response: reads its head, then its body as it arrives.
//!
//! Knows HTTP/1.1's framing (by [`super::head`] and [`Chunks`](crate::http::Chunks)) and connections. The callers know
//! the meaning of the bytes.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::UpstreamConnection;
use super::failure::Failure;
use super::head::{self, Framing, ResponseHead};
use super::idle::Idle;
use super::wait::Call;
use crate::http::{Headers, fitting, is_encoded};

/// Room for a response's head and an event or two, in bytes, since they often come together; doubled for a larger head.
const BEGINNING_SIZE: usize = 2048;

/// Room for the first read of a whole body, in bytes; doubled as the body grows.
const READ_SIZE: usize = 4096;

/// The most bytes of all interim responses (100, 103) to one request.
const INTERIM_SIZE_MAX: usize = 64 * 1024;

/// A connection on which a response has begun to arrive.
pub(super) struct Receiving {
    head: ResponseHead,
    /// Bytes that were read behind the head, still with their framing.
    rest: Vec<u8>,
    connection: UpstreamConnection,
}

/// Sends a request, head and body, and waits for the response's head.
///
/// # Errors
/// [`Failure::Reset`] if the connection breaks; the client has left, a limit has passed, or the reply is not HTTP.
pub(super) fn send_request(
    mut connection: UpstreamConnection,
    request: [&[u8]; 2],
    call: &Call,
) -> Result<Receiving, Failure> {
    connection.send(request, call)?;
    call.mark_sent();
    let mut bytes = vec![0; BEGINNING_SIZE];
    let (mut filled, mut scanned, mut interim) = (0, 0, 0);
    loop {
        let read = bytes.get(..filled).unwrap_or_default();
        if let Some((head, size)) = head::parse(read, scanned)? {
            bytes.truncate(filled);
            bytes.drain(..size);
            interim += size;
            match head.status {
                101 => return Err(Failure::Protocol("status 101, though no upgrade was asked for".into())),
                100..200 if interim > INTERIM_SIZE_MAX => {
                    return Err(Failure::Protocol("too many interim responses".into()));
                }
                100..200 => {
                    filled = bytes.len();
                    scanned = 0;
                    bytes.resize(BEGINNING_SIZE.max(filled), 0);
                    continue;
                }
                _ => return Ok(Receiving { head, rest: bytes, connection }),
            }
        }
        scanned = filled;
        if filled == bytes.len() {
            bytes.resize(2 * filled, 0);
        }
        let space = bytes.get_mut(filled..).unwrap_or_default();
        match connection.read(space, call, Failure::Reset)? {
            0 => return Err(Failure::Reset("closed by the upstream".into())),
            count => filled += count,
        }
    }
}

/// The header by which llm-d gives the reason why it has dropped a request (`pkg/common/error/error.go` of llm-d-router).
const DROPPED: &str = "x-llm-d-request-dropped-reason";

/// A response whose head has arrived, with the beginning of its body. vLLM sends the head at once, and the rest from
/// its first token on. The thread that asked reads the body from it.
///
/// When the body was read to its end (a read returned 0), the connection goes back to the idle ones. When the response
/// is dropped before, or after a failed read, the connection is closed at once, which makes the server stop generating.
pub struct Response {
    /// The HTTP status; never that of a redirect.
    pub status: u16,
    /// `retry-after`, if it is a number of seconds.
    pub retry_after: Option<u32>,
    /// True if the gateway of a cluster has dropped the request instead of passing it to an engine (llm-d).
    pub is_dropped: bool,
    /// All headers.
    pub headers: Headers,
    /// Whether its body began within [`super::CallLimits::loss_at_once`] after the request was sent: then nothing can have
    /// been computed for it.
    pub is_at_once: bool,
    /// The part of the body that arrived with the head and was not read yet.
    beginning: Vec<u8>,
    body: Body,
    call: Call,
    idle: Arc<Idle>,
}

/// The rest of a body.
enum Body {
    Open(Open),
    Ended,
    /// Every further read fails in the same way: a body that broke off must not seem to end.
    Failed(Failure),
}

/// A body that has not ended.
struct Open {
    connection: UpstreamConnection,
    framing: Framing,
    keep_alive: bool,
    /// The fault in the framing behind the data that were read last.
    fault: Option<Failure>,
}

impl Response {
    /// Makes the response, and waits for the beginning of its body, if it has one.
    ///
    /// # Errors
    /// The response is not supported (a redirect, or compressed), or a read failed.
    pub(super) fn begin(receiving: Receiving, call: Call, idle: &Arc<Idle>) -> Result<Self, Failure> {
        let Receiving { head: ResponseHead { status, headers, framing, keep_alive }, mut rest, connection } =
            receiving;
        if (300..400).contains(&status) {
            let target = headers.get("location").unwrap_or_default();
            return Err(Failure::redirected(status, target));
        }
        if let Some(encoding) = headers.get("content-encoding").filter(|encoding| is_encoded(encoding)) {
            return Err(Failure::Encoded(encoding.to_owned()));
        }
        let mut open = Open { connection, framing, keep_alive, fault: None };
        let begun = open.unframe(&mut rest)?;
        rest.truncate(begun);
        let mut response = Response {
            status,
            retry_after: headers.get("retry-after").and_then(|seconds| seconds.trim().parse().ok()),
            is_dropped: status >= 400 && headers.get(DROPPED).is_some(),
            headers,
            is_at_once: false,
            beginning: rest,
            body: Body::Open(open),
            call,
            idle: Arc::clone(idle),
        };
        if response.beginning.is_empty() {
            let mut beginning = std::mem::take(&mut response.beginning);
            beginning.resize(BEGINNING_SIZE, 0);
            let count = response.read_on(&mut beginning)?;
            beginning.truncate(count);
            response.beginning = beginning;
        }
        response.is_at_once = response.call.is_soon();
        response.call.set_begun(true);
        Ok(response)
    }

    /// `content-type`, as sent.
    pub fn content_type(&self) -> Option<&str> {
        self.headers.get("content-type")
    }

    /// The beginning of the body before the first read; usually the first event of a stream.
    pub fn beginning(&self) -> &[u8] {
        &self.beginning
    }

    /// Waits for more of the body, and adds it to [`Response::beginning`]. Returns false at the end.
    ///
    /// # Errors
    /// Those of [`Response::read`]. The beginning stays.
    pub fn read_ahead(&mut self) -> Result<bool, Failure> {
        let mut beginning = std::mem::take(&mut self.beginning);
        let filled = beginning.len();
        beginning.resize(filled + BEGINNING_SIZE, 0);
        let read = self.read_on(beginning.get_mut(filled..).unwrap_or_default());
        beginning.truncate(filled + read.as_ref().copied().unwrap_or_default());
        self.beginning = beginning;
        Ok(read? > 0)
    }

    /// Limits the time for the rest of the body. The caller does not need that rest; reading it only lets the
    /// connection serve again, which is worth no more than `time`.
    pub fn limit_rest(&self, time: Duration) {
        self.call.set_begun(true);
        self.call.limit_rest(time);
    }

    /// Waits for the body as long as for its first byte, counted from the request's end, until
    /// [`Response::mark_content`] is called: some servers send an event without content at once, and then work on the prompt.
    pub fn await_content(&self) {
        self.call.set_begun(false);
    }

    /// The time when the request was sent.
    pub fn sent(&self) -> Option<Instant> {
        self.call.sent()
    }

    /// Ends [`Response::await_content`]: from now on the limit on the time between two bytes holds.
    pub fn mark_content(&self) {
        self.call.set_begun(true);
    }

    /// Reads the next bytes from the connection; 0: the end.
    fn read_on(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let open = match &mut self.body {
            Body::Open(open) => open,
            Body::Ended => return Ok(0),
            Body::Failed(failure) => return Err(failure.clone()),
        };
        match open.read(buffer, &self.call) {
            Ok(0) => {
                if let Body::Open(open) = std::mem::replace(&mut self.body, Body::Ended)
                    && open.keep_alive
                {
                    self.idle.put(open.connection);
                }
                Ok(0)
            }
            Ok(count) => Ok(count),
            Err(failure) => {
                if failure == Failure::Stopped {
                    self.idle.clear(); // the others are open and silent as well
                }
                self.body = Body::Failed(failure.clone());
                Err(failure)
            }
        }
    }
}

impl Response {
    /// Waits for the next bytes of the body; 0: its end.
    ///
    /// # Errors
    /// The body broke off, a limit has passed, or the client has left. Every later read fails in the same way.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        if buffer.is_empty() || self.beginning.is_empty() {
            // A read into an empty buffer returns 0, which does not mean the end.
            return if buffer.is_empty() { Ok(0) } else { self.read_on(buffer) };
        }
        let count = buffer.len().min(self.beginning.len());
        for (to, from) in buffer.iter_mut().zip(self.beginning.drain(..count)) {
            *to = from;
        }
        if self.beginning.is_empty() {
            self.beginning = Vec::new(); // frees the memory, since the answer may take minutes
        }
        Ok(count)
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// Those of [`Response::read`]; [`Failure::TooLarge`] if it has more than `size_max` bytes.
    pub fn read_all(mut self, size_max: usize) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        match self.read_into(&mut body, size_max) {
            Ok(true) => Ok(body),
            Ok(false) => Err(Failure::TooLarge(size_max)),
            Err(failure) => Err(failure),
        }
    }

    /// Reads the body up to `size_max` bytes, or as much as arrives. It serves error texts, whose end says nothing new.
    pub fn read_some(mut self, size_max: usize) -> Vec<u8> {
        let mut body = Vec::new();
        // The part of a body that breaks off is still worth showing.
        let _ = self.read_into(&mut body, size_max);
        body
    }

    /// Reads up to `size_max` bytes. Returns true if that was the whole body.
    fn read_into(&mut self, body: &mut Vec<u8>, size_max: usize) -> Result<bool, Failure> {
        loop {
            let filled = body.len();
            body.resize(filled.saturating_mul(2).max(READ_SIZE), 0);
            let read = self.read(body.get_mut(filled..).unwrap_or_default());
            body.truncate(filled + read.as_ref().copied().unwrap_or_default());
            if read? == 0 {
                return Ok(true);
            }
            if body.len() > size_max {
                body.truncate(size_max);
                return Ok(false);
            }
        }
    }
}

impl Open {
    /// Reads the next data of the body; 0: its end.
    fn read(&mut self, buffer: &mut [u8], call: &Call) -> Result<usize, Failure> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        loop {
            let room = match &self.framing {
                Framing::Length(left) => {
                    let size = fitting(*left, buffer.len());
                    buffer.get_mut(..size).unwrap_or_default()
                }
                Framing::Chunked(chunks) if chunks.is_ended() => return Ok(0),
                Framing::Chunked(_) | Framing::UntilClose => &mut *buffer,
            };
            if room.is_empty() {
                return Ok(0);
            }
            let count = self.connection.read(room, call, Failure::Truncated)?;
            if count == 0 {
                return match self.framing {
                    Framing::UntilClose => Ok(0),
                    _ => Err(Failure::Truncated("closed by the upstream".into())),
                };
            }
            // Bytes of framing alone bring no data, so it reads again.
            match self.unframe(buffer.get_mut(..count).unwrap_or_default())? {
                0 => {}
                count => return Ok(count),
            }
        }
    }

    /// Moves the data in the next bytes of the body to their front, and returns their number.
    fn unframe(&mut self, bytes: &mut [u8]) -> Result<usize, Failure> {
        let (data, used) = match &mut self.framing {
            Framing::Length(left) => {
                let count = fitting(*left, bytes.len());
                *left -= count as u64;
                (count, count)
            }
            Framing::Chunked(chunks) => {
                let (decoded, malformed) = chunks.decode_part(bytes);
                let fault = malformed.map(|malformed| Failure::Protocol(malformed.to_string()));
                // An answer may be whole before the fault, so its data come first.
                if let (Some(fault), 0) = (&fault, decoded.data) {
                    return Err(fault.clone());
                }
                self.fault = fault;
                (decoded.data, decoded.used)
            }
            Framing::UntilClose => (bytes.len(), bytes.len()),
        };
        // The next call would take unexpected bytes for its answer, so the connection must not be used again.
        self.keep_alive &= used == bytes.len() && self.connection.is_whole();
        Ok(data)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}
