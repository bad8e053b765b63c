//! The keys of clients: the file that the operator writes, and the key of a request.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use subtle::{Choice, ConstantTimeEq as _};

use crate::config::Secret;
use crate::error::{Error, Kind, Retry};
use crate::http::Request;

/// The shortest key that is read without a warning, in bytes. Keys of `sparkgap key new` have 27.
const KEY_SIZE_MIN: usize = 16;

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
    /// | the name of another line's owner, or something that ends in `:` or `=`, in the key's place | left out: names are shown in the log, so a name must not let anybody in |
    ///
    /// # Errors
    /// The file has no key, so it would admit every client.
    pub fn read(text: &str) -> Result<(Keys, Vec<String>), String> {
        // Editors of Windows put a byte order mark at the beginning.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines: Vec<(usize, &str, &str)> = (1..)
            .zip(text.lines().map(str::trim))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(|(number, line)| {
                let (secret, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
                (number, secret, name.trim())
            })
            .collect();
        let names: HashSet<&str> = lines.iter().map(|(_, _, name)| *name).collect();
        let (mut keys, mut warnings, mut known) = (Keys::default(), Vec::new(), HashMap::new());
        for (number, secret, name) in lines {
            if names.contains(secret) || secret.ends_with([':', '=']) {
                warnings.push(format!(
                    "line {number} is left out: it begins with a name; write the key first, then its owner's name"
                ));
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

    /// The number of keys.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// True if there are no keys, so every client is admitted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Admits a request and returns the name of its key's owner, if it has one. The key used is the first valid one of
    /// all `x-api-key` headers, otherwise of all `authorization` headers of the scheme Bearer.
    ///
    /// # Errors
    /// 401 if no header holds a valid key.
    pub fn admit(&self, request: &Request) -> Result<Option<Arc<str>>, Error> {
        if self.is_empty() {
            return Ok(None);
        }
        let sent = request.headers.values("x-api-key");
        let bearers = request.headers.values("authorization").filter_map(bearer);
        match sent.chain(bearers).find_map(|sent| self.find(sent)) {
            Some(key) => Ok(key.name.clone()),
            None => Err(Error::new(Kind::Authentication, "invalid x-api-key").retry(Retry::Never)),
        }
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

/// The token of an `authorization` header, if its scheme is Bearer.
fn bearer(value: &[u8]) -> Option<&[u8]> {
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
    fn a_line_that_is_most_likely_a_mistake_is_named() {
        let long = "sk-0123456789abcdef";
        for (text, admitted, warned) in [
            (format!("{long} anna\n"), vec![(long, Some("anna"))], vec![]),
            (format!("\u{feff}{long}\r\n\r\n# x\r\n"), vec![(long, None)], vec![]),
            (format!("{long}\tanna b. \r\n"), vec![(long, Some("anna b."))], vec![]),
            ("\u{feff}sk-1\n".into(), vec![("sk-1", None)], vec!["line 1: the key has fewer than 16"]),
            // A name at the beginning, whether or not the rest of the file shows that it is one.
            ("anna sk-4711\n".into(), vec![("anna", Some("sk-4711"))], vec!["line 1: the key has fewer"]),
            (
                format!("{long} anna\n\nanna {long}x\nguest: {long}y\nguest={long}\n"),
                vec![(long, Some("anna")), ("anna", None), ("guest:", None)],
                vec!["line 3 is left out: it begins with a name", "line 4 is left out: it begins"],
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
                let is_left_out = warned.iter().any(|warned| warned.contains("begins with a name"));
                let expected = if is_left_out && key != long { None } else { Some(name) };
                assert_eq!(found, expected, "{text:?} {key}");
            }
        }
        let refused = Keys::read("anna: sk-4711").unwrap_err();
        assert!(
            refused.starts_with("there is no key in it") && refused.contains("line 1 is left out"),
            "{refused}"
        );
    }
}
