//! The sign of a call that the server has dropped: tokens that it has counted and not shown.
//!
//! The parser of another model's calls takes the opening tag of a call for one of its own, cannot read the rest, and shows
//! nothing of it.

/// The least number of tokens at the end of an answer that shows a dropped call. Fewer may be marks of a template, such as
/// those behind reasoning; the shortest call, one without arguments, has about a dozen.
pub const DROPPED_TOKENS_MIN: u64 = 8;
