//! The connections beyond the limit: each gets an error, and stays open for a moment.
//!
//! Everything here happens in the accepting thread, so nothing here waits.

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Retry};
use crate::http::{Connection, RequestLimits, Socket};
use crate::ids;

/// The time that a refused connection stays open, so that the client can read the reason. Closing it with the request
/// unread resets it, and the client's system may then drop the response.
const HOLD_TIME: Duration = Duration::from_secs(1);

/// The most refused connections that are held; the oldest is closed early if there are more.
const HELD_MAX: usize = 64;

/// The time after which a refused client should come back, as `retry-after` gives it.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Refused connections that are still open, oldest first.
#[derive(Default)]
pub(super) struct RefusedClients(VecDeque<(Instant, Connection<Socket>)>);

impl RefusedClients {
    /// Responds with `reason`, and when to come back; a client of TLS is only closed (`is_tls`). The response fits the socket's empty
    /// buffer, so a client that does not read cannot block the thread. If the write fails all the same, the client sees
    /// a closed connection.
    pub(super) fn refuse(&mut self, socket: Socket, client: SocketAddr, (reason, is_tls): (&str, bool)) {
        // Many refusals in a row are one warning, not one each.
        let level = if self.0.is_empty() { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "refused {client}: {reason}");
        // Without a handshake, which would have to be waited for, a client of TLS cannot read a reason.
        if is_tls || socket.stream().set_nonblocking(true).is_err() {
            return;
        }
        let mut connection = Connection::new(socket, RequestLimits::default());
        let error = Error::new(Kind::Overloaded, reason).retry(Retry::After(RETRY_AFTER_SECONDS));
        let sent = connection.refuse(&error, &ids::request_id());
        if sent.and_then(|()| connection.stream().stream().shutdown(Shutdown::Write)).is_err() {
            return;
        }
        if self.0.len() >= HELD_MAX {
            self.0.pop_front();
        }
        self.0.push_back((Instant::now() + HOLD_TIME, connection));
    }

    /// The time when the next connection is to be closed.
    pub(super) fn next_release(&self) -> Option<Instant> {
        self.0.front().map(|(until, _)| *until)
    }

    /// Closes the connections whose time is over.
    pub(super) fn release(&mut self, now: Instant) {
        while self.next_release().is_some_and(|until| until <= now) {
            self.0.pop_front();
        }
    }
}
