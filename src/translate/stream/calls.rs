//! Pieces of tool calls: which call they belong to, and whose turn it is.

use crate::anthropic::{Delta as Piece, Event};
use crate::openai::ToolCallDelta;

use super::super::arguments::{Arguments, Outcome};
use super::super::tool_id;
use super::{CALLS_MAX, Call, Emit, MessageStream, Open};

impl Call {
    fn new(index: Option<u64>) -> Self {
        Call {
            index,
            id: String::new(),
            name: String::new(),
            arguments: Arguments::new(None),
            pending: String::new(),
            begun: false,
        }
    }
}

impl MessageStream {
    /// A call that is all there.
    pub(super) fn whole_call(&mut self, id: &str, name: &str, arguments: &str, emit: &mut Emit<'_>) {
        let mut call = Call::new(None);
        call.id.push_str(id);
        call.name.push_str(name);
        call.arguments.push(arguments, &mut call.pending);
        self.calls.push(call);
        self.begin_call(self.calls.len() - 1, emit);
        self.close(emit);
    }

    pub(super) fn tool_call(&mut self, delta: &ToolCallDelta<'_, '_>, emit: &mut Emit<'_>) {
        self.settle_marks(emit);
        let Some(at) = self.resolve(delta) else { return };
        let Some(call) = self.calls.get_mut(at) else { return };
        if let Some(name) = delta.name.filter(|name| *name != call.name && !call.begun) {
            // A name in pieces ends where the arguments begin; a repeated one says nothing new.
            let goes_on = call.arguments.is_empty() && delta.id.is_none();
            if call.name.is_empty() || goes_on {
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
                // The name that was still missing, however much of the arguments has come.
                Some(_) if call.name.is_empty() => true,
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
        self.calls.push(Call::new(delta.index));
        Some(self.calls.len() - 1)
    }

    fn give_schema(&mut self, at: usize) {
        let Some(call) = self.calls.get_mut(at) else { return };
        let schema = by_name(&self.plan.tools, &call.name).and_then(Option::clone);
        // Arguments that came before the name are read again, now with the schema.
        let before = std::mem::replace(&mut call.arguments, Arguments::new(schema));
        call.pending.clear();
        before.replay(&mut call.arguments, &mut call.pending);
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
            return;
        }
        let name = std::mem::take(&mut call.name);
        let pending = std::mem::take(&mut call.pending);
        self.close(emit);
        self.begin(Open::ToolUse(at), emit);
        let shown = by_name(&self.plan.renamed, &name).unwrap_or(&name);
        emit(&Event::ToolUseStart { index: self.index(), id: &id, name: shown });
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
        let id = tool_id::shown(told).into_owned();
        let taken = self.calls.iter().any(|call| call.begun && call.id == id);
        if !id.is_empty() && !taken {
            return id;
        }
        let unique = self.message_id.strip_prefix("msg_").unwrap_or(&self.message_id);
        let unique = unique.get(..unique.len().saturating_sub(3)).unwrap_or_default();
        format!("toolu_{unique}{at:03}")
    }

    /// Ends the JSON of the open call.
    pub(super) fn complete(&mut self, at: usize, emit: &mut Emit<'_>) {
        // At the token limit, by a filter, or by a stop string that the upstream found inside the arguments (vLLM).
        let is_cut = matches!(self.finish_reason.as_deref(), Some("length" | "content_filter"));
        let truncated = is_cut || self.stop_sequence.is_some();
        let Some(call) = self.calls.get_mut(at) else { return };
        self.scratch.clear();
        let outcome = call.arguments.finish(truncated, &mut self.scratch);
        self.has_tool_use |= outcome != Outcome::Truncated;
        self.has_cut_call |= outcome == Outcome::Truncated;
        let json = std::mem::take(&mut self.scratch);
        if !json.is_empty() {
            self.piece(Piece::InputJson(&json), emit);
        }
        self.scratch = json;
    }

    pub(super) fn remaining_calls(&mut self, emit: &mut Emit<'_>) {
        for at in 0..self.calls.len() {
            let only_tool = match self.plan.tools.as_slice() {
                [(name, _)] => Some(name.clone()),
                _ => None,
            };
            // Some servers send empty pieces of calls that there are none of.
            let says_something = |call: &&mut Call| !call.name.is_empty() || !call.arguments.is_empty();
            let waiting = self.calls.get_mut(at).filter(|call| !call.begun);
            let Some(call) = waiting.filter(says_something) else { continue };
            if let (true, Some(name)) = (call.name.is_empty(), only_tool) {
                call.name = name;
            }
            if call.name.is_empty() {
                call.begun = true;
                call.arguments.finish(false, &mut String::new());
                let text = format!("[malformed tool call: {}]", call.arguments.raw());
                self.hold(false, &text);
                continue;
            }
            self.begin_call(at, emit);
            self.close(emit);
        }
    }
}

/// The first entry of that name in a list that is sorted by name.
fn by_name<'l, T>(list: &'l [(String, T)], name: &str) -> Option<&'l T> {
    let at = list.partition_point(|(known, _)| known.as_str() < name);
    list.get(at).filter(|(known, _)| known == name).map(|(_, value)| value)
}
