//! HTTP calls to the upstreams: who serves what, one request out, its response streamed back.
//!
//! The only module that names ureq. It knows nothing of messages or chats: a body goes out as bytes and comes back
//! as an [`io::Read`](std::io::Read).
//!
//! | file | duty |
//! |---|---|
//! | `call` | [`Upstream`]: one call, its [`Response`], the one retry of a stale connection |
//! | `discovery` | [`Discovered`]: `GET /models` -> flavour, models, context windows |
//! | `failure` | [`Failure`]: what can go wrong, and what the client is told of it |
//! | `wait` | [`Wait`], [`Options`]: one `poll` over the upstream's and the client's socket, with every time limit |
//! | `transport` | the sockets that ureq gets from us, which wait by `wait` |
//! | `lookup` | host names to addresses, by the system's resolver |
//! | `tls` | [`trust`]: whose certificates an upstream may show |
//! | `buffers` | a connection's buffers, given back while it is idle |
//!
//! The thread that asked is the thread that waits, from the connect to the last byte of the body. In silence it
//! polls both sockets: when its client leaves, the call ends and the upstream's connection is closed at once, so
//! that the model stops generating for nobody.
//!
//! One limit stands: a client that closes only its sending side counts as gone.
//!
//! Keys: ureq redacts what it logs, but `ureq_proto::util` dumps raw heads at TRACE, the `authorization` header among
//! them. The logger must drop that target's records.

mod buffers;
mod call;
mod discovery;
mod failure;
mod lookup;
mod tls;
mod transport;
mod wait;

pub use call::{Path, Response, Upstream};
pub use discovery::{Discovered, Model};
pub use failure::Failure;
pub use tls::trust;
#[cfg(test)]
pub(crate) use wait::minded;
pub use wait::{Options, Wait, has_left, nobody, wait_for};
