//! The client's side of one request: the answer that is sent, and the signs of life while the upstream is silent.
//!
//! An exchange is shared by the stages of the request and by the wait for the upstream, all in one thread.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::anthropic::{Delta, Event, StopReason, Usage};
use crate::error::{Error, Kind, RelayedAnswer, Retry};
use crate::http::Socket;
use crate::ids;
use crate::json::{Parser, Value};
use crate::openai::{Counts, UpstreamError};
use crate::rescue::CallFamily;
use crate::server::Client;
use crate::translate::{Asked, MessageFold, MessageStream, Plan, Progress};
use crate::transport::Wait;

use super::budget::MemoryShare;
use super::filter::Filter;
use super::options::ClientPatience;
use super::recorded::asked_facts;
use super::state::Proxy;
use super::stop::Stop;
use crate::activity::{ActiveRequest, CLIENT_GONE, Moment, Phase, Record, StepKind, Tap};

pub(super) const STREAM_HEADERS: [(&str, &str); 3] = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    // without this header, an nginx in front of this server holds events back
    ("x-accel-buffering", "no"),
];

/// The seconds after which the client of a stopped server should try again: by then another process serves.
const CUT_RETRY_AFTER_S: u32 = 2;

/// The largest buffer for events that a stream keeps for reuse. Large events are rare and streams are long, so a larger
/// buffer is freed.
const EVENTS_KEPT_MAX: usize = 64 * 1024;

/// The client of one request, and the answer on its way to it.
pub(super) struct Exchange {
    client: Client,
    socket: Socket,
    /// The request as other threads see it.
    active: Arc<ActiveRequest>,
    /// The phase to return to after a connection is made: waiting for the upstream's head, or asking it for its models.
    before_connect: Cell<Phase>,
    /// When that connection was begun.
    connect_began: Cell<Instant>,
    /// When the client began to wait: its request had arrived in full.
    began: Cell<Instant>,
    patience: ClientPatience,
    last_event: Cell<Instant>,
    /// The pings that were sent.
    pings: Cell<u64>,
    /// When the client last got an event other than a ping.
    last_progress: Cell<Instant>,
    /// Notes what passes, if the request is recorded.
    tap: Tap,
    /// The memory for bodies and answers that this request holds.
    share: MemoryShare,
    answer: RefCell<Option<AnswerUnderWay>>,
    /// True if the expected answer passes as the upstream sends it: then nothing but pings may go before it.
    passes: Cell<bool>,
}

/// An answer on its way to the client.
struct AnswerUnderWay {
    stream: MessageStream,
    filter: Option<Filter>,
    output: Output,
    summary: Summary,
}

/// The destination of the answer's events.
enum Output {
    /// A client that streams: the encoded events since the last write.
    Events { bytes: Vec<u8>, has_head: bool },
    /// A client that does not stream: the message put together from the events.
    Fold(MessageFold),
    /// The upstream's own bytes, which go to the client as they come.
    Passed,
    /// A whole answer of the upstream.
    PassedWhole(RelayedAnswer),
}

/// Facts about an answer, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Summary {
    /// When the model's first content arrived. Heads, roles and progress, which servers send earlier, do not count.
    pub(super) first: Option<Instant>,
    /// When the first text or tool call arrived.
    pub(super) first_word: Option<Instant>,
    /// The same two moments of earlier rounds, and the counts of the first one; `None` in the first round.
    earlier: Option<(Option<Instant>, Option<Instant>, Counts)>,
    pub(super) end: Option<(StopReason, Usage)>,
    /// The counts that an answer that passes has told so far, also if it never ends.
    pub(super) told: Usage,
    /// The number of values in tool call arguments that were coerced, and of places that were repaired.
    pub(super) changes: (usize, usize),
    /// The number of calls that were found in text, and the family of their form.
    pub(super) rescued: (usize, Option<&'static CallFamily>),
    /// True if the text was ended because it repeated one line.
    pub(super) has_looped: bool,
    /// The tokens at the end that were counted and not shown ([`MessageStream::dropped_tokens`]).
    pub(super) dropped_tokens: u64,
}

impl Summary {
    /// The summary with the first moments of the whole answer.
    fn of_all_rounds(self) -> Self {
        let (first, first_word, _) = self.earlier.unwrap_or_default();
        Summary { first: first.or(self.first), first_word: first_word.or(self.first_word), ..self }
    }
}

impl Output {
    fn event(&mut self, event: &Event<'_>) {
        match self {
            Output::Events { bytes, .. } => event.encode(bytes),
            Output::Fold(fold) => fold.event(event),
            Output::Passed | Output::PassedWhole(_) => {}
        }
    }
}

impl AnswerUnderWay {
    fn is_streamed(&self) -> bool {
        matches!(self.output, Output::Events { .. })
    }

    /// Runs one step of the translation and passes its events on to the client.
    ///
    /// # Errors
    /// A hook of policy closed failed, in this step or an earlier one. Neither the event at which it failed nor any
    /// later one was passed on, and the answer must end with this error.
    fn step<T>(
        &mut self,
        step: impl FnOnce(&mut MessageStream, &mut crate::translate::Emit<'_>) -> T,
    ) -> Result<T, Error> {
        let AnswerUnderWay { stream, filter, output, summary: Summary { first, first_word, end, .. } } = self;
        let mut pass = |event: &Event<'_>| {
            // Record an end only if the client gets it.
            if let Event::MessageDelta { stop_reason, usage, .. } = event {
                *end = Some((*stop_reason, *usage));
            }
            output.event(event);
        };
        let stepped = step(stream, &mut |event| {
            if let Some(filter) = filter {
                filter.event(event, &mut pass);
                if filter.failure().is_some() {
                    return;
                }
            } else {
                pass(event);
            }
            let is_first = first.is_none();
            match event {
                Event::MessageStart { .. } | Event::Ping | Event::Usage { .. } | Event::Error { .. } => {}
                _ if first_word.is_some() => {}
                _ => {
                    let first = *first.get_or_insert_with(Instant::now);
                    if is_word(event) {
                        // The first piece needs no second look at the clock.
                        *first_word = Some(if is_first { first } else { Instant::now() });
                    }
                }
            }
        });
        match filter.as_ref().and_then(Filter::failure) {
            Some(error) => Err(error.clone()),
            None => Ok(stepped),
        }
    }

    /// Ends a broken answer with an error event. No hook sees it.
    fn fail(&mut self, error: &Error, request_id: &str) {
        let AnswerUnderWay { stream, filter, output, .. } = self;
        let mut pass = |event: &Event<'_>| output.event(event);
        match filter {
            None => stream.fail(error, request_id, &mut pass),
            Some(filter) => filter.fail(error, request_id, &mut pass),
        }
    }
}

impl Exchange {
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    pub(super) fn new(proxy: &Proxy, client: &Client, active: &Arc<ActiveRequest>) -> Rc<Self> {
        let patience = proxy.options.patience;
        let now = Instant::now();
        Rc::new(Exchange {
            client: client.clone(),
            socket: client.borrow().stream().socket().clone(),
            active: Arc::clone(active),
            before_connect: Cell::new(Phase::Body),
            connect_began: Cell::new(now),
            began: Cell::new(now),
            patience,
            last_event: Cell::new(now),
            pings: Cell::new(0),
            last_progress: Cell::new(now),
            tap: Tap::default(),
            share: proxy.budget.bodies(),
            answer: RefCell::new(None),
            passes: Cell::new(false),
        })
    }

    /// Notes what passes, if the request is recorded.
    pub(super) fn tap(&self) -> &Tap {
        &self.tap
    }

    /// The memory for bodies and answers that this request holds.
    pub(super) fn share(&self) -> &MemoryShare {
        &self.share
    }

    /// Waits until there is room for `size` bytes of this request and its answer, and holds them.
    ///
    /// # Errors
    /// See [`MemoryShare::claim`].
    pub(super) fn claim(&self, size: usize) -> Result<bool, Stop> {
        self.share.claim(size, self)
    }

    /// The bytes gathered so far of an answer: all of it for a client that does not stream, and for one that does the
    /// part that cannot go out yet.
    pub(super) fn gathered_size(&self) -> usize {
        self.with(|answer| {
            let folded = match &answer.output {
                Output::Events { .. } | Output::Passed => 0,
                Output::PassedWhole(answer) => answer.body.len(),
                Output::Fold(fold) => fold.size(),
            };
            // A tool call of a message that is put together is in both.
            folded.max(answer.stream.held_size())
        })
        .unwrap_or(0)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The reason why the request ends. A server that ends its requests at the end of a stop looks like a client that
    /// has left, so that every wait notices it; but this client is still there, and is told to try again.
    pub(super) fn end_of(&self, stop: Stop) -> Stop {
        match stop {
            Stop::ClientGone if self.client.borrow().is_cut() => {
                let error = Error::new(Kind::Overloaded, "sparkgap was stopped: send the request again");
                Stop::Error(error.retry(Retry::After(CUT_RETRY_AFTER_S)))
            }
            other => other,
        }
    }

    /// The client's socket, to watch it for a hang-up.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn request_id(&self) -> &str {
        self.active.request_id()
    }

    /// The request as other threads see it; used to set its phase.
    pub(super) fn active(&self) -> &ActiveRequest {
        &self.active
    }

    /// Marks the request as received in full: silence is measured from now on.
    pub(super) fn received(&self) {
        let now = Instant::now();
        self.began.set(now);
        self.last_event.set(now);
        self.active.mark(Moment::Received, now);
        self.active.enter(Phase::Hook);
    }

    /// Notes when the upstream had the request, if that is known, and that its answer begins now. The first round counts.
    pub(super) fn mark_head(&self, sent: Option<Instant>) {
        if self.with(|answer| answer.summary.earlier.is_some()) == Some(true) {
            return;
        }
        self.active.mark(Moment::Head, Instant::now());
        if let Some(sent) = sent {
            self.active.mark(Moment::Sent, sent);
        }
    }

    /// Notes that the client has left, or takes nothing of its answer. Returns the phase in which it did.
    pub(super) fn note_left(&self, error: &io::Error, record: &mut Record) -> Phase {
        use io::ErrorKind::{TimedOut, WouldBlock};
        let is_stuck = matches!(error.kind(), TimedOut | WouldBlock);
        let phase = if is_stuck { Phase::Unread } else { self.active.phase() };
        record.status = CLIENT_GONE;
        record.error = Some(match is_stuck {
            true => "the client took nothing of its answer for too long".to_string(),
            false => format!("the client has left ({})", phase.name()),
        });
        phase
    }

    /// True if the answer is sent event by event.
    pub(super) fn streams(&self) -> bool {
        self.with(|answer| answer.is_streamed()) == Some(true)
    }

    /// True if the answer was created.
    pub(super) fn is_expecting(&self) -> bool {
        self.answer.borrow().is_some()
    }

    /// Creates the answer, so that it can begin even before the upstream says anything.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    pub(super) fn expect(&self, plan: Plan, message_id: String, filter: Option<Filter>) {
        self.tap.note(StepKind::Expect, b"", || asked_facts(&plan.asked, Some(&message_id), plan.stream));
        let output = match plan.stream {
            // Pings may have gone out before.
            true => Output::Events { bytes: Vec::new(), has_head: self.has_written() },
            false => Output::Fold(MessageFold::default()),
        };
        self.passes.set(false);
        let stream = MessageStream::new(plan, message_id);
        *self.answer.borrow_mut() =
            Some(AnswerUnderWay { stream, filter, output, summary: Summary::default() });
    }

    /// True if another upstream may still give the answer: the client has got nothing of it but reasoning.
    pub(super) fn may_restart(&self) -> bool {
        let may = |answer: &mut AnswerUnderWay| !answer.is_streamed() || answer.stream.may_restart();
        self.with(may).unwrap_or(true)
    }

    /// Expects the answer of another upstream. If the client has got the beginning of an answer, it goes on there.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    pub(super) fn expect_elsewhere(&self, plan: Plan, filter: impl FnOnce() -> Option<Filter>) {
        if self.has_message() {
            self.tap.note(StepKind::Expect, b"", || asked_facts(&plan.asked, None, plan.stream));
            self.with(|answer| {
                answer.stream.restart(plan);
                // From here on only the content of the other upstream counts.
                (answer.summary.first, answer.summary.first_word) = (None, None);
            });
        } else {
            self.expect(plan, ids::message_id(), filter());
        }
    }

    /// Makes the expected answer one to a request with other limits.
    pub(super) fn set_limits(&self, asked: &Asked) {
        self.tap.note(StepKind::Limits, b"", || asked_facts(asked, None, self.streams()));
        self.with(|answer| answer.stream.set_limits(asked));
    }

    /// Answers with a message that a hook gave. The message has at least `content`, a string or an array of blocks.
    ///
    /// # Errors
    /// A hook of policy closed that sees answers failed.
    pub(super) fn respond(&self, message: &Value<'_>) -> Result<(), Error> {
        self.with(|answer| answer.step(|stream, emit| stream.replay(message, emit))).unwrap_or(Ok(()))
    }

    fn with<T>(&self, step: impl FnOnce(&mut AnswerUnderWay) -> T) -> Option<T> {
        self.answer.borrow_mut().as_mut().map(step)
    }

    /// True if a streamed answer has begun. Then an error is sent as an event.
    pub(super) fn started(&self) -> bool {
        self.streams() && (self.has_message() || self.has_written())
    }

    /// True if a message of sparkgap's own has begun.
    pub(super) fn has_message(&self) -> bool {
        self.streams() && self.with(|answer| answer.stream.started()) == Some(true)
    }

    /// Expects an answer that passes as the upstream sends it.
    pub(super) fn expect_passing(&self, plan: Plan) {
        self.expect(plan, ids::message_id(), None);
        self.passes.set(true);
    }

    /// Begins to pass a stream on, with the upstream's headers if none were sent yet.
    pub(super) fn begin_passing(&self, status: u16, headers: &[(String, String)]) -> io::Result<()> {
        if !self.has_written() {
            let [_, cache, buffering] = STREAM_HEADERS;
            let mut all = vec![cache, buffering];
            all.extend(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            if !all.iter().any(|(name, _)| *name == "request-id") {
                all.push(("request-id", self.request_id()));
            }
            self.client.borrow_mut().start_stream(status, &all)?;
        }
        self.with(|answer| answer.output = Output::Passed);
        Ok(())
    }

    /// Passes bytes of the upstream's stream on, in one write.
    pub(super) fn pass(&self, bytes: &[u8]) -> io::Result<()> {
        log::trace!("{} to the client: {}", self.request_id(), String::from_utf8_lossy(bytes));
        self.tap.bytes(StepKind::Answer, bytes);
        self.client.borrow_mut().write(bytes)
    }

    /// Takes a whole answer, which [`Exchange::finish`] passes on.
    pub(super) fn pass_whole(&self, whole: RelayedAnswer) {
        self.with(|answer| answer.output = Output::PassedWhole(whole));
    }

    /// The status of a whole answer that passes.
    pub(super) fn passed_status(&self) -> Option<u16> {
        self.with(|answer| match &answer.output {
            Output::PassedWhole(whole) => Some(whole.status),
            _ => None,
        })?
    }

    /// Notes that content of an answer that passes has come. `is_word`: text or a tool call, not reasoning.
    pub(super) fn mark_content(&self, is_word: bool) {
        self.with(|answer| {
            let Summary { first, first_word, .. } = &mut answer.summary;
            let now = Instant::now();
            first.get_or_insert(now);
            if is_word {
                first_word.get_or_insert(now);
            }
        });
    }

    /// Notes the counts that an answer that passes has told so far.
    pub(super) fn mark_usage(&self, usage: Usage) {
        self.with(|answer| answer.summary.told = usage);
    }

    /// Notes how an answer that passes has ended, for the log.
    pub(super) fn mark_end(&self, reason: Option<StopReason>, usage: Usage) {
        self.with(|answer| answer.summary.end = Some((reason.unwrap_or(StopReason::EndTurn), usage)));
    }

    /// True if bytes of the answer were written to the client. Then a refusal can only be sent as an event.
    pub(super) fn has_written(&self) -> bool {
        self.with(|answer| matches!(answer.output, Output::Events { has_head: true, .. })) == Some(true)
    }

    /// Translates the data of one of the upstream's events.
    ///
    /// # Errors
    /// The outer error: a hook of policy closed failed. The inner error: the upstream's own failure.
    pub(super) fn data(
        &self,
        parser: &mut Parser,
        data: &mut [u8],
        is_error: bool,
    ) -> Result<Result<Progress, UpstreamError>, Error> {
        self.with(|answer| answer.step(|stream, emit| stream.data(parser, data, is_error, emit)))
            .unwrap_or(Ok(Ok(Progress::Done)))
    }

    /// Takes an answer that is one JSON object.
    ///
    /// # Errors
    /// Those of [`Exchange::data`].
    pub(super) fn whole(
        &self,
        parser: &mut Parser,
        body: &mut [u8],
    ) -> Result<Result<Progress, UpstreamError>, Error> {
        self.with(|answer| answer.step(|stream, emit| stream.whole(parser, body, emit)))
            .unwrap_or(Ok(Ok(Progress::Done)))
    }

    /// True if content of the answer has come, in this round.
    pub(super) fn has_content(&self) -> bool {
        self.with(|answer| answer.summary.first.is_some()) == Some(true)
    }

    /// When the first content of the answer came, if it has.
    pub(super) fn first_content(&self) -> Option<Instant> {
        self.with(|answer| answer.summary.of_all_rounds().first).flatten()
    }

    /// Takes a step of the translation that no bytes of the upstream cause. `None`: there is no answer.
    ///
    /// # Errors
    /// A hook of policy closed that sees answers failed.
    pub(super) fn step<T>(
        &self,
        step: impl FnOnce(&mut MessageStream, &mut crate::translate::Emit<'_>) -> T,
    ) -> Option<Result<T, Error>> {
        self.with(|answer| answer.step(step))
    }

    /// Begins the next round of the answer: the same upstream answers a request with these facts.
    pub(super) fn next_round(&self, asked: &Asked) {
        self.with(|answer| {
            let Summary { first, first_word, earlier, .. } = answer.summary.of_all_rounds();
            let counts = earlier.map_or_else(|| answer.stream.counts(), |(_, _, counts)| counts);
            answer.stream.next_round(asked);
            answer.summary = Summary { earlier: Some((first, first_word, counts)), ..answer.summary };
            (answer.summary.first, answer.summary.first_word) = (None, None);
        });
    }

    /// The counts from which the choice of upstreams learns. Of an answer of several rounds these are the first one's, without
    /// its tokens: the time until the end says nothing about how fast they came.
    pub(super) fn counts_to_learn(&self) -> Counts {
        let earlier = self.with(|answer| answer.summary.earlier).flatten();
        match earlier {
            Some((_, _, counts)) => Counts { completion: 0, ..counts },
            None => self.summary().1,
        }
    }

    /// The counts of this round; and, if it is the first one, when its first content came.
    pub(super) fn round(&self) -> (Option<Instant>, Counts) {
        let told = |answer: &mut AnswerUnderWay| {
            let Summary { first, earlier, .. } = answer.summary;
            (first.filter(|_| earlier.is_none()), answer.stream.counts())
        };
        self.with(told).unwrap_or_default()
    }

    /// Whether the upstream has told how its answer ended, and if so, whether it has told its counts.
    pub(super) fn finished(&self) -> Option<bool> {
        let finished = |answer: &mut AnswerUnderWay| {
            answer.stream.is_finished().then(|| answer.stream.counts().completion > 0)
        };
        self.with(finished).flatten()
    }

    /// The number of the upstream's events that were passed over because they were not JSON.
    pub(super) fn skipped(&self) -> usize {
        self.with(|answer| answer.stream.skipped()).unwrap_or(0)
    }

    /// Translates the end of the upstream's answer.
    ///
    /// # Errors
    /// The outer error: a hook of policy closed failed. The inner error: the upstream's answer was incomplete.
    pub(super) fn end(&self) -> Result<Result<(), Error>, Error> {
        self.with(|answer| answer.step(MessageStream::end)).unwrap_or(Ok(Ok(())))
    }

    /// Breaks the answer off with an error event.
    pub(super) fn fail(&self, error: &Error) {
        self.with(|answer| answer.fail(error, self.request_id()));
    }

    /// Sends all gathered events in one write.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.with(|answer| {
            let Output::Events { bytes, has_head } = &mut answer.output else { return Ok(()) };
            if bytes.is_empty() {
                return Ok(());
            }
            let mut client = self.client.borrow_mut();
            if !std::mem::replace(has_head, true) {
                let [kind, cache, buffering] = STREAM_HEADERS;
                client.start_stream(200, &[kind, cache, buffering, ("request-id", self.request_id())])?;
            }
            log::trace!("{} to the client: {}", self.request_id(), String::from_utf8_lossy(bytes));
            self.tap.bytes(StepKind::Answer, bytes);
            client.write(bytes)?;
            bytes.clear();
            if bytes.capacity() > EVENTS_KEPT_MAX {
                *bytes = Vec::new();
            }
            let now = Instant::now();
            self.last_event.set(now);
            self.last_progress.set(now);
            Ok(())
        })
        .unwrap_or(Ok(()))
    }

    /// Sends the rest of the answer: the last chunk of a stream, or the whole message.
    pub(super) fn finish(&self) -> io::Result<()> {
        self.flush()?;
        let Some(answer) = self.answer.borrow_mut().take() else { return Ok(()) };
        match answer.output {
            Output::Events { .. } | Output::Passed => self.client.borrow_mut().finish(),
            Output::PassedWhole(answer) => {
                self.tap.bytes(StepKind::Answer, &answer.body);
                self.client.borrow_mut().respond_relayed(&answer, self.request_id())
            }
            Output::Fold(fold) => {
                let mut message = Vec::new();
                fold.finish(&mut message);
                self.tap.bytes(StepKind::Answer, &message);
                log::trace!("{} to the client: {}", self.request_id(), String::from_utf8_lossy(&message));
                let headers = [("content-type", "application/json"), ("request-id", self.request_id())];
                self.client.borrow_mut().respond(200, &headers, &message)
            }
        }
    }

    /// The number of pings that were sent.
    pub(super) fn pings(&self) -> u64 {
        self.pings.get()
    }

    /// The summary for the log, and the token counts from which the gateway learns how the model counts.
    pub(super) fn summary(&self) -> (Summary, Counts) {
        let told = |answer: &mut AnswerUnderWay| {
            let stream = &answer.stream;
            let (changes, rescued, has_looped) = (stream.changes(), stream.rescued(), stream.has_looped());
            let counts = match (&answer.output, answer.summary.end) {
                (Output::Passed | Output::PassedWhole(_), end) => {
                    counts_of(end.map_or(answer.summary.told, |(_, usage)| usage))
                }
                _ => stream.total_counts(),
            };
            let dropped_tokens = stream.dropped_tokens();
            let summary = answer.summary.of_all_rounds();
            (Summary { changes, rescued, has_looped, dropped_tokens, ..summary }, counts)
        };
        self.with(told).unwrap_or_default()
    }
}

/// The counts of an answer of the Messages API, which always tells what was cached.
fn counts_of(usage: Usage) -> Counts {
    let Usage { input, cache_read, cache_creation, output, .. } = usage;
    Counts {
        prompt: input.saturating_add(cache_read).saturating_add(cache_creation),
        completion: output,
        cached: cache_read,
        is_cache_told: true,
        cache_created: cache_creation,
        ..Counts::default()
    }
}

/// True for a piece of the answer that the client's user sees: text or a tool call, not reasoning.
fn is_word(event: &Event<'_>) -> bool {
    use Event::{BlockDelta, ToolUseStart};
    matches!(event, ToolUseStart { .. } | BlockDelta { delta: Delta::Text(_) | Delta::InputJson(_), .. })
}

impl Wait for Exchange {
    fn client(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn patience(&self) -> Option<Duration> {
        let has_ended = self.with(|answer| answer.summary.end.is_some()) == Some(true);
        let due = match (self.streams() && !has_ended, self.started()) {
            (false, _) => return None,
            (true, false) => self.began.get() + self.patience.open_after,
            (true, true) => self.last_event.get() + self.patience.ping_every,
        };
        Some(due.saturating_duration_since(Instant::now()))
    }

    fn on_silence(&self) -> io::Result<()> {
        if self.passes.get() {
            self.tap.bytes(StepKind::Ping, b"");
            self.with(|answer| answer.output.event(&Event::Ping));
            return self.flush();
        }
        let progress = self.last_progress.get();
        let pings = self.started() && progress.elapsed() < self.patience.usage_every;
        // An error here is dropped: the filter keeps a failed hook's error, and the next step returns it. These steps
        // call no hook.
        let _ = self.with(|answer| match answer.stream.started() {
            false => {
                self.tap.bytes(StepKind::Open, b"");
                answer.step(MessageStream::open)
            }
            true if pings => {
                self.tap.bytes(StepKind::Ping, b"");
                answer.output.event(&Event::Ping);
                self.pings.set(self.pings.get() + 1);
                Ok(())
            }
            true => {
                log::debug!("{} had only pings for long: the usage so far", self.request_id());
                self.tap.bytes(StepKind::Usage, b"");
                answer.step(MessageStream::tell_usage)
            }
        });
        self.flush()?;
        if pings {
            self.last_progress.set(progress);
        }
        Ok(())
    }

    fn on_connecting(&self, is_connecting: bool) {
        match (is_connecting, self.active.phase()) {
            (true, Phase::Connect) => {}
            (true, before) => {
                self.before_connect.set(before);
                self.connect_began.set(Instant::now());
                self.active.enter(Phase::Connect);
            }
            (false, Phase::Connect) => {
                self.active.add_connect(self.connect_began.get().elapsed());
                self.active.enter(self.before_connect.get());
            }
            (false, _) => self.active.enter(self.before_connect.get()),
        }
    }
}
