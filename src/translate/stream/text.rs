//! Reasoning and text on their way to a block: handles the marks around reasoning, stop sequences and white space.

use crate::anthropic::{Delta, Event};

use super::super::estimate;
use super::super::marks::THINK_START;
use super::{Emit, Marks, MessageStream, OpenBlock};

impl MessageStream {
    pub(super) fn reasoning(&mut self, text: &str, emit: &mut Emit<'_>) {
        if self.in_tool_use() {
            return self.hold(true, text);
        }
        if self.open != OpenBlock::Thinking {
            self.close(emit);
            self.begin(OpenBlock::Thinking, emit);
            emit(&Event::ThinkingStart { index: self.index() });
        }
        self.signature.push(text);
        if self.plan.thinking_omitted {
            self.output_tokens += estimate::text_tokens(text);
        } else {
            self.piece(Delta::Thinking(text), emit);
        }
    }

    /// Takes text that may begin with reasoning between marks, if the server has no parser for it, or with the client's
    /// own beginning, if the server repeats that.
    pub(super) fn marked_text(&mut self, text: &str, emit: &mut Emit<'_>) {
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
            Marks::Undecided => self.undecided_text(text, emit),
        }
    }

    /// Takes text that may still become the mark or the client's own beginning. Only new text is compared.
    fn undecided_text(&mut self, text: &str, emit: &mut Emit<'_>) {
        self.mark_text.push_str(text);
        if self.mark_matched == 0 {
            let seen = self.mark_text.get(self.mark_start..).unwrap_or_default();
            self.mark_start = self.mark_text.len() - seen.trim_start().len();
        }
        let (beginning, then) = match &self.plan.repeated {
            Some(repeated) => (repeated.as_str(), Marks::Off),
            None => (THINK_START, Marks::Inside),
        };
        let new = self.mark_text.get(self.mark_start + self.mark_matched..).unwrap_or_default();
        let due = beginning.get(self.mark_matched..).unwrap_or_default();
        if let Some(rest) = new.strip_prefix(due) {
            let rest = rest.to_string();
            self.marks = then;
            self.mark_text = String::new();
            self.plan.repeated = None;
            self.marked_text(&rest, emit);
        } else if due.starts_with(new) {
            self.mark_matched += new.len();
        } else {
            self.no_mark_begins(emit);
        }
    }

    /// Handles text that begins neither with the mark nor with the client's own beginning: the kept text is ordinary
    /// text, or reasoning if the template wrote the mark itself.
    fn no_mark_begins(&mut self, emit: &mut Emit<'_>) {
        self.marks = if self.plan.think_tags { Marks::Inside } else { Marks::Off };
        let text = std::mem::take(&mut self.mark_text);
        self.plan.repeated = None;
        self.marked_text(&text, emit);
    }

    /// Handles the end of the text: something else follows, so kept text that might have become a mark is not a mark.
    pub(super) fn settle_marks(&mut self, emit: &mut Emit<'_>) {
        if self.marks == Marks::Undecided && !self.mark_text.is_empty() {
            self.no_mark_begins(emit);
        }
        let mut mark_end = std::mem::take(&mut self.mark_end);
        mark_end.flush(&mut |text| self.reasoning(text, emit));
        self.mark_end = mark_end;
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

    /// Shows text that was held back because it might have become a stop sequence: it is only text.
    pub(super) fn settle_text(&mut self, emit: &mut Emit<'_>) {
        let mut stops = std::mem::take(&mut self.stops);
        stops.flush(&mut |text| self.text(text, emit));
        self.stops = stops;
        self.space.clear();
    }

    pub(super) fn text(&mut self, text: &str, emit: &mut Emit<'_>) {
        if text.is_empty() {
            return;
        }
        if self.in_tool_use() {
            return self.hold(false, text);
        }
        if matches!(self.open, OpenBlock::ToolUse(_)) && !self.held.is_empty() {
            self.close_block(emit);
            self.release(emit);
        }
        if self.open == OpenBlock::Text {
            return self.piece(Delta::Text(text), emit);
        }
        self.space.push_str(text);
        if text.trim().is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.space);
        self.close(emit);
        self.begin(OpenBlock::Text, emit);
        emit(&Event::TextStart { index: self.index() });
        self.piece(Delta::Text(&text), emit);
    }

    /// Whether a tool use is open whose JSON is not whole. No other content may be shown inside it.
    pub(super) fn in_tool_use(&self) -> bool {
        let OpenBlock::ToolUse(at) = self.open else { return false };
        self.calls.get(at).is_some_and(|call| !call.arguments.is_complete())
    }

    /// Shows the content that came in the middle of a tool use.
    pub(super) fn release(&mut self, emit: &mut Emit<'_>) {
        for (thinking, text) in std::mem::take(&mut self.held) {
            if thinking { self.reasoning(&text, emit) } else { self.text(&text, emit) }
        }
    }

    pub(super) fn hold(&mut self, thinking: bool, text: &str) {
        match self.held.last_mut() {
            Some((kind, before)) if *kind == thinking => before.push_str(text),
            _ => self.held.push((thinking, text.to_string())),
        }
    }
}
