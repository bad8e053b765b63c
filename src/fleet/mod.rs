//! The upstreams in use: their addresses, the facts learned about them, and which of them serves a request.
//!
//! | file | duty |
//! |---|---|
//! | `upstream` | [`Upstream`]: one address, and what its server reports |
//! | `discovery` | `GET /models` -> server kind, models, context windows |
//! | `memory` | the facts last discovered, and when they are asked for again |
//! | `learned` | the facts that answers and refusals have shown, and for how long they are believed |
//! | `pool` | [`Gateway`]: all upstreams, aliases and hooks in use, replaced as one set |
//! | `queue` | how many requests an upstream gets at a time, and which is next |

mod discovery;
mod learned;
mod memory;
mod pool;
pub mod queue;
mod upstream;

pub use discovery::{Discovered, Model};
pub use pool::{Gateway, LISTING_PREFIX, Resolved, Served};
pub use upstream::Upstream;
