//! Relays the upstream's response to the client, through decoder and translation, as its bytes arrive.

use std::io::Read as _;
use std::time::Duration;

use crate::error::{Error, Kind};
use crate::fleet::{BoxSlot, Resolved};
use crate::json::{Parser, SpareParser, Value};
use crate::openai::{AnswerForm, Chunk, UpstreamError, page_words, read_error_chunk};
use crate::shown::ShownText;
use crate::sse::{Decoder, SseEvent};
use crate::translate::{Asked, Progress, failure_error};
use crate::transport::{self, Response};

use super::exchange::Exchange;
use super::footprint;
use super::stop::Stop;
use crate::activity::{Moment, StepKind};

/// The largest whole (not streamed) answer, and the largest error, that is accepted from an upstream. A million tokens
/// are about 4 MB.
const WHOLE_SIZE_MAX: usize = 16 * 1024 * 1024;
const ERROR_SIZE_MAX: usize = 256 * 1024;

/// The largest streamed answer, in bytes of events. A token takes about 200. The limit stops a model that never ends.
pub(super) const ANSWER_SIZE_MAX: usize = 256 * 1024 * 1024;

/// The most of an answer that is gathered: for a client that does not stream, the message that is put together; for one that
/// does, tool calls, what waits behind them, and reasoning that is to be omitted. A million tokens are about 4 MB.
const GATHERED_SIZE_MAX: usize = 8 * 1024 * 1024;

/// The memory that an answer takes while it is gathered, as a multiple of its size: an open block, which is moved while
/// it grows, the blocks before it as JSON, and the message.
const GATHERED_FACTOR: usize = 4;

/// The gathered part is measured whenever this many more bytes of events have come, and this part of all that came: to
/// walk through it with every read would cost more than linear time.
const MEASURED_STEP_MIN: usize = 64 * 1024;
const MEASURED_PART: usize = 16;

/// How many bytes of a whole answer are read at once.
const WHOLE_READ_SIZE: usize = 64 * 1024;

/// The most values of a whole answer, or of one event. Limits the memory of the parser's tape: 24 bytes a value.
const VALUES_MAX: usize = 1_000_000;

/// Below this size the values of an event are not counted.
const COUNTED_SIZE_MIN: usize = 1024 * 1024;

/// How long to wait for the end of a body after the answer and its counts are complete. Usually it is there already; a
/// server that delays it has a quirk. After a stop sequence that only the proxy knows, this is how long the model may go on,
/// because only its own end tells the counts, of which the cached tokens are known nowhere else.
pub(super) const REST_TIME: Duration = Duration::from_millis(250);

/// How long to wait for the counts after the upstream has told how its answer ended. They follow at once, or never.
const COUNTS_TIME: Duration = Duration::from_secs(2);

const REST_SIZE_MAX: usize = 64 * 1024;

/// Usually only the mark of the last chunk is left to read.
const REST_READ_SIZE: usize = 512;

/// One answer on its way to the client.
pub(super) struct Relay<'a> {
    pub(super) exchange: &'a Exchange,
    /// The upstream that answers, and its model.
    pub(super) resolved: &'a Resolved,
    pub(super) asked: &'a Asked,
    /// The bytes that the request holds while its answer runs.
    pub(super) kept_size: usize,
    /// The request's place at the upstream, which learns when the first token comes.
    pub(super) slot: Option<&'a BoxSlot>,
}

impl Relay<'_> {
    /// Passes all of an answer on, except for its last bytes: [`Exchange::finish`] sends those.
    ///
    /// # Errors
    /// The upstream or a hook broke the answer off, or the client has left.
    pub(super) fn run(&self, response: Response) -> Result<(), Stop> {
        let rest = match AnswerForm::of(response.content_type(), response.beginning()) {
            AnswerForm::Page => return Err(page_instead(response, self.resolved)),
            AnswerForm::Whole => return self.whole(response),
            AnswerForm::Events => self.events(response)?,
        };
        self.exchange.end().map_err(Stop::Refused)??;
        self.exchange.flush().map_err(Stop::Client)?;
        let skipped = self.exchange.skipped();
        if skipped > 0 {
            let (id, name) = (self.exchange.request_id(), self.resolved.served.name());
            log::warn!("{id}: passed over {skipped} malformed events of upstream {name}");
        }
        if let Some(rest) = rest {
            drain(rest);
        }
        Ok(())
    }

    /// The end of a request whose upstream sent an error.
    fn said(&self, mut failure: UpstreamError) -> Stop {
        self.resolved.served.upstream().hide_keys(&mut failure);
        Stop::Error(failure_error(failure, self.asked))
    }

    /// The end of a request that lost its connection to the upstream, or to the client.
    fn lost(&self, failure: &transport::Failure) -> Stop {
        if *failure == transport::Failure::ClientGone {
            return Stop::ClientGone;
        }
        self.resolved.served.upstream().mark_stale();
        Stop::Error(failure.to_error(self.resolved.served.name()))
    }

    /// Passes events on until the upstream says that the answer is complete, or ends. Returns the response if the rest
    /// of its body should be read.
    fn events(&self, mut response: Response) -> Result<Option<Response>, Stop> {
        let exchange = self.exchange;
        let mut decoder = Decoder::default();
        let (mut size, mut measured_at) = (0, MEASURED_STEP_MIN);
        let mut stage = AnswerStage::Prompt;
        response.await_content();
        loop {
            let space = decoder.space();
            let count = match response.read(space) {
                Ok(count) => {
                    exchange.tap().bytes(StepKind::Piece, space.get(..count).unwrap_or_default());
                    count
                }
                Err(transport::Failure::ClientGone) => return Err(Stop::ClientGone),
                // The answer is whole, so nothing that happens to the connection can harm it.
                Err(_) if stage.is_finished() => return Ok(None),
                Err(failure) => return Err(self.lost(&failure)),
            };
            decoder.advance(count);
            size += count;
            if size > ANSWER_SIZE_MAX {
                return Err(too_long().into());
            }
            if count == 0 {
                decoder.end();
            }
            let mut parser = SpareParser::take();
            // Comments do not show that the engine works: llama.cpp sends some as pings.
            let mut has_events = false;
            loop {
                let event = decoder.next_event().map_err(|error| {
                    Error::new(Kind::BadGateway, "the upstream sent an event that is too long").source(error)
                })?;
                let Some(event) = event else { break };
                has_events = true;
                check_values(event.data)?;
                log::trace!(
                    "{} from the upstream: {}",
                    exchange.request_id(),
                    String::from_utf8_lossy(event.data)
                );
                match exchange.data(&mut parser, event.data, event.is_error).map_err(Stop::Refused)? {
                    // After a stop sequence only counts can follow: `stage` limits the time for them.
                    Ok(Progress::More | Progress::Cancel) => {}
                    Ok(Progress::Done) => return Ok(Some(response)),
                    Err(failure) => {
                        // Send what was translated before the error.
                        if exchange.started() {
                            exchange.flush().map_err(Stop::Client)?;
                        }
                        return Err(self.said(failure));
                    }
                }
            }
            drop(parser);
            exchange.flush().map_err(Stop::Client)?;
            stage = self.advance(stage, &response);
            if let (true, Some(slot)) = (has_events, self.slot) {
                slot.hear();
            }
            if size >= measured_at {
                self.hold_gathered()?;
                measured_at = size + MEASURED_STEP_MIN.max(size / MEASURED_PART);
            }
            if count == 0 {
                return Ok(None);
            }
        }
    }

    /// Finds the stage that the answer has reached, and limits the time for its rest.
    fn advance(&self, stage: AnswerStage, response: &Response) -> AnswerStage {
        let next = match self.exchange.finished() {
            Some(true) => AnswerStage::Counted,
            Some(false) => AnswerStage::Finished,
            None if self.exchange.has_content() => AnswerStage::Content,
            None => AnswerStage::Prompt,
        };
        if next != stage {
            match next {
                AnswerStage::Prompt => {}
                AnswerStage::Content => {
                    if let Some(first) = self.exchange.first_content() {
                        self.exchange.active().mark(Moment::FirstByte, first);
                    }
                    response.mark_content();
                    if let Some(slot) = self.slot {
                        slot.first_token();
                    }
                }
                AnswerStage::Finished => response.limit_rest(COUNTS_TIME),
                AnswerStage::Counted => response.limit_rest(REST_TIME),
            }
        }
        next
    }

    /// Claims memory for the part of an answer gathered so far.
    fn hold_gathered(&self) -> Result<(), Stop> {
        let size = self.exchange.gathered_size();
        if size > GATHERED_SIZE_MAX {
            return Err(too_long().into());
        }
        self.exchange.claim(self.kept_size + GATHERED_FACTOR * size).map(|_| ())
    }

    /// Passes on a JSON answer, from an upstream that was asked to stream.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    fn whole(&self, mut response: Response) -> Result<(), Stop> {
        let exchange = self.exchange;
        // Room for the bytes, the parser's copy of them, and the message put together from them.
        let (mut body, cut) =
            read_whole_answer(&mut response, exchange, (self.kept_size, 2 + GATHERED_FACTOR))?;
        exchange.tap().bytes(StepKind::Whole, &body);
        check_values(&body)?;
        log::trace!("{} from the upstream: {}", exchange.request_id(), String::from_utf8_lossy(&body));
        let taken = exchange.whole(&mut Parser::default(), &mut body).map_err(Stop::Refused)?;
        drop(body);
        taken.map_err(|failure| self.said(failure))?;
        // An answer that is whole stays whole, however its connection ended.
        exchange.end().map_err(Stop::Refused)?.map_err(|error| match &cut {
            Some(failure) => self.lost(failure),
            None => error.into(),
        })?;
        self.hold_gathered()
    }
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerStage {
    /// The upstream works on the prompt: no content has come.
    Prompt,
    Content,
    /// The upstream has told how the answer ended, or a stop sequence was met; the counts may follow.
    Finished,
    /// The counts have come, too.
    Counted,
}

impl AnswerStage {
    fn is_finished(self) -> bool {
        matches!(self, AnswerStage::Finished | AnswerStage::Counted)
    }
}

/// Reads a body to its end, so that its connection can be reused.
#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
fn drain(mut rest: Response) {
    rest.limit_rest(REST_TIME);
    let mut size = 0;
    // Errors are ignored, since the answer is complete.
    while let Ok(count @ 1..) = rest.read(&mut [0; REST_READ_SIZE]) {
        size += count;
        if size > REST_SIZE_MAX {
            return;
        }
    }
}

/// Reads an answer that is not a stream, to its end or to the failure that cuts it, which is returned as well. Claims room for
/// `times` its size, beside the bytes that the request keeps.
///
/// # Errors
/// The client has left, there is no memory, or the answer is too long.
pub(super) fn read_whole_answer(
    response: &mut Response,
    exchange: &Exchange,
    (kept_size, times): (usize, usize),
) -> Result<(Vec<u8>, Option<transport::Failure>), Stop> {
    let mut body = Vec::new();
    loop {
        exchange.claim(kept_size + times * body.len())?;
        let filled = body.len();
        body.resize(filled + WHOLE_READ_SIZE, 0);
        let read = response.read(body.get_mut(filled..).unwrap_or_default());
        body.truncate(filled + read.as_ref().copied().unwrap_or(0));
        match read {
            Ok(_) if body.len() > WHOLE_SIZE_MAX => return Err(too_long().into()),
            Ok(0) => return Ok((body, None)),
            Ok(_) => {}
            Err(transport::Failure::ClientGone) => return Err(Stop::ClientGone),
            Err(failure) => return Ok((body, Some(failure))),
        }
    }
}

/// The end of a request whose upstream answered with a page for people, such as the login of a reverse proxy.
#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
fn page_instead(response: Response, resolved: &Resolved) -> Stop {
    let mut text = page_words(&error_body(response));
    // Such a page may repeat the headers of its request.
    resolved.served.upstream().endpoint().hide_keys(&mut text);
    let message = format!(
        "the upstream answered with a page instead of a model's answer, check its address: {}",
        ShownText::new(text.trim())
    );
    Error::new(Kind::BadGateway, message).into()
}

/// The error for an answer beyond a limit of size.
pub(super) fn too_long() -> Error {
    Error::new(Kind::BadGateway, "the upstream's answer is too long")
}

/// Refuses JSON from the upstream whose tape would be far larger than the JSON itself.
fn check_values(json: &[u8]) -> Result<(), Stop> {
    if json.len() < COUNTED_SIZE_MIN || footprint::values(json) <= VALUES_MAX {
        return Ok(());
    }
    Err(Error::new(Kind::BadGateway, "the upstream's answer has too many JSON values").into())
}

/// The error that a response of status 200 begins with. vLLM sends the status before its engine has looked at the
/// request, and the error in the first event.
pub(super) fn error_at_once(response: &Response) -> Option<UpstreamError> {
    let beginning = response.beginning();
    let has = |mark: &[u8]| memchr::memmem::find(beginning, mark).is_some();
    // Nearly all answers begin with a choice, and the rest is skipped.
    if has(b"\"choices\"") && !has(b"error") {
        return None;
    }
    let is_json =
        beginning.trim_ascii_start().starts_with(b"{") || beginning.trim_ascii_start().starts_with(b"[");
    if (200..300).contains(&response.status) && is_json {
        let read = Parser::default().read(&mut beginning.to_vec(), |tape| {
            Some(read_error_chunk(&Value::from_tape(Chunk::read(tape).error?)))
        });
        // An error that has not arrived in full is found later, when the whole answer is read.
        return read.ok()?;
    }
    let mut decoder = Decoder::default();
    let count = { beginning }.read(decoder.space()).ok()?;
    decoder.advance(count);
    let SseEvent { is_error, data } = decoder.next_event().ok()??;
    let read = Parser::default().read(data, |tape| {
        let error = Chunk::read(tape).error.or(is_error.then_some(tape))?;
        Some(read_error_chunk(&Value::from_tape(error)))
    });
    read.ok()?
}

/// The body of an error response, up to the limit; the bytes after it add nothing useful.
pub(super) fn error_body(response: Response) -> Vec<u8> {
    response.read_some(ERROR_SIZE_MAX)
}
