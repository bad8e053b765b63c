//! Token counts that were asked for lately.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Counts that are remembered; Claude Code asks for the same parts of a conversation again and again.
const REMEMBERED_MAX: usize = 128;

/// What was counted lately, by the hash of what was asked.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<VecDeque<(u64, u64)>>);

impl Remembered {
    pub(super) fn find(&self, key: u64) -> Option<u64> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().find(|(known, _)| *known == key).map(|(_, count)| *count)
    }

    pub(super) fn add(&self, key: u64, count: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= REMEMBERED_MAX {
            counts.pop_front();
        }
        counts.push_back((key, count));
    }
}
