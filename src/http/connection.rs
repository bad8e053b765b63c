//! The reading half of a connection: heads and bodies out of the stream, and what is left for the next request.
//!
//! Knows the order of things on one connection; [`super::head`] knows what a head means.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::chunks::Chunks;
use super::head::{self, Framing};
use super::response::State;
use super::{Failure, Limits, Request};
use crate::error::{Error, Kind};

/// What one read may bring. On the stack, so that a connection that waits holds no buffer for it.
const READ_SIZE: usize = 8 * 1024;

/// What is set aside for a body before its bytes come: a client's word costs nothing, memory does.
const BODY_RESERVE_MAX: usize = 1024 * 1024;

/// What one read of a body may bring: as much as has come already, between these two, so that a client that sends a byte
/// takes little memory, and one that sends much takes few reads.
const BODY_READ_SIZE_MIN: usize = 16 * 1024;
const BODY_READ_SIZE_MAX: usize = 256 * 1024;

/// Room behind a body, for a parser that reads beyond the end of what it parses.
const BODY_ROOM: usize = 64;

/// What a connection is about to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// The first byte of a request.
    Idle,
    /// The rest of a head that has begun.
    Head,
}

/// One client's connection. See the table in [`super`].
pub struct Connection<S> {
    pub(super) stream: S,
    limits: Limits,
    /// Read, and from `start` on not used yet.
    pub(super) buffer: Vec<u8>,
    start: usize,
    /// What is still to come of the body of the request in hand.
    framing: Framing,
    expects_continue: bool,
    /// Of the request in hand, for its response.
    pub(super) http10: bool,
    pub(super) is_head: bool,
    /// Whether the connection ends with the response in hand.
    pub(super) closing: bool,
    /// Set by others when every connection is to end with its next response.
    drain: Option<Arc<AtomicBool>>,
    pub(super) state: State,
    /// Lines for the head of the response to the request in hand, beside those that the response brings.
    pub(super) extra: Vec<u8>,
    /// Response bytes that wait for the next write; kept for its capacity.
    pub(super) output: Vec<u8>,
}

impl<S: Read + Write> Connection<S> {
    /// A connection on which nothing has happened yet.
    pub fn new(stream: S, limits: Limits) -> Self {
        Connection {
            stream,
            limits,
            buffer: Vec::new(),
            start: 0,
            framing: Framing::Empty,
            expects_continue: false,
            http10: false,
            is_head: false,
            closing: false,
            drain: None,
            state: State::Ready,
            extra: Vec::new(),
            output: Vec::new(),
        }
    }

    /// The stream itself, to poll it or to shut it down.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Once the flag is set, the next response says `connection: close`.
    pub fn close_when(&mut self, drain: Arc<AtomicBool>) {
        self.drain = Some(drain);
    }

    /// The response that is begun next says `connection: close`.
    pub fn close_after_response(&mut self) {
        self.closing = true;
    }

    /// Whether the connection can take no other request: its end was agreed on, or the request in hand has no whole
    /// response, or nobody knows where the next request begins.
    pub fn must_close(&self) -> bool {
        self.closing || !matches!(self.state, State::Ready)
    }

    /// Whether the client may have sent, or be sending, what nobody read. Closing the socket at once would then reset
    /// the connection, and the client might lose a response that it has not read yet.
    pub fn has_unread(&self) -> bool {
        self.has_body_left() || !self.buffered().is_empty()
    }

    /// Waits for the next request's head; `None`: the client closed cleanly between requests, or sent nothing until
    /// the stream's timeout. Pipelined requests are kept in the buffer.
    ///
    /// # Errors
    /// A head that is malformed, too large or too slow; a client that left in the middle of one.
    pub fn read_head(&mut self) -> Result<Option<Request>, Failure> {
        self.read_head_with(|_, _| Ok(()))
    }

    /// The same with a say before each read: `wait` is called with the stream before bytes are taken from it, and
    /// reports its timeout as `TimedOut`. A timeout of the stream itself covers one read only; one that covers a
    /// whole head has to be kept outside.
    ///
    /// # Errors
    /// As [`Connection::read_head`], and those of `wait`.
    pub fn read_head_with(
        &mut self,
        mut wait: impl FnMut(&S, Waiting) -> io::Result<()>,
    ) -> Result<Option<Request>, Failure> {
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
                (Ok(0), Waiting::Head) => return Err(Failure::Closed),
                (Ok(_), _) => {}
                (Err(error), Waiting::Idle) if is_timeout(&error) => return Ok(None),
                (Err(error), _) => return Err(self.failed(error)),
            }
        }
    }

    /// The whole body of the request whose head was read last, decoded and appended to `body`. A client that waits for
    /// `100 Continue` gets it first. Without a body, or when it was read before, nothing happens.
    ///
    /// # Errors
    /// A body that is too large, malformed or too slow; a client that left in the middle of it. The connection then
    /// has to be closed after the response.
    pub fn read_body(&mut self, body: &mut Vec<u8>) -> Result<(), Failure> {
        self.read_body_with(body, |_| Ok(()))
    }

    /// The same with a say before each read: `before_read` is called with the size of what has come of the body, and may
    /// wait until there is memory for as much again (at most 256 KiB), or end it. A body that came together with its head needs no read.
    ///
    /// # Errors
    /// As [`Connection::read_body`], and those of `before_read`.
    pub fn read_body_with<E: From<Failure>>(
        &mut self,
        body: &mut Vec<u8>,
        mut before_read: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let read = match std::mem::replace(&mut self.framing, Framing::Lost) {
            Framing::Empty => Ok(()),
            Framing::Length(length) => self.read_length(length, body, &mut before_read),
            Framing::Chunked(chunks) => self.read_chunked(chunks, body, &mut before_read),
            Framing::Lost => Err(self.reject(Error::invalid("the request's body was lost")).into()),
        };
        if read.is_err() {
            self.closing = true;
            return read;
        }
        self.framing = Framing::Empty;
        // The response may take minutes, and needs no memory for what was read.
        if self.buffered().is_empty() {
            self.buffer = Vec::new();
            self.start = 0;
        }
        Ok(())
    }

    fn read_length<E: From<Failure>>(
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

    /// The next `size` bytes of a body. The room for them is made once, not for each read, and as much as can come in
    /// one: std's `read_to_end` would feel its way up from 8 KiB.
    fn read_part<E: From<Failure>>(
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
                Ok(0) => break Err(Failure::Closed.into()),
                Ok(count) => filled += count,
                Err(error) => break Err(self.failed(error).into()),
            }
        };
        body.truncate(filled);
        read
    }

    fn read_chunked<E: From<Failure>>(
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
            // Before what may be wrong behind it.
            if chunks.size() > self.limits.body_size_max as u64 {
                return Err(self.reject_size().into());
            }
            let found = found.map_err(|error| self.reject(Error::invalid(error.to_string())))?;
            // What follows the body is the next request's.
            self.buffer.extend_from_slice(new.get(found.used..).unwrap_or_default());
            decoded += found.data;
            body.truncate(decoded);
            if chunks.is_ended() {
                return Ok(());
            }
            self.send_continue()?;
            before_read(body.len())?;
            match read_more(&mut self.stream, body) {
                Ok(0) => return Err(Failure::Closed.into()),
                Ok(_) => {}
                Err(error) => return Err(self.failed(error).into()),
            }
        }
    }

    /// Tells a client that asked to go on with the body, unless some of it is here already: then it did not wait.
    fn send_continue(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.expects_continue) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    /// Takes the head out of the buffer if it is there in full.
    fn try_head(&mut self, scanned: usize) -> Result<Option<Request>, Failure> {
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

    fn begin(&mut self, head: head::Head) -> Request {
        self.framing = head.framing;
        self.http10 = head.http10;
        self.expects_continue = head.expects_continue && self.buffered().is_empty();
        self.is_head = head.request.method == "HEAD";
        self.closing = !head.keep_alive;
        self.state = State::Awaiting;
        head.request
    }

    /// Some clients send a line end too many after a body.
    fn skip_line_ends(&mut self) {
        let count = self.buffered().iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.consume(count);
    }

    pub(super) fn has_body_left(&self) -> bool {
        !matches!(self.framing, Framing::Empty)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.load(Ordering::Relaxed))
    }

    fn buffered(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// One read. What was used is dropped first, so that the buffer holds one head or chunk line and one read.
    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.start = 0;
        read_more(&mut self.stream, &mut self.buffer)
    }

    /// A connection may be idle for minutes, so it keeps no memory between requests but for what is pipelined.
    fn give_back(&mut self) {
        self.output = Vec::new();
        self.extra = Vec::new();
        if self.buffered().is_empty() {
            self.buffer = Vec::new();
            self.start = 0;
        }
    }

    fn reject_size(&mut self) -> Failure {
        let message = format!("request body over {} bytes", self.limits.body_size_max);
        self.reject(Error::new(Kind::RequestTooLarge, message))
    }

    /// The request in hand ends here: an answer is due, and nobody knows where the next request begins.
    fn reject(&mut self, error: Error) -> Failure {
        if matches!(self.state, State::Ready) {
            self.state = State::Awaiting;
            self.http10 = false;
            self.is_head = false;
        }
        self.framing = Framing::Lost;
        self.closing = true;
        Failure::Reject(error)
    }

    fn failed(&mut self, error: io::Error) -> Failure {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.kind() {
            _ if is_timeout(&error) => {
                self.reject(Error::new(Kind::RequestTimeout, "the request did not arrive in time"))
            }
            ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => Failure::Closed,
            _ => Failure::Io(error),
        }
    }
}

/// One read, put at the end of `bytes`.
#[inline(never)] // a request that is answered is not to have the room for it below it
fn read_more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut part = [0; READ_SIZE];
    let count = read_once(stream, &mut part)?;
    bytes.extend_from_slice(part.get(..count).unwrap_or_default());
    Ok(count)
}

/// One read that no signal ends.
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
