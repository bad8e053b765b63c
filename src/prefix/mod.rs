//! The prefix of a conversation that its upstream has read: whether the next turn continues it, and why it was lost if not.
//!
//! Servers keep what they have read of a prompt and read only the rest of the next one, as long as the beginning is the
//! same, byte for byte. A turn whose beginning was changed is read from there on again, which takes seconds or minutes.
//!
//! | file | duty |
//! |---|---|
//! | `sum` | a fast hash of a part |
//! | `chain` | [`Chain`]: length and hash of each part of a body, and where two of them part |
//! | `verdict` | [`judge`]: whether the prefix was lost, and why |
//!
//! Pure. Bodies are not kept: a part takes 16 bytes.

mod chain;
mod sum;
#[cfg(test)]
mod tests;
mod verdict;

pub use chain::{Chain, ChainBuilder, ChangePlace, Comparison};
pub use verdict::{Cause, Grouped, PrefixVerdict, Reading, judge};
