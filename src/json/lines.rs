//! JSON text as lines for people, without building values: so it takes no memory, whatever the size, and reads a text that a
//! limit has cut as far as it goes.

use super::DEPTH_MAX;

/// One line of JSON as [`super::Value::to_pretty_json`] writes it. Two lines are equal if they differ at most in the comma.
#[derive(Clone, Copy, Debug)]
pub struct PrettyLine<'b> {
    depth: usize,
    key: Option<&'b [u8]>,
    value: &'b [u8],
    is_followed: bool,
}

impl PartialEq for PrettyLine<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.depth, self.key, self.value) == (other.depth, other.key, other.value)
    }
}

impl<'b> PrettyLine<'b> {
    /// Appends the line, without a line end.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_middle(0, 0, out);
    }

    /// Appends the line without the first `skipped` and the last `dropped` bytes of its value; their numbers stand in their
    /// place.
    pub fn write_middle(&self, skipped: usize, dropped: usize, out: &mut Vec<u8>) {
        out.resize(out.len() + 2 * self.depth.min(DEPTH_MAX), b' ');
        if let Some(key) = self.key {
            out.extend_from_slice(key);
            out.extend_from_slice(b": ");
        }
        if skipped > 0 {
            out.extend_from_slice(format!("({skipped} bytes) … ").as_bytes());
        }
        let end = self.value.len().saturating_sub(dropped);
        out.extend_from_slice(self.value.get(skipped..end).unwrap_or_default());
        if dropped > 0 {
            out.extend_from_slice(format!(" … ({dropped} bytes)").as_bytes());
        }
        if self.is_followed {
            out.push(b',');
        }
    }

    /// The value, or the bracket that stands in this line.
    pub fn value(&self) -> &'b [u8] {
        self.value
    }

    /// True if both lines have a value at the same place of two documents.
    pub fn is_beside(&self, other: &PrettyLine<'_>) -> bool {
        (self.depth, self.key) == (other.depth, other.key)
    }
}

/// The lines of a text. One that does not begin like an object or an array is returned by its own lines.
#[derive(Clone, Debug)]
pub struct PrettyLines<'b> {
    rest: &'b [u8],
    depth: usize,
    is_json: bool,
}

impl<'b> PrettyLines<'b> {
    /// The lines of this text, which may be incomplete.
    pub fn new(text: &'b [u8]) -> Self {
        let is_json = matches!(text.trim_ascii_start().first(), Some(b'{' | b'['));
        PrettyLines { rest: text, depth: 0, is_json }
    }

    /// The bytes of the text that no line has been made of yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    /// Takes the next bytes, up to `size` of them.
    fn take(&mut self, size: usize) -> &'b [u8] {
        let (taken, rest) = self.rest.split_at_checked(size).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    /// Takes a string with its quotes, or what there is of it.
    fn take_string(&mut self) -> &'b [u8] {
        let mut is_escaped = true; // the first quote does not end it
        let end = self.rest.iter().position(|byte| {
            let is_end = *byte == b'"' && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            is_end
        });
        self.take(end.map_or(self.rest.len(), |end| end + 1))
    }

    /// Takes a value, or the bracket that begins one with entries. True if it does.
    fn take_value(&mut self) -> (&'b [u8], bool) {
        let close = match self.rest.first() {
            Some(b'"') => return (self.take_string(), false),
            Some(b'{') => b'}',
            Some(b'[') => b']',
            _ => {
                let is_end =
                    |byte: &u8| matches!(byte, b',' | b']' | b'}' | b'"') || byte.is_ascii_whitespace();
                let end = self.rest.iter().position(is_end).unwrap_or(self.rest.len());
                // A byte that no value begins with is a line of its own, so that each call takes at least one.
                return (self.take(end.max(1)), false);
            }
        };
        let bracket = self.take(1);
        self.skip_space();
        if self.rest.first() != Some(&close) {
            return (bracket, true);
        }
        self.take(1);
        (if close == b'}' { b"{}" } else { b"[]" }, false)
    }
}

impl<'b> Iterator for PrettyLines<'b> {
    type Item = PrettyLine<'b>;

    fn next(&mut self) -> Option<PrettyLine<'b>> {
        if !self.is_json {
            let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
            let is_last = self.rest.is_empty();
            let value = self.take(end);
            self.take(1);
            return (!is_last).then_some(PrettyLine { depth: 0, key: None, value, is_followed: false });
        }
        while let Some(b',' | b' ' | b'\n' | b'\r' | b'\t' | b'\x0c') = self.rest.first() {
            self.take(1);
        }
        let first = self.rest.first()?;
        let (mut key, mut opens) = (None, false);
        let mut value: &[u8];
        if matches!(first, b'}' | b']') {
            self.depth = self.depth.saturating_sub(1);
            value = self.take(1);
        } else {
            (value, opens) = self.take_value();
            self.skip_space();
            if self.rest.first() == Some(&b':') {
                self.take(1);
                self.skip_space();
                key = Some(value);
                (value, opens) = self.take_value();
            }
        }
        let depth = self.depth;
        self.depth += usize::from(opens);
        self.skip_space();
        let is_followed = !opens && self.rest.first() == Some(&b',');
        Some(PrettyLine { depth, key, value, is_followed })
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn lines(text: &[u8]) -> String {
        let mut out = Vec::new();
        for line in PrettyLines::new(text) {
            line.write(&mut out);
            out.push(b'\n');
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn the_lines_are_those_of_pretty_json() {
        for text in [
            r#"{"a":[1,{"b":null},[]],"c":{},"d":"x\"},\\","e\"":-1.5,"":true}"#,
            "[]",
            "{}",
            r#"[[[["]"]]],"a","\\"]"#,
            "{ \"a\" : [ 1 ,\n\t{ } ] , \"b\" : \"\" }",
        ] {
            let pretty = parse(&mut text.as_bytes().to_vec()).unwrap().to_pretty_json();
            assert_eq!(lines(text.as_bytes()), format!("{pretty}\n"));
        }
    }

    #[test]
    fn a_text_that_is_cut_anywhere_is_shown_as_far_as_it_goes() {
        let text = r#"{"a":[1,{"b":"é\"x\\"},[]],"c":{}}"#.as_bytes();
        let whole: Vec<u8> = text.iter().copied().filter(|byte| *byte != b',' && *byte != b':').collect();
        for end in 0..=text.len() {
            let shown: Vec<u8> = lines(&text[..end]).into_bytes();
            let kept: Vec<u8> =
                shown.into_iter().filter(|byte| !b",: \n".contains(byte) && byte.is_ascii()).collect();
            let expected: Vec<u8> = whole.iter().copied().filter(u8::is_ascii).collect();
            assert!(expected.starts_with(&kept), "{}", String::from_utf8_lossy(&kept));
        }
    }

    #[test]
    fn rubbish_ends() {
        for text in [&b"[::::]"[..], b"]]]]}", b"[\"", b"{:", b"[\xff\xfe,}\0", b"{\"a\"\"b\"c", b"[,,,"] {
            assert!(PrettyLines::new(text).count() <= text.len(), "{text:?}");
        }
        assert_eq!(lines(b"<html>\n\n{\r\n"), "<html>\n\n{\r\n");
        assert_eq!(lines(b""), "");
        let deep = vec![b'['; 300_000];
        let last = PrettyLines::new(&deep).last().unwrap();
        let mut out = Vec::new();
        last.write(&mut out);
        assert_eq!(out.len(), 2 * DEPTH_MAX + 1);
    }
}
