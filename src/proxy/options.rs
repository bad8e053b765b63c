//! The proxy's behaviour towards its clients, as the operator set it.

use std::time::Duration;

use crate::activity::RecordOptions;

/// The signs of life that a streaming client gets while its upstream is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPatience {
    /// The silence after which the client gets the beginning of a message. Until then an upstream's error is still an
    /// HTTP status.
    pub open_after: Duration,
    /// The time without an event after which the client gets a ping, again and again.
    pub ping_every: Duration,
    /// The time with nothing but pings after which the client gets the usage so far instead of a ping. Claude Code
    /// 2.1.328 ends a stream that has had nothing but pings for 600 s; other versions may ignore pings and end it after
    /// 300 s.
    pub usage_every: Duration,
    /// The longest wait of a streaming client for a pool of which no member answers.
    pub wait_for_upstream: Duration,
}

impl ClientPatience {
    /// The longest wait for upstreams of which none answers. A client that does not stream gets no signs of life, so it does
    /// not wait.
    pub(super) fn for_upstreams(self, is_streamed: bool) -> Duration {
        if is_streamed { self.wait_for_upstream } else { Duration::ZERO }
    }
}

impl Default for ClientPatience {
    fn default() -> Self {
        ClientPatience {
            open_after: Duration::from_secs(8),
            ping_every: Duration::from_secs(10),
            usage_every: Duration::from_secs(120),
            wait_for_upstream: Duration::from_secs(600),
        }
    }
}

/// How the proxy behaves towards its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyOptions {
    /// A prefix of every path, such as `/llm`, or empty.
    pub prefix: String,
    /// The memory that all requests may take together, in bytes; `None`: half of what the process may take.
    pub memory_max: Option<usize>,
    /// The time in which enough of a body must arrive; otherwise the request is refused.
    pub body_timeout: Duration,
    /// The time in which a whole body must arrive.
    pub body_total_timeout: Duration,
    /// The signs of life in silence.
    pub patience: ClientPatience,
    /// True if `/metrics` needs no key.
    pub metrics_open: bool,
    /// True if `/metrics` has numbers of each client as well.
    pub metrics_by_client: bool,
    /// The requests that are recorded.
    pub record: RecordOptions,
}
