//! Texts from outside, made fit to be shown: on one line, without commands to a terminal, and of a limited size.
//!
//! The log, errors and the commands all show texts of clients and upstreams by this module. Pure.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// The most bytes that are shown of one text of a client or an upstream. An error's own words fit; a text as long as a
/// request's body must not become a log line of that size.
pub const SHOWN_SIZE_MAX: usize = 512;

/// A text from outside, as it is shown. Control characters, line separators, invisible characters and those that reverse
/// the direction of writing are escaped (`\n`, `\u{1b}`): they could end the line, command the terminal, or make the line
/// read as another one. A text that is cut ends in `…`.
#[derive(Clone, Copy, Debug)]
pub struct ShownText<'t> {
    text: &'t str,
    size_max: usize,
}

impl<'t> ShownText<'t> {
    /// At most [`SHOWN_SIZE_MAX`] bytes of the text.
    pub fn new(text: &'t str) -> Self {
        ShownText::within(text, SHOWN_SIZE_MAX)
    }

    /// The whole text, on one line.
    pub fn whole(text: &'t str) -> Self {
        ShownText::within(text, usize::MAX)
    }

    /// At most `size_max` bytes, with the escapes and without the mark of the cut.
    pub fn within(text: &'t str, size_max: usize) -> Self {
        ShownText { text, size_max }
    }

    /// True if the text is shown as it is.
    pub fn is_plain(&self) -> bool {
        // Nearly all texts are printable ASCII, which is found out many bytes at a time.
        let is_ascii = || self.text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        self.text.len() <= self.size_max && (is_ascii() || !self.text.chars().any(is_command))
    }
}

/// The beginning of a text, at most `size_max` bytes long and without a torn character.
pub fn cut(text: &str, size_max: usize) -> &str {
    let end = (0..=size_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// True for a character that does more than stand in its place: see [`ShownText`].
pub fn is_command(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || is_invisible(c)
}

/// True for a character that takes no place or shows nothing. With it, two texts that look the same can differ.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{115f}' | '\u{1160}' | '\u{200b}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The same JSON with the escapes of JSON for characters that command a terminal. They stand in strings only; a line break
/// stands between entries of JSON for people, and stays.
pub fn plain_json(json: &str) -> Cow<'_, str> {
    let is_escaped = |c: char| is_command(c) && c != '\n';
    if !json.contains(is_escaped) {
        return Cow::Borrowed(json);
    }
    let mut plain = String::with_capacity(json.len());
    for c in json.chars() {
        if is_escaped(c) {
            // JSON escapes have four digits: a character beyond them takes two.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(plain, "\\u{unit:04x}");
            }
        } else {
            plain.push(c);
        }
    }
    Cow::Owned(plain)
}

impl fmt::Display for ShownText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_plain() {
            return f.write_str(self.text);
        }
        let mut left = self.size_max;
        for c in self.text.chars() {
            let is_command = is_command(c);
            let size = if is_command { c.escape_default().len() } else { c.len_utf8() };
            let Some(rest) = left.checked_sub(size) else { return f.write_char('…') };
            left = rest;
            if is_command { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// A text from outside within a line of words; a dash if it is empty.
#[derive(Clone, Copy, Debug)]
pub struct OrDash<'t>(pub &'t str);

impl fmt::Display for OrDash<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("-") } else { ShownText::new(self.0).fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{self, Value};

    #[test]
    fn a_text_stays_one_line_and_commands_nothing() {
        for (text, expected) in [
            ("a b é 日本", "a b é 日本"),
            ("", ""),
            ("a\r\n<0>forged\u{1b}[2J\u{85}", "a\\r\\n<0>forged\\u{1b}[2J\\u{85}"),
            ("\u{9b}2J\u{7f}\t", "\\u{9b}2J\\u{7f}\\t"),
            ("user\u{202e}nimda\u{2066}", "user\\u{202e}nimda\\u{2066}"),
            ("an\u{200b}na\u{ad}\u{e0041}", "an\\u{200b}na\\u{ad}\\u{e0041}"),
            ("\u{feff}a\u{fffa}\u{3164}", "\\u{feff}a\\u{fffa}\\u{3164}"),
            ("a\u{2028}b\u{200f}c\u{61c}", "a\\u{2028}b\\u{200f}c\\u{61c}"),
        ] {
            assert_eq!(ShownText::new(text).to_string(), expected);
            assert_eq!(ShownText::whole(text).to_string(), expected);
            assert_eq!(ShownText::new(text).is_plain(), text == expected);
        }
    }

    #[test]
    fn a_text_is_cut_between_characters_and_escapes() {
        let size = |text: &str| ShownText::new(text).to_string();
        assert_eq!(size(&"a".repeat(SHOWN_SIZE_MAX)), "a".repeat(SHOWN_SIZE_MAX));
        assert_eq!(size(&"a".repeat(SHOWN_SIZE_MAX + 1)), format!("{}…", "a".repeat(SHOWN_SIZE_MAX)));
        assert_eq!(size(&"日".repeat(SHOWN_SIZE_MAX)), format!("{}…", "日".repeat(SHOWN_SIZE_MAX / 3)));
        // An escape takes the room of its own characters, so that no text becomes longer by them.
        assert_eq!(size(&"\u{1b}".repeat(1000)), format!("{}…", "\\u{1b}".repeat(SHOWN_SIZE_MAX / 6)));
        assert_eq!(ShownText::whole(&"\n".repeat(1000)).to_string(), "\\n".repeat(1000));
        assert_eq!(ShownText::within("abc", 0).to_string(), "…");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let text = "a\u{1b}\u{7f}\u{9b}\u{202e}\"é";
        let mut plain = plain_json(&Value::from(text).to_json()).into_owned().into_bytes();
        assert!(plain.iter().all(|byte| *byte >= 0x20), "{plain:?}");
        assert!(String::from_utf8_lossy(&plain).contains("\\u007f\\u009b\\u202e"));
        assert_eq!(json::parse(&mut plain).unwrap().as_str(), Some(text));
    }
}
