//! The checked configuration: the flags and Lua files as one plain value.
//!
//! Knows neither Lua nor the command line: `hooks` and `cli` fill it in.

mod network;

use std::fmt;

pub use network::{host, host_outside, leaves_the_lan};

use crate::route::Alias;
use crate::settings::Settings;

/// A key. Its `Debug` prints stars, so that it can never reach a log line.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Makes a secret of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the one header that it belongs in.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The configuration of one upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its name in aliases, hooks and logs.
    pub name: String,
    /// Its base URL with the `/v1`, without a slash at the end: `http://192.168.68.155:8888/v1`.
    pub url: String,
    /// The key that it gets as `Authorization: Bearer`. Without a key no such header is sent.
    pub api_key: Option<Secret>,
    /// The model to ask for if an alias names none; otherwise the first one that the server lists.
    pub model: Option<String>,
    /// The most requests that it gets at a time; the rest wait. `None`: no limit.
    pub max_in_flight: Option<u32>,
    /// The settings that shape the translation for it.
    pub settings: Settings,
}

/// The upstreams and the alias table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Never empty once checked. The first one is the default.
    pub upstreams: Vec<Upstream>,
    /// The aliases in their order; the first match wins.
    pub aliases: Vec<Alias>,
}

impl Config {
    /// The upstream of an alias as far as the configuration decides: the one it names, otherwise the default.
    pub fn upstream_of<'c>(&'c self, alias: &'c Alias) -> Option<&'c str> {
        let default = self.upstreams.first().map(|upstream| upstream.name.as_str());
        alias.upstream.as_deref().or(default)
    }
}

/// Checks a base URL and returns its usual form: without a slash at the end, and with `/v1` if it had no path.
///
/// # Errors
/// The reason why the URL cannot be used.
pub fn base_url(text: &str) -> Result<String, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("\"{text}\" does not begin with http:// or https://"));
    };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("\"{scheme}\" is not a supported scheme; use http or https"));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#')) {
        return Err(format!("\"{text}\" has a blank, a query or a fragment"));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if host.is_empty() {
        return Err(format!("\"{text}\" names no host"));
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(format!("\"{text}\" has a port that is not a number up to 65535"));
    }
    let path = path.trim_end_matches('/');
    let path = if path.is_empty() { "v1" } else { path };
    Ok(format!("{scheme}://{authority}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        for (text, expected) in [
            ("http://192.168.68.155:8888/v1", Some("http://192.168.68.155:8888/v1")),
            ("http://192.168.68.155:8888/v1/", Some("http://192.168.68.155:8888/v1")),
            ("http://box:8000", Some("http://box:8000/v1")),
            ("http://box/", Some("http://box/v1")),
            ("https://[::1]:8000/openai/v1", Some("https://[::1]:8000/openai/v1")),
            ("https://[::1]", Some("https://[::1]/v1")),
            ("box:8000", None),
            ("ftp://box", None),
            ("http://", None),
            ("http://:80", None),
            ("http://box:port/v1", None),
            ("http://box:70000/v1", None),
            ("http://a b/v1", None),
            ("http://box/v1?x=1", None),
        ] {
            assert_eq!(base_url(text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn debug_output_hides_a_secret() {
        assert_eq!(format!("{:?}", Secret::new("sk-1")), "***");
    }
}
