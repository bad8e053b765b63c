//! Follows one JSON or Python value to its end, byte by byte.
//!
//! The reader finds the end of the value and gives up at the first byte that cannot belong to one. It is not a
//! validator: the whole value is parsed once the call is complete. Raw control characters in strings are let through,
//! since models write them and the parser mends them.

/// The deepest nesting. A client sends the arguments back inside a request, which may nest 128 levels.
const DEPTH_MAX: u32 = 100;

/// The result of one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum ValueEvent {
    /// The value goes on.
    More,
    /// The value goes on, and a member's name has ended here: its text begins at this place and ends before this byte.
    /// Reported only for members of the level that the reader was made for.
    Key(usize),
    /// The same for a member's value that is a string.
    Text(usize),
    /// The value ends with this byte.
    Done,
    /// The value ended before this byte.
    DoneBefore,
    /// No value has this byte here.
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValuePlace {
    /// A value is due; with `true` the array may end instead.
    Value(bool),
    /// A member's name is due; with `true` the object may end instead.
    Key(bool),
    Colon,
    /// Inside a string: its quote, whether it is a member's name, and whether the next byte is escaped.
    Text {
        quote: u8,
        is_key: bool,
        is_escaped: bool,
    },
    /// A number or a literal.
    Word,
    AfterValue,
}

/// The state of the reader.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct ValueReader {
    place: ValuePlace,
    /// One bit for each open container, the innermost last: 1 is an object.
    containers: u128,
    depth: u32,
    is_python: bool,
    /// The depth of the members that are reported.
    level: u32,
    /// The beginning of the string that is read.
    text_start: usize,
}

impl ValueReader {
    /// A reader for one value. It reports the members of objects that stand `level` containers deep.
    pub(in super::super) fn new(is_python: bool, level: u32) -> Self {
        ValueReader {
            place: ValuePlace::Value(false),
            containers: 0,
            depth: 0,
            is_python,
            level,
            text_start: 0,
        }
    }

    /// Follows its text to an earlier place.
    pub(in super::super) fn shift(&mut self, removed: usize) {
        self.text_start = self.text_start.saturating_sub(removed);
    }

    /// The number of open containers.
    pub(in super::super) fn depth(&self) -> u32 {
        self.depth
    }

    /// Takes the byte at the place `at`.
    pub(in super::super) fn push(&mut self, byte: u8, at: usize) -> ValueEvent {
        match self.place {
            ValuePlace::Text { quote, is_key, is_escaped } => {
                self.text(byte, at, (quote, is_key, is_escaped))
            }
            ValuePlace::Word => match byte {
                _ if is_in_word(char::from(byte)) => ValueEvent::More,
                _ if self.depth == 0 => ValueEvent::DoneBefore,
                _ => {
                    self.place = ValuePlace::AfterValue;
                    self.push(byte, at)
                }
            },
            _ if byte.is_ascii_whitespace() => ValueEvent::More,
            ValuePlace::Value(may_end) => self.begin(byte, at, may_end),
            ValuePlace::Key(may_end) => match byte {
                b'}' if may_end => self.close(),
                _ if self.is_quote(byte) => self.open_text(byte, at, true),
                _ => ValueEvent::Dead,
            },
            ValuePlace::Colon if byte == b':' => self.go(ValuePlace::Value(false)),
            ValuePlace::Colon => ValueEvent::Dead,
            ValuePlace::AfterValue => match (byte, self.is_in_object()) {
                // The comma before a closing bracket is let through: the arguments are mended.
                (b',', true) => self.go(ValuePlace::Key(true)),
                (b',', false) => self.go(ValuePlace::Value(true)),
                (b'}', true) | (b']', false) => self.close(),
                _ => ValueEvent::Dead,
            },
        }
    }

    fn go(&mut self, place: ValuePlace) -> ValueEvent {
        self.place = place;
        ValueEvent::More
    }

    fn is_quote(&self, byte: u8) -> bool {
        byte == b'"' || (self.is_python && byte == b'\'')
    }

    fn is_in_object(&self) -> bool {
        self.containers & 1 == 1
    }

    fn open_text(&mut self, quote: u8, at: usize, is_key: bool) -> ValueEvent {
        self.text_start = at + 1;
        self.go(ValuePlace::Text { quote, is_key, is_escaped: false })
    }

    fn begin(&mut self, byte: u8, at: usize, may_end: bool) -> ValueEvent {
        match byte {
            b'{' | b'[' if self.depth < DEPTH_MAX => {
                let is_object = byte == b'{';
                self.containers = self.containers << 1 | u128::from(is_object);
                self.depth += 1;
                self.go(if is_object { ValuePlace::Key(true) } else { ValuePlace::Value(true) })
            }
            b']' if may_end && !self.is_in_object() => self.close(),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'+' | b'.' => self.go(ValuePlace::Word),
            _ if self.is_quote(byte) => self.open_text(byte, at, false),
            _ => ValueEvent::Dead,
        }
    }

    fn text(&mut self, byte: u8, at: usize, (quote, is_key, is_escaped): (u8, bool, bool)) -> ValueEvent {
        if is_escaped || byte != quote {
            let is_escaped = byte == b'\\' && !is_escaped;
            return self.go(ValuePlace::Text { quote, is_key, is_escaped });
        }
        self.place = if is_key { ValuePlace::Colon } else { ValuePlace::AfterValue };
        if self.depth == 0 {
            return ValueEvent::Done;
        }
        let is_reported = self.depth == self.level && self.is_in_object() && at >= self.text_start;
        match is_key {
            _ if !is_reported => ValueEvent::More,
            true => ValueEvent::Key(self.text_start),
            false => ValueEvent::Text(self.text_start),
        }
    }

    fn close(&mut self) -> ValueEvent {
        self.containers >>= 1;
        self.depth -= 1;
        self.place = ValuePlace::AfterValue;
        if self.depth == 0 { ValueEvent::Done } else { ValueEvent::More }
    }
}

/// True if a number or a literal may have this character.
pub(super) fn is_in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of bytes up to the end of the value; `None` if the text is not a value, or only its beginning.
    fn len(text: &str, is_python: bool) -> Option<usize> {
        let mut reader = ValueReader::new(is_python, 1);
        for (at, byte) in text.bytes().enumerate() {
            match reader.push(byte, at) {
                ValueEvent::Done => return Some(at + 1),
                ValueEvent::DoneBefore => return Some(at),
                ValueEvent::Dead => return None,
                _ => {}
            }
        }
        None
    }

    #[test]
    fn values_end_where_they_end() {
        for (text, is_python, expected) in [
            (r#"{"a":[1,{"b":"}\""}]} x"#, false, Some(21)),
            ("{} x", false, Some(2)),
            ("[1, 2,] x", false, Some(7)),
            ("\"a\nb\"", false, Some(5)),
            ("-1.5e3,", true, Some(6)),
            ("True)", true, Some(4)),
            ("{'a': 'it\\'s', \"b\": None})", true, Some(25)),
            ("'a'", false, None),
            ("{a:1}", false, None),
            ("{\"a\" 1}", false, None),
            ("{\"a\":1]", false, None),
            ("{\"a\":}", false, None),
            ("[,]", false, None),
            ("{\"a\":1", false, None),
            ("<", false, None),
        ] {
            assert_eq!(len(text, is_python), expected, "{text}");
        }
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(len(&deep(100), false), Some(200));
        assert_eq!(len(&deep(101), false), None);
    }
}
