//! The one parser of servers' URLs, for the configuration and for the calls.
//!
//! It knows only text: no name is looked up, and no connection is made.

use ::http::Uri;

/// A checked URL of a server, in the parts that a call needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// True for `https`, false for `http`.
    pub is_secure: bool,
    /// Host and port as they stand in the URL: the value of a `host` header.
    pub authority: String,
    /// The host's name or address, without the brackets of an IPv6 address.
    pub host: String,
    /// The port that the URL names, otherwise the scheme's own one.
    pub port: u16,
    /// The path, without a slash at its end; empty if the URL has none.
    pub path: String,
}

impl ServerUrl {
    /// Checks a URL and takes it apart.
    ///
    /// # Errors
    /// The reason why the URL cannot be used. It never repeats a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        // First of all checks, since the other ones repeat the URL: the text before the @ may be a password.
        if text.contains('@') {
            return Err(
                "no user name or password may stand in the URL; set the server's key instead (`api_key`, \
                        SPARKGAP_UPSTREAM_KEY or --upstream-key-file)"
                    .to_owned(),
            );
        }
        // A query may hold a key.
        if let Some((address, _)) = text.split_once(['?', '#']) {
            return Err(format!("\"{address}\" has a query or a fragment behind it"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("\"{text}\" does not begin with http:// or https://"));
        };
        let is_secure = scheme.eq_ignore_ascii_case("https");
        if !is_secure && !scheme.eq_ignore_ascii_case("http") {
            return Err(format!("\"{scheme}\" is not a supported scheme; use http or https"));
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("\"{text}\" has a blank or a control character"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        if host.is_empty() {
            return Err(format!("\"{text}\" names no host"));
        }
        let port = match port.map(str::parse) {
            Some(Ok(port)) => port,
            Some(Err(_)) => {
                return Err(format!("\"{text}\" has a port that is not a number up to 65535"));
            }
            None if is_secure => 443,
            None => 80,
        };
        // The characters that a request's head can carry, and the form of an IPv6 address.
        if text.parse::<Uri>().is_err() {
            return Err(format!("\"{text}\" is not a valid URL"));
        }
        Ok(ServerUrl {
            is_secure,
            authority: authority.to_owned(),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            path: path.trim_end_matches('/').to_owned(),
        })
    }
}

/// Checks a base URL and returns its usual form: without a slash at the end, and with `/v1` if it had no path.
///
/// # Errors
/// As [`ServerUrl::parse`].
pub fn base_url(text: &str) -> Result<String, String> {
    let url = ServerUrl::parse(text)?;
    let scheme = if url.is_secure { "https" } else { "http" };
    let path = if url.path.is_empty() { "/v1" } else { &url.path };
    Ok(format!("{scheme}://{}{path}", url.authority))
}

/// Checks the base URL of a server of the Messages API and returns its usual form, which ends with `/v1`. Clients of that
/// API add `/v1/messages` to an address, so people write addresses with and without the `/v1`.
///
/// # Errors
/// As [`ServerUrl::parse`].
pub fn messages_url(text: &str) -> Result<String, String> {
    let url = base_url(text)?;
    Ok(if url.ends_with("/v1") { url } else { format!("{url}/v1") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_of_the_messages_api_end_with_its_version() {
        for (text, expected) in [
            ("https://api.anthropic.com", Some("https://api.anthropic.com/v1")),
            ("https://api.anthropic.com/v1/", Some("https://api.anthropic.com/v1")),
            ("https://api.example.com/anthropic", Some("https://api.example.com/anthropic/v1")),
            ("https://api.example.com/api/v1", Some("https://api.example.com/api/v1")),
            ("api.example.com", None),
        ] {
            assert_eq!(messages_url(text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn base_urls() {
        for (text, expected) in [
            ("http://192.168.68.155:8888/v1", Some("http://192.168.68.155:8888/v1")),
            ("http://192.168.68.155:8888/v1/", Some("http://192.168.68.155:8888/v1")),
            ("http://box:8000", Some("http://box:8000/v1")),
            ("http://box/", Some("http://box/v1")),
            ("HTTP://box/", Some("http://box/v1")),
            ("https://[::1]:8000/openai/v1", Some("https://[::1]:8000/openai/v1")),
            ("https://[::1]", Some("https://[::1]/v1")),
            ("", None),
            ("/v1", None),
            ("box:8000", None),
            ("ftp://box", None),
            ("http://", None),
            ("http:///v1", None),
            ("http://:80", None),
            ("http://box:/v1", None),
            ("http://box:port/v1", None),
            ("http://box:70000/v1", None),
            ("http://[::1", None),
            ("http://a b/v1", None),
            ("http://box/v1?x=1", None),
            ("http://box/#a", None),
            ("http://me:word@box/v1", None),
        ] {
            assert_eq!(base_url(text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_parts_of_a_url() {
        for (text, host, port, authority) in [
            ("http://h/v1", "h", 80, "h"),
            ("https://H.example/v1", "H.example", 443, "H.example"),
            ("HTTPS://h:8443", "h", 8443, "h:8443"),
            ("http://[::1]:8000/v1", "::1", 8000, "[::1]:8000"),
        ] {
            let url = ServerUrl::parse(text).unwrap();
            assert_eq!((url.host.as_str(), url.port, url.authority.as_str()), (host, port, authority));
            assert_eq!(url.is_secure, text.to_lowercase().starts_with("https"));
        }
    }

    #[test]
    fn no_reason_repeats_a_password() {
        for text in
            ["http://me:hunter2@h/v1", "me:hunter2@h", "http://me:hunter2@h:port/v1", "ftp://hunter2@h"]
        {
            let why = ServerUrl::parse(text).unwrap_err();
            assert!(!why.contains("hunter2") && why.contains("api_key"), "{why}");
        }
    }
}
