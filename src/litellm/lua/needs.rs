//! The abilities that the hooks of a file must have.

use crate::litellm::models::{Group, Models};
use crate::litellm::router::Routes;

/// The abilities that the hooks must have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    /// A group has several entries.
    pub(super) balance: bool,
    /// A pattern is among the groups.
    pub(super) patterns: bool,
    /// A model's name has a `*` to fill in.
    pub(super) fill: bool,
    /// A group has fallbacks after an error.
    pub(super) fallbacks: bool,
    /// A group has fallbacks for a prompt that is too long.
    pub(super) overflow: bool,
    /// An entry changes the body.
    pub(super) tweaks: bool,
}

/// The abilities that these members need.
pub(super) fn needs(models: &Models, routes: &Routes, members: &[usize]) -> Needs {
    let groups = || members.iter().filter_map(|i| models.groups.get(*i));
    let entries = || groups().flat_map(|group| &group.entries);
    let any =
        |lists: &[Vec<usize>]| members.iter().any(|i| lists.get(*i).is_some_and(|list| !list.is_empty()));
    Needs {
        balance: groups().any(|group| group.entries.len() > 1),
        patterns: groups().any(Group::is_pattern),
        fill: entries().any(|entry| entry.model.contains('*')),
        fallbacks: any(&routes.fallbacks),
        overflow: any(&routes.overflow),
        tweaks: entries().any(|entry| !entry.tweaks.is_empty()),
    }
}
