//! Finds out whether the server behind a silent connection has stopped: it refuses new connections.
//!
//! A server that was told to end may close its listener, end its model, and keep its connections open without a byte
//! (vLLM 0.32 did so for 32 s and more). Its silence looks like that of a long prompt. A server that works on a long
//! prompt accepts connections, if only into its backlog; an attempt that is neither accepted nor refused shows nothing.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt;

use super::socket::tcp_socket;

/// The refusals in a row that show that the server has stopped: with two seconds between them, time for a server that
/// ends in order to finish an answer.
const REFUSALS_MAX: u32 = 5;

/// The pauses between two attempts at a server that has just accepted one, as a multiple of the usual pause.
const PAUSES_IF_ACCEPTED: u32 = 5;

/// Refusals with more than this many pauses between them are not in a row: nobody has watched meanwhile.
const PAUSES_IN_A_ROW: u32 = 10;

/// The attempts to connect to one server, shared by all calls that wait for it, so that a hundred silent calls make no
/// more attempts than one; and the time until which calls were given up.
#[derive(Default)]
pub(super) struct Pulse(Mutex<PulseState>, Mutex<Option<Instant>>);

#[derive(Default)]
struct PulseState {
    /// The address of the attempts.
    peer: Option<SocketAddr>,
    /// The latest attempt, whose result was not read yet.
    probe: Option<Probe>,
    /// The time before which nothing is done.
    next: Option<Instant>,
    refusals: u32,
}

/// One attempt to connect.
enum Probe {
    /// It was refused at once.
    Refused,
    /// Its result stands in the socket. `None`: this machine had no socket for it, which shows nothing.
    Begun(Option<OwnedFd>),
}

impl Pulse {
    /// Gives up all calls that were sent until `now`: the server hangs.
    pub(super) fn give_up(&self, now: Instant) {
        *self.1.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// True if a call that was sent at this time was given up.
    pub(super) fn is_given_up(&self, sent: Instant) -> bool {
        let given_up = *self.1.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.is_some_and(|given_up| sent <= given_up)
    }

    /// Reads the result of the last attempt, and begins the next one if it is due. Never blocks. Returns true if the
    /// server at `peer` has stopped.
    pub(super) fn has_stopped(&self, peer: SocketAddr, now: Instant, pause: Duration) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.peer != Some(peer) {
            *state = PulseState { peer: Some(peer), ..PulseState::default() };
        }
        state.step(now, pause, || connect(peer), Probe::was_refused)
    }
}

impl PulseState {
    fn step(
        &mut self,
        now: Instant,
        pause: Duration,
        begin: impl FnOnce() -> Probe,
        was_refused: impl FnOnce(&Probe) -> bool,
    ) -> bool {
        if let Some(next) = self.next {
            if now < next {
                return self.refusals >= REFUSALS_MAX;
            }
            if now.saturating_duration_since(next) > pause.saturating_mul(PAUSES_IN_A_ROW) {
                *self = PulseState { peer: self.peer, ..PulseState::default() };
            }
        }
        let mut is_accepted = false;
        if let Some(probe) = self.probe.take() {
            is_accepted = !was_refused(&probe);
            self.refusals = if is_accepted { 0 } else { self.refusals + 1 };
        }
        if is_accepted {
            self.next = now.checked_add(pause.saturating_mul(PAUSES_IF_ACCEPTED));
        } else {
            self.next = now.checked_add(pause);
            self.probe = Some(begin());
        }
        self.refusals >= REFUSALS_MAX
    }
}

impl Probe {
    /// True only for an explicit refusal. A connection that is not made yet shows nothing.
    fn was_refused(&self) -> bool {
        match self {
            Probe::Refused => true,
            Probe::Begun(socket) => socket
                .as_ref()
                .is_some_and(|socket| matches!(sockopt::socket_error(socket), Ok(Err(Errno::CONNREFUSED)))),
        }
    }
}

/// Begins to connect.
fn connect(peer: SocketAddr) -> Probe {
    match tcp_socket(peer).map(|socket| (rustix::net::connect(&socket, &peer), socket)) {
        Ok((Err(Errno::CONNREFUSED), _)) => Probe::Refused,
        Ok((_, socket)) => Probe::Begun(Some(socket)),
        Err(_) => Probe::Begun(None),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(2);

    /// The number of steps, a pause apart, until the server counts as stopped; `None`: not within 100.
    fn steps(refused: impl Fn(u32) -> bool) -> Option<u32> {
        let (mut state, begun) = (PulseState::default(), Instant::now());
        (0..100).find(|step| state.step(begun + PAUSE * *step, PAUSE, || Probe::Refused, |_| refused(*step)))
    }

    #[test]
    fn refusals_in_a_row_show_that_a_server_has_stopped() {
        assert_eq!(steps(|_| true), Some(REFUSALS_MAX));
        assert_eq!(steps(|_| false), None);
        assert_eq!(steps(|step| step % REFUSALS_MAX != 0), None, "one attempt in five is accepted");
        assert_eq!(steps(|step| step > 10), Some(17), "an accepted attempt is followed by a longer pause");
    }

    #[test]
    fn many_silent_calls_make_one_attempt_and_old_refusals_do_not_count() {
        let (mut state, begun) = (PulseState::default(), Instant::now());
        for step in 0..REFUSALS_MAX {
            let now = begun + PAUSE * step;
            let mut attempts = 0;
            for _ in 0..100 {
                assert!(!state.step(
                    now,
                    PAUSE,
                    || {
                        attempts += 1;
                        Probe::Refused
                    },
                    Probe::was_refused
                ));
            }
            assert_eq!(attempts, 1);
        }
        let later = begun + PAUSE * (REFUSALS_MAX + PAUSES_IN_A_ROW + 1);
        assert!(!state.step(later, PAUSE, || Probe::Refused, Probe::was_refused));
        assert_eq!(state.refusals, 0);
    }

    #[test]
    fn a_listener_accepts_and_a_closed_port_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        assert!(!connect(peer).was_refused());
        drop(listener);
        assert!(connect(peer).was_refused());
    }
}
