//! The fold: events -> one whole Message, for clients that do not stream.

use crate::anthropic::{Delta, Event, StopReason, Usage};
use crate::json::write_str;

use super::arguments::Arguments;

/// The usual size of a Message's head, of its end, and of its usage, in bytes.
const PART_SIZE: usize = 256;

/// Folds the events of an answer.
#[derive(Debug, Default)]
pub struct MessageFold {
    head: Vec<u8>,
    content: Vec<u8>,
    open: Option<CollectedBlock>,
    tail: Vec<u8>,
    usage: Usage,
}

#[derive(Debug)]
enum CollectedBlock {
    Text(String),
    Thinking {
        text: String,
        signature: String,
    },
    /// A tool call: the JSON before its input, the tool's name, and the input's JSON.
    ToolUse {
        head: Vec<u8>,
        name: String,
        input: String,
    },
    /// A block that came whole, as JSON.
    Whole(String),
}

impl MessageFold {
    /// Takes the next event.
    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::MessageStart { id, model, .. } => {
                self.head.reserve(PART_SIZE);
                self.head.extend_from_slice(br#"{"id":"#);
                write_str(id, &mut self.head);
                self.head.extend_from_slice(br#","type":"message","role":"assistant","model":"#);
                write_str(model, &mut self.head);
            }
            Event::TextStart { .. } => self.open = Some(CollectedBlock::Text(String::new())),
            Event::ThinkingStart { .. } => {
                self.open = Some(CollectedBlock::Thinking { text: String::new(), signature: String::new() });
            }
            Event::ToolUseStart { id, name, .. } => self.open_call(br#"{"type":"tool_use","id":"#, id, name),
            Event::ServerToolUseStart { id, name, .. } => {
                self.open_call(br#"{"type":"server_tool_use","id":"#, id, name);
            }
            Event::ServerToolResult { block, .. } => self.open = Some(CollectedBlock::Whole(block.to_json())),
            Event::BlockDelta { delta, .. } => match (&mut self.open, delta) {
                (Some(CollectedBlock::Text(text)), Delta::Text(more)) => text.push_str(more),
                (Some(CollectedBlock::Thinking { text, .. }), Delta::Thinking(more)) => text.push_str(more),
                (Some(CollectedBlock::Thinking { signature, .. }), Delta::Signature(more)) => {
                    signature.push_str(more)
                }
                (Some(CollectedBlock::ToolUse { input, .. }), Delta::InputJson(more)) => input.push_str(more),
                _ => {}
            },
            Event::BlockStop { .. } => self.block(),
            Event::MessageDelta { stop_reason, stop_sequence, refusal, usage } => {
                self.end(*stop_reason, *stop_sequence, *refusal, *usage);
            }
            Event::Ping | Event::Usage { .. } | Event::MessageStop | Event::Error { .. } => {}
        }
    }

    fn open_call(&mut self, start: &[u8], id: &str, name: &str) {
        let mut head = start.to_vec();
        write_str(id, &mut head);
        head.extend_from_slice(br#","name":"#);
        write_str(name, &mut head);
        self.open = Some(CollectedBlock::ToolUse { head, name: name.to_string(), input: String::new() });
    }

    /// The size in bytes of the content that was folded so far.
    pub fn size(&self) -> usize {
        let open = match &self.open {
            None => 0,
            Some(CollectedBlock::Text(text) | CollectedBlock::Whole(text)) => text.len(),
            Some(CollectedBlock::Thinking { text, signature }) => text.len() + signature.len(),
            Some(CollectedBlock::ToolUse { head, input, name }) => head.len() + input.len() + name.len(),
        };
        self.content.len() + open
    }

    fn block(&mut self) {
        let Some(block) = self.open.take() else { return };
        let out = &mut self.content;
        if !out.is_empty() {
            out.push(b',');
        }
        match block {
            CollectedBlock::Text(text) => {
                out.extend_from_slice(br#"{"type":"text","text":"#);
                write_str(&text, out);
                out.push(b'}');
            }
            CollectedBlock::Whole(json) => out.extend_from_slice(json.as_bytes()),
            CollectedBlock::Thinking { text, signature } => {
                out.extend_from_slice(br#"{"type":"thinking","thinking":"#);
                write_str(&text, out);
                out.extend_from_slice(br#","signature":"#);
                write_str(&signature, out);
                out.push(b'}');
            }
            CollectedBlock::ToolUse { head, name, input } => match whole_object(&input) {
                Some(input) => {
                    out.extend_from_slice(&head);
                    out.extend_from_slice(br#","input":"#);
                    out.extend_from_slice(input.as_bytes());
                    out.push(b'}');
                }
                None => {
                    out.extend_from_slice(br#"{"type":"text","text":"#);
                    write_str(&format!("[incomplete tool call: {name} {input}]"), out);
                    out.push(b'}');
                }
            },
        }
    }

    fn end(&mut self, reason: StopReason, sequence: Option<&str>, refusal: Option<&str>, usage: Usage) {
        self.usage = usage;
        self.tail.reserve(PART_SIZE);
        crate::anthropic::write_stop(reason, sequence, refusal, &mut self.tail);
    }

    /// The Message as JSON.
    pub fn finish(self, out: &mut Vec<u8>) {
        out.reserve(self.head.len() + self.content.len() + self.tail.len() + 2 * PART_SIZE);
        out.extend_from_slice(&self.head);
        out.extend_from_slice(br#","content":["#);
        out.extend_from_slice(&self.content);
        out.extend_from_slice(b"],");
        out.extend_from_slice(&self.tail);
        out.extend_from_slice(br#","usage":"#);
        self.usage.write(out);
        out.push(b'}');
    }
}

/// The input of a call as one whole object. `None` if the call was cut. In a Message an input is always a whole object,
/// and clients run a call that looks whole whatever the stop reason is, so a cut call is shown as text.
fn whole_object(json: &str) -> Option<String> {
    if json.is_empty() {
        return Some("{}".to_string());
    }
    let mut arguments = Arguments::new(None);
    let mut whole = String::with_capacity(json.len());
    arguments.push(json, &mut whole);
    let is_whole = arguments.is_complete();
    arguments.finish(!is_whole, &mut whole);
    is_whole.then_some(whole)
}
