//! The upstreams that can answer one request, those that have failed with it, and its place in the line for them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::identity::Identity;
use crate::activity::{ActiveRequest, Placed};
use crate::error::{Error, Kind, Retry};
use crate::fleet::{
    BoxId, BoxSlot, Candidate, Destination, Dispatcher, Gateway, NoSlot, Outage, Resolved, Sign, Spent,
    Ticket,
};
use crate::lane::Lane;
use crate::translate::estimate;
use crate::transport::{Failure, Wait};

/// Added to the rank of an upstream that has failed once, so that it comes behind all members and backups.
const FAILED_RANK: usize = 10_000;

/// Added to the rank of an upstream whose window is smaller than the prompt, so that it comes behind all that fit.
const SMALL_RANK: usize = 1_000;

/// The upstreams of one request.
pub(super) struct Routing {
    /// The model as the request names it.
    requested: String,
    destinations: Vec<Destination>,
    /// The upstreams that were busy, could not be reached, or have failed.
    tried: Vec<BoxId>,
    /// The upstreams that have failed when their model may have begun to work on the request.
    failed: Vec<BoxId>,
    /// The upstreams that have no model for the request, as an earlier or this request has shown, or must not get it.
    lacking: Vec<BoxId>,
    /// True if an upstream has answered with a server error, which another try would most likely bring again.
    has_error: bool,
}

impl Routing {
    pub(super) fn new(requested: &str, destinations: Vec<Destination>) -> Self {
        let is_lacking = |it: &&Destination| it.served.is_known_to_lack(&it.model(requested));
        // If all lack it, they are asked again, since the request has nowhere else to go. So a single one is not looked up.
        let lacking: Vec<BoxId> = match destinations.as_slice() {
            [_] => Vec::new(),
            several => several.iter().filter(is_lacking).map(|it| it.served.id()).collect(),
        };
        let lacking = if lacking.len() < destinations.len() { lacking } else { Vec::new() };
        Routing {
            requested: requested.to_string(),
            destinations,
            lacking,
            tried: Vec::new(),
            failed: Vec::new(),
            has_error: false,
        }
    }

    /// The model as the request names it.
    pub(super) fn requested(&self) -> &str {
        &self.requested
    }

    /// True if the request needs a place: there is a choice, or its upstream gets a limited number at a time.
    pub(super) fn needs_place(&self) -> bool {
        match self.destinations.as_slice() {
            [only] => only.served.needs_place(),
            _ => true,
        }
    }

    /// True if more than one upstream can answer.
    pub(super) fn is_pool(&self) -> bool {
        self.destinations.len() > 1
    }

    /// True if an upstream speaks the Messages API, so that its answer passes as it is.
    pub(super) fn may_pass(&self) -> bool {
        self.destinations.iter().any(|destination| destination.served.upstream().speaks_messages())
    }

    /// True if the request may be sent again after a failure: another upstream can answer, or the only one can be woken.
    pub(super) fn is_repeatable(&self) -> bool {
        self.is_pool() || self.destinations.iter().any(|destination| destination.served.can_be_woken())
    }

    /// True if an upstream was not tried yet.
    fn has_others(&self) -> bool {
        self.able().any(|destination| !self.tried.contains(&destination.served.id()))
    }

    /// The upstreams that are not known to lack the model, and may get the request.
    fn able(&self) -> impl Iterator<Item = &Destination> {
        self.destinations.iter().filter(|destination| !self.lacking.contains(&destination.served.id()))
    }

    /// How often an upstream has failed with this request.
    fn failures(&self, destination: &Destination) -> usize {
        self.failed.iter().filter(|failed| **failed == destination.served.id()).count()
    }

    /// The facts about the upstream of this place; without a place, the first one.
    ///
    /// # Errors
    /// 404: the place is at none of this request's upstreams. A place that a ticket of this request got never gives this
    /// error.
    pub(super) fn resolve(&self, slot: Option<&BoxSlot>) -> Result<Resolved, Error> {
        let id = slot.map(|slot| slot.grant().upstream);
        let mut destinations = self.destinations.iter();
        let found = destinations.find(|destination| id.is_none_or(|id| destination.served.id() == id));
        let found = found.map(|destination| destination.resolve(&self.requested));
        found.ok_or_else(|| {
            Error::new(Kind::NotFound, format!("model: {}", self.requested)).retry(Retry::Never)
        })
    }

    /// The facts about the upstream that counts tokens: the first one that gets new conversations now, otherwise the first
    /// one.
    ///
    /// # Errors
    /// Those of [`Routing::resolve`].
    pub(super) fn resolve_for_count(&self, dispatcher: &Dispatcher) -> Result<Resolved, Error> {
        match self.able().find(|destination| dispatcher.takes_new(destination.served.id())) {
            Some(destination) => Ok(destination.resolve(&self.requested)),
            None => self.resolve(None),
        }
    }

    /// The ticket for a place at one of the upstreams, in this lane.
    pub(super) fn ticket(&self, identity: &Identity<'_>, lane: Lane) -> Ticket {
        let head = identity.head();
        let prompt = estimate::prompt_tokens(identity.body).max(head.1);
        Ticket {
            candidates: self.candidates(prompt),
            conversation: identity.conversation(head.0).mixed(),
            head: (head.0.mixed(), head.1),
            prompt,
            lane,
            client: identity.client().mixed(),
            waits_for_health: self.is_repeatable(),
            is_failover: false,
        }
    }

    fn candidates(&self, prompt: u64) -> Vec<Candidate> {
        let candidate = |destination: &Destination| {
            let model = destination.model(&self.requested);
            // The rank of the only upstream decides nothing.
            let is_small = self.destinations.len() > 1
                && destination.window(&model).is_some_and(|window| window < prompt);
            // One that has failed is the last resort: it may be back before one that was out all the time.
            let rank = destination.rank
                + self.failures(destination) * FAILED_RANK
                + usize::from(is_small) * SMALL_RANK;
            Candidate { id: destination.served.id(), model, rank }
        };
        let may_fail_again = self.has_others() || !self.has_error;
        let usable = |destination: &&Destination| match self.failures(destination) {
            0 => true,
            1 => may_fail_again,
            _ => false,
        };
        self.able().filter(usable).map(candidate).collect()
    }

    /// The ticket for another try after a failure. `None`: no upstream is left for this request. Once all were tried, those
    /// that were busy, could not be reached or have lost the request are waited for, as long as the request has patience
    /// (`is_spent`): their health decides when each one gets a request again.
    pub(super) fn another(&self, ticket: &Ticket, is_spent: bool) -> NextTry {
        let candidates = self.candidates(ticket.prompt);
        if !self.is_repeatable() || candidates.is_empty() {
            return NextTry::Impossible;
        }
        if !self.has_others() && is_spent {
            // Each upstream has answered with an error of its own, so it can be reached.
            let has_all_failed = self.able().all(|destination| self.failures(destination) > 0);
            return if has_all_failed { NextTry::Impossible } else { NextTry::TooLate };
        }
        NextTry::With(Ticket { candidates, is_failover: true, ..ticket.clone() })
    }

    /// Takes in how a try has ended. Returns true if another one may follow: the upstream was busy, could not be reached, has
    /// failed, lacks the model or must not get the request, and has not only refused this request.
    pub(super) fn note_end(&mut self, resolved: &Resolved, sign: Sign, error: Option<&Error>) -> bool {
        let is_failure = matches!(sign, Sign::Full(_) | Sign::Failed | Sign::Gone);
        // A body that `never_to` has kept back was not sent, so it says nothing of its upstream.
        let is_held = sign == Sign::Unknown && error.is_some_and(|error| error.kind == Kind::Permission);
        if is_held {
            self.lacking.push(resolved.served.id());
        }
        let is_elsewhere = error.is_some_and(|error| self.note_lack(error, resolved));
        if is_failure || is_elsewhere {
            let is_passed = resolved.served.upstream().speaks_messages();
            let sign = if is_passed { Sign::Failed } else { sign };
            self.fail(resolved.served.id(), sign, !is_passed && error.is_some_and(is_lost));
        }
        is_failure || is_elsewhere || is_held
    }

    /// True if the error says that an upstream of this pool has no such model, which then is noted, so that other upstreams
    /// get the request.
    fn note_lack(&mut self, error: &Error, resolved: &Resolved) -> bool {
        // An API of the cloud gets the client's own name of a model, so its 404 is about the request.
        let is_local = !resolved.served.upstream().speaks_messages();
        let is_lack = is_local && self.is_pool() && error.kind == Kind::NotFound && {
            let words = error.source.as_ref().unwrap_or(&error.message).to_ascii_lowercase();
            words.contains("model") || resolved.served.listing_lacks(&resolved.model)
        };
        if is_lack {
            self.lacking.push(resolved.served.id());
            resolved.learn_lack();
        }
        is_lack
    }

    /// Notes that an upstream was busy, could not be reached, or has failed with this request. `is_lost`: its connection
    /// broke, so it may have been killed.
    fn fail(&mut self, id: BoxId, sign: Sign, is_lost: bool) {
        self.tried.push(id);
        if sign == Sign::Failed {
            self.failed.push(id);
            self.has_error |= !is_lost;
        }
    }
}

/// Waits for a place with the client watched, and notes the wait and the choice.
///
/// # Errors
/// Those of [`Dispatcher::take`].
pub(super) fn wait_for_place(
    dispatcher: &Arc<Dispatcher>,
    ticket: Ticket,
    wait: &Rc<dyn Wait>,
    outage: &mut Outage,
    place: &mut Placed,
) -> Result<BoxSlot, NoSlot> {
    let began = Instant::now();
    let taken = dispatcher.take(ticket, wait, outage);
    match &taken {
        Ok(slot) => note_grant(slot, place),
        // Nobody gave it a place, so no grant tells the time.
        Err(_) => place.waited += began.elapsed(),
    }
    taken
}

/// Notes why an upstream was chosen, and the time in the line.
pub(super) fn note_grant(slot: &BoxSlot, place: &mut Placed) {
    let grant = slot.grant();
    place.why = grant.why.name();
    place.waited += grant.waited;
}

/// Gives a place back, and tells how the state of its upstream has changed, if it has. `error`: the upstream's failure, which is
/// told without the keys of the request.
pub(super) fn give_back(
    gateway: &Arc<Gateway>,
    slot: BoxSlot,
    name: &str,
    (sign, spent): (Sign, Spent),
    (error, request): (Option<&Error>, &ActiveRequest),
) {
    if let Some(change) = slot.end(sign, spent) {
        let why = error.map_or_else(|| "it answered a request".to_owned(), |error| request.cleaned(error));
        gateway.tell_change(name, change, &why);
    }
}

/// Whether a request that has failed can be tried again.
pub(super) enum NextTry {
    /// It gets into the line with this ticket.
    With(Ticket),
    /// Its upstreams may answer later, but its patience is over.
    TooLate,
    /// No upstream is left for it.
    Impossible,
}

/// True if an error says that a connection broke, so that its upstream may have been killed. Refused credentials and invalid
/// answers stay the same, so clients are not to try again after them.
fn is_lost(error: &Error) -> bool {
    error.kind == Kind::BadGateway && error.retry != Retry::Never
}

/// The sign that an error gives about its upstream.
pub(super) fn sign_of(error: &Error) -> Sign {
    let time = match error.retry {
        Retry::After(seconds) => Some(Duration::from_secs(seconds.into())),
        Retry::Unsaid | Retry::Never | Retry::NotBefore(_) => None,
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
        Failure::Refused(_) | Failure::Stopped | Failure::Hung => Sign::Gone,
        Failure::Timeout(_) if failure.is_connection_lost() => Sign::Gone,
        Failure::Reset(_)
        | Failure::Truncated(_)
        | Failure::Timeout(_)
        | Failure::Tls(_)
        | Failure::Protocol(_)
        | Failure::Redirected(..)
        | Failure::Encoded(_)
        | Failure::TooLarge(_)
        | Failure::Status(_) => Sign::Failed,
    }
}
