//! Counters of what the choice of upstreams has done since the start, for those who watch a server.

use std::sync::atomic::{AtomicU64, Ordering};

use super::choose::Why;
use super::health::HealthState;

/// The reasons of choices, in the order of their counters.
const REASONS: [Why; 5] = [Why::Only, Why::Home, Why::Cost, Why::Moved, Why::Failover];

/// The states of upstreams, in the order of their counters.
const STATES: [HealthState; 3] = [HealthState::Well, HealthState::Full, HealthState::Out];

/// The counters. They begin at 0, only grow, and outlive a reload.
#[derive(Debug, Default)]
pub struct Tally {
    choices: [AtomicU64; REASONS.len()],
    changes: [AtomicU64; STATES.len()],
    refused: AtomicU64,
    given_up: AtomicU64,
}

impl Tally {
    /// Counts a request that got an upstream for this reason.
    pub(super) fn add_choice(&self, why: Why) {
        add(REASONS.iter().zip(&self.choices).find(|(reason, _)| **reason == why).map(|(_, count)| count));
    }

    /// Counts an upstream that came into this state.
    pub(super) fn add_change(&self, state: HealthState) {
        add(STATES.iter().zip(&self.changes).find(|(known, _)| **known == state).map(|(_, count)| count));
    }

    /// Counts a request that was refused because too many wait.
    pub(super) fn add_refused(&self) {
        add(Some(&self.refused));
    }

    /// Counts a request whose patience was over while none of its upstreams answered.
    pub(super) fn add_given_up(&self) {
        add(Some(&self.given_up));
    }

    /// Each counter as (kind, value, count):
    ///
    /// | kind | value | counts |
    /// |---|---|---|
    /// | `choice` | a reason, as [`Why::name`] | tries of requests that got an upstream for this reason: `moved` are the moves of conversations, `failover` the tries after a failure |
    /// | `state` | a state, as [`HealthState::name`] | changes of an upstream to this state |
    /// | `refused` | `line` | requests that were refused because too many wait |
    /// | `refused` | `outage` | requests whose patience was over while none of their upstreams answered |
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        let choices = REASONS.iter().zip(&self.choices).map(|(why, count)| ("choice", why.name(), count));
        let changes = STATES.iter().zip(&self.changes).map(|(state, count)| ("state", state.name(), count));
        let refused = [("refused", "line", &self.refused), ("refused", "outage", &self.given_up)];
        choices
            .chain(changes)
            .chain(refused)
            .map(|(kind, value, count)| (kind, value, count.load(Ordering::Relaxed)))
    }
}

fn add(count: Option<&AtomicU64>) {
    if let Some(count) = count {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_and_state_has_its_counter() {
        let tally = Tally::default();
        assert!(tally.iter().all(|(_, _, count)| count == 0));
        REASONS.into_iter().for_each(|why| tally.add_choice(why));
        STATES.into_iter().for_each(|state| tally.add_change(state));
        tally.add_refused();
        tally.add_given_up();
        let all: Vec<_> = tally.iter().collect();
        assert_eq!(all.len(), 10);
        assert!(all.iter().all(|(_, _, count)| *count == 1), "{all:?}");
        tally.add_choice(Why::Moved);
        assert!(tally.iter().any(|one| one == ("choice", "moved", 2)));
    }
}
