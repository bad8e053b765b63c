//! The checked configuration of a run: the one value that a start, a reload and the demo take.

use std::path::PathBuf;

use super::configure::Sources;
use crate::access::{HostName, Network, Origin};
use crate::activity::RecordOptions;
use crate::logger::LogFormat;
use crate::proxy::ClientPatience;
use crate::{server, transport};

/// The configuration of a running server. Each default is written once: here, or in the limits type of the module that
/// uses it. The command line and its help take the defaults from `RunOptions::default()`.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The address to listen on. Not used if a service manager hands over sockets.
    pub listen: String,
    /// The places that upstreams, aliases and hooks come from.
    pub sources: Sources,
    /// True for a demo with several boxes and people who work with them.
    pub is_busy: bool,
    /// A PEM file of the authorities that certificates of upstreams are checked against; `None` for the built-in ones.
    pub ca_file: Option<PathBuf>,
    /// PEM files of the certificate (with its chain) and of the key for TLS on the listening side; `None`: plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// A prefix of every path, such as `/llm`; empty for none. Made by [`RunOptions::path_prefix`].
    pub prefix: String,
    /// A file of the keys that clients must send.
    pub api_key_file: Option<PathBuf>,
    /// True if clients of other machines need no key.
    pub allow_anonymous: bool,
    /// Host names and addresses by which clients without keys may call the server.
    pub allowed_hosts: Vec<HostName>,
    /// Origins of web pages that may use the server.
    pub allowed_origins: Vec<Origin>,
    /// Reverse proxies whose `X-Forwarded-For` names the client.
    pub trusted_proxies: Vec<Network>,
    /// The limits on clients' connections and requests.
    pub server: server::ServerLimits,
    /// The time limits of calls to upstreams.
    pub calls: transport::CallLimits,
    /// The times of pings and other signs of life for clients while an upstream is silent.
    pub patience: ClientPatience,
    /// The memory that all requests may take together, in bytes; `None`: half of what the process may take.
    pub memory_max: Option<usize>,
    /// True if `/metrics` needs no key.
    pub metrics_open: bool,
    /// True if `/metrics` has numbers of each client as well.
    pub metrics_by_client: bool,
    /// The folder for requests, usage and learned facts; `None`: that of the service manager, if it makes one.
    pub state: Option<PathBuf>,
    /// The requests that are recorded in that folder.
    pub record: RecordOptions,
    /// The least important log lines that are written.
    pub log_level: log::LevelFilter,
    /// The form of log lines.
    pub log_format: LogFormat,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            listen: "127.0.0.1:4000".to_owned(),
            sources: Sources::default(),
            is_busy: false,
            ca_file: None,
            tls: None,
            prefix: String::new(),
            api_key_file: None,
            allow_anonymous: false,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            server: server::ServerLimits::default(),
            calls: transport::CallLimits::default(),
            patience: ClientPatience::default(),
            memory_max: None,
            metrics_open: false,
            metrics_by_client: false,
            state: None,
            record: RecordOptions::default(),
            log_level: log::LevelFilter::Info,
            log_format: LogFormat::Text,
        }
    }
}

impl RunOptions {
    /// Normalizes a prefix of paths: it begins with a slash and does not end with one. An empty prefix stays empty.
    pub fn path_prefix(given: &str) -> String {
        let bare = given.trim_matches('/');
        if bare.is_empty() { String::new() } else { format!("/{bare}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_may_have_slashes_or_not() {
        for (given, expected) in [("", ""), ("/", ""), ("llm", "/llm"), ("/llm/", "/llm"), ("a/b", "/a/b")] {
            assert_eq!(RunOptions::path_prefix(given), expected, "{given}");
        }
    }
}
