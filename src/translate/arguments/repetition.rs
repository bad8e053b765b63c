//! Servers that send text again: all arguments so far with each fragment, or once more at the end.

use super::machine::ObjectState;
use super::{Arguments, SPACES, is_legal_value, is_space};

/// Recognizes text that was sent before.
#[derive(Clone, Debug, Default)]
pub(super) struct ResentText {
    /// A fragment that is either a nested object or a repetition of all arguments so far. The next fragment decides.
    doubtful: String,
    /// True if the server turned out to send all arguments so far with every fragment.
    is_cumulative: bool,
    /// The number of bytes of the same object that have come again after its end.
    repeated: usize,
    has_trailing: bool,
}

impl ResentText {
    /// The new part of a fragment, where `raw` is the text so far. Some servers send all arguments so far with each
    /// fragment. A fragment counts as such a repetition if it is longer than the text so far, starts with all of it, and
    /// cannot be a continuation; from then on no more proof is needed. Returns `None` where a value may begin: there the
    /// fragment can also be a nested object with the same first key, so it waits for the next fragment.
    ///
    /// Only a fragment that is at least as long as the whole text is compared with that text, so the comparison costs
    /// no more than reading the fragment.
    pub(super) fn news<'f>(&mut self, fragment: &'f str, raw: &str, state: ObjectState) -> Option<&'f str> {
        if raw.is_empty()
            || fragment.len() < raw.len()
            || matches!(state, ObjectState::Start | ObjectState::Other | ObjectState::Complete)
        {
            return Some(fragment);
        }
        let text = fragment.trim_start_matches(SPACES);
        let Some(news) = text.strip_prefix(raw) else { return Some(fragment) };
        if !self.is_cumulative {
            if matches!(state, ObjectState::Value | ObjectState::FirstElement | ObjectState::Element) {
                // A nested object that closes more than itself is not a valid value on its own.
                if !Arguments::is_legal_beginning(text) {
                    return Some(fragment);
                }
                self.doubtful.push_str(fragment);
                return None;
            }
            if news.is_empty() || !is_proof_of_repetition(text, state) {
                return Some(fragment);
            }
        }
        self.is_cumulative = true;
        Some(news)
    }

    /// Decides whether the waiting fragment was a repetition, and returns the new part of it, if a fragment waits.
    /// `next` is the fragment after it, `None` at the end. It was a repetition if the next fragment repeats it in turn,
    /// or if it is a whole object and reading it as a nested one would leave the text before it open.
    pub(super) fn settle(&mut self, next: Option<&str>, raw: &str) -> Option<String> {
        if self.doubtful.is_empty() {
            return None;
        }
        let doubtful = std::mem::take(&mut self.doubtful);
        let text = doubtful.trim_matches(SPACES);
        let is_whole = || is_legal_value(text);
        self.is_cumulative = match next.map(|next| next.trim_matches(SPACES).strip_prefix(text)) {
            Some(more) => more.is_some_and(|more| !more.is_empty() || is_whole()),
            None => is_whole(),
        };
        let news = if self.is_cumulative { text.strip_prefix(raw) } else { None };
        Some(news.map(str::to_string).unwrap_or(doubtful))
    }

    /// Takes the text after the complete object `raw`, and returns the number of bytes up to the object that replaces
    /// it, or all. Some servers stream the arguments and then send the whole of them once more; some send `{}` before
    /// the arguments, which `is_placeholder` allows.
    pub(super) fn pass_over(&mut self, rest: &str, raw: &str, is_placeholder: bool) -> usize {
        for (at, byte) in rest.bytes().enumerate() {
            if byte == b'{' && is_placeholder && !self.has_trailing {
                return at;
            }
            if raw.as_bytes().get(self.repeated) == Some(&byte) {
                self.repeated = (self.repeated + 1) % raw.len();
            } else if self.repeated > 0 || !is_space(byte) {
                self.has_trailing = true;
            }
        }
        rest.len()
    }

    /// True if text other than the same object followed the complete object.
    pub(super) fn has_trailing(&self) -> bool {
        self.has_trailing || self.repeated > 0
    }

    /// The fragment that waits.
    pub(super) fn doubtful(&self) -> &str {
        &self.doubtful
    }
}

/// True if `text` cannot be a continuation, which proves that it is a repetition. It starts with `{`; if the state is
/// inside a string, the text up to its first quote would end that string, and the first byte of the key after it cannot
/// follow. Where a value may begin, `text` can be a nested object with the same first key, so nothing is proved.
fn is_proof_of_repetition(text: &str, state: ObjectState) -> bool {
    match state {
        ObjectState::FirstKey
        | ObjectState::Key
        | ObjectState::Colon
        | ObjectState::Word
        | ObjectState::AfterValue => true,
        // Read as a continuation, the key's opening quote would end the string, and the key's first byte would follow.
        ObjectState::KeyText | ObjectState::Text => match text.split_once('"') {
            Some((_, key)) => key.bytes().next().is_some_and(|b| !is_space(b) && !b":,]}".contains(&b)),
            None => false,
        },
        _ => false,
    }
}
