//! The upstream's response, byte by byte through decoder and translation to the client.

use std::io::{self, Read};
use std::time::Duration;

use crate::error::{Error, Kind};
use crate::json::{Parser, SpareParser, Value};
use crate::openai::{Chunk, Failure, read_error_chunk};
use crate::sse::{Decoder, Event};
use crate::translate::Progress;
use crate::upstream::{self, Response};

use super::Stop;
use super::exchange::Exchange;
use super::footprint;

/// The largest whole (not streamed) answer, and the largest error, that is taken from an upstream. A million tokens are
/// about 4 MB.
const WHOLE_SIZE_MAX: usize = 16 * 1024 * 1024;
const ERROR_SIZE_MAX: u64 = 256 * 1024;

/// The largest streamed answer, in bytes of events, of which a token takes about 200: a model that never ends is ended
/// here.
const ANSWER_SIZE_MAX: usize = 256 * 1024 * 1024;

/// The largest answer that is put together for a client that does not stream, in bytes of the message. A million tokens
/// are about 4 MB.
const FOLDED_SIZE_MAX: usize = 8 * 1024 * 1024;

/// How many times its size an answer that is put together takes: its open block, which is moved while it grows, the blocks
/// before it as JSON, and the message.
const FOLDED_FACTOR: usize = 4;

/// How much of a whole answer is read at once.
const WHOLE_READ_SIZE: usize = 64 * 1024;

/// How many values a whole answer, or one event, may have for the memory that their tape takes: 24 bytes each.
const VALUES_MAX: usize = 1_000_000;

/// Below this size the values of an event are not counted.
const COUNTED_SIZE_MIN: usize = 1024 * 1024;

/// How long the end of a body is waited for when all was said: it is there already, or a server has a quirk.
const REST_TIME: Duration = Duration::from_millis(250);
const REST_SIZE_MAX: usize = 64 * 1024;

/// Usually there is nothing but the last chunk's mark.
const REST_READ_SIZE: usize = 512;

/// Why an answer did not come to its end.
#[derive(Debug)]
pub(super) enum Broken {
    /// What the upstream said.
    Said(Failure),
    /// A hook of policy closed failed.
    Refused(Error),
    /// How the upstream's connection ended, or that the client's did.
    Lost(upstream::Failure),
    /// The client cannot be written to.
    Client(io::Error),
    /// There is no memory to put the answer together.
    Memory(Stop),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Broken::Said(Failure::Other(error))
    }
}

/// Passes a whole answer on; the client gets its last bytes by [`Exchange::finish`]. `kept_size`: what the request holds
/// meanwhile.
pub(super) fn relay(exchange: &Exchange, response: Response, kept_size: usize) -> Result<(), Broken> {
    let is_json = response.content_type.as_deref().is_some_and(|kind| kind.starts_with("application/json"));
    // A server may not say what it sends; no line of an event begins so.
    if is_json || response.beginning().trim_ascii_start().starts_with(b"{") {
        return whole(exchange, response, kept_size);
    }
    let rest = events(exchange, response, kept_size)?;
    exchange.end().map_err(Broken::Refused)??;
    exchange.flush().map_err(Broken::Client)?;
    if let Some(rest) = rest {
        drain(rest);
    }
    Ok(())
}

/// Reads a body to its end, so that its connection can serve again.
#[inline(never)] // a stream that waits is not to have its part of the stack below it
fn drain(mut rest: Response) {
    rest.limit_rest(REST_TIME);
    let mut size = 0;
    // What becomes of it is nobody's concern: the answer is whole.
    while let Ok(count @ 1..) = rest.read(&mut [0; REST_READ_SIZE]) {
        size += count;
        if size > REST_SIZE_MAX {
            return;
        }
    }
}

/// Until the upstream says that this was all, or ends. What is left of its body, if it is to be read.
fn events(exchange: &Exchange, mut response: Response, kept_size: usize) -> Result<Option<Response>, Broken> {
    let mut decoder = Decoder::default();
    let mut size = 0;
    loop {
        let count = response.read(decoder.space()).map_err(lost)?;
        decoder.advance(count);
        size += count;
        if size > ANSWER_SIZE_MAX {
            return Err(too_long());
        }
        if count == 0 {
            decoder.end();
        }
        let mut parser = SpareParser::take();
        loop {
            let event = decoder.next_event().map_err(|error| {
                Error::new(Kind::BadGateway, "the upstream sent an event that is too long").source(error)
            })?;
            let Some(event) = event else { break };
            check_values(event.data)?;
            log::trace!(
                "{} from the upstream: {}",
                exchange.request_id(),
                String::from_utf8_lossy(event.data)
            );
            match exchange.data(&mut parser, event.data, event.is_error).map_err(Broken::Refused)? {
                Ok(Progress::More) => {}
                Ok(Progress::Done) => return Ok(Some(response)),
                Ok(Progress::Cancel) => return Ok(None),
                Err(failure) => {
                    // What was translated before the error belongs to the client.
                    if exchange.started() {
                        exchange.flush().map_err(Broken::Client)?;
                    }
                    return Err(Broken::Said(failure));
                }
            }
        }
        drop(parser);
        exchange.flush().map_err(Broken::Client)?;
        hold_folded(exchange, kept_size)?;
        if count == 0 {
            return Ok(None);
        }
    }
}

/// Counts what is put together of an answer for a client that does not stream.
fn hold_folded(exchange: &Exchange, kept_size: usize) -> Result<(), Broken> {
    let size = exchange.folded_size();
    if size > FOLDED_SIZE_MAX {
        return Err(too_long());
    }
    exchange.claim(kept_size + FOLDED_FACTOR * size).map_err(Broken::Memory)?;
    Ok(())
}

fn too_long() -> Broken {
    Error::new(Kind::BadGateway, "the upstream's answer is too long").into()
}

/// Refuses a document of the upstream whose tape would be far larger than the document.
fn check_values(json: &[u8]) -> Result<(), Broken> {
    if json.len() < COUNTED_SIZE_MIN || footprint::values(json) <= VALUES_MAX {
        return Ok(());
    }
    Err(Error::new(Kind::BadGateway, "the upstream's answer has too many JSON values").into())
}

/// An upstream that answered with JSON although asked to stream.
#[inline(never)] // as `drain`
fn whole(exchange: &Exchange, mut response: Response, kept_size: usize) -> Result<(), Broken> {
    let mut body = Vec::new();
    loop {
        // Its bytes, the parser's copy of them, and what is put together of them.
        exchange.claim(kept_size + (2 + FOLDED_FACTOR) * body.len()).map_err(Broken::Memory)?;
        let filled = body.len();
        body.resize(filled + WHOLE_READ_SIZE, 0);
        let count = response.read(body.get_mut(filled..).unwrap_or_default()).map_err(lost)?;
        body.truncate(filled + count);
        if body.len() > WHOLE_SIZE_MAX {
            return Err(too_long());
        }
        if count == 0 {
            break;
        }
    }
    check_values(&body)?;
    log::trace!("{} from the upstream: {}", exchange.request_id(), String::from_utf8_lossy(&body));
    let taken = exchange.data(&mut Parser::default(), &mut body, false).map_err(Broken::Refused)?;
    drop(body);
    taken.map_err(Broken::Said)?;
    exchange.end().map_err(Broken::Refused)??;
    hold_folded(exchange, kept_size)
}

/// The error that an answer begins with: vLLM says 200 before its engine has looked at the request, and what is wrong in
/// the first event.
pub(super) fn error_at_once(response: &Response) -> Option<Failure> {
    // Nearly always this is all that is looked at.
    memchr::memmem::find(response.beginning(), b"error")?;
    let mut decoder = Decoder::default();
    let count = response.beginning().read(decoder.space()).ok()?;
    decoder.advance(count);
    let Event { is_error, data } = decoder.next_event().ok()??;
    let read = Parser::default().read(data, |tape| {
        let error = Chunk::read(tape).error.or(is_error.then_some(tape))?;
        Some(read_error_chunk(&Value::from_tape(error)))
    });
    read.ok()?
}

/// The body of an error response; what is beyond the limit says nothing new.
pub(super) fn error_body(response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    // A body that breaks off says what it says.
    let _ = response.take(ERROR_SIZE_MAX).read_to_end(&mut body);
    body
}

#[allow(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn lost(error: io::Error) -> Broken {
    Broken::Lost(upstream::Failure::of(&error))
}
