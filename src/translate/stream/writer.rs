//! Writes the events of a message's blocks, one block after another: start, deltas, stop, with the indices 0, 1, 2 …

use crate::anthropic::{Delta, Event};
use crate::json::Value;

use super::super::signature::{NEWLINES_MAX, Signature};
use super::Emit;
use super::told::{Tokens, ToldEnd};

/// The receiver of an answer's events, with the facts that they depend on.
pub(super) struct AnswerSink<'s, 'e> {
    pub(super) told: &'s ToldEnd,
    pub(super) tokens: &'s mut Tokens,
    pub(super) emit: &'s mut Emit<'e>,
}

/// The kind of the open block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenBlock {
    Nothing,
    Thinking,
    Text,
    /// The call's place in the list of calls.
    ToolUse(usize),
}

/// The message so far.
#[derive(Debug)]
pub(super) struct BlockWriter {
    message_id: String,
    has_started: bool,
    open: OpenBlock,
    /// True if a block has begun that is not reasoning.
    has_text: bool,
    next_index: u32,
    signature: Signature,
    /// The newlines between the open block of reasoning and the text behind it.
    newlines: usize,
    is_thinking_omitted: bool,
    /// The number of blocks that earlier rounds have written.
    earlier_blocks: u32,
    /// The text of this round, if another one may follow.
    round: Option<Box<RoundText>>,
}

/// The text and the reasoning that the model has written in a round, as the next round repeats them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoundText {
    /// The text, with the newlines between it and the reasoning.
    pub text: String,
    /// The reasoning, also where the client does not see it.
    pub reasoning: String,
}

impl BlockWriter {
    pub(super) fn new(message_id: String, is_thinking_omitted: bool, may_have_rounds: bool) -> Self {
        BlockWriter {
            message_id,
            has_started: false,
            open: OpenBlock::Nothing,
            has_text: false,
            next_index: 0,
            signature: Signature::new(is_thinking_omitted),
            newlines: 0,
            is_thinking_omitted,
            earlier_blocks: 0,
            round: may_have_rounds.then(Box::default),
        }
    }

    /// The text of this round, and begins the next one.
    pub(super) fn take_round(&mut self) -> RoundText {
        self.round.as_deref_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Begins the next round in the same message. No block is open.
    pub(super) fn next_round(&mut self) {
        self.earlier_blocks = self.next_index;
        self.has_text = false;
        self.take_round();
    }

    /// True if a block has begun in this round.
    pub(super) fn has_round_blocks(&self) -> bool {
        self.next_index > self.earlier_blocks
    }

    pub(super) fn message_id(&self) -> &str {
        &self.message_id
    }

    /// True if the message has begun.
    pub(super) fn has_started(&self) -> bool {
        self.has_started
    }

    /// True if a block has begun.
    pub(super) fn has_blocks(&self) -> bool {
        self.next_index > 0
    }

    /// True if nothing but reasoning was written.
    pub(super) fn has_only_reasoning(&self) -> bool {
        self.next_index == 0 || (self.next_index == 1 && self.open == OpenBlock::Thinking)
    }

    /// True if a block of text or a tool use has begun.
    pub(super) fn has_text(&self) -> bool {
        self.has_text
    }

    pub(super) fn open(&self) -> OpenBlock {
        self.open
    }

    /// The bytes of reasoning that are withheld from the client, and of a round's text.
    pub(super) fn withheld_size(&self) -> usize {
        let round = self.round.as_deref().map_or(0, |round| round.text.len() + round.reasoning.len());
        self.signature.size() + round
    }

    /// Begins the message, if it has not begun.
    pub(super) fn start(&mut self, sink: &mut AnswerSink<'_, '_>) {
        if !self.has_started {
            self.has_started = true;
            let mut usage = sink.tokens.usage(0);
            // A whole answer that comes at once has already counted its output; the client gets that count at the end.
            usage.output = 0;
            usage.thinking = None;
            (sink.emit)(&Event::MessageStart { id: &self.message_id, model: sink.tokens.model(), usage });
            (sink.emit)(&Event::Ping);
        }
    }

    /// Begins a block of text or reasoning. The block before it has ended.
    pub(super) fn begin_text(&mut self, is_thinking: bool, sink: &mut AnswerSink<'_, '_>) {
        self.begin(if is_thinking { OpenBlock::Thinking } else { OpenBlock::Text }, sink);
        if let Some(round) = &mut self.round {
            let (written, separator) =
                if is_thinking { (&mut round.reasoning, "\n") } else { (&mut round.text, "\n\n") };
            if !written.trim().is_empty() {
                written.push_str(separator);
            }
        }
        let index = self.index();
        (sink.emit)(&if is_thinking { Event::ThinkingStart { index } } else { Event::TextStart { index } });
    }

    /// Begins a block for reasoning of white space alone. Its text is withheld, since a block that shows only white space
    /// is not allowed; its signature carries it, as that of all reasoning that is withheld.
    pub(super) fn begin_blank_reasoning(&mut self, text: &str, sink: &mut AnswerSink<'_, '_>) {
        self.begin_text(true, sink);
        self.signature = Signature::new(true);
        self.signature.push(text);
        if let Some(round) = &mut self.round {
            round.reasoning.push_str(text);
        }
    }

    /// Begins a tool use: the call at this place, with its id and name. The block before it has ended.
    pub(super) fn begin_tool_use(
        &mut self,
        at: usize,
        (id, name): (&str, &str),
        sink: &mut AnswerSink<'_, '_>,
    ) {
        self.begin(OpenBlock::ToolUse(at), sink);
        (sink.emit)(&Event::ToolUseStart { index: self.index(), id, name });
    }

    /// Writes a whole block of a tool that is not the client's: a `server_tool_use`, or the result of one. The block before
    /// it has ended.
    pub(super) fn write_server_block(&mut self, block: &Value<'_>, sink: &mut AnswerSink<'_, '_>) {
        self.begin(OpenBlock::Nothing, sink);
        let index = self.index();
        let field = |key: &str| block.get(key).and_then(Value::as_str).unwrap_or_default();
        if field("type") == "server_tool_use" {
            (sink.emit)(&Event::ServerToolUseStart { index, id: field("id"), name: field("name") });
            let input = block.get("input").map_or_else(|| "{}".to_string(), Value::to_json);
            (sink.emit)(&Event::BlockDelta { index, delta: Delta::InputJson(&input) });
        } else {
            // As at the API, a search that failed does not count.
            if block.get("content").and_then(Value::as_array).is_some() {
                sink.tokens.add_search();
            }
            (sink.emit)(&Event::ServerToolResult { index, block });
        }
        (sink.emit)(&Event::BlockStop { index });
    }

    /// Writes a piece of the open block. Reasoning may be withheld.
    pub(super) fn write(&mut self, delta: Delta<'_>, sink: &mut AnswerSink<'_, '_>) {
        if let Delta::Text(text) | Delta::Thinking(text) | Delta::InputJson(text) = delta {
            sink.tokens.add_content(text);
        }
        if let Some(round) = &mut self.round {
            match delta {
                Delta::Text(text) => round.text.push_str(text),
                Delta::Thinking(text) => round.reasoning.push_str(text),
                Delta::InputJson(_) | Delta::Signature(_) => {}
            }
        }
        if let Delta::Thinking(text) = delta {
            self.signature.push(text);
            if self.is_thinking_omitted {
                return;
            }
        }
        (sink.emit)(&Event::BlockDelta { index: self.index(), delta });
    }

    /// Removes the newlines that templates put behind reasoning from the beginning of the text behind it. The signature
    /// of the reasoning carries them, so that the model gets them back on the next turn.
    pub(super) fn take_newlines<'t>(&mut self, text: &'t str) -> &'t str {
        if self.open != OpenBlock::Thinking {
            return text;
        }
        self.newlines = text.bytes().take(NEWLINES_MAX).take_while(|byte| *byte == b'\n').count();
        if let Some(round) = &mut self.round {
            round.text.extend(std::iter::repeat_n('\n', self.newlines));
        }
        text.get(self.newlines..).unwrap_or_default()
    }

    /// Ends the open block, if there is one.
    pub(super) fn stop(&mut self, emit: &mut Emit<'_>) {
        let index = self.index();
        match std::mem::replace(&mut self.open, OpenBlock::Nothing) {
            OpenBlock::Nothing => return,
            OpenBlock::Thinking => {
                let fresh = Signature::new(self.is_thinking_omitted);
                let signature = std::mem::replace(&mut self.signature, fresh).encode(self.newlines);
                self.newlines = 0;
                emit(&Event::BlockDelta { index, delta: Delta::Signature(&signature) });
            }
            OpenBlock::Text | OpenBlock::ToolUse(_) => {}
        }
        emit(&Event::BlockStop { index });
    }

    fn begin(&mut self, open: OpenBlock, sink: &mut AnswerSink<'_, '_>) {
        self.start(sink);
        self.open = open;
        self.has_text |= open != OpenBlock::Thinking;
        self.next_index += 1;
    }

    /// The index of the open block.
    fn index(&self) -> u32 {
        self.next_index.saturating_sub(1)
    }
}
