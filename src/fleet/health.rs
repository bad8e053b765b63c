//! Whether an upstream of a pool gets requests: a state machine fed by its answers and by the background's questions.
//!
//! | state | it gets | left by |
//! |---|---|---|
//! | well | every request | a refused connection or a dead engine: out; three other failures in a row: out; "busy": full |
//! | full | nothing until a time | the time; then well |
//! | out, because it hangs | nothing; after a long pause, or once its engine works or it was restarted: one trial | as below |
//! | out | nothing; after a pause, or once the background reaches it: one trial | the trial's success: well; its failure: out, with twice the pause |
//!
//! Reads no clock: `now` is an argument.

use std::time::{Duration, Instant};

/// The failures in a row after which an upstream is out.
const FAILURES_MAX: u32 = 3;

/// The pause before the first trial of an upstream that is out; doubled after each trial that fails.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest pause before a trial.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The pause before each trial of an upstream that hangs: a trial costs somebody the time in which silence is noticed.
const HANG_PAUSE: Duration = Duration::from_secs(120);

/// How long an upstream that does not say so counts as full.
const FULL_TIME: Duration = Duration::from_secs(5);

/// The shortest time for which an upstream counts as full, whatever it says: a request that waits for it would otherwise
/// be sent again and again without a pause.
const FULL_TIME_MIN: Duration = Duration::from_secs(1);

/// The longest time for which an upstream counts as full, whatever it says.
const FULL_TIME_MAX: Duration = Duration::from_secs(120);

/// How a request to an upstream ended, as far as it shows how the upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It answered. A refusal of this one request counts as an answer.
    Answered,
    /// It is busy or still loading, for this time if it says so.
    Full(Option<Duration>),
    /// It did not answer, answered with a server error, or broke its answer off.
    Failed,
    /// It refused the connection, or said that its engine is dead.
    Gone,
    /// The request ended for another reason, such as a client that left.
    Unknown,
}

/// The state in words, for the log and `/health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// It gets requests.
    Well,
    /// It is busy for now.
    Full,
    /// It gets a trial at most.
    Out,
}

impl HealthState {
    /// Its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            HealthState::Well => "well",
            HealthState::Full => "full",
            HealthState::Out => "out",
        }
    }
}

/// A change of an upstream's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The new state.
    pub state: HealthState,
    /// The state before, and how long it lasted.
    pub before: (HealthState, Duration),
}

/// The health of one upstream.
#[derive(Clone, Debug)]
pub(super) struct Health {
    condition: Condition,
    since: Instant,
    /// The failures in a row.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Well,
    Full { until: Instant },
    Out { pause: Duration, trial_at: Instant, in_trial: bool, hangs: bool },
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Health { condition: Condition::Well, since: now, failures: 0 }
    }

    /// The state, and since when.
    pub(super) fn state(&self) -> (HealthState, Instant) {
        let state = match self.condition {
            Condition::Well => HealthState::Well,
            Condition::Full { .. } => HealthState::Full,
            Condition::Out { .. } => HealthState::Out,
        };
        (state, self.since)
    }

    /// The state that requests find now, and since when: one whose time of being full is over is well.
    pub(super) fn state_at(&self, now: Instant) -> (HealthState, Instant) {
        match self.condition {
            Condition::Full { until } if now >= until => (HealthState::Well, until),
            _ => self.state(),
        }
    }

    /// The time until it takes requests again, if it is full.
    pub(super) fn full_for(&self, now: Instant) -> Option<Duration> {
        match self.condition {
            Condition::Full { until } => Some(until.saturating_duration_since(now)),
            _ => None,
        }
    }

    /// True if it may get a request now. If it is out, that request is its trial: see [`Health::begin`].
    pub(super) fn admits(&self, now: Instant) -> bool {
        match self.condition {
            Condition::Well => true,
            Condition::Full { until } => now >= until,
            Condition::Out { trial_at, in_trial, .. } => !in_trial && now >= trial_at,
        }
    }

    /// True while it is out, also during a trial.
    pub(super) fn is_out(&self) -> bool {
        matches!(self.condition, Condition::Out { .. })
    }

    /// True while it is out and its trial is not due yet.
    pub(super) fn rests(&self, now: Instant) -> bool {
        matches!(self.condition, Condition::Out { trial_at, .. } if now < trial_at)
    }

    /// Notes that it gets a request.
    pub(super) fn begin(&mut self) {
        if let Condition::Out { in_trial, .. } = &mut self.condition {
            *in_trial = true;
        }
    }

    /// Changes the condition. Returns the change of the state, if there was one.
    fn change(&mut self, now: Instant, act: impl FnOnce(&mut Self)) -> Option<StateChange> {
        let (before, since) = self.state();
        act(self);
        let state = self.state().0;
        (state != before).then(|| {
            self.since = now;
            StateChange { state, before: (before, now.saturating_duration_since(since)) }
        })
    }

    /// Takes in how a request ended. Returns the change of the state, if there was one.
    pub(super) fn take(&mut self, sign: Sign, now: Instant) -> Option<StateChange> {
        self.change(now, |health| match sign {
            Sign::Answered => (health.failures, health.condition) = (0, Condition::Well),
            Sign::Full(time) => {
                let time = time.unwrap_or(FULL_TIME).clamp(FULL_TIME_MIN, FULL_TIME_MAX);
                (health.failures, health.condition) = (0, Condition::Full { until: now + time });
            }
            Sign::Gone => health.leave(now),
            Sign::Failed => {
                health.failures = health.failures.saturating_add(1);
                if health.failures >= FAILURES_MAX || health.is_out() {
                    health.leave(now);
                }
            }
            Sign::Unknown => {
                if let Condition::Out { in_trial, .. } = &mut health.condition {
                    *in_trial = false;
                }
            }
        })
    }

    /// Notes that an answer has begun, which ends a trial. The next failure puts the upstream out again at once, unless an
    /// answer comes to its end before. Returns the change of the state, if there was one.
    pub(super) fn recover(&mut self, now: Instant) -> Option<StateChange> {
        self.change(now, |health| {
            if health.is_out() {
                (health.failures, health.condition) = (FAILURES_MAX - 1, Condition::Well);
            }
        })
    }

    /// Takes in whether the background's question was answered. Only one request decides that an upstream is well again,
    /// since a server may list its models while its engine hangs. Returns the change of the state, if there was one.
    pub(super) fn probed(&mut self, is_answered: bool, now: Instant) -> Option<StateChange> {
        match (&mut self.condition, is_answered) {
            (Condition::Out { trial_at, hangs: false, .. }, true) => {
                *trial_at = (*trial_at).min(now);
                None
            }
            // This includes a server that hangs: it lists its models, too.
            (_, true) => None,
            (Condition::Out { hangs, .. }, false) => {
                // It is being restarted.
                *hangs = false;
                None
            }
            (_, false) => self.take(Sign::Failed, now),
        }
    }

    /// Puts it out because it hangs. Returns the change of the state, if there was one.
    pub(super) fn stand_still(&mut self, now: Instant) -> Option<StateChange> {
        self.change(now, |health| health.hang(now))
    }

    fn hang(&mut self, now: Instant) {
        let (pause, trial_at) = (PAUSE_MIN, now + HANG_PAUSE);
        self.condition = Condition::Out { pause, trial_at, in_trial: false, hangs: true };
    }

    /// Notes that its engine works, which ends a hang: the next request is its trial.
    pub(super) fn works(&mut self, now: Instant) {
        if let Condition::Out { trial_at, hangs: hangs @ true, .. } = &mut self.condition {
            (*trial_at, *hangs) = (now, false);
        }
    }

    /// Puts it out: until the next trial it gets nothing.
    fn leave(&mut self, now: Instant) {
        let pause = match self.condition {
            Condition::Out { hangs: true, in_trial: true, .. } => return self.hang(now),
            Condition::Out { pause, in_trial: true, .. } => (2 * pause).min(PAUSE_MAX),
            // A request that began before the failure was noticed says nothing new.
            Condition::Out { .. } => return,
            _ => PAUSE_MIN,
        };
        self.condition = Condition::Out { pause, trial_at: now + pause, in_trial: false, hangs: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn health() -> (Health, Instant) {
        let now = Instant::now();
        (Health::new(now), now)
    }

    /// The new state.
    fn state(change: Option<StateChange>) -> Option<HealthState> {
        change.map(|change| change.state)
    }

    #[test]
    fn three_failures_in_a_row_put_an_upstream_out_and_a_refused_connection_at_once() {
        let (mut health, now) = health();
        assert_eq!(health.take(Sign::Failed, now), None);
        assert_eq!(health.take(Sign::Failed, now), None);
        assert_eq!(health.take(Sign::Answered, now), None);
        for _ in 0..2 {
            assert_eq!(health.take(Sign::Failed, now), None);
        }
        assert_eq!(state(health.take(Sign::Failed, now)), Some(HealthState::Out));
        let (mut health, now) = self::health();
        assert_eq!(state(health.take(Sign::Gone, now)), Some(HealthState::Out));
        assert!(!health.admits(now) && health.is_out());
    }

    #[test]
    fn a_client_that_leaves_and_a_refusal_say_nothing_against_an_upstream() {
        let (mut health, now) = health();
        for _ in 0..9 {
            assert_eq!(health.take(Sign::Unknown, now), None);
        }
        assert_eq!(health.state(), (HealthState::Well, now));
    }

    #[test]
    fn one_trial_at_a_time_and_longer_pauses() {
        let (mut health, mut now) = health();
        health.take(Sign::Gone, now);
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert!(!health.admits(now + pause * SECOND - Duration::from_millis(1)), "{pause}");
            now += pause * SECOND;
            assert!(health.admits(now), "{pause}");
            health.begin();
            assert!(!health.admits(now + 60 * SECOND), "a trial runs");
            // Another request that began earlier fails meanwhile or after.
            assert_eq!(health.take(Sign::Gone, now), None);
            assert_eq!(health.take(Sign::Failed, now), None);
        }
        now += 30 * SECOND;
        health.begin();
        assert_eq!(health.take(Sign::Unknown, now), None);
        assert!(health.admits(now), "the client of the trial has left: the next request is a trial");
        health.begin();
        assert_eq!(state(health.take(Sign::Answered, now)), Some(HealthState::Well));
        assert!(health.admits(now));
        assert_eq!(health.state().1, now);
    }

    #[test]
    fn the_background_brings_the_trial_forward_but_does_not_replace_it() {
        let (mut health, now) = health();
        health.take(Sign::Gone, now);
        assert!(!health.admits(now));
        assert_eq!(health.probed(true, now), None);
        assert!(health.admits(now) && health.is_out());
        assert_eq!(health.probed(false, now), None);
        let (mut health, now) = self::health();
        assert_eq!(health.probed(false, now), None);
        assert_eq!(health.probed(false, now), None);
        assert_eq!(state(health.probed(false, now)), Some(HealthState::Out));
    }

    #[test]
    fn one_that_hangs_gets_a_trial_only_late_or_after_a_sign_of_life() {
        let hanging = || {
            let (mut health, now) = health();
            assert_eq!(state(health.stand_still(now)), Some(HealthState::Out));
            // Its requests end after it was put out, and it still lists its models.
            assert_eq!(health.take(Sign::Gone, now), None);
            assert_eq!(health.probed(true, now), None);
            assert!(!health.admits(now + HANG_PAUSE - SECOND) && health.admits(now + HANG_PAUSE));
            (health, now)
        };
        let (mut health, now) = hanging();
        health.works(now);
        assert!(health.admits(now));
        let (mut health, now) = hanging();
        health.probed(false, now);
        health.probed(true, now);
        assert!(health.admits(now), "it was restarted");
        let (mut health, now) = hanging();
        health.begin();
        assert_eq!(health.stand_still(now), None);
        assert!(!health.admits(now + HANG_PAUSE - SECOND));
    }

    #[test]
    fn a_full_upstream_gets_nothing_for_a_while() {
        let (mut health, now) = health();
        assert_eq!(state(health.take(Sign::Full(None), now)), Some(HealthState::Full));
        assert!(!health.admits(now + 4 * SECOND) && health.admits(now + 5 * SECOND));
        assert_eq!(health.full_for(now + 4 * SECOND), Some(SECOND));
        assert_eq!(health.state_at(now + 4 * SECOND), (HealthState::Full, now));
        assert_eq!(
            health.state_at(now + 9 * SECOND),
            (HealthState::Well, now + 5 * SECOND),
            "nobody has asked it"
        );
        assert_eq!(health.take(Sign::Full(Some(9 * SECOND)), now), None);
        assert!(!health.admits(now + 8 * SECOND) && health.admits(now + 9 * SECOND));
        health.take(Sign::Full(Some(Duration::ZERO)), now);
        assert!(!health.admits(now) && health.admits(now + SECOND));
        health.take(Sign::Full(Some(99_999 * SECOND)), now);
        assert!(health.admits(now + 120 * SECOND));
        assert_eq!(state(health.take(Sign::Answered, now)), Some(HealthState::Well));
    }
}
