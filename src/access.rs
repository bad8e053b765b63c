//! Who may ask: the keys that clients send.
//!
//! Knows keys and the two headers that carry them; where the keys are from is the caller's.

use std::fmt;

use subtle::{Choice, ConstantTimeEq as _};

use crate::config::Secret;
use crate::error::{Error, Kind, Retry};
use crate::http::Request;

/// The keys that are let in; none: everybody is.
#[derive(Clone, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
struct Key {
    secret: Secret,
    name: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Keys {
    /// Reads a file of keys: one a line, and after a blank its owner's name, if it has one. `#` begins a comment line.
    ///
    /// # Errors
    /// A file without a key, which would let everybody in.
    pub fn read(text: &str) -> Result<Keys, String> {
        let mut keys = Keys::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (secret, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            keys.add(Secret::new(secret), name.trim());
        }
        if keys.0.is_empty() { Err("there is no key in it; write one key a line".into()) } else { Ok(keys) }
    }

    /// Lets one more key in.
    pub fn add(&mut self, secret: Secret, name: &str) {
        self.0.push(Key { secret, name: name.to_string() });
    }

    /// Whether everybody is let in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets a request in; the name of its key's owner, if there is one.
    ///
    /// # Errors
    /// 401 with neither header holding one of the keys.
    pub fn admit(&self, request: &Request) -> Result<Option<&str>, Error> {
        if self.is_empty() {
            return Ok(None);
        }
        let bearer = request.header("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let sent = [request.header("x-api-key"), bearer];
        let found = sent.into_iter().flatten().find_map(|sent| self.find(sent));
        let refused = || Error::new(Kind::Authentication, "invalid x-api-key").retry(Retry::Never);
        found.map(|key| Some(key.name.as_str()).filter(|name| !name.is_empty())).ok_or_else(refused)
    }

    /// Compares with every key in full, so that the time tells nothing of where they differ.
    fn find(&self, sent: &str) -> Option<&Key> {
        let mut found = None;
        for key in &self.0 {
            let same: Choice = key.secret.expose().as_bytes().ct_eq(sent.as_bytes());
            if bool::from(same) {
                found = Some(key);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let headers = headers.iter().copied().collect();
        Request { method: "POST".into(), path: "/".into(), query: None, authority: None, headers }
    }

    #[test]
    fn either_header_lets_in() {
        let keys = Keys::read("# ours\nsk-1 anna\n\nsk-2\n").unwrap();
        for (headers, expected) in [
            (&[("x-api-key", "sk-1")][..], Some(Some("anna"))),
            (&[("authorization", "Bearer sk-2")], Some(None)),
            (&[("authorization", "bearer sk-1")], Some(Some("anna"))),
            (&[("x-api-key", "wrong"), ("authorization", "Bearer sk-1")], Some(Some("anna"))),
            (&[("authorization", "Basic sk-1")], None),
            (&[("x-api-key", "sk-")], None),
            (&[("x-api-key", "sk-11")], None),
            (&[("x-api-key", "")], None),
            (&[("authorization", "sk-1")], None),
            (&[], None),
        ] {
            assert_eq!(keys.admit(&request(headers)).ok(), expected, "{headers:?}");
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
        assert_eq!(format!("{:?}", Keys::read("sk-1").unwrap()), "1 keys");
    }
}
