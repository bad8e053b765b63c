//! The conversations in one upstream's cache, by our own memory, and the size of that cache, learned from hits and misses.
//!
//! A server drops the prefix that was used longest ago, from its end. So a conversation is still cached if its own tokens
//! and those of all others used since fit into the cache together. A conversation that comes back shows the size:
//!
//! | it finds | the size is |
//! |---|---|
//! | all that it had left | at least its own tokens and those used since |
//! | a part | the tokens used since, and the part |
//! | nothing | at most the tokens used since |
//!
//! A client that changes its history finds less, too. So a miss lowers the size step by step only, and never below the
//! longest prefix that was there; hits and parts raise it at once.
//!
//! Pure.

use std::time::{Duration, Instant};

use super::speed::{float, whole};

/// The most conversations and shared beginnings that one upstream is remembered to hold: more than its cache does, since
/// a miss is recognized only if its conversation is still remembered.
const RESIDENTS_MAX: usize = 192;

/// The share of a prefix from which on all of it counts as found: servers compute its last block anew.
const FOUND_PART: f64 = 0.9;

/// The fewest tokens of a prefix from which the size is learned: below, the error of the estimate is too large a part.
const PREFIX_MIN: u64 = 8_000;

/// The fewest tokens that count as a found part.
const PART_MIN: u64 = 1_000;

/// The weight of a miss beside what was known.
const MISS_WEIGHT: f64 = 0.25;

/// A conversation without the beginning that it shares, or such a beginning.
#[derive(Clone, Copy, Debug)]
struct Resident {
    key: u64,
    tokens: u64,
    used: Instant,
    /// The rest after which it comes back in 37 of 100 cases (1/e). Zero: it never comes back.
    life: Duration,
}

/// The prefixes that one upstream has read, whether its cache still has them or not.
#[derive(Debug, Default)]
pub(super) struct Residents {
    /// In the order of use; the last one was used last.
    list: Vec<Resident>,
    /// The tokens that the cache holds; `None` until a miss has shown it.
    capacity: Option<u64>,
    /// The tokens of the longest prefix that was there.
    longest: u64,
}

/// The part of a prefix that should be cached, and the facts from which the size is learned once its request has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// The tokens that should be cached.
    pub(super) cached: u64,
    /// The tokens that the upstream has read.
    held: u64,
    /// The tokens of others that were used since.
    since: u64,
}

impl Residents {
    /// The cached part that a prefix of `tokens` should find. One that is shorter than before is another history, from
    /// which nothing can be learned.
    pub(super) fn expect(&self, key: u64, tokens: u64) -> Expected {
        let Some(at) = self.list.iter().rposition(|it| it.key == key) else { return Expected::default() };
        let mut rest = self.list.iter().skip(at).map(|it| it.tokens);
        let held = rest.next().unwrap_or(0);
        let since = rest.fold(0, u64::saturating_add);
        let cached = self.capacity.map_or(held, |capacity| capacity.saturating_sub(since).min(held));
        let learned = if held > tokens { 0 } else { held };
        Expected { cached: cached.min(tokens), held: learned, since }
    }

    /// Notes that the upstream has this prefix from now on. After a rest of `life` it comes back in 37 of 100 cases.
    pub(super) fn touch(&mut self, key: u64, tokens: u64, life: Duration, now: Instant) {
        self.list.retain(|it| it.key != key);
        if self.list.len() >= RESIDENTS_MAX {
            self.list.remove(0);
        }
        self.longest = self.longest.max(tokens);
        self.list.push(Resident { key, tokens, used: now, life });
    }

    /// Notes that a conversation went elsewhere, and will not come back.
    pub(super) fn abandon(&mut self, key: u64) {
        if let Some(it) = self.list.iter_mut().rfind(|it| it.key == key) {
            it.life = Duration::ZERO;
        }
    }

    /// Learns the size of the cache from the tokens that a conversation has found.
    pub(super) fn learn(&mut self, expected: Expected, found: u64) {
        let Expected { held, since, .. } = expected;
        if held < PREFIX_MIN {
            return;
        }
        let found = found.min(held);
        let shown = since.saturating_add(found);
        if float(found) >= FOUND_PART * float(held) {
            self.capacity = self.capacity.map(|known| known.max(since.saturating_add(held)));
        } else if shown >= self.longest {
            self.capacity = Some(match self.capacity {
                Some(known) if shown < known => {
                    known.saturating_sub(whole(MISS_WEIGHT * float(known - shown)))
                }
                Some(known) if found < PART_MIN => known,
                _ => shown,
            });
        }
    }

    /// The tokens that the cache drops for a prefix of `tokens`, each weighed by the likelihood that its conversation comes
    /// back.
    pub(super) fn displaced(&self, key: u64, tokens: u64, now: Instant) -> f64 {
        let Some(capacity) = self.capacity else { return 0.0 };
        let (mut before, mut lost) = (0_u64, 0.0);
        for it in self.list.iter().rev().filter(|it| it.key != key) {
            let room = capacity.saturating_sub(before);
            if room == 0 {
                break;
            }
            let kept = room.saturating_sub(tokens).min(it.tokens);
            let gone = room.min(it.tokens) - kept;
            if gone > 0 && !it.life.is_zero() {
                let rest = now.saturating_duration_since(it.used).as_secs_f64();
                lost += float(gone) * (-rest / it.life.as_secs_f64()).exp();
            }
            before = before.saturating_add(it.tokens);
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(100);

    /// An upstream that has read these conversations, in this order.
    fn having(list: &[(u64, u64)], capacity: Option<u64>) -> (Residents, Instant) {
        let (mut residents, now) = (Residents { capacity, ..Residents::default() }, Instant::now());
        list.iter().for_each(|(key, tokens)| residents.touch(*key, *tokens, LIFE, now));
        (residents, now)
    }

    #[test]
    fn the_last_ones_are_cached_as_far_as_they_fit() {
        let (residents, _) = having(&[(1, 50_000), (2, 30_000), (3, 40_000)], Some(80_000));
        let cached = |key, tokens| residents.expect(key, tokens).cached;
        assert_eq!((cached(3, 90_000), cached(2, 90_000), cached(1, 90_000)), (40_000, 30_000, 10_000));
        assert_eq!((cached(3, 100), cached(4, 90_000)), (100, 0));
        // Until a miss has shown the size, everything counts as cached.
        let (residents, _) = having(&[(1, 50_000), (2, 900_000)], None);
        assert_eq!(residents.expect(1, 60_000).cached, 50_000);
    }

    #[test]
    fn misses_and_hits_show_the_size() {
        let (mut residents, _) = having(&[(1, 50_000), (2, 30_000), (3, 40_000)], None);
        let expected = residents.expect(1, 51_000);
        residents.learn(expected, 50_000);
        assert_eq!(residents.capacity, None, "a hit alone shows no limit");
        residents.learn(expected, 10_000);
        assert_eq!(residents.capacity, Some(80_000), "30,000 and 40,000 since, and 10,000 found");
        residents.learn(expected, 0);
        assert_eq!(residents.capacity, Some(77_500), "a miss counts a quarter");
        residents.learn(expected, 20_000);
        assert_eq!(residents.capacity, Some(90_000), "so much was there");
        residents.learn(expected, 49_000);
        assert_eq!(residents.capacity, Some(120_000));
        // Nothing found shows at most, not at least.
        let (mut residents, _) = having(&[(1, 50_000), (2, 90_000)], Some(60_000));
        residents.learn(residents.expect(1, 50_000), 0);
        assert_eq!(residents.capacity, Some(60_000));
    }

    #[test]
    fn a_changed_history_is_no_miss() {
        let (mut residents, _) = having(&[(2, 9_000), (1, 50_000)], Some(70_000));
        // The beginning alone is still the same: nothing else was used since.
        residents.learn(residents.expect(1, 51_000), 20_000);
        // The history was summed up.
        residents.learn(residents.expect(1, 30_000), 0);
        // It is too short to tell.
        let (mut short, _) = having(&[(1, 7_000), (2, 90_000)], Some(95_000));
        short.learn(short.expect(1, 8_000), 0);
        assert_eq!((residents.capacity, short.capacity), (Some(70_000), Some(95_000)));
    }

    #[test]
    fn a_newcomer_displaces_those_that_rest_longest() {
        let (mut residents, now) = having(&[(1, 50_000), (2, 30_000), (3, 40_000)], Some(120_000));
        let lost = |residents: &Residents, tokens, now| residents.displaced(9, tokens, now).round();
        assert_eq!(lost(&residents, 0, now), 0.0);
        assert_eq!(lost(&residents, 60_000, now), 60_000.0);
        assert_eq!(lost(&residents, u64::MAX, now), 120_000.0);
        let later = now + LIFE;
        assert_eq!(lost(&residents, 60_000, later), (60_000.0 / std::f64::consts::E).round());
        residents.abandon(1);
        assert_eq!(lost(&residents, 60_000, now), 10_000.0);
        // Its own tokens are there already.
        assert_eq!(residents.displaced(3, 40_000, now), 0.0);
        let (unknown, now) = having(&[(1, 50_000)], None);
        assert_eq!(lost(&unknown, u64::MAX, now), 0.0);
    }

    #[test]
    fn few_are_remembered() {
        let most = RESIDENTS_MAX as u64;
        let (mut residents, now) = having(&[], None);
        (0..=most).for_each(|key| residents.touch(key, 10, LIFE, now));
        assert_eq!((residents.list.len(), residents.expect(0, 10).cached), (RESIDENTS_MAX, 0));
        residents.touch(1, 20, LIFE, now);
        assert_eq!((residents.list.len(), residents.expect(1, 50).cached), (RESIDENTS_MAX, 20));
    }
}
