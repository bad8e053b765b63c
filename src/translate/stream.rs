//! The state machine: chunks -> events.
//!
//! Whatever the upstream interleaves, the client sees one block after the other: start, deltas, stop, indices 0, 1, 2 …
//! The clients' SDKs index their list of blocks by it and break at a hole.
//!
//! | open block | reasoning | text | a piece of a tool call | end |
//! |---|---|---|---|---|
//! | none | open thinking | open text | open tool use once it has a name and arguments | - |
//! | thinking | delta | signature, stop; open text | signature, stop; open tool use | signature, stop |
//! | text | stop; open thinking | delta | stop; open tool use | stop |
//! | tool use, its JSON whole | stop; open thinking | stop; open text | its own: delta; another's: stop, open that | stop |
//! | tool use, its JSON open | held until its end | held until its end | its own: delta; another's: kept until its turn | completed, stop |
//!
//! Nothing is emitted before the first piece of content, so that an upstream's early error can still be an HTTP status;
//! [`MessageStream::open`] begins the answer when that takes too long.

use crate::anthropic::{Delta as Piece, Event, StopReason};
use crate::error::{Error, Kind, Retry};
use crate::json::{Parser, Value};
use crate::openai::{Choice, Chunk, Counts, Failure, ToolCallDelta, read_error_chunk};

use super::arguments::{Arguments, Outcome};
use super::estimate;
use super::finish::{End, stop_reason, usage};
use super::request::Plan;
use super::signature::Signature;
use super::stop::StopMatcher;

/// Where events go. A plain closure: no event is stored.
pub type Emit<'e> = dyn FnMut(&Event<'_>) + 'e;

/// Tool calls in one answer: a runaway model is stopped here, not by the memory.
const CALLS_MAX: usize = 256;

/// The marks around reasoning that a server without a reasoning parser leaves in the text.
const THINK_START: &str = "<think>";
const THINK_END: &str = "</think>";

/// Whether more is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Read on.
    More,
    /// The upstream said that this was all: read to the end of its body and call [`MessageStream::end`].
    Done,
    /// A stop sequence was met that the upstream does not know of: cancel it and call [`MessageStream::end`].
    Cancel,
}

#[derive(Debug, PartialEq, Eq)]
enum Open {
    Nothing,
    Thinking,
    Text,
    ToolUse(usize),
}

#[derive(Debug)]
struct Call {
    index: Option<u64>,
    /// As the upstream names it; empty until told.
    id: String,
    name: String,
    arguments: Arguments,
    /// JSON that may be sent once it is this call's turn.
    pending: String,
    begun: bool,
    done: bool,
}

/// Where reasoning may hide in the text.
#[derive(Debug, PartialEq, Eq)]
enum Marks {
    /// The text so far may be the beginning of [`THINK_START`].
    Undecided,
    Inside,
    Off,
}

/// The translation of one answer.
#[derive(Debug)]
pub struct MessageStream {
    plan: Plan,
    message_id: String,
    parser: Parser,
    started: bool,
    open: Open,
    next_index: u32,
    calls: Vec<Call>,
    /// Reasoning (`true`) and text that came in the middle of a tool call.
    held: Vec<(bool, String)>,
    /// White space at the beginning of a text: dropped if nothing follows it.
    space: String,
    marks: Marks,
    mark_text: String,
    mark_end: StopMatcher,
    stops: StopMatcher,
    signature: Signature,
    counts: Counts,
    finish_reason: Option<String>,
    stop_sequence: Option<String>,
    refusal: Option<String>,
    output_tokens: f64,
    has_tool_use: bool,
    /// Reused for the pieces of a tool call.
    scratch: String,
}

impl MessageStream {
    /// The translation of the answer to `plan`'s request, under the id `msg_…`.
    pub fn new(plan: Plan, message_id: String) -> Self {
        let stops = StopMatcher::new(plan.stop_sequences.clone());
        let signature = Signature::new(plan.thinking_omitted);
        MessageStream {
            plan,
            message_id,
            parser: Parser::default(),
            started: false,
            open: Open::Nothing,
            next_index: 0,
            calls: Vec::new(),
            held: Vec::new(),
            space: String::new(),
            marks: Marks::Undecided,
            mark_text: String::new(),
            mark_end: StopMatcher::new(vec![THINK_END.to_string()]),
            stops,
            signature,
            counts: Counts::default(),
            finish_reason: None,
            stop_sequence: None,
            refusal: None,
            output_tokens: 0.0,
            has_tool_use: false,
            scratch: String::new(),
        }
    }

    /// Whether anything was emitted: then an error can only be an event.
    pub fn started(&self) -> bool {
        self.started
    }

    /// The counts that the upstream told so far, and the estimate that the request went out with: what a model's real
    /// tokens are to estimated ones is learned from them.
    pub fn counts(&self) -> (Counts, u64) {
        (self.counts, self.plan.prompt_tokens)
    }

    /// Begins the answer now, with a ping, although the upstream is still silent.
    pub fn open(&mut self, emit: &mut Emit<'_>) {
        self.start(emit);
        emit(&Event::Ping);
    }

    /// Takes the data of one server-sent event, or the whole of a JSON answer. `is_error`: the event's name says so.
    ///
    /// # Errors
    /// What the upstream's error means, or a malformed chunk. Then either answer with an HTTP error, if nothing has
    /// [started](Self::started), or call [`MessageStream::fail`].
    pub fn data(
        &mut self,
        data: &mut [u8],
        is_error: bool,
        emit: &mut Emit<'_>,
    ) -> Result<Progress, Failure> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(Progress::Done);
        }
        let mut parser = std::mem::take(&mut self.parser);
        let read = parser.read(data, |tape| {
            let chunk = Chunk::read(tape);
            match chunk.error.or(is_error.then_some(tape)) {
                Some(error) => Err(read_error_chunk(&Value::from_tape(error))),
                None => Ok(self.chunk(&chunk, emit)),
            }
        });
        self.parser = parser;
        read.unwrap_or_else(|error| {
            let told = Error::new(Kind::BadGateway, "the upstream sent malformed JSON");
            Err(Failure::Other(told.source(error).retry(Retry::After(1))))
        })
    }

    fn chunk(&mut self, chunk: &Chunk<'_, '_>, emit: &mut Emit<'_>) -> Progress {
        if let Some(counts) = chunk.counts {
            self.counts = self.counts.merge(counts);
        }
        let Some(choice) = &chunk.choice else { return Progress::More };
        if self.stop_sequence.is_some() {
            return Progress::Cancel;
        }
        // Reasoning first: vLLM may put both in one delta, the text key before it.
        if !self.plan.discard {
            if let Some(text) = choice.delta.reasoning {
                self.marks = Marks::Off;
                self.reasoning(text, emit);
            }
            for text in choice.delta.texts() {
                self.marked_text(text, emit);
                if self.stop_sequence.is_some() {
                    return Progress::Cancel;
                }
            }
            if let Some(text) = choice.delta.refusal {
                self.refusal.get_or_insert_default().push_str(text);
                self.text(text, emit);
            }
            for delta in choice.delta.tool_calls() {
                self.tool_call(&delta, emit);
            }
        }
        self.finish(choice);
        Progress::More
    }

    fn finish(&mut self, choice: &Choice<'_, '_>) {
        if let Some(reason) = choice.finish_reason {
            self.finish_reason = Some(reason.to_string());
        }
        let requested = |stop: &&str| self.plan.stop_sequences.iter().any(|sequence| sequence == stop);
        if let (Some(stop), Some(_)) = (choice.stop.filter(requested), choice.finish_reason) {
            self.stop_sequence = Some(stop.to_string());
        }
    }

    fn start(&mut self, emit: &mut Emit<'_>) {
        if !self.started {
            self.started = true;
            let mut usage = usage(self.counts, self.plan.prompt_tokens, 0);
            // A whole answer that comes at once has counted its output already; the client is told at the end.
            usage.output = 0;
            usage.thinking = None;
            emit(&Event::MessageStart { id: &self.message_id, model: &self.plan.model, usage });
        }
    }

    // ── blocks ──────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The index of the open block.
    fn index(&self) -> u32 {
        self.next_index.saturating_sub(1)
    }

    fn begin(&mut self, open: Open, emit: &mut Emit<'_>) {
        self.start(emit);
        self.open = open;
        self.next_index += 1;
    }

    fn piece(&mut self, delta: Piece<'_>, emit: &mut Emit<'_>) {
        if let Piece::Text(text) | Piece::Thinking(text) | Piece::InputJson(text) = delta {
            self.output_tokens += estimate::text_tokens(text);
        }
        emit(&Event::BlockDelta { index: self.index(), delta });
    }

    /// Ends the open block, whatever it is. Text that was held back, because it might have become a stop sequence, is
    /// shown before that.
    fn close(&mut self, emit: &mut Emit<'_>) {
        self.settle_text(emit);
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => return,
            Open::Thinking => {
                let fresh = Signature::new(self.plan.thinking_omitted);
                let signature = std::mem::replace(&mut self.signature, fresh).encode();
                emit(&Event::BlockDelta { index: self.index(), delta: Piece::Signature(&signature) });
            }
            Open::Text => {}
            Open::ToolUse(at) => self.complete(at, emit),
        }
        emit(&Event::BlockStop { index: self.index() });
    }

    fn reasoning(&mut self, text: &str, emit: &mut Emit<'_>) {
        if self.in_tool_use() {
            return self.hold(true, text);
        }
        if self.open != Open::Thinking {
            self.close(emit);
            self.begin(Open::Thinking, emit);
            emit(&Event::ThinkingStart { index: self.index() });
        }
        self.signature.push(text);
        if self.plan.thinking_omitted {
            self.output_tokens += estimate::text_tokens(text);
        } else {
            self.piece(Piece::Thinking(text), emit);
        }
    }

    /// Text that may begin with reasoning between marks, where the server has no parser for it.
    fn marked_text(&mut self, text: &str, emit: &mut Emit<'_>) {
        match self.marks {
            Marks::Off => self.stoppable_text(text, emit),
            Marks::Inside => {
                let mut matcher = std::mem::take(&mut self.mark_end);
                let met = matcher.push(text, &mut |text| self.reasoning(text, emit));
                self.mark_end = matcher;
                if let Some(met) = met {
                    self.marks = Marks::Off;
                    self.stoppable_text(&met.rest, emit);
                }
            }
            Marks::Undecided => {
                self.mark_text.push_str(text);
                let seen = self.mark_text.trim_start();
                if let Some(rest) = seen.strip_prefix(THINK_START) {
                    let rest = rest.to_string();
                    self.marks = Marks::Inside;
                    self.mark_text.clear();
                    self.marked_text(&rest, emit);
                } else if !THINK_START.starts_with(seen) {
                    self.unmarked(emit);
                }
            }
        }
    }

    /// No mark begins the text: what was kept to tell is text.
    fn unmarked(&mut self, emit: &mut Emit<'_>) {
        self.marks = Marks::Off;
        let text = std::mem::take(&mut self.mark_text);
        self.stoppable_text(&text, emit);
    }

    fn stoppable_text(&mut self, text: &str, emit: &mut Emit<'_>) {
        let mut stops = std::mem::take(&mut self.stops);
        let met = stops.push(text, &mut |text| self.text(text, emit));
        self.stops = stops;
        if let Some(met) = met {
            self.stop_sequence = Some(met.sequence);
            self.finish_reason = Some("stop".to_string());
        }
    }

    /// Text that was held back to tell what it is: it is only text.
    fn settle_text(&mut self, emit: &mut Emit<'_>) {
        let mut stops = std::mem::take(&mut self.stops);
        stops.flush(&mut |text| self.text(text, emit));
        self.stops = stops;
        self.space.clear();
    }

    fn text(&mut self, text: &str, emit: &mut Emit<'_>) {
        if text.is_empty() {
            return;
        }
        if self.in_tool_use() {
            return self.hold(false, text);
        }
        if self.open == Open::Text {
            return self.piece(Piece::Text(text), emit);
        }
        self.space.push_str(text);
        if text.trim().is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.space);
        self.close(emit);
        self.begin(Open::Text, emit);
        emit(&Event::TextStart { index: self.index() });
        self.piece(Piece::Text(&text), emit);
    }

    /// Whether a tool use is open whose JSON is not whole: nothing may come between.
    fn in_tool_use(&self) -> bool {
        let Open::ToolUse(at) = self.open else { return false };
        self.calls.get(at).is_some_and(|call| !call.arguments.is_complete())
    }

    fn hold(&mut self, thinking: bool, text: &str) {
        match self.held.last_mut() {
            Some((kind, before)) if *kind == thinking => before.push_str(text),
            _ => self.held.push((thinking, text.to_string())),
        }
    }

    // ── tool calls ──────────────────────────────────────────────────────────────────────────────────────────────────

    fn tool_call(&mut self, delta: &ToolCallDelta<'_, '_>, emit: &mut Emit<'_>) {
        let Some(at) = self.resolve(delta) else { return };
        let Some(call) = self.calls.get_mut(at) else { return };
        if let Some(name) = delta.name.filter(|name| *name != call.name) {
            // A name in pieces ends where the arguments begin; a repeated one says nothing new.
            if !call.begun && call.arguments.is_empty() && (call.name.is_empty() || delta.id.is_none()) {
                call.name.push_str(name);
                self.give_schema(at);
            }
        }
        let Some(call) = self.calls.get_mut(at) else { return };
        if let (true, Some(id)) = (call.id.is_empty(), delta.id) {
            call.id.push_str(id);
        }
        self.scratch.clear();
        delta.arguments(|text| call.arguments.push(text, &mut self.scratch));
        if self.open == Open::ToolUse(at) {
            let json = std::mem::take(&mut self.scratch);
            if !json.is_empty() {
                self.piece(Piece::InputJson(&json), emit);
            }
            self.scratch = json;
        } else {
            call.pending.push_str(&self.scratch);
        }
        self.advance(emit);
    }

    /// Which call a piece belongs to (translation.md D, `resolve`). `None`: one too many.
    fn resolve(&mut self, delta: &ToolCallDelta<'_, '_>) -> Option<usize> {
        let known = |call: &Call| delta.id.is_some_and(|id| call.id == id);
        let at = match delta.index {
            Some(_) => self.calls.iter().rposition(|call| call.index == delta.index),
            None => self.calls.iter().rposition(known).or(self.calls.len().checked_sub(1)),
        };
        let same = at.and_then(|at| self.calls.get(at)).is_some_and(|call| {
            let new_id = delta.id.is_some() && !call.id.is_empty() && !known(call);
            let whole = call.arguments.is_complete();
            match delta.name {
                _ if known(call) => true,
                Some(name) if new_id => {
                    delta.index.is_some() && name == call.name && call.arguments.is_empty()
                }
                Some(_) if delta.index.is_some() => !whole,
                Some(name) => name == call.name && !whole && delta.id.is_none(),
                None => !(new_id && (whole || delta.index.is_none())),
            }
        });
        if same {
            return at;
        }
        if self.calls.len() >= CALLS_MAX {
            return None;
        }
        self.calls.push(Call {
            index: delta.index,
            id: String::new(),
            name: String::new(),
            arguments: Arguments::new(None),
            pending: String::new(),
            begun: false,
            done: false,
        });
        Some(self.calls.len() - 1)
    }

    fn give_schema(&mut self, at: usize) {
        let Some(call) = self.calls.get_mut(at) else { return };
        let declared = self.plan.tools.iter().find(|(name, _)| *name == call.name);
        call.arguments = Arguments::new(declared.and_then(|(_, schema)| schema.clone()));
    }

    /// Opens the next call once it is its turn: the open one is whole, or there is none.
    fn advance(&mut self, emit: &mut Emit<'_>) {
        loop {
            let last = self.calls.len().saturating_sub(1);
            let waiting = self.calls.iter().enumerate().position(|(at, call)| {
                !call.begun && !call.name.is_empty() && (!call.arguments.is_empty() || at < last)
            });
            let Some(next) = waiting.filter(|_| !self.in_tool_use()) else { return };
            self.begin_call(next, emit);
        }
    }

    fn begin_call(&mut self, at: usize, emit: &mut Emit<'_>) {
        let only_first = self.plan.one_tool_call && self.calls.iter().any(|call| call.begun);
        let id = self.public_id(at);
        let Some(call) = self.calls.get_mut(at) else { return };
        call.begun = true;
        if only_first {
            call.done = true;
            return;
        }
        let name = std::mem::take(&mut call.name);
        let pending = std::mem::take(&mut call.pending);
        self.close(emit);
        self.begin(Open::ToolUse(at), emit);
        emit(&Event::ToolUseStart { index: self.index(), id: &id, name: &name });
        if !pending.is_empty() {
            self.piece(Piece::InputJson(&pending), emit);
        }
        if let Some(call) = self.calls.get_mut(at) {
            call.name = name;
            call.id = id;
        }
    }

    /// The id for the client: the upstream's, in the characters that the API allows; else one made from the message's,
    /// which is unique as that is.
    fn public_id(&self, at: usize) -> String {
        let told = self.calls.get(at).map_or("", |call| call.id.as_str());
        let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
        let id: String = told.chars().map(allowed).collect();
        let taken = self.calls.iter().any(|call| call.begun && call.id == id);
        if !id.is_empty() && !taken {
            return id;
        }
        let unique = self.message_id.strip_prefix("msg_").unwrap_or(&self.message_id);
        let unique = unique.get(..unique.len().saturating_sub(3)).unwrap_or_default();
        format!("toolu_{unique}{at:03}")
    }

    /// Ends the JSON of the open call.
    fn complete(&mut self, at: usize, emit: &mut Emit<'_>) {
        let truncated = self.finish_reason.as_deref() == Some("length");
        let Some(call) = self.calls.get_mut(at) else { return };
        self.scratch.clear();
        let outcome = call.arguments.finish(truncated, &mut self.scratch);
        call.done = true;
        self.has_tool_use |= outcome != Outcome::Truncated;
        let json = std::mem::take(&mut self.scratch);
        if !json.is_empty() {
            self.piece(Piece::InputJson(&json), emit);
        }
        self.scratch = json;
    }

    // ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────────

    /// The upstream's body has ended: ends the answer.
    ///
    /// # Errors
    /// The upstream never said that it had finished. An answer that merely stops would pass for a whole one.
    pub fn end(&mut self, emit: &mut Emit<'_>) -> Result<(), Error> {
        let Some(finish_reason) = self.finish_reason.clone() else {
            let error = Error::new(Kind::BadGateway, "the upstream closed the stream early");
            return Err(error.retry(Retry::After(1)));
        };
        self.start(emit);
        if self.marks == Marks::Undecided {
            self.unmarked(emit);
        }
        let mut mark_end = std::mem::take(&mut self.mark_end);
        mark_end.flush(&mut |text| self.reasoning(text, emit));
        self.close(emit);
        self.remaining_calls(emit);
        for (thinking, text) in std::mem::take(&mut self.held) {
            if thinking { self.reasoning(&text, emit) } else { self.text(&text, emit) }
        }
        self.close(emit);
        let end = End {
            finish_reason: &finish_reason,
            stop_sequence: self.stop_sequence.as_deref(),
            has_tool_use: self.has_tool_use,
            refused: self.refusal.is_some(),
        };
        let mut stop_reason = stop_reason(&end);
        let mut usage =
            usage(self.counts, self.plan.prompt_tokens, estimate::whole(self.output_tokens).max(1));
        if self.plan.discard {
            stop_reason = StopReason::MaxTokens;
            usage.output = 0;
        }
        emit(&Event::MessageDelta {
            stop_reason,
            stop_sequence: end.stop_sequence.filter(|_| stop_reason == StopReason::StopSequence),
            refusal: self.refusal.as_deref(),
            usage,
        });
        emit(&Event::MessageStop);
        Ok(())
    }

    fn remaining_calls(&mut self, emit: &mut Emit<'_>) {
        for at in 0..self.calls.len() {
            let only_tool = match self.plan.tools.as_slice() {
                [(name, _)] => Some(name.clone()),
                _ => None,
            };
            let Some(call) = self.calls.get_mut(at).filter(|call| !call.begun) else { continue };
            if let (true, Some(name)) = (call.name.is_empty(), only_tool) {
                call.name = name;
            }
            if call.name.is_empty() {
                call.begun = true;
                let text = format!("[malformed tool call: {}]", call.arguments.raw());
                self.hold(false, &text);
                continue;
            }
            self.begin_call(at, emit);
            self.close(emit);
        }
    }

    /// Something broke after the answer had begun: ends the open block and emits the error.
    pub fn fail(&mut self, error: &Error, request_id: &str, emit: &mut Emit<'_>) {
        if std::mem::replace(&mut self.open, Open::Nothing) != Open::Nothing {
            emit(&Event::BlockStop { index: self.index() });
        }
        emit(&Event::Error { error, request_id });
    }
}
