//! Calls that the server did not recognize, so that they came as text: finds them at the end of an answer and shows them
//! as tool uses.
//!
//! A call is taken only if tools were offered, the server recognized no call in this answer, nothing says that the answer
//! was cut, the call ends the answer, and its arguments fit the schema of an offered tool. In reasoning it is taken only
//! if no text follows. All other text is shown as it came.

use crate::rescue::{CallDetector, CallFamily, Release};

use super::content::AnswerContent;
use super::writer::AnswerSink;

/// The search for calls in one answer.
#[derive(Debug)]
pub(super) struct LostCalls {
    /// False if no call is to be looked for.
    is_on: bool,
    /// The same at the beginning of the answer.
    was_on: bool,
    /// True if the operator wants slips of the model and the server to be mended.
    is_wanted: bool,
    has_tools: bool,
    text: CallDetector,
    reasoning: CallDetector,
    rescued: usize,
    family: Option<&'static CallFamily>,
}

impl LostCalls {
    pub(super) fn new(is_wanted: bool, has_tools: bool) -> Self {
        LostCalls {
            is_on: is_wanted && has_tools,
            was_on: is_wanted && has_tools,
            is_wanted,
            has_tools,
            text: CallDetector::new(false),
            reasoning: CallDetector::new(true),
            rescued: 0,
            family: None,
        }
    }

    /// Begins the search in the next round.
    pub(super) fn next_round(&mut self) {
        let earlier = std::mem::replace(self, LostCalls::new(self.is_wanted, self.has_tools));
        (self.rescued, self.family) = earlier.rescued();
    }

    /// True if the operator wants slips of the model and the server to be mended.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// True if calls were looked for from the beginning of the answer on.
    pub(super) fn was_on(&self) -> bool {
        self.was_on
    }

    /// True if text is held.
    pub(super) fn is_holding(&self) -> bool {
        self.text.is_holding() || self.reasoning.is_holding()
    }

    /// The bytes of text that are held.
    pub(super) fn held_size(&self) -> usize {
        self.text.held_size() + self.reasoning.held_size()
    }

    /// The number of calls that were found, and their family.
    pub(super) fn rescued(&self) -> (usize, Option<&'static CallFamily>) {
        (self.rescued, self.family)
    }

    /// Takes text. Returns the stop sequence that was met in the text that is shown, if any.
    #[inline]
    pub(super) fn text(
        &mut self,
        text: &str,
        content: &mut AnswerContent,
        sink: &mut AnswerSink<'_, '_>,
    ) -> Option<String> {
        // This is nearly every piece of an answer.
        if !self.is_on || (!self.reasoning.is_holding() && self.text.passes(text)) {
            return content.stoppable_text(text, sink);
        }
        self.searched_text(text, content, sink)
    }

    /// Takes text that may be a part of a call, or that follows reasoning that may be one.
    #[inline(never)] // keep the path of nearly all pieces short
    fn searched_text(
        &mut self,
        text: &str,
        content: &mut AnswerContent,
        sink: &mut AnswerSink<'_, '_>,
    ) -> Option<String> {
        // Reasoning that text follows is not the end of the answer.
        if self.reasoning.is_holding() && !text.trim().is_empty() {
            self.release_reasoning(content, sink);
        }
        match self.text.push(text, content.calls()) {
            Release::Pushed => content.stoppable_text(text, sink),
            Release::Ready => self.show_text(content, sink),
            Release::Nothing => None,
        }
    }

    /// Takes reasoning. Returns the stop sequence that was met in text that is shown before it, if any.
    #[inline]
    pub(super) fn reasoning(
        &mut self,
        text: &str,
        content: &mut AnswerContent,
        sink: &mut AnswerSink<'_, '_>,
    ) -> Option<String> {
        if !self.text.is_holding() && (!self.is_on || self.reasoning.passes(text)) {
            content.reasoning(text, sink);
            return None;
        }
        self.searched_reasoning(text, content, sink)
    }

    /// Takes reasoning that may be a part of a call, or that follows text that may be one.
    #[inline(never)] // keep the path of nearly all pieces short
    fn searched_reasoning(
        &mut self,
        text: &str,
        content: &mut AnswerContent,
        sink: &mut AnswerSink<'_, '_>,
    ) -> Option<String> {
        let met = if self.text.is_holding() && !text.trim().is_empty() {
            self.text.release();
            self.show_text(content, sink)
        } else {
            None
        };
        match if self.is_on { self.reasoning.push(text, content.calls()) } else { Release::Pushed } {
            Release::Pushed => content.reasoning(text, sink),
            Release::Ready => self.show_reasoning(content, sink),
            Release::Nothing => {}
        }
        met
    }

    /// Shows all held text and looks for no calls from now on: the server recognizes calls, or the answer broke off.
    /// Returns the stop sequence that was met, if any.
    pub(super) fn switch_off(
        &mut self,
        content: &mut AnswerContent,
        sink: &mut AnswerSink<'_, '_>,
    ) -> Option<String> {
        if !std::mem::take(&mut self.is_on) {
            return None;
        }
        self.release_reasoning(content, sink);
        self.text.release();
        self.show_text(content, sink)
    }

    /// Ends the answer: shows the held text as the calls that it is, or as text. Returns the stop sequence that was met, if
    /// any.
    pub(super) fn end(
        &mut self,
        content: &mut AnswerContent,
        sink: &mut AnswerSink<'_, '_>,
    ) -> Option<String> {
        if self.is_holding() && !sink.told.is_cut(sink.tokens) && !sink.told.has_refused() {
            let is_in_text = self.text.is_holding();
            if is_in_text {
                self.release_reasoning(content, sink);
            }
            let is_taken =
                (is_in_text || !content.writer().has_text()) && self.take(is_in_text, content, sink);
            if is_taken {
                return None;
            }
        }
        self.switch_off(content, sink)
    }

    /// Shows the held calls. Returns false if the held text is not a call, or does not fit a tool.
    fn take(&mut self, is_in_text: bool, content: &mut AnswerContent, sink: &mut AnswerSink<'_, '_>) -> bool {
        let detector = if is_in_text { &mut self.text } else { &mut self.reasoning };
        let Some((found, family)) = detector.calls() else { return false };
        let fitting = found.iter().map(|call| content.calls().fit(call)).collect::<Option<Vec<_>>>();
        let Some(fitting) = fitting else { return false };
        detector.drop_held();
        self.rescued += fitting.len();
        self.family = Some(family);
        for (name, arguments) in fitting {
            content.whole_call(("", &name), &arguments, sink);
        }
        true
    }

    fn show_text(&mut self, content: &mut AnswerContent, sink: &mut AnswerSink<'_, '_>) -> Option<String> {
        let met = content.stoppable_text(self.text.ready(), sink);
        self.text.clear_ready();
        met
    }

    fn show_reasoning(&mut self, content: &mut AnswerContent, sink: &mut AnswerSink<'_, '_>) {
        content.reasoning(self.reasoning.ready(), sink);
        self.reasoning.clear_ready();
    }

    fn release_reasoning(&mut self, content: &mut AnswerContent, sink: &mut AnswerSink<'_, '_>) {
        if self.reasoning.release() == Release::Ready {
            self.show_reasoning(content, sink);
        }
    }
}
