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
//!
//! | part | duty |
//! |---|---|
//! | `marks` | splits text into reasoning and text |
//! | `repeated` | the end of a text that repeats one line |
//! | `messages` | finds what is new in messages that repeat the text so far |
//! | `content` | the table above: which block each piece belongs to, and what waits |
//! | `calls` | tool calls: which call a piece belongs to, and which may be shown |
//! | `lost` | calls that the server did not recognize, in the text |
//! | `writer` | the events of blocks |
//! | `told` | counts, and how the answer ended |
//! | `replay` | a message that a hook gave |
//! | `rounds` | the searches that the model wants, and its next answer in the same message |

mod calls;
mod content;
mod lost;
mod marks;
mod messages;
mod repeated;
mod replay;
mod rounds;
mod told;
mod writer;

use crate::anthropic::Event;
use crate::error::{Error, Kind, Retry};
use crate::json::{ParseError, Parser, Value};
use crate::openai::{Choice, Chunk, ChunkDelta, Counts, UpstreamError, read_error_chunk, read_failure};
use crate::rescue::CallFamily;

use super::plan::{Asked, Plan};
pub use calls::SearchCall;
use calls::StreamedCalls;
use content::AnswerContent;
use lost::LostCalls;
use marks::{MarkedText, ShowMarked, ThinkMarks};
use messages::Messages;
use repeated::RepeatedLines;
pub use rounds::SearchRound;
use told::{EndOfContent, Tokens, ToldEnd};
pub use writer::RoundText;
use writer::{AnswerSink, BlockWriter};

/// The receiver of the events. It is a plain closure: no event is stored.
pub type Emit<'e> = dyn FnMut(&Event<'_>) + 'e;

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

/// The most events that are passed over because they are not JSON. A server that sends more of them is broken.
const SKIPPED_MAX: usize = 16;

fn malformed_json() -> Error {
    Error::new(Kind::BadGateway, "the upstream sent malformed JSON").retry(Retry::After(1))
}

fn failed_finish() -> Error {
    Error::new(Kind::BadGateway, "the upstream ended its answer with an error").retry(Retry::After(1))
}

/// The translation of one answer.
#[derive(Debug)]
pub struct MessageStream {
    /// Whether nothing is shown.
    is_discarded: bool,
    /// No tool call is passed on.
    is_without_calls: bool,
    /// An answer without content gets a block of empty text.
    is_never_empty: bool,
    /// The client knows the stop reason for a full window.
    knows_window_reason: bool,
    lines: RepeatedLines,
    marks: ThinkMarks,
    lost: LostCalls,
    content: AnswerContent,
    told: ToldEnd,
    tokens: Tokens,
    /// The number of the upstream's events that were passed over because they were not JSON, and the error of the first.
    skipped: usize,
    /// The tokens of the answer that were counted when its last content came.
    spoken: u64,
    malformed: Option<Box<Error>>,
    /// True if the upstream answers with one JSON object, not with events.
    is_one_body: bool,
    /// The content that came in messages of events.
    messages: Messages,
    /// Whether text is reasoning up to its closing mark, in each round.
    think_tags: bool,
    /// True if the upstream's answer has ended with searches that are to be made.
    is_searching: bool,
}

impl MessageStream {
    /// Starts the translation of the answer to `plan`'s request, under the id `msg_…`.
    pub fn new(mut plan: Plan, message_id: String) -> Self {
        let calls = StreamedCalls::new(&mut plan);
        let writer = BlockWriter::new(message_id, plan.thinking_omitted, plan.search.is_some());
        let may_call = !plan.no_tool_call && !plan.discard && calls.has_tools();
        MessageStream {
            is_discarded: plan.discard,
            is_without_calls: plan.no_tool_call,
            is_never_empty: plan.never_empty && !plan.discard,
            knows_window_reason: plan.context_window_beta,
            marks: ThinkMarks::new(plan.repeated, plan.think_tags),
            lost: LostCalls::new(plan.rescues, may_call),
            lines: RepeatedLines::new(plan.ends_repeated_lines && !plan.discard),
            content: AnswerContent::new(writer, calls, plan.stop_sequences, plan.thinking_asked),
            told: ToldEnd::default(),
            tokens: Tokens::new(plan.asked, plan.discard),
            skipped: 0,
            spoken: 0,
            malformed: None,
            is_one_body: false,
            messages: Messages::default(),
            think_tags: plan.think_tags,
            is_searching: false,
        }
    }

    /// Whether anything was emitted. From then on an error can only be sent as an event.
    pub fn started(&self) -> bool {
        self.content.writer().has_started()
    }

    /// The counts that the upstream has sent so far in this round. The caller learns from them how the model counts.
    pub fn counts(&self) -> Counts {
        self.tokens.counts()
    }

    /// The counts of all rounds together.
    pub fn total_counts(&self) -> Counts {
        self.tokens.total_counts()
    }

    /// The bytes of the answer that are held: the text of tool calls, what waits for its turn behind an open call, and
    /// reasoning that the client asked to omit. Walks through all of them.
    pub fn held_size(&self) -> usize {
        self.content.held_size() + self.marks.size() + self.messages.size() + self.lost.held_size()
    }

    /// The number of changes to the arguments of tool calls: values coerced to the type that their schema wants, and
    /// places where the arguments were not JSON.
    pub fn changes(&self) -> (usize, usize) {
        self.content.calls().changes()
    }

    /// The number of calls that were found in text, and the family of their form.
    pub fn rescued(&self) -> (usize, Option<&'static CallFamily>) {
        self.lost.rescued()
    }

    /// The number of calls that the server has recognized.
    pub fn parsed_calls(&self) -> usize {
        self.content.calls().len().saturating_sub(self.lost.rescued().0)
    }

    /// The tokens at the end of an answer that the server has counted and not shown, if calls were possible and none came: a
    /// parser of another model's calls takes a call for one of its own, and drops it. 0 for an answer that was cut, and for a server that tells its counts
    /// only at the end of an answer that has content.
    pub fn dropped_tokens(&self) -> u64 {
        let has_ended =
            self.told.is_finished() && !self.told.is_cut(&self.tokens) && !self.told.has_refused();
        let is_whole = self.lost.was_on() && self.content.calls().len() == 0 && has_ended;
        let is_counted = self.spoken > 0 || !self.content.writer().has_blocks();
        if is_whole && is_counted { self.counts().completion.saturating_sub(self.spoken) } else { 0 }
    }

    /// True if the text was ended because it repeated one line.
    pub fn has_looped(&self) -> bool {
        self.told.has_looped()
    }

    /// The number of the upstream's events that were passed over because they were not JSON.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// True if the upstream has told how the answer ended. From then on only counts can follow, so nothing that happens to
    /// the connection makes the answer an error.
    pub fn is_finished(&self) -> bool {
        self.told.is_finished()
    }

    /// Begins the answer now, although the upstream is still silent.
    pub fn open(&mut self, emit: &mut Emit<'_>) {
        let MessageStream { told, tokens, content, .. } = self;
        content.start(&mut AnswerSink { told, tokens, emit });
    }

    /// Sends the answer's usage so far: a sign of life for clients that give up if only pings arrive.
    pub fn tell_usage(&mut self, emit: &mut Emit<'_>) {
        emit(&Event::Usage { usage: self.tokens.usage(0) });
    }

    /// Takes the whole of a JSON answer.
    ///
    /// # Errors
    /// Those of [`MessageStream::data`].
    pub fn whole(
        &mut self,
        parser: &mut Parser,
        body: &mut [u8],
        emit: &mut Emit<'_>,
    ) -> Result<Progress, UpstreamError> {
        self.is_one_body = true;
        self.data(parser, body, false, emit)
    }

    /// Takes the data of one server-sent event. `is_error` is true if the event's name
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
            self.told.is_done();
            return Ok(Progress::Done);
        }
        let read = parser.read_lenient(data, |tape, is_mended| {
            let chunk = Chunk::read(tape);
            match chunk.error.or(is_error.then_some(tape)) {
                // The answer is whole already.
                Some(_) if self.told.is_finished() => Ok(Progress::More),
                Some(error) => self.upstream_error(read_error_chunk(&Value::from_tape(error))),
                None if is_mended && self.concerns_call(&chunk) => {
                    Err(UpstreamError::Other(malformed_json()))
                }
                None if chunk.is_failed() => Err(UpstreamError::Other(failed_finish())),
                None => Ok(self.chunk(&chunk, emit)),
            }
        });
        match read {
            Ok(taken) => taken,
            Err(_) if is_error && !self.told.is_finished() => {
                self.upstream_error(read_failure(200, data, None))
            }
            Err(error) => self.malformed(data, error),
        }
    }

    /// True if a character that is lost from a chunk may belong to a tool call.
    fn concerns_call(&self, chunk: &Chunk<'_, '_>) -> bool {
        let in_chunk = chunk.choice.is_some_and(|choice| {
            let mut deltas = std::iter::once(choice.delta).chain(choice.message());
            deltas.any(|delta| delta.tool_calls().next().is_some())
        });
        in_chunk || self.content.calls().len() > 0
    }

    /// Handles data that is not JSON. It is passed over, and the answer is served if it turns out to be whole without it.
    /// Of a tool call no piece may be missing: its JSON could look whole, and the client would run it.
    fn malformed(&mut self, data: &[u8], error: ParseError) -> Result<Progress, UpstreamError> {
        // If the answer is already whole, only counts can be lost.
        if self.told.is_finished() {
            return Ok(Progress::More);
        }
        self.skipped += 1;
        let names_call = |mark: &[u8]| memchr::memmem::find(data, mark).is_some();
        let may_be_call =
            self.content.calls().len() > 0 || names_call(b"\"tool_call") || names_call(b"\"function");
        let told = malformed_json().source(error);
        if may_be_call || self.skipped > SKIPPED_MAX {
            return Err(UpstreamError::Other(told));
        }
        self.malformed.get_or_insert_with(|| Box::new(told));
        Ok(Progress::More)
    }

    /// Handles an error in the stream. If only the window is full, the content so far is an answer that met its limit.
    fn upstream_error(&mut self, failure: UpstreamError) -> Result<Progress, UpstreamError> {
        if !self.content.writer().has_blocks() || !matches!(failure, UpstreamError::Overflow { .. }) {
            return Err(failure);
        }
        self.told.overflow();
        Ok(Progress::Done)
    }

    fn chunk(&mut self, chunk: &Chunk<'_, '_>, emit: &mut Emit<'_>) -> Progress {
        if let Some(counts) = chunk.counts {
            self.tokens.add_counts(counts);
        }
        if self.is_one_body && chunk.is_completion {
            self.told.read_whole();
        }
        let Some(choice) = &chunk.choice else { return Progress::More };
        if self.told.is_stopped() {
            return Progress::Cancel;
        }
        if choice.delta.has_words() {
            self.spoken = self.counts().completion;
        }
        let message = choice.message().filter(|_| self.takes_message(choice));
        let goes_on = self.is_discarded
            || match message {
                Some(message) => self.message(&message, emit),
                None => self.delta(&choice.delta, emit),
            };
        if !goes_on {
            return Progress::Cancel;
        }
        self.told.read(choice, self.content.stops(), self.is_one_body);
        Progress::More
    }

    /// Whether the `message` of a choice is read. Beside a `delta` it repeats the whole text, so it counts only at the end
    /// of a stream in which nothing else came.
    fn takes_message(&self, choice: &Choice<'_, '_>) -> bool {
        choice.is_whole || (choice.finish_reason.is_some() && !self.has_content())
    }

    /// Takes a `message`. In a stream it may repeat what has come, of which only the rest is new. Returns false if a stop
    /// sequence was met.
    fn message(&mut self, message: &ChunkDelta<'_, '_>, emit: &mut Emit<'_>) -> bool {
        if !self.messages.is_used() && self.has_content() {
            // Only calls can be new: the text has come in deltas.
            if self.content.calls().len() == 0 {
                self.tool_calls(message, emit);
            }
            return true;
        }
        let reasoning: String = message.reasonings().collect();
        let text: String = message.texts().collect();
        let (reasoning, text) = self.messages.news(&reasoning, &text);
        if !reasoning.is_empty() {
            self.reasoning(reasoning, emit);
        }
        if !text.is_empty() && !self.text(text, emit) {
            return false;
        }
        if let Some(text) = message.refusal.filter(|_| !self.told.has_refused()) {
            self.refusal(text, emit);
        }
        self.tool_calls(message, emit);
        true
    }

    /// Takes the new pieces of the content. Returns false if a stop sequence was met, behind which nothing is shown.
    fn delta(&mut self, delta: &ChunkDelta<'_, '_>, emit: &mut Emit<'_>) -> bool {
        // Reasoning first: vLLM may put both into one delta, with the text key before the reasoning.
        if delta.may_reason() {
            for text in delta.reasonings() {
                self.reasoning(text, emit);
            }
        }
        for text in delta.texts() {
            if !self.text(text, emit) {
                return false;
            }
        }
        if let Some(text) = delta.refusal {
            self.refusal(text, emit);
        }
        if delta.may_call() {
            self.tool_calls(delta, emit);
        }
        true
    }

    /// Takes text. Returns false if a stop sequence was met.
    #[inline]
    fn text(&mut self, text: &str, emit: &mut Emit<'_>) -> bool {
        let end = self.lines.push(text);
        let text = end.and_then(|end| text.get(..end)).unwrap_or(text);
        self.with_marks(emit, |marks, show| marks.push(text, show));
        if end.is_some() {
            self.told.end_loop();
        }
        !self.told.is_stopped()
    }

    fn refusal(&mut self, text: &str, emit: &mut Emit<'_>) {
        self.told.refuse(text);
        self.with_lost(emit, LostCalls::switch_off);
        self.with_sink(emit, |content, sink| content.text(text, sink));
    }

    fn tool_calls(&mut self, delta: &ChunkDelta<'_, '_>, emit: &mut Emit<'_>) {
        let is_without_calls = self.is_without_calls;
        for delta in delta.tool_calls().filter(|_| !is_without_calls) {
            self.with_marks(emit, ThinkMarks::settle);
            self.with_lost(emit, LostCalls::switch_off);
            self.with_sink(emit, |content, sink| content.tool_call(&delta, sink));
        }
    }

    fn reasoning(&mut self, text: &str, emit: &mut Emit<'_>) {
        // Text that might have become a mark is only text.
        if self.marks.is_waiting() {
            self.with_marks(emit, ThinkMarks::settle);
        }
        if self.lost.is_wanted() {
            self.marks.follow_reasoning()
        } else {
            self.marks.switch_off()
        }
        self.with_lost(emit, |lost, content, sink| lost.reasoning(text, content, sink));
    }

    /// True if any content has come, shown or held.
    fn has_content(&self) -> bool {
        let is_held = self.marks.is_waiting() || self.lost.is_holding();
        is_held || self.content.writer().has_round_blocks() || self.content.calls().len() > 0
    }

    /// Shows text or reasoning as the marks decide.
    fn with_marks(&mut self, emit: &mut Emit<'_>, step: impl FnOnce(&mut ThinkMarks, &mut ShowMarked<'_>)) {
        let MessageStream { marks, lost, content, told, tokens, .. } = self;
        let mut met = None;
        let sink = &mut AnswerSink { told, tokens, emit };
        step(marks, &mut |piece| {
            let here = match piece {
                MarkedText::Reasoning(text) => lost.reasoning(text, content, sink),
                MarkedText::Text(text) => lost.text(text, content, sink),
            };
            if here.is_some() {
                met = here;
            }
        });
        if let Some(sequence) = met {
            told.stop(sequence);
        }
    }

    /// Takes a step of the search for lost calls.
    fn with_lost(
        &mut self,
        emit: &mut Emit<'_>,
        step: impl FnOnce(&mut LostCalls, &mut AnswerContent, &mut AnswerSink<'_, '_>) -> Option<String>,
    ) {
        let MessageStream { lost, content, told, tokens, .. } = self;
        let met = step(lost, content, &mut AnswerSink { told, tokens, emit });
        if let Some(sequence) = met {
            told.stop(sequence);
        }
    }

    fn with_sink(
        &mut self,
        emit: &mut Emit<'_>,
        step: impl FnOnce(&mut AnswerContent, &mut AnswerSink<'_, '_>),
    ) {
        let MessageStream { content, told, tokens, .. } = self;
        step(content, &mut AnswerSink { told, tokens, emit });
    }

    /// Ends the answer, after the upstream's body has ended. If the model wants searches, the message stays open for them:
    /// see [`MessageStream::take_searches`].
    ///
    /// # Errors
    /// The upstream never said that it had finished. An answer that merely stops would pass for a whole one.
    pub fn end(&mut self, emit: &mut Emit<'_>) -> Result<(), Error> {
        let has_content = self.has_content();
        // A lost event may have been the finish or, if nothing else came, the answer.
        let may_be_lost =
            self.malformed.is_some() && (!self.told.is_finished() || (!has_content && !self.is_discarded));
        if may_be_lost || self.told.reason(has_content).is_none() {
            let early = || Error::new(Kind::BadGateway, "the upstream closed the stream early");
            let malformed = self.malformed.take();
            return Err(malformed.map_or_else(|| early().retry(Retry::After(1)), |error| *error));
        }
        self.open(emit);
        self.with_marks(emit, ThinkMarks::settle);
        if self.told.has_looped() {
            self.with_lost(emit, LostCalls::switch_off);
        } else if !self.told.is_stopped() {
            self.with_lost(emit, LostCalls::end);
        }
        self.with_sink(emit, AnswerContent::end_searches);
        let may_search = self.content.calls().has_search();
        if may_search && self.told.ends_with_calls(self.end_of_content(has_content), &self.tokens) {
            self.is_searching = true;
            return Ok(());
        }
        let is_never_empty = self.is_never_empty;
        self.with_sink(emit, |content, sink| content.end(is_never_empty, sink));
        self.conclude(has_content, emit);
        Ok(())
    }

    fn end_of_content(&self, has_content: bool) -> EndOfContent {
        EndOfContent {
            has_content,
            has_tool_use: self.content.has_tool_use(),
            has_cut_call: self.content.has_cut_call(),
            knows_window_reason: self.knows_window_reason,
        }
    }

    fn conclude(&mut self, has_content: bool, emit: &mut Emit<'_>) {
        emit(&self.told.message_delta(self.end_of_content(has_content), &self.tokens));
        emit(&Event::MessageStop);
    }

    /// True if another upstream may still give this answer: nothing but reasoning was emitted.
    pub fn may_restart(&self) -> bool {
        self.content.writer().has_only_reasoning()
    }

    /// Begins the translation of another upstream's answer to the same request, by `plan`, in the same message. Reasoning
    /// that was emitted stays, and the new one follows it in the same block. Call it only if [`MessageStream::may_restart`].
    pub fn restart(&mut self, plan: Plan) {
        let earlier = std::mem::replace(self, MessageStream::new(plan, String::new()));
        self.content.resume(earlier.content);
    }

    /// Makes the answer one to a request with other limits: it was changed after the stream was made.
    pub fn set_limits(&mut self, asked: &Asked) {
        self.tokens.set_limits(asked);
    }

    /// Handles a failure after the answer has begun: ends the open block and emits the error.
    pub fn fail(&mut self, error: &Error, request_id: &str, emit: &mut Emit<'_>) {
        self.with_marks(emit, ThinkMarks::settle);
        self.with_lost(emit, LostCalls::switch_off);
        self.with_sink(emit, |content, sink| content.abandon(sink));
        emit(&Event::Error { error, request_id });
    }
}
