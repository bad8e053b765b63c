//! The abilities that the hooks of a written file need.

/// The abilities that the hooks need.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    /// A group has several entries.
    pub(super) balance: bool,
    /// A pattern is among the groups.
    pub(super) patterns: bool,
    /// A model's name has a `*` to fill in.
    pub(super) fill: bool,
    /// A group has a fallback.
    pub(super) fallbacks: bool,
    /// A group has a fallback for prompts that are too long.
    pub(super) overflow: bool,
    /// An entry changes the body.
    pub(super) tweaks: bool,
}
