//! Sends one request to one upstream. Repairs the request where a refusal says what to change, and tries again after a
//! pause where waiting helps.
//!
//! Knows no refusal and no repair: `openai` reads the one, and `translate` makes the other.

use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::time::Duration;

use crate::anthropic::WebSearchTool;
use crate::error::{Error, Kind, Retry};
use crate::json::{self, Value};
use crate::openai::{Repair, UpstreamError, read_failure};
use crate::protocol::tokenize::question;
use crate::shown::ShownText;
use crate::translate::{
    Asked, SearchRound, ToldWindow, extend_chat, failure_error, likely_room, make_repair, make_repairs,
    possible_repairs, retarget,
};
use crate::transport::{self, ExtraHeaders, JSON, Path, Response, Wait, wait_for};
use crate::wake::Wake;

use super::budget::MemoryShare;
use super::exchange::Exchange;
use super::footprint::BodyFootprint;
use super::outgoing::Gate;
use super::recorded::refusal_facts;
use super::relay::{error_at_once, error_body};
use super::routing::sign_of_failure;
use super::stop::Stop;
use crate::activity::{Phase, StepKind, Tap};
use crate::fleet::{Resolved, Sign};

/// Further tries after the first, made only while nothing has gone to the client.
const RETRIES_MAX: u32 = 2;

/// How often one request follows a change of its upstream's facts: a server that changes them again and again must not
/// hold it.
const RENEWALS_MAX: u32 = 2;

/// The pause before the first further try; doubled before the next one.
const BACKOFF: Duration = Duration::from_millis(250);

/// The longest pause before another try. If an upstream asks for a longer one, the client gets the error and decides,
/// since it can tell its user.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// The assumed length of a prompt that nobody counted, in percent of its estimate. Used where a refusal shows that the
/// estimate was too small.
const UNCOUNTED: u64 = 110;

/// The most repairs of one request, each made at most once. A server that refuses more than these is another kind of
/// server, and each repair sends the whole request again.
const REPAIRS_MAX: usize = 6;

/// One request to one upstream, until the head of a successful response arrives.
pub(super) struct Attempt {
    pub(super) resolved: Resolved,
    pub(super) asked: Asked,
    pub(super) body: Vec<u8>,
    /// The headers that the upstream gets beside the usual ones.
    pub(super) headers: ExtraHeaders,
    /// How often the request was changed because the upstream's facts had changed.
    pub(super) renewals: u32,
    /// The repairs that were made after refusals.
    repairs: Vec<MadeRepair>,
    /// The repairs that the last refusal named.
    named: Vec<Repair>,
    /// The body before the last repair, if that was a guess; otherwise empty.
    before_guess: Vec<u8>,
    /// The sign about the upstream that the failure of the last call gives.
    pub(super) sign: Option<Sign>,
    /// True if another upstream can answer: then nothing is tried here again.
    pub(super) has_others: bool,
    /// Notes what passes, if the request is recorded.
    pub(super) tap: Tap,
    /// The rules for web searches, while the model is offered them.
    pub(super) search: Option<Box<WebSearchTool>>,
    /// The way to the upstream.
    pub(super) gate: Gate,
}

/// A repair of one request.
struct MadeRepair {
    change: Repair,
    /// False once the same refusal came again.
    has_helped: bool,
    /// True for a guess that did not help: the body is again the one before it.
    is_undone: bool,
}

impl Attempt {
    pub(super) fn new(resolved: Resolved, asked: Asked, body: Vec<u8>, gate: Gate) -> Self {
        let (headers, repairs, named, before_guess) = Default::default();
        let (sign, has_others) = (None, false);
        Attempt {
            resolved,
            asked,
            body,
            headers,
            renewals: 0,
            repairs,
            named,
            before_guess,
            sign,
            has_others,
            tap: Tap::default(),
            search: None,
            gate,
        }
    }

    /// Makes the request that of the next round: `body`, that of this round, is extended by the model's answer and the results
    /// of its searches. Its memory is taken from `room`.
    ///
    /// # Errors
    /// There is no memory for it, or the client has left.
    pub(super) fn extend(
        &mut self,
        mut body: Vec<u8>,
        (round, results): (&SearchRound, &[String]),
        (room, wait): (&MemoryShare, &dyn Wait),
    ) -> Result<(), Stop> {
        room.claim(BodyFootprint::read(&body)?.tree(), wait)?;
        let unread = |_| Error::new(Kind::Api, "the request for the next round could not be made");
        let mut body = json::parse(&mut body).map_err(unread)?;
        let offers = self.search.is_some();
        extend_chat(&mut body, (round, results), &mut self.asked, &self.resolved.target(), offers);
        self.make_known_repairs(&mut body);
        self.body.clear();
        body.write(&mut self.body);
        Ok(())
    }

    /// The number of changes that were made after refusals and that helped.
    pub(super) fn repairs_made(&self) -> usize {
        self.repairs.iter().filter(|made| made.has_helped).count()
    }

    /// Sends the request until a response is successful, and returns that response.
    ///
    /// # Errors
    /// The error that the client gets; nothing of an answer has reached it yet.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    pub(super) fn open(&mut self, exchange: &Exchange, wait: &Rc<dyn Wait>) -> Result<Response, Stop> {
        exchange.active().enter(Phase::Head);
        let mut backoff = BACKOFF;
        let mut retries = 0;
        loop {
            // The facts may have changed while the request waited for its place, or before another try.
            self.renew(wait);
            let failed = match self.post(wait)? {
                Ok(response) => {
                    self.learn_repairs();
                    self.before_guess = Vec::new();
                    return Ok(response);
                }
                Err(failed) => failed,
            };
            let may_retry = retries < RETRIES_MAX && !exchange.started() && !self.has_others;
            let pause = failed.pause_before_retry(backoff).filter(|_| may_retry);
            let error = failed.error;
            let Some(pause) = pause else { return Err(error.into()) };
            let (name, request) = (self.resolved.served.name(), exchange.active());
            log::debug!("upstream {name}: trying again in {pause:?}: {}", request.cleaned(&error));
            rest(wait, pause)?;
            // During the pause, the client may have been sent the beginning of its answer.
            if exchange.started() {
                return Err(error.into());
            }
            retries += 1;
            backoff *= 2;
        }
    }

    /// Makes one try, and another one after each repair.
    ///
    /// # Errors
    /// The client has left, or the upstream must not get the request.
    fn post(&mut self, wait: &Rc<dyn Wait>) -> Result<Result<Response, FailedAttempt>, Stop> {
        loop {
            let served = &self.resolved.served;
            let to = (Path::Api("/chat/completions"), &self.headers);
            self.tap.bytes(StepKind::Sent, &self.body);
            let sent = match self.gate.post(served, to, (JSON, &self.body), wait) {
                Ok(sent) => sent,
                Err(stop) => {
                    self.sign = Some(Sign::Unknown);
                    return Err(stop);
                }
            };
            let response = match sent {
                Ok(response) => response,
                Err(transport::Failure::ClientGone) => return Err(Stop::ClientGone),
                Err(failure) => {
                    let error = failure.to_error(served.name());
                    self.sign = Some(sign_of_failure(&failure));
                    return Ok(Err(FailedAttempt {
                        error,
                        retry_after: None,
                        may_have_run: !failure.is_unsent(),
                    }));
                }
            };
            let at_once = error_at_once(&response);
            if (200..300).contains(&response.status) && at_once.is_none() {
                return Ok(Ok(response));
            }
            let (retry_after, is_soon) = (response.retry_after, response.is_at_once);
            if let Some(error) = self.refused(response, at_once, wait)? {
                let is_not_begun = error.kind == Kind::Overloaded && (is_soon || says_not_begun(&error));
                return Ok(Err(FailedAttempt { error, retry_after, may_have_run: !is_not_begun }));
            }
        }
    }

    /// Turns an unsuccessful response into an error. `None`: the error said what to change, and the body is changed.
    ///
    /// # Errors
    /// [`Stop::Respond`]: the refusal is an answer, namely one without anything visible.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    fn refused(
        &mut self,
        response: Response,
        at_once: Option<UpstreamError>,
        wait: &Rc<dyn Wait>,
    ) -> Result<Option<Error>, Stop> {
        let retry_after = response.retry_after;
        let status = match response.status {
            status @ (429 | 503 | 529) => status,
            // The gateway of a cluster also says with other statuses that it has no room.
            _ if response.is_dropped => 503,
            status => status,
        };
        let mut failure = match at_once {
            Some(failure) => {
                self.tap.note(StepKind::Refusal, response.beginning(), || refusal_facts(200, None));
                failure
            }
            None => {
                let mut body = error_body(response);
                self.tap.note(StepKind::Refusal, &body, || refusal_facts(status, retry_after));
                read_failure(status, &mut body, retry_after)
            }
        };
        if status == 404 && self.is_renewed_after_404(wait) {
            return Ok(None);
        }
        self.resolved.served.upstream().hide_keys(&mut failure);
        let failure = self.measured(failure, wait);
        if failure == UpstreamError::OutputEnded {
            let nothing =
                Value::object([("content", Vec::new().into()), ("stop_reason", "max_tokens".into())]);
            return Err(Stop::Respond(nothing));
        }
        self.learn(&failure);
        if self.repair(&failure) {
            return Ok(None);
        }
        Ok(Some(failure_error(failure, &self.asked)))
    }

    /// Asks for the upstream's models at once, since another one may be served there now. Returns true if the request
    /// was changed, so that it should be sent again.
    fn is_renewed_after_404(&mut self, wait: &Rc<dyn Wait>) -> bool {
        if !self.resolved.follows_listing() {
            self.resolved.served.upstream().mark_stale();
            return false;
        }
        // Another request may have found out already.
        self.renew(wait) || {
            self.resolved.served.upstream().contradict();
            self.renew(wait)
        }
    }

    /// Waits for the upstream's facts if they may be wrong, and makes the request one for the model and the window that
    /// the upstream has now. Returns true if the request was changed.
    fn renew(&mut self, wait: &Rc<dyn Wait>) -> bool {
        if self.renewals >= RENEWALS_MAX {
            return false;
        }
        // A client that has left is noticed by whatever is done next.
        let _ = self.resolved.served.upstream().refresh(wait);
        let Some(renewed) = self.resolved.renewed() else { return false };
        let before = std::mem::replace(&mut self.resolved, renewed);
        let target = self.resolved.target();
        let is_same = before.model == self.resolved.model && before.window() == self.resolved.window();
        if is_same {
            return false;
        }
        self.renewals += 1;
        log::debug!("upstream {}: the request is for {} now", before.served.name(), target.model);
        let mut bytes = std::mem::take(&mut self.body);
        let Ok(mut body) = json::parse(&mut bytes) else { return false };
        let Some(object) = body.as_object_mut() else { return false };
        retarget(object, &mut self.asked, &before.model, &target);
        // A limit that an earlier refusal named was the earlier model's.
        self.repairs.retain(|repair| !matches!(repair.change, Repair::Room(_)));
        self.make_known_repairs(&mut body);
        body.write(&mut self.body);
        true
    }

    /// Replaces the length of a prompt that the upstream stopped counting at its window by the real length, so that the
    /// client learns how much to drop.
    fn measured(&self, mut failure: UpstreamError, wait: &Rc<dyn Wait>) -> UpstreamError {
        if let UpstreamError::Overflow { prompt, prompt_is_least: is_least @ true, .. } = &mut failure {
            let mut bytes = self.body.clone();
            let question = json::parse(&mut bytes).map(|body| question(self.resolved.flavour, body));
            let counted = question
                .ok()
                .and_then(|question| self.gate.ask_token_count(&self.resolved, &question, wait, &|_| ()));
            // A count below the refusal's own must have counted something else.
            if counted >= *prompt {
                (*prompt, *is_least) = (counted, false);
            }
        }
        failure
    }

    /// Changes the body so that the same refusal does not come again. Makes the first repair that changes something; as
    /// the last repair of a request, the strongest one. Returns whether the body was changed.
    fn repair(&mut self, failure: &UpstreamError) -> bool {
        let mut repairs = match failure {
            UpstreamError::Refused { repairs, .. } => repairs.clone(),
            _ => Vec::new(),
        };
        // Without the search for calls in text, the person must learn that the server needs a parser.
        let rescues = self.resolved.target().settings.rescue_tool_calls;
        repairs.retain(|repair| rescues || *repair != Repair::CallsAsText);
        repairs.extend(room_after(failure, &self.asked).map(Repair::Room));
        // A failure that names nothing to change, such as that of a starting server, uses up no repair.
        if repairs.is_empty() {
            return false;
        }
        if repairs == self.named {
            self.take_back_repair();
        }
        if self.repairs.len() >= REPAIRS_MAX {
            // The client sends the request again, which then needs fewer repairs.
            self.learn_repairs();
            return false;
        }
        let mut bytes = std::mem::take(&mut self.body);
        let Ok(mut body) = json::parse(&mut bytes) else { return false };
        let is_tried = |repair: &Repair| self.repairs.iter().any(|made| made.change.is_same_change(repair));
        let mut possible = possible_repairs(&repairs, &body, &is_tried);
        if self.repairs.len() + 1 == REPAIRS_MAX {
            possible.reverse();
        }
        let before = possible.iter().any(Repair::is_guess).then(|| body.to_json());
        let made = possible.into_iter().find(|repair| make_repair(repair, &mut body));
        let is_made = made.is_some();
        if let Some(made) = made {
            log::debug!(
                "upstream {}: {} {made}",
                self.resolved.served.name(),
                ShownText::new(&self.resolved.model)
            );
            self.before_guess = before.filter(|_| made.is_guess()).unwrap_or_default().into_bytes();
            self.repairs.push(MadeRepair { change: made, has_helped: true, is_undone: false });
            // The new change may have undone an older one: messages that were split may be merged again.
            self.make_known_repairs(&mut body);
        }
        body.write(&mut self.body);
        self.named = repairs;
        is_made
    }

    /// Notes that the last repair did not help, since the same refusal came again. A guess, such as the loss of an image
    /// that was not the broken one, is undone.
    fn take_back_repair(&mut self) {
        let Some(last) = self.repairs.last_mut() else { return };
        last.has_helped = false;
        if !self.before_guess.is_empty() {
            last.is_undone = true;
            self.body = std::mem::take(&mut self.before_guess);
        }
    }

    /// Makes all repairs that this request is known to need.
    fn make_known_repairs(&self, body: &mut Value<'_>) {
        let made = self.repairs.iter().filter(|made| !made.is_undone).map(|made| &made.change);
        make_repairs(self.resolved.repairs.iter().chain(made), body);
    }

    /// Remembers the repairs that helped.
    fn learn_repairs(&self) {
        self.repairs
            .iter()
            .filter(|made| made.has_helped && made.change.is_lasting())
            .for_each(|made| self.resolved.learn_repair(&made.change));
    }

    /// Remembers what a refusal says about the model.
    fn learn(&self, failure: &UpstreamError) {
        let window = |tokens, limits_answers| {
            self.resolved.learn_window(ToldWindow { tokens, limits_answers });
        };
        match failure {
            UpstreamError::OutputTooLarge { window: told } => {
                self.resolved.served.upstream().mark_stale();
                window(*told, true);
            }
            UpstreamError::Overflow { window: Some(told), output, .. } => window(*told, output.is_some()),
            UpstreamError::Overflow { window: None, .. }
            | UpstreamError::OutputEnded
            | UpstreamError::Refused { .. }
            | UpstreamError::Other(_) => {}
        }
    }
}

/// The words of servers that refuse a request before any work on it: llama.cpp, Ollama, SGLang.
const NOT_BEGUN: [&str; 3] = ["loading model", "server busy", "queue is full"];

/// The server's own words in a refusal, in lower case.
fn server_words(error: &Error) -> String {
    error.source.as_ref().unwrap_or(&error.message).to_ascii_lowercase()
}

/// Whether a refusal says that the model did not begin. A 503 alone does not say so when it comes late: load balancers give
/// it for a server that died at work (Envoy), and servers for a request that they broke off.
fn says_not_begun(error: &Error) -> bool {
    let words = server_words(error);
    NOT_BEGUN.iter().any(|said| words.contains(said))
}

/// The tokens that the refused request leaves for an answer, if any.
fn room_after(failure: &UpstreamError, asked: &Asked) -> Option<u64> {
    let likely = |window, prompt| Some(likely_room(window, prompt));
    match failure {
        UpstreamError::OutputTooLarge { window } => {
            Some(window.saturating_sub(asked.prompt_tokens).max(window / 4))
        }
        // The server stopped counting at the first token beyond its window, and nothing else counted the prompt.
        UpstreamError::Overflow {
            prompt: Some(prompt),
            prompt_is_least: true,
            window: Some(window),
            output: Some(_),
            ..
        } => likely(*window, (*prompt).max(asked.prompt_tokens).saturating_mul(UNCOUNTED) / 100),
        UpstreamError::Overflow { prompt: Some(prompt), window: Some(window), output: Some(_), .. } => {
            window.checked_sub(prompt.saturating_add(1)).filter(|room| *room > 0)
        }
        // The refusal has no numbers, or its wording is unknown. If the client asked for more than the window most
        // likely has left, that is most likely the cause.
        UpstreamError::Overflow { prompt: None, excess: None, window, .. } => {
            likely((*window).or(asked.window)?, asked.prompt_tokens).filter(|room| *room < asked.max_tokens)
        }
        UpstreamError::Other(error) | UpstreamError::Refused { error, .. } if speaks_of_tokens(error) => {
            likely(asked.window?, asked.prompt_tokens).filter(|room| *room < asked.max_tokens)
        }
        _ => None,
    }
}

/// True if a refusal may be about the length of an answer.
fn speaks_of_tokens(error: &Error) -> bool {
    let words = server_words(error);
    error.kind == Kind::InvalidRequest && (words.contains("token") || words.contains("context"))
}

/// A failed try.
struct FailedAttempt {
    error: Error,
    /// The seconds that the upstream asked to wait.
    retry_after: Option<u32>,
    /// True if the model may have begun to work on the request. Then the request is never sent again, since it would
    /// run twice.
    may_have_run: bool,
}

impl FailedAttempt {
    /// How long to wait before another try. `None`: the model may have begun, waiting does not help, or the wait is too
    /// long.
    fn pause_before_retry(&self, backoff: Duration) -> Option<Duration> {
        let mends = matches!(self.error.retry, Retry::After(_)) && !self.may_have_run;
        let told = self.retry_after.map(|seconds| Duration::from_secs(seconds.into()));
        let pause = told.map_or(backoff, |told| told.max(backoff));
        (mends && pause <= PATIENCE_MAX).then_some(pause)
    }
}

/// Waits for `time` and watches the client meanwhile.
fn rest(wait: &Rc<dyn Wait>, time: Duration) -> Result<(), Stop> {
    let never = Wake::new().map_err(Error::exhausted)?;
    match wait_for(wait.as_ref(), never.as_fd(), time) {
        Err(transport::Failure::ClientGone) => Err(Stop::ClientGone),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::estimate::Prompt;

    #[test]
    fn only_what_passes_and_did_not_begin_is_tried_again() {
        let pause = |retry, retry_after, may_have_run| {
            let error = Error::new(Kind::Overloaded, "").retry(retry);
            FailedAttempt { error, retry_after, may_have_run }.pause_before_retry(BACKOFF)
        };
        let passing = Retry::After(1);
        assert_eq!(pause(passing, None, false), Some(BACKOFF));
        assert_eq!(pause(passing, Some(0), false), Some(BACKOFF));
        assert_eq!(pause(passing, Some(3), false), Some(Duration::from_secs(3)));
        assert_eq!(pause(passing, Some(60), false), None);
        assert_eq!(pause(Retry::Never, None, false), None);
        assert_eq!(pause(Retry::Unsaid, None, false), None);
        assert_eq!(pause(passing, None, true), None);
    }

    #[test]
    fn only_some_refusals_say_that_nothing_was_begun() {
        for (body, expected) in [
            (r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#, true),
            (r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#, true),
            (r#"{"object":"error","message":"The request queue is full.","code":503}"#, true),
            (r#"{"object":"error","message":"The request is aborted.","code":503}"#, false),
            (
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
                false,
            ),
            ("<html><h1>503 Service Unavailable</h1></html>", false),
            ("", false),
        ] {
            let UpstreamError::Other(error) = read_failure(503, &mut body.as_bytes().to_vec(), None) else {
                unreachable!("{body}")
            };
            assert_eq!(says_not_begun(&error), expected, "{body}");
        }
    }

    #[test]
    fn the_room_that_a_refusal_leaves() {
        let asked = Asked {
            model: "m".into(),
            estimate: Prompt { text: 5_000, images: 0 },
            prompt_tokens: 5_000,
            wanted_tokens: 30_000,
            max_tokens: 20_000,
            is_clamped_to_window: true,
            window: Some(24_000),
        };
        let overflow = |prompt, prompt_is_least, window, output| UpstreamError::Overflow {
            prompt,
            prompt_is_least,
            window,
            output,
            excess: None,
        };
        let other = |kind, words: &str| UpstreamError::Other(Error::new(kind, words));
        for (failure, room) in [
            (UpstreamError::OutputTooLarge { window: 16_000 }, Some(11_000)),
            (overflow(Some(6_000), false, Some(24_000), Some(20_000)), Some(17_999)),
            (overflow(Some(24_000), false, Some(24_000), Some(20_000)), None),
            // The prompt alone is longer than the window.
            (overflow(Some(30_000), false, Some(24_000), None), None),
            // The server counted 24,000 - 20,000 + 1 tokens and then stopped.
            (overflow(Some(4_001), true, Some(24_000), Some(20_000)), Some(24_000 - 5_500 - 64)),
            (overflow(None, false, None, None), Some(24_000 - 5_000 - 64)),
            (other(Kind::InvalidRequest, "Too many tokens were asked for"), Some(24_000 - 5_000 - 64)),
            (other(Kind::InvalidRequest, "temperature must be at most 2"), None),
            (other(Kind::Api, "no token"), None),
        ] {
            assert_eq!(room_after(&failure, &asked), room, "{failure:?}");
        }
        // The request would have fitted, so it was refused for another reason.
        let modest = Asked { max_tokens: 100, ..asked };
        assert_eq!(room_after(&overflow(None, false, None, None), &modest), None);
        assert_eq!(room_after(&other(Kind::InvalidRequest, "a bad token"), &modest), None);
    }
}
