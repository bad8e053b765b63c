//! Asking an upstream: its place in the queue, the mended second try that some errors allow, and tries again where time
//! mends them.

use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::time::Duration;

use crate::error::{Error, Kind, Retry};
use crate::json::{self, Object, Value};
use crate::openai::{Failure, read_failure};
use crate::protocol::tokenize::{ask_token_count, question};
use crate::translate::{Asked, IMAGE_OMITTED, failure_error};
use crate::transport::{self, Path, Response, Wait, wait_for};
use crate::wake::Wake;

use super::exchange::Exchange;
use super::relay::{error_at_once, error_body};
use super::stop::Stop;
use crate::activity::Phase;
use crate::fleet::Resolved;

/// Tries beside the first, before anything went to the client.
const RETRIES_MAX: u32 = 2;

/// Before the first of them; doubled for the next.
const BACKOFF: Duration = Duration::from_millis(250);

/// An upstream that asks for more patience than this gets none of ours: the client, who can tell its user, waits.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// One request to one upstream, until the head of a good response.
pub(super) struct Attempt<'a> {
    pub(super) resolved: &'a Resolved,
    pub(super) asked: Asked,
    pub(super) body: Vec<u8>,
    pub(super) mended: bool,
}

impl Attempt<'_> {
    /// The response, once it is one of success.
    ///
    /// # Errors
    /// What is left to tell the client, who has seen nothing yet.
    #[inline(never)] // its part of the stack is not kept while the answer streams
    pub(super) fn open(&mut self, exchange: &Exchange, wait: &Rc<dyn Wait>) -> Result<Response, Stop> {
        exchange.active().enter(Phase::Head);
        let mut backoff = BACKOFF;
        let mut retries = 0;
        loop {
            let (error, told) = match self.post(wait)? {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let may_retry = retries < RETRIES_MAX && !exchange.started();
            let Some(pause) = pause_before_retry(&error, told, backoff).filter(|_| may_retry) else {
                return Err(error.into());
            };
            log::debug!("upstream {}: trying again in {pause:?}: {error}", self.resolved.served.name());
            rest(wait, pause)?;
            // In the pause the client may have been given the beginning of its answer.
            if exchange.started() {
                return Err(error.into());
            }
            retries += 1;
            backoff *= 2;
        }
    }

    /// One try, and a second where its error says what to change.
    /// The error comes with the seconds that the upstream itself asked to wait.
    fn post(&mut self, wait: &Rc<dyn Wait>) -> Result<Result<Response, (Error, Option<u32>)>, Stop> {
        loop {
            let served = &self.resolved.served;
            let response = match served.upstream().post(Path::Api("/chat/completions"), &self.body, wait) {
                Ok(response) => response,
                Err(transport::Failure::ClientGone) => return Err(Stop::ClientGone),
                Err(failure) => return Ok(Err((failure.to_error(served.name()), None))),
            };
            let at_once = error_at_once(&response);
            if (200..300).contains(&response.status) && at_once.is_none() {
                return Ok(Ok(response));
            }
            let retry_after = response.retry_after;
            if let Some(error) = self.refused(response, at_once, wait) {
                return Ok(Err((error, retry_after)));
            }
        }
    }

    /// What a response without success means; `None`: it said what to change, and that is changed.
    #[inline(never)] // a response of success is not to have its part of the stack below it
    fn refused(
        &mut self,
        response: Response,
        at_once: Option<Failure>,
        wait: &Rc<dyn Wait>,
    ) -> Option<Error> {
        let (status, retry_after) = (response.status, response.retry_after);
        if status == 404 {
            self.resolved.served.upstream().mark_stale(); // another model may be served there now
        }
        let failure = at_once.unwrap_or_else(|| read_failure(status, &mut error_body(response), retry_after));
        if self.mend(&failure) {
            return None;
        }
        Some(failure_error(self.measured(failure, wait), &self.asked))
    }

    /// A prompt that the upstream stopped counting at its window, with its real length: by how much it is too long tells
    /// a client how much to drop.
    fn measured(&self, mut failure: Failure, wait: &Rc<dyn Wait>) -> Failure {
        if let Failure::Overflow { prompt, prompt_is_least: is_least @ true, .. } = &mut failure {
            let mut bytes = self.body.clone();
            let question = json::parse(&mut bytes).map(|body| question(self.resolved.flavour, body));
            let counted = question.ok().and_then(|question| ask_token_count(self.resolved, &question, wait));
            // A count that contradicts the refusal counts something else.
            if counted >= *prompt {
                (*prompt, *is_least) = (counted, false);
            }
        }
        failure
    }

    /// Changes the body so that the same error will not come again, once; whether that was possible.
    fn mend(&mut self, failure: &Failure) -> bool {
        if std::mem::replace(&mut self.mended, true) {
            return false;
        }
        let served = &self.resolved.served;
        if let Failure::OutputTooLarge { window } | Failure::Overflow { window: Some(window), .. } = failure {
            served.learn_window(&self.resolved.model, *window);
        }
        let change: Box<dyn Fn(&mut Object<'_>)> = match failure {
            Failure::OutputTooLarge { window } => {
                served.upstream().mark_stale();
                let room = window.saturating_sub(self.asked.prompt_tokens).max(window / 4);
                Box::new(move |body| limit(body, room))
            }
            Failure::Overflow { prompt: Some(prompt), window: Some(window), output: Some(_), .. }
                if prompt + 1 < *window =>
            {
                let room = window - prompt - 1;
                Box::new(move |body| limit(body, room))
            }
            Failure::NoThinkingBudget => {
                served.learn_no_thinking_budget(&self.resolved.model);
                Box::new(|body| _ = body.remove("thinking_token_budget"))
            }
            Failure::NoVision(_) => {
                served.learn_no_vision(&self.resolved.model);
                Box::new(without_images)
            }
            Failure::Overflow { .. } | Failure::Other(_) => return false,
        };
        let mut bytes = std::mem::take(&mut self.body);
        let Ok(mut body) = json::parse(&mut bytes) else { return false };
        let Some(object) = body.as_object_mut() else { return false };
        change(object);
        let mut mended = Vec::new();
        body.write(&mut mended);
        self.body = mended;
        true
    }
}

fn limit(body: &mut Object<'_>, max_tokens: u64) {
    for key in ["max_completion_tokens", "max_tokens"] {
        if let Some(limit) = body.get_mut(key) {
            *limit = max_tokens.into();
        }
    }
}

/// Puts a line of text in the place of each image: else one image would end the conversation, since it stays in it.
fn without_images(body: &mut Object<'_>) {
    let Some(Value::Array(messages)) = body.get_mut("messages") else { return };
    for message in messages.to_mut() {
        let content = message.as_object_mut().and_then(|message| message.get_mut("content"));
        let Some(Value::Array(parts)) = content else { continue };
        for part in parts.to_mut().iter_mut().filter(|part| part.get("image_url").is_some()) {
            *part = Value::object([("type", "text".into()), ("text", IMAGE_OMITTED.into())]);
        }
    }
}

/// How long to wait before another try; `None`: time does not mend this, or not soon.
/// `told`: the seconds that the upstream asked for.
fn pause_before_retry(error: &Error, told: Option<u32>, backoff: Duration) -> Option<Duration> {
    let passing = matches!(error.kind, Kind::BadGateway | Kind::Overloaded);
    let mends = matches!(error.retry, Retry::After(_));
    let pause = told.map_or(backoff, |seconds| Duration::from_secs(seconds.into()).max(backoff));
    (passing && mends && pause <= PATIENCE_MAX).then_some(pause)
}

/// Lets `time` pass while it watches the client.
fn rest(wait: &Rc<dyn Wait>, time: Duration) -> Result<(), Stop> {
    let never = Wake::new().map_err(Stop::Client)?;
    match wait_for(wait.as_ref(), never.as_fd(), time) {
        Err(transport::Failure::ClientGone) => Err(Stop::ClientGone),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_is_tried_again() {
        let pause = |error: &Error, told| pause_before_retry(error, told, BACKOFF);
        let passing = |kind| Error::new(kind, "").retry(Retry::After(1));
        assert_eq!(pause(&passing(Kind::BadGateway), None), Some(BACKOFF));
        assert_eq!(pause(&passing(Kind::Overloaded), None), Some(BACKOFF));
        assert_eq!(pause(&passing(Kind::Overloaded), Some(0)), Some(BACKOFF));
        assert_eq!(pause(&passing(Kind::Overloaded), Some(3)), Some(Duration::from_secs(3)));
        assert_eq!(pause(&passing(Kind::Overloaded), Some(60)), None);
        assert_eq!(pause(&Error::new(Kind::BadGateway, "").retry(Retry::Never), None), None);
        assert_eq!(pause(&passing(Kind::RateLimit), None), None);
        assert_eq!(pause(&passing(Kind::Timeout), None), None);
        assert_eq!(pause(&Error::new(Kind::Api, ""), None), None);
    }
}
