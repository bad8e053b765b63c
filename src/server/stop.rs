//! The end of a server: who is still busy, and how everybody who waits is woken.
//!
//! Knows sockets only as something to poll.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Ends the server that it was given to. Triggered once: no more connections are accepted, idle ones are closed, and
/// requests in progress get [`Options::drain`](super::Options::drain) to finish, with `connection: close`. Triggered
/// again: the server returns at once. One for each server; its clones are the same.
#[derive(Clone)]
pub struct Stop(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    /// For connections, which look at it when they begin a response.
    draining: Arc<AtomicBool>,
    /// Shut down by the first trigger. The other end is at its end from then on, and so readable for every poll: one
    /// descriptor wakes the listener and all idle connections, and nobody needs a list of them.
    trigger: UnixStream,
    wake: UnixStream,
}

#[derive(Default)]
struct State {
    triggers: u32,
    connections: usize,
}

impl Stop {
    /// A stop that nobody triggered.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> io::Result<Self> {
        let (trigger, wake) = UnixStream::pair()?;
        Ok(Stop(Arc::new(Inner {
            state: Mutex::default(),
            changed: Condvar::new(),
            draining: Arc::default(),
            trigger,
            wake,
        })))
    }

    /// Stops the server; the second time, without waiting for requests in progress.
    pub fn trigger(&self) {
        let mut state = self.state();
        state.triggers = state.triggers.saturating_add(1);
        self.0.draining.store(true, Ordering::Relaxed);
        // Fails only where it was shut down before.
        let _ = self.0.trigger.shutdown(Shutdown::Both);
        self.0.changed.notify_all();
    }

    /// Whether the server is to stop.
    pub fn is_triggered(&self) -> bool {
        self.state().triggers > 0
    }

    pub(super) fn draining(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.draining)
    }

    /// Waits for a time, or for the first trigger.
    pub(super) fn pause(&self, time: Duration) {
        self.wait_while(time, |state| state.triggers == 0);
    }

    /// Waits until no connection is left, for a time, or for the second trigger. Returns how many are left.
    pub(super) fn drain(&self, time: Duration) -> usize {
        self.wait_while(time, |state| state.triggers < 2 && state.connections > 0)
    }

    /// Waits for a time, or until the condition ends. Returns how many connections there are then.
    fn wait_while(&self, time: Duration, condition: impl Fn(&State) -> bool) -> usize {
        let waited = self.0.changed.wait_timeout_while(self.state(), time, |state| condition(state));
        waited.unwrap_or_else(PoisonError::into_inner).0.connections
    }

    /// No panic can happen while it is locked, so a poisoned state is as good as any.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place among `connections_max`, until it is dropped.
pub(super) struct ConnectionSlot(Stop);

impl ConnectionSlot {
    pub(super) fn take(stop: &Stop, connections_max: usize) -> Option<ConnectionSlot> {
        let mut state = stop.state();
        if state.connections >= connections_max {
            return None;
        }
        state.connections += 1;
        Some(ConnectionSlot(stop.clone()))
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.0.state().connections -= 1;
        self.0.0.changed.notify_all();
    }
}

/// Waits until `socket` is readable (`true`), or the stop was triggered or the deadline is over (`false`).
///
/// # Errors
/// Those of `poll`.
pub(super) fn wait_readable(socket: &impl AsFd, stop: &Stop, deadline: Option<Instant>) -> io::Result<bool> {
    poll_in(&mut [PollFd::new(socket, PollFlags::IN), PollFd::new(&stop.0.wake, PollFlags::IN)], deadline)
}

/// The same where a stop makes no difference.
///
/// # Errors
/// Those of `poll`.
pub(super) fn wait_readable_always(socket: &impl AsFd, deadline: Instant) -> io::Result<bool> {
    poll_in(&mut [PollFd::new(socket, PollFlags::IN)], Some(deadline))
}

/// Polls all of them and tells whether the first one has news.
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
        // Beyond any timeout in use.
        tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
