//! Lone halves of surrogate pairs: replaces them before the parser sees them, which would refuse the document.
//!
//! JavaScript cuts text between the halves of a character, and `JSON.stringify` then writes the half as `\ud83d`; a
//! server that escapes everything may stream the halves apart. Such a text stays in the history, so refusing it would
//! end the conversation. A lone half stands for no character, so nothing is lost.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// The replacement of a half. It is as long as the half, so that no other byte moves.
const REPLACEMENT: [u8; ESCAPE_SIZE] = *br"\ufffd";

/// The length of `\uXXXX` in bytes.
const ESCAPE_SIZE: usize = 6;

/// Finds the beginning of an escape. Escapes are rare: clients escape no more than JSON demands. It is made once, since
/// making it costs more than searching an event.
static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(r"\u"));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    High,
    Low,
}

/// Replaces each half without its other half by U+FFFD.
pub(super) fn replace_lone(json: &mut [u8]) {
    // Most events have no escape at all, and one byte is found faster than two.
    let Some(mut at) = memchr::memchr(b'\\', json) else { return };
    while let Some(found) = json.get(at..).and_then(|rest| ESCAPE.find(rest)) {
        at += found;
        let half = half_at(json, at).filter(|_| !is_escaped(json, at));
        at += match half {
            None => 2,
            Some(Half::High) if half_at(json, at + ESCAPE_SIZE) == Some(Half::Low) => 2 * ESCAPE_SIZE,
            Some(Half::High | Half::Low) => {
                if let Some(escape) = json.get_mut(at..at + ESCAPE_SIZE) {
                    escape.copy_from_slice(&REPLACEMENT);
                }
                ESCAPE_SIZE
            }
        };
    }
}

/// The kind of half that the six bytes at `at` are, if they are one.
fn half_at(json: &[u8], at: usize) -> Option<Half> {
    match json.get(at..)? {
        [b'\\', b'u', b'd' | b'D', half, x, y, ..] if x.is_ascii_hexdigit() && y.is_ascii_hexdigit() => {
            match half {
                b'8' | b'9' | b'a' | b'b' | b'A' | b'B' => Some(Half::High),
                b'c'..=b'f' | b'C'..=b'F' => Some(Half::Low),
                _ => None,
            }
        }
        _ => None,
    }
}

/// True if the backslash at `at` is itself escaped by the one before it.
fn is_escaped(json: &[u8], at: usize) -> bool {
    let before = json.get(..at).unwrap_or_default();
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(json: &str) -> String {
        let mut bytes = json.as_bytes().to_vec();
        replace_lone(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn only_a_lone_half_is_replaced() {
        for (json, expected) in [
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\uDBFF \udc00 \uDfFf""#, r#""\ufffd \ufffd \ufffd""#),
            (r#""a\ud83d b""#, r#""a\ufffd b""#),
            (r#"{"\ud800":"\udfff"}"#, r#"{"\ufffd":"\ufffd"}"#),
            // A high half after a high one, a low half after a low one, and a pair in the wrong order.
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ud83d\ude00\ude00""#, r#""\ud83d\ude00\ufffd""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\u0041\ude00""#, r#""\ufffd\u0041\ufffd""#),
            (r#""\ud83d\n\ude00""#, r#""\ufffd\n\ufffd""#),
            // An escaped backslash before the half is text, and the half behind it is alone.
            (r#""\\\ud83d""#, r#""\\\ufffd""#),
            (r#""\\ud83d\ude00""#, r#""\\ud83d\ufffd""#),
            (r#""\ud83d\\ude00""#, r#""\ufffd\\ude00""#),
            // The bytes end in the middle of a document.
            (r"\ud83d", r"\ufffd"),
        ] {
            assert_eq!(replaced(json), expected, "{json}");
        }
        for json in [
            "",
            r"\u",
            r#""\ud83d\ude00\uD83D\uDE00""#,
            r#""\\ud83d""#,
            r#""\\\\ud83d""#,
            r#""{\"a\":\"\\ud83d\"}""#,
            r#""\u00d8 \ud7ff \ue000 \uDZ00 \ud8 \ud8g0 \ud80""#,
            r#""😀 ud83d""#,
        ] {
            assert_eq!(replaced(json), json);
        }
    }

    #[test]
    fn any_sequence_of_escapes_becomes_a_valid_document() {
        let pieces = [r"\ud83d", r"\uDE00", r"\\", r"\n", r"\u0041", "x", "ud83d", "é"];
        let count = pieces.len();
        for n in 0..count.pow(5) {
            let text: String = (0..5).map(|digit| pieces[n / count.pow(digit) % count]).collect();
            let json = replaced(&format!("\"{text}\""));
            let parsed: Result<String, _> = serde_json::from_str(&json);
            assert!(parsed.is_ok(), "{text} {json}");
            // A valid document stays as it was.
            if serde_json::from_str::<String>(&format!("\"{text}\"")).is_ok() {
                assert_eq!(json, format!("\"{text}\""));
            }
        }
    }
}
