//! Takes keys and images out of recorded bytes.
//!
//! A key is replaced by as many stars as it has bytes, so that every length and place in the bytes stays as it was. Known
//! keys are found by their value, others by the forms that keys have, or by the name of their member. Linear time.

use memchr::memmem;

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

/// The names of members and variables whose values are keys, in lower case. A name may have others in front.
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

/// The shortest string of base64 that is cut, in characters.
const IMAGE_SIZE_MIN: usize = 1024;

/// Replaces the keys in these bytes by stars.
pub fn hide_keys(bytes: &mut [u8], known: &[String]) {
    for secret in known.iter().filter(|secret| secret.len() >= HIDDEN_SIZE_MIN) {
        star_all(bytes, secret.as_bytes());
        // Some writers of JSON escape slashes.
        if secret.contains('/') {
            star_all(bytes, secret.replace('/', "\\/").as_bytes());
        }
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
    let lower = bytes.to_ascii_lowercase();
    for name in NAMES {
        for at in memmem::find_iter(&lower, name) {
            if let Some((from, end)) = value_behind(bytes, at + name.len()) {
                star(bytes, from, end);
            }
        }
    }
}

/// The place of the string behind a member's name, which ends at `at`, or of the value of a variable.
fn value_behind(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\\' | b'"' | b'\'');
    let colon = run(bytes, at, is_space);
    if !matches!(bytes.get(colon), Some(b':' | b'=')) {
        return None;
    }
    let from = run(bytes, colon + 1, is_space);
    let is_quoted = bytes.get(from.checked_sub(1)?).is_some_and(|byte| matches!(byte, b'"' | b'\''));
    let is_value = |byte: u8| match is_quoted {
        true => !matches!(byte, b'"' | b'\\' | b'\'' | b'\n'),
        false => is_key_byte(byte) || is_base64(byte),
    };
    let end = run(bytes, from, is_value);
    (end - from >= HIDDEN_SIZE_MIN).then_some((from, end))
}

/// The end of the bytes from `from` on that are of a kind.
fn run(bytes: &[u8], from: usize, is_of_kind: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| is_of_kind(**byte)).count()
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// Replaces a key wherever it stands.
fn star_all(bytes: &mut [u8], key: &[u8]) {
    let found: Vec<usize> = memmem::find_iter(bytes, key).collect();
    found.into_iter().for_each(|at| star(bytes, at, at + key.len()));
}

fn star(bytes: &mut [u8], from: usize, end: usize) {
    if let Some(key) = bytes.get_mut(from..end) {
        key.fill(b'*');
    }
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
