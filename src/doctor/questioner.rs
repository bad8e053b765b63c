//! Asks a server as requests do: with the repairs that its model is known to need, with those that its refusals call for,
//! and with the edits of `on_upstream_request`. So no check judges a refusal that no request ever meets.

use std::rc::Rc;
use std::time::Duration;

use crate::fleet::Upstream;
use crate::hooks::{Hook, HookRequest, Hooks};
use crate::json::Value;
use crate::openai::{Repair, UpstreamError, read_failure};
use crate::probe::{self, Answer, Format, Trouble};
use crate::translate::{make_repair, make_repairs, possible_repairs};
use crate::transport::{Failure, Path, Wait};

/// The most time from the head of an answer to its end. The answers have at most 256 tokens, or are read only until the
/// model begins to think, so a server that takes longer is too slow for Claude Code. A longer `timeout` of the upstream holds in its place.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// The most repairs of one question, as many as a model may need.
const REPAIRS_MAX: usize = 16;

/// The repairs that the questions to one model needed so far.
pub(super) struct Questioner<'u> {
    upstream: &'u Upstream,
    hooks: &'u Hooks,
    /// Called while the server is silent.
    wait: &'u Rc<dyn Wait>,
    /// The questions as hooks see them.
    request: HookRequest,
    /// The repairs that the model's name calls for.
    known: Vec<Repair>,
    /// The repairs that helped against refusals, the oldest first.
    learned: Vec<Repair>,
    /// The repairs that refusals of the last question called for, even if they did not help.
    tried: Vec<Repair>,
    /// The end of the questions: the trouble after which no further one is asked.
    last: Option<Trouble>,
}

impl<'u> Questioner<'u> {
    pub(super) fn new(upstream: &'u Upstream, hooks: &'u Hooks, wait: &'u Rc<dyn Wait>, model: &str) -> Self {
        let request = HookRequest {
            model: model.to_owned(),
            stream: true,
            path: "/v1/messages".into(),
            method: "POST".into(),
            client_ip: "127.0.0.1".into(),
            upstream: Some(upstream.name().to_owned()),
            ..HookRequest::default()
        };
        let known = Repair::known(model, upstream.discovered().refuses_extensions());
        let (learned, tried) = Default::default();
        Questioner { upstream, hooks, wait, request, known, learned, tried, last: None }
    }

    /// The repairs that the model's name calls for and that change this question.
    pub(super) fn known_for(&self, question: &Value<'_>) -> Vec<Repair> {
        let mut question = question.clone();
        self.known.iter().filter(|repair| make_repair(repair, &mut question)).cloned().collect()
    }

    /// The repairs that helped against refusals, the oldest first.
    pub(super) fn learned(&self) -> &[Repair] {
        &self.learned
    }

    /// The repairs that refusals of the last question called for, even if they did not help.
    pub(super) fn tried(&self) -> &[Repair] {
        &self.tried
    }

    /// True once the server has left a question without an answer, or is not ready for any: each further one would wait as
    /// long, or get the same refusal, so none is asked.
    pub(super) fn has_given_up(&self) -> bool {
        self.last.is_some()
    }

    /// Asks, and repairs the question until it is taken or nothing is left to change.
    pub(super) fn ask(
        &mut self,
        question: &Value<'_>,
        enough: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, Trouble> {
        self.tried.clear();
        if let Some(last) = &self.last {
            return Err(last.clone());
        }
        let asked = self.ask_and_repair(question, enough);
        self.last = asked.as_ref().err().filter(|trouble| ends_questions(trouble)).cloned();
        asked
    }

    fn ask_and_repair(
        &mut self,
        question: &Value<'_>,
        enough: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, Trouble> {
        let mut body = question.clone();
        self.make_repairs(&mut body);
        let (mut refused, mut in_vain): (Vec<Repair>, Vec<Repair>) = Default::default();
        loop {
            let asked = self.ask_once(&body, &enough);
            let named = asked.as_ref().err().map(named_repairs).unwrap_or_default();
            // The same refusal again: the last change did not help.
            if !named.is_empty() && named == refused {
                in_vain.extend(self.tried.last().cloned());
            }
            let Err(trouble) = asked else {
                let helped = self.tried.iter().filter(|repair| !in_vain.contains(repair));
                self.learned.extend(helped.cloned());
                return asked;
            };
            let is_made = |repair: &Repair| {
                [&self.known, &self.learned, &self.tried].iter().any(|made| made.contains(repair))
            };
            let possible = possible_repairs(&named, &body, &is_made);
            let made = possible.into_iter().find(|repair| make_repair(repair, &mut body));
            let Some(made) = made.filter(|_| self.tried.len() < REPAIRS_MAX) else { return Err(trouble) };
            self.tried.push(made);
            // The new change may have undone an older one: messages that were split may be merged again.
            self.make_repairs(&mut body);
            refused = named;
        }
    }

    /// Asks with calls as text, as requests do once a server was seen to drop calls.
    pub(super) fn ask_as_text(&mut self, question: &Value<'_>) -> Result<Answer, Trouble> {
        let mut question = question.clone();
        make_repair(&Repair::CallsAsText, &mut question);
        self.ask(&question, |_| false)
    }

    /// Asks once, with the edits of the owner's hooks.
    fn ask_once(&mut self, body: &Value<'_>, enough: &impl Fn(&Answer) -> bool) -> Result<Answer, Trouble> {
        let mut sent = body.clone();
        if self.hooks.defines(Hook::UpstreamRequest) {
            self.request.has_tools = sent.get("tools").is_some();
            let edited = self.hooks.on_upstream_request(&mut sent, &mut self.request);
            edited.map_err(|error| Trouble::Broken(format!("not sent: {error}")))?;
        }
        let (endpoint, path) = (self.upstream.endpoint(), Path::Api("/chat/completions"));
        let time = self.upstream.config().timeout.unwrap_or_default().max(ANSWER_TIME);
        probe::ask(endpoint, path, Format::Chat, &sent, (time, enough), self.wait)
    }

    /// Makes all repairs that the question is known to need.
    fn make_repairs(&self, body: &mut Value<'_>) {
        make_repairs(self.known.iter().chain(&self.learned).chain(&self.tried), body);
    }
}

/// True if the server would not answer the next question either: it was silent for too long, has stopped, limits requests,
/// or still loads its model.
fn ends_questions(trouble: &Trouble) -> bool {
    use Failure::{Hung, Stopped, Timeout};
    matches!(trouble, Trouble::Failure(Timeout(_) | Hung | Stopped) | Trouble::Refused(429 | 503, _))
}

/// The repairs for a refusal, also for one that comes in an event after status 200.
fn named_repairs(trouble: &Trouble) -> Vec<Repair> {
    let (status, mut body) = match trouble {
        Trouble::Refused(status, words) => {
            let words = Value::object([("message", words.clone().into())]);
            (*status, words.to_json().into_bytes())
        }
        Trouble::Broken(words) => (200, words.clone().into_bytes()),
        Trouble::Failure(_) => return Vec::new(),
    };
    match read_failure(status, &mut body, None) {
        UpstreamError::Refused { repairs, .. } => repairs,
        _ => Vec::new(),
    }
}
