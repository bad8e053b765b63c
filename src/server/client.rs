//! One connection from its first byte to its end: request after request, in a thread of its own.
//!
//! Knows the clock and the stop. The handler knows the meaning of a request.

use std::any::Any;
use std::cell::RefCell;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::handler::{Client, ServerLimits, ServerShared};
use super::stop::{ConnectionSlot, rest, wait_readable, wait_readable_always};
use super::stream::ClientStream;
use super::table::ConnectionPlace;
use super::tls::NoHandshake;
use crate::error::{Error, Kind};
use crate::http::{Connection, Request, RequestFailure, RequestLimits, Socket, Waiting};
use crate::ids;

/// The limits on how long, and how much of, an unread request is read and dropped after the response to it. Closing at
/// once would reset the connection, and a client that still sends would not read why it was refused. The size is twice
/// the Messages API's limit for a body, so that a client whose body is somewhat too large reads the refusal.
const LINGER_TIME: Duration = Duration::from_secs(3);
const LINGER_SIZE_MAX: usize = 64 * 1024 * 1024;

const LINGER_READ_SIZE: usize = 16 * 1024;

/// The probes that find a client which vanished without a word, such as a laptop that lost its power: it is noticed 90 s
/// after the last sign of it. Until then a model may generate for nobody, but a network that fails for a minute, or a
/// laptop that sleeps for one, costs no answer.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
const PROBES: u32 = 4;

/// The time that sent bytes may stay unacknowledged. While such bytes wait, the system sends no probes.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(90);

/// Serves the connection until either side ends it.
pub(super) fn converse(socket: Socket, client: SocketAddr, shared: &ServerShared, slot: &ConnectionSlot) {
    if let Err(error) = prepare(socket.stream(), &shared.options) {
        log::debug!("{client}: {error}");
        return;
    }
    let Some(stream) = open_stream(socket, client, shared) else { return };
    let mut connection = Connection::new(stream, shared.options.limits);
    connection.end_with(shared.stop.end());
    let connection = Rc::new(RefCell::new(connection));
    let place = slot.place();
    loop {
        // A connection without an admitted request ends at a fixed time, however many requests it sends.
        let is_known = connection.borrow().is_known();
        let idle_since = if is_known { Instant::now() } else { place.opened() };
        let head = read_head(&mut connection.borrow_mut(), shared, idle_since + shared.options.keep_alive);
        // A connection that has ended goes on to make room for others until its place is free.
        if matches!(head, Ok(Some(_)) | Err(RequestFailure::Reject(_))) {
            place.begin();
        }
        match head {
            Ok(Some(request)) => {
                if !is_known && idle_since.elapsed() >= shared.options.keep_alive {
                    connection.borrow_mut().close_after_response();
                }
                handle(&connection, request, client, shared);
                answer_late(&connection, client, shared, place);
            }
            Ok(None) | Err(RequestFailure::Closed) => return,
            Err(RequestFailure::Io(error)) => {
                log::debug!("{client}: {error}");
                return;
            }
            Err(RequestFailure::Reject(error)) => {
                log::debug!("{client}: {error}");
                answer(&mut connection.borrow_mut(), &error, client);
            }
        }
        if connection.borrow().must_close() {
            break;
        }
        place.wait(connection.borrow().is_known());
    }
    // From here on nothing is lost if the connection makes room for another one.
    place.wait(false);
    let mut connection = connection.borrow_mut();
    connection.stream_mut().end();
    if connection.has_unread() {
        linger(connection.stream().socket().stream());
    }
}

/// The stream of a new connection, after the handshake if the listener speaks TLS. `None`: the connection has ended.
fn open_stream(socket: Socket, client: SocketAddr, shared: &ServerShared) -> Option<ClientStream> {
    let Some(tls) = &shared.tls else { return Some(ClientStream::Plain(socket)) };
    let until = Instant::now() + shared.options.head_timeout;
    match tls.accept(socket, &shared.stop, (until, shared.options.body_timeout)) {
        Ok(stream) => Some(stream),
        Err(NoHandshake::Closed) => None,
        Err(NoHandshake::Failed(error)) => {
            log::debug!("{client}: in the TLS handshake: {error}");
            None
        }
        Err(NoHandshake::PlainHttp(socket)) => {
            refuse_plain(socket, client);
            None
        }
    }
}

/// Tells a client that sends plain HTTP to a port of TLS so.
fn refuse_plain(socket: Socket, client: SocketAddr) {
    let mut connection = Connection::new(socket, RequestLimits::default());
    let error = Error::invalid("this port speaks HTTPS: use https:// instead of http://");
    if let Err(error) = connection.refuse(&error, &ids::request_id()) {
        log::debug!("{client}: {error}");
        return;
    }
    linger(connection.stream().stream());
}

/// Sets the socket's timeouts, each of which covers one read or write that makes no progress, and the probes.
fn prepare(stream: &TcpStream, options: &ServerLimits) -> io::Result<()> {
    // On some systems an accepted socket inherits the listener's non-blocking mode.
    stream.set_nonblocking(false)?;
    // Each chunk is one write and has to leave at once: somebody waits for the token in it.
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(options.body_timeout))?;
    stream.set_write_timeout(Some(options.write_timeout))?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    limit_unacknowledged(stream, options)
}

/// Ends a connection whose client acknowledges nothing.
#[cfg(target_os = "linux")]
fn limit_unacknowledged(stream: &TcpStream, options: &ServerLimits) -> io::Result<()> {
    // A client that is there and reads nothing has the time that the owner gave it.
    let unacknowledged = UNACKNOWLEDGED_MAX.max(options.write_timeout).as_millis();
    sockopt::set_tcp_user_timeout(stream, u32::try_from(unacknowledged).unwrap_or(u32::MAX))?;
    Ok(())
}

/// Elsewhere the timeout of writes ends such a connection, later, once the socket's buffer is full.
#[cfg(not(target_os = "linux"))]
fn limit_unacknowledged(_: &TcpStream, _: &ServerLimits) -> io::Result<()> {
    Ok(())
}

/// Waits for the next head, until `idle_until` for its first byte. The deadlines are kept here, since a timeout of the socket starts anew with every byte.
fn read_head(
    connection: &mut Connection<ClientStream>,
    shared: &ServerShared,
    idle_until: Instant,
) -> Result<Option<Request>, RequestFailure> {
    let mut head_until = None;
    connection.read_head_with(|stream, waiting| {
        let mut until_head =
            || *head_until.get_or_insert_with(|| Instant::now() + shared.options.head_timeout);
        let socket = stream.socket().stream();
        let ready = match waiting {
            _ if stream.has_more() => true,
            Waiting::Idle => wait_readable(socket, &shared.stop, Some(idle_until))?,
            Waiting::Head => wait_readable_always(socket, until_head())?,
        };
        if stream.is_secure() {
            stream.limit_next_read(until_head());
        }
        if ready { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    })
}

/// Calls the handler, and makes sure that the client gets a response.
fn handle(connection: &Client, request: Request, client: SocketAddr, shared: &ServerShared) {
    // A handler that panics may leave only the connection half done, and the connection knows its own state.
    let handled = catch_unwind(AssertUnwindSafe(|| shared.handler.handle(connection, request, client)));
    let connection = &mut *connection.borrow_mut(); // after a panic, unwinding has released the handler's borrow
    match handled {
        Ok(Ok(())) if connection.response_begun() || connection.is_late() => {}
        Ok(Ok(())) => {
            log::error!("{client}: the handler did not respond to a request");
            answer(connection, &Error::new(Kind::Api, "Internal server error"), client);
        }
        Ok(Err(error)) => {
            // The connection reports `InvalidInput` for wrong calls by the handler; other errors come from the client or the
            // network.
            let ours = error.kind() == io::ErrorKind::InvalidInput;
            log::log!(if ours { log::Level::Error } else { log::Level::Debug }, "{client}: {error}");
            connection.close_after_response();
            // A client that has left, or ended its request in the middle, gets no response: a 500 would blame sparkgap.
            if !is_gone(&error) {
                answer(connection, &Error::new(Kind::Api, "Internal server error"), client);
            }
        }
        Err(panic) => {
            log::error!("{client}: a request's thread panicked: {}", panic_message(panic.as_ref()));
            connection.close_after_response();
            answer(connection, &Error::new(Kind::Api, "Internal server error"), client);
        }
    }
}

/// Sends the refusal that the handler has left to be sent later, if there is one. Until then the connection waits like
/// one that never had a valid key, so that it makes room for others: whoever has no key could otherwise hold every
/// place. It ends with the refusal, since further requests that the client has sent already would wait as well.
fn answer_late(connection: &Client, client: SocketAddr, shared: &ServerShared, place: &ConnectionPlace) {
    let connection = &mut *connection.borrow_mut();
    let Some(refusal) = connection.take_late() else { return };
    place.wait(false);
    if let Err(error) =
        rest(connection.stream().socket().stream(), &shared.stop, Instant::now() + refusal.delay)
    {
        log::debug!("{client}: {error}");
    }
    connection.close_after_response();
    if let Err(error) = connection.respond_error(&refusal.error, &refusal.request_id) {
        log::debug!("{client}: {error}");
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Responds with an error, unless a response has begun.
fn answer(connection: &mut Connection<ClientStream>, error: &Error, client: SocketAddr) {
    if connection.response_begun() {
        return;
    }
    if let Err(error) = connection.respond_error(error, &ids::request_id()) {
        log::debug!("{client}: {error}");
    }
}

/// Ends our side, and drops the bytes that the client still sends until it ends its own side or a limit is reached.
fn linger(mut stream: &TcpStream) {
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    let until = Instant::now() + LINGER_TIME;
    // On the heap: the stack frame of this function stays below every connection.
    let mut chunk = vec![0; LINGER_READ_SIZE];
    let mut size = 0;
    while size < LINGER_SIZE_MAX && matches!(wait_readable_always(stream, until), Ok(true)) {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => size += count,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_client_that_vanishes_is_noticed_within_two_minutes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        prepare(&stream, &ServerLimits::default()).unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        let probes = sockopt::tcp_keepintvl(&stream).unwrap() * sockopt::tcp_keepcnt(&stream).unwrap();
        let idle = sockopt::tcp_keepidle(&stream).unwrap() + probes;
        let sending = Duration::from_millis(sockopt::tcp_user_timeout(&stream).unwrap().into());
        let two_minutes = Duration::from_secs(120);
        assert!(idle < two_minutes && sending < two_minutes, "{idle:?} {sending:?}");
        let patient = ServerLimits { write_timeout: Duration::from_secs(600), ..ServerLimits::default() };
        prepare(&stream, &patient).unwrap();
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 600_000);
    }
}
