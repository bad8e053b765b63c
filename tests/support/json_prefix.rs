//! Checks that a text can still become one JSON object. It shares no code with the translation.

/// The kind of byte that may come next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    FirstKey,
    Key,
    Colon,
    Value,
    FirstElement,
    Comma,
}

/// `Ok(true)`: a complete object. `Ok(false)`: a valid beginning of one. `Err`: the offset of the first invalid byte.
pub fn object_prefix(text: &str) -> Result<bool, usize> {
    let bytes = text.as_bytes();
    let mut stack: Vec<u8> = Vec::new();
    let mut next = Next::Value;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if stack.is_empty() && (at > 0 || byte != b'{') && next != Next::Value {
            return Err(at); // something after the object
        }
        match (next, byte) {
            (Next::Value | Next::FirstElement, b'{') => (stack.push(b'}'), next = Next::FirstKey).1,
            _ if stack.is_empty() => return Err(at),
            (Next::Value | Next::FirstElement, b'[') => (stack.push(b']'), next = Next::FirstElement).1,
            (Next::FirstKey, b'}') | (Next::FirstElement, b']') => (stack.pop(), next = Next::Comma).1,
            (Next::Comma, b'}' | b']') if stack.last() == Some(&byte) => _ = stack.pop(),
            (Next::Comma, b',') => {
                next = if stack.last() == Some(&b'}') { Next::Key } else { Next::Value };
            }
            (Next::Colon, b':') => next = Next::Value,
            (Next::FirstKey | Next::Key, b'"') | (Next::Value | Next::FirstElement, b'"') => {
                next = if matches!(next, Next::FirstKey | Next::Key) { Next::Colon } else { Next::Comma };
                match string(bytes, at)? {
                    Some(end) => at = end - 1,
                    None => return Ok(false),
                }
            }
            (Next::Value | Next::FirstElement, _) => {
                let end = bytes[at..].iter().position(|b| b",]} \t\n\r".contains(b));
                let word = &text[at..end.map_or(text.len(), |end| at + end)];
                if !scalar(word, end.is_none()) {
                    return Err(at);
                }
                at += word.len() - 1;
                next = Next::Comma;
            }
            _ => return Err(at),
        }
        at += 1;
    }
    Ok(stack.is_empty() && next == Next::Comma)
}

/// The offset behind the string that begins at `start`; `None`: it goes on.
fn string(bytes: &[u8], start: usize) -> Result<Option<usize>, usize> {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return Ok(Some(at + 1)),
            byte if byte < 0x20 => return Err(at),
            b'\\' => match bytes.get(at + 1) {
                None => return Ok(None),
                Some(b'u') => {
                    let digits = &bytes[at + 2..bytes.len().min(at + 6)];
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return Err(at);
                    }
                    at += 1 + digits.len();
                }
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => at += 1,
                Some(_) => return Err(at),
            },
            _ => {}
        }
        at += 1;
    }
    Ok(None)
}

/// A literal or a number, or with `open` the beginning of one.
fn scalar(word: &str, open: bool) -> bool {
    let whole = serde_json::from_str::<serde_json::Value>(word).is_ok();
    let begins = ["true", "false", "null"].iter().any(|literal| literal.starts_with(word));
    let number = |tail: &str| serde_json::from_str::<f64>(&format!("{word}{tail}")).is_ok();
    whole || (open && (begins || ["0", "+0"].iter().any(|tail| number(tail))))
}

#[test]
fn prefixes() {
    for (text, expected) in [
        ("", Ok(false)),
        ("{", Ok(false)),
        ("{}", Ok(true)),
        (" {\"a\" : [1 , {\"b\":\"\\u00e9\\\"\"} , tru", Ok(false)),
        ("{\"a\":-1.5e", Ok(false)),
        ("{\"a\":{\"b\":[]},\"c\":null}", Ok(true)),
        ("{\"a\":tru}", Err(5)),
        ("{\"a\":1,}", Err(7)),
        ("{}{", Err(2)),
        ("[", Err(0)),
        ("{\"a\":\"\n", Err(6)),
        ("{\"a\":\"\\x", Err(6)),
        ("{bad", Err(1)),
    ] {
        assert_eq!(object_prefix(text), expected, "{text}");
    }
}
