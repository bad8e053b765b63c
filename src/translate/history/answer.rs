//! One answer of the model in the history: its text, reasoning and calls.

use std::borrow::Cow;

use crate::anthropic::Block;
use crate::dialect::ServerKind;
use crate::json::{Object, Value};

use super::super::marks::{THINK_END, THINK_START};
use super::super::signature::{newlines_after, reasoning};
use super::super::stream::RoundText;
use super::super::tool_id;
use super::super::tools::sent_name;
use super::block_text;

#[derive(Debug, Default)]
pub(super) struct AssistantTurn<'r> {
    pub(super) text: Option<Cow<'r, str>>,
    reasoning: Option<Cow<'r, str>>,
    pub(super) calls: Vec<AssistantCall<'r>>,
    /// Whether a block of another kind follows the text. Then more text begins a new paragraph.
    pub(super) text_ended: bool,
    /// The newlines that were removed, for the client, from the text behind the reasoning.
    newlines: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct AssistantCall<'r> {
    pub(super) id: &'r str,
    pub(super) name: &'r str,
    pub(super) input: Option<&'r Value<'r>>,
}

impl<'r> AssistantTurn<'r> {
    /// An answer that has only just come, and is not in the history yet. `before`: the beginning of its text that the client
    /// gave.
    pub(super) fn of_round(before: &str, written: &'r RoundText, calls: Vec<AssistantCall<'r>>) -> Self {
        let text = match before {
            "" => Cow::Borrowed(written.text.as_str()),
            before => Cow::Owned(format!("{before}{}", written.text)),
        };
        let reasoning = Some(Cow::Borrowed(written.reasoning.as_str()));
        AssistantTurn {
            text: Some(text).filter(|text| !text.trim().is_empty()),
            reasoning: reasoning.filter(|text| !text.is_empty()),
            calls,
            ..AssistantTurn::default()
        }
    }

    pub(super) fn push(&mut self, block: &'r Block<'r>) {
        let newlines = std::mem::take(&mut self.newlines);
        match block {
            Block::Thinking { text, signature } => {
                self.newlines = newlines_after(signature);
                let text = reasoning(text, signature);
                if !text.is_empty() {
                    append(&mut self.reasoning, text, "\n");
                }
                self.text_ended = true;
            }
            Block::ToolUse { id, name, input } => {
                self.calls.push(AssistantCall { id: id.as_ref(), name, input: *input });
                self.text_ended = true;
            }
            Block::Text(text) => {
                if !text.trim().is_empty() {
                    let text = match newlines {
                        "" => Cow::Borrowed(*text),
                        _ => Cow::Owned(format!("{newlines}{text}")),
                    };
                    append(&mut self.text, text, if self.text_ended { "\n\n" } else { "" });
                    self.text_ended = false;
                }
            }
            Block::ToolResult(_) | Block::Other { kind: "compaction", .. } => {} // the caller's
            other => {
                if let Some(text) = block_text(other) {
                    append(&mut self.text, text, "\n\n");
                    self.text_ended = true;
                }
            }
        }
    }

    /// Puts the reasoning into the text, the way the template writes it in answers to the user's last turn, and
    /// declares that there is no other reasoning. So the template neither drops it nor adds marks of its own, and every
    /// later request renders the answer to the same bytes as before.
    pub(super) fn think_in_text(&mut self) {
        let reasoning = self.reasoning.replace(Cow::Borrowed("")).unwrap_or_default();
        let text = self.text.take().unwrap_or_default();
        let text = format!("{THINK_START}\n{}\n{THINK_END}\n\n{}", reasoning.trim(), text.trim());
        self.text = Some(Cow::Owned(text));
    }

    /// True if the message has neither text nor calls: it says nothing, and many templates refuse it. Reasoning alone
    /// is worth a message, except at the end of the history.
    pub(super) fn is_empty(&self, last: bool) -> bool {
        self.text.is_none() && self.calls.is_empty() && (self.reasoning.is_none() || last)
    }
}

impl<'r> AssistantTurn<'r> {
    pub(super) fn into_json(self, flavour: ServerKind) -> Value<'r> {
        let dialect = flavour.dialect();
        let mut message = Object::new();
        // Without a reasoning field Qwen's templates take all text before such a mark for reasoning, and drop it.
        let has_mark = self.text.as_ref().is_some_and(|text| text.contains(THINK_END));
        message.push("role", "assistant");
        message.push(
            "content",
            match self.text {
                Some(text) => text.into(),
                // Without calls the content must not be null, whatever the server.
                None if dialect.wants_content || self.calls.is_empty() => "".into(),
                None => Value::Null,
            },
        );
        if let Some(reasoning) = self.reasoning.or(has_mark.then_some(Cow::Borrowed(""))) {
            match dialect.reasoning_keys {
                [] => {}
                [key] => message.push(key, reasoning),
                keys => keys.iter().for_each(|key| message.push(key, reasoning.clone())),
            }
        }
        if !self.calls.is_empty() {
            let calls: Vec<Value<'r>> = self.calls.into_iter().map(|call| call.into_json(flavour)).collect();
            message.push("tool_calls", calls);
        }
        message.into()
    }
}

impl<'r> AssistantCall<'r> {
    fn into_json(self, flavour: ServerKind) -> Value<'r> {
        // The arguments are always the text of an object: llama.cpp answers 500 to anything else.
        let arguments = self.input.map_or_else(|| "{}".to_string(), Value::to_json);
        let function =
            Value::object([("name", sent_name(self.name, flavour).into()), ("arguments", arguments.into())]);
        Value::object([
            ("id", tool_id::given(self.id).into()),
            ("type", "function".into()),
            ("function", function),
        ])
    }
}

pub(super) fn append<'r>(slot: &mut Option<Cow<'r, str>>, text: Cow<'r, str>, separator: &str) {
    match slot {
        Some(before) => {
            let before = before.to_mut();
            before.push_str(separator);
            before.push_str(&text);
        }
        None => *slot = Some(text),
    }
}
