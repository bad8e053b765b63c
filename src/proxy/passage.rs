//! The client's side of a request that is passed on: the bytes of the answer, and comments while the upstream is silent.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::activity::StepKind;
use crate::error::Error;
use crate::openai::{in_openai_form, openai_error_event};
use crate::transport::Wait;

use super::exchange::{Exchange, STREAM_HEADERS};
use super::options::ClientPatience;
use super::recorded::{error_facts, note_error};

/// The sign of life: a comment, which clients of server-sent events pass over.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// The type of a body whose upstream names none.
const ANY_TYPE: &str = "application/octet-stream";

/// The client of a request that is passed on, and the answer on its way to it.
pub(super) struct Passage {
    exchange: Rc<Exchange>,
    patience: ClientPatience,
    /// True if the client asked for a stream.
    is_streamed: Cell<bool>,
    /// True for `/v1/responses`.
    is_response: bool,
    /// True once the head of a stream has gone out, with an answer or before it.
    has_head: Cell<bool>,
    /// True once bytes of the upstream's answer have gone out: nothing of our own follows.
    has_answer: Cell<bool>,
    /// The last sign of life, or the moment at which the request was here.
    last: Cell<Instant>,
}

impl Passage {
    pub(super) fn new(exchange: Rc<Exchange>, patience: ClientPatience, is_response: bool) -> Rc<Self> {
        let last = Cell::new(Instant::now());
        let (is_streamed, has_head, has_answer) = Default::default();
        Rc::new(Passage { exchange, patience, is_streamed, is_response, has_head, has_answer, last })
    }

    /// Notes that the request is here in full, and whether its client asked for a stream: silence counts from now on.
    pub(super) fn begin(&self, is_streamed: bool) {
        self.is_streamed.set(is_streamed);
        self.last.set(Instant::now());
    }

    pub(super) fn is_streamed(&self) -> bool {
        self.is_streamed.get()
    }

    /// True if the client has the head of a stream: an error can only be an event then.
    pub(super) fn has_head(&self) -> bool {
        self.has_head.get()
    }

    /// True if the client has got a part of the upstream's answer.
    pub(super) fn has_answer(&self) -> bool {
        self.has_answer.get()
    }

    /// Sends the next bytes of the upstream's answer in one write, with the head before the first ones.
    ///
    /// # Errors
    /// Those of the client's connection.
    pub(super) fn write(&self, content_type: Option<&str>, bytes: &[u8]) -> io::Result<()> {
        if !self.has_head.replace(true) {
            self.start(content_type.unwrap_or(ANY_TYPE))?;
        }
        self.has_answer.set(true);
        if !bytes.is_empty() {
            self.exchange.tap().bytes(StepKind::Answer, bytes);
        }
        self.exchange.client().borrow_mut().write(bytes)
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// Those of the client's connection.
    pub(super) fn finish(&self, content_type: Option<&str>) -> io::Result<()> {
        self.write(content_type, b"")?;
        self.exchange.client().borrow_mut().finish()
    }

    /// Sends a whole answer of another status than 200: a refusal in the upstream's own words.
    ///
    /// # Errors
    /// Those of the client's connection.
    pub(super) fn refuse(
        &self,
        status: u16,
        (content_type, retry_after): (&str, Option<u32>),
        body: &[u8],
    ) -> io::Result<()> {
        let id = self.exchange.request_id();
        let seconds = retry_after.map(|seconds| seconds.to_string());
        let mut headers = vec![("content-type", content_type), ("request-id", id), ("x-request-id", id)];
        headers.extend(seconds.as_deref().map(|seconds| ("retry-after", seconds)));
        self.exchange.tap().bytes(StepKind::Answer, body);
        self.exchange.client().borrow_mut().respond(status, &headers, body)
    }

    /// Sends an error in OpenAI's form: as an event behind the head of a stream, otherwise as a status.
    ///
    /// # Errors
    /// Those of the client's connection.
    pub(super) fn fail(&self, error: Error) -> io::Result<()> {
        let (id, tap) = (self.exchange.request_id(), self.exchange.tap());
        let mut client = self.exchange.client().borrow_mut();
        tap.note(StepKind::Failed, b"", || error_facts(&error, self.has_head()));
        if !self.has_head() {
            client.add_header("x-request-id", id)?;
            let error = in_openai_form(error);
            note_error(tap, &error, id);
            return client.respond_error(&error, id);
        }
        let event = openai_error_event(&error, id, self.is_response);
        tap.bytes(StepKind::Answer, event.as_bytes());
        client.write(event.as_bytes())?;
        client.finish()
    }

    fn start(&self, content_type: &str) -> io::Result<()> {
        let id = self.exchange.request_id();
        let [_, cache, buffering] = STREAM_HEADERS;
        let headers =
            [("content-type", content_type), cache, buffering, ("request-id", id), ("x-request-id", id)];
        self.exchange.client().borrow_mut().start_stream(200, &headers)
    }
}

impl Wait for Passage {
    fn client(&self) -> Option<BorrowedFd<'_>> {
        Wait::client(self.exchange.as_ref())
    }

    fn patience(&self) -> Option<Duration> {
        if !self.is_streamed() || self.has_answer() {
            return None;
        }
        let time = if self.has_head() { self.patience.ping_every } else { self.patience.open_after };
        Some((self.last.get() + time).saturating_duration_since(Instant::now()))
    }

    fn on_silence(&self) -> io::Result<()> {
        if !self.has_head.replace(true) {
            self.start(STREAM_HEADERS[0].1)?;
        }
        self.last.set(Instant::now());
        self.exchange.tap().bytes(StepKind::Ping, b"");
        self.exchange.tap().bytes(StepKind::Answer, KEEP_ALIVE);
        self.exchange.client().borrow_mut().write(KEEP_ALIVE)
    }

    fn on_connecting(&self, is_connecting: bool) {
        self.exchange.on_connecting(is_connecting);
    }
}
