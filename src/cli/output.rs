//! Texts on stdout and stderr.

use std::io::Write as _;

/// The reason why a command failed: the text that is printed before the program ends.
pub(super) type Failed = String;

/// Writes to stdout. Errors are ignored: if the reader has left, nobody needs the text.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes to stderr. Errors are ignored, since there is no other place to report them.
pub(super) fn note(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
