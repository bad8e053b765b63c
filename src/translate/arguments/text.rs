//! The inside of one JSON string, from its opening quote to its closing one.
//!
//! Sends plain text on at once, withholds an escape until it is decided, and repairs common mistakes of small models:
//! every mistake inside a string can be repaired. This module does not know where the string stands.
//!
//! | mode | next | then |
//! |---|---|---|
//! | Plain | `"` | the end |
//! | Plain | `\` | Backslash |
//! | Plain | a raw control character | its escape is written (a repair) |
//! | Backslash | `"\/bfnrt` | the escape is written; Plain |
//! | Backslash | `u` | Hex |
//! | Backslash | `'` | `'` is written (a repair); Plain |
//! | Backslash | else | `\\` is written (a repair); Plain, with the same byte |
//! | Hex | the fourth digit | the escape is decided, see [`TextState::decide`]; Plain |
//! | Hex | no digit | `\\u..` is written (a repair); Plain, with the same byte |

use std::fmt::Write;

/// The replacement of half of a surrogate pair.
const REPLACEMENT: &str = "\\ufffd";
/// The length of `\uXXXX` in bytes.
const UNIT_SIZE: usize = 6;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Plain,
    Backslash,
    Hex,
}

/// The state inside a string; between strings it has its default value.
#[derive(Clone, Debug, Default)]
pub(super) struct TextState {
    mode: Mode,
    /// The undecided escape: up to `\ud83d\ude0`.
    withheld: String,
    /// True if `withheld` starts with a high surrogate that waits for its low one.
    high: bool,
    repairs: usize,
}

impl TextState {
    /// The number of repairs since [`TextState::clear`].
    pub(super) fn repairs(&self) -> usize {
        self.repairs
    }

    /// Takes text of the string and writes the part that is decided. It writes the closing quote too, stops there, and
    /// returns the number of bytes that it took. `None`: it took all of the text, and the string goes on.
    pub(super) fn push(&mut self, text: &str, sink: &mut String) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = text.as_bytes().get(at) {
            at += match self.mode {
                Mode::Plain => {
                    let taken = self.plain(byte, text.get(at..).unwrap_or(""), sink);
                    if byte == b'"' {
                        return Some(at + taken);
                    }
                    taken
                }
                Mode::Backslash => self.backslash(byte, sink),
                Mode::Hex => self.hex(byte, sink),
            };
        }
        None
    }

    /// Ends a string that has no closing quote: drops an incomplete escape, and writes the quote.
    pub(super) fn finish(&mut self, sink: &mut String) {
        self.replace_high(sink);
        self.withheld.clear();
        self.mode = Mode::Plain;
        sink.push('"');
    }

    fn plain(&mut self, byte: u8, rest: &str, sink: &mut String) -> usize {
        if byte == b'\\' {
            self.withheld.push('\\');
            self.mode = Mode::Backslash;
            return 1;
        }
        self.replace_high(sink);
        if byte < 0x20 {
            self.repairs += 1;
            write_control(byte, sink);
            return 1;
        }
        if byte == b'"' {
            sink.push('"');
            return 1;
        }
        let is_special = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
        let run = rest.as_bytes().iter().position(is_special).unwrap_or(rest.len());
        sink.push_str(rest.get(..run).unwrap_or(""));
        run
    }

    fn backslash(&mut self, byte: u8, sink: &mut String) -> usize {
        if byte == b'u' {
            self.withheld.push('u');
            self.mode = Mode::Hex;
            return 1;
        }
        self.replace_high(sink);
        self.withheld.clear();
        self.mode = Mode::Plain;
        match byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                sink.push('\\');
                sink.push(char::from(byte));
                1
            }
            b'\'' => {
                self.repairs += 1;
                sink.push('\'');
                1
            }
            _ => {
                self.repairs += 1;
                sink.push_str("\\\\");
                0
            }
        }
    }

    fn hex(&mut self, byte: u8, sink: &mut String) -> usize {
        if byte.is_ascii_hexdigit() {
            self.withheld.push(char::from(byte));
            if self.withheld.len() == if self.high { 2 * UNIT_SIZE } else { UNIT_SIZE } {
                self.decide(sink);
            }
            return 1;
        }
        // Usually a Windows path: `C:\users`.
        self.replace_high(sink);
        self.repairs += 1;
        sink.push('\\');
        sink.push_str(&self.withheld);
        self.withheld.clear();
        self.mode = Mode::Plain;
        0
    }

    /// Decides a complete `\uXXXX`. A low surrogate ends a pair or is replaced, a high one waits, and any other
    /// character is written.
    fn decide(&mut self, sink: &mut String) {
        self.mode = Mode::Plain;
        let digits = self.withheld.len() - 4;
        let unit = self.withheld.get(digits..).and_then(|hex| u16::from_str_radix(hex, 16).ok()).unwrap_or(0);
        let is_low = (0xdc00..0xe000).contains(&unit);
        if self.high && is_low {
            self.high = false;
            sink.push_str(&self.withheld);
            self.withheld.clear();
            return;
        }
        self.replace_high(sink);
        if (0xd800..0xdc00).contains(&unit) {
            self.high = true;
            return;
        }
        if is_low {
            self.repairs += 1;
            sink.push_str(REPLACEMENT);
        } else {
            sink.push_str(&self.withheld);
        }
        self.withheld.clear();
    }

    /// Replaces a waiting high surrogate, because no low one follows.
    fn replace_high(&mut self, sink: &mut String) {
        if self.high {
            self.high = false;
            self.repairs += 1;
            sink.push_str(REPLACEMENT);
            self.withheld.drain(..UNIT_SIZE);
        }
    }
}

fn write_control(byte: u8, sink: &mut String) {
    match byte {
        b'\n' => sink.push_str("\\n"),
        b'\t' => sink.push_str("\\t"),
        b'\r' => sink.push_str("\\r"),
        // Writing to a String cannot fail.
        _ => drop(write!(sink, "\\u{byte:04x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the output, followed by `|` and the rest after the closing quote. Checks that reading byte by byte and
    /// reading all at once give the same.
    fn run(body: &str) -> (String, usize) {
        let mut whole = TextState::default();
        let mut sink = String::new();
        if whole.push(body, &mut sink).is_none() {
            whole.finish(&mut sink);
        }
        let (mut pieces, mut slow) = (TextState::default(), String::new());
        let mut ended = false;
        for c in body.chars() {
            ended = ended || pieces.push(c.encode_utf8(&mut [0; 4]), &mut slow).is_some();
        }
        if !ended {
            pieces.finish(&mut slow);
        }
        assert_eq!((&sink, whole.repairs()), (&slow, pieces.repairs()), "{body:?}");
        (sink, whole.repairs())
    }

    #[test]
    fn every_cell_of_the_table() {
        for (body, expected, repairs) in [
            ("plain é😀\"", "plain é😀\"", 0),
            ("\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\\\"\\\\\\/\\b\\f\\n\\r\\t\"", 0),
            ("a\nb\tc\rd\u{1}\"", "a\\nb\\tc\\rd\\u0001\"", 4),
            ("\\u00e9\\u0000\"", "\\u00e9\\u0000\"", 0),
            ("it\\'s \\d\"", "it's \\\\d\"", 2),
            ("C:\\users\\x\"", "C:\\\\users\\\\x\"", 2),
            ("\\u12\"", "\\\\u12\"", 1),
            ("\\é\"", "\\\\é\"", 1),
            ("\\\n\"", "\\\\\\n\"", 2),
            ("\\ud83d\\ude00\"", "\\ud83d\\ude00\"", 0),
            ("\\ud83d\"", "\\ufffd\"", 1),
            ("\\ude00\"", "\\ufffd\"", 1),
            ("\\ud83dx\"", "\\ufffdx\"", 1),
            ("\\ud83d\\n\"", "\\ufffd\\n\"", 1),
            ("\\ud83d\\u0041\"", "\\ufffd\\u0041\"", 1),
            ("\\ud83d\\ud83d\\ude00\"", "\\ufffd\\ud83d\\ude00\"", 1),
            ("\\ud83d\\q\"", "\\ufffd\\\\q\"", 2),
            ("\\ud83d\\u1z\"", "\\ufffd\\\\u1z\"", 2),
            ("cut", "cut\"", 0),
            ("cut\\", "cut\"", 0),
            ("cut\\u12", "cut\"", 0),
            ("cut\\ud83d\\u", "cut\\ufffd\"", 1),
        ] {
            assert_eq!(run(body), (expected.to_string(), repairs), "{body:?}");
        }
    }
}
