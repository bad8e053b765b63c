//! The keys of clients: the file that the operator writes, and the key of a request.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use memchr::memmem::{self, Finder};
use subtle::{Choice, ConstantTimeEq as _};

use crate::base64_text::decode_base64;
use crate::config::{HIDDEN_SIZE_MIN, STARS, Secret};
use crate::error::{Error, Kind, Retry};
use crate::http::{Request, SECRET_HEADERS};

/// The shortest key that is read without a warning, in bytes. Keys of `sparkgap key new` have 27.
const KEY_SIZE_MIN: usize = 16;

/// The beginning of most keys, and of those of `sparkgap key new`.
const KEY_PREFIX: &str = "sk-";

/// The header for a key of sparkgap beside one that the client sends to its upstream (`auth = "client"`).
pub const OWN_KEY_HEADER: &str = "x-sparkgap-key";

/// Headers that say where a body ends. They hold no keys, and must stay as they are.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];

/// The valid keys. An empty list admits every client.
#[derive(Clone, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
struct Key {
    secret: Secret,
    name: Option<Arc<str>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Keys {
    /// Reads a file of keys: one a line, optionally followed by a blank and its owner's name. `#` begins a comment
    /// line. Also returns a warning for each line that is most likely a mistake; none of them contains a key.
    ///
    /// | line | what becomes of it |
    /// |---|---|
    /// | a key of fewer than 16 bytes | it counts: only the warning says that it can be guessed |
    /// | a key that a line above has | left out, so the name above stays the owner's |
    /// | the name of another line's owner, something that ends in `:` or `=`, `Bearer`, or no letter or digit, in the key's place | left out: names are shown in the log, so a name must not let anybody in |
    /// | something that looks like a key behind the first word | left out: as a name it would be shown in the log |
    /// | a key with other characters than letters, digits and `._~+/-` | it counts, with a warning |
    ///
    /// # Errors
    /// The file has no key, so it would admit every client.
    pub fn read(text: &str) -> Result<(Keys, Vec<String>), String> {
        // Editors of Windows put a byte order mark at the beginning, and `cat` carries it into the middle of a file. A
        // carriage return alone ends a line too, so that no key becomes part of a name.
        let lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        let lines = lines.flat_map(|line| line.split('\r'));
        let lines: Vec<(usize, &str, &str)> = (1..)
            .zip(lines.map(|line| line.trim_start_matches('\u{feff}').trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(number, line)| {
                let (secret, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
                (number, secret, name.trim())
            })
            .collect();
        let names: HashSet<&str> = lines.iter().map(|(_, _, name)| *name).collect();
        let (mut keys, mut warnings, mut known) = (Keys::default(), Vec::new(), HashMap::new());
        for (number, secret, name) in lines {
            if let Some(why) = misplaced(secret, name, &names) {
                warnings.push(format!("line {number} is left out: {why}"));
                continue;
            }
            if let Some(first) = known.get(secret) {
                warnings.push(format!(
                    "line {number} is left out: it has the same key as line {first}; give each owner a key of their own"
                ));
                continue;
            }
            if secret.len() < KEY_SIZE_MIN {
                warnings.push(format!(
                    "line {number}: the key has fewer than {KEY_SIZE_MIN} characters, so it can be guessed; if the line begins with the owner's name, write the key first; `sparkgap key new NAME` makes a key"
                ));
            }
            if has_odd_characters(secret) {
                warnings.push(format!(
                    "line {number}: the key has characters that keys seldom have; write the bare key, then a blank and its owner's name"
                ));
            }
            known.insert(secret, number);
            keys.add(Secret::new(secret), name);
        }
        match keys.0.is_empty() {
            true => Err([&["there is no key in it; write one key a line".to_owned()], &warnings[..]]
                .concat()
                .join("; ")),
            false => Ok((keys, warnings)),
        }
    }

    /// Adds a valid key.
    pub fn add(&mut self, secret: Secret, name: &str) {
        self.0.push(Key { secret, name: Some(name).filter(|name| !name.is_empty()).map(Arc::from) });
    }

    /// True if one of the keys has this owner.
    pub fn has_owner(&self, name: &str) -> bool {
        self.0.iter().any(|key| key.name.as_deref() == Some(name))
    }

    /// The number of keys.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// True if there are no keys, so every client is admitted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Admits a request and returns the name of its key's owner, if it has one.
    ///
    /// # Errors
    /// 401 if no header holds a valid key.
    pub fn admit(&self, request: &Request) -> Result<Option<Arc<str>>, Error> {
        if self.is_empty() {
            return Ok(None);
        }
        self.key_of(request).map(|key| key.name.clone()).ok_or_else(|| {
            match request.headers.values(OWN_KEY_HEADER).next() {
                Some(_) => {
                    wrong_key("invalid x-sparkgap-key, and no valid x-api-key or authorization either")
                }
                None => wrong_key(INVALID_KEY),
            }
        })
    }

    /// Admits whoever has this key, as [`Keys::admit`] does.
    ///
    /// # Errors
    /// 401 if it is not a valid key.
    pub fn admit_key(&self, key: &Secret) -> Result<Option<Arc<str>>, Error> {
        self.find(key.expose().as_bytes()).map(|key| key.name.clone()).ok_or_else(|| wrong_key(INVALID_KEY))
    }

    /// The key that admits a request, for its client only. `None`: no key is needed, or none is valid.
    pub fn secret_of(&self, request: &Request) -> Option<&Secret> {
        self.key_of(request).map(|key| &key.secret)
    }

    /// True if this is a valid key, which must not go to an upstream.
    pub fn is_valid(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// True if a header's value is a valid key or holds one, also within `Basic` and its base64. Then it must not go to an
    /// upstream. Keys of fewer than [`HIDDEN_SIZE_MIN`] bytes may be a part of any word, so they count only as a whole value.
    pub fn are_in(&self, value: &[u8]) -> bool {
        let token = bearer(value).unwrap_or(value);
        if self.is_valid(token) || self.is_valid(value) || self.is_within(value) {
            return true;
        }
        let words = std::str::from_utf8(value).unwrap_or_default().split_ascii_whitespace();
        words.filter_map(decode_base64).any(|decoded| self.is_within(&decoded))
    }

    /// The request without the keys that it holds where none belongs: in headers beside those of [`SECRET_HEADERS`], which get
    /// stars in the place of a key, and in the query, which loses the parameter. `None`: it holds none there, as nearly all.
    pub fn without_keys(&self, request: &Request) -> Option<Request> {
        if self.is_empty() {
            return None;
        }
        let may_hold = |name: &str| !SECRET_HEADERS.contains(&name) && !FRAMING.contains(&name);
        let headers = || request.headers.iter().filter(|(name, _)| may_hold(name));
        let is_held = self.hidden().any(|key| {
            let finder = Finder::new(key);
            headers().any(|(_, value)| finder.find(value.as_bytes()).is_some())
        });
        let query = request.query.as_deref().map(|query| (query, self.cleaned(query)));
        let is_in_query = query.as_ref().is_some_and(|(query, cleaned)| query != cleaned);
        if !is_held && !is_in_query {
            return None;
        }
        let mut clean = request.clone();
        clean.query = query.map(|(_, cleaned)| cleaned).filter(|query| !query.is_empty());
        if is_held {
            let hidden = |(name, value): (&str, &str)| {
                let mut value = value.to_owned();
                if may_hold(name) {
                    self.hidden().for_each(|key| value = value.replace(key, STARS));
                }
                (name.to_owned(), value)
            };
            clean.headers = request.headers.iter().map(hidden).collect();
        }
        Some(clean)
    }

    /// A query without the parameters that hold a key, as it is or percent-encoded.
    fn cleaned(&self, query: &str) -> String {
        let is_clean = |parameter: &&str| {
            let decoded: Vec<u8> = percent_encoding::percent_decode_str(parameter).collect();
            !self.is_within(parameter.as_bytes()) && !self.is_within(&decoded)
        };
        let kept: Vec<&str> = query.split('&').filter(is_clean).collect();
        kept.join("&")
    }

    /// The keys that are sought within other texts.
    fn hidden(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.secret.expose()).filter(|key| key.len() >= HIDDEN_SIZE_MIN)
    }

    fn is_within(&self, text: &[u8]) -> bool {
        self.hidden().any(|key| memmem::find(text, key.as_bytes()).is_some())
    }

    /// The key that counts: the first valid one of all `x-sparkgap-key` and `x-api-key` headers, otherwise of all `authorization` headers of
    /// the scheme Bearer.
    fn key_of(&self, request: &Request) -> Option<&Key> {
        let own = request.headers.values(OWN_KEY_HEADER);
        let sent = own.chain(request.headers.values("x-api-key"));
        let bearers = request.headers.values("authorization").filter_map(bearer);
        sent.chain(bearers).find_map(|sent| self.find(sent))
    }

    /// Finds a key. Compares with every key in full, so that the time reveals nothing of where they differ.
    fn find(&self, sent: &[u8]) -> Option<&Key> {
        let mut found = None;
        for key in &self.0 {
            let same: Choice = key.secret.expose().as_bytes().ct_eq(sent);
            if bool::from(same) {
                found = Some(key);
            }
        }
        found
    }
}

/// The words of the Messages API, by which clients know that a key is wrong.
pub const INVALID_KEY: &str = "invalid x-api-key";

fn wrong_key(words: &str) -> Error {
    Error::new(Kind::Authentication, words).retry(Retry::Never)
}

/// The reason why the first word of a line cannot be a key, or the rest of the line cannot be a name.
fn misplaced(secret: &str, name: &str, names: &HashSet<&str>) -> Option<&'static str> {
    let is_word = secret.eq_ignore_ascii_case("bearer") || !secret.contains(char::is_alphanumeric);
    if name.split_whitespace().any(|word| looks_like_key(word, secret)) {
        Some(
            "something like a key follows its first word; write one key a line, the key first, then its owner's name",
        )
    } else if is_word || names.contains(secret) || secret.ends_with([':', '=']) {
        Some("it begins with a name; write the key first, then its owner's name")
    } else {
        None
    }
}

/// True if a word behind the first one may be a key. If the first word has the prefix of keys, only another word with it
/// counts, so that the long name of a machine does not lock its owner out.
fn looks_like_key(word: &str, first: &str) -> bool {
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    let is_first_key = first.starts_with(KEY_PREFIX) && first.len() >= KEY_SIZE_MIN;
    let is_long = word.len() >= KEY_SIZE_MIN && word.contains(|c: char| c.is_ascii_digit());
    word.starts_with(KEY_PREFIX) || (!is_first_key && is_long && !word.contains('@'))
}

/// True for characters beyond those of tokens (RFC 6750), which most likely belong to a quote, a list or an assignment.
fn has_odd_characters(secret: &str) -> bool {
    let token = |c: char| c.is_ascii_alphanumeric() || "._~+/-".contains(c);
    !secret.chars().all(token)
}

/// The token of an `authorization` header, if its scheme is Bearer.
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(value.iter().position(|byte| *byte == b' ')?)?;
    scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let headers = headers.iter().copied().collect();
        Request { method: "POST".into(), path: "/".into(), query: None, authority: None, headers }
    }

    fn read(text: &str) -> Keys {
        Keys::read(text).unwrap().0
    }

    #[test]
    fn the_first_valid_key_lets_in() {
        let keys = read("# ours\nsk-1 anna\n\nsk-2\nsk-3 guest\n");
        for (headers, expected) in [
            (&[("x-api-key", "sk-1")][..], Some(Some("anna"))),
            (&[("authorization", "Bearer sk-2")], Some(None)),
            (&[("authorization", "bearer sk-1")], Some(Some("anna"))),
            (&[("x-api-key", "wrong"), ("authorization", "Bearer sk-1")], Some(Some("anna"))),
            (&[("authorization", "Bearer   sk-1")], Some(Some("anna"))),
            (&[("x-api-key", "sk-3"), ("x-api-key", "sk-1")], Some(Some("guest"))),
            (&[("x-api-key", "sk-3"), ("x-api-key", "sk-1x")], Some(Some("guest"))),
            (&[("x-api-key", "sk-1x"), ("x-api-key", "sk-3")], Some(Some("guest"))),
            (&[("authorization", "Bearer sk-3"), ("x-api-key", "sk-1")], Some(Some("anna"))),
            (&[("authorization", "Bearer sk-3"), ("x-api-key", "anything")], Some(Some("guest"))),
            (&[("authorization", "Basic sk-1"), ("authorization", "Bearer sk-3")], Some(Some("guest"))),
            (&[("x-api-key", "\u{fc}"), ("x-api-key", "sk-2")], Some(None)),
            (&[("x-api-key", "sk-1,sk-3")], None),
            (&[("authorization", "Bearer")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("cookie", "sk-1"), ("proxy-authorization", "Bearer sk-1")], None),
            (&[("authorization", "Basic sk-1")], None),
            (&[("x-api-key", "sk-")], None),
            (&[("x-api-key", "sk-11")], None),
            (&[("x-api-key", "")], None),
            (&[("authorization", "sk-1")], None),
            (&[], None),
        ] {
            let admitted = keys.admit(&request(headers)).ok();
            assert_eq!(admitted.as_ref().map(|name| name.as_deref()), expected, "{headers:?}");
        }
        let error = keys.admit(&request(&[])).unwrap_err();
        assert_eq!((error.kind, error.retry), (Kind::Authentication, Retry::Never));
    }

    #[test]
    fn a_key_is_found_within_a_value() {
        let keys = read("sk-0123456789 anna\nsk-1 guest\n");
        for (value, expected) in [
            ("sk-0123456789", true),
            ("Bearer\tsk-0123456789", true),
            ("\"sk-0123456789\"", true),
            ("sk-0123456789,other", true),
            ("Basic dTpzay0wMTIzNDU2Nzg5", true),
            ("Bearer sk-1", true),
            ("sk-1", true),
            ("sk-11", false),
            ("task-1 of sk-012345678", false),
            ("Basic dTpvdGhlcg==", false),
            ("", false),
        ] {
            assert_eq!(keys.are_in(value.as_bytes()), expected, "{value}");
        }
        assert!(!Keys::default().are_in(b"anything"));
    }

    #[test]
    fn a_request_loses_keys_where_none_belongs() {
        let keys = read("sk-0123456789 anna\nsk-1 guest\n");
        let with_query = |query: Option<&str>, headers: &[(&str, &str)]| Request {
            query: query.map(str::to_owned),
            ..request(headers)
        };
        let usual = [("x-sparkgap-key", "sk-0123456789"), ("content-length", "9"), ("x-a", "sk-1")];
        assert!(keys.without_keys(&with_query(Some("beta=true&&a=%"), &usual)).is_none());
        let clean =
            keys.without_keys(&request(&[("x-api-key", "sk-0123456789"), ("x-a", "1 sk-0123456789 2")]));
        let headers = clean.unwrap().headers;
        let expected = [("x-api-key", "sk-0123456789"), ("x-a", "1 *** 2")];
        assert_eq!(headers.iter().collect::<Vec<_>>(), expected);
        for (query, expected) in [
            ("a=b&key=sk-0123456789&c", Some("a=b&c")),
            ("sk-0123456789", None),
            ("sk%2d0123456789=1&c=%41", Some("c=%41")),
        ] {
            let clean = keys.without_keys(&with_query(Some(query), &[])).unwrap();
            assert_eq!(clean.query.as_deref(), expected, "{query}");
        }
        assert!(Keys::default().without_keys(&with_query(Some("sk-0123456789"), &usual)).is_none());
    }

    #[test]
    fn no_keys_let_everybody_in() {
        assert_eq!(Keys::default().admit(&request(&[])), Ok(None));
    }

    #[test]
    fn a_file_without_keys_is_refused() {
        for text in ["", "\n\n", "# only\n  # comments"] {
            assert!(Keys::read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn keys_do_not_show() {
        assert_eq!(format!("{:?}", read("sk-1")), "1 keys");
    }

    #[test]
    fn a_key_never_becomes_a_name() {
        let (key, other) = ("sk-0123456789abcdef", "0f1e2d3c4b5a69788796a5b4");
        for first in ["anna", "anna.karenina@example.com", "-", "Bearer", "\u{feff}anna", key, "[1]"] {
            for rest in ["sk-4711", "sk-0123456789abcdeg", "\"sk-0123456789abcdeg\""] {
                let (keys, warnings) = Keys::read(&format!("valid-0123456789\n{first} {rest}\n")).unwrap();
                assert_eq!(keys.count(), 1, "{first} {rest}");
                assert!(warnings[0].starts_with("line 2 is left out: something like a key"), "{warnings:?}");
            }
        }
        assert!(Keys::read(&format!("anna.karenina@example.com {other}")).is_err());
        // Names that are long, and have digits, stay names.
        for name in ["annas-macbook-pro-14", "anna.karenina99@example.com", "anna karenina"] {
            let (keys, warnings) = Keys::read(&format!("{key} {name}")).unwrap();
            assert_eq!((keys.find(key.as_bytes()).unwrap().name.as_deref(), warnings.len()), (Some(name), 0));
        }
        let (keys, warnings) = Keys::read(&format!("{key} anna\r{other} guest\r")).unwrap();
        assert_eq!((keys.count(), warnings.len()), (2, 0));
        let (keys, warnings) = Keys::read(&format!("{key} anna\r\n\u{feff}{other} guest\n")).unwrap();
        assert_eq!((keys.count(), warnings.len()), (2, 0));
    }

    #[test]
    fn odd_keys_are_warned_of_and_words_let_nobody_in() {
        let key = "0123456789abcdef";
        for (line, is_odd) in [
            (format!("\"{key}\" anna"), true),
            (format!("{key},anna"), true),
            (format!("anna={key}"), true),
            (format!("[{key}"), true),
            (format!("\u{200b}{key}"), true),
            (format!("{key}\0"), true),
            (format!("anna@{key}"), true),
            (format!("{key}._~+/-Z"), false),
        ] {
            let warnings = match Keys::read(&format!("{key}x\n{line}")) {
                Ok((_, warnings)) => warnings,
                Err(error) => panic!("{error}"),
            };
            let odd = warnings.iter().filter(|warning| warning.starts_with("line 2: the key has characters"));
            assert_eq!(odd.count() == 1, is_odd, "{line:?} {warnings:?}");
            assert!(warnings.iter().all(|warning| !warning.contains(key)), "{warnings:?}");
        }
        for word in ["-", "*", "Bearer", "bearer"] {
            assert!(Keys::read(word).is_err() && Keys::read(&format!("{word} anna")).is_err(), "{word}");
        }
    }

    #[test]
    fn a_line_that_is_most_likely_a_mistake_is_named() {
        let long = "sk-0123456789abcdef";
        for (text, admitted, warned) in [
            (format!("{long} anna\n"), vec![(long, Some("anna"))], vec![]),
            (format!("\u{feff}{long}\r\n\r\n# x\r\n"), vec![(long, None)], vec![]),
            (format!("{long}\tanna b. \r\n"), vec![(long, Some("anna b."))], vec![]),
            ("\u{feff}sk-1\n".into(), vec![("sk-1", None)], vec!["line 1: the key has fewer than 16"]),
            // A name at the beginning, whether or not the rest of the file shows that it is one.
            ("anna guest\n".into(), vec![("anna", Some("guest"))], vec!["line 1: the key has fewer"]),
            (
                format!("{long} anna\n\nanna {long}x\nguest: {long}y\nguest={long}\n"),
                vec![(long, Some("anna")), ("anna", None), ("guest:", None)],
                vec!["line 3 is left out: something like a key", "line 4 is left out: something like a key"],
            ),
            (
                format!("# keys\n{long} anna\n{long} guest\n{long}\n"),
                vec![(long, Some("anna"))],
                vec![
                    "line 3 is left out: it has the same key as line 2",
                    "line 4 is left out: it has the same",
                ],
            ),
        ] {
            let (keys, warnings) = Keys::read(&text).unwrap();
            let found = warnings.len().min(warned.len());
            assert!(
                found == warned.len() && warnings.iter().zip(&warned).all(|(w, e)| w.starts_with(e)),
                "{warnings:?}"
            );
            assert!(warnings.iter().all(|warning| !warning.contains("sk-0")), "{warnings:?}");
            for (key, name) in admitted {
                let found = keys.find(key.as_bytes()).map(|key| key.name.as_deref());
                let is_left_out = warned.iter().any(|warned| warned.contains("something like a key"));
                let expected = if is_left_out && key != long { None } else { Some(name) };
                assert_eq!(found, expected, "{text:?} {key}");
            }
        }
        let refused = Keys::read("anna: x").unwrap_err();
        assert!(
            refused.starts_with("there is no key in it") && refused.contains("line 1 is left out"),
            "{refused}"
        );
    }
}
