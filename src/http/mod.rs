//! Server-side HTTP/1.1 over any stream: reads heads and bodies, and writes whole or streamed responses.
//!
//! Does not know sockets, threads or clocks: a timeout is a stream's `WouldBlock` or `TimedOut`, or the caller's `wait`
//! reports it. httparse parses heads; the framing rules and limits are here. [`Headers`] and [`Chunks`] are used for
//! calls to upstreams, too.
//!
//! One request after the other runs through a [`Connection`]:
//!
//! | state | left by | to |
//! |---|---|---|
//! | Ready: between requests | `read_head` | Awaiting |
//! | Awaiting: a request is in, nothing is out | `respond` | Ready |
//! | Awaiting | `start_stream` | Pending |
//! | Pending: the response's head is made, not sent | `respond` | Ready |
//! | Pending | `write` | Streaming |
//! | Pending, Streaming | `finish` | Ready |
//! | any | a failed write | Broken |
//!
//! In scope: keep-alive, pipelining, content-length and chunked both ways, `Expect: 100-continue`, HTTP/1.0.
//! Out of scope: TLS, upgrades, trailers (read and dropped), compression.

mod chunks;
mod connection;
mod head;
mod headers;
mod request;
mod response;
mod socket;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use chunks::fitting;
pub use chunks::{Chunks, Decoded, Malformed};
pub use connection::{Connection, LateRefusal, ServerEnd, Waiting};
pub(crate) use head::end as end_of_head;
pub(crate) use headers::is_encoded;
pub use headers::{Headers, SECRET_HEADERS};
pub use request::{Request, RequestFailure, RequestLimits};
pub use socket::Socket;
