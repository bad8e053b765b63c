//! The end of a server: counts the busy connections, and wakes every thread that waits.
//!
//! Knows sockets only as something to poll; the table of connections is in [`super::table`].

use std::io;
use std::net::{IpAddr, Shutdown};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::table::{ConnectionPlace, ConnectionTable, Full, TableLimits};
use crate::http::{ServerEnd, Socket};

/// The time for requests in progress after another process has taken over the socket. Nobody waits for them then. It is
/// the longest time that an upstream may think before its first byte (`CallLimits::first_byte_timeout`).
const RETIRED_MAX: Duration = Duration::from_secs(30 * 60);

/// How long requests that were cut get to tell their clients so.
const CUT_TIME: Duration = Duration::from_secs(2);

/// The handle that ends its server. The first trigger closes the listener and idle connections, and gives requests in
/// progress [`ServerLimits::drain`](super::ServerLimits::drain) to finish, with `connection: close`. The second trigger
/// ends them at once. A request that is ended so tells its client to try again. Each server needs a handle of its own;
/// clones act on the same server.
#[derive(Clone)]
pub struct StopHandle(Arc<Inner>);

struct Inner {
    state: Mutex<StopState>,
    changed: Condvar,
    /// The state that connections look at.
    end: Arc<ServerEnd>,
    /// The first trigger shuts it down. The other end, `wake`, then reads as ended, so it is readable for every poll:
    /// one descriptor wakes the listener and all idle connections, and no list of them is needed.
    trigger: UnixStream,
    wake: UnixStream,
}

#[derive(Default)]
struct StopState {
    triggers: u32,
    /// True once another process has taken over the listening socket.
    is_retired: bool,
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
            end: Arc::default(),
            trigger,
            wake,
        })))
    }

    /// Stops the server. The second call makes it stop without waiting for requests in progress.
    pub fn trigger(&self) {
        let mut state = self.state();
        state.triggers = state.triggers.saturating_add(1);
        self.begin_end();
    }

    /// Stops the server because another process has taken over its socket. Requests in progress get half an hour, since
    /// nobody waits for them; a trigger shortens that as usual.
    pub fn retire(&self) {
        self.state().is_retired = true;
        self.begin_end();
    }

    fn begin_end(&self) {
        self.0.end.begin_drain();
        // This fails only if it was shut down before.
        let _ = self.0.trigger.shutdown(Shutdown::Both);
        self.0.changed.notify_all();
    }

    /// True if the server accepts no more connections.
    pub fn is_ending(&self) -> bool {
        let state = self.state();
        state.triggers > 0 || state.is_retired
    }

    /// The number of connections with a request.
    #[cfg(test)]
    pub(super) fn busy(&self) -> usize {
        self.state().connections.busy()
    }

    pub(super) fn end(&self) -> Arc<ServerEnd> {
        Arc::clone(&self.0.end)
    }

    /// Waits for `time`, or until the server ends.
    pub(super) fn pause(&self, time: Duration) {
        self.wait_while(time, |state| state.triggers == 0 && !state.is_retired);
    }

    /// Ends the requests in progress: each thread sees the end of what its client sends, and can still tell the client.
    /// Waits until they have done so.
    pub(super) fn cut(&self) {
        self.0.end.cut();
        self.state().connections.end_reading();
        self.wait_while(CUT_TIME, |state| state.connections.len() > 0);
    }

    /// Waits until no connection is left, for `time`, or until the second trigger. Returns the number of connections
    /// left.
    pub(super) fn drain(&self, time: Duration) -> usize {
        self.wait_while(RETIRED_MAX, |state| state.triggers == 0 && state.connections.len() > 0);
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
