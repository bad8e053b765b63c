//! Takes keys and images out of recorded bytes.
//!
//! A key is replaced by as many stars as it has bytes, so that every length and place in the bytes stays as it was. Known
//! keys are found by their value, others by the forms that keys have, or by the name of their member (`named`). Bytes with
//! JSON's escapes (`\\u0041`, `\\/`) are searched a second time with the escapes undone. Linear time.

use memchr::memmem;

use super::named::{hide_named, is_base64, is_key_byte, run, star};
use crate::config::HIDDEN_SIZE_MIN;

/// The least number of characters behind the beginning of a key.
const KEY_SIZE_MIN: usize = 16;

/// The beginnings of keys of well-known services.
const BEGINNINGS: [&[u8]; 12] = [
    b"sk-",
    b"sk_",
    b"ghp_",
    b"gho_",
    b"ghs_",
    b"github_pat_",
    b"glpat-",
    b"xoxb-",
    b"xoxp-",
    b"AKIA",
    b"hf_",
    b"AIza",
];

/// The beginnings of a value of a header.
const SCHEMES: [&[u8]; 4] = [b"Bearer ", b"bearer ", b"Basic ", b"basic "];

/// The shortest string of base64 that is cut, in characters.
const IMAGE_SIZE_MIN: usize = 1024;

/// Replaces the keys in these bytes by stars.
pub fn hide_keys(bytes: &mut [u8], known: &[String]) {
    hide_plain(bytes, known);
    if memmem::find(bytes, b"\\u").is_some() || memmem::find(bytes, b"\\/").is_some() {
        let undone = undo_escapes(bytes);
        let mut hidden = undone.clone();
        hide_plain(&mut hidden, known);
        if hidden != undone {
            star_escaped(bytes, &undone, &hidden);
        }
    }
}

/// The bytes with each escape of JSON for a character or a slash replaced by that character. A string within a string has
/// several backslashes before it, which belong to the escape. Quotation marks and backslashes stay escaped, so that strings
/// keep their ends.
fn undo_escapes(bytes: &[u8]) -> Vec<u8> {
    let mut undone = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let (size, character) = escape(rest);
        match character {
            Some(character) => {
                undone.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            None => undone.extend_from_slice(rest.get(..size).unwrap_or_default()),
        }
        at += size;
    }
    undone
}

/// Replaces the bytes whose characters are stars in `hidden`, and were not in `undone`.
fn star_escaped(bytes: &mut [u8], undone: &[u8], hidden: &[u8]) {
    let (mut at, mut place) = (0, 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let (size, character) = escape(rest);
        let end = place + character.map_or(size, char::len_utf8);
        if character.is_some() {
            if undone.get(place..end) != hidden.get(place..end) {
                star(bytes, at, at + size);
            }
        } else if let (Some(bytes), Some(hidden)) = (bytes.get_mut(at..at + size), hidden.get(place..end)) {
            bytes.copy_from_slice(hidden);
        }
        (at, place) = (at + size, end);
    }
}

/// The number of bytes up to the next escape and no character, or of the escape that stands here and its character.
fn escape(bytes: &[u8]) -> (usize, Option<char>) {
    let plain = memchr::memchr(b'\\', bytes).unwrap_or(bytes.len());
    if plain > 0 {
        return (plain, None);
    }
    let mark = run(bytes, 0, |byte| byte == b'\\');
    match bytes.get(mark) {
        Some(b'/') => (mark + 1, Some('/')),
        Some(b'u') => {
            let digits =
                bytes.get(mark + 1..mark + 5).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
            let number =
                digits.and_then(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
            let character = number.and_then(char::from_u32);
            match character.filter(|c| !c.is_control() && !matches!(c, '"' | '\'' | '\\')) {
                Some(character) => (mark + 5, Some(character)),
                None => (mark, None),
            }
        }
        _ => (mark, None),
    }
}

/// Replaces the keys in these bytes as they stand there.
fn hide_plain(bytes: &mut [u8], known: &[String]) {
    for secret in known.iter().filter(|secret| secret.len() >= HIDDEN_SIZE_MIN) {
        star_all(bytes, secret.as_bytes());
    }
    for (beginnings, size_min, is_header) in
        [(&BEGINNINGS[..], KEY_SIZE_MIN, false), (&SCHEMES[..], HIDDEN_SIZE_MIN, true)]
    {
        for beginning in beginnings {
            let finder = memmem::Finder::new(beginning);
            let mut searched = 0;
            while let Some(at) = bytes.get(searched..).and_then(|rest| finder.find(rest)) {
                let at = searched + at;
                let from = at + beginning.len();
                searched = from;
                if at > 0 && bytes.get(at - 1).is_some_and(u8::is_ascii_alphanumeric) {
                    continue;
                }
                let end = run(bytes, from, |byte| is_key_byte(byte) || (is_header && is_base64(byte)));
                // A word in prose has no digit.
                let has_digit = bytes.get(from..end).is_some_and(|key| key.iter().any(u8::is_ascii_digit));
                if has_digit && end - from >= size_min {
                    star(bytes, from, end);
                }
                // A beginning within this run has the same end, so it was decided with this one: each byte is looked at
                // once, also in `sk-sk-sk-…`.
                searched = from.max((end + 1).saturating_sub(beginning.len()));
            }
        }
    }
    hide_named(bytes);
}

/// Replaces a key wherever it stands.
fn star_all(bytes: &mut [u8], key: &[u8]) {
    let found: Vec<usize> = memmem::find_iter(bytes, key).collect();
    found.into_iter().for_each(|at| star(bytes, at, at + key.len()));
}

/// Replaces each long string of base64, such as an image, by its size. Signatures of reasoning stay.
pub(super) fn cut_images(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len().min(1 << 20));
    let mut at = 0;
    while at < bytes.len() {
        // Only a string's beginning, or the end of the head of a data URL, begins an image.
        let end = run(bytes, at, |byte| !matches!(byte, b'"' | b',')) + 1;
        kept.extend_from_slice(bytes.get(at..end).or_else(|| bytes.get(at..)).unwrap_or_default());
        let image = run(bytes, end.min(bytes.len()), is_base64);
        at = end;
        let is_whole = matches!(bytes.get(image), None | Some(b'"'));
        let is_signature = kept.ends_with(b"\"signature\":\"") || kept.ends_with(b"\"signature\": \"");
        if image >= at + IMAGE_SIZE_MIN && is_whole && !is_signature {
            kept.extend_from_slice(format!("cut:{}:bytes", image - at).as_bytes());
            at = image;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        hide_keys(&mut bytes, &["my-own-key".to_owned(), "my/own/key".to_owned(), "short".to_owned()]);
        assert_eq!(bytes.len(), text.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn keys_become_stars() {
        for (text, expected) in [
            ("a my-own-key b", "a ********** b"),
            (r#"["my/own/key","my\/own\/key"]"#, r#"["**********","************"]"#),
            (r#"{"k":"sk-ant-api03-abcdefgh12345678"}"#, r#"{"k":"sk-**************************"}"#),
            ("Authorization: Bearer abcdefgh1/+=", "Authorization: ******** ***********"),
            (r#"{"api_key":"correct horse"}"#, r#"{"api_key":"*************"}"#),
            (
                r#"{"arguments":"{\"Password\": \"hunter22\"}"}"#,
                r#"{"arguments":"{\"Password\": \"********\"}"}"#,
            ),
            ("export FOO_API_KEY=abcdefghi\n", "export FOO_API_KEY=*********\n"),
        ] {
            let told = hidden(text);
            let stars = |text: &str| text.matches('*').count();
            assert!(told == expected || (text.starts_with("Auth") && stars(&told) >= 11), "{told}");
        }
    }

    #[test]
    fn keys_with_escapes_become_stars() {
        for (text, expected) in [
            (r#"["\u006dy-own-key"]"#, r#"["***************"]"#),
            (r#"["my\u002fown\/key"]"#, r#"["****************"]"#),
            (
                r#"{"a":"{\"b\":\"\\u006dy-own-\\u006Bey\"}"}"#,
                r#"{"a":"{\"b\":\"**********************\"}"}"#,
            ),
            (
                r#"["\u0073k-ant-api03-abcdefgh\u00312345678"]"#,
                r#"["\u0073k-*******************************"]"#,
            ),
            (r#"{"p\u0061ssword":"hunter22","e":"\u00e4"}"#, r#"{"p\u0061ssword":"********","e":"\u00e4"}"#),
            (r#"{"password":"\u0068unter22"}"#, r#"{"password":"*************"}"#),
        ] {
            assert_eq!(hidden(text), expected);
        }
        let mut bytes = br#"["schl\u00fcssel-\ud83d\udd11"]"#.to_vec();
        hide_keys(&mut bytes, &["schlüssel".to_owned()]);
        assert_eq!(String::from_utf8(bytes).unwrap(), r#"["**************-\ud83d\udd11"]"#);
        for same in [
            r"\u",
            r"\u00",
            r"\\",
            r"\ud83d\udd11 \u0022 \u005c \u0000",
            r"C:\users\my\own",
            r"\/\/\/",
            r#"{"a":"\\"}"#,
        ] {
            assert_eq!(hidden(same), same);
        }
        let many = r"\u006dy-own".repeat(200_000) + &"\\".repeat(200_000);
        assert_eq!(hidden(&many), many);
    }

    #[test]
    fn ordinary_text_stays() {
        for text in [
            "a task-management-system-for-everybody and a desk-1234567890123456789",
            "short words, sk-1, sk-learn-is-a-library-of-python",
            r#"{"password":{"type":"string"},"secret":"x","api_key":null}"#,
            "the password: it is",
            "",
            "\"",
        ] {
            assert_eq!(hidden(text), text);
        }
    }

    #[test]
    fn many_beginnings_of_keys_take_linear_time() {
        // With time that grows with the square, this test would not end within minutes.
        let many = "sk-".repeat(300_000);
        assert_eq!(hidden(&many), many);
        let key = format!("{many}1");
        assert_eq!(hidden(&key), format!("sk-{}", "*".repeat(key.len() - 3)));
        assert_eq!(
            hidden("desk-sk-abcdefgh12345678 sk-abc sk-abcdefgh12345678"),
            "desk-sk-**************** sk-abc sk-****************"
        );
        assert_eq!(
            hidden("Bearer a-Bearer abcdefg8"),
            "Bearer a-Bearer ********",
            "its beginning has a space"
        );
        let named = "secret=".repeat(100_000);
        assert_eq!(hidden(&named), format!("secret={}", "*".repeat(named.len() - 7)));
    }

    #[test]
    fn images_are_cut_to_their_size() {
        let data = "A".repeat(5000);
        let cut = |text: String| String::from_utf8(cut_images(text.as_bytes())).unwrap();
        assert_eq!(cut(format!(r#"{{"data":"{data}","x":1}}"#)), r#"{"data":"cut:5000:bytes","x":1}"#);
        assert_eq!(
            cut(format!("\"data:image/png;base64,{data}\"")),
            "\"data:image/png;base64,cut:5000:bytes\""
        );
        assert_eq!(
            cut(format!("{{\"data\":\"{data}")),
            "{\"data\":\"cut:5000:bytes",
            "one that was cut already"
        );
        for same in [
            format!(r#"{{"signature":"{data}"}}"#),
            format!(r#"{{"text":"{data} and more"}}"#),
            String::new(),
            "[1,2,\"\"".to_owned(),
        ] {
            assert_eq!(cut(same.clone()), same);
        }
    }
}
