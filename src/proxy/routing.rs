//! The upstreams that can answer one request, those that have failed with it, and its place in the line for them.

use std::time::{Duration, Instant};

use crate::activity::Caller;
use crate::error::{Error, Kind, Retry};
use crate::fleet::{BoxId, BoxSlot, Candidate, Destination, Resolved, Sign, Ticket};
use crate::hash::Fnv;
use crate::http::Request;
use crate::json::Value;
use crate::lane::Lane;
use crate::translate::estimate;
use crate::transport::Failure;

/// The upstreams of one request.
pub(super) struct Routing {
    /// The model as the request names it.
    requested: String,
    destinations: Vec<Destination>,
    /// The upstreams that have failed with this request.
    failed: Vec<BoxId>,
    /// True if a model may have begun to work on the request.
    may_have_run: bool,
    began: Instant,
}

impl Routing {
    pub(super) fn new(requested: &str, destinations: Vec<Destination>) -> Self {
        Routing {
            requested: requested.to_string(),
            destinations,
            failed: Vec::new(),
            may_have_run: false,
            began: Instant::now(),
        }
    }

    /// True if the request needs a place: there is a choice, or its upstream gets a limited number at a time.
    pub(super) fn needs_place(&self) -> bool {
        match self.destinations.as_slice() {
            [only] => only.served.places().is_some(),
            _ => true,
        }
    }

    /// True if more than one upstream can answer.
    pub(super) fn is_pool(&self) -> bool {
        self.destinations.len() > 1
    }

    /// True if another upstream can still be asked.
    pub(super) fn has_others(&self) -> bool {
        self.is_pool() && self.open().next().is_some()
    }

    /// The upstreams that have not failed.
    fn open(&self) -> impl Iterator<Item = &Destination> {
        self.destinations.iter().filter(|destination| !self.failed.contains(&destination.served.id()))
    }

    /// The facts about the upstream of this place; without a place, the first one.
    ///
    /// # Errors
    /// 404: there is no such upstream. It is never returned for a place that a ticket of this request got.
    pub(super) fn resolve(&self, slot: Option<&BoxSlot>) -> Result<Resolved, Error> {
        let id = slot.and_then(BoxSlot::upstream);
        let mut destinations = self.destinations.iter();
        let found = destinations.find(|destination| id.is_none_or(|id| destination.served.id() == id));
        let found = found.map(|destination| destination.resolve(&self.requested));
        found.ok_or_else(|| {
            Error::new(Kind::NotFound, format!("model: {}", self.requested)).retry(Retry::Never)
        })
    }

    /// The ticket for a place at one of the upstreams that have not failed.
    /// `lane` is the lane that a hook chose.
    pub(super) fn ticket(
        &self,
        body: &Value<'_>,
        request: &Request,
        caller: &Caller,
        lane: Option<Lane>,
    ) -> Ticket {
        let head = head(body);
        let client = match caller.user.as_deref() {
            Some(user) => Fnv::EMPTY.push(user.as_bytes()),
            None => Fnv::EMPTY.push(caller.address.to_string().as_bytes()),
        };
        let class = |name| request.header(name);
        Ticket {
            candidates: self.candidates(),
            conversation: conversation(request, head.0, body).mixed(),
            head: (head.0.mixed(), head.1),
            prompt: estimate::prompt_tokens(body).max(head.1),
            lane: lane.unwrap_or_else(|| {
                Lane::of(class("x-claude-code-request-class"), class("x-claude-1p-request-class"))
            }),
            client: client.mixed(),
            is_pool: self.is_pool(),
            is_failover: false,
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let candidate = |destination: &Destination| Candidate {
            id: destination.served.id(),
            model: destination.model(&self.requested),
            rank: destination.rank,
        };
        self.open().map(candidate).collect()
    }

    /// The ticket for another try after a failure. `None`: no upstream is left for this request. If all have failed before
    /// any of them began to work, the request waits for all of them, for `patience` in all.
    pub(super) fn another(&mut self, ticket: &Ticket, patience: Duration) -> Option<Ticket> {
        if !self.is_pool() {
            return None;
        }
        if !self.has_others() && !self.may_have_run && self.began.elapsed() < patience {
            self.failed.clear();
        }
        let candidates = self.candidates();
        let is_failover = true;
        (!candidates.is_empty()).then(|| Ticket { candidates, is_failover, ..ticket.clone() })
    }

    /// True if an upstream has failed with this request since the last try at all of them.
    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Notes that an upstream has failed with this request.
    pub(super) fn fail(&mut self, id: BoxId, sign: Sign) {
        self.may_have_run |= sign == Sign::Failed;
        self.failed.push(id);
    }
}

/// The hash of the beginning that a request shares with other conversations, tools and system prompt, and its tokens.
fn head(body: &Value<'_>) -> (Fnv, u64) {
    let tools = body.get("tools").and_then(Value::as_array).unwrap_or_default();
    let names = tools.iter().filter_map(|tool| tool.get("name")?.as_str());
    let hash = names.fold(Fnv::EMPTY, |hash, name| hash.push(name.as_bytes()).push(b"\n"));
    let mut system = Vec::new();
    if let Some(value) = body.get("system") {
        value.write(&mut system);
    }
    (hash.push(&system), estimate::head_tokens(body))
}

/// The hash of a conversation: Claude Code names its session and, for a conversation of its own, its agent. Other clients
/// are known by what stays the same: the beginning, and the first message.
fn conversation(request: &Request, head: Fnv, body: &Value<'_>) -> Fnv {
    if let Some(session) = request.header("x-claude-code-session-id") {
        let agent = request.header("x-claude-code-agent-id").unwrap_or_default();
        return Fnv::EMPTY.push(session.as_bytes()).push(b"\n").push(agent.as_bytes());
    }
    let mut first = Vec::new();
    let messages = body.get("messages").and_then(Value::as_array).unwrap_or_default();
    if let Some(message) = messages.first() {
        message.write(&mut first);
    }
    head.push(&first)
}

/// The sign that an error gives about its upstream.
pub(super) fn sign_of(error: &Error) -> Sign {
    let time = match error.retry {
        Retry::After(seconds) => Some(Duration::from_secs(seconds.into())),
        Retry::Unsaid | Retry::Never => None,
    };
    match error.kind {
        Kind::RateLimit | Kind::Overloaded => Sign::Full(time),
        Kind::Api | Kind::BadGateway | Kind::Timeout => Sign::Failed,
        _ => Sign::Answered,
    }
}

/// The sign that the failure of a call gives about its upstream.
pub(super) fn sign_of_failure(failure: &Failure) -> Sign {
    match failure {
        Failure::ClientGone | Failure::Exhausted(_) => Sign::Unknown,
        Failure::Refused(_) | Failure::Stopped => Sign::Gone,
        Failure::Timeout(_) if failure.is_connection_lost() => Sign::Gone,
        Failure::Reset(_)
        | Failure::Truncated(_)
        | Failure::Timeout(_)
        | Failure::Tls(_)
        | Failure::Protocol(_)
        | Failure::TooLarge(_)
        | Failure::Status(_) => Sign::Failed,
    }
}
