//! Connections to one upstream that wait for their next call.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connection::UpstreamConnection;

/// The most idle connections that are kept: as many as a server on a LAN has busy clients.
const CONNECTIONS_MAX: usize = 64;

/// The age at which an idle connection is not used again. Servers close theirs earlier (uvicorn after 5 s), and that is
/// noticed.
const AGE_MAX: Duration = Duration::from_secs(60);

/// Idle connections, the oldest first, each with the time when it became idle.
#[derive(Default)]
pub(super) struct Idle(Mutex<VecDeque<(Instant, UpstreamConnection)>>);

impl Idle {
    /// Takes the connection that was used last, if it can still be used. If the server has closed it since, `on_closed`
    /// is called with the time for which it had been idle.
    pub(super) fn take(&self, on_closed: impl Fn(Duration)) -> Option<UpstreamConnection> {
        loop {
            let (since, connection) = self.idle(VecDeque::pop_back)?;
            let idle_for = since.elapsed();
            if idle_for > AGE_MAX {
                self.clear(); // the others are older and not usable either
            } else if connection.is_quiet() {
                return Some(connection);
            } else {
                on_closed(idle_for);
            }
        }
    }

    /// Checks whether the server has closed the connection that was used last. If so, closes all of them, and returns
    /// the time since its last use.
    pub(super) fn notice_closed(&self) -> Option<Duration> {
        let idle_for = self.idle(|idle| {
            let (since, connection) = idle.back()?;
            (!connection.is_quiet()).then(|| since.elapsed())
        })?;
        self.clear();
        Some(idle_for)
    }

    /// Keeps a connection for the next call.
    pub(super) fn put(&self, connection: UpstreamConnection) {
        let now = Instant::now();
        let dropped = self.idle(|idle| {
            idle.push_back((now, connection));
            let is_over = |idle: &VecDeque<(Instant, _)>| {
                idle.len() > CONNECTIONS_MAX || idle.front().is_some_and(|(since, _)| now - *since > AGE_MAX)
            };
            if is_over(idle) { idle.pop_front() } else { None }
        });
        drop(dropped); // closes sockets, so it is done after the lock is released
    }

    /// Closes all connections: the cause that closed one, such as a restart, may have closed the others.
    pub(super) fn clear(&self) {
        drop(self.idle(std::mem::take));
    }

    fn idle<T>(&self, work: impl FnOnce(&mut VecDeque<(Instant, UpstreamConnection)>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
