//! The environment variables that the files ask for by `env` and that are not set.
//!
//! `nil` in place of a key drops the key without a word, so `check` names them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The most names that are kept, and the longest, in bytes: a hook may ask for a new name at each request.
const NAMES_MAX: usize = 64;
const NAME_SIZE_MAX: usize = 128;

/// Their names. A clone is the same set.
#[derive(Clone, Default)]
pub struct UnsetVariables(Arc<Mutex<BTreeSet<String>>>);

impl UnsetVariables {
    /// Notes that this variable was asked for. A name beyond the limits is not kept.
    pub(super) fn note(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < NAMES_MAX && name.len() <= NAME_SIZE_MAX && !names.contains(name) {
            names.insert(name.to_owned());
        }
    }

    /// The names in alphabetical order.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_kept_once_and_not_too_many() {
        let unset = UnsetVariables::default();
        for name in ["B", "A", "B", &"x".repeat(NAME_SIZE_MAX + 1)] {
            unset.note(name);
        }
        assert_eq!(unset.clone().names(), ["A", "B"]);
        (0..2 * NAMES_MAX).for_each(|n| unset.note(&format!("N{n}")));
        assert_eq!(unset.names().len(), NAMES_MAX);
    }
}
