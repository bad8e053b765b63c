//! The upstreams in use: their addresses, the facts learned about them, and which of them serves a request.
//!
//! | file | duty |
//! |---|---|
//! | `upstream` | [`Upstream`]: one address, and what its server reports |
//! | `discovery` | `GET /models` -> server kind, models, context windows |
//! | `entry` | one model of that listing |
//! | `details` | a further page of some servers, with windows and loaded models |
//! | `memory` | the facts last discovered, and when they are asked for again |
//! | `learned` | the facts that answers and refusals have shown, and for how long they are believed |
//! | `learned_text` | these facts as text, for the state folder |
//! | `ledger` | which model has made which block of thinking |
//! | `pool` | [`Gateway`]: all upstreams, aliases and hooks in use, replaced as one set |
//! | `dispatch` | which request gets which upstream, and which waits |
//! | `choose` | the upstream that answers a request soonest |
//! | `conversations` | the prefixes that each upstream has read |
//! | `residents` | the conversations in an upstream's cache, and the size of that cache |
//! | `speed` | how fast an upstream reads prompts and writes answers |
//! | `health` | whether an upstream gets requests |
//! | `waking` | when an upstream that sleeps gets a magic packet |
//! | `news` | the changes of upstreams that a hook is still to be told |
//! | `outage` | how long a request has had no upstream that takes it |
//! | `load` | the figures of a server about its own work, from its page |
//! | `load_watch` | asks the servers of pools for these figures |
//! | `hang` | whether an upstream stands still, though it seems to be up |
//! | `tally` | counters of what the choice has done |
//! | `slot` | the place of a request at an upstream, for threads |

mod choose;
mod conversations;
mod details;
mod discovery;
mod dispatch;
mod entry;
mod hang;
mod health;
mod learned;
mod learned_text;
mod ledger;
mod load;
mod load_watch;
mod memory;
mod news;
mod outage;
mod pool;
mod residents;
mod slot;
mod speed;
mod tally;
mod upstream;
mod waking;

pub use choose::Why;
pub use conversations::BoxId;
pub use discovery::{Discovered, Model};
pub use dispatch::{BoxReport, Candidate, Dispatch, Grant, Spent, Ticket};
pub use health::{HealthState, Sign, StateChange};
pub use learned_text::SaveTime;
pub use ledger::ThinkingLedger;
pub use load::{Load, LoadPage};
pub use memory::{Availability, QuestionEnd};
pub use outage::Outage;
pub use pool::{Destination, Gateway, LISTING_PREFIX, Resolved, Served};
pub use slot::{BoxSlot, Dispatcher, NoSlot};
pub use tally::Tally;
pub use upstream::Upstream;
