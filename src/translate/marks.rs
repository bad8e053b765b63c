//! The marks around reasoning in a model's text.

/// Begins the reasoning.
pub(super) const THINK_START: &str = "<think>";
/// Ends the reasoning.
pub(super) const THINK_END: &str = "</think>";
