//! Servers that send text again: all arguments so far with each fragment, or once more at the end.

use super::{Arguments, ArgumentsState, SPACES, is_space};

impl Arguments {
    /// The new part of a fragment. Some servers send all arguments so far with each fragment. A fragment counts as such
    /// a repetition if it is longer than the text so far, starts with all of it, and cannot be a continuation; from
    /// then on no more proof is needed. Returns `None` where a value may begin: there the fragment can also be a nested
    /// object with the same first key, so it waits for the next fragment.
    ///
    /// Only a fragment that is at least as long as the whole text is compared with that text, so the comparison costs
    /// no more than reading the fragment.
    pub(super) fn news<'f>(&mut self, fragment: &'f str) -> Option<&'f str> {
        if self.raw.is_empty()
            || fragment.len() < self.raw.len()
            || matches!(self.state, ArgumentsState::Start | ArgumentsState::Other | ArgumentsState::Complete)
        {
            return Some(fragment);
        }
        let text = fragment.trim_start_matches(SPACES);
        let Some(news) = text.strip_prefix(self.raw.as_str()) else { return Some(fragment) };
        if !self.is_cumulative {
            if matches!(
                self.state,
                ArgumentsState::Value | ArgumentsState::FirstElement | ArgumentsState::Element
            ) {
                // A nested object that closes more than itself is not a valid value on its own.
                return if Self::is_legal_beginning(text) { None } else { Some(fragment) };
            }
            if news.is_empty() || !self.is_proof_of_repetition(text) {
                return Some(fragment);
            }
        }
        self.is_cumulative = true;
        Some(news)
    }

    /// Decides whether the waiting fragment was a repetition. `next` is the fragment after it, `None` at the end. It
    /// was a repetition if the next fragment repeats it in turn, or if it is a whole object and reading it as a nested
    /// one would leave the text before it open.
    pub(super) fn settle(&mut self, next: Option<&str>, out: &mut String) {
        if self.doubtful.is_empty() {
            return;
        }
        let doubtful = std::mem::take(&mut self.doubtful);
        let text = doubtful.trim_matches(SPACES);
        let is_whole = || Self::is_legal_value(text);
        self.is_cumulative = match next.map(|next| next.trim_matches(SPACES).strip_prefix(text)) {
            Some(more) => more.is_some_and(|more| !more.is_empty() || is_whole()),
            None => is_whole(),
        };
        let news = if self.is_cumulative { text.strip_prefix(self.raw.as_str()) } else { None };
        self.take(news.unwrap_or(&doubtful), out);
    }

    /// True if `text` cannot be a continuation, which proves that it is a repetition. It starts with `{`; if the state
    /// is inside a string, the text up to its first quote would end that string, and the first byte of the key after it
    /// cannot follow. Where a value may begin, `text` can be a nested object with the same first key, so nothing is
    /// proved.
    fn is_proof_of_repetition(&self, text: &str) -> bool {
        match self.state {
            ArgumentsState::FirstKey
            | ArgumentsState::Key
            | ArgumentsState::Colon
            | ArgumentsState::Number(_)
            | ArgumentsState::Literal(..)
            | ArgumentsState::AfterValue => true,
            // Read as a continuation, the key's opening quote would end the string, and the key's first byte would
            // follow.
            ArgumentsState::KeyText | ArgumentsState::Text => match text.split_once('"') {
                Some((_, key)) => key.bytes().next().is_some_and(|b| !is_space(b) && !b":,]}".contains(&b)),
                None => false,
            },
            _ => false,
        }
    }

    /// Handles text after the complete object, and returns the number of bytes that it took. Some servers stream the
    /// arguments and then send the whole of them once more; some send `{}` before the arguments.
    pub(super) fn after_the_end(&mut self, rest: &str) -> usize {
        for (at, byte) in rest.bytes().enumerate() {
            if byte == b'{' && !self.has_sent && !self.has_trailing {
                self.held.clear();
                self.raw.clear();
                self.state = ArgumentsState::Start;
                return at;
            }
            if self.raw.as_bytes().get(self.repeated) == Some(&byte) {
                self.repeated = (self.repeated + 1) % self.raw.len();
            } else if self.repeated > 0 || !is_space(byte) {
                self.has_trailing = true;
            }
        }
        rest.len()
    }
}
