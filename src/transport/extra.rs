//! Headers that one request has beside those of every request to its upstream.

use std::fmt;

use ::http::{HeaderName, HeaderValue};

/// The longest value that is passed on, in bytes. Names of sessions are UUIDs.
const VALUE_SIZE_MAX: usize = 256;

/// The longest value of a client's header that is passed on as it came, in bytes. Claude Code's list of betas has 400; an OAuth
/// token may have some thousand.
const PASSED_SIZE_MAX: usize = 16 * 1024;

/// Further headers of one request, as they are sent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ExtraHeaders(String);

impl ExtraHeaders {
    /// Adds a header, unless its value is empty, longer than 256 bytes, or has a byte that is not visible ASCII: values may come
    /// from clients.
    pub fn push(&mut self, name: &'static str, value: &str) {
        if passes(value) {
            push_line(&mut self.0, name, value);
        }
    }

    /// Adds a header of a client as it came. Returns false, and adds nothing, if a header cannot have this name or this value, or
    /// if the value is longer than 16 KiB.
    pub fn pass(&mut self, name: &str, value: &str) -> bool {
        let is_valid = value.len() <= PASSED_SIZE_MAX
            && HeaderName::from_bytes(name.as_bytes()).is_ok()
            && HeaderValue::from_str(value).is_ok();
        if is_valid {
            push_line(&mut self.0, name, value);
        }
        is_valid
    }

    /// The lines of the headers.
    pub(super) fn lines(&self) -> &str {
        &self.0
    }
}

/// Prints the number of lines only, since the values may be keys.
impl fmt::Debug for ExtraHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} headers", self.0.lines().count())
    }
}

/// Appends the line of a header, whose name and value are valid.
pub(super) fn push_line(lines: &mut String, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        lines.push_str(part);
    }
}

/// True if a value may stand in an extra header.
pub fn passes(value: &str) -> bool {
    (1..=VALUE_SIZE_MAX).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_visible_values_pass() {
        let mut headers = ExtraHeaders::default();
        headers.push("a", "5f1c-22");
        headers.push("b", &"x".repeat(VALUE_SIZE_MAX));
        for value in ["", "a b", "a\tb", "a\r\nc: d", "a\0", "größe", &"x".repeat(VALUE_SIZE_MAX + 1)] {
            headers.push("refused", value);
        }
        assert_eq!(headers.lines(), format!("a: 5f1c-22\r\nb: {}\r\n", "x".repeat(256)));
    }
}
