//! The end of a server: counts the busy connections, and wakes every thread that waits.
//!
//! Knows sockets only as something to poll; the table of connections is in [`super::table`].

use std::io;
use std::net::{IpAddr, Shutdown};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::table::{ConnectionPlace, ConnectionTable, Full, TableLimits};
use crate::http::Socket;

/// The handle that ends its server. The first trigger closes the listener and idle connections, and gives requests in
/// progress [`ServerLimits::drain`](super::ServerLimits::drain) to finish, with `connection: close`. The second trigger
/// makes the server return at once. Each server needs a handle of its own; clones act on the same server.
#[derive(Clone)]
pub struct StopHandle(Arc<Inner>);

struct Inner {
    state: Mutex<StopState>,
    changed: Condvar,
    /// The flag that connections look at when they begin a response.
    draining: Arc<AtomicBool>,
    /// The first trigger shuts it down. The other end, `wake`, then reads as ended, so it is readable for every poll:
    /// one descriptor wakes the listener and all idle connections, and no list of them is needed.
    trigger: UnixStream,
    wake: UnixStream,
}

#[derive(Default)]
struct StopState {
    triggers: u32,
    connections: ConnectionTable,
}

impl StopHandle {
    /// A stop that is not triggered yet.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Self> {
        let (trigger, wake) = UnixStream::pair()?;
        Ok(StopHandle(Arc::new(Inner {
            state: Mutex::default(),
            changed: Condvar::new(),
            draining: Arc::default(),
            trigger,
            wake,
        })))
    }

    /// Stops the server. The second call makes it stop without waiting for requests in progress.
    pub fn trigger(&self) {
        let mut state = self.state();
        state.triggers = state.triggers.saturating_add(1);
        self.0.draining.store(true, Ordering::Relaxed);
        // This fails only if it was shut down before.
        let _ = self.0.trigger.shutdown(Shutdown::Both);
        self.0.changed.notify_all();
    }

    /// True if the server is stopping.
    pub fn is_triggered(&self) -> bool {
        self.state().triggers > 0
    }

    /// The number of connections with a request.
    #[cfg(test)]
    pub(super) fn busy(&self) -> usize {
        self.state().connections.busy()
    }

    pub(super) fn draining(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.draining)
    }

    /// Waits for `time`, or until the first trigger.
    pub(super) fn pause(&self, time: Duration) {
        self.wait_while(time, |state| state.triggers == 0);
    }

    /// Waits until no connection is left, for `time`, or until the second trigger. Returns the number of connections
    /// left.
    pub(super) fn drain(&self, time: Duration) -> usize {
        self.wait_while(time, |state| state.triggers < 2 && state.connections.len() > 0)
    }

    /// Waits for `time`, or while the condition is true. Returns the number of connections then.
    fn wait_while(&self, time: Duration, condition: impl Fn(&StopState) -> bool) -> usize {
        let waited = self.0.changed.wait_timeout_while(self.state(), time, |state| condition(state));
        waited.unwrap_or_else(PoisonError::into_inner).0.connections.len()
    }

    /// Locks the state. No code can panic while it is locked, so a poisoned state is as good as any.
    fn state(&self) -> MutexGuard<'_, StopState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place in the table, until it is dropped.
pub(super) struct ConnectionSlot {
    stop: StopHandle,
    place: Arc<ConnectionPlace>,
}

impl ConnectionSlot {
    /// Takes a place, see [`ConnectionTable::take`].
    ///
    /// # Errors
    /// Every connection that could make room has a request.
    pub(super) fn take(
        stop: &StopHandle,
        socket: &Socket,
        address: IpAddr,
        limits: TableLimits,
    ) -> Result<ConnectionSlot, Full> {
        let place = stop.state().connections.take(socket, address, limits, Instant::now())?;
        Ok(ConnectionSlot { stop: stop.clone(), place })
    }

    pub(super) fn place(&self) -> &ConnectionPlace {
        &self.place
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.stop.state().connections.free(self.place.id);
        self.stop.0.changed.notify_all();
    }
}

/// Waits until `socket` is readable (`true`), or until the stop is triggered or the deadline passes (`false`).
///
/// # Errors
/// Those of `poll`.
pub(super) fn wait_readable(
    socket: &impl AsFd,
    stop: &StopHandle,
    deadline: Option<Instant>,
) -> io::Result<bool> {
    poll_in(&mut [PollFd::new(socket, PollFlags::IN), PollFd::new(&stop.0.wake, PollFlags::IN)], deadline)
}

/// Waits until `socket` is readable (`true`) or the deadline passes (`false`). A stop does not end this wait.
///
/// # Errors
/// Those of `poll`.
pub(super) fn wait_readable_always(socket: &impl AsFd, deadline: Instant) -> io::Result<bool> {
    poll_in(&mut [PollFd::new(socket, PollFlags::IN)], Some(deadline))
}

/// Waits until the deadline passes, the connection is broken or shut down on both sides, or the stop is triggered. Bytes
/// of the client, and the end of them, do not end this wait.
///
/// # Errors
/// Those of `poll`.
pub(super) fn rest(socket: &impl AsFd, stop: &StopHandle, deadline: Instant) -> io::Result<()> {
    let sockets = &mut [PollFd::new(socket, PollFlags::empty()), PollFd::new(&stop.0.wake, PollFlags::IN)];
    poll_in(sockets, Some(deadline)).map(|_| ())
}

/// Polls all sockets and returns whether the first one is readable.
fn poll_in(sockets: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let timeout = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        match poll(sockets, timeout.as_ref()) {
            Ok(_) => return Ok(sockets.first().is_some_and(|socket| !socket.revents().is_empty())),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        // A time beyond the range is beyond any timeout in use.
        tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
