//! All text of one call's arguments so far, as it came.

use super::RAW_SIZE_MAX;
use crate::shown::cut;

/// The text without leading white space, up to [`RAW_SIZE_MAX`]. It is kept for the end, and to recognize servers that
/// repeat themselves.
#[derive(Clone, Debug, Default)]
pub(super) struct RawText {
    text: String,
    /// True if it is full, and more text was dropped.
    is_cut: bool,
}

impl RawText {
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// True if text was dropped.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The beginning of `text` that still fits. If that is not all of it, no more text fits from now on.
    pub(super) fn fitting<'f>(&mut self, text: &'f str) -> &'f str {
        let room = if self.is_cut { 0 } else { RAW_SIZE_MAX.saturating_sub(self.text.len()) };
        if text.len() <= room {
            return text;
        }
        self.is_cut = true;
        cut(text, room)
    }

    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Forgets the text.
    pub(super) fn clear(&mut self) {
        self.text.clear();
    }
}

#[cfg(test)]
impl RawText {
    /// Makes room, so that a test can see whether the text is ever moved.
    pub(super) fn reserve(&mut self, size: usize) {
        self.text.reserve(size);
    }
}
