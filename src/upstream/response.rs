//! An upstream's response: its head, and its body as it comes.
//!
//! Knows HTTP/1.1's framing (by [`super::head`] and [`Chunks`](crate::http::Chunks)) and connections; what the bytes mean is
//! the caller's.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::failure::Failure;
use super::head::{self, Framing, Head};
use super::pool::Pool;
use super::wait::Call;
use crate::http::fitting;

/// Room for a response's head and an event or two, which often come together; doubled where a head needs more.
const BEGINNING_SIZE: usize = 2048;

/// Interim responses (100, 103) may take so many bytes in all.
const INTERIM_SIZE_MAX: usize = 64 * 1024;

/// A connection that a response has begun to come from.
pub(super) struct Receiving {
    head: Head,
    /// What was read beyond the head, still framed.
    rest: Vec<u8>,
    connection: Connection,
}

/// Sends a request, head and body, and waits for the response's head.
///
/// # Errors
/// [`Failure::Reset`] where the connection breaks; the client's departure, a limit, no HTTP.
pub(super) fn send_request(
    mut connection: Connection,
    request: [&[u8]; 2],
    call: &Call,
) -> Result<Receiving, Failure> {
    let lost = |error: io::Error| Failure::of_io(&error, call, Failure::Reset);
    connection.send(request, call).map_err(lost)?;
    call.mark_sent();
    let mut bytes = vec![0; BEGINNING_SIZE];
    let (mut filled, mut scanned, mut interim) = (0, 0, 0);
    loop {
        let read = bytes.get(..filled).unwrap_or_default();
        if let Some((head, size)) = head::parse(read, scanned)? {
            bytes.truncate(filled);
            bytes.drain(..size);
            interim += size;
            match head.status {
                101 => return Err(Failure::Protocol("status 101, though no upgrade was asked for".into())),
                100..200 if interim > INTERIM_SIZE_MAX => {
                    return Err(Failure::Protocol("interim responses without end".into()));
                }
                100..200 => {
                    filled = bytes.len();
                    scanned = 0;
                    bytes.resize(BEGINNING_SIZE.max(filled), 0);
                    continue;
                }
                _ => return Ok(Receiving { head, rest: bytes, connection }),
            }
        }
        scanned = filled;
        if filled == bytes.len() {
            bytes.resize(2 * filled, 0);
        }
        match connection.read(bytes.get_mut(filled..).unwrap_or_default(), call).map_err(lost)? {
            0 => return Err(Failure::Reset("closed by the upstream".into())),
            count => filled += count,
        }
    }
}

/// A response whose head is here, and the beginning of its body: vLLM sends the head at once, and the rest from its first
/// token on. The body is read from it, in the thread that asked.
///
/// Read to the end (a read that returns 0), the connection goes back to the pool. Dropped before, or after a failed
/// read, the connection is closed at once, which makes the server stop generating.
pub struct Response {
    /// The HTTP status; never a redirect's.
    pub status: u16,
    /// `content-type`, as sent.
    pub content_type: Option<String>,
    /// `retry-after`, where it is a number of seconds.
    pub retry_after: Option<u32>,
    /// `server`, as sent.
    pub server: Option<String>,
    /// What came of the body with its head, as far as it was not read since.
    beginning: Vec<u8>,
    body: Body,
    call: Call,
    pool: Arc<Pool>,
}

/// What is still to come of a body.
enum Body {
    Open(Open),
    Ended,
    /// Every read fails alike: a body that broke off must not seem to end.
    Failed(Failure),
}

/// A body on its way.
struct Open {
    connection: Connection,
    framing: Framing,
    keep_alive: bool,
}

impl Response {
    /// The response, once its body has begun, if it has one.
    ///
    /// # Errors
    /// One that we do not take: a redirect, or compressed. And those of a read.
    pub(super) fn begin(receiving: Receiving, call: Call, pool: &Arc<Pool>) -> Result<Self, Failure> {
        let Receiving { head: Head { status, headers, framing, keep_alive }, mut rest, connection } =
            receiving;
        if (300..400).contains(&status) {
            let target = headers.get("location").unwrap_or_default();
            return Err(Failure::Protocol(format!(
                "status {status} to '{target}'; redirects are never followed"
            )));
        }
        if let Some(encoding) = headers.get("content-encoding").filter(|encoding| *encoding != "identity") {
            return Err(Failure::Protocol(format!(
                "content-encoding '{encoding}', though only identity was asked for"
            )));
        }
        let mut open = Open { connection, framing, keep_alive };
        let begun = open.unframe(&mut rest)?;
        rest.truncate(begun);
        let text = |name| headers.get(name).map(str::to_owned);
        let mut response = Response {
            status,
            content_type: text("content-type"),
            retry_after: headers.get("retry-after").and_then(|seconds| seconds.trim().parse().ok()),
            server: text("server"),
            beginning: rest,
            body: Body::Open(open),
            call,
            pool: Arc::clone(pool),
        };
        if response.beginning.is_empty() {
            let mut beginning = std::mem::take(&mut response.beginning);
            beginning.resize(BEGINNING_SIZE, 0);
            let count = response.read_on(&mut beginning)?;
            beginning.truncate(count);
            response.beginning = beginning;
        }
        response.call.mark_begun();
        Ok(response)
    }

    /// The beginning of the body, before anything was read from it: the first event of a stream, as a rule.
    pub fn beginning(&self) -> &[u8] {
        &self.beginning
    }

    /// What is left of the body says nothing any more, and is read only so that the connection can serve again: that
    /// is worth no more than this time.
    pub fn limit_rest(&self, time: Duration) {
        self.call.limit_rest(time);
    }

    /// The next bytes from the connection; 0: the end.
    fn read_on(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let open = match &mut self.body {
            Body::Open(open) => open,
            Body::Ended => return Ok(0),
            Body::Failed(failure) => return Err(failure.clone()),
        };
        match open.read(buffer, &self.call) {
            Ok(0) => {
                if let Body::Open(open) = std::mem::replace(&mut self.body, Body::Ended)
                    && open.keep_alive
                {
                    self.pool.put(open.connection);
                }
                Ok(0)
            }
            Ok(count) => Ok(count),
            Err(failure) => {
                self.body = Body::Failed(failure.clone());
                Err(failure)
            }
        }
    }
}

impl Read for Response {
    /// Waits for the next bytes of the body. What an error means is told by [`Failure::of`].
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0); // which is no end
        }
        if self.beginning.is_empty() {
            return Ok(self.read_on(buffer)?);
        }
        let count = self.beginning.as_slice().read(buffer)?;
        let rest = self.beginning.get(count..).unwrap_or_default().to_vec();
        self.beginning = rest; // usually nothing: the answer may take minutes, and needs no memory for this
        Ok(count)
    }
}

impl Open {
    /// The next data of the body; 0: its end.
    fn read(&mut self, buffer: &mut [u8], call: &Call) -> Result<usize, Failure> {
        loop {
            let room = match &self.framing {
                Framing::Length(left) => {
                    let size = fitting(*left, buffer.len());
                    buffer.get_mut(..size).unwrap_or_default()
                }
                Framing::Chunked(chunks) if chunks.is_ended() => return Ok(0),
                Framing::Chunked(_) | Framing::UntilClose => &mut *buffer,
            };
            if room.is_empty() {
                return Ok(0);
            }
            let read = self.connection.read(room, call);
            let count = read.map_err(|error| Failure::of_io(&error, call, Failure::Truncated))?;
            if count == 0 {
                return match self.framing {
                    Framing::UntilClose => Ok(0),
                    _ => Err(Failure::Truncated("closed by the upstream".into())),
                };
            }
            // Framing alone is not yet something to tell.
            match self.unframe(buffer.get_mut(..count).unwrap_or_default())? {
                0 => {}
                count => return Ok(count),
            }
        }
    }

    /// Leaves the data in the next bytes of the body, at their front, and says how many they are.
    fn unframe(&mut self, bytes: &mut [u8]) -> Result<usize, Failure> {
        let (data, used) = match &mut self.framing {
            Framing::Length(left) => {
                let count = fitting(*left, bytes.len());
                *left -= count as u64;
                (count, count)
            }
            Framing::Chunked(chunks) => {
                let decoded = chunks.decode(bytes).map_err(|error| Failure::Protocol(error.to_string()))?;
                (decoded.data, decoded.used)
            }
            Framing::UntilClose => (bytes.len(), bytes.len()),
        };
        // Bytes that nobody asked for: what they are, the next call would take for its answer.
        self.keep_alive &= used == bytes.len() && self.connection.is_whole();
        Ok(data)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}
