//! The state machine: chunks -> events.
//!
//! Whatever the upstream interleaves, the client sees one block after the other: start, deltas, stop, with the indices
//! 0, 1, 2 … The clients' SDKs use the index as a position in their list of blocks, and break if one is missing.
//!
//! | open block | reasoning | text | a piece of a tool call | end |
//! |---|---|---|---|---|
//! | none | open thinking | open text | open tool use once it has a name and arguments | - |
//! | thinking | delta | signature, stop; open text | signature, stop; open tool use | signature, stop |
//! | text | stop; open thinking | delta | stop; open tool use | stop |
//! | tool use, its JSON whole | stop; open thinking | stop; open text | its own: delta; another's: stop, open that | stop |
//! | tool use, its JSON open | held until its stop | held until its stop | its own: delta; another's: kept until its turn | completed, stop |
//!
//! Content that was held in the middle of a tool use follows its stop, in the order in which it came. After a call that
//! was cut nothing follows, neither held content nor another call: the SDKs' eager tool runners take the start of the
//! next block as proof that the call before it is whole, and run it.
//!
//! Nothing is emitted before the first piece of content, so that an early error of the upstream can still be an HTTP
//! status; [`MessageStream::open`] begins the answer if that takes too long.

use crate::anthropic::{Delta, Event, StopReason, Usage};
use crate::error::{Error, Kind, Retry};
use crate::json::{Parser, Value};
mod calls;
mod replay;
mod text;

use crate::openai::{Choice, Chunk, Counts, UpstreamError, read_error_chunk};

use super::arguments::Arguments;
use super::estimate;
use super::finish::{End, Limits, stop_reason, usage};
use super::marks::THINK_END;
use super::plan::Plan;
use super::signature::Signature;
use super::stop::StopMatcher;

/// The receiver of the events. It is a plain closure: no event is stored.
pub type Emit<'e> = dyn FnMut(&Event<'_>) + 'e;

/// The most tool calls in one answer. The limit stops a runaway model before the memory runs out.
const CALLS_MAX: usize = 256;

/// Whether to read more of the upstream's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Read on.
    More,
    /// The upstream said that the answer is complete: read to the end of its body and call [`MessageStream::end`].
    Done,
    /// A stop sequence was met that the upstream does not know: cancel the upstream's answer and call
    /// [`MessageStream::end`].
    Cancel,
}

#[derive(Debug, PartialEq, Eq)]
enum OpenBlock {
    Nothing,
    Thinking,
    Text,
    ToolUse(usize),
}

#[derive(Debug)]
struct StreamedCall {
    index: Option<u64>,
    /// The id that the upstream gave the call, and by which it names the call in later pieces. Empty until it comes.
    id: String,
    /// The id by which the client knows the call. Empty until the call is shown.
    shown_id: String,
    name: String,
    arguments: Arguments,
    /// JSON that may be sent once it is this call's turn.
    pending: String,
    begun: bool,
    /// Set while the call may be only an earlier call that was sent again.
    repetition: Option<Repetition>,
}

/// A call that has the name of an earlier one, and its id or its index. It is shown once its arguments differ from the
/// earlier call's, and dropped if they never do.
#[derive(Clone, Copy, Debug)]
struct Repetition {
    /// The earlier call.
    of: usize,
    /// How many bytes of the arguments were found to be the same, so that no byte is compared twice.
    matched: usize,
    /// True if only the name and the index are the earlier call's, with another id. If it gets arguments of its own,
    /// even the same ones, it is a call.
    is_of_head: bool,
}

/// The state of the text's beginning, which may not belong to the answer's text: it may be reasoning between marks, or
/// the client's own beginning.
#[derive(Debug, PartialEq, Eq)]
enum Marks {
    /// The text so far may become [`THINK_START`], or the client's own beginning repeated.
    Undecided,
    /// Reasoning, up to [`THINK_END`].
    Inside,
    Off,
}

/// The translation of one answer.
#[derive(Debug)]
pub struct MessageStream {
    plan: Plan,
    message_id: String,
    started: bool,
    open: OpenBlock,
    next_index: u32,
    calls: Vec<StreamedCall>,
    /// Reasoning (`true`) and text that came in the middle of a tool call.
    held: Vec<(bool, String)>,
    /// White space at the beginning of a text. It is dropped if nothing follows it.
    space: String,
    marks: Marks,
    mark_text: String,
    /// Where in `mark_text` its leading white space ends, and how many bytes behind that were already compared with the
    /// mark. So only new text is compared.
    mark_start: usize,
    mark_matched: usize,
    mark_end: StopMatcher,
    stops: StopMatcher,
    signature: Signature,
    counts: Counts,
    finish_reason: Option<String>,
    stop_sequence: Option<String>,
    refusal: Option<String>,
    output_tokens: f64,
    has_tool_use: bool,
    has_cut_call: bool,
    /// The upstream said `[DONE]`.
    is_done: bool,
    /// The upstream sent the whole answer as one JSON object.
    is_whole: bool,
    /// The context window was full before the answer was whole.
    is_window_full: bool,
    /// Reused for the pieces of a tool call.
    scratch: String,
}

impl MessageStream {
    /// Starts the translation of the answer to `plan`'s request, under the id `msg_…`.
    pub fn new(mut plan: Plan, message_id: String) -> Self {
        let stops = StopMatcher::new(std::mem::take(&mut plan.stop_sequences));
        // Sorted by name, so that the tool of a call is found without walking through all tools. Of tools with the same
        // name the first one stays first.
        plan.tools.sort_by(|(name, _), (other, _)| name.cmp(other));
        plan.renamed.sort_by(|(sent, _), (other, _)| sent.cmp(other));
        let signature = Signature::new(plan.thinking_omitted);
        MessageStream {
            plan,
            message_id,
            started: false,
            open: OpenBlock::Nothing,
            next_index: 0,
            calls: Vec::new(),
            held: Vec::new(),
            space: String::new(),
            marks: Marks::Undecided,
            mark_text: String::new(),
            mark_start: 0,
            mark_matched: 0,
            mark_end: StopMatcher::new(vec![THINK_END.to_string()]),
            stops,
            signature,
            counts: Counts::default(),
            finish_reason: None,
            stop_sequence: None,
            refusal: None,
            output_tokens: 0.0,
            has_tool_use: false,
            has_cut_call: false,
            is_done: false,
            is_whole: false,
            is_window_full: false,
            scratch: String::new(),
        }
    }

    /// Whether anything was emitted. From then on an error can only be sent as an event.
    pub fn started(&self) -> bool {
        self.started
    }

    /// The counts that the upstream has sent so far. The caller learns from them how the model counts.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The bytes of the answer that are held: the text of tool calls, what waits for its turn behind an open call, and
    /// reasoning that the client asked to omit. Walks through all of them.
    pub fn held_size(&self) -> usize {
        let call = |call: &StreamedCall| {
            let texts = [&call.id, &call.shown_id, &call.name, &call.pending];
            texts.iter().map(|text| text.len()).sum::<usize>() + call.arguments.size()
        };
        let waiting = |(_, text): &(bool, String)| text.len() + size_of::<(bool, String)>();
        let calls = self.calls.iter().map(call).sum::<usize>();
        let waiting = self.held.iter().map(waiting).sum::<usize>();
        calls + waiting + self.signature.size() + self.space.len() + self.mark_text.len()
    }

    /// The number of changes to the arguments of tool calls: values coerced to the type that their schema wants, and
    /// places where the arguments were not JSON.
    pub fn changes(&self) -> (usize, usize) {
        let changes = self.calls.iter().map(|call| call.arguments.changes());
        changes.fold((0, 0), |(coercions, repairs), (c, r)| (coercions + c, repairs + r))
    }

    /// Begins the answer now, although the upstream is still silent.
    pub fn open(&mut self, emit: &mut Emit<'_>) {
        self.start(emit);
    }

    /// Sends the answer's usage so far: a sign of life for clients that give up if only pings arrive.
    pub fn tell_usage(&mut self, emit: &mut Emit<'_>) {
        emit(&Event::Usage { usage: self.usage(0) });
    }

    /// Takes the data of one server-sent event, or the whole of a JSON answer. `is_error` is true if the event's name
    /// says that it is an error. Any parser can be used: between two events a parser holds nothing but memory.
    ///
    /// # Errors
    /// The error that the upstream sent, or a malformed chunk. Then either answer with an HTTP error, if nothing has
    /// [started](Self::started), or call [`MessageStream::fail`].
    pub fn data(
        &mut self,
        parser: &mut Parser,
        data: &mut [u8],
        is_error: bool,
        emit: &mut Emit<'_>,
    ) -> Result<Progress, UpstreamError> {
        if data.trim_ascii() == b"[DONE]" {
            self.is_done = true;
            return Ok(Progress::Done);
        }
        let read = parser.read(data, |tape| {
            let chunk = Chunk::read(tape);
            match chunk.error.or(is_error.then_some(tape)) {
                Some(error) => self.upstream_error(read_error_chunk(&Value::from_tape(error))),
                None => Ok(self.chunk(&chunk, emit)),
            }
        });
        read.unwrap_or_else(|error| {
            // The answer is already whole: only counts can be lost.
            if self.finish_reason.is_some() {
                return Ok(Progress::More);
            }
            let told = Error::new(Kind::BadGateway, "the upstream sent malformed JSON");
            Err(UpstreamError::Other(told.source(error).retry(Retry::After(1))))
        })
    }

    /// Handles an error in the stream. If only the window is full, the content so far is an answer that met its limit.
    fn upstream_error(&mut self, failure: UpstreamError) -> Result<Progress, UpstreamError> {
        if self.next_index == 0 || !matches!(failure, UpstreamError::Overflow { .. }) {
            return Err(failure);
        }
        self.is_window_full = true;
        self.finish_reason = Some("length".to_string());
        Ok(Progress::Done)
    }

    fn chunk(&mut self, chunk: &Chunk<'_, '_>, emit: &mut Emit<'_>) -> Progress {
        if let Some(counts) = chunk.counts {
            self.counts = self.counts.merge(counts);
        }
        let Some(choice) = &chunk.choice else { return Progress::More };
        if self.stop_sequence.is_some() {
            return Progress::Cancel;
        }
        // Reasoning first: vLLM may put both into one delta, with the text key before the reasoning.
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
            let no_tool_call = self.plan.no_tool_call;
            for delta in choice.delta.tool_calls().filter(|_| !no_tool_call) {
                self.tool_call(&delta, emit);
            }
        }
        self.finish(choice);
        Progress::More
    }

    fn finish(&mut self, choice: &Choice<'_, '_>) {
        self.is_whole |= choice.is_whole;
        // Once the upstream has said that the answer was cut, a later reason does not replace that.
        if let Some(reason) = choice.finish_reason.filter(|_| self.finish_reason.as_deref() != Some("length"))
        {
            self.finish_reason = Some(reason.to_string());
        }
        let requested = |stop: &&str| self.stops.knows(stop);
        if let (Some(stop), Some(_)) = (choice.stop.filter(requested), choice.finish_reason) {
            self.stop_sequence = Some(stop.to_string());
        }
    }

    fn start(&mut self, emit: &mut Emit<'_>) {
        if !self.started {
            self.started = true;
            let mut usage = self.usage(0);
            // A whole answer that comes at once has already counted its output; the client gets that count at the end.
            usage.output = 0;
            usage.thinking = None;
            emit(&Event::MessageStart { id: &self.message_id, model: &self.plan.model, usage });
            emit(&Event::Ping);
        }
    }

    /// The answer's usage so far. At the end of the answer the output must not be 0: it is at least `output_min`.
    fn usage(&self, output_min: u64) -> Usage {
        let estimate = estimate::whole(self.output_tokens).max(output_min);
        let mut usage = usage(self.counts, self.plan.prompt_tokens, estimate);
        if self.plan.discard {
            usage.output = 0;
        }
        usage
    }

    /// The index of the open block.
    fn index(&self) -> u32 {
        self.next_index.saturating_sub(1)
    }

    fn begin(&mut self, open: OpenBlock, emit: &mut Emit<'_>) {
        self.start(emit);
        self.open = open;
        self.next_index += 1;
    }

    fn piece(&mut self, delta: Delta<'_>, emit: &mut Emit<'_>) {
        if let Delta::Text(text) | Delta::Thinking(text) | Delta::InputJson(text) = delta {
            self.output_tokens += estimate::text_tokens(text);
        }
        emit(&Event::BlockDelta { index: self.index(), delta });
    }

    /// Ends the open block of any kind. Text that was held back because it might have become a stop sequence is shown
    /// before the end, and content that came in the middle of a tool use after it.
    fn close(&mut self, emit: &mut Emit<'_>) {
        self.settle_text(emit);
        self.close_block(emit);
        if !self.held.is_empty() {
            self.release(emit);
            self.close_block(emit);
        }
    }

    fn close_block(&mut self, emit: &mut Emit<'_>) {
        match std::mem::replace(&mut self.open, OpenBlock::Nothing) {
            OpenBlock::Nothing => return,
            OpenBlock::Thinking => self.sign(emit),
            OpenBlock::Text => {}
            OpenBlock::ToolUse(at) => self.complete(at, emit),
        }
        emit(&Event::BlockStop { index: self.index() });
    }

    fn sign(&mut self, emit: &mut Emit<'_>) {
        let fresh = Signature::new(self.plan.thinking_omitted);
        let signature = std::mem::replace(&mut self.signature, fresh).encode();
        emit(&Event::BlockDelta { index: self.index(), delta: Delta::Signature(&signature) });
    }

    /// Ends the answer, after the upstream's body has ended.
    ///
    /// # Errors
    /// The upstream never said that it had finished. An answer that merely stops would pass for a whole one.
    pub fn end(&mut self, emit: &mut Emit<'_>) -> Result<(), Error> {
        let said_something = self.next_index > 0 || !self.calls.is_empty() || !self.mark_text.is_empty();
        // A server that says [DONE], or sends a whole answer, has finished, even if it gives no reason.
        let has_finished = self.is_whole || (self.is_done && said_something);
        let unsaid = has_finished.then(|| "stop".to_string());
        let Some(finish_reason) = self.finish_reason.clone().or(unsaid) else {
            let error = Error::new(Kind::BadGateway, "the upstream closed the stream early");
            return Err(error.retry(Retry::After(1)));
        };
        self.start(emit);
        self.settle_marks(emit);
        self.close(emit);
        self.remaining_calls(emit);
        self.close(emit);
        if self.plan.never_empty && self.next_index == 0 && !self.plan.discard {
            self.begin(OpenBlock::Text, emit);
            emit(&Event::TextStart { index: self.index() });
            self.close_block(emit);
        }
        self.end_message(&finish_reason, emit);
        Ok(())
    }

    fn end_message(&self, finish_reason: &str, emit: &mut Emit<'_>) {
        let end = End {
            finish_reason,
            stop_sequence: self.stop_sequence.as_deref(),
            has_tool_use: self.has_tool_use,
            has_cut_call: self.has_cut_call,
            refused: self.refusal.is_some(),
            window_exceeded: self.plan.context_window_beta && self.window_is_full(),
        };
        let mut stop_reason = stop_reason(&end);
        let usage = self.usage(1);
        if self.plan.discard {
            stop_reason = StopReason::MaxTokens;
        }
        emit(&Event::MessageDelta {
            stop_reason,
            stop_sequence: end.stop_sequence.filter(|_| stop_reason == StopReason::StopSequence),
            refusal: self.refusal.as_deref(),
            usage,
        });
        emit(&Event::MessageStop);
    }

    /// The evidence, at the end of the answer, that the upstream may have cut it.
    fn limits(&self) -> Limits<'_> {
        Limits {
            finish_reason: self.finish_reason.as_deref(),
            stop_sequence_met: self.stop_sequence.is_some(),
            completion: self.counts.completion,
            max_tokens: self.plan.max_tokens,
            window_full: self.window_is_full(),
        }
    }

    /// Whether the window ended the answer, rather than the client's limit.
    fn window_is_full(&self) -> bool {
        let (prompt, completion) = (self.counts.prompt, self.counts.completion);
        let reached = |window: u64| completion > 0 && prompt.saturating_add(completion) >= window;
        let clamped = self.plan.is_clamped_to_window && completion >= self.plan.max_tokens;
        let before_limit = completion < self.plan.max_tokens && self.plan.window.is_some_and(reached);
        self.is_window_full || clamped || before_limit
    }

    /// Handles a failure after the answer has begun: ends the open block and emits the error.
    pub fn fail(&mut self, error: &Error, request_id: &str, emit: &mut Emit<'_>) {
        let open = std::mem::replace(&mut self.open, OpenBlock::Nothing);
        match open {
            OpenBlock::Thinking => self.sign(emit),
            OpenBlock::ToolUse(at) => self.abandon(at, emit),
            OpenBlock::Nothing | OpenBlock::Text => {}
        }
        if open != OpenBlock::Nothing {
            emit(&Event::BlockStop { index: self.index() });
        }
        emit(&Event::Error { error, request_id });
    }
}
