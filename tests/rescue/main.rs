//! Tool calls in the text of an answer: all families are recovered, however the text is cut; text about calls is never
//! changed, and nothing is lost.
//!
//! `calls/` has one file for each family. A case is a line `=== title`, perhaps with ` | reasoning`, the text, and a line
//! `--- NAME ARGUMENTS` for each call in it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "helpers fail as tests do"
)]

mod answer;
mod calls;
mod corpus;
mod mentions;
mod random;
mod texts;
