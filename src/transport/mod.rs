//! One streamed HTTP exchange with one address, ended when its client leaves.
//!
//! It knows nothing of messages or chats: a body goes out as bytes, and comes back as bytes.
//!
//! | file | duty |
//! |---|---|
//! | `call` | [`Endpoint`]: one call, with one retry of a stale connection |
//! | `response` | [`Response`]: the head, and the body as it comes |
//! | `failure` | [`Failure`]: everything that can go wrong, and the error that the client gets for it |
//! | `wait` | [`Wait`], [`CallLimits`]: one `poll` over the upstream's and the client's socket, with every time limit |
//! | `dial`, `socket` | a new TCP connection, and the socket for it |
//! | `connection` | a connection, with or without TLS; it uses `wait` for all waiting |
//! | `idle` | connections that wait for their next call |
//! | `head` | a response's head: its status, and where its body ends |
//! | `lookup` | host names to addresses, by the system's resolver |
//! | `question` | [`Endpoint::question`]: small pages that no client waits for, by ureq |
//! | `pulse` | whether a silent server has stopped |
//! | `extra` | [`ExtraHeaders`]: the headers that only one request has |
//! | `magic` | [`send_magic_packet`]: wakes a sleeping machine |
//! | `tls` | [`trust`]: the authorities whose certificates upstreams may show |
//!
//! The requesting thread also does the waiting, from the connect to the last byte of the body. During silence it polls
//! both sockets: when its client leaves, the call ends and the upstream's connection is closed at once, so that the
//! model stops generating for nobody.
//!
//! One limitation: a client that closes only its sending side counts as gone.

mod call;
mod connection;
mod dial;
mod extra;
mod failure;
mod head;
mod idle;
mod lookup;
mod magic;
mod pulse;
mod question;
mod response;
mod socket;
mod tls;
mod wait;

pub use call::{Endpoint, JSON, Path, Watcher};
pub use extra::{ExtraHeaders, passes};
pub use failure::Failure;
pub use magic::send_magic_packet;
pub use question::{Page, QuestionLimits};
pub use response::Response;
pub use tls::trust;
#[cfg(test)]
pub(crate) use wait::minded;
pub use wait::{CallLimits, Wait, has_left, nobody, wait_for};
