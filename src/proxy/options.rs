//! The behaviour towards clients, as the owner set it.

use std::time::Duration;

/// How the proxy behaves towards its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A prefix of every path, such as `/llm`; empty: none.
    pub prefix: String,
    /// A streaming client is answered with the beginning of a message after this much silence of the upstream. Until then
    /// an upstream's error is still an HTTP status.
    pub open_after: Duration,
    /// The memory that all requests may take together, in bytes; `None`: half of what the process may take.
    pub memory_max: Option<usize>,
    /// A body that brings too little in this time is given up.
    pub body_timeout: Duration,
    /// And with a ping each time this much has passed without an event.
    pub ping_every: Duration,
    /// Instead of a ping with the usage so far, once there were only pings for this long. Claude Code 2.1.328 gives a
    /// stream up that has had nothing but pings for 600 s, and other versions may count pings for nothing: 300 s.
    pub usage_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            prefix: String::new(),
            open_after: Duration::from_secs(8),
            memory_max: None,
            body_timeout: Duration::from_secs(60),
            ping_every: Duration::from_secs(10),
            usage_every: Duration::from_secs(120),
        }
    }
}
