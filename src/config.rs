//! The checked configuration: the flags and Lua files as one plain value.
//!
//! Knows neither Lua nor the command line: `hooks` and `cli` fill it in.

mod network;
mod url;

use std::fmt;

pub use network::{host, host_outside, leaves_the_lan};
pub use url::{ServerUrl, base_url};

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
pub struct UpstreamConfig {
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

impl UpstreamConfig {
    /// An upstream of which only the name and the base URL are known: no key, no model, no limit, default settings.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        UpstreamConfig {
            name: name.into(),
            url: url.into(),
            api_key: None,
            model: None,
            max_in_flight: None,
            settings: Settings::default(),
        }
    }
}

/// The upstreams and the alias table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Never empty once checked. The first one is the default.
    pub upstreams: Vec<UpstreamConfig>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_a_secret() {
        assert_eq!(format!("{:?}", Secret::new("sk-1")), "***");
    }
}
