//! Replaces the value of one member in a document's own bytes. All other bytes stay as they came: spacing, the order of
//! keys, escapes, and numbers of any length.
//!
//! It scans and does not parse, in time linear in the document. The caller parses the document first, since a document
//! that is not valid JSON gives a result without a meaning.

use super::write_str;

/// The most bytes that an escape takes for one byte of a key: `\u006d` is an `m`.
const ESCAPE_SIZE: usize = 6;

/// The document with `value`, as a JSON string, in the place of the value of the outermost object's member `key`. A
/// repeated member gets it every time, since servers differ in which of them they take. `None`: the document is not an
/// object, or has no such member.
pub fn splice_member(json: &[u8], key: &str, value: &str) -> Option<Vec<u8>> {
    let mut scanner = Scanner { json, at: 0 };
    scanner.skip_blanks();
    if scanner.next() != Some(b'{') {
        return None;
    }
    let mut spliced = Vec::with_capacity(json.len() + value.len());
    let (mut copied, mut is_found) = (0, false);
    loop {
        scanner.skip_blanks();
        if scanner.peek() != Some(b'"') {
            break;
        }
        let name = scanner.string();
        scanner.skip_blanks();
        if scanner.next() != Some(b':') {
            break;
        }
        scanner.skip_blanks();
        let begin = scanner.at;
        scanner.skip_value();
        if is_key(name, key) {
            spliced.extend_from_slice(json.get(copied..begin)?);
            write_str(value, &mut spliced);
            (copied, is_found) = (scanner.at, true);
        }
        scanner.skip_blanks();
        if scanner.next() != Some(b',') {
            break;
        }
    }
    spliced.extend_from_slice(json.get(copied..)?);
    is_found.then_some(spliced)
}

/// True if a key's bytes, with its quotes, are this key. It may be written with escapes.
fn is_key(quoted: &[u8], key: &str) -> bool {
    let plain = quoted.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or_default();
    if plain == key.as_bytes() {
        return true;
    }
    plain.contains(&b'\\')
        && plain.len() <= ESCAPE_SIZE * key.len()
        && serde_json::from_slice::<String>(quoted).is_ok_and(|name| name == key)
}

/// A place in a document.
struct Scanner<'j> {
    json: &'j [u8],
    at: usize,
}

impl<'j> Scanner<'j> {
    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn rest(&self) -> &'j [u8] {
        self.json.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    /// Passes over a string that begins here, and returns it with its quotes.
    fn string(&mut self) -> &'j [u8] {
        let begin = self.at;
        self.at += 1;
        while let Some(found) = memchr::memchr2(b'"', b'\\', self.rest()) {
            self.at += found;
            match self.next() {
                Some(b'\\') => self.at += 1,
                _ => return self.json.get(begin..self.at).unwrap_or_default(),
            }
        }
        self.at = self.json.len();
        self.json.get(begin..).unwrap_or_default()
    }

    /// Passes over the value that begins here.
    fn skip_value(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => _ = self.string(),
                b'[' | b'{' => {
                    depth += 1;
                    self.at += 1;
                }
                b']' | b'}' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                // This bracket or comma belongs to the object around the value.
                b']' | b'}' | b',' if depth == 0 => return,
                b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return,
                // A number, a literal, or what stands between the values of a list or an object.
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(json: &str) -> Option<String> {
        splice_member(json.as_bytes(), "model", "qwen3 \"a\"").map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn only_the_value_of_the_outermost_member_changes() {
        for json in [
            r#"{"model":@}"#,
            "\u{20}{ \"model\" :\t@ \r\n, \"a\" : 1 }\n",
            r#"{"a":123456789012345678901234567890,"model":@,"b":1.50e+0,"c":"A\/"}"#,
            r#"{"messages":[{"model":"inner","content":"\"model\":\"x\"}"}],"model":@,"meta":{"model":"inner"}}"#,
            r#"{"model":@,"a":[1,2],"model":@,"model":@}"#,
            r#"{"mod\u0065l":@,"\u006D\u006f\u0064\u0065\u006c":@,"Model":"x","model ":"y","models":"z"}"#,
            r#"{"":{},"a\\":[],"b\"model":"x","model":@}"#,
            r#"{"a":"\\","model":@,"b":[[[]],{"model":[]}],"c":true,"d":null,"e":-0}"#,
        ] {
            for old in
                [r#""m""#, r#""a\"b\\""#, r#""""#, "null", "12", "true", r#"{"model":["x",{}]}"#, "[1,[2]]"]
            {
                let came = json.replace('@', old);
                assert_eq!(spliced(&came), Some(json.replace('@', r#""qwen3 \"a\"""#)), "{came}");
            }
        }
    }

    #[test]
    fn a_document_without_the_member_has_nothing_to_replace() {
        for json in [
            "",
            " ",
            "[]",
            "null",
            "1",
            r#""model""#,
            "{}",
            r#"{"a":{"model":"x"}}"#,
            r#"[{"model":"x"}]"#,
            r#"{"models":"x","mode":"y"}"#,
            r#"{"\u006dodelx":"x"}"#,
            r#"{"\ud800":"x"}"#,
        ] {
            assert_eq!(spliced(json), None, "{json}");
        }
    }

    #[test]
    fn a_document_that_is_cut_or_broken_harms_nothing() {
        let whole = r#"{"a":[1,{"b":"\""}],"mod\u0065l":"x","c":{"d":[]}}"#;
        for size in 0..whole.len() {
            let _ = splice_member(&whole.as_bytes()[..size], "model", "y");
            let _ = splice_member(&whole.as_bytes()[size..], "model", "y");
        }
        for json in
            ["{]", r#"{"model"}"#, r#"{"model":}"#, r#"{"model":]}}"#, r#"{"model" "x"}"#, "{\"model\":\"\\"]
        {
            let _ = spliced(json);
        }
    }

    #[test]
    fn a_model_of_any_characters_stays_one_string() {
        for model in ["", "\"", "\\", "a\nb", "größe", "\u{0}"] {
            let bytes = splice_member(br#"{"model":"x","n":1}"#, "model", model).unwrap();
            let tree: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((tree["model"].as_str(), tree["n"].as_u64()), (Some(model), Some(1)));
        }
    }

    #[test]
    fn deep_and_long_documents_take_linear_time() {
        let deep = format!(r#"{{"a":{}{},"model":"x"}}"#, "[".repeat(200_000), "]".repeat(200_000));
        assert!(spliced(&deep).unwrap().ends_with(r#","model":"qwen3 \"a\""}"#));
        let many = format!(r#"{{{}"z":1}}"#, r#""model":"x","#.repeat(100_000));
        assert_eq!(spliced(&many).unwrap().matches("qwen3").count(), 100_000);
    }
}
