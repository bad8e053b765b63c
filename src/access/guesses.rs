//! Wrong keys: how long the answer to each one waits, so that keys cannot be guessed at the speed of the network.
//!
//! Decides only; the clock is an argument. A right key is never asked about here, so it never waits, whatever comes from
//! the same address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::config::client_network;

/// The wrong keys of one address that are answered at once: a person mistypes one, and clients repeat a request.
const FREE: u32 = 5;

/// The time between the answers to two further wrong keys of one address: doubled with each, up to five guesses a second.
const SPACING_MIN: Duration = Duration::from_millis(25);
const SPACING_MAX: Duration = Duration::from_millis(200);

/// The longest wait. More guesses than fit into it, on parallel connections, wait this long each.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// After this time without a wrong key an address is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// The most addresses that are remembered. Beyond it the one is forgotten whose last answer is due first.
const ADDRESSES_MAX: usize = 1024;

/// The addresses that have sent wrong keys lately.
#[derive(Debug, Default)]
pub struct Guesses(HashMap<IpAddr, WrongKeys>);

#[derive(Clone, Copy, Debug)]
struct WrongKeys {
    count: u32,
    /// When the last answer to this address is due.
    answered_at: Instant,
}

impl Guesses {
    /// The time that the answer to a wrong key of this address waits.
    pub fn delay(&mut self, address: IpAddr, now: Instant) -> Duration {
        let network = client_network(address);
        if self.0.len() >= ADDRESSES_MAX && !self.0.contains_key(&network) {
            let first = self.0.iter().min_by_key(|(_, wrong)| wrong.answered_at).map(|(network, _)| *network);
            first.map(|first| self.0.remove(&first));
        }
        let wrong = self.0.entry(network).or_insert(WrongKeys { count: 0, answered_at: now });
        if now.saturating_duration_since(wrong.answered_at) > FORGET_AFTER {
            wrong.count = 0;
        }
        let spacing = match wrong.count.checked_sub(FREE) {
            None => Duration::ZERO,
            Some(further) => {
                SPACING_MIN.saturating_mul(1u32.checked_shl(further).unwrap_or(u32::MAX)).min(SPACING_MAX)
            }
        };
        wrong.count = wrong.count.saturating_add(1);
        wrong.answered_at = (wrong.answered_at.max(now) + spacing).min(now + WAIT_MAX);
        wrong.answered_at - now
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn address(last: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + last).into())
    }

    #[test]
    fn the_wait_grows_to_five_guesses_a_second() {
        let (mut guesses, began) = (Guesses::default(), Instant::now());
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap();
        let mut now = began;
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = guesses.delay(address(1), now);
            waits.push(millis(wait));
            now += wait;
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 25, 50, 100, 200, 200, 200, 200]);
        let mut count = 0;
        let until = now + Duration::from_secs(100);
        while now < until {
            now += guesses.delay(address(1), now);
            count += 1;
        }
        assert_eq!(count, 500);
    }

    #[test]
    fn parallel_guesses_share_the_spacing_and_nobody_else_waits() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        let waits: Vec<Duration> = (0..100).map(|_| guesses.delay(address(1), now)).collect();
        assert!(waits.is_sorted() && waits.iter().all(|wait| *wait <= WAIT_MAX));
        assert_eq!(waits.iter().filter(|wait| **wait < WAIT_MAX).count(), 5 + 3 + 24);
        assert_eq!(guesses.delay(address(2), now), Duration::ZERO);
        // Once the time has passed, the same address is new again.
        let later = now + WAIT_MAX + FORGET_AFTER;
        assert!(guesses.delay(address(1), later - Duration::from_millis(1)) > Duration::ZERO);
        assert_eq!(guesses.delay(address(1), later + WAIT_MAX + FORGET_AFTER), Duration::ZERO);
    }

    #[test]
    fn the_machines_of_an_ipv6_network_are_one_client() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        for host in 0..20u128 {
            guesses.delay(IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8_0000_0001_u128 << 64 | host)), now);
        }
        assert!(guesses.delay("2001:db8:0:1::ffff".parse().unwrap(), now) > Duration::ZERO);
        assert_eq!(guesses.delay("2001:db8:0:2::1".parse().unwrap(), now), Duration::ZERO);
        for _ in 0..20 {
            guesses.delay("::ffff:10.0.0.9".parse().unwrap(), now);
        }
        assert!(guesses.delay(address(9), now) > Duration::ZERO, "a mapped address is the IPv4 address");
    }

    #[test]
    fn the_table_keeps_the_addresses_that_guess_most() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        (0..50).for_each(|_| _ = guesses.delay(address(0), now));
        (1..5000).for_each(|last| _ = guesses.delay(address(last), now));
        assert_eq!(guesses.0.len(), ADDRESSES_MAX);
        assert!(guesses.delay(address(0), now) > Duration::ZERO);
    }
}
