//! The content of an answer: decides which block each piece belongs to, and what waits until its block may open.

use crate::anthropic::Delta;
use crate::json::Value;
use crate::openai::ToolCallDelta;

use super::super::stop::StopMatcher;
use super::calls::{LastTurn, StreamedCalls};
use super::writer::{AnswerSink, BlockWriter, OpenBlock, RoundText};

/// The content so far, and what is held of it.
#[derive(Debug)]
pub(super) struct AnswerContent {
    writer: BlockWriter,
    calls: StreamedCalls,
    /// Reasoning (`true`) and text that came in the middle of a tool call.
    held: Vec<(bool, String)>,
    /// White space at the beginning of a text, and of reasoning. It is dropped if nothing follows it: the API has no
    /// blank blocks, and refuses them in a history.
    space: String,
    blank_reasoning: String,
    /// True if blank reasoning gets a block where a text follows that begins with newlines: the block's signature brings
    /// both back to the model.
    takes_blank_reasoning: bool,
    stops: StopMatcher,
    has_tool_use: bool,
    has_cut_call: bool,
    /// Reused for the pieces of a tool call.
    scratch: String,
}

impl AnswerContent {
    pub(super) fn new(
        writer: BlockWriter,
        calls: StreamedCalls,
        stop_sequences: Vec<String>,
        takes_blank_reasoning: bool,
    ) -> Self {
        AnswerContent {
            writer,
            calls,
            held: Vec::new(),
            space: String::new(),
            blank_reasoning: String::new(),
            takes_blank_reasoning,
            stops: StopMatcher::new(stop_sequences),
            has_tool_use: false,
            has_cut_call: false,
            scratch: String::new(),
        }
    }

    /// Goes on with the message of an earlier answer, of which nothing but reasoning was written.
    pub(super) fn resume(&mut self, earlier: AnswerContent) {
        self.writer = earlier.writer;
    }

    pub(super) fn writer(&self) -> &BlockWriter {
        &self.writer
    }

    pub(super) fn calls(&self) -> &StreamedCalls {
        &self.calls
    }

    pub(super) fn stops(&self) -> &StopMatcher {
        &self.stops
    }

    pub(super) fn has_tool_use(&self) -> bool {
        self.has_tool_use
    }

    /// True if a call was cut. Nothing may follow it.
    pub(super) fn has_cut_call(&self) -> bool {
        self.has_cut_call
    }

    /// The bytes that are held. Walks through all of them.
    pub(super) fn held_size(&self) -> usize {
        let waiting = |(_, text): &(bool, String)| text.len() + size_of::<(bool, String)>();
        let waiting = self.held.iter().map(waiting).sum::<usize>();
        self.calls.size()
            + waiting
            + self.writer.withheld_size()
            + self.space.len()
            + self.blank_reasoning.len()
    }

    /// Begins the message, if it has not begun.
    pub(super) fn start(&mut self, sink: &mut AnswerSink<'_, '_>) {
        self.writer.start(sink);
    }

    /// Takes reasoning.
    pub(super) fn reasoning(&mut self, text: &str, sink: &mut AnswerSink<'_, '_>) {
        if self.is_in_tool_use() {
            return self.hold(true, text);
        }
        if self.writer.open() == OpenBlock::Thinking {
            return self.writer.write(Delta::Thinking(text), sink);
        }
        self.blank_reasoning.push_str(text);
        if text.trim().is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.blank_reasoning);
        self.close(sink);
        self.writer.begin_text(true, sink);
        self.writer.write(Delta::Thinking(&text), sink);
    }

    /// Takes text that may have a stop sequence. Returns the sequence that was met, if any; text behind it is dropped.
    pub(super) fn stoppable_text(&mut self, text: &str, sink: &mut AnswerSink<'_, '_>) -> Option<String> {
        let mut stops = std::mem::take(&mut self.stops);
        let met = stops.push(text, &mut |text| self.text(text, sink));
        self.stops = stops;
        met.map(|met| met.sequence)
    }

    /// Takes text.
    pub(super) fn text(&mut self, text: &str, sink: &mut AnswerSink<'_, '_>) {
        if text.is_empty() {
            return;
        }
        if self.is_in_tool_use() {
            return self.hold(false, text);
        }
        if matches!(self.writer.open(), OpenBlock::ToolUse(_)) && !self.held.is_empty() {
            self.close_block(sink);
            self.release(sink);
        }
        if self.writer.open() == OpenBlock::Text {
            return self.writer.write(Delta::Text(text), sink);
        }
        self.space.push_str(text);
        if text.trim().is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.space);
        if self.takes_blank_reasoning && text.starts_with('\n') && !self.blank_reasoning.is_empty() {
            let reasoning = std::mem::take(&mut self.blank_reasoning);
            self.close(sink);
            self.writer.begin_blank_reasoning(&reasoning, sink);
        }
        let text = self.writer.take_newlines(&text);
        self.close(sink);
        self.writer.begin_text(false, sink);
        self.writer.write(Delta::Text(text), sink);
    }

    /// Takes a piece of a tool call.
    pub(super) fn tool_call(&mut self, delta: &ToolCallDelta<'_, '_>, sink: &mut AnswerSink<'_, '_>) {
        let open = match self.writer.open() {
            OpenBlock::ToolUse(at) => Some(at),
            _ => None,
        };
        self.scratch.clear();
        self.calls.push(delta, open, &mut self.scratch);
        self.write_json(sink);
        // Opens the next call once it is its turn: the open call is whole, or no call is open.
        while let Some(next) = self.calls.next().filter(|_| !self.is_in_tool_use()) {
            self.begin_call(next, sink);
        }
    }

    /// Takes a call that is already complete.
    pub(super) fn whole_call(
        &mut self,
        (id, name): (&str, &str),
        arguments: &str,
        sink: &mut AnswerSink<'_, '_>,
    ) {
        let at = self.calls.push_whole(id, name, arguments);
        self.begin_call(at, sink);
        self.close(sink);
    }

    /// Takes a whole block of a tool that is not the client's.
    pub(super) fn server_block(&mut self, block: &Value<'_>, sink: &mut AnswerSink<'_, '_>) {
        self.close(sink);
        self.writer.write_server_block(block, sink);
    }

    /// Ends the open block and the calls of the web search, at the end of the upstream's answer.
    pub(super) fn end_searches(&mut self, sink: &mut AnswerSink<'_, '_>) {
        self.close(sink);
        self.has_cut_call |= self.calls.end_searches(sink.told.is_cut(sink.tokens), self.writer.message_id());
    }

    /// The text of this round.
    pub(super) fn take_round(&mut self) -> RoundText {
        self.writer.take_round()
    }

    /// Begins the next round in the same message. Nothing is open or held.
    pub(super) fn next_round(&mut self) {
        self.writer.next_round();
        self.calls.next_round();
    }

    /// Ends the content, with an empty block of text if there is no other one and the message must not be empty.
    pub(super) fn end(&mut self, is_never_empty: bool, sink: &mut AnswerSink<'_, '_>) {
        self.close(sink);
        self.remaining_calls(sink);
        self.close(sink);
        if is_never_empty && !self.writer.has_blocks() {
            self.writer.begin_text(false, sink);
            self.close_block(sink);
        }
    }

    /// Ends the open block of an answer that broke off: JSON that was sent must not pass for a whole call. Text that was
    /// held back because it might have become a stop sequence is shown.
    pub(super) fn abandon(&mut self, sink: &mut AnswerSink<'_, '_>) {
        self.flush_stops(sink);
        if let OpenBlock::ToolUse(at) = self.writer.open() {
            self.scratch.clear();
            self.calls.abandon(at, &mut self.scratch);
            self.write_json(sink);
        }
        self.writer.stop(sink.emit);
    }

    /// Ends the open block of any kind. Text that was held back because it might have become a stop sequence is shown
    /// before the end, and content that came in the middle of a tool use after it.
    fn close(&mut self, sink: &mut AnswerSink<'_, '_>) {
        self.flush_stops(sink);
        self.space.clear();
        self.blank_reasoning.clear();
        self.close_block(sink);
        if !self.held.is_empty() {
            self.release(sink);
            self.close_block(sink);
        }
    }

    /// Shows text that was held back because it might have become a stop sequence.
    fn flush_stops(&mut self, sink: &mut AnswerSink<'_, '_>) {
        let mut stops = std::mem::take(&mut self.stops);
        stops.flush(&mut |text| self.text(text, sink));
        self.stops = stops;
    }

    /// Ends the open block. A call that is ready to run is completed; the JSON of another one is left visibly unfinished,
    /// and the held content that was to follow it is dropped.
    fn close_block(&mut self, sink: &mut AnswerSink<'_, '_>) {
        if let OpenBlock::ToolUse(at) = self.writer.open() {
            self.scratch.clear();
            if self.calls.complete(at, sink.told.is_cut(sink.tokens), &mut self.scratch) {
                self.has_tool_use = true;
            } else {
                self.has_cut_call = true;
                self.held.clear();
            }
            self.write_json(sink);
        }
        self.writer.stop(sink.emit);
    }

    /// Whether a tool use is open whose JSON is not whole. No other content may be shown inside it.
    fn is_in_tool_use(&self) -> bool {
        matches!(self.writer.open(), OpenBlock::ToolUse(at) if !self.calls.is_complete(at))
    }

    /// Shows the content that came in the middle of a tool use.
    fn release(&mut self, sink: &mut AnswerSink<'_, '_>) {
        for (is_thinking, text) in std::mem::take(&mut self.held) {
            if is_thinking { self.reasoning(&text, sink) } else { self.text(&text, sink) }
        }
    }

    fn hold(&mut self, is_thinking: bool, text: &str) {
        match self.held.last_mut() {
            Some((kind, before)) if *kind == is_thinking => before.push_str(text),
            _ => self.held.push((is_thinking, text.to_string())),
        }
    }

    /// Shows a call, unless the client wants only one and has it.
    fn begin_call(&mut self, at: usize, sink: &mut AnswerSink<'_, '_>) {
        let Some(pending) = self.calls.begin(at, self.writer.message_id()) else { return };
        self.close(sink);
        self.writer.begin_tool_use(at, self.calls.head(at), sink);
        if !pending.is_empty() {
            self.writer.write(Delta::InputJson(&pending), sink);
        }
    }

    /// Writes the JSON in `scratch` to the open call.
    fn write_json(&mut self, sink: &mut AnswerSink<'_, '_>) {
        if !self.scratch.is_empty() {
            self.writer.write(Delta::InputJson(&self.scratch), sink);
        }
    }

    /// Shows, at the end of the answer, the calls whose turn has not come, up to the first one that was cut.
    fn remaining_calls(&mut self, sink: &mut AnswerSink<'_, '_>) {
        let is_told_cut = sink.told.is_cut(sink.tokens);
        for at in 0..self.calls.len() {
            if self.has_cut_call {
                return;
            }
            match self.calls.last_turn(at, is_told_cut) {
                LastTurn::Nothing => {}
                LastTurn::Begin => {
                    self.begin_call(at, sink);
                    self.close(sink);
                }
                LastTurn::Malformed { raw, is_ready } => {
                    let text = format!("[malformed tool call: {raw}]");
                    self.has_cut_call |= !is_ready;
                    self.hold(false, &text);
                }
            }
        }
    }
}
