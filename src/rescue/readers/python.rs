//! Calls as Python writes them: `[f(a=1), g(b="x")]`. Llama 4, LFM2, OLMo and others.

use crate::json;

use super::steps::{END, Keep, Step};
use super::value::is_in_word;

/// A list of calls.
pub(in super::super) static PYTHON: [Step; 6] = [
    Step::Words(&[("[", 1)]),
    Step::Until(Keep::Name, &[("(", 2)]),
    // Without arguments the key is empty.
    Step::Until(Keep::Key, &[("=", 3), (")", 5)]),
    Step::Python(4),
    Step::Words(&[(",", 2), (")", 5)]),
    Step::Words(&[(",", 1), ("]", END)]),
];

/// A Python value as JSON text; `None` if it has no JSON form. `value` was read to its end by a
/// [`ValueReader`](super::ValueReader).
pub(in super::super) fn python_to_json(value: &str) -> Option<String> {
    let mut json = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '"' | '\'' => push_text(rest, &mut json)?,
            c if is_in_word(c) => push_word(rest, &mut json),
            c => {
                json.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                c.len_utf8()
            }
        };
        rest = rest.get(taken..)?;
    }
    // The tree has no commas before closing brackets, and only numbers that JSON knows.
    let mut without_commas = Vec::with_capacity(json.len());
    drop_last_commas(&json, &mut without_commas);
    json::parse(&mut without_commas).ok().map(|value| value.to_json())
}

fn push_word(rest: &str, json: &mut Vec<u8>) -> usize {
    let len = rest.find(|c| !is_in_word(c)).unwrap_or(rest.len());
    let word = rest.get(..len).unwrap_or_default();
    let word = match word {
        "True" => "true",
        "False" => "false",
        "None" => "null",
        word => word,
    };
    json.extend_from_slice(word.as_bytes());
    len
}

/// Writes a Python string as a JSON string. `None` for an escape that is not known, and for a string without an end.
fn push_text(rest: &str, json: &mut Vec<u8>) -> Option<usize> {
    let mut characters = rest.char_indices();
    let (_, quote) = characters.next()?;
    let mut text = String::new();
    loop {
        let (at, c) = characters.next()?;
        if c == quote {
            json::write_str(&text, json);
            return Some(at + quote.len_utf8());
        }
        if c != '\\' {
            text.push(c);
            continue;
        }
        match characters.next()?.1 {
            'n' => text.push('\n'),
            't' => text.push('\t'),
            'r' => text.push('\r'),
            '0' => text.push('\0'),
            // Python joins lines that end so.
            '\n' => {}
            c @ ('\\' | '\'' | '"' | '/') => text.push(c),
            kind @ ('x' | 'u' | 'U') => {
                let digits = match kind {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let mut code = 0;
                for _ in 0..digits {
                    code = code * 16 + characters.next()?.1.to_digit(16)?;
                }
                text.push(char::from_u32(code)?);
            }
            // Python keeps the backslash before any other character.
            c => text.extend(['\\', c]),
        }
    }
}

/// Copies JSON without commas before closing brackets. Strings are copied as they are.
fn drop_last_commas(json: &[u8], out: &mut Vec<u8>) {
    let (mut is_in_text, mut is_escaped) = (false, false);
    for &byte in json {
        if is_in_text {
            is_in_text = is_escaped || byte != b'"';
            is_escaped = byte == b'\\' && !is_escaped;
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            is_in_text = byte == b'"';
            if matches!(byte, b']' | b'}') && out.last() == Some(&b',') {
                out.pop();
            }
        }
        out.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_values_become_json() {
        for (python, expected) in [
            ("'it\\'s \"so\"\\n'", Some(r#""it's \"so\"\n""#)),
            ("{'a': [True, None, 1.5,], \"b\": False}", Some(r#"{"a":[true,null,1.5],"b":false}"#)),
            ("'\\x41\\u00e9\\U0001F600\\d'", Some("\"Aé😀\\\\d\"")),
            ("-3", Some("-3")),
            ("'a, ] }'", Some("\"a, ] }\"")),
            ("foo", None),
            ("1_000", None),
            ("'\\xg1'", None),
            ("'\\ud800'", None),
        ] {
            assert_eq!(python_to_json(python).as_deref(), expected, "{python}");
        }
    }
}
