//! The socket as TLS sees it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::stop::wait_readable_always;

/// A socket each of whose reads ends at a fixed time, however slowly bytes arrive.
pub(super) struct LimitedSocket<'s> {
    pub(super) stream: &'s TcpStream,
    pub(super) until: Instant,
}

impl Read for LimitedSocket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match wait_readable_always(self.stream, self.until)? {
            true => self.stream.read(buffer),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for LimitedSocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.stream.write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
