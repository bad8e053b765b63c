//! How long one request has had no upstream that takes it, and when its patience is over.
//!
//! One request has one patience, however often it fails over: waits in the line while its upstreams are out or full, and
//! tries that found them unreachable or full, count against it together. Time at an upstream that works on the request,
//! and in the line of one that is only busy, does not count.
//!
//! Pure.

use std::time::Duration;

/// The time that one request has spent without an upstream that takes it.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    patience: Duration,
    spent: Duration,
}

impl Outage {
    /// No time was spent yet, of this patience.
    pub fn new(patience: Duration) -> Self {
        Outage { patience, spent: Duration::ZERO }
    }

    /// Sets the patience; the time that was spent stays.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Adds time in which no upstream took the request.
    pub fn spend(&mut self, time: Duration) {
        self.spent = self.spent.saturating_add(time);
    }

    /// True if no more time may be spent: on a wait while all upstreams are out or full, or on another try of upstreams that
    /// were all tried.
    pub fn is_spent(&self) -> bool {
        self.spent >= self.patience
    }

    /// The rest of the patience; `None` once it is spent.
    pub(super) fn left(&self) -> Option<Duration> {
        self.patience.checked_sub(self.spent).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn all_waits_of_a_request_count_together() {
        let mut outage = Outage::new(10 * SECOND);
        outage.spend(6 * SECOND);
        assert!(!outage.is_spent());
        assert_eq!(outage.left(), Some(4 * SECOND));
        outage.spend(4 * SECOND);
        assert!(outage.is_spent());
        assert_eq!(outage.left(), None);
        outage.spend(Duration::MAX);
        assert_eq!(outage.left(), None);
    }
}
