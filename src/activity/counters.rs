//! The numbers since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use super::changes::BehaviorChanges;
use super::phase::Phase;
use crate::json::{Object, Value};

/// The numbers since the start: they only grow.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    pings: AtomicU64,
    cancelled: [AtomicU64; Phase::ALL.len()],
    rescued: AtomicU64,
    broken_loops: AtomicU64,
    searches: AtomicU64,
    failovers: AtomicU64,
}

impl Counters {
    /// Counts a request of any kind but a probe's.
    pub fn add_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a client that has left, and the phase that its request was in.
    pub fn add_cancelled(&self, phase: Phase) {
        if let Some(count) = self.cancelled.get(phase as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts the tool calls of an answer that were found in text, a loop that was broken, and web searches.
    pub fn add_behavior(&self, changes: &BehaviorChanges) {
        self.rescued.fetch_add(changes.rescued as u64, Ordering::Relaxed);
        self.broken_loops.fetch_add(u64::from(changes.is_loop_broken), Ordering::Relaxed);
        self.searches.fetch_add(changes.searches as u64, Ordering::Relaxed);
    }

    /// The number of web searches that were made.
    pub fn searches(&self) -> u64 {
        self.searches.load(Ordering::Relaxed)
    }

    /// The number of tool calls that were found in text, and of loops that were broken.
    pub fn behavior(&self) -> (u64, u64) {
        (self.rescued.load(Ordering::Relaxed), self.broken_loops.load(Ordering::Relaxed))
    }

    /// Counts a request that goes to another upstream after the failure of one.
    pub fn add_failover(&self) {
        self.failovers.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of times that a request went to another upstream after the failure of one.
    pub fn failovers(&self) -> u64 {
        self.failovers.load(Ordering::Relaxed)
    }

    /// Counts pings that a client got.
    pub fn add_pings(&self, count: u64) {
        self.pings.fetch_add(count, Ordering::Relaxed);
    }

    /// The number of pings that clients got.
    pub fn pings(&self) -> u64 {
        self.pings.load(Ordering::Relaxed)
    }

    /// The number of clients that have left in each phase.
    pub fn cancelled_counts(&self) -> impl Iterator<Item = (Phase, u64)> {
        Phase::ALL
            .into_iter()
            .zip(&self.cancelled)
            .map(|(phase, count)| (phase, count.load(Ordering::Relaxed)))
    }

    /// The number of requests of any kind but those of probes.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The number of clients that have left, by the names of the phases.
    pub fn cancelled(&self) -> Object<'static> {
        let mut cancelled = Object::new();
        for (phase, count) in self.cancelled_counts() {
            cancelled.push(phase.name(), Value::from(count));
        }
        cancelled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_a_number_of_its_own() {
        let counters = Counters::default();
        for (times, phase) in Phase::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| counters.add_cancelled(phase));
        }
        assert_eq!(
            Value::from(counters.cancelled()).to_json(),
            r#"{"body":0,"hook":1,"queue":2,"connect":3,"head":4,"stream":5,"whole":6,"unread":7}"#
        );
    }
}
