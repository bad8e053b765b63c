//! The upstreams in force: what they are, what was learned of them, and which of them a request goes to.
//!
//! | file | duty |
//! |---|---|
//! | `upstream` | [`Upstream`]: one address, and what its server told of itself |
//! | `discovery` | `GET /models` -> server kind, models, context windows |
//! | `learned` | what answers and refusals have told, and for how long that is believed |
//! | `pool` | [`Gateway`]: all upstreams, aliases and hooks in force, swapped as one |
//! | `queue` | how many requests an upstream gets at a time, and who is next |

mod discovery;
mod learned;
mod pool;
pub mod queue;
mod upstream;

pub use discovery::{Discovered, Model};
pub use learned::Refused;
pub use pool::{Gateway, LISTING_PREFIX, Resolved, Served};
pub use upstream::Upstream;
