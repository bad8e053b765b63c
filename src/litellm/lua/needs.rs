//! What the hooks of a written file must be able to do.

/// What the hooks must be able to do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    /// A group has several entries.
    pub(super) balance: bool,
    /// A pattern is among the groups.
    pub(super) patterns: bool,
    /// A model's name has a `*` to fill in.
    pub(super) fill: bool,
    /// Something follows a group.
    pub(super) fallbacks: bool,
    /// Something follows a group where the prompt is too long.
    pub(super) overflow: bool,
    /// An entry changes the body.
    pub(super) tweaks: bool,
}
