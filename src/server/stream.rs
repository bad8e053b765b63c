//! The stream of a client's connection: its socket, with or without TLS.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use rustls::ServerConnection;

use super::tls_socket::LimitedSocket;
use crate::http::Socket;

/// The bytes between a client and its connection's thread.
pub enum ClientStream {
    /// Plain HTTP: the socket itself.
    Plain(Socket),
    /// HTTPS.
    Tls(TlsStream),
}

/// A TLS connection whose handshake is done. When it is dropped, the client is told that it has ended.
pub struct TlsStream {
    socket: Socket,
    connection: Box<ServerConnection>,
    /// True if bytes were decrypted that nobody has read yet: the socket does not show them.
    has_more: bool,
    /// The time for one read: a record may arrive byte by byte.
    read_time: Duration,
    /// An earlier end of the next read, if it has one.
    read_until: Cell<Option<Instant>>,
}

impl ClientStream {
    /// The socket, to watch it or to shut it down.
    pub fn socket(&self) -> &Socket {
        match self {
            ClientStream::Plain(socket) => socket,
            ClientStream::Tls(tls) => &tls.socket,
        }
    }

    /// True for HTTPS.
    pub fn is_secure(&self) -> bool {
        matches!(self, ClientStream::Tls(_))
    }

    /// True if a read returns at once, though the socket may have nothing to read.
    pub(super) fn has_more(&self) -> bool {
        matches!(self, ClientStream::Tls(TlsStream { has_more: true, .. }))
    }

    /// Ends the next read at this time. Without TLS a read takes what is there.
    pub(super) fn limit_next_read(&self, until: Instant) {
        if let ClientStream::Tls(tls) = self {
            tls.read_until.set(Some(until));
        }
    }

    /// Tells the client that nothing more comes.
    pub(super) fn end(&mut self) {
        if let ClientStream::Tls(tls) = self {
            tls.end();
        }
    }
}

impl TlsStream {
    pub(super) fn new(socket: Socket, connection: Box<ServerConnection>, read_time: Duration) -> Self {
        let mut stream =
            TlsStream { socket, connection, has_more: false, read_time, read_until: Cell::new(None) };
        // The first request may have come with the end of the handshake. An error is found by the first read.
        let _ = stream.note_more();
        stream
    }

    /// Notes whether bytes were decrypted that nobody has read yet.
    fn note_more(&mut self) -> io::Result<()> {
        let state = self.connection.process_new_packets().map_err(io::Error::other)?;
        self.has_more = state.plaintext_bytes_to_read() > 0;
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let until = self.read_until.take().unwrap_or_else(|| Instant::now() + self.read_time);
        let mut socket = LimitedSocket { stream: self.socket.stream(), until };
        let read = rustls::Stream::new(self.connection.as_mut(), &mut socket).read(buffer);
        // A client that closes without announcing it cannot cut a request short: its framing shows the end.
        let read = read.or_else(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Ok(0),
            _ => Err(error),
        })?;
        self.note_more()?;
        Ok(read)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.connection.writer().write(bytes)?;
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.socket)?;
        }
        Ok(count)
    }

    fn end(&mut self) {
        self.connection.send_close_notify();
        // Nobody waits for this: a client whose buffer is full does not get it.
        if self.socket.stream().set_nonblocking(true).is_ok() {
            let _ = self.connection.write_tls(&mut self.socket);
        }
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.end();
    }
}

impl Read for ClientStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            ClientStream::Plain(socket) => socket.read(buffer),
            ClientStream::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for ClientStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            ClientStream::Plain(socket) => socket.write(bytes),
            ClientStream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
