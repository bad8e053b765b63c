//! What is and was going on: one record a request, and the numbers since the start.
//!
//! | file | duty |
//! |---|---|
//! | `record` | [`Record`]: what is logged of a request, and what `on_log` sees |
//! | `counters` | [`Counters`]: what has happened since the start |

mod counters;
mod record;

pub use counters::{Counters, Phase, Streaming};
pub use record::{CLIENT_GONE, Caller, Record};
