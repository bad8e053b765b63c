//! Memory that is kept for the next document.
//!
//! Memory of this size that is freed and allocated for each request goes back to the system and has to be faulted in
//! again: 114 pages for a request of 300 KB, which took longer than the parser (glibc 2.36).

use std::sync::{Mutex, PoisonError};

/// The number of spares of each kind that are kept. Each is in use for a fraction of a millisecond, so rarely more of
/// them are in use at the same time than there are cores.
const KEPT_MAX: usize = 4;

/// The size in bytes beyond which a document's memory is not kept. Claude Code sends 100 KB to 1 MB.
pub(super) const SIZE_MAX: usize = 1024 * 1024;

/// Used memory that can be used again.
pub(super) struct Spares<T>(Mutex<Vec<T>>);

impl<T: Default> Spares<T> {
    pub(super) const fn new() -> Self {
        Spares(Mutex::new(Vec::new()))
    }

    /// Takes a spare that was kept, or makes a new one.
    pub(super) fn take(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps the spare, unless enough are kept.
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
    fn kept_spares_come_back_and_their_number_is_limited() {
        let spares = Spares::<Vec<u8>>::new();
        assert_eq!(spares.take().capacity(), 0);
        for _ in 0..2 * KEPT_MAX {
            spares.give(Vec::with_capacity(9));
        }
        assert_eq!((0..2 * KEPT_MAX).filter(|_| spares.take().capacity() > 0).count(), KEPT_MAX);
    }
}
