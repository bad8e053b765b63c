//! The checked configuration: the flags and Lua files as one plain value.
//!
//! Knows neither Lua nor the command line: `hooks` and `cli` fill it in.

mod connection;
mod limits;
mod network;
mod protocol;
mod search;
mod url;
mod wake;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use connection::{ConnectionSettings, HEADER_SIZE_MAX, HEADERS_MAX};
pub use limits::ClientLimits;
pub use network::{client_network, host, host_outside, leaves_the_lan};
pub use protocol::{UpstreamAuth, UpstreamProtocol};
pub use search::SearchConfig;
pub use url::{ServerUrl, base_url, messages_url};
pub use wake::WakeTarget;

use crate::cluster::ClusterKind;
use crate::json::Value;
use crate::policy::NeverTo;
use crate::route::{Alias, AliasMember};
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

    /// Replaces this key by stars wherever it occurs in the text of a server, and also the beginning of it at the end of
    /// the text, which may have been cut.
    pub fn hide_in(&self, text: &mut String) {
        let key = self.0.as_str();
        if key.len() < HIDDEN_SIZE_MIN {
            return;
        }
        if text.contains(key) {
            *text = text.replace(key, STARS);
        }
        let beginnings = (HIDDEN_SIZE_MIN..key.len()).rev().filter_map(|size| key.get(..size));
        if let Some(rest) = beginnings.filter_map(|beginning| text.strip_suffix(beginning)).next() {
            *text = format!("{rest}{STARS}");
        }
    }
}

/// Stands in the place of a key.
pub const STARS: &str = "***";

/// The shortest key that is hidden in texts, in bytes. Shorter ones are placeholders such as `none`, `local` or `EMPTY`
/// for a server that wants any key, and may be a part of any word.
pub const HIDDEN_SIZE_MIN: usize = 8;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STARS)
    }
}

/// The configuration of one upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Its name in aliases, hooks and logs.
    pub name: String,
    /// Its base URL with the `/v1`, without a slash at the end: `http://192.168.68.155:8888/v1`.
    pub url: String,
    /// The API that it speaks.
    pub protocol: UpstreamProtocol,
    /// The owner of the key that it gets.
    pub auth: UpstreamAuth,
    /// The key that it gets as `Authorization: Bearer`. Without a key no such header is sent.
    pub api_key: Option<Secret>,
    /// The model to ask for if an alias names none; otherwise the first one that the server lists.
    pub model: Option<String>,
    /// The most requests that it gets at a time; the rest wait. `None`: no limit, or that of a member of a pool.
    pub max_in_flight: Option<u32>,
    /// The longest silence before and within its answers; `None`: `--first-byte-timeout` and `--idle-timeout`.
    pub timeout: Option<Duration>,
    /// True if it gets no new conversation, and those that it has move at their next turn.
    pub drain: bool,
    /// The network card that a magic packet wakes when a request wants the upstream and it is out.
    pub wake: Option<WakeTarget>,
    /// The cluster behind the upstream, which gets more headers then.
    pub cluster: Option<ClusterKind>,
    /// Whether Claude Code's auto mode works with it; `None`: that is decided by the window. `false` is for a server that
    /// reads prompts too slowly for auto mode's checks.
    pub auto_mode: Option<bool>,
    /// How its connections are made.
    pub connection: ConnectionSettings,
    /// The settings that shape the translation for it.
    pub settings: Settings,
}

impl UpstreamConfig {
    /// True if another configuration differs only in how many requests the upstream gets, when, and how it is woken: its
    /// connections and the facts learned about it stay true.
    pub fn has_same_server(&self, other: &UpstreamConfig) -> bool {
        let UpstreamConfig { max_in_flight, drain, wake, .. } = other.clone();
        UpstreamConfig { max_in_flight, drain, wake, ..self.clone() } == *other
    }

    /// Probable mistakes in the configuration of an upstream that speaks the Messages API, each as a sentence.
    pub fn doubts(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.protocol != UpstreamProtocol::Messages {
            return found;
        }
        let is_open = self.auth == UpstreamAuth::Own && self.api_key.is_none();
        if is_open && host_outside(&self.url).is_some() {
            let what =
                "it gets no key: set auth = \"client\", or api_key (is the variable of env \"NAME\" set?)";
            found.push(what.to_owned());
        }
        let base = self.url.strip_suffix("/v1").unwrap_or(&self.url).trim_end_matches('/');
        if let Some(base) = base.strip_suffix("/messages") {
            let base = base.strip_suffix("/v1").unwrap_or(base);
            found.push(format!("requests would go to {}/messages: set url = \"{base}\"", self.url));
        }
        found
    }

    /// An upstream of which only the name and the base URL are known: no key, no model, no limit, default settings.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        UpstreamConfig {
            name: name.into(),
            url: url.into(),
            protocol: UpstreamProtocol::Chat,
            auth: UpstreamAuth::Own,
            api_key: None,
            model: None,
            max_in_flight: None,
            timeout: None,
            drain: false,
            wake: None,
            cluster: None,
            auto_mode: None,
            connection: ConnectionSettings::default(),
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
    /// The limits of clients by the owners of their keys.
    pub limits: Vec<Arc<ClientLimits>>,
    /// The rules that keep requests from upstreams.
    pub never_to: Vec<NeverTo>,
    /// The search engine of web searches.
    pub search: Option<SearchConfig>,
}

impl Config {
    /// The upstream of an alias as far as the configuration decides: the first one it names, otherwise the default.
    pub fn upstream_of<'c>(&'c self, alias: &'c Alias) -> Option<&'c str> {
        let default = self.upstreams.first().map(|upstream| upstream.name.as_str());
        alias.members.first().map(|member| member.upstream.as_str()).or(default)
    }

    /// The model that an alias names for a member; `None`: the upstream's own. See [`Alias::fits`].
    pub fn model_of<'a>(&self, alias: &'a Alias, member: &'a AliasMember) -> Option<&'a str> {
        let protocol = |name: &str| {
            let mut upstreams = self.upstreams.iter();
            upstreams.find(|upstream| upstream.name == name).map(|upstream| upstream.protocol)
        };
        alias.model_of(member).filter(|_| alias.fits(member, &protocol))
    }

    /// An alias as `check --json` and `on_load` show it: its members and backups, each with the model that it is asked
    /// for. `upstream` and `model` are those of the first member.
    pub fn alias_value(&self, alias: &Alias) -> Value<'static> {
        let text = |text: Option<&str>| text.map_or(Value::Null, |text| text.to_owned().into());
        let member = |member: &AliasMember| {
            let upstream = member.upstream.clone().into();
            Value::object([("upstream", upstream), ("model", text(self.model_of(alias, member)))])
        };
        let list = |members: &[AliasMember]| members.iter().map(member).collect::<Vec<_>>().into();
        let first = alias.members.first();
        Value::object([
            ("pattern", alias.pattern.clone().into()),
            ("upstream", text(self.upstream_of(alias))),
            ("model", text(first.map_or(alias.model.as_deref(), |first| self.model_of(alias, first)))),
            ("members", list(&alias.members)),
            ("backup", list(&alias.backup)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_a_secret() {
        assert_eq!(format!("{:?}", Secret::new("sk-1")), "***");
    }

    #[test]
    fn a_key_is_hidden_in_a_text() {
        for (key, text, expected) in [
            ("sk-upstream", "key sk-upstream of sk-upstream!", "key *** of ***!"),
            ("sk-upstream", "key sk-upstre", "key ***"),
            ("sk-upstream", "sk-upstream", "***"),
            ("sk-upstream", "key sk-ups", "key sk-ups"),
            ("sk-upstream", "sk-upstre and more", "sk-upstre and more"),
            ("sk-upstream", "SK-UPSTREAM", "SK-UPSTREAM"),
            ("größe-größe", "die größe-größ", "die ***"),
            ("local", "a local server", "a local server"),
            ("", "text", "text"),
        ] {
            let mut hidden = text.to_owned();
            Secret::new(key).hide_in(&mut hidden);
            assert_eq!(hidden, expected, "{key}");
        }
    }
}
