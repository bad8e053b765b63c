//! Memory that is kept for the next document.
//!
//! Freed and made anew for each request, memory of this size is what the allocator gives back to the system and has to
//! fault in again: 114 pages for a request of 300 KB, which took longer than the parser (glibc 2.36).

use std::sync::{Mutex, PoisonError};

/// What is kept at most of each kind. It is needed for a fraction of a millisecond, so seldom more often at a time than
/// there are cores.
const KEPT_MAX: usize = 4;

/// The size of a document beyond which nothing of it is kept. Claude Code sends 100 KB to 1 MB.
pub(super) const SIZE_MAX: usize = 1024 * 1024;

/// What was used before and can be used again.
pub(super) struct Spares<T>(Mutex<Vec<T>>);

impl<T: Default> Spares<T> {
    pub(super) const fn new() -> Self {
        Spares(Mutex::new(Vec::new()))
    }

    /// One that was kept, or a new one.
    pub(super) fn take(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps it, unless enough are kept.
    pub(super) fn give(&self, spare: T) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX {
            kept.push(spare);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_is_not_endless() {
        let spares = Spares::<Vec<u8>>::new();
        assert_eq!(spares.take().capacity(), 0);
        for _ in 0..2 * KEPT_MAX {
            spares.give(Vec::with_capacity(9));
        }
        assert_eq!((0..2 * KEPT_MAX).filter(|_| spares.take().capacity() > 0).count(), KEPT_MAX);
    }
}
