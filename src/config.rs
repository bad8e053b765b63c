//! The checked configuration: what flags and Lua files say, as one plain value.
//!
//! Knows no Lua and no command line: `hooks` and `cli` fill it in.

use std::fmt;

use crate::openai::Settings;
use crate::route::Alias;

/// A key. Its `Debug` prints stars, so that it can never reach a log line.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the one header it goes into.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One upstream as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its name in aliases, hooks and logs.
    pub name: String,
    /// Its base URL with the `/v1`, without a slash at the end: `http://192.168.68.155:8888/v1`.
    pub url: String,
    /// The key it gets as `Authorization: Bearer`; none is sent without one.
    pub api_key: Option<Secret>,
    /// The model to ask for where an alias names none; else the first one that the server lists.
    pub model: Option<String>,
    /// What shapes the translation for it.
    pub settings: Settings,
}

/// The upstreams and the alias table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Never empty once checked. The first one is the default.
    pub upstreams: Vec<Upstream>,
    /// In order; the first match wins.
    pub aliases: Vec<Alias>,
}
