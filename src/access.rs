//! Access control: the clients' keys, the web pages that may send requests, and the address of a request's client.
//!
//! This module knows the headers that carry these; its caller supplies the keys and lists. No other module reads a key
//! from a request, so that hooks and the log name the owner of exactly the key that admitted it.

mod address;
mod page;

pub use address::Network;
pub use page::{HostName, Origin, check_content_type};

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use subtle::{Choice, ConstantTimeEq as _};

use crate::config::Secret;
use crate::error::{Error, Kind, Retry};
use crate::http::Request;

/// The settings that decide which requests are admitted.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The keys of clients.
    pub keys: Keys,
    /// Host names and addresses that are served without keys, in addition to loopback addresses and our own.
    pub hosts: Vec<HostName>,
    /// Origins whose web pages may send requests.
    pub origins: Vec<Origin>,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub proxies: Vec<Network>,
}

impl Access {
    /// Refuses requests from web pages that may not send any. `local` gives the address that the connection was made
    /// to. If the page's origin is listed, returns that origin: the browser must be told of it.
    ///
    /// # Errors
    /// 403 for a foreign `Origin` or `Sec-Fetch-Site`, or, if no keys are configured, a foreign `Host`.
    pub fn admit_page(
        &self,
        request: &Request,
        local: impl Fn() -> Option<IpAddr>,
    ) -> Result<Option<&Origin>, Error> {
        if self.keys.is_empty() {
            page::check_host(request, &self.hosts, local)?;
        }
        page::check_origin(request, &self.origins)
    }

    /// True if this is the address of a trusted proxy, which brings many clients.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.proxies.iter().any(|proxy| proxy.contains(peer))
    }

    /// The client's address. It is `peer`, the other end of the connection, unless `peer` is a trusted proxy.
    pub fn client_address(&self, request: &Request, peer: IpAddr) -> IpAddr {
        address::of_client(request, peer, &self.proxies)
    }
}

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
    /// line.
    ///
    /// # Errors
    /// The file has no key, so it would admit every client.
    pub fn read(text: &str) -> Result<Keys, String> {
        let mut keys = Keys::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (secret, name) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            keys.add(Secret::new(secret), name.trim());
        }
        if keys.0.is_empty() { Err("there is no key in it; write one key a line".into()) } else { Ok(keys) }
    }

    /// Adds a valid key.
    pub fn add(&mut self, secret: Secret, name: &str) {
        self.0.push(Key { secret, name: Some(name).filter(|name| !name.is_empty()).map(Arc::from) });
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

    #[test]
    fn the_first_valid_key_lets_in() {
        let keys = Keys::read("# ours\nsk-1 anna\n\nsk-2\nsk-3 guest\n").unwrap();
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
        assert_eq!(format!("{:?}", Keys::read("sk-1").unwrap()), "1 keys");
    }
}
