//! The log lines of refused requests: a limited number a second for each client's network, and the number of the others.
//!
//! Whoever has no key can make requests that are refused, as many as the network carries, and must not fill the log.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::client_network;
use crate::threads;

/// The most lines a second for one client's network: enough to see what its requests are.
const LINES_MAX: u32 = 20;
const PERIOD: Duration = Duration::from_secs(1);

/// The most networks whose lines are counted apart. Beyond it all others of that second share one count.
const NETWORKS_MAX: usize = 1024;
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Writes the lines of refused requests, or counts them.
#[derive(Clone, Debug, Default)]
pub struct RefusalLog(Arc<Mutex<RefusalCounts>>);

/// The lines of the last second by the client's network. Decides only; the clock is an argument.
#[derive(Debug, Default)]
struct RefusalCounts {
    networks: HashMap<IpAddr, RefusalCount>,
    /// True if a thread will write the numbers of the lines that were left out.
    is_reported: bool,
}

#[derive(Clone, Copy, Debug)]
struct RefusalCount {
    began: Instant,
    written: u32,
    left_out: u64,
}

impl RefusalCounts {
    /// Counts a line, and returns true if it is written.
    fn is_written(&mut self, address: IpAddr, now: Instant) -> bool {
        let network = client_network(address);
        let is_over = |count: &RefusalCount| count.left_out == 0 && now.duration_since(count.began) >= PERIOD;
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network) {
            self.networks.retain(|_, count| !is_over(count));
        }
        let is_full = self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&network);
        let network = if is_full { OTHERS } else { network };
        let new = RefusalCount { began: now, written: 0, left_out: 0 };
        let count = self.networks.entry(network).or_insert(new);
        if is_over(count) {
            *count = new;
        }
        let is_written = count.written < LINES_MAX;
        count.written += u32::from(is_written);
        count.left_out += u64::from(!is_written);
        is_written
    }

    /// Takes the numbers of lines that were left out.
    fn take_left_out(&mut self) -> Vec<(IpAddr, u64)> {
        let left_out = |count: &RefusalCount| count.left_out > 0;
        let found = self.networks.iter().filter(|(_, count)| left_out(count));
        let mut found: Vec<(IpAddr, u64)> =
            found.map(|(network, count)| (*network, count.left_out)).collect();
        found.sort_unstable();
        self.networks.retain(|_, count| !left_out(count));
        found
    }
}

impl RefusalLog {
    /// Logs the line of a refused request of this address, or counts it if the client's network had too many.
    pub fn log(&self, address: IpAddr, line: fmt::Arguments<'_>) {
        let (is_written, begins_report) = {
            let mut counts = self.counts();
            let is_written = counts.is_written(address, Instant::now());
            (is_written, !is_written && !std::mem::replace(&mut counts.is_reported, true))
        };
        if is_written {
            log::info!("{line}");
        }
        if begins_report {
            let later = self.clone();
            let work = move || {
                std::thread::sleep(PERIOD);
                later.report();
            };
            // Without the thread, the next line that is left out tries again.
            if threads::background("refusals", work).is_err() {
                self.counts().is_reported = false;
            }
        }
    }

    /// Logs the numbers of lines that were left out, if there are any.
    pub fn report(&self) {
        let left_out = {
            let mut counts = self.counts();
            counts.is_reported = false;
            counts.take_left_out()
        };
        for (network, count) in left_out {
            match network {
                OTHERS => log::info!("{count} more requests of many other addresses were refused"),
                IpAddr::V4(address) => log::info!("{count} more requests of {address} were refused"),
                IpAddr::V6(network) => log::info!("{count} more requests of {network}/64 were refused"),
            }
        }
    }

    /// Locks the counts. No code can panic while they are locked, so poisoned ones are as good as any.
    fn counts(&self) -> MutexGuard<'_, RefusalCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + last).into())
    }

    #[test]
    fn an_address_has_so_many_lines_a_second_and_then_a_count() {
        let (mut counts, now) = (RefusalCounts::default(), Instant::now());
        let written = |counts: &mut RefusalCounts, last, now, lines: u32| {
            (0..lines).filter(|_| counts.is_written(address(last), now)).count()
        };
        assert_eq!(written(&mut counts, 1, now, 19), 19);
        assert_eq!(written(&mut counts, 1, now, 100), 1);
        assert_eq!(written(&mut counts, 2, now, 20), 20);
        // A second later, the address is new only once its count was told.
        assert_eq!(written(&mut counts, 1, now + PERIOD, 1), 0);
        assert_eq!(written(&mut counts, 2, now + PERIOD, 30), 20);
        assert_eq!(counts.take_left_out(), [(address(1), 100), (address(2), 10)]);
        assert_eq!(written(&mut counts, 1, now + PERIOD, 30), 20);
        assert_eq!(counts.take_left_out(), [(address(1), 10)]);
        assert_eq!(counts.take_left_out(), []);
    }

    #[test]
    fn all_addresses_of_an_ipv6_network_share_its_lines() {
        let (mut counts, now) = (RefusalCounts::default(), Instant::now());
        let of = |network: u128, host: u128| IpAddr::V6((network << 64 | host).into());
        let written = |counts: &mut RefusalCounts, network| {
            (1..=100).filter(|host| counts.is_written(of(network, *host), now)).count()
        };
        assert_eq!(written(&mut counts, 0xfd00 << 48), 20);
        assert_eq!(written(&mut counts, 0xfd00 << 48 | 1), 20);
        let network = |last: u128| of(0xfd00 << 48 | last, 0);
        assert_eq!(counts.take_left_out(), [(network(0), 80), (network(1), 80)]);
        // An IPv4 address is one client in both of its forms.
        let mapped = IpAddr::V6(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
        assert_eq!((0..15).filter(|_| counts.is_written(mapped, now)).count(), 15);
        assert_eq!((0..15).filter(|_| counts.is_written(address(1), now)).count(), 5);
        assert_eq!(counts.take_left_out(), [(address(1), 10)]);
    }

    #[test]
    fn many_addresses_share_one_count() {
        let (mut counts, now) = (RefusalCounts::default(), Instant::now());
        let most = u32::try_from(NETWORKS_MAX).unwrap();
        let written = (0..2 * most).filter(|last| counts.is_written(address(*last), now)).count();
        assert_eq!(written, NETWORKS_MAX + 20);
        assert_eq!(counts.take_left_out(), [(OTHERS, u64::from(most) - 20)]);
        // A second later there is room for others.
        assert!((most..2 * most).all(|last| counts.is_written(address(last), now + PERIOD)));
    }
}
