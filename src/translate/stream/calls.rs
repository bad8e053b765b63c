//! Pieces of tool calls: decides which call each piece belongs to, and which call is shown next.

use crate::anthropic::{Delta, Event};
use crate::openai::ToolCallDelta;

use super::super::arguments::{Arguments, Ending, SPACES};
use super::super::finish::is_ready;
use super::super::tool_id;
use super::{CALLS_MAX, Emit, MessageStream, OpenBlock, Repetition, StreamedCall};

impl StreamedCall {
    fn new(index: Option<u64>) -> Self {
        StreamedCall {
            index,
            id: String::new(),
            shown_id: String::new(),
            name: String::new(),
            arguments: Arguments::new(None),
            pending: String::new(),
            begun: false,
            repetition: None,
        }
    }

    /// Whether the call may be shown as soon as it is its turn. `at_last` is true if no call has come after it so far.
    fn may_begin(&self, at_last: bool) -> bool {
        let has_said = !self.name.is_empty() && (!self.arguments.is_empty() || !at_last);
        has_said && !self.begun && self.repetition.is_none()
    }

    /// True if, at the end of the answer, the call is only an earlier one that was sent again: the same arguments under
    /// the same id, or a name and id without arguments. The beginning of arguments that were cut counts as a call.
    fn only_repeats(&mut self, is_told_cut: bool) -> bool {
        if self.repetition.is_none() {
            return false;
        }
        let ending = self.arguments.ending(is_told_cut, &mut self.pending);
        !self.arguments.raw().starts_with('{') || (!self.id.is_empty() && ending != Ending::Cut)
    }
}

impl MessageStream {
    /// Adds a call that is already complete, and shows it.
    pub(super) fn whole_call(&mut self, id: &str, name: &str, arguments: &str, emit: &mut Emit<'_>) {
        let mut call = StreamedCall::new(None);
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
            // A name that comes in pieces ends where the arguments begin; a repeated name adds nothing.
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
        let may_repeat = call.repetition.is_some();
        if self.open == OpenBlock::ToolUse(at) {
            let json = std::mem::take(&mut self.scratch);
            if !json.is_empty() {
                self.piece(Delta::InputJson(&json), emit);
            }
            self.scratch = json;
        } else {
            call.pending.push_str(&self.scratch);
        }
        if may_repeat {
            self.compare(at);
        }
        self.advance(emit);
    }

    /// The call that a piece belongs to (docs/translation.md, D, `resolve`). `None` if there are too many calls.
    fn resolve(&mut self, delta: &ToolCallDelta<'_, '_>) -> Option<usize> {
        let known = |call: &StreamedCall| delta.id.is_some_and(|id| call.id == id);
        let at = match delta.index {
            Some(_) => self.calls.iter().rposition(|call| call.index == delta.index),
            None => self.calls.iter().rposition(known).or(self.calls.len().checked_sub(1)),
        };
        let same = at.and_then(|at| self.calls.get(at)).is_some_and(|call| {
            let new_id = delta.id.is_some() && !call.id.is_empty() && !known(call);
            let whole = call.arguments.is_complete() || call.arguments.takes_no_more();
            match delta.name {
                // The name and id come again after the whole call: perhaps another call, perhaps the same one again.
                Some(name) if known(call) && !call.name.is_empty() => {
                    !(call.arguments.takes_no_more() || (whole && name != call.name))
                }
                _ if known(call) => true,
                // Older vLLM sends the name and another id with each piece of a forced call.
                Some(name) if new_id => {
                    let goes_on = |text: &str| call.arguments.may_go_on_with(text);
                    delta.index.is_some() && name == call.name && !whole && delta.arguments(goes_on)
                }
                // The name that was still missing, however many of the arguments have come.
                Some(_) if call.name.is_empty() => true,
                Some(_) if delta.index.is_some() => !whole,
                // The id may come late.
                Some(name) => name == call.name && !whole && (delta.id.is_none() || call.id.is_empty()),
                None => !(new_id && (whole || delta.index.is_none())),
            }
        });
        if same {
            return at;
        }
        let mut call = StreamedCall::new(delta.index);
        let earlier = at.and_then(|at| Some((at, self.calls.get(at)?)));
        let has_same_id = |call: &StreamedCall| known(call) || delta.id.is_none() || call.id.is_empty();
        let is_like = |call: &StreamedCall| {
            delta.name == Some(&call.name) && (has_same_id(call) || delta.index.is_some())
        };
        if let Some((of, earlier)) = earlier.filter(|(_, earlier)| is_like(earlier)) {
            call.repetition = Some(Repetition { of, matched: 0, is_of_head: !has_same_id(earlier) });
            // A complete repetition makes room for the next one: some servers repeat a call with every piece.
            if let (true, Some(before)) = (known(earlier), earlier.repetition) {
                call.repetition = Some(Repetition { matched: 0, ..before });
                *self.calls.get_mut(of)? = call;
                return Some(of);
            }
        }
        if self.calls.len() >= CALLS_MAX {
            return None;
        }
        self.calls.push(call);
        Some(self.calls.len() - 1)
    }

    /// Checks whether a call that may be a repetition of an earlier one still has the same arguments.
    fn compare(&mut self, at: usize) {
        let Some(call) = self.calls.get(at) else { return };
        let Some(repetition @ Repetition { of, matched, is_of_head }) = call.repetition else { return };
        let (raw, earlier) =
            (call.arguments.raw(), self.calls.get(of).map_or("", |call| call.arguments.raw()));
        let news = raw.get(matched..);
        let is_same = !is_of_head && news.is_some() && news == earlier.get(matched..raw.len());
        // Surplus brackets after the arguments are ignored for other calls as well.
        let of_rest = |c: char| SPACES.contains(&c) || matches!(c, '}' | ']');
        let is_rest = !raw.starts_with('{') && news.is_some_and(|news| news.chars().all(of_rest));
        let matched = raw.len();
        if let Some(call) = self.calls.get_mut(at) {
            call.repetition = (is_same || is_rest).then_some(Repetition { matched, ..repetition });
        }
    }

    fn give_schema(&mut self, at: usize) {
        let Some(call) = self.calls.get_mut(at) else { return };
        let own_name = by_name(&self.plan.renamed, &call.name).unwrap_or(&call.name);
        let tool = by_name(&self.plan.tools, &call.name).or_else(|| by_name(&self.plan.tools, own_name));
        let schema = tool.and_then(Option::clone);
        // Arguments that came before the name are read again, this time with the schema.
        let before = std::mem::replace(&mut call.arguments, Arguments::new(schema));
        call.pending.clear();
        before.replay(&mut call.arguments, &mut call.pending);
    }

    /// Opens the next call once it is its turn: the open call is whole, or no call is open.
    fn advance(&mut self, emit: &mut Emit<'_>) {
        loop {
            let last = self.calls.len().saturating_sub(1);
            let waiting = self.calls.iter().enumerate().position(|(at, call)| call.may_begin(at == last));
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
        self.begin(OpenBlock::ToolUse(at), emit);
        let shown = by_name(&self.plan.renamed, &name).unwrap_or(&name);
        emit(&Event::ToolUseStart { index: self.index(), id: &id, name: shown });
        if !pending.is_empty() {
            self.piece(Delta::InputJson(&pending), emit);
        }
        if let Some(call) = self.calls.get_mut(at) {
            call.name = name;
            call.shown_id = id;
        }
    }

    /// The id for the client: the upstream's, in the characters that the API allows, and different from all ids that
    /// the client knows from earlier turns. A call without an id, or with the id of another call of this answer, gets
    /// an id made from the message's, which is as unique as the message's.
    fn public_id(&self, at: usize) -> String {
        let unique = self.message_id.strip_prefix("msg_").unwrap_or(&self.message_id);
        let told = self.calls.get(at).map_or("", |call| call.id.as_str());
        let is_usable = !told.is_empty() && told.len() <= tool_id::SIZE_MAX;
        if is_usable && !self.calls.iter().any(|call| call.begun && call.id == told) {
            let id = tool_id::shown(told);
            let is_taken = self.plan.taken_ids.contains(&id) || self.calls.iter().any(|c| c.shown_id == id);
            return if is_taken { tool_id::unique(told, unique, at) } else { id.into_owned() };
        }
        let unique = unique.get(..unique.len().saturating_sub(3)).unwrap_or_default();
        format!("toolu_{unique}{at:03}")
    }

    /// Ends the JSON of the open call. If the call is ready to run, its JSON is completed; otherwise the JSON is left
    /// visibly unfinished, and the held content that was to follow it is dropped.
    pub(super) fn complete(&mut self, at: usize, emit: &mut Emit<'_>) {
        let is_told_cut = self.limits().say_cut();
        let Some(call) = self.calls.get_mut(at) else { return };
        self.scratch.clear();
        let ready = is_ready(call.arguments.ending(is_told_cut, &mut self.scratch), is_told_cut);
        call.arguments.finish(!ready, &mut self.scratch);
        self.has_tool_use |= ready;
        if !ready {
            self.has_cut_call = true;
            self.held.clear();
        }
        self.send_scratch(emit);
    }

    /// Handles a stream that broke while this call was open: the JSON that was sent must not pass for a whole call.
    pub(super) fn abandon(&mut self, at: usize, emit: &mut Emit<'_>) {
        let Some(call) = self.calls.get_mut(at) else { return };
        self.scratch.clear();
        call.arguments.abandon(&mut self.scratch);
        self.send_scratch(emit);
    }

    fn send_scratch(&mut self, emit: &mut Emit<'_>) {
        let json = std::mem::take(&mut self.scratch);
        if !json.is_empty() {
            self.piece(Delta::InputJson(&json), emit);
        }
        self.scratch = json;
    }

    /// Shows, at the end of the answer, the calls whose turn has not come, up to the first one that was cut.
    pub(super) fn remaining_calls(&mut self, emit: &mut Emit<'_>) {
        let is_told_cut = self.limits().say_cut();
        for at in 0..self.calls.len() {
            if self.has_cut_call {
                return;
            }
            let only_tool = match self.plan.tools.as_slice() {
                [(name, _)] => Some(name.clone()),
                _ => None,
            };
            // Some servers send empty pieces of calls that do not exist.
            let says_something =
                |call: &&mut StreamedCall| !call.name.is_empty() || !call.arguments.is_empty();
            let waiting = self.calls.get_mut(at).filter(|call| !call.begun);
            let Some(call) = waiting.filter(says_something) else { continue };
            if call.only_repeats(is_told_cut) {
                call.arguments = Arguments::new(None);
                continue;
            }
            if let (true, Some(name)) = (call.name.is_empty(), only_tool) {
                call.name = name;
            }
            if call.name.is_empty() {
                call.begun = true;
                let ending = call.arguments.ending(is_told_cut, &mut String::new());
                self.has_cut_call |= !is_ready(ending, is_told_cut);
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
