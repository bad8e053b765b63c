//! Marks around reasoning in the text of a server that has no parser for them, and the client's own beginning of an
//! answer, which some servers repeat.

use super::super::marks::{THINK_END, THINK_START};
use super::super::stop::StopMatcher;

/// A piece of text whose kind is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkedText<'t> {
    Reasoning(&'t str),
    Text(&'t str),
}

/// The receiver of the pieces.
pub(super) type ShowMarked<'s> = dyn FnMut(MarkedText<'_>) + 's;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum MarkState {
    /// The text so far may become [`THINK_START`], or the client's own beginning repeated.
    #[default]
    Undecided,
    /// The server has sent reasoning. The text behind it may still begin with a mark that its parser left there.
    Behind,
    /// Reasoning, up to [`THINK_END`].
    Inside,
    Off,
}

/// Splits text into reasoning and text. Only the beginning of an answer can have marks.
#[derive(Debug)]
pub(super) struct ThinkMarks {
    state: MarkState,
    /// The text that is not decided.
    text: String,
    /// Where in `text` its leading white space ends, and how many bytes behind that were already compared with the mark.
    /// So only new text is compared.
    start: usize,
    matched: usize,
    end: StopMatcher,
    /// The beginning of the answer as the client sent it, if the server repeats it.
    repeated: Option<String>,
    /// Whether text without a mark is reasoning: the template wrote the mark itself.
    begins_inside: bool,
}

impl ThinkMarks {
    pub(super) fn new(repeated: Option<String>, begins_inside: bool) -> Self {
        ThinkMarks {
            state: MarkState::Undecided,
            text: String::new(),
            start: 0,
            matched: 0,
            end: StopMatcher::new(vec![THINK_END.to_string()]),
            repeated,
            begins_inside,
        }
    }

    /// Takes text, and shows what is decided: at most one piece of text, behind all reasoning.
    pub(super) fn push(&mut self, text: &str, show: &mut ShowMarked<'_>) {
        match self.state {
            MarkState::Off => show(MarkedText::Text(text)),
            MarkState::Inside => {
                let met = self.end.push(text, &mut |text| show(MarkedText::Reasoning(text)));
                if let Some(met) = met {
                    self.state = MarkState::Off;
                    show(MarkedText::Text(&met.rest));
                }
            }
            MarkState::Undecided => self.push_undecided(text, show),
            MarkState::Behind => self.push_behind(text, show),
        }
    }

    /// Handles the end of the text: something else follows, so kept text that might have become a mark is not a mark.
    pub(super) fn settle(&mut self, show: &mut ShowMarked<'_>) {
        if matches!(self.state, MarkState::Undecided | MarkState::Behind) && !self.text.is_empty() {
            self.begin_without_mark(show);
        }
        self.end.flush(&mut |text| show(MarkedText::Reasoning(text)));
    }

    /// Looks for no marks from now on: the server has a parser for them.
    pub(super) fn switch_off(&mut self) {
        self.state = MarkState::Off;
    }

    /// Takes notice of reasoning that the server sent as such. Text may follow that begins with a mark: one that ends
    /// reasoning is dropped, and one that begins it begins more of it.
    pub(super) fn follow_reasoning(&mut self) {
        let is_at_start = matches!(self.state, MarkState::Undecided | MarkState::Behind);
        self.state = if is_at_start { MarkState::Behind } else { MarkState::Off };
        self.begins_inside = false;
        self.repeated = None;
    }

    /// True if text is kept that may become a mark.
    pub(super) fn is_waiting(&self) -> bool {
        match self.state {
            MarkState::Undecided => !self.text.is_empty(),
            // White space alone says nothing.
            MarkState::Behind => self.start < self.text.len(),
            MarkState::Inside | MarkState::Off => false,
        }
    }

    /// The bytes of text that are kept.
    pub(super) fn size(&self) -> usize {
        self.text.len()
    }

    /// Takes text that may still become the mark or the client's own beginning. Only new text is compared.
    fn push_undecided(&mut self, text: &str, show: &mut ShowMarked<'_>) {
        self.text.push_str(text);
        if self.matched == 0 {
            let seen = self.text.get(self.start..).unwrap_or_default();
            self.start = self.text.len() - seen.trim_start().len();
        }
        let (beginning, then) = match &self.repeated {
            Some(repeated) => (repeated.as_str(), MarkState::Off),
            None => (THINK_START, MarkState::Inside),
        };
        let new = self.text.get(self.start + self.matched..).unwrap_or_default();
        let due = beginning.get(self.matched..).unwrap_or_default();
        if let Some(rest) = new.strip_prefix(due) {
            let rest = rest.to_string();
            self.state = then;
            self.text = String::new();
            self.repeated = None;
            self.push(&rest, show);
        } else if due.starts_with(new) {
            self.matched += new.len();
        } else {
            self.begin_without_mark(show);
        }
    }

    /// Takes text behind reasoning that may still become a mark.
    fn push_behind(&mut self, text: &str, show: &mut ShowMarked<'_>) {
        self.text.push_str(text);
        let seen = self.text.get(self.start..).unwrap_or_default().trim_start();
        self.start = self.text.len() - seen.len();
        let (rest, then) = if let Some(rest) = seen.strip_prefix(THINK_END) {
            (rest.to_string(), MarkState::Off)
        } else if let Some(rest) = seen.strip_prefix(THINK_START) {
            (rest.to_string(), MarkState::Inside)
        } else {
            if !THINK_END.starts_with(seen) && !THINK_START.starts_with(seen) {
                self.begin_without_mark(show);
            }
            return;
        };
        self.state = then;
        self.text = String::new();
        self.push(&rest, show);
    }

    /// Handles text that begins neither with the mark nor with the client's own beginning: the kept text is ordinary
    /// text, or reasoning if the template wrote the mark itself.
    fn begin_without_mark(&mut self, show: &mut ShowMarked<'_>) {
        self.state = if self.begins_inside { MarkState::Inside } else { MarkState::Off };
        let text = std::mem::take(&mut self.text);
        self.repeated = None;
        self.push(&text, show);
    }
}
