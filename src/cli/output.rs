//! Texts on stdout and stderr.
//!
//! Names of models, errors and other words of servers are in these texts, so characters that command a terminal are
//! escaped here, whatever the command. A command also makes such words fit one line ([`ShownText`]), since they could look
//! like a line of its own.

use std::borrow::Cow;
use std::io::Write as _;

use crate::json::Value;
use crate::shown::{ShownText, plain_json};

/// The reason why a command failed: the text that is printed before the program ends.
pub(super) type Failed = String;

/// Writes lines to stdout. Errors are ignored: if the reader has left, nobody needs the text.
pub(super) fn print(text: &str) {
    print_exactly(&visible(text));
}

/// Writes a text to stdout byte for byte: for a file that the user made, which only they can have put anything into.
pub(super) fn print_exactly(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes a JSON value and a line end to stdout.
pub(super) fn print_json(value: &Value<'_>) {
    print_exactly(&format!("{}\n", plain_json(&value.to_json())));
}

/// Writes a failure to stdout for a program that reads JSON there: `{"error": "…"}`.
pub(super) fn print_failure(failed: &Failed) {
    print_json(&Value::object([("error", failed.as_str().into())]));
}

/// Writes lines to stderr. Errors are ignored, since there is no other place to report them.
pub(super) fn note(text: &str) {
    let _ = std::io::stderr().write_all(visible(text).as_bytes());
}

/// The lines without commands to a terminal.
fn visible(text: &str) -> Cow<'_, str> {
    if text.split('\n').all(|line| ShownText::whole(line).is_plain()) {
        return Cow::Borrowed(text);
    }
    let lines: Vec<String> = text.split('\n').map(|line| ShownText::whole(line).to_string()).collect();
    Cow::Owned(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_commands_a_terminal() {
        assert_eq!(visible("a\n  b é\n"), "a\n  b é\n");
        assert_eq!(visible("a\u{1b}[2J\r\n\u{202e}b\n"), "a\\u{1b}[2J\\r\n\\u{202e}b\n");
    }
}
