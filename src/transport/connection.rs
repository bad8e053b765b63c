//! One connection to an upstream, with or without TLS. Its socket never blocks: [`Call::until_ready`] does all waiting.
//!
//! Knows sockets and TLS; knows nothing of HTTP.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd as _;

use rustls::ClientConnection;

use super::dial::{ServerOrigin, dial};
use super::failure::Failure;
use super::wait::{Call, Direction, Stage};
use crate::shown::ShownText;

/// The longest head of a proxy's answer to `CONNECT`, in bytes.
const TUNNEL_HEAD_SIZE_MAX: usize = 8 * 1024;

/// A connection to an upstream. Dropping it closes it.
pub(super) struct UpstreamConnection {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// True once the upstream accepts no more bytes.
    send_broken: bool,
}

impl UpstreamConnection {
    /// Opens a connection.
    ///
    /// # Errors
    /// The connection cannot be made in time, TLS cannot be agreed on, or the client has left.
    // `inline(never)`: keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory
    // budget). It is rarely called, and TLS takes 8 KB of stack.
    #[inline(never)]
    pub(super) fn open(origin: &ServerOrigin, call: &Call) -> Result<Self, Failure> {
        call.begin_connect();
        let stream = dial(call, origin)?;
        call.advance(Stage::Handshake);
        if origin.proxy.is_some() {
            open_tunnel(&stream, origin, call)?;
        }
        let mut connection = UpstreamConnection { stream, tls: None, send_broken: false };
        if let Some((config, name)) = &origin.tls {
            let tls = ClientConnection::new(config.clone(), name.clone());
            let mut tls = Box::new(tls.map_err(|error| Failure::Tls(error.to_string()))?);
            let mut socket = BlockingSocket::new(&connection.stream, call);
            let agreed = tls.complete_io(&mut socket);
            agreed.map_err(|error| socket.failure(&error, Failure::Reset))?;
            connection.tls = Some(tls);
        }
        call.advance(Stage::Exchange);
        Ok(connection)
    }

    /// Sends all of `parts`, with one write if the system takes them.
    ///
    /// # Errors
    /// The client has left, a limit has passed, or the connection failed. An upstream that accepts no more bytes is not
    /// an error: it may have answered (401, 413) and closed, or stopped reading, before it has read the whole request,
    /// and the read that follows finds the answer, or the same end.
    pub(super) fn send(&mut self, parts: [&[u8]; 2], call: &Call) -> Result<(), Failure> {
        let mut socket = BlockingSocket::new(&self.stream, call);
        let sent = match &mut self.tls {
            None => {
                socket.may_be_answered = true;
                write_all(&mut socket, parts)
            }
            Some(tls) => write_all(&mut rustls::Stream::new(tls.as_mut(), &mut socket), parts),
        };
        match sent {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.send_broken = true;
                Ok(())
            }
            sent => sent.map_err(|error| socket.failure(&error, Failure::Reset)),
        }
    }

    /// Waits for the next bytes; 0: the upstream has closed. Some servers close TLS without announcing it. That is not
    /// dangerous, since the end of a body is known from its framing, or the reader checks it. `lost` makes the failure
    /// of a connection that breaks: before a response or within it.
    ///
    /// # Errors
    /// The client has left, a limit has passed, or the connection failed.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        call: &Call,
        lost: fn(String) -> Failure,
    ) -> Result<usize, Failure> {
        let mut socket = BlockingSocket::new(&self.stream, call);
        let read = match &mut self.tls {
            None => socket.read(buffer),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut socket).read(buffer),
        };
        match read {
            Ok(count @ 1..) => {
                call.mark_received();
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
            ended => ended.map_err(|error| socket.failure(&error, lost)),
        }
    }

    /// True if the connection may serve another call.
    pub(super) fn is_whole(&self) -> bool {
        !self.send_broken
    }

    /// True if nothing can be read: neither the connection's end nor unexpected bytes.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        self.tls.as_ref().is_none_or(|tls| tls.wants_read())
            && matches!((&self.stream).read(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

/// Asks the proxy at the other end for a tunnel to the upstream.
fn open_tunnel(stream: &TcpStream, origin: &ServerOrigin, call: &Call) -> Result<(), Failure> {
    let mut socket = BlockingSocket::new(stream, call);
    // An IPv6 address has its brackets here only.
    let host = if origin.host.contains(':') { format!("[{}]", origin.host) } else { origin.host.clone() };
    let target = format!("{host}:{}", origin.port);
    let question = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n");
    let sent = write_all(&mut socket, [question.as_bytes(), b""]);
    if let Err(error) = sent {
        return Err(socket.failure(&error, Failure::Reset));
    }
    let mut head = Vec::new();
    // Byte by byte: the first byte behind the head belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") && head.len() < TUNNEL_HEAD_SIZE_MAX {
        let mut byte = [0];
        match socket.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => head.extend(byte),
            Err(error) => return Err(socket.failure(&error, Failure::Reset)),
        }
    }
    let text = String::from_utf8_lossy(&head);
    let line = text.lines().next().unwrap_or_default();
    let is_open = line.starts_with("HTTP/1.") && line.split(' ').nth(1).is_some_and(|it| it.starts_with('2'));
    if is_open && head.ends_with(b"\r\n\r\n") {
        return Ok(());
    }
    Err(Failure::Refused(format!("the proxy does not connect to {target}: {}", ShownText::new(line))))
}

fn write_all(stream: &mut impl Write, [mut first, mut second]: [&[u8]; 2]) -> io::Result<()> {
    while !(first.is_empty() && second.is_empty()) {
        match stream.write_vectored(&[IoSlice::new(first), IoSlice::new(second)])? {
            0 => return Err(ErrorKind::WriteZero.into()),
            count => {
                second = second.get(count.saturating_sub(first.len())..).unwrap_or_default();
                first = first.get(count..).unwrap_or_default();
            }
        }
    }
    stream.flush()
}

/// The bytes of an answer up to the first digit of its status: `HTTP/1.1 4`.
const ANSWER_START_SIZE: usize = 10;

/// The socket as TLS sees it: one that blocks until the call must end.
struct BlockingSocket<'a> {
    stream: &'a TcpStream,
    call: &'a Call,
    /// True while an answer that arrives ends a write. Never true for TLS, whose records arrive also without an answer.
    may_be_answered: bool,
    /// The failure of a wait. TLS passes an [`io::Error`] on, which cannot hold it.
    failed: Option<Failure>,
}

impl<'a> BlockingSocket<'a> {
    fn new(stream: &'a TcpStream, call: &'a Call) -> Self {
        BlockingSocket { stream, call, may_be_answered: false, failed: None }
    }

    fn wait(&mut self, direction: Direction) -> io::Result<()> {
        let ready = self.call.until_ready(self.stream.as_fd(), direction, self.call.limit(direction));
        ready.map_err(|failure| {
            self.failed = Some(failure);
            ErrorKind::Other.into()
        })
    }

    /// Waits until the upstream accepts more bytes. An answer that arrives meanwhile is the same as a broken pipe: the
    /// upstream need not read any further, so waiting for it could last until the time limit.
    fn wait_to_send(&mut self) -> io::Result<()> {
        if !self.may_be_answered {
            return self.wait(Direction::Send);
        }
        self.wait(Direction::SendOrReceive)?;
        let mut start = [0; ANSWER_START_SIZE];
        match self.stream.peek(&mut start) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Ok(ANSWER_START_SIZE) if !start.ends_with(b"1") => Err(ErrorKind::BrokenPipe.into()),
            // An interim answer (100, 103), the first bytes of one, or an end, which the next write or read finds.
            _ => {
                self.may_be_answered = false;
                Ok(())
            }
        }
    }

    /// The failure that `error` stands for, made by `lost` if the connection broke.
    fn failure(self, error: &io::Error, lost: fn(String) -> Failure) -> Failure {
        match (self.failed, self.call.stage()) {
            (Some(failure), _) => failure,
            (None, Stage::Connect) => Failure::Refused(error.to_string()),
            // rustls wraps its errors in this kind, in the handshake and after it: with TLS 1.3 the server reports a
            // refused client certificate only afterwards.
            (None, Stage::Handshake | Stage::Exchange) if error.kind() == ErrorKind::InvalidData => {
                Failure::Tls(error.to_string())
            }
            // The server, or a proxy in front of it, closed in the handshake: it is starting or stopping.
            (None, Stage::Handshake) => Failure::Refused(format!("in the TLS handshake: {error}")),
            (None, Stage::Exchange) => lost(error.to_string()),
        }
    }
}

impl Read for BlockingSocket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.stream;
        loop {
            self.wait(Direction::Receive)?;
            match stream.read(buffer) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                result => return result,
            }
        }
    }
}

impl Write for BlockingSocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut stream = self.stream;
        loop {
            match stream.write_vectored(parts) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait_to_send()?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
