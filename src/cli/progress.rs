//! A line on stderr that shows the current step of a command.

use std::io::{self, IsTerminal as _, Write as _};

use crate::shown::ShownText;

/// The progress line. On a terminal each text overwrites the one before, and the last is erased; elsewhere each is a
/// line of its own.
pub(super) struct ProgressLine {
    is_terminal: bool,
}

impl ProgressLine {
    pub(super) fn new() -> Self {
        ProgressLine { is_terminal: io::stderr().is_terminal() }
    }

    pub(super) fn say(&self, text: &str) {
        let text = ShownText::new(text);
        let line = if self.is_terminal { format!("\r\x1b[2K{text} …") } else { format!("{text}\n") };
        // Errors are ignored, since there is no other place to report them.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    /// Erases the line. Call this before anything else is written.
    pub(super) fn clear(&self) {
        if self.is_terminal {
            let _ = io::stderr().write_all(b"\r\x1b[2K");
        }
    }
}
