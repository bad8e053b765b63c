//! One line on stderr that says what is being done.

use std::io::{self, IsTerminal as _, Write as _};

/// On a terminal the line is written over and wiped away; elsewhere each is a line of its own.
pub(super) struct Progress {
    is_terminal: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Progress { is_terminal: io::stderr().is_terminal() }
    }

    pub(super) fn say(&self, text: &str) {
        let line = if self.is_terminal { format!("\r\x1b[2K{text} …") } else { format!("{text}\n") };
        // Nobody is there to tell if stderr cannot be written to.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    /// To be called before anything else is written.
    pub(super) fn clear(&self) {
        if self.is_terminal {
            let _ = io::stderr().write_all(b"\r\x1b[2K");
        }
    }
}
