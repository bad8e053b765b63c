//! Decides which call a piece belongs to, and whether a call is only an earlier one that was sent again.

use crate::openai::ToolCallDelta;

use super::super::super::arguments::SPACES;
use super::{CALLS_MAX, Repetition, StreamedCall, StreamedCalls};

impl StreamedCalls {
    /// The call that a piece belongs to (docs/translation.md, D, `resolve`). `None` if there are too many calls.
    pub(super) fn resolve(&mut self, delta: &ToolCallDelta<'_, '_>) -> Option<usize> {
        let known = |call: &StreamedCall| delta.id.is_some_and(|id| call.id == id);
        let at = match delta.index {
            Some(_) => self.list.iter().rposition(|call| call.index == delta.index),
            None => self.list.iter().rposition(known).or(self.list.len().checked_sub(1)),
        };
        let same = at.and_then(|at| self.list.get(at)).is_some_and(|call| {
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
        let earlier = at.and_then(|at| Some((at, self.list.get(at)?)));
        let has_same_id = |call: &StreamedCall| known(call) || delta.id.is_none() || call.id.is_empty();
        let is_like = |call: &StreamedCall| {
            delta.name == Some(&call.name) && (has_same_id(call) || delta.index.is_some())
        };
        if let Some((of, earlier)) = earlier.filter(|(_, earlier)| is_like(earlier)) {
            call.repetition = Some(Repetition { of, matched: 0, is_of_head: !has_same_id(earlier) });
            // A complete repetition makes room for the next one: some servers repeat a call with every piece.
            if let (true, Some(before)) = (known(earlier), earlier.repetition) {
                call.repetition = Some(Repetition { matched: 0, ..before });
                *self.list.get_mut(of)? = call;
                return Some(of);
            }
        }
        if self.list.len() >= CALLS_MAX {
            return None;
        }
        self.list.push(call);
        Some(self.list.len() - 1)
    }

    /// Checks whether a call that may be a repetition of an earlier one still has the same arguments.
    pub(super) fn compare(&mut self, at: usize) {
        let Some(call) = self.list.get(at) else { return };
        let Some(repetition @ Repetition { of, matched, is_of_head }) = call.repetition else { return };
        let (raw, earlier) =
            (call.arguments.raw(), self.list.get(of).map_or("", |call| call.arguments.raw()));
        let news = raw.get(matched..);
        let is_same = !is_of_head && news.is_some() && news == earlier.get(matched..raw.len());
        // Surplus brackets after the arguments are ignored for other calls as well.
        let of_rest = |c: char| SPACES.contains(&c) || matches!(c, '}' | ']');
        let is_rest = !raw.starts_with('{') && news.is_some_and(|news| news.chars().all(of_rest));
        let matched = raw.len();
        if let Some(call) = self.list.get_mut(at) {
            call.repetition = (is_same || is_rest).then_some(Repetition { matched, ..repetition });
        }
    }
}
