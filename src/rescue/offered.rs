//! The tools of a request, as far as the search for calls needs them.

/// The tools that a request offers.
pub trait OfferedTools {
    /// True if this is the name of an offered tool, perhaps with control tokens or a namespace around it.
    fn offers(&self, name: &str) -> bool;

    /// True if the name of an offered tool begins with this text, or this text with such a name.
    fn may_offer(&self, beginning: &str) -> bool;
}
