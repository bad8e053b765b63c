//! A new TCP connection to an upstream.
//!
//! Knows addresses and sockets. Of TLS it knows only whether it is wanted.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::failure::Failure;
use super::lookup;
use super::socket::tcp_socket;
use super::wait::{Call, Direction, Limit};

/// TCP keep-alive: probes a silent peer after this time, then at this interval, this many times. A server that lost its
/// power while a prompt was in its queue is noticed after a minute, not only after the first-byte limit of half an
/// hour.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// The place that connections go to.
pub(super) struct ServerOrigin {
    /// A name or an address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The host and the port of the proxy that connections go through.
    pub(super) proxy: Option<(String, u16)>,
    /// The TLS configuration, and the name that the certificate must have; `None`: no TLS.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Connects to the first of the host's addresses, or its proxy's, that accepts the connection.
///
/// # Errors
/// The last address's failure; the client has left, or no descriptors are left.
pub(super) fn dial(call: &Call, origin: &ServerOrigin) -> Result<TcpStream, Failure> {
    let (host, port) = match &origin.proxy {
        Some((host, port)) => (host, *port),
        None => (&origin.host, origin.port),
    };
    let addresses = lookup::addresses(call, host, port)?;
    let mut last_failure = Failure::Refused("the host name has no address".into());
    for (index, address) in addresses.iter().enumerate() {
        let limit = share(call.limit(Direction::Send), addresses.len() - index);
        match connect(call, *address, limit) {
            Ok(stream) => return Ok(stream),
            Err(failure @ (Failure::ClientGone | Failure::Exhausted(_))) => return Err(failure),
            Err(failure) => last_failure = failure,
        }
    }
    Err(last_failure)
}

/// The time for the first of `waits` waits within `limit`: an address that swallows packets (IPv6 on many a LAN) must
/// leave time for the next one.
fn share(limit: Limit, waits: usize) -> Limit {
    let now = Instant::now();
    let waits = u32::try_from(waits).unwrap_or(1).max(1);
    let until = limit.until.map(|until| now + until.saturating_duration_since(now) / waits);
    Limit { until, ..limit }
}

fn connect(call: &Call, address: SocketAddr, limit: Limit) -> Result<TcpStream, Failure> {
    let errno = |errno: Errno| Failure::of_connect(&errno.into());
    let socket = tcp_socket(address).map_err(errno)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            call.until_ready(socket.as_fd(), Direction::Send, limit)?;
            sockopt::socket_error(&socket).and_then(|error| error).map_err(errno)?;
        }
        Err(error) => return Err(errno(error)),
    }
    set_options(&socket).map_err(errno)?;
    Ok(TcpStream::from(socket))
}

fn set_options(socket: &OwnedFd) -> Result<(), Errno> {
    let (idle, interval, count) = KEEPALIVE;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, idle)?;
    sockopt::set_tcp_keepintvl(socket, interval)?;
    sockopt::set_tcp_keepcnt(socket, count)?;
    sockopt::set_tcp_nodelay(socket, true)
}
