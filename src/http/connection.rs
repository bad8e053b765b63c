//! The reading half of a connection: takes heads and bytes of bodies out of the stream, and keeps the rest for the next
//! request.
//!
//! Knows the order of reads and writes on one connection; [`super::head`] parses a head.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::chunks::Chunks;
use super::head::{self, RequestFraming};
use super::request::{Request, RequestFailure, RequestLimits};
use super::state::State;
use crate::error::{Error, Kind};

/// The size of one read, in bytes. The room is on the stack, so that a waiting connection holds no buffer for it.
const READ_SIZE: usize = 8 * 1024;

/// The most memory reserved for a body before its bytes come, in bytes. A client can announce any length at no cost,
/// but memory has a cost.
const BODY_RESERVE_MAX: usize = 1024 * 1024;

/// The limits on the room for one read of a body. Between them it is the size of the body so far. So a client that
/// sends a single byte takes little memory, and one that sends much takes few reads.
const BODY_READ_SIZE_MIN: usize = 16 * 1024;
const BODY_READ_SIZE_MAX: usize = 256 * 1024;

/// Room behind a body, for a parser that reads beyond the end of what it parses.
const BODY_ROOM: usize = 64;

/// The bytes that a connection is about to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The first byte of a request.
    Idle,
    /// The rest of a head that has begun.
    Head,
}

/// A refusal that whoever serves the connection sends later, as the connection's last response.
#[derive(Debug)]
pub struct LateRefusal {
    /// How long it waits.
    pub delay: Duration,
    /// The error that the client gets.
    pub error: Error,
    /// The request's id.
    pub request_id: String,
}

/// How far a server has come towards its end. All of its connections share it.
#[derive(Debug, Default)]
pub struct ServerEnd {
    is_draining: AtomicBool,
    is_cut: AtomicBool,
}

impl ServerEnd {
    /// Notes that the server stops: every connection is to end with its next response.
    pub fn begin_drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Notes that requests in progress end now.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }
}

/// One client's connection. See the table in [`super`].
pub struct Connection<S> {
    pub(super) stream: S,
    limits: RequestLimits,
    /// Bytes that were read; those from `start` on are not used yet.
    pub(super) buffer: Vec<u8>,
    start: usize,
    /// The end of the current request's body, counted from the bytes that were read so far.
    framing: RequestFraming,
    expects_continue: bool,
    /// True if the current request is HTTP/1.0, for its response.
    pub(super) http10: bool,
    pub(super) is_head: bool,
    /// True if the connection ends with the current response.
    pub(super) closing: bool,
    /// True once the handler has admitted a request.
    is_known: bool,
    /// The response to the current request, if it waits.
    late: Option<LateRefusal>,
    /// The end of the server, if the connection belongs to one.
    end: Option<Arc<ServerEnd>>,
    pub(super) state: State,
    /// Lines for the head of the response to the request in hand, beside those that the response brings.
    pub(super) extra: Vec<u8>,
    /// Response bytes that wait for the next write; kept for its capacity.
    pub(super) output: Vec<u8>,
}

impl<S: Read + Write> Connection<S> {
    /// A connection on which nothing has happened yet.
    pub fn new(stream: S, limits: RequestLimits) -> Self {
        Connection {
            stream,
            limits,
            buffer: Vec::new(),
            start: 0,
            framing: RequestFraming::Empty,
            expects_continue: false,
            http10: false,
            is_head: false,
            closing: false,
            is_known: false,
            late: None,
            end: None,
            state: State::Ready,
            extra: Vec::new(),
            output: Vec::new(),
        }
    }

    /// The stream itself, to poll it or to shut it down.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream itself, to end it.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Makes the connection follow the end of its server: once that drains, responses say `connection: close`.
    pub fn end_with(&mut self, end: Arc<ServerEnd>) {
        self.end = Some(end);
    }

    /// The number of open connections of the same server, this one included. It counts those who share the server's end: each
    /// connection, and the server itself.
    pub fn open_connections(&self) -> usize {
        self.end.as_ref().map_or(1, |end| Arc::strong_count(end).saturating_sub(1))
    }

    /// True if the server stops, and lets requests in progress finish.
    pub fn is_draining(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.is_draining.load(Ordering::Relaxed))
    }

    /// True if the server itself has ended the request in progress. Its client is still there and can be told so, though
    /// nothing more can be read from it.
    pub fn is_cut(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.is_cut.load(Ordering::Relaxed))
    }

    /// Notes that a request was admitted. A server keeps such a connection longer than others.
    pub fn set_known(&mut self) {
        self.is_known = true;
    }

    /// True if any request on this connection was admitted.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// Leaves the response to the current request to whoever serves the connection.
    pub fn refuse_later(&mut self, refusal: LateRefusal) {
        self.late = Some(refusal);
    }

    /// True if the response to the current request waits.
    pub fn is_late(&self) -> bool {
        self.late.is_some()
    }

    /// Takes the refusal that waits.
    pub fn take_late(&mut self) -> Option<LateRefusal> {
        self.late.take()
    }

    /// Makes the next response say `connection: close`.
    pub fn close_after_response(&mut self) {
        self.closing = true;
    }

    /// True if the connection can serve no other request: its end was agreed on, the current request has no complete
    /// response, or it is unknown where the next request begins.
    pub fn must_close(&self) -> bool {
        self.closing || !matches!(self.state, State::Ready)
    }

    /// True if the client may have sent, or be sending, bytes that were not read. Closing the socket at once would then
    /// reset the connection, and the client might lose a response that it has not read yet.
    pub fn has_unread(&self) -> bool {
        self.has_body_left() || !self.buffered().is_empty()
    }

    /// Waits for the next request's head. `None`: the client closed cleanly between requests, or sent nothing until the
    /// stream's timeout. Pipelined requests stay in the buffer.
    ///
    /// # Errors
    /// The head is malformed, too large or too slow, or the client left in the middle of it.
    pub fn read_head(&mut self) -> Result<Option<Request>, RequestFailure> {
        self.read_head_with(|_, _| Ok(()))
    }

    /// Waits for the next request's head, like [`Connection::read_head`], and calls `wait` with the stream before each
    /// read. `wait` reports its timeout as `TimedOut`. A timeout of the stream covers one read only, so the caller
    /// keeps a deadline for a whole head in `wait`.
    ///
    /// # Errors
    /// Those of [`Connection::read_head`], and those of `wait`.
    pub fn read_head_with(
        &mut self,
        mut wait: impl FnMut(&S, Waiting) -> io::Result<()>,
    ) -> Result<Option<Request>, RequestFailure> {
        if self.must_close() {
            return Ok(None);
        }
        self.give_back();
        let mut scanned = 0;
        loop {
            if scanned == 0 {
                self.skip_line_ends();
            }
            if let Some(request) = self.try_head(scanned)? {
                return Ok(Some(request));
            }
            scanned = self.buffered().len();
            let waiting = if scanned == 0 { Waiting::Idle } else { Waiting::Head };
            match (wait(&self.stream, waiting).and_then(|()| self.fill()), waiting) {
                (Ok(0), Waiting::Idle) => return Ok(None),
                (Ok(0), Waiting::Head) => return Err(RequestFailure::Closed),
                (Ok(_), _) => {}
                (Err(error), Waiting::Idle) if is_timeout(&error) => return Ok(None),
                (Err(error), _) => return Err(self.failed(error)),
            }
        }
    }

    /// Reads the whole body of the request whose head was read last, decodes it and appends it to `body`. A client that
    /// waits for `100 Continue` gets it first. Does nothing if there is no body, or if it was read before.
    ///
    /// # Errors
    /// The body is too large, malformed or too slow, or the client left in the middle of it. The connection then has to
    /// be closed after the response.
    pub fn read_body(&mut self, body: &mut Vec<u8>) -> Result<(), RequestFailure> {
        self.read_body_with(body, |_| Ok(()))
    }

    /// Reads the body like [`Connection::read_body`], and calls `before_read` before each read with the size of the
    /// body so far. `before_read` may wait until there is memory for as much again (at most 256 KiB), or fail, which
    /// ends the body. It is not called for a body that came together with its head.
    ///
    /// # Errors
    /// Those of [`Connection::read_body`], and those of `before_read`.
    pub fn read_body_with<E: From<RequestFailure>>(
        &mut self,
        body: &mut Vec<u8>,
        mut before_read: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let read = match std::mem::replace(&mut self.framing, RequestFraming::Lost) {
            RequestFraming::Empty => Ok(()),
            RequestFraming::Length(length) => self.read_length(length, body, &mut before_read),
            RequestFraming::Chunked(chunks) => self.read_chunked(chunks, body, &mut before_read),
            RequestFraming::Lost => Err(self.reject(Error::invalid("the request's body was lost")).into()),
        };
        if read.is_err() {
            self.closing = true;
            return read;
        }
        self.framing = RequestFraming::Empty;
        // The response may take minutes, so free the memory of the bytes that were read.
        if self.buffered().is_empty() {
            self.buffer = Vec::new();
            self.start = 0;
        }
        Ok(())
    }

    fn read_length<E: From<RequestFailure>>(
        &mut self,
        length: u64,
        body: &mut Vec<u8>,
        before_read: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let length = match usize::try_from(length) {
            Ok(length) if length <= self.limits.body_size_max => length,
            _ => return Err(self.reject_size().into()),
        };
        body.reserve(length.min(BODY_RESERVE_MAX) + BODY_ROOM);
        let buffered = self.buffered();
        let buffered = buffered.get(..length).unwrap_or(buffered);
        body.extend_from_slice(buffered);
        let taken = buffered.len();
        self.consume(taken);
        let left = length - taken;
        if left == 0 {
            return Ok(());
        }
        self.send_continue()?;
        let end = body.len() + left;
        while body.len() < end {
            let size = body.len().clamp(BODY_READ_SIZE_MIN, BODY_READ_SIZE_MAX);
            self.read_part(size.min(end - body.len()), body, before_read)?;
        }
        Ok(())
    }

    /// Reads the next `size` bytes of a body. The room for them is made once, not for each read, and each read may fill
    /// all of it: std's `read_to_end` would begin with reads of 8 KiB and grow them step by step.
    fn read_part<E: From<RequestFailure>>(
        &mut self,
        size: usize,
        body: &mut Vec<u8>,
        before_read: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut filled = body.len();
        body.resize(filled + size, 0);
        let read = loop {
            let room = body.get_mut(filled..).unwrap_or_default();
            if room.is_empty() {
                break Ok(());
            }
            if let Err(error) = before_read(filled) {
                break Err(error);
            }
            match read_once(&mut self.stream, room) {
                Ok(0) => break Err(RequestFailure::Closed.into()),
                Ok(count) => filled += count,
                Err(error) => break Err(self.failed(error).into()),
            }
        };
        body.truncate(filled);
        read
    }

    fn read_chunked<E: From<RequestFailure>>(
        &mut self,
        mut chunks: Chunks,
        body: &mut Vec<u8>,
        before_read: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut decoded = body.len();
        body.extend_from_slice(self.buffered());
        self.consume(self.buffered().len());
        loop {
            let new = body.get_mut(decoded..).unwrap_or_default();
            let found = chunks.decode(new);
            // Check the limit first: a body over it gets this error, even if later bytes are wrong as well.
            if chunks.size() > self.limits.body_size_max as u64 {
                return Err(self.reject_size().into());
            }
            let found = found.map_err(|error| self.reject(Error::invalid(error.to_string())))?;
            // Bytes behind the body belong to the next request.
            self.buffer.extend_from_slice(new.get(found.used..).unwrap_or_default());
            decoded += found.data;
            body.truncate(decoded);
            if chunks.is_ended() {
                return Ok(());
            }
            self.send_continue()?;
            before_read(body.len())?;
            match read_more(&mut self.stream, body) {
                Ok(0) => return Err(RequestFailure::Closed.into()),
                Ok(_) => {}
                Err(error) => return Err(self.failed(error).into()),
            }
        }
    }

    /// Sends `100 Continue` if the client asked for it. A client that has sent some of the body already does not wait
    /// for it.
    fn send_continue(&mut self) -> Result<(), RequestFailure> {
        if std::mem::take(&mut self.expects_continue) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Takes the head out of the buffer if it is complete.
    fn try_head(&mut self, scanned: usize) -> Result<Option<Request>, RequestFailure> {
        let bytes = self.buffered();
        if let Some(error) = head::refuse_start(bytes) {
            return Err(self.reject(error));
        }
        let end = head::end(bytes, scanned);
        if end.unwrap_or(bytes.len()) > self.limits.head_size_max {
            let message = format!("request headers over {} bytes", self.limits.head_size_max);
            return Err(self.reject(Error::new(Kind::HeadersTooLarge, message)));
        }
        let Some(end) = end else { return Ok(None) };
        match head::parse(bytes.get(..end).unwrap_or_default()) {
            Ok(head) => {
                self.consume(end);
                Ok(Some(self.begin(head)))
            }
            Err(error) => Err(self.reject(error)),
        }
    }

    fn begin(&mut self, head: head::RequestHead) -> Request {
        self.framing = head.framing;
        self.http10 = head.http10;
        self.expects_continue = head.expects_continue && self.buffered().is_empty();
        self.is_head = head.request.method == "HEAD";
        self.closing = !head.keep_alive;
        self.state = State::Awaiting;
        head.request
    }

    /// Skips empty lines before a request, since some clients send a line end too many after a body.
    fn skip_line_ends(&mut self) {
        let count = self.buffered().iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.consume(count);
    }

    pub(super) fn has_body_left(&self) -> bool {
        !matches!(self.framing, RequestFraming::Empty)
    }

    fn buffered(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Reads once. Used bytes are dropped first, so that the buffer holds at most one head or chunk line and one read.
    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.start = 0;
        read_more(&mut self.stream, &mut self.buffer)
    }

    /// Frees the memory except for pipelined bytes, since a connection may be idle for minutes.
    fn give_back(&mut self) {
        self.output = Vec::new();
        self.extra = Vec::new();
        if self.buffered().is_empty() {
            self.buffer = Vec::new();
            self.start = 0;
        }
    }

    fn reject_size(&mut self) -> RequestFailure {
        let message = format!("request body over {} bytes", self.limits.body_size_max);
        self.reject(Error::new(Kind::RequestTooLarge, message))
    }

    /// Ends the current request: it needs an error response, and it is unknown where the next request begins.
    fn reject(&mut self, error: Error) -> RequestFailure {
        if matches!(self.state, State::Ready) {
            self.state = State::Awaiting;
            self.http10 = false;
            self.is_head = false;
        }
        self.framing = RequestFraming::Lost;
        self.closing = true;
        RequestFailure::Reject(error)
    }

    fn failed(&mut self, error: io::Error) -> RequestFailure {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.kind() {
            _ if is_timeout(&error) => {
                self.reject(Error::new(Kind::RequestTimeout, "the request did not arrive in time"))
            }
            ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => RequestFailure::Closed,
            _ => RequestFailure::Io(error),
        }
    }
}

/// Reads once, and appends the bytes to `bytes`.
// `inline(never)`: keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget).
#[inline(never)]
fn read_more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut part = [0; READ_SIZE];
    let count = read_once(stream, &mut part)?;
    bytes.extend_from_slice(part.get(..count).unwrap_or_default());
    Ok(count)
}

/// Reads once; a signal does not end the read.
fn read_once(stream: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
