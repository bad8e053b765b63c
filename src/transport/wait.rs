//! Waiting for an upstream: one `poll` over its socket and the client's, with every time limit.
//!
//! Knows sockets and clocks; knows nothing of HTTP.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::failure::{Failure, WHILE_CONNECTING};
use super::pulse::Pulse;
use crate::hang_up;

/// Watches the client while an upstream is silent.
pub trait Wait {
    /// The client's socket; its hang-up ends the wait. `None`: there is no client to watch (discovery).
    fn client(&self) -> Option<BorrowedFd<'_>>;

    /// The time from now until the next call of [`Wait::on_silence`]; `None`: never. It is read at the start of every
    /// wait: for the connection, to send, for the head, and for more of the body.
    fn patience(&self) -> Option<Duration>;

    /// Called when that time has passed without a byte.
    ///
    /// # Errors
    /// The client cannot be written to. The call then ends as if the client had hung up.
    fn on_silence(&self) -> io::Result<()>;

    /// Called with `true` when a connection is about to be made or the upstream's models are awaited, and with `false`
    /// once that is done.
    fn on_connecting(&self, _is_connecting: bool) {}
}

/// Watches no client: for calls that no client asked for.
#[derive(Clone, Copy, Debug)]
struct Nobody;

impl Wait for Nobody {
    fn client(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn patience(&self) -> Option<Duration> {
        None
    }

    fn on_silence(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A wait without a client to watch.
pub fn nobody() -> Rc<dyn Wait> {
    Rc::new(Nobody)
}

/// The time limits of a call. Each starts again with every progress, except those on connecting and on the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// To connect: all addresses of a host and the TLS handshake together.
    pub connect_timeout: Duration,
    /// While the upstream accepts no byte of the request.
    pub send_timeout: Duration,
    /// From the request's end to the first byte of the response's body. Before the first token, servers send nothing or
    /// only the head, so this covers their queue and the whole prefill.
    pub first_byte_timeout: Duration,
    /// Between two bytes of the response.
    pub idle_timeout: Duration,
    /// For the first byte, and between bytes, of responses that need no model: the models listing, the count of a
    /// prompt.
    pub discovery_timeout: Duration,
    /// The least time between two attempts at discovery.
    pub discovery_interval: Duration,
    /// If a pooled connection is lost within this time after the request was sent, the server had closed it before. It
    /// cannot have computed anything, so the request may be sent again. If the connection is lost later, a model may
    /// have worked on the request. The same holds for a refusal that does not itself say that nothing was begun.
    pub loss_at_once: Duration,
    /// If the server has been silent for this long, attempts to connect show whether it has stopped.
    pub pulse_after: Duration,
    /// The time between two such attempts.
    pub pulse_every: Duration,
    /// The least silence of all streams of a member of a pool from which on it may hang.
    pub hang_after: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        CallLimits {
            connect_timeout: Duration::from_secs(5),
            send_timeout: Duration::from_secs(60),
            first_byte_timeout: Duration::from_secs(30 * 60),
            idle_timeout: Duration::from_secs(5 * 60),
            discovery_timeout: Duration::from_secs(10),
            discovery_interval: Duration::from_secs(3),
            loss_at_once: Duration::from_millis(100),
            pulse_after: Duration::from_secs(5),
            pulse_every: Duration::from_secs(2),
            hang_after: Duration::from_secs(60),
        }
    }
}

/// The stage that a call has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The TCP connection is being made.
    Connect,
    /// The TLS handshake is under way.
    Handshake,
    /// Request and response are exchanged. A call on a pooled connection starts here.
    Exchange,
}

/// The direction of the awaited bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Until the upstream accepts more bytes.
    Send,
    /// Until the upstream accepts more bytes or has sent something, such as a refusal of a request that is too large.
    SendOrReceive,
    /// Until the upstream has sent something.
    Receive,
}

/// The end of a wait, and its name in the error. `until` is `None` if the wait has no end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// The end.
    pub(super) until: Option<Instant>,
    /// The name, such as "while sending the request".
    pub(super) what: &'static str,
}

/// The state of one call that its connection needs.
pub(super) struct Call {
    wait: Rc<dyn Wait>,
    options: CallLimits,
    stage: Cell<Stage>,
    connect_until: Cell<Option<Instant>>,
    rest_until: Cell<Option<Instant>>,
    sent: Cell<Option<Instant>>,
    received: Cell<bool>,
    begun: Cell<bool>,
    pulse: Option<Arc<Pulse>>,
}

impl Call {
    /// A call that has not begun.
    pub(super) fn new(wait: &Rc<dyn Wait>, options: CallLimits) -> Self {
        Call {
            wait: Rc::clone(wait),
            options,
            stage: Cell::new(Stage::Exchange),
            connect_until: Cell::new(None),
            rest_until: Cell::new(None),
            sent: Cell::new(None),
            received: Cell::new(false),
            begun: Cell::new(false),
            pulse: None,
        }
    }

    /// The same call, which ends when the server has stopped.
    pub(super) fn watching(self, pulse: &Arc<Pulse>) -> Self {
        Call { pulse: Some(Arc::clone(pulse)), ..self }
    }

    /// Notes that the call needs a new connection.
    pub(super) fn begin_connect(&self) {
        self.stage.set(Stage::Connect);
        self.wait.on_connecting(true);
        self.connect_until.set(Instant::now().checked_add(self.options.connect_timeout));
    }

    /// Notes that the call has reached `stage`.
    pub(super) fn advance(&self, stage: Stage) {
        self.stage.set(stage);
        self.wait.on_connecting(stage != Stage::Exchange);
    }

    /// Limits the time for the rest of the response, from now on.
    pub(super) fn limit_rest(&self, time: Duration) {
        self.rest_until.set(Instant::now().checked_add(time));
    }

    /// The stage that the call has reached.
    pub(super) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Notes that the whole request was sent, or that the upstream accepts no more of it.
    pub(super) fn mark_sent(&self) {
        self.sent.set(Some(Instant::now()));
    }

    /// The time when the request was sent.
    pub(super) fn sent(&self) -> Option<Instant> {
        self.sent.get()
    }

    /// True if a connection that is lost now was lost at once: soon after the request was sent and before any byte of a
    /// response, so that no model can have worked on the request.
    pub(super) fn is_lost_at_once(&self) -> bool {
        !self.received.get() && self.is_soon()
    }

    /// Whether so little time has passed since the request was sent that nothing can have been computed.
    pub(super) fn is_soon(&self) -> bool {
        self.sent.get().is_none_or(|sent| sent.elapsed() <= self.options.loss_at_once)
    }

    /// Notes that the first byte of the response has arrived.
    pub(super) fn mark_received(&self) {
        self.received.set(true);
    }

    /// Notes whether the response's content has begun: then the limit on the time between two bytes holds, otherwise the one
    /// on the first byte.
    pub(super) fn set_begun(&self, begun: bool) {
        self.begun.set(begun);
    }

    /// The limit on a wait that starts now.
    pub(super) fn limit(&self, direction: Direction) -> Limit {
        let after = |time: Duration| Instant::now().checked_add(time);
        match (self.stage.get(), direction) {
            (Stage::Connect | Stage::Handshake, _) => {
                Limit { until: self.connect_until.get(), what: WHILE_CONNECTING }
            }
            (Stage::Exchange, Direction::Send | Direction::SendOrReceive) => {
                Limit { until: after(self.options.send_timeout), what: "while sending the request" }
            }
            (Stage::Exchange, Direction::Receive) if self.begun.get() => {
                let (idle, rest) = (after(self.options.idle_timeout), self.rest_until.get());
                match rest.filter(|rest| idle.is_none_or(|idle| *rest <= idle)) {
                    None => Limit { until: idle, what: "between two bytes of the response" },
                    rest => Limit { until: rest, what: "before the end of the answer" },
                }
            }
            (Stage::Exchange, Direction::Receive) => {
                // Counted from the request's end: a head or an interim response does not start it again.
                let sent = self.sent.get().unwrap_or_else(Instant::now);
                let until = sent.checked_add(self.options.first_byte_timeout);
                Limit { until, what: "before the first byte" }
            }
        }
    }

    /// Waits until the upstream's socket is ready, broken or closed; the next read or write shows which.
    ///
    /// # Errors
    /// The client has left, the limit has passed, or the system cannot wait.
    pub(super) fn until_ready(
        &self,
        socket: BorrowedFd<'_>,
        direction: Direction,
        limit: Limit,
    ) -> Result<(), Failure> {
        let pulse = self.pulse.as_deref();
        let pulse = pulse.filter(|_| (self.stage.get(), direction) == (Stage::Exchange, Direction::Receive));
        let ended = |now| {
            let peer = rustix::net::getpeername(socket)
                .ok()
                .flatten()
                .and_then(|peer| SocketAddr::try_from(peer).ok());
            let every = self.options.pulse_every;
            if pulse.zip(self.sent.get()).is_some_and(|(pulse, sent)| pulse.is_given_up(sent)) {
                return Some(Failure::Hung);
            }
            let has_stopped =
                pulse.zip(peer).is_some_and(|(pulse, peer)| pulse.has_stopped(peer, now, every));
            has_stopped.then_some(Failure::Stopped)
        };
        let checks = pulse.map(|_| Checks {
            after: self.options.pulse_after,
            every: self.options.pulse_every,
            ended: &ended,
        });
        match until_ready(self.wait.as_ref(), socket, direction, limit.until, checks)? {
            true => Ok(()),
            false => Err(Failure::Timeout(limit.what)),
        }
    }
}

/// True if the client has left already. Used before work for the client begins, when nothing is waited for.
pub fn has_left(wait: &dyn Wait) -> bool {
    let Some(client) = wait.client() else { return false };
    let mut sockets = [PollFd::from_borrowed_fd(client, hang_up::events(client))];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let seen = rustix::event::poll(&mut sockets, Some(&now));
    let [client_seen] = &sockets;
    matches!(seen, Ok(1..)) && hang_up::is_shown(client, client_seen.revents())
}

/// Waits at most `time` until `ready` can be read from, and watches the client meanwhile: for a place in a queue, or
/// before another try. Returns true if `ready` can be read from.
///
/// # Errors
/// [`Failure::ClientGone`], or an error of the system.
pub fn wait_for(wait: &dyn Wait, ready: BorrowedFd<'_>, time: Duration) -> Result<bool, Failure> {
    let until = Instant::now().checked_add(time);
    until_ready(wait, ready, Direction::Receive, until, None)
}

/// When to check whether a silent server has stopped.
#[derive(Clone, Copy)]
struct Checks<'c> {
    after: Duration,
    every: Duration,
    /// The failure that ends the wait.
    ended: &'c dyn Fn(Instant) -> Option<Failure>,
}

/// Returns true if the socket is ready, false if `until` has passed.
fn until_ready(
    wait: &dyn Wait,
    socket: BorrowedFd<'_>,
    direction: Direction,
    until: Option<Instant>,
    checks: Option<Checks<'_>>,
) -> Result<bool, Failure> {
    // Without this minimum, a patience of zero would make a busy loop.
    const PATIENCE_MIN: Duration = Duration::from_millis(1);
    let next_tick = || wait.patience().and_then(|patience| Instant::now().checked_add(patience));
    let mut tick = next_tick();
    let mut check = checks.and_then(|checks| Instant::now().checked_add(checks.after));
    loop {
        let wake = [until, tick, check].into_iter().flatten().min();
        let timeout = wake.map(|at| at.saturating_duration_since(Instant::now()));
        let seen = poll(socket, direction, wait.client(), timeout);
        match seen.map_err(|error| Failure::Reset(error.to_string()))? {
            Seen::Upstream => return Ok(true),
            Seen::ClientGone => return Err(Failure::ClientGone),
            Seen::Nothing => {}
        }
        let now = Instant::now();
        if until.is_some_and(|at| at <= now) {
            return Ok(false);
        }
        if let Some(checks) = checks.filter(|_| check.is_some_and(|at| at <= now)) {
            if let Some(failure) = (checks.ended)(now) {
                return Err(failure);
            }
            check = now.checked_add(checks.every.max(PATIENCE_MIN));
        }
        if tick.is_some_and(|at| at <= now) {
            wait.on_silence().map_err(|_| Failure::ClientGone)?;
            tick = next_tick().map(|at| at.max(now + PATIENCE_MIN));
        }
    }
}

/// The result of one `poll`.
enum Seen {
    /// The upstream's socket is ready, broken or closed.
    Upstream,
    /// The client has hung up; this takes precedence over anything that the upstream sent.
    ClientGone,
    /// The time has passed, or a signal came.
    Nothing,
}

fn poll(
    upstream: BorrowedFd<'_>,
    direction: Direction,
    client: Option<BorrowedFd<'_>>,
    timeout: Option<Duration>,
) -> io::Result<Seen> {
    let interest = match direction {
        Direction::Send => PollFlags::OUT,
        Direction::SendOrReceive => PollFlags::OUT | PollFlags::IN,
        Direction::Receive => PollFlags::IN,
    };
    // A timeout too long for the kernel to count means no timeout.
    let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
    // On the client's socket only a hang-up matters (`poll` always reports errors): a pipelined request that waits
    // there does not mean that the client left. Without a client, the upstream's socket takes its place, with no events
    // of interest.
    let (other, other_interest) = match client {
        Some(client) => (client, hang_up::events(client)),
        None => (upstream, PollFlags::empty()),
    };
    let mut sockets =
        [PollFd::from_borrowed_fd(upstream, interest), PollFd::from_borrowed_fd(other, other_interest)];
    match rustix::event::poll(&mut sockets, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let [upstream, other] = &sockets;
    Ok(if client.is_some_and(|client| hang_up::is_shown(client, other.revents())) {
        Seen::ClientGone
    } else if !upstream.revents().is_empty() {
        Seen::Upstream
    } else {
        Seen::Nothing
    })
}

/// A wait that watches a client, and that client's socket.
#[cfg(test)]
pub(crate) fn minded() -> (Rc<dyn Wait>, std::net::TcpStream) {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    struct Minded(TcpStream);

    impl Wait for Minded {
        fn client(&self) -> Option<BorrowedFd<'_>> {
            Some(self.0.as_fd())
        }

        fn patience(&self) -> Option<Duration> {
            None
        }

        fn on_silence(&self) -> io::Result<()> {
            Ok(())
        }
    }

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    (Rc::new(Minded(listener.accept().expect("a client is there").0)), client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_stage() {
        let wait: Rc<dyn Wait> = Rc::new(Nobody);
        let call = Call::new(&wait, CallLimits::default());
        assert_eq!(call.limit(Direction::Receive).what, "before the first byte");
        assert_eq!(call.limit(Direction::Send).what, "while sending the request");
        call.mark_received();
        assert_eq!(call.limit(Direction::Receive).what, "before the first byte");
        call.set_begun(true);
        assert_eq!(call.limit(Direction::Receive).what, "between two bytes of the response");
        call.begin_connect();
        assert_eq!(call.limit(Direction::Send).what, "while connecting");
        call.advance(Stage::Handshake);
        assert_eq!(call.limit(Direction::Receive).what, "while connecting");
    }

    #[test]
    fn the_rest_of_a_response_has_both_limits() {
        let wait: Rc<dyn Wait> = Rc::new(Nobody);
        let idle_timeout = Duration::from_secs(60);
        for (rest_s, what) in
            [(2, "before the end of the answer"), (300, "between two bytes of the response")]
        {
            let call = Call::new(&wait, CallLimits { idle_timeout, ..CallLimits::default() });
            call.set_begun(true);
            call.limit_rest(Duration::from_secs(rest_s));
            let limit = call.limit(Direction::Receive);
            assert_eq!(limit.what, what);
            assert!(limit.until.unwrap() <= Instant::now() + idle_timeout);
        }
    }

    #[test]
    fn the_first_byte_is_awaited_from_the_requests_end() {
        let wait: Rc<dyn Wait> = Rc::new(Nobody);
        let call = Call::new(&wait, CallLimits::default());
        call.mark_sent();
        let until = call.limit(Direction::Receive).until;
        call.mark_received();
        assert_eq!(call.limit(Direction::Receive).until, until, "a part of the head begins no new wait");
    }

    #[test]
    fn a_loss_is_at_once_only_before_any_byte_and_soon_after_the_request() {
        let wait: Rc<dyn Wait> = Rc::new(Nobody);
        for (loss_at_once, expected) in [(Duration::MAX, true), (Duration::ZERO, false)] {
            let call = Call::new(&wait, CallLimits { loss_at_once, ..CallLimits::default() });
            assert!(call.is_lost_at_once(), "not even the request was sent");
            call.mark_sent();
            let sent = Instant::now();
            while sent.elapsed().is_zero() {}
            assert_eq!(call.is_lost_at_once(), expected);
            call.mark_received();
            assert!(!call.is_lost_at_once());
        }
    }

    #[test]
    fn a_limit_beyond_all_clocks_is_none() {
        let wait: Rc<dyn Wait> = Rc::new(Nobody);
        let options = CallLimits { idle_timeout: Duration::MAX, ..CallLimits::default() };
        let call = Call::new(&wait, options);
        call.set_begun(true);
        assert!(call.limit(Direction::Receive).until.is_none());
    }
}
