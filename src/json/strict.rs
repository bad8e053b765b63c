//! Turns what some servers send for JSON into JSON.

/// The numbers that Python's JSON writer makes and that JSON does not have. The longer come first.
const NO_NUMBERS: [&str; 4] = ["-Infinity", "Infinity", "-NaN", "NaN"];

/// The text as JSON, where only these faults stood in the way: bytes that are not UTF-8 become U+FFFD, numbers that are
/// not finite become `null`, and raw control characters inside strings are escaped. Takes time in proportion to the text.
pub(super) fn strict(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut is_escaped) = (false, false);
    let mut rest = &*text;
    while let Some(character) = rest.chars().next() {
        let number = NO_NUMBERS.iter().filter(|_| !in_string).find_map(|number| rest.strip_prefix(number));
        if let Some(after) = number {
            out.push_str("null");
            rest = after;
            continue;
        }
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = in_string,
            '"' => in_string = !in_string,
            _ => {}
        }
        if in_string && character < ' ' {
            out.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            out.push(character);
        }
        rest = rest.get(character.len_utf8()..).unwrap_or_default();
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::strict;

    #[test]
    fn only_faults_are_changed() {
        for (text, expected) in [
            (
                &br#"{"a":"NaN \" Infinity","b":[NaN,-Infinity,Infinity,-NaN]}"#[..],
                r#"{"a":"NaN \" Infinity","b":[null,null,null,null]}"#,
            ),
            (b"{\"a\":\"x\ny\t\",\n\"b\":1}", "{\"a\":\"x\\u000ay\\u0009\",\n\"b\":1}"),
            (b"{\"a\":\"\xc3\"}", "{\"a\":\"\u{fffd}\"}"),
            (b"{\"a\":", "{\"a\":"),
            (b"", ""),
        ] {
            assert_eq!(String::from_utf8(strict(text)).unwrap(), expected);
        }
    }
}
