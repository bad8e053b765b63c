//! The verdict on a key of the file.

use std::fmt;

/// The verdict on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The Lua does the same.
    Mapped,
    /// sparkgap does it anyway.
    BuiltIn,
    /// It changes nothing here.
    Ignored,
    /// It has no counterpart; the note says what to do.
    Unsupported,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Mapped => "mapped",
            Verdict::BuiltIn => "built in",
            Verdict::Ignored => "ignored",
            Verdict::Unsupported => "unsupported",
        })
    }
}
