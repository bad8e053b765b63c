//! A request to an upstream that speaks the Messages API itself: the client's bytes go on, and the upstream's bytes come back,
//! as they are.
//!
//! Changed are only the model's name and blocks of thinking that the model would refuse (`translate::hand_over`), and what
//! hooks change. Until the upstream's first byte the client gets pings; after it nothing of sparkgap's own: an answer that
//! breaks off ends the connection, and the client asks again.

use std::rc::Rc;

use crate::access::Keys;
use crate::anthropic::Usage;
use crate::config::{Secret, UpstreamAuth};
use crate::error::{Error, Kind, RelayedAnswer, Retry};
use crate::fleet::{BoxSlot, Resolved, Sign, ThinkingLedger};
use crate::hash::Fnv;
use crate::hooks::Hook;
use crate::http::Request;
use crate::json::{SpareParser, spans};
use crate::protocol::messages::{
    self, AnswerFacts, answer_headers, error_of_event, message_of, pass_headers, read_event, read_whole,
};
use crate::shown::ShownText;
use crate::sse::Decoder;
use crate::translate::{HandedOver, ThinkingMaker, hand_over, is_thinking_refusal, thinking_id};
use crate::transport::{self, ExtraHeaders, JSON, Path, Response, Wait};

use super::attempt::Attempt;
use super::exchange::Exchange;
use super::first_event::{FirstError, first_error};
use super::outgoing::Gate;
use super::prepare::{Hooked, Incoming};
use super::recorded::note_secret;
use super::recorded_way::{RecordedWay, note_answer_head, note_refusal, note_sent, note_way};
use super::relay::{ANSWER_SIZE_MAX, error_body, read_whole_answer, too_long};
use super::routing::{sign_of, sign_of_failure};
use super::stop::Stop;
use crate::activity::{Record, RequestKeys, StepKind, Tap};

/// The resources of the Messages API, below the base URL.
pub(super) const MESSAGES: &str = "/messages";
pub(super) const COUNT_TOKENS: &str = "/messages/count_tokens";

/// The facts about a request that passes as it is.
#[derive(Debug, Default)]
pub(super) struct PassedRequest {
    /// The path with the client's query.
    path: String,
    /// The client's own keys.
    secrets: Vec<Secret>,
    /// The blocks of thinking in the request.
    kept: Vec<u64>,
    /// True once all thinking was removed, because the upstream refused some.
    is_bare: bool,
}

impl PassedRequest {
    /// The body without any thinking, if the error says that the model refuses some of it, and this is the first time.
    fn without_thinking(
        &mut self,
        error: &Error,
        (body, resolved): (&[u8], &Resolved),
        ledger: &ThinkingLedger,
    ) -> Option<Vec<u8>> {
        let is_refusal = error.kind == Kind::InvalidRequest && is_thinking_refusal(&error.message);
        if !is_refusal || self.is_bare {
            return None;
        }
        let bare = hand_over(body, &resolved.model, &|_| ThinkingMaker::Other).body;
        if bare == body {
            return None;
        }
        let name = resolved.served.name();
        // The client's own keys are taken out of these words already.
        let words = RequestKeys::default().cleaned(error);
        log::info!(
            "upstream {name}: it refused the thinking of a conversation, which is sent without: {words}"
        );
        ledger.disown(&self.kept, &resolved.model);
        self.is_bare = true;
        Some(bare)
    }

    /// Hides the client's keys, and those of the upstream, in a text for the log.
    fn hide_keys(&self, resolved: &Resolved, text: &mut String) {
        self.secrets.iter().for_each(|secret| secret.hide_in(text));
        resolved.served.upstream().endpoint().hide_keys(text);
    }
}

/// Notes that this upstream is asked next, and the client's keys that go to it.
pub(super) fn note_passed_target(tap: &Tap, resolved: &Resolved, passed: &PassedRequest) {
    tap.with(|recording| passed.secrets.iter().for_each(|key| note_secret(recording, key.expose())));
    note_way(tap, resolved, RecordedWay::Messages, None);
}

/// The body for the upstream: the client's bytes with the changes that the model needs.
/// The model that a request names, if it names one.
fn named_model(body: &[u8]) -> Option<String> {
    let root = spans::members(body, spans::whole(body));
    let model = spans::text(body, spans::last(body, &root, "model")?.value.clone())?;
    (!model.is_empty()).then(|| model.into_owned())
}

/// The body for the upstream: the client's bytes with the changes that the model needs. A hook may have named another model,
/// which `resolved` has then.
///
/// # Errors
/// A hook of policy closed failed.
pub(super) fn passed_body(
    incoming: &Incoming<'_>,
    resolved: &mut Resolved,
    hooked: &Hooked,
    record: &mut Record,
    maker: &dyn Fn(u64, &str) -> ThinkingMaker,
) -> Result<HandedOver, Stop> {
    resolved.served.name().clone_into(&mut record.details.upstream);
    let original = hooked.saved.as_deref().unwrap_or_default();
    // The hook sees the model that the upstream is to be asked for, and may name another one.
    let is_seen = incoming.gateway.hooks().defines(Hook::UpstreamRequest);
    let named = is_seen.then(|| spans::splice_member(original, "model", &resolved.model)).flatten();
    let changed = incoming.hooked_bytes(named.as_deref().unwrap_or(original), &resolved.served, hooked)?;
    if let Some(model) = changed.as_deref().and_then(named_model) {
        resolved.model = model;
    }
    record.details.upstream_model.clone_from(&resolved.model);
    let model = resolved.model.as_str();
    Ok(hand_over(changed.as_deref().unwrap_or(original), model, &|block| maker(block, model)))
}

/// Prepares a request for an upstream that speaks the Messages API: its body, its headers, and the facts for its answer.
///
/// # Errors
/// Those of [`passed_body`] and of [`pass_headers`].
#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
pub(super) fn prepare(
    incoming: &Incoming<'_>,
    (resource, resolved): (&str, &mut Resolved),
    hooked: &Hooked,
    record: &mut Record,
    (keys, ledger): (&Keys, &ThinkingLedger),
) -> Result<(Vec<u8>, ExtraHeaders, PassedRequest), Stop> {
    let request: &Request = incoming.request;
    let headers = pass_headers(request, resolved.served.upstream().config(), keys)?;
    let maker = |block, model: &str| ledger.maker(block, model);
    let HandedOver { body, kept, removed } = passed_body(incoming, resolved, hooked, record, &maker)?;
    if removed > 0 {
        log::debug!("{}: {removed} blocks of another model's thinking removed", record.request_id);
    }
    let (path, secrets) = (messages::path(resource, request), headers.secrets);
    Ok((body, headers.headers, PassedRequest { path, secrets, kept, is_bare: false }))
}

/// Sends a request until the head of a successful answer is here. A request whose thinking is refused is sent once more
/// without any.
///
/// # Errors
/// The upstream's refusal, which the client gets byte for byte; it could not be reached; it must not get the request; or the
/// client has left.
#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
pub(super) fn open(
    attempt: &mut Attempt,
    passed: &mut PassedRequest,
    ledger: &ThinkingLedger,
    wait: &Rc<dyn Wait>,
) -> Result<Response, Stop> {
    loop {
        let Attempt { resolved, headers, body, .. } = &*attempt;
        note_sent(&attempt.tap, Path::Api(&passed.path), (JSON, body));
        let to = (Path::Api(&passed.path), headers);
        let sent = attempt.gate.post(&resolved.served, to, (JSON, body), wait);
        let sent = match sent {
            Err(stop) => {
                attempt.sign = Some(Sign::Unknown);
                return Err(stop);
            }
            Ok(sent) => sent,
        };
        let begun = sent.and_then(|mut response| match first_error(&mut response) {
            Ok(first) => Ok((response, first)),
            // Nobody else can answer, so the client gets what there is.
            Err(failure)
                if failure != transport::Failure::ClientGone
                    && !attempt.has_others
                    && !response.beginning().is_empty() =>
            {
                Ok((response, None))
            }
            Err(failure) => Err(failure),
        });
        let (response, first) = match begun {
            Ok(begun) => begun,
            Err(transport::Failure::ClientGone) => return Err(Stop::ClientGone),
            Err(failure) => {
                attempt.sign = Some(sign_of_failure(&failure));
                let failure = hidden(failure, passed, &attempt.resolved);
                return Err(failure.to_error(attempt.resolved.served.name()).into());
            }
        };
        let (error, begun, passes) = match first {
            Some(FirstError { mut error, is_temporary }) => {
                passed.hide_keys(resolved, &mut error.message);
                (error, Some(response), !is_temporary || !attempt.has_others)
            }
            None if (200..300).contains(&response.status) => return Ok(response),
            None => (refused(response, passed, resolved, &attempt.tap), None, false),
        };
        let bare = passed.without_thinking(&error, (body, resolved), ledger);
        match begun {
            Some(stream) if passes && bare.is_none() => return Ok(stream),
            Some(stream) => note_refusal(&attempt.tap, 200, None, stream.beginning()),
            None => {}
        }
        if let Some(bare) = bare {
            attempt.body = bare;
            continue;
        }
        attempt.sign = Some(sign_of(&error));
        return Err(error.into());
    }
}

/// The failure without the client's keys, which the upstream may have repeated.
fn hidden(failure: transport::Failure, passed: &PassedRequest, resolved: &Resolved) -> transport::Failure {
    failure.edit_words(|words| passed.hide_keys(resolved, words))
}

/// The upstream's answer as an error for the client.
fn refused(response: Response, passed: &PassedRequest, resolved: &Resolved, tap: &Tap) -> Error {
    let retry_after = response.retry_after;
    let answer = clean_answer(response, resolved);
    note_refusal(tap, answer.status, retry_after, &answer.body);
    messages::refusal(answer, retry_after, resolved.served.name(), &|text| passed.hide_keys(resolved, text))
}

/// The upstream's answer for the client, without the upstream's key: that is sparkgap's, and no client may see it. Of a body
/// without the key every byte stays, also one that is not UTF-8.
fn clean_answer(response: Response, resolved: &Resolved) -> RelayedAnswer {
    let endpoint = resolved.served.upstream().endpoint();
    let (status, mut headers) = (response.status, answer_headers(&response.headers));
    headers.iter_mut().for_each(|(_, value)| endpoint.hide_keys(value));
    let body = error_body(response);
    let text = String::from_utf8_lossy(&body);
    let mut hidden = text.clone().into_owned();
    endpoint.hide_keys(&mut hidden);
    let body = if hidden == text { body } else { hidden.into_bytes() };
    RelayedAnswer { status, headers, body }
}

/// True if an upstream's answer names the limit of the client's own key, which says nothing about other clients.
pub(super) fn is_clients_limit(attempt: &Attempt, answered: &Result<(), Stop>) -> bool {
    let config = attempt.resolved.served.upstream().config();
    let is_limit = matches!(answered, Err(Stop::Error(error)) if error.kind == Kind::RateLimit);
    config.auth == UpstreamAuth::Client && is_limit
}

/// An answer on its way from an upstream that speaks the Messages API.
pub(super) struct MessagesAnswer<'a> {
    pub(super) exchange: &'a Exchange,
    pub(super) resolved: &'a Resolved,
    pub(super) passed: &'a PassedRequest,
    pub(super) ledger: &'a ThinkingLedger,
    pub(super) slot: Option<&'a BoxSlot>,
    /// The bytes that the request holds while its answer runs.
    pub(super) kept_size: usize,
}

impl MessagesAnswer<'_> {
    /// Passes the answer on.
    ///
    /// Returns the reason why the request counts as failed though all of the answer has passed: an error within it, or
    /// something else than a message.
    ///
    /// # Errors
    /// The upstream broke its answer off, or the client has left.
    pub(super) fn run(&self, response: Response) -> Result<Option<String>, Stop> {
        let kind = response.content_type().unwrap_or_default();
        if kind.starts_with("text/event-stream") { self.stream(response) } else { self.whole(response) }
    }

    /// The end of an answer that has lost its upstream.
    fn lost(&self, failure: transport::Failure, has_begun: bool) -> Stop {
        if failure == transport::Failure::ClientGone {
            return Stop::ClientGone;
        }
        let failure = hidden(failure, self.passed, self.resolved);
        let error = failure.to_error(self.resolved.served.name());
        if has_begun { Stop::Cut(error) } else { error.into() }
    }

    /// Passes a stream on, one write for each read.
    fn stream(&self, mut response: Response) -> Result<Option<String>, Stop> {
        let exchange = self.exchange;
        let head = (response.status, answer_headers(&response.headers));
        let mut head = Some(head);
        let mut decoder = Decoder::default();
        let mut reader = AnswerReader::default();
        let mut size = 0;
        response.await_content();
        loop {
            let space = decoder.space();
            let count = match response.read(space) {
                Ok(0) if head.is_some() => {
                    let what = "the upstream's answer is empty";
                    return Err(Error::new(Kind::BadGateway, what).into());
                }
                Ok(count) => count,
                Err(failure) => return Err(self.lost(failure, head.is_none())),
            };
            size += count;
            if size > ANSWER_SIZE_MAX {
                return Err(Stop::Cut(too_long()));
            }
            if let Some((status, headers)) = head.take() {
                exchange.begin_passing(status, &headers).map_err(Stop::Client)?;
            }
            exchange.tap().bytes(StepKind::Piece, space.get(..count).unwrap_or_default());
            if count > 0 {
                exchange.pass(space.get(..count).unwrap_or_default()).map_err(Stop::Client)?;
                decoder.advance(count);
            } else {
                decoder.end();
            }
            self.read_events(&mut decoder, &mut reader, &response);
            if let Some(slot) = self.slot {
                slot.hear();
            }
            if count == 0 {
                return Ok(reader.error);
            }
        }
    }

    /// Reads the events that have come, for the log, the health of the upstream, and the ledger.
    fn read_events(&self, decoder: &mut Decoder, reader: &mut AnswerReader, response: &Response) {
        let mut parser = SpareParser::take();
        loop {
            let event = match decoder.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => return,
                // It passes as it is; reading goes on with the next event.
                Err(_) => {
                    *decoder = Decoder::default();
                    return;
                }
            };
            if let Some(mut words) = error_of_event(event.data, event.is_error) {
                self.passed.hide_keys(self.resolved, &mut words);
                let (id, name) = (self.exchange.request_id(), self.resolved.served.name());
                let words = self.exchange.active().cleaned(&words);
                let shown = ShownText::new(&words);
                log::warn!("{id}: upstream {name} ended its answer with an error: {shown}");
                reader.error = Some(format!("upstream {name} ended its answer with {shown}"));
                continue;
            }
            let before = reader.usage;
            let facts = read_event(&mut parser, event.data, &mut reader.usage);
            if reader.usage != before {
                self.exchange.mark_usage(reader.usage);
            }
            // Reasoning comes first, and is not what the client's user waits for.
            let is_word = !reader.has_word && facts.is_word;
            if is_word || (facts.is_content && !reader.has_content) {
                self.exchange.mark_content(is_word);
                reader.has_word |= is_word;
            }
            if facts.is_content && !std::mem::replace(&mut reader.has_content, true) {
                response.mark_content();
                if let Some(slot) = self.slot {
                    slot.first_token();
                }
            }
            self.note(facts, reader);
        }
    }

    fn note(&self, facts: AnswerFacts, reader: &mut AnswerReader) {
        if let Some(piece) = facts.signature {
            reader.signature = Some(reader.signature.unwrap_or(Fnv::EMPTY).push(piece.as_bytes()));
        }
        if facts.is_block_end
            && let Some(signature) = reader.signature.take()
        {
            self.ledger.note(signature.mixed(), &self.resolved.model);
        }
        if let Some(reason) = facts.stop {
            self.exchange.mark_end(reason, reader.usage);
        }
    }

    /// Passes an answer on that is not a stream.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    fn whole(&self, mut response: Response) -> Result<Option<String>, Stop> {
        let (status, headers) = (response.status, answer_headers(&response.headers));
        if self.exchange.started() {
            let what = "the upstream answered a request for a stream with a whole message";
            return Err(Error::new(Kind::BadGateway, what).into());
        }
        let (body, cut) = read_whole_answer(&mut response, self.exchange, (self.kept_size, 2))?;
        self.exchange.tap().bytes(StepKind::Whole, &body);
        if let Some(failure) = cut {
            return Err(self.lost(failure, false));
        }
        let mut usage = Usage::default();
        let facts = read_whole(&body, &mut usage);
        for signature in &facts.signatures {
            self.ledger.note(thinking_id(signature), &self.resolved.model);
        }
        self.exchange.pass_whole(RelayedAnswer { status, headers, body });
        if !facts.is_message {
            let name = self.resolved.served.name();
            return Ok(Some(format!(
                "upstream {name} answered with something else than a message: check its URL"
            )));
        }
        self.exchange.mark_content(true);
        self.exchange.mark_end(facts.stop, usage);
        Ok(None)
    }
}

/// The facts read from an answer so far.
#[derive(Debug, Default)]
struct AnswerReader {
    usage: Usage,
    has_content: bool,
    /// True once text or a tool call has come.
    has_word: bool,
    /// The hash of the signature of the open block, as far as it has come.
    signature: Option<Fnv>,
    /// The error that the answer has ended with.
    error: Option<String>,
}

/// Passes a question for the number of tokens on, and returns the upstream's answer.
///
/// # Errors
/// The upstream could not be reached or must not get the request, or the client has left.
pub(super) fn count_tokens(
    resolved: &Resolved,
    (mut body, headers): (Vec<u8>, &ExtraHeaders),
    passed: &mut PassedRequest,
    (ledger, gate, wait, tap): (&ThinkingLedger, &Gate, &Rc<dyn Wait>, &Tap),
) -> Result<RelayedAnswer, Stop> {
    note_passed_target(tap, resolved, passed);
    loop {
        note_sent(tap, Path::Api(&passed.path), (JSON, &body));
        let to = (Path::Api(passed.path.as_str()), headers);
        let response = match gate.post(&resolved.served, to, (JSON, &body), wait)? {
            Ok(response) => response,
            Err(transport::Failure::ClientGone) => return Err(Stop::ClientGone),
            Err(failure) => {
                let failure = hidden(failure, passed, resolved);
                return Err(failure.to_error(resolved.served.name()).into());
            }
        };
        note_answer_head(tap, &response);
        let answer = clean_answer(response, resolved);
        tap.bytes(StepKind::Whole, &answer.body);
        let error = Error::new(Kind::Api, message_of(&answer.body)).with_status(answer.status);
        match passed.without_thinking(&error, (&body, resolved), ledger) {
            Some(bare) => body = bare,
            None => return Ok(answer),
        }
    }
}

/// The error for a request whose answer began with events of sparkgap's own: another server's message cannot follow them.
pub(super) fn too_late() -> Stop {
    let what = "the answer had begun before another upstream could give it";
    Stop::Cut(Error::new(Kind::Overloaded, what).retry(Retry::Unsaid))
}
