//! Takes the values of members, variables and fields of forms out of bytes, if their name says that they are keys.
//!
//! The bytes may be JSON, JSON within strings of JSON, a form, or text with such parts, so they are searched and not parsed.
//! Each byte is read a limited number of times.

use memchr::memmem;

use crate::config::HIDDEN_SIZE_MIN;

/// The names of members and variables whose values are keys, in lower case. A name may have others in front, and an `s` behind
/// it.
const NAMES: [&[u8]; 8] = [
    b"api_key",
    b"apikey",
    b"api-key",
    b"authorization",
    b"password",
    b"secret",
    b"access_token",
    b"auth_token",
];

/// The members of an object that describe a value and are not one: a tool that takes a password has them in its schema.
const DESCRIBING: [&[u8]; 6] = [b"type", b"title", b"description", b"format", b"pattern", b"$ref"];

/// The most bytes of an object or a list that are searched for keys. A larger one holds something else.
const GROUP_SIZE_MAX: usize = 64 * 1024;

/// The most objects and lists within each other. It also limits how often a byte is read: as often as groups can begin before
/// it that it may belong to.
const DEPTH_MAX: usize = 16;

/// The number of backslashes before the quotation marks of a string, of one within a string, and so on. Other numbers are not
/// JSON, and could make strings that lie within each other without end.
const NESTED_MARKS: [usize; 4] = [0, 1, 3, 7];

/// The most bytes of the head of a field of a form behind its name, and of the name before the word that is known.
const FIELD_HEAD_MAX: usize = 512;
const FIELD_NAME_MAX: usize = 64;

/// The most bytes of the value of a field, if it has several lines.
const FIELD_VALUE_MAX: usize = 8 * 1024;

/// Replaces the values of the known names by stars: strings of at least [`HIDDEN_SIZE_MIN`] bytes, also those within objects and
/// lists.
pub(super) fn hide_named(bytes: &mut [u8]) {
    let lower = bytes.to_ascii_lowercase();
    for name in NAMES {
        let mut searched = 0;
        for at in memmem::find_iter(&lower, name) {
            let end = at + name.len();
            let end = end + usize::from(lower.get(end) == Some(&b's'));
            if let Some((from, end)) = field_behind(bytes, (at, end)) {
                star(bytes, from, end);
                continue;
            }
            let Some(value) = NamedValue::behind(bytes, end) else { continue };
            if let Some(end) = value.end(bytes) {
                star(bytes, value.from, end);
            } else if value.from >= searched
                && let Some((end, strings)) = strings_of_group(bytes, value.from)
            {
                searched = end;
                strings.into_iter().for_each(|(from, end)| star(bytes, from, end));
            }
        }
    }
}

/// The value behind a name.
struct NamedValue {
    from: usize,
    is_quoted: bool,
    is_on_next_line: bool,
}

impl NamedValue {
    /// The value of the member or variable whose name ends at `at`.
    fn behind(bytes: &[u8], at: usize) -> Option<NamedValue> {
        let is_space = |byte: u8| matches!(byte, b' ' | b'\\' | b'"' | b'\'');
        let colon = run(bytes, at, is_space);
        let mark = bytes.get(colon).filter(|byte| matches!(byte, b':' | b'='))?;
        // A variable without a value is followed by the next variable.
        let (line, is_on_next_line) = match mark {
            b':' => skip_lines(bytes, colon + 1),
            _ => (colon + 1, false),
        };
        let from = skip_quotes(bytes, line);
        let is_quoted = bytes.get(from.checked_sub(1)?).is_some_and(|byte| matches!(byte, b'"' | b'\''));
        Some(NamedValue { from, is_quoted, is_on_next_line })
    }

    /// The end of the value, if it is a string that may be a key.
    fn end(&self, bytes: &[u8]) -> Option<usize> {
        let is_value = |byte: u8| match self.is_quoted {
            true => !matches!(byte, b'"' | b'\\' | b'\'' | b'\n'),
            false => is_key_byte(byte) || is_base64(byte) || matches!(byte, b'%' | b'~'),
        };
        let end = run(bytes, self.from, is_value);
        // The line behind a heading begins with a word, which has no digit. It is short, or read only for this name.
        let is_word = || !bytes.get(self.from..end).unwrap_or_default().iter().any(u8::is_ascii_digit);
        let is_prose = self.is_on_next_line && !self.is_quoted && is_word();
        (end - self.from >= HIDDEN_SIZE_MIN && !is_prose).then_some(end)
    }
}

/// The end of the spaces and quotation marks from `at` on. A backslash that escapes something else belongs to the value.
fn skip_quotes(bytes: &[u8], mut at: usize) -> usize {
    loop {
        let marks = run(bytes, at, |byte| matches!(byte, b' ' | b'"' | b'\''));
        let quote = run(bytes, marks, |byte| byte == b'\\');
        match bytes.get(quote) {
            Some(b'"' | b'\'') if quote > marks => at = quote + 1,
            _ => return marks,
        }
    }
}

/// The end of the spaces and line breaks from `at` on, also of those that a string has as escapes, and whether a line ended.
fn skip_lines(bytes: &[u8], mut at: usize) -> (usize, bool) {
    let mut has_ended = false;
    loop {
        let spaces = run(bytes, at, |byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        has_ended |= bytes.get(at..spaces).is_some_and(|spaces| spaces.contains(&b'\n'));
        let mark = run(bytes, spaces, |byte| byte == b'\\');
        match bytes.get(mark) {
            Some(b'n' | b'r' | b't') if mark > spaces => {
                has_ended |= bytes.get(mark) == Some(&b'n');
                at = mark + 1;
            }
            _ => return (spaces, has_ended),
        }
    }
}

/// The place of the value of a field of a form (`multipart/form-data`) whose name holds the bytes `from..end`.
fn field_behind(bytes: &[u8], (from, end): (usize, usize)) -> Option<(usize, usize)> {
    let head = bytes.get(end..)?;
    if !matches!(head.first(), Some(b'"' | b'\r')) {
        return None;
    }
    let before = bytes.get(from.saturating_sub(FIELD_NAME_MAX)..from)?;
    let name = before.iter().rev().take_while(|byte| is_key_byte(**byte)).count();
    let before = before.get(..before.len() - name)?;
    if !(before.ends_with(b"name=\"") || before.ends_with(b"name=")) {
        return None;
    }
    let head = head.get(..FIELD_HEAD_MAX.min(head.len()))?;
    let from = end + memmem::find(head, b"\r\n\r\n")? + 4;
    let value = bytes.get(from..)?;
    let value = value.get(..FIELD_VALUE_MAX.min(value.len()))?;
    let size = memmem::find(value, b"\r\n--").or_else(|| memmem::find(value, b"\r\n")).unwrap_or(value.len());
    (size >= HIDDEN_SIZE_MIN).then_some((from, from + size))
}

/// The end of the object or list that begins at `from`, and the places of its strings that may be keys. `None`: what begins
/// there is not one.
fn strings_of_group(bytes: &[u8], from: usize) -> Option<(usize, Vec<(usize, usize)>)> {
    let (mut at, mut open, mut strings) = (from, Vec::new(), Vec::new());
    let (mut last, mut is_described) = ((0, 0), false);
    loop {
        match bytes.get(at).filter(|_| at - from < GROUP_SIZE_MAX) {
            // The bytes were cut, or are many: what was found so far may be keys.
            None => return (!open.is_empty()).then_some((at, strings)),
            Some(b'{') if open.len() < DEPTH_MAX => (open.push(b'}'), at += 1).1,
            Some(b'[') if open.len() < DEPTH_MAX => (open.push(b']'), at += 1).1,
            _ if open.is_empty() => return None,
            Some(byte @ (b'}' | b']')) => {
                if open.pop() != Some(*byte) {
                    return None;
                }
                at += 1;
                if open.is_empty() {
                    return Some((at, strings));
                }
            }
            Some(b':') => {
                // The string before was a name.
                if strings.last() == Some(&last) {
                    strings.pop();
                }
                is_described = bytes.get(last.0..last.1).is_some_and(|name| DESCRIBING.contains(&name));
                at += 1;
            }
            Some(b',') => (is_described, at) = (false, at + 1),
            Some(b'"' | b'\'' | b'\\') => {
                let (string, end) = string_at(bytes, at)?;
                last = string;
                if string.1 - string.0 >= HIDDEN_SIZE_MIN && !is_described {
                    strings.push(string);
                }
                at = end;
            }
            Some(byte) if byte.is_ascii_whitespace() || is_key_byte(*byte) || *byte == b'+' => at += 1,
            Some(_) => return None,
        }
    }
}

/// The place of the string that begins at `at`, and the end of its quotation mark. A line break that is an escape counts as an
/// empty string. `None`: it is not a string of JSON.
fn string_at(bytes: &[u8], at: usize) -> Option<((usize, usize), usize)> {
    let quote_at = run(bytes, at, |byte| byte == b'\\');
    let quote = *bytes.get(quote_at)?;
    if matches!(quote, b'n' | b'r' | b't') {
        return Some(((at, at), quote_at + 1));
    }
    if !matches!(quote, b'"' | b'\'') {
        return None;
    }
    // A string within strings has this many backslashes before each of its quotation marks, and more before those in its text.
    let (marks, from) = (quote_at - at, quote_at + 1);
    if !NESTED_MARKS.contains(&marks) {
        return None;
    }
    let (mut at, mut backslashes) = (from, 0);
    while let Some(byte) = bytes.get(at).filter(|_| at - from < GROUP_SIZE_MAX) {
        if *byte == quote && backslashes % (2 * (marks + 1)) == marks {
            let behind = bytes.get(at + 1);
            let is_end = behind.is_none_or(|byte| {
                matches!(byte, b',' | b':' | b']' | b'}' | b'\\') || byte.is_ascii_whitespace()
            });
            return is_end.then_some(((from, at - marks), at + 1));
        }
        if *byte == quote && backslashes < marks {
            return None;
        }
        backslashes = if *byte == b'\\' { backslashes + 1 } else { 0 };
        at += 1;
    }
    Some(((from, at), at))
}

/// The end of the bytes from `from` on that are of a kind.
pub(super) fn run(bytes: &[u8], from: usize, is_of_kind: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| is_of_kind(**byte)).count()
}

pub(super) fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

pub(super) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// Replaces these bytes by stars.
pub(super) fn star(bytes: &mut [u8], from: usize, end: usize) {
    if let Some(key) = bytes.get_mut(from..end) {
        key.fill(b'*');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        hide_named(&mut bytes);
        assert_eq!(bytes.len(), text.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn values_within_objects_lists_forms_and_on_the_next_line_become_stars() {
        for (text, expected) in [
            (
                r#"{"secret":{"v":"hunter22"},"b":"unchanged"}"#,
                r#"{"secret":{"v":"********"},"b":"unchanged"}"#,
            ),
            (r#"{"access_token":["hunter22", "x"]}"#, r#"{"access_token":["********", "x"]}"#),
            (
                r#"{"api_keys":[{"a-long-name":{"b":"hunter22"}}]}"#,
                r#"{"api_keys":[{"a-long-name":{"b":"********"}}]}"#,
            ),
            (
                r#"{"a":"{\"secret\":{\"v\":\"hunter\\\"22\"},\"b\":\"unchanged\"}"}"#,
                r#"{"a":"{\"secret\":{\"v\":\"************\"},\"b\":\"unchanged\"}"}"#,
            ),
            (
                r#"{"a":"{\n  \"secret\": {\n \"v\": \"hunter22\"\n}}"}"#,
                r#"{"a":"{\n  \"secret\": {\n \"v\": \"********\"\n}}"}"#,
            ),
            (r#"{"secret":"{\"v\":\"hunter22\"}"}"#, r#"{"secret":"{\"v\":\"********\"}"}"#),
            (r#"{"secret":{"v":"a\\","w":"hunter22"}}"#, r#"{"secret":{"v":"a\\","w":"********"}}"#),
            (r#"{"secret":["cut hunter22"#, r#"{"secret":["************"#),
            ("secret = {'v': 'hunter22'}", "secret = {'v': '********'}"),
            ("api_key:\n  hunter22\n", "api_key:\n  ********\n"),
            ("{\"api_key\":\r\n\t\"correct horse\"}", "{\"api_key\":\r\n\t\"*************\"}"),
            (r#"{"text":"api_key:\n  hunter22\nmore"}"#, r#"{"text":"api_key:\n  ********\nmore"}"#),
            ("my_api_key=a%2Fb%2Fcd&x=1", "my_api_key=**********&x=1"),
            (
                "--x\r\nContent-Disposition: form-data; name=\"my_api_key\"\r\nContent-Type: text/plain\r\n\r\nhun ter 22\r\n--x--",
                "--x\r\nContent-Disposition: form-data; name=\"my_api_key\"\r\nContent-Type: text/plain\r\n\r\n**********\r\n--x--",
            ),
            ("form-data; name=password\r\n\r\nhunter22", "form-data; name=password\r\n\r\n********"),
        ] {
            assert_eq!(hidden(text), expected);
        }
    }

    #[test]
    fn ordinary_text_stays() {
        for text in [
            r#"{"password":{"type":"string","description":"The password of the account"},"secret":[1,null,"x"]}"#,
            r#"{"required":["password","username"],"text":"the secret: [ is open","b":"a long text","c":["a long text"]}"#,
            r#"{"text":"secret: {","b":"a long text"}"#,
            r#"{"text":"{\"secret\":[","b":"a long text"}"#,
            "## Authorization:\n\nImplementations of it",
            "PASSWORD=\nDATABASE_NAME1=something",
            "authorization:\n  description: see below",
            "name=\"password\" is a field, and not a long one",
            "form-data; name=\"secret\"\r\n\r\nx\r\n--x--",
            "secret:",
            "secret:[",
            "secret:{\"",
            "secret:[\\",
        ] {
            assert_eq!(hidden(text), text);
        }
    }

    #[test]
    fn groups_take_linear_time() {
        // With time that grows with the square, this test would not end within minutes.
        for text in [
            "secret:[".repeat(50_000),
            r#"{"secret":"#.repeat(50_000),
            "secret:[ ".repeat(15) + &"secret:[] ".repeat(50_000) + "@",
            r#"secret:["a", "#.repeat(50_000),
            "name=\"secret\"\r\n\r\n".repeat(30_000),
            "secret:\n".repeat(50_000),
            "secret:\\n".repeat(50_000),
            format!("secret:[\"{}", "\\".repeat(1_000_000)),
        ] {
            assert_eq!(hidden(&text).len(), text.len());
        }
    }
}
