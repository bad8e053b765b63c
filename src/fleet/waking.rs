//! When an upstream that sleeps gets a magic packet: at the first request that wants it while it is out, and again as long as
//! requests want it.
//!
//! Reads no clock: `now` is an argument. Sends nothing: see [`Dispatcher`](super::Dispatcher).

use std::time::{Duration, Instant};

use crate::config::WakeTarget;

/// The time between two packets. A packet may be lost, and a machine that is going to sleep misses it.
const REPEAT: Duration = Duration::from_secs(10);

/// An upstream whose machine can be woken.
#[derive(Clone, Debug)]
pub(super) struct Sleeper {
    name: String,
    target: WakeTarget,
    /// The time of the last packet.
    called: Option<Instant>,
}

/// A magic packet that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WakeCall {
    /// The name of the upstream.
    pub(super) name: String,
    /// Its network card.
    pub(super) target: WakeTarget,
}

impl Sleeper {
    /// An upstream of this name that got no packet yet.
    pub(super) fn new(name: &str, target: WakeTarget) -> Sleeper {
        Sleeper { name: name.to_string(), target, called: None }
    }

    /// The packet for an upstream that is out and wanted. `None`: the last one was sent less than 10 s ago.
    pub(super) fn call(&mut self, now: Instant) -> Option<WakeCall> {
        if self.called.is_some_and(|called| now.saturating_duration_since(called) < REPEAT) {
            return None;
        }
        self.called = Some(now);
        Some(WakeCall { name: self.name.clone(), target: self.target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_due_at_once_and_then_every_ten_seconds() {
        let target = WakeTarget::parse("aa:bb:cc:dd:ee:ff").unwrap();
        let mut sleeper = Sleeper::new("spark", target);
        let now = Instant::now();
        let due = [0, 1, 9, 10, 11, 19, 25, 26]
            .map(|second| sleeper.call(now + Duration::from_secs(second)).is_some());
        assert_eq!(due, [true, false, false, true, false, false, true, false]);
    }
}
