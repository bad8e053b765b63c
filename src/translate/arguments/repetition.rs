//! Servers that send text again: all arguments so far with each fragment, or all of them at the end.

use super::{Arguments, SPACES, State, is_space};

impl Arguments {
    /// The new part of a fragment. Some servers send all arguments so far with each fragment. A fragment that is longer
    /// than the text so far and starts with all of it counts as such a repetition if it cannot be a continuation; from
    /// then on no more proof is needed. `None`: a value may come here, so that the fragment can also be a nested object
    /// with the same first key. The fragment then waits for the next one.
    ///
    /// Only a fragment that is at least as long as the whole text is compared with it, so the cost is that of reading
    /// it.
    pub(super) fn news<'f>(&mut self, fragment: &'f str) -> Option<&'f str> {
        if self.raw.is_empty()
            || fragment.len() < self.raw.len()
            || matches!(self.state, State::Start | State::Other | State::Complete)
        {
            return Some(fragment);
        }
        let text = fragment.trim_start_matches(SPACES);
        let Some(news) = text.strip_prefix(self.raw.as_str()) else { return Some(fragment) };
        if !self.is_cumulative {
            if matches!(self.state, State::Value | State::FirstElement | State::Element) {
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

    /// Decides about the fragment that waits. `next` is the fragment after it, `None` at the end. It was a repetition
    /// if it is repeated itself, or if it is a whole object and the text before it would then be left open.
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

    /// True if `text` cannot stand at this place. It starts with `{` and, if the state is inside a string, a key's
    /// quote follows. If a value may come here, it can stand here: as a nested object with the same first key.
    fn is_proof_of_repetition(&self, text: &str) -> bool {
        match self.state {
            State::FirstKey
            | State::Key
            | State::Colon
            | State::Number(_)
            | State::Literal(..)
            | State::AfterValue => true,
            // The key's opening quote would end the string, and the key's first byte would follow it.
            State::KeyText | State::Text => match text.split_once('"') {
                Some((_, key)) => key.bytes().next().is_some_and(|b| !is_space(b) && !b":,]}".contains(&b)),
                None => false,
            },
            _ => false,
        }
    }

    /// Handles text after the complete object, and returns the number of bytes that are used. Some servers stream the
    /// arguments and then send them once more, whole; some send `{}` before the arguments.
    pub(super) fn after_the_end(&mut self, rest: &str) -> usize {
        for (at, byte) in rest.bytes().enumerate() {
            if byte == b'{' && !self.has_sent && !self.has_trailing {
                self.held.clear();
                self.raw.clear();
                self.state = State::Start;
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
