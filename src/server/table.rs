//! The table of open connections: a limit on all, a limit for each address, and the choice of one that makes room.
//!
//! Knows sockets only to shut them down. Does not know threads: an evicted connection's thread sees the end of its
//! stream.

use std::collections::HashMap;
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::client_network;
use crate::http::Socket;

/// The connections that are open.
#[derive(Default)]
pub(super) struct ConnectionTable {
    places: HashMap<u64, Arc<ConnectionPlace>>,
    counts: HashMap<IpAddr, usize>,
    last: u64,
}

/// The limits of a table.
#[derive(Clone, Copy)]
pub(super) struct TableLimits {
    /// The most connections.
    pub(super) all: usize,
    /// The most connections of one address; `None` for an address that stands for many clients.
    pub(super) per_address: Option<usize>,
}

/// The limit that refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// That of all connections.
    Table,
    /// That of the client's address.
    Address,
}

/// One connection's place, with the facts that decide which connection makes room for a new one.
pub(super) struct ConnectionPlace {
    pub(super) id: u64,
    address: IpAddr,
    socket: Socket,
    opened: Instant,
    /// True while a request is handled.
    is_busy: AtomicBool,
    /// True once a request was admitted.
    is_known: AtomicBool,
    /// Since when the connection has waited for a request, in milliseconds after it was opened.
    waiting_since_ms: AtomicU64,
}

impl ConnectionPlace {
    /// Notes that a request is handled.
    pub(super) fn begin(&self) {
        self.is_busy.store(true, Ordering::Relaxed);
    }

    /// Notes that the connection waits, and whether it is to be kept longer than one without an admitted request.
    pub(super) fn wait(&self, is_known: bool) {
        let waiting_since = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.waiting_since_ms.store(waiting_since, Ordering::Relaxed);
        self.is_known.store(is_known, Ordering::Relaxed);
        self.is_busy.store(false, Ordering::Relaxed);
    }

    /// When the connection was opened.
    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// The order in which connections make room: first those on which no request was ever admitted, then those that
    /// wait longest for another one. `None`: it has a request.
    fn eviction_order(&self) -> Option<(bool, Instant)> {
        let waited = Duration::from_millis(self.waiting_since_ms.load(Ordering::Relaxed));
        let since = self.opened.checked_add(waited).unwrap_or(self.opened);
        (!self.is_busy.load(Ordering::Relaxed)).then_some((self.is_known.load(Ordering::Relaxed), since))
    }
}

impl ConnectionTable {
    /// The number of open connections.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The number of connections with a request.
    #[cfg(test)]
    pub(super) fn busy(&self) -> usize {
        self.places.values().filter(|place| place.eviction_order().is_none()).count()
    }

    /// Takes a place for a connection. If a limit is reached, the connection that can best be spared is closed: one of
    /// the same address if its limit is reached, and one that no request was admitted on before any other.
    ///
    /// # Errors
    /// Every connection that could make room has a request.
    pub(super) fn take(
        &mut self,
        socket: &Socket,
        address: IpAddr,
        limits: TableLimits,
        now: Instant,
    ) -> Result<Arc<ConnectionPlace>, Full> {
        let address = client_network(address);
        let of_address = self.counts.get(&address).copied().unwrap_or(0);
        if limits.per_address.is_some_and(|most| of_address >= most) {
            self.evict(|place| place.address == address).ok_or(Full::Address)?;
        } else if self.places.len() >= limits.all {
            self.evict(|_| true).ok_or(Full::Table)?;
        }
        self.last += 1;
        let place = Arc::new(ConnectionPlace {
            id: self.last,
            address,
            socket: socket.clone(),
            opened: now,
            is_busy: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
            waiting_since_ms: AtomicU64::new(0),
        });
        self.places.insert(place.id, Arc::clone(&place));
        *self.counts.entry(address).or_default() += 1;
        Ok(place)
    }

    /// Frees a place. Does nothing if it was freed before.
    pub(super) fn free(&mut self, id: u64) {
        let Some(place) = self.places.remove(&id) else { return };
        if let Some(count) = self.counts.get_mut(&place.address) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&place.address);
            }
        }
    }

    /// Ends the reading side of every connection. Whoever waits for a client, or for an upstream on its behalf, notices.
    pub(super) fn end_reading(&self) {
        for place in self.places.values() {
            // This fails only if the client has closed it before.
            let _ = place.socket.stream().shutdown(Shutdown::Read);
        }
    }

    /// Closes the connection that can best be spared of those that fit.
    fn evict(&mut self, fits: impl Fn(&ConnectionPlace) -> bool) -> Option<()> {
        let waiting = self.places.values().filter(|place| fits(place));
        let spared = waiting
            .filter_map(|place| Some((place.eviction_order()?, place)))
            .min_by_key(|(order, _)| *order)?;
        let (id, socket) = (spared.1.id, spared.1.socket.clone());
        // This fails only if the client has closed it before.
        let _ = socket.stream().shutdown(Shutdown::Both);
        self.free(id);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const ONE: &str = "192.168.1.7";
    const OTHER: &str = "192.168.1.8";

    struct Lab {
        table: ConnectionTable,
        listener: TcpListener,
        now: Instant,
        limits: TableLimits,
    }

    impl Lab {
        fn new(all: usize, per_address: usize) -> Lab {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let limits = TableLimits { all, per_address: Some(per_address) };
            Lab { table: ConnectionTable::default(), listener, now: Instant::now(), limits }
        }

        /// A connection that is opened a second after the one before.
        fn open(&mut self, address: &str) -> Result<(Arc<ConnectionPlace>, TcpStream), Full> {
            let far = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let near = Socket::new(self.listener.accept().unwrap().0);
            self.now += Duration::from_secs(1);
            let place = self.table.take(&near, address.parse().unwrap(), self.limits, self.now)?;
            Ok((place, far))
        }
    }

    fn is_closed(far: &mut TcpStream) -> bool {
        far.set_nonblocking(true).unwrap();
        matches!(far.read(&mut [0]), Ok(0))
    }

    #[test]
    fn the_connection_that_waits_longest_without_a_key_makes_room() {
        let mut lab = Lab::new(3, 3);
        let (known, mut far_known) = lab.open(ONE).unwrap();
        known.wait(true);
        let (_first, mut far_first) = lab.open(ONE).unwrap();
        let (_second, mut far_second) = lab.open(OTHER).unwrap();
        let (_new, _far_new) = lab.open(OTHER).unwrap();
        assert_eq!(
            (is_closed(&mut far_known), is_closed(&mut far_first), is_closed(&mut far_second)),
            (false, true, false)
        );
        assert_eq!(lab.table.len(), 3);
    }

    #[test]
    fn a_connection_with_a_request_never_makes_room() {
        let mut lab = Lab::new(2, 2);
        let places = [lab.open(ONE).unwrap(), lab.open(OTHER).unwrap()];
        places.iter().for_each(|(place, _)| place.begin());
        assert_eq!(lab.open(OTHER).err(), Some(Full::Table));
        places[0].0.wait(true);
        assert!(lab.open(OTHER).is_ok(), "an idle one does, even with a key");
    }

    #[test]
    fn one_address_cannot_take_the_places_of_another() {
        let mut lab = Lab::new(100, 2);
        let (own, mut far_own) = lab.open(ONE).unwrap();
        let (_other, mut far_other) = lab.open(OTHER).unwrap();
        let (busy, _far_busy) = lab.open(ONE).unwrap();
        busy.begin();
        let (third, _far_third) = lab.open(ONE).unwrap();
        assert!(is_closed(&mut far_own) && !is_closed(&mut far_other));
        third.begin();
        assert_eq!(lab.open(ONE).err(), Some(Full::Address));
        lab.table.free(own.id);
        assert_eq!(lab.table.len(), 3, "an evicted place is not freed twice");
        lab.table.free(third.id);
        assert!(lab.open(ONE).is_ok());
        lab.limits.per_address = None;
        assert!(lab.open(ONE).is_ok(), "an address that stands for many clients has no limit");
    }

    #[test]
    fn the_addresses_of_one_v6_network_count_as_one() {
        let of = |text: &str| client_network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of(ONE), of(OTHER));
    }
}
