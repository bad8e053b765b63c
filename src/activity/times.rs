//! The times of a request's phases: its own thread writes them, and any thread may read them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A moment of a request that is noted once, or again by each further try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The body was here in full.
    Received,
    /// The upstream had the whole request.
    Sent,
    /// The first byte of the body of the upstream's answer was here.
    Head,
    /// The first content was here, reasoning included.
    FirstByte,
}

/// The number of moments.
const MOMENTS: usize = 4;

/// The times of a request, from the moment at which its head was here. `None` stands for a moment that it did not reach.
/// Where a request was tried more than once, the moments from `sent` on are those of its last try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseTimes {
    /// Until the body was here in full.
    pub received: Option<Duration>,
    /// The time in which connections to upstreams were made, or their models were awaited; a duration, not a moment.
    pub connect: Duration,
    /// Until the upstream had the whole request.
    pub sent: Option<Duration>,
    /// Until the first byte of the body of the upstream's answer.
    pub head: Option<Duration>,
    /// Until the first content, reasoning included.
    pub first_byte: Option<Duration>,
    /// Until the first text or tool call.
    pub first_word: Option<Duration>,
    /// Until the end; `None` while the request is in progress.
    pub end: Option<Duration>,
}

impl PhaseTimes {
    /// The time that sparkgap itself took before the upstream had the request: from the end of its body, without the waits
    /// for a place (`queue`) and for connections.
    pub fn overhead(&self, queue: Duration) -> Option<Duration> {
        let own = self.sent?.checked_sub(self.received?)?;
        Some(own.saturating_sub(queue).saturating_sub(self.connect))
    }

    /// The tokens of the answer in a second, from its first content to its end. `None` for an answer of one token.
    #[allow(clippy::cast_precision_loss, reason = "counts of tokens are far below 2^52")]
    pub fn tokens_per_second(&self, output: u64) -> Option<f64> {
        let seconds = self.end?.checked_sub(self.first_byte?)?.as_secs_f64();
        (output > 1 && seconds > 0.0).then(|| (output - 1) as f64 / seconds)
    }
}

/// The moments of a request in progress, in microseconds since its head was here, plus 1; 0: not reached.
#[derive(Debug, Default)]
pub(super) struct Moments {
    at: [AtomicU64; MOMENTS],
    connect: AtomicU64,
}

impl Moments {
    /// Notes a moment.
    pub(super) fn mark(&self, moment: Moment, since: Duration) {
        if let Some(at) = self.at.get(moment as usize) {
            at.store(micros(since).saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Adds time in which a connection was made.
    pub(super) fn add_connect(&self, time: Duration) {
        self.connect.fetch_add(micros(time), Ordering::Relaxed);
    }

    /// The times so far.
    pub(super) fn times(&self) -> PhaseTimes {
        let at = |moment: Moment| {
            let noted = self.at.get(moment as usize).map_or(0, |at| at.load(Ordering::Relaxed));
            noted.checked_sub(1).map(Duration::from_micros)
        };
        PhaseTimes {
            received: at(Moment::Received),
            connect: Duration::from_micros(self.connect.load(Ordering::Relaxed)),
            sent: at(Moment::Sent),
            head: at(Moment::Head),
            first_byte: at(Moment::FirstByte),
            first_word: None,
            end: None,
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The time from `began` to `moment`.
pub(super) fn since(began: Instant, moment: Instant) -> Duration {
    moment.saturating_duration_since(began)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_unknown_until_it_is_noted() {
        let moments = Moments::default();
        assert_eq!(moments.times(), PhaseTimes::default());
        moments.mark(Moment::Received, Duration::ZERO);
        moments.mark(Moment::Sent, Duration::from_millis(30));
        moments.mark(Moment::Sent, Duration::from_millis(70));
        moments.add_connect(Duration::from_millis(5));
        moments.add_connect(Duration::from_millis(6));
        let times = moments.times();
        assert_eq!((times.received, times.sent), (Some(Duration::ZERO), Some(Duration::from_millis(70))));
        assert_eq!((times.connect, times.head), (Duration::from_millis(11), None));
        assert_eq!(times.overhead(Duration::from_millis(20)), Some(Duration::from_millis(39)));
        assert_eq!(times.overhead(Duration::from_secs(20)), Some(Duration::ZERO), "never below 0");
        assert_eq!(PhaseTimes::default().overhead(Duration::ZERO), None);
    }

    #[test]
    fn the_speed_of_an_answer() {
        let times = PhaseTimes {
            first_byte: Some(Duration::from_secs(2)),
            end: Some(Duration::from_secs(4)),
            ..PhaseTimes::default()
        };
        assert_eq!(times.tokens_per_second(101), Some(50.0));
        assert_eq!((times.tokens_per_second(1), times.tokens_per_second(0)), (None, None));
        assert_eq!(PhaseTimes::default().tokens_per_second(9), None);
    }
}
