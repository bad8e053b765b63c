//! Undoes the usual ways to write a text in another text, so that a search finds it there: escapes, percent signs, base64,
//! blanks, capital letters.

use crate::base64_text::decode_base64_run;

/// The shortest run of base64 that is decoded, in characters: six bytes of text.
const RUN_SIZE_MIN: usize = 8;

/// The text with its escapes undone, as in a JSON document that stands in a string. `None`: it has none.
pub(super) fn unescape(text: &str) -> Option<String> {
    if !text.contains('\\') {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let mut chars = after.chars();
        rest = match chars.next() {
            Some('u') => unescape_units(after, &mut out),
            Some('x') => push_code(after.get(1..3), chars.as_str(), after.get(3..), &mut out),
            // A line end within base64 does not end it, and a blank does.
            Some('n' | 'r') => {
                out.push('\n');
                chars.as_str()
            }
            Some('t' | 'b' | 'f') => {
                out.push(' ');
                chars.as_str()
            }
            Some(other) => {
                out.push(other);
                chars.as_str()
            }
            None => "",
        };
    }
    out.push_str(rest);
    Some(out)
}

/// Appends the character of two or four hexadecimal digits. Returns the text behind them, or `otherwise` if there are none.
fn push_code<'t>(
    digits: Option<&str>,
    otherwise: &'t str,
    after: Option<&'t str>,
    out: &mut String,
) -> &'t str {
    let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    match (code.and_then(char::from_u32), after) {
        (Some(c), Some(after)) => {
            out.push(c);
            after
        }
        _ => otherwise,
    }
}

/// Appends the character of `uXXXX`, or of two of them that are halves of one character.
fn unescape_units<'t>(after: &'t str, out: &mut String) -> &'t str {
    let unit = |text: Option<&str>| text.and_then(|digits| u16::from_str_radix(digits, 16).ok());
    let first = unit(after.get(1..5));
    if let Some(high @ 0xd800..0xdc00) = first {
        let second = after.get(5..7).filter(|mark| *mark == "\\u").and_then(|_| unit(after.get(7..11)));
        if let Some(low) = second {
            out.extend(char::decode_utf16([high, low]).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
            return after.get(11..).unwrap_or_default();
        }
    }
    push_code(after.get(1..5), after.get(1..).unwrap_or_default(), after.get(5..), out)
}

/// The text with `%41` and its like undone. `None`: it has none of these.
pub(super) fn unpercent(text: &str) -> Option<String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    (decoded != text).then(|| decoded.into_owned())
}

/// Calls `found` with each text of `size_min` bytes or more that stands in `text` as base64, in its usual or its URL alphabet,
/// with or without line ends and indents. A run may begin in the midst of another word, so it is read from each of its first four
/// characters.
pub(super) fn decode_runs(text: &str, size_min: usize, found: &mut dyn FnMut(&str) -> bool) -> bool {
    let run_size_min = (size_min.saturating_mul(4) / 3).max(RUN_SIZE_MIN);
    let mut run: Vec<u8> = Vec::new();
    let mut is_indent = false;
    for byte in text.bytes().chain([b'!']) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'/' => run.push(byte),
            b'-' => run.push(b'+'),
            b'_' => run.push(b'/'),
            b'\n' | b'\r' => {
                is_indent = true;
                continue;
            }
            b' ' | b'\t' if is_indent => continue,
            _ => {
                if run.len() >= run_size_min && (0..4).any(|start| decode_run(&run, start, found)) {
                    return true;
                }
                run.clear();
            }
        }
        is_indent = false;
    }
    false
}

fn decode_run(run: &[u8], start: usize, found: &mut dyn FnMut(&str) -> bool) -> bool {
    let run = run.get(start..).unwrap_or_default();
    // One character alone holds no byte.
    let size = if run.len() % 4 == 1 { run.len() - 1 } else { run.len() };
    let decoded = decode_base64_run(run.get(..size).unwrap_or_default());
    decoded.is_some_and(|bytes| found(&String::from_utf8_lossy(&bytes)))
}

/// The text in small letters, without blanks and without characters that are not seen: line ends and indents in the midst of
/// a text do not hide it. Forms write a blank as `+`, which goes too, unless `keeps_plus` is true.
pub(super) fn squeeze(text: &str, keeps_plus: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !is_unseen(*c) && (keeps_plus || *c != '+')) {
        if c.is_ascii() { out.push(c.to_ascii_lowercase()) } else { out.extend(c.to_lowercase()) }
    }
    out
}

fn is_unseen(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

/// A squeezed text with each path in it in its shortest form: `/srv//a/./b/../c` is `/srv/a/c`, and a backslash counts as a
/// slash.
pub(super) fn shorten_paths(squeezed: &str) -> String {
    let mut out = String::with_capacity(squeezed.len());
    for c in squeezed.chars() {
        if !matches!(c, '/' | '\\') {
            out.push(c);
        } else if out.ends_with("/.") {
            out.pop();
        } else if out.ends_with("/..") {
            out.truncate(out.len() - "/..".len());
            // The part before goes, too.
            if let Some(slash) = out.rfind('/').filter(|slash| out.len() - slash <= PART_SIZE_MAX) {
                out.truncate(slash);
            }
            out.push('/');
        } else if !out.ends_with('/') {
            out.push('/');
        }
    }
    out
}

/// The longest part of a path that is removed for a `..` behind it, in bytes; file systems allow 255. Keeps the work linear.
const PART_SIZE_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        for (text, expected) in [
            (r#"a\"b\\c\/d\ne\tf"#, "a\"b\\c/d\ne f"),
            (r"\u0042\u00e9\ud83d\ude00\x41", "Bé😀A"),
            (r"\ud83d", "d83d"),
            (r"\u12", "12"),
            (r"\", ""),
            (r"\é\xé", "éé"),
        ] {
            assert_eq!(unescape(text).unwrap(), expected, "{text}");
        }
        assert_eq!((unescape("abc"), unpercent("abc"), unpercent("100%")), (None, None, None));
        assert_eq!(unpercent("%2Fsrv%2fé%zz").unwrap(), "/srv/é%zz");
    }

    #[test]
    fn base64_is_found_anywhere() {
        // "the secret word", and the same in the midst of words, on two lines, without its end.
        for text in [
            "dGhlIHNlY3JldCB3b3Jk",
            "xyz dGhlIHNl\nY3JldCB3b3Jk==.",
            "key: |\n    dGhlIHNl\r\n\tY3JldCB3\n    b3Jk\n",
            "abdGhlIHNlY3JldCB3b3Jk",
            "dGhlIHNlY3JldCB3b3J",
        ] {
            assert!(decode_runs(text, 0, &mut |text| text.contains("secret")), "{text}");
        }
        for text in ["", "secret", "dGhl IHNl Y3Jl", "ééééééééééé"] {
            assert!(!decode_runs(text, 0, &mut |text| text.contains("secret")), "{text}");
        }
        for (size, expected) in [(15, true), (16, false)] {
            assert_eq!(decode_runs("dGhlIHNlY3JldCB3b3Jk", size, &mut |_| true), expected);
        }
    }

    #[test]
    fn blanks_and_detours_hide_nothing() {
        assert_eq!(squeeze("BEGIN\n  Private\u{200b}\tKEYÉ", false), "beginprivatekeyé");
        assert_eq!((squeeze("A+b c", false), squeeze("A+b c", true)), ("abc".into(), "a+bc".into()));
        for (text, expected) in [
            ("/srv//a/./b/../c", "/srv/a/c"),
            ("c:\\srv\\a", "c:/srv/a"),
            ("/../srv/../../x/", "/x/"),
            ("../a", "../a"),
            ("", ""),
        ] {
            assert_eq!(shorten_paths(text), expected, "{text}");
        }
    }
}
