//! The sockets that ureq gets from us: never blocking, always waited for by [`Call::until_ready`].
//!
//! Knows TCP and ureq's transport traits; knows nothing of requests. `ureq::unversioned` has no semver: this file
//! and `buffers` are what must be looked at when ureq is raised.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, Transport,
};

use super::buffers::ConnectionBuffers;
use super::lookup;
use super::wait::{Call, Direction, Ended, Limit, Stage};

/// TCP probes a silent peer after this time, then at this interval, so often. A server that lost its power while a
/// prompt was in its queue is noticed after a minute and not after the first-byte limit of half an hour.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// TCP, then the mark that the connection stands.
pub(super) fn plain() -> impl Connector<()> {
    Dial.chain(Establish)
}

/// TCP, then TLS, then the mark that the connection stands. Making a TLS connection takes 8 KB of stack, so only those
/// come here that want one.
pub(super) fn secure() -> impl Connector<()> {
    Dial.chain(RustlsConnector::default()).chain(Establish)
}

/// Resolves nothing: ureq asks before every call, also before those that reuse a connection. [`Dial`] looks the
/// host up itself when it must.
#[derive(Debug)]
pub(super) struct Later;

impl Resolver for Later {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        // At least one address is asked for; nobody looks at it.
        let mut addresses = self.empty();
        addresses.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        Ok(addresses)
    }
}

/// Makes TCP connections.
#[derive(Debug)]
struct Dial;

impl Connector<()> for Dial {
    type Out = Socket;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Socket>, ureq::Error> {
        let call = Call::current()?;
        call.begin_connect();
        let stream = dial(&call, details.uri)?;
        call.advance(Stage::Handshake);
        let buffers = ConnectionBuffers::default();
        Ok(Some(Socket { stream, buffers, held: Vec::new(), send_broken: false, is_resting: false }))
    }
}

fn dial(call: &Call, uri: &Uri) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let addresses = lookup::addresses(call, host, port)?;
    let mut last_error = io::Error::new(ErrorKind::NotFound, "the host name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let limit = share(call.limit(Direction::Send), addresses.len() - index);
        match connect(call, *address, limit) {
            Ok(stream) => return Ok(stream),
            Err(error) if Ended::find(&error) == Some(Ended::ClientGone) => return Err(error),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// The first of so many waits within `limit`: an address that swallows packets (IPv6 on many a LAN) must leave time
/// for the next one.
fn share(limit: Limit, waits: usize) -> Limit {
    let now = Instant::now();
    let waits = u32::try_from(waits).unwrap_or(1).max(1);
    let until = limit.until.map(|until| now + until.saturating_duration_since(now) / waits);
    Limit { until, ..limit }
}

fn connect(call: &Call, address: SocketAddr, limit: Limit) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            call.until_ready(socket.as_fd(), Direction::Send, limit)?;
            sockopt::socket_error(&socket)??;
        }
        Err(errno) => return Err(errno.into()),
    }
    let (idle, interval, count) = KEEPALIVE;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, idle)?;
    sockopt::set_tcp_keepintvl(&socket, interval)?;
    sockopt::set_tcp_keepcnt(&socket, count)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(TcpStream::from(socket))
}

/// A TCP connection to an upstream.
struct Socket {
    stream: TcpStream,
    buffers: ConnectionBuffers,
    /// Sent with what follows, or before the answer is awaited. ureq hands a request's head over on its own; in a write of
    /// its own it would wake the upstream for nothing.
    held: Vec<u8>,
    /// The upstream takes no more bytes.
    send_broken: bool,
    /// It has been in the pool since its last call.
    is_resting: bool,
}

/// What is held back at most: a head.
const HELD_SIZE_MAX: usize = 4 * 1024;

impl Socket {
    /// Writes what is held and the first `amount` bytes of the output, in one go if the system takes them.
    fn send(&mut self, call: &Call, amount: usize) -> io::Result<()> {
        let mut held = self.held.as_slice();
        let mut rest = self.buffers.pending(amount);
        while !(self.send_broken || held.is_empty() && rest.is_empty()) {
            match (&self.stream).write_vectored(&[IoSlice::new(held), IoSlice::new(rest)]) {
                Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero)),
                Ok(count) => {
                    rest = rest.get(count.saturating_sub(held.len())..).unwrap_or_default();
                    held = held.get(count..).unwrap_or_default();
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        call.until_ready(self.stream.as_fd(), Direction::Send, call.limit(Direction::Send))?;
                    }
                    ErrorKind::Interrupted => {}
                    // A server may answer (401, 413) and close before it has read the whole request. So the rest
                    // is dropped here, and the read that follows finds the answer, or the same reset.
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => self.send_broken = true,
                    _ => return Err(error),
                },
            }
        }
        self.held = Vec::new();
        Ok(())
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let call = Call::current()?;
        self.buffers.expect_body(call.body_size());
        if self.held.is_empty() && amount <= HELD_SIZE_MAX {
            self.held.extend_from_slice(self.buffers.pending(amount));
            return Ok(());
        }
        Ok(self.send(&call, amount)?)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let call = Call::current()?;
        self.is_resting = false;
        self.send(&call, 0)?;
        self.buffers.release_output();
        loop {
            call.until_ready(self.stream.as_fd(), Direction::Receive, call.limit(Direction::Receive))?;
            let room = self.buffers.input_append_buf();
            if room.is_empty() {
                return Err(io::Error::from(Ended::TooLarge).into());
            }
            match (&self.stream).read(room) {
                Ok(count) => {
                    self.buffers.input_appended(count);
                    return Ok(count > 0);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asked when the connection goes into the pool and when it is to leave it: between two calls. The socket itself is
    /// asked only then: what it says later holds for before, too.
    fn is_open(&mut self) -> bool {
        if self.send_broken || !self.held.is_empty() || !self.buffers.release() {
            return false;
        }
        if !std::mem::replace(&mut self.is_resting, true) {
            return true;
        }
        // Nothing may be there to read: neither the end nor bytes that nobody asked for.
        let mut byte = [0];
        matches!((&self.stream).read(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

/// Marks that the connection stands, TLS included.
#[derive(Debug)]
struct Establish;

impl<In: Transport> Connector<In> for Establish {
    type Out = Established<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        Call::current()?.advance(Stage::Exchange);
        Ok(chained.map(Established))
    }
}

/// A connection that tells its call of the response's first byte. It stands outside of TLS, whose own records (a
/// session ticket, a closing alert) are no response.
#[derive(Debug)]
struct Established<T>(T);

impl<T: Transport> Transport for Established<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let progress = self.0.await_input(timeout)?;
        if progress {
            Call::current()?.mark_received();
        }
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
