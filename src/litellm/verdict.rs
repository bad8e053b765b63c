//! The verdict on a key of the file.

use std::fmt;

/// The verdict on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyVerdict {
    /// The Lua does the same.
    Mapped,
    /// sparkgap does it anyway.
    BuiltIn,
    /// It changes nothing here.
    Ignored,
    /// It has no counterpart; the note says what to do.
    Unsupported,
}

impl fmt::Display for KeyVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            KeyVerdict::Mapped => "mapped",
            KeyVerdict::BuiltIn => "built in",
            KeyVerdict::Ignored => "ignored",
            KeyVerdict::Unsupported => "unsupported",
        })
    }
}
