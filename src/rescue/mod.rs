//! Tool calls that a model wrote into its text, because the server did not recognize them.
//!
//! A server misses a call when its parser is off or belongs to another model, or when the model slips. The client would
//! then see markup instead of a tool use. This room finds such calls at the end of an answer while the answer streams:
//!
//! | module | duty |
//! |---|---|
//! | `detector` | reads the text as it comes, and says what may be shown and what is held |
//! | `dropped` | the sign of a call that the server has dropped |
//! | `families` | the table of forms: one row for each family of models |
//! | `models` | the form of a model's calls by its name |
//! | `form` | follows the text of one call, or of several, in the form of one row |
//! | `readers` | the bodies of calls: JSON, parameters in tags, pairs, Python |
//! | `found` | the calls that were found |
//! | `offered` | the tools of the request |
//!
//! Whether a call is taken is decided above: its arguments must fit the tool's schema, which this room does not know.
//!
//! Pure. Every byte is read once by each form that is still possible, at most by a few, so the time is linear.

mod detector;
mod dropped;
mod families;
mod form;
mod found;
mod models;
mod offered;
mod readers;

pub use detector::{CallDetector, HELD_SIZE_MAX, Release};
pub use dropped::DROPPED_TOKENS_MIN;
pub use families::{CallFamily, FAMILIES};
pub use found::{FoundArguments, FoundCall, FoundText};
pub use offered::OfferedTools;
