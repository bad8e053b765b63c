//! A sign of life of a thread that accepts connections.
//!
//! It comes from the thread itself. A connection to the listener's own address would also test the way to it: with IPv6
//! switched off, or without the network card, a server that serves its clients would seem stuck.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time of the last turn of one accepting thread. A clone is the same heartbeat.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    began: Instant,
    every: Option<Duration>,
    /// The last turn, in milliseconds after `began`.
    last_ms: Arc<AtomicU64>,
}

impl Heartbeat {
    /// A heartbeat whose thread takes a turn at least this often; `None`: nobody looks at it, so the thread may sleep.
    pub fn new(every: Option<Duration>) -> Self {
        Heartbeat { began: Instant::now(), every, last_ms: Arc::default() }
    }

    /// Notes a turn, and returns the time of the next one at the latest.
    pub(super) fn beat(&self) -> Option<Instant> {
        let now = Instant::now();
        self.last_ms.store(self.since_begin_ms(now), Ordering::Relaxed);
        now.checked_add(self.every?)
    }

    /// The time since the last turn.
    pub fn age(&self, now: Instant) -> Duration {
        let last = self.last_ms.load(Ordering::Relaxed);
        Duration::from_millis(self.since_begin_ms(now).saturating_sub(last))
    }

    fn since_begin_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_takes_no_turn_grows_old() {
        let heartbeat = Heartbeat::new(Some(Duration::from_secs(5)));
        let next = heartbeat.beat().unwrap();
        assert!(next > Instant::now(), "it sleeps until then");
        let later = Instant::now() + Duration::from_secs(60);
        assert!(heartbeat.age(later) >= Duration::from_secs(59));
        heartbeat.clone().beat();
        assert!(heartbeat.age(Instant::now()) < Duration::from_secs(59));
        assert_eq!(Heartbeat::new(None).beat(), None);
    }
}
