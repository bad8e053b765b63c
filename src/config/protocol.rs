//! The API that an upstream speaks, and whose key it gets.

use super::network::host_outside;

/// The API that an upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// OpenAI's chat completions: requests are translated.
    #[default]
    Chat,
    /// The Messages API itself: requests and answers pass as they are.
    Messages,
}

impl UpstreamProtocol {
    /// The words in the configuration.
    pub const NAMES: [(Self, &'static str); 2] = [(Self::Chat, "chat"), (Self::Messages, "messages")];
}

/// The owner of the key that an upstream gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamAuth {
    /// The one in its configuration.
    #[default]
    Own,
    /// The one that each client sends: its API key, or the token of its subscription.
    Client,
}

impl UpstreamAuth {
    /// The words in the configuration.
    pub const NAMES: [(Self, &'static str); 2] = [(Self::Own, "key"), (Self::Client, "client")];

    /// The reason why clients' own keys cannot go to this URL: without TLS others could read them on the way. A server on
    /// this machine or in its network may be asked without.
    pub fn fault_of(url: &str) -> Option<String> {
        let host = host_outside(url)?;
        (!url.starts_with("https://"))
            .then(|| format!("clients' keys would go to {host} unencrypted; use an https:// URL"))
    }
}
