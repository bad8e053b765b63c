//! `POST /v1/messages`, stage by stage: body, hooks, route, translation, upstream, answer, log.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::anthropic::MessagesRequest;
use crate::error::Error;
use crate::hooks::{ErrorDecision, Hook};
use crate::http::Request;
use crate::ids;
use crate::json::{Document, Value};
use crate::openai::Counts;
use crate::prefix::ChainBuilder;
use crate::search::SideSearch;
use crate::server::Client;
use crate::shown::ShownText;
use crate::translate::{Asked, Plan, estimate};
use crate::transport::{ExtraHeaders, Wait, has_left};

use super::attempt::Attempt;
use super::body::read_body;
use super::client_slot::ClientSlot;
use super::exchange::{Exchange, Summary};
use super::filter::Filter;
use super::identity::{self, Identity};
use super::outgoing::Gate;
use super::passing::{self, MessagesAnswer, PassedRequest, note_passed_target};
use super::prepare::{Hooked, Incoming, describe, settle_lane};
use super::recorded;
use super::recorded_way::note_answer_head;
use super::relay::Relay;
use super::rescued;
use super::rounds::{KeptRequest, SearchRounds};
use super::routing::{NextTry, Routing, give_back, note_grant, sign_of, wait_for_place};
use super::search::{SEARCH_UPSTREAM, answer_search, find_search, searches_itself};
use super::state::Proxy;
use super::stop::Stop;
use super::turn::ChainedRequest;
use crate::activity::{ActiveRequest, Caller, Phase, PhaseTimes, Placed, Record, StepKind, Streaming};
use crate::fleet::{BoxSlot, Gateway, Outage, Resolved, Served, Sign, Spent, Ticket};

/// How many times one request may ask an upstream, counting those that `on_error` names. Stops a hook that names the same
/// one without end.
const ROUNDS_MAX: usize = 32;

/// The turn of a request at its upstream.
enum NextTurn {
    /// It is ready for its upstream.
    Now(Box<Prepared>),
    /// It waits for a place. Its body is saved, and its tree is dropped.
    Later(Ticket),
}

/// A request that is ready for its upstream.
struct Prepared {
    resolved: Resolved,
    body: Vec<u8>,
    /// The headers that its upstream gets beside the usual ones.
    headers: ExtraHeaders,
    plan: Plan,
    /// `None`: the request was translated.
    passed: Option<Box<PassedRequest>>,
    /// Its place, if its upstream is one of several, or gets a limited number of requests at a time.
    slot: Option<BoxSlot>,
}

/// The parts of one request that all its stages share.
#[derive(Clone, Copy)]
struct Stages<'s> {
    proxy: &'s Proxy,
    gateway: &'s Arc<Gateway>,
    exchange: &'s Rc<Exchange>,
    caller: &'s Caller,
}

/// The facts about one request that its stages add to.
struct Course<'s> {
    hooked: &'s mut Hooked,
    record: &'s mut Record,
    /// `None` until the body was read, and after `on_error` has named another upstream.
    routing: Option<Routing>,
    /// The time without an upstream that takes the request, over all its tries.
    outage: Outage,
    /// The chain of the body that was sent last, and how it differs from that of the turn before.
    turn: Option<ChainedRequest>,
    /// Its place among the requests of its client, if its key has limits.
    client_slot: Option<ClientSlot>,
    /// The answer of the first upstream, if that speaks the Messages API and the request went elsewhere.
    refusal: Option<Error>,
}

/// Serves one request, and logs one line however it ends.
///
/// # Errors
/// Errors of the client's connection.
pub(super) fn serve(
    proxy: &Proxy,
    client: &Client,
    request: Request,
    caller: &Caller,
    active: &Arc<ActiveRequest>,
) -> io::Result<()> {
    let exchange = Exchange::new(proxy, client, active);
    proxy.recorder.begin(exchange.tap(), active.began());
    recorded::note_head(exchange.tap(), &request);
    let mut record = Record::new(active.request_id(), caller);
    record.began = active.began();
    identity::describe(&request, &mut record.details);
    let gateway = proxy.gateway();
    let mut hooked = Hooked::default();
    let stages = Stages { proxy, gateway: &gateway, exchange: &exchange, caller };
    let outage = Outage::new(Duration::ZERO);
    let mut course = Course {
        hooked: &mut hooked,
        record: &mut record,
        routing: None,
        outage,
        turn: None,
        client_slot: None,
        refusal: None,
    };
    let outcome = proxy.client_slot(&gateway, caller, client).map_err(Stop::from).and_then(|slot| {
        course.client_slot = slot;
        answer(stages, request, &mut course)
    });
    let outcome = outcome.map_err(|stop| stop.or_refusal(course.refusal.take()));
    let client_slot = course.client_slot.take();
    let is_by_client = outcome.as_ref().is_err_and(Stop::is_by_client);
    let (summary, counts) = exchange.summary();
    course.record.is_cache_told = counts.is_cache_told;
    if let Some(turn) = course.turn.take() {
        let is_same_body = course.record.request_repairs == 0 && outcome.is_ok();
        course.record.prefix = turn.end(&proxy.activity, counts, is_same_body);
    }
    note(&mut record, &summary, active);
    // The place is free before the client has its whole answer, since its next request may come at once.
    if let Some(slot) = client_slot {
        let used = match summary.end {
            // An answer whose usage never came, since its client left, counts as much as it might have used.
            None if summary.first.is_some() && is_by_client => slot.reserved(),
            // One that its upstream cut off costs only what the upstream has told until then.
            None => counts.prompt.saturating_add(counts.completion),
            Some(_) => record.prompt_tokens() + record.usage.output,
        };
        slot.end(used);
    }
    let (result, left) = conclude(&exchange, outcome, &mut record);
    proxy.activity.counters().add_pings(exchange.pings());
    if let Some(phase) = left {
        proxy.activity.add_cancelled(phase);
    }
    active.hide_keys(&mut record);
    let finished = proxy.finish(&gateway, record);
    recorded::keep_recording(proxy, exchange.tap(), &finished.record);
    hooked.log(gateway.hooks(), &finished.record);
    result
}

/// Fills in the facts about the answer.
fn note(record: &mut Record, summary: &Summary, active: &ActiveRequest) {
    (record.coercions, record.repairs) = summary.changes;
    record.behavior.is_loop_broken |= summary.has_looped;
    if let (rescued, Some(family)) = summary.rescued {
        (record.behavior.rescued, record.behavior.rescued_form) = (rescued, family.name);
    }
    let since = |moment: Option<Instant>| moment.map(|at| at.saturating_duration_since(active.began()));
    record.times = PhaseTimes {
        first_byte: since(summary.first),
        first_word: since(summary.first_word),
        ..active.times()
    };
    record.usage = summary.told;
    if let Some((reason, usage)) = summary.end {
        record.stop_reason = Some(reason);
        record.usage = usage;
    }
}

/// Sends the last bytes of the answer, or the error. Also returns the phase of the request if the client had left.
#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
fn conclude(
    exchange: &Exchange,
    outcome: Result<(), Stop>,
    record: &mut Record,
) -> (io::Result<()>, Option<Phase>) {
    record.status = exchange.passed_status().unwrap_or(200);
    let said = match outcome.map_err(|stop| exchange.end_of(stop)) {
        Ok(()) => exchange.finish(),
        Err(Stop::Respond(message)) => match exchange.respond(&message) {
            Ok(()) => exchange.finish(),
            Err(error) => tell_error(exchange, &error, exchange.has_written(), record),
        },
        Err(Stop::Cut(error)) => {
            record.error = Some(format!("cut off, so that the client asks again: {error}"));
            return (Err(io::ErrorKind::ConnectionAborted.into()), None);
        }
        Err(Stop::ClientGone) => Err(io::ErrorKind::BrokenPipe.into()),
        Err(Stop::Client(error)) => Err(error),
        Err(Stop::Error(error)) => tell_error(exchange, &error, exchange.started(), record),
        // Translated text that was not written yet is withheld: the client gets an error status instead.
        Err(Stop::Refused(error)) => tell_error(exchange, &error, exchange.has_written(), record),
    };
    let left = said.as_ref().err().map(|error| exchange.note_left(error, record));
    (said, left)
}

/// Ends an answer with an error: an event if the client already has a part of the answer, otherwise a status.
fn tell_error(exchange: &Exchange, error: &Error, is_event: bool, record: &mut Record) -> io::Result<()> {
    record.error = Some(error.to_string());
    exchange.tap().note(StepKind::Failed, b"", || recorded::error_facts(error, is_event));
    if is_event {
        exchange.fail(error);
        return exchange.finish();
    }
    record.status = error.status();
    recorded::note_error(exchange.tap(), error, exchange.request_id());
    exchange.client().borrow_mut().respond_error(error, exchange.request_id())
}

#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
fn answer(stages: Stages<'_>, request: Request, course: &mut Course<'_>) -> Result<(), Stop> {
    let exchange = stages.exchange;
    let wait: Rc<dyn Wait> = exchange.clone();
    let staged = stages.first(&request, course);
    if matches!(staged, Err(Stop::Respond(_))) && !exchange.is_expecting() {
        // The hooks that see answers also see one that a hook gave.
        exchange.expect(plan_of(course), ids::message_id(), stages.filter(course));
    }
    let mut turn = staged?;
    let mut request = Some(request);
    let mut tried = Vec::new();
    loop {
        let Prepared { resolved, body, headers, plan, passed, slot } = match (turn, &request) {
            (NextTurn::Now(prepared), _) => *prepared,
            (NextTurn::Later(ticket), Some(request)) => stages.wait_in_line(ticket, request, course)?,
            (NextTurn::Later(_), None) => return Err(Stop::ClientGone), // a request that waits keeps its head
        };
        log::trace!("{} to the upstream: {}", course.record.request_id, String::from_utf8_lossy(&body));
        let (asked, search) = (plan.asked.clone(), plan.search.clone());
        course.record.behavior.loop_length = plan.loop_length;
        course.record.behavior.is_loop_broken = plan.is_loop_broken;
        let saved_size = course.hooked.saved.as_ref().map_or(0, Vec::len);
        let kept_size = saved_size + plan.kept_size();
        exchange.share().set(body.len() + kept_size);
        match &passed {
            Some(_) if exchange.has_message() => return Err(passing::too_late()),
            Some(_) => exchange.expect_passing(plan),
            None => exchange.expect_elsewhere(plan, || stages.filter(course)),
        }
        let served = Arc::clone(&resolved.served);
        let mut attempt = Attempt::new(resolved, asked, body, stages.gate());
        attempt.has_others = course.routing.as_ref().is_some_and(Routing::is_repeatable);
        (attempt.headers, attempt.search) = (headers, search);
        attempt.tap = exchange.tap().clone();
        // Check for a client that left: nobody watched it while hooks ran or a large body was translated. It may also
        // have left while an upstream worked in vain.
        let unwatched = course.hooked.shown.is_some() || course.hooked.is_watched || !tried.is_empty();
        if unwatched && has_left(wait.as_ref()) {
            return Err(Stop::ClientGone);
        }
        exchange.active().describe(&course.record.details);
        let asked_at = Instant::now();
        let sizes = (slot.as_ref(), kept_size);
        let answered = match passed {
            Some(passed) => stages.pass(&mut attempt, *passed, sizes, course, &mut request),
            None => ask(stages, &mut attempt, sizes, course, &mut request),
        };
        let ticket =
            slot.and_then(|slot| stages.give_back(slot, &attempt, (&answered, asked_at), &served, course));
        let error = match answered {
            Err(Stop::Error(error)) => error,
            other => return other,
        };
        let again = ticket.map_or(NextTry::Impossible, |ticket| stages.another(&ticket, course));
        let (Some(request), true) = (&request, exchange.may_restart()) else {
            let is_pool = matches!(again, NextTry::With(_)) && exchange.streams();
            return Err(if is_pool { Stop::Cut(error) } else { error.into() });
        };
        tried.push(served.name().to_string());
        let error = match again {
            NextTry::With(ticket) => {
                stages.note_failover(served.name(), error, course);
                turn = NextTurn::Later(ticket);
                continue;
            }
            NextTry::TooLate => stages.gateway.dispatcher().unreachable(Some(&error)),
            NextTry::Impossible => error,
        };
        // This includes an error that the answer begins with.
        turn = match exchange.started() {
            false => stages.elsewhere(request, error, &tried, course)?,
            true => return Err(error.into()),
        };
    }
}

/// Asks the upstream, and passes its answer on; again after each round of searches that the model asks for.
#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
fn ask(
    stages: Stages<'_>,
    attempt: &mut Attempt,
    sizes: (Option<&BoxSlot>, usize),
    course: &mut Course<'_>,
    request: &mut Option<Request>,
) -> Result<(), Stop> {
    while let (counts, true) = ask_once(stages, attempt, sizes, course, request)? {
        // The body of the first round is the one that the next turn extends.
        if let Some(turn) = course.turn.take() {
            let is_same_body = course.record.request_repairs == 0;
            course.record.prefix = turn.end(&stages.proxy.activity, counts, is_same_body);
        }
    }
    Ok(())
}

/// Asks the upstream once, passes its answer on, and makes the searches that the model asks for. Returns its counts, and
/// whether another round follows.
#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
fn ask_once(
    stages: Stages<'_>,
    attempt: &mut Attempt,
    (slot, kept_size): (Option<&BoxSlot>, usize),
    course: &mut Course<'_>,
    request: &mut Option<Request>,
) -> Result<(Counts, bool), Stop> {
    let exchange = stages.exchange;
    let wait: Rc<dyn Wait> = exchange.clone();
    exchange.share().set(kept_size + attempt.body.len());
    let repairs_before = attempt.repairs_made();
    let opened = attempt.open(exchange, &wait);
    course.record.details.upstream_model.clone_from(&attempt.resolved.model);
    course.record.request_repairs += attempt.repairs_made().saturating_sub(repairs_before);
    let response = opened?;
    exchange.mark_head(response.sent());
    if attempt.renewals > 0 {
        exchange.set_limits(&attempt.asked);
        exchange.active().describe(&course.record.details);
    }
    let kept = KeptRequest::take(attempt);
    let kept_size = kept_size + kept.as_ref().map_or(0, KeptRequest::size);
    let _streaming = begin_answer(exchange, attempt, kept_size, course, request);
    let sent = response.sent();
    let Attempt { resolved, asked, .. } = &*attempt;
    let relayed = Relay { exchange, resolved, asked, kept_size, slot }.run(response);
    let (first, counts) = exchange.round();
    let prompt_time = first.zip(sent).map(|(first, sent)| first.saturating_duration_since(sent));
    resolved.learn_answer(counts, asked, prompt_time);
    let (summary, _) = exchange.summary();
    if let Some(family) = summary.rescued.1 {
        rescued::warn_about(stages.gateway, resolved, family);
    }
    rescued::learn_calls(resolved, &summary);
    relayed?;
    let (gateway, budget) = (stages.gateway.as_ref(), &stages.proxy.budget);
    let rounds = SearchRounds { gateway, exchange, shown: course.hooked.shown.as_ref(), slot, budget };
    let goes_on = rounds.run(attempt, kept, &mut course.record.behavior.searches)?;
    Ok((counts, goes_on))
}

/// Drops the request, unless it may be sent again, since its answer may take minutes. The returned value marks a stream until
/// it is dropped.
fn begin_answer<'e>(
    exchange: &'e Exchange,
    attempt: &mut Attempt,
    kept_size: usize,
    course: &Course<'_>,
    request: &mut Option<Request>,
) -> Option<Streaming<'e>> {
    (attempt.body, attempt.headers) = Default::default();
    exchange.share().set(kept_size);
    if course.hooked.saved.is_none() {
        *request = None;
    }
    let is_streamed = exchange.streams();
    exchange.active().enter(if is_streamed { Phase::Stream } else { Phase::Whole });
    is_streamed.then(|| exchange.active().begin_stream())
}

impl<'s> Stages<'s> {
    fn incoming<'i>(&'i self, request: &'i Request) -> Incoming<'i> {
        let wait: Rc<dyn Wait> = self.exchange.clone();
        let room = Some(self.proxy.budget.trees());
        Incoming { gateway: self.gateway, wait: Some(wait), room, request, caller: self.caller }
    }

    /// The last check before an upstream.
    fn gate(&self) -> Gate {
        Gate::new(self.gateway, self.proxy.budget.trees())
    }

    /// The hooks that see the events of the answer.
    fn filter(&self, course: &Course<'_>) -> Option<Filter> {
        Filter::new(self.gateway, course.hooked.shown.as_ref())
    }

    /// Does everything before an upstream is asked. The request's tree is dropped on return, because an answer may take
    /// minutes.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    fn first(&self, request: &Request, course: &mut Course<'_>) -> Result<NextTurn, Stop> {
        let exchange = self.exchange;
        let mut document = read_body(self.proxy, exchange, request)?;
        if self.gateway.speaks_messages() {
            // For the copy that is kept of the client's bytes.
            exchange.claim(2 * document.bytes().len())?;
        }
        log::trace!(
            "{} from the client: {}",
            course.record.request_id,
            String::from_utf8_lossy(document.bytes())
        );
        exchange.tap().bytes(StepKind::Request, document.bytes());
        exchange.received();
        let incoming = self.incoming(request);
        course.hooked.client = Some(exchange.socket().clone());
        let body = incoming.hooked(&mut document, course.hooked);
        if let (Ok(body), true) = (&body, self.gateway.hooks().defines(Hook::Request)) {
            let decision = (course.hooked.record, exchange.active().began());
            let body = &|| body.to_json().into_bytes();
            recorded::note_hooked(self.proxy, exchange.tap(), (request, body), decision);
        }
        // The log names the model even if a hook refuses or answers the request.
        if let Some(shown) = course.hooked.shown.as_ref().map(|shown| shown.borrow()) {
            course.record.details.client_model.clone_from(&course.hooked.client_model);
            course.record.details.is_streamed = shown.stream;
        }
        let body = body?;
        if let Some(search) = find_search(self.gateway, &body)
            && !searches_itself(&incoming, &body, course.hooked)?
        {
            return Err(self.search(&body, search, course));
        }
        self.route(&incoming, &body, course)
    }

    /// Answers a request that is one web search. The client gets pings while the engine is asked.
    fn search(&self, body: &Value<'_>, search: SideSearch, course: &mut Course<'_>) -> Stop {
        describe(body, course.record);
        SEARCH_UPSTREAM.clone_into(&mut course.record.details.upstream);
        let checked = MessagesRequest::read(body).and_then(|_| match &mut course.client_slot {
            Some(client) => client.check(&course.record.details.client_model, body),
            None => Ok(()),
        });
        if let Err(error) = checked {
            return error.into();
        }
        course.record.behavior.searches = 1;
        let details = &course.record.details;
        let plan = bare_plan(&details.client_model, 1, details.is_streamed);
        self.exchange.expect(plan, ids::message_id(), self.filter(course));
        self.exchange.active().describe(details);
        let answered =
            answer_search(self.gateway, course.hooked.shown.as_ref(), search, self.exchange.as_ref());
        answered.map_or_else(|stop| stop, Stop::Respond)
    }

    /// Finds the upstream of a request, and translates the request for it. If no place is free, the request must wait.
    fn route(
        &self,
        incoming: &Incoming<'_>,
        body: &Value<'_>,
        course: &mut Course<'_>,
    ) -> Result<NextTurn, Stop> {
        let (messages, routing) = incoming.routed(body, course.hooked, course.record)?;
        let mut key_lane = None;
        if let Some(client) = &mut course.client_slot {
            client.check(&course.record.details.client_model, body)?;
            key_lane = client.limits().lane;
        }
        settle_lane(course.hooked, key_lane, course.record);
        let mut slot = None;
        if routing.needs_place() {
            let identity = Identity { request: incoming.request, caller: self.caller, body };
            let ticket = routing.ticket(&identity, course.record.details.lane);
            let place = course.record.place.insert(Placed::default());
            match self.gateway.dispatcher().take_at_once(ticket)? {
                Ok(taken) => {
                    note_grant(&taken, place);
                    slot = Some(taken);
                }
                Err(ticket) => {
                    course.hooked.save(body);
                    course.routing = Some(routing);
                    return Ok(NextTurn::Later(ticket));
                }
            }
        }
        // A copy of the body is needed only where the request may be sent elsewhere.
        if routing.is_repeatable() {
            course.hooked.save(body);
        }
        course.routing = Some(routing);
        Ok(NextTurn::Now(Box::new(self.ready(incoming, (body, messages.as_ref()), slot, course)?)))
    }

    /// Translates the request to the body for the upstream of its place.
    fn ready(
        &self,
        incoming: &Incoming<'_>,
        (body, messages): (&Value<'_>, Option<&MessagesRequest<'_>>),
        slot: Option<BoxSlot>,
        course: &mut Course<'_>,
    ) -> Result<Prepared, Stop> {
        let Some(routing) = &course.routing else { return Err(Stop::ClientGone) };
        let mut resolved = routing.resolve(slot.as_ref())?;
        let is_repeatable = routing.is_repeatable();
        // The turn of an earlier try at another upstream ends without an answer.
        if let Some(earlier) = course.turn.take() {
            earlier.end(&self.proxy.activity, Counts::default(), false);
        }
        if resolved.served.upstream().speaks_messages() {
            let keys = &self.proxy.access().keys;
            let with = (keys, &self.proxy.thinking);
            let hooked = &*course.hooked;
            let prepared =
                passing::prepare(incoming, (passing::MESSAGES, &mut resolved), hooked, course.record, with)?;
            let (body_sent, headers, passed) = prepared;
            note_passed_target(self.exchange.tap(), &resolved, &passed);
            self.drop_saved(is_repeatable, course);
            let details = &mut course.record.details;
            details.prompt_estimate = estimate::prompt_tokens(body);
            let plan = bare_plan(&details.client_model, details.prompt_estimate, details.is_streamed);
            return Ok(Prepared {
                resolved,
                body: body_sent,
                headers,
                plan,
                passed: Some(Box::new(passed)),
                slot,
            });
        }
        let read;
        let messages = match messages {
            Some(messages) => messages,
            None => {
                read = MessagesRequest::read(body)?;
                &read
            }
        };
        let cluster = resolved.served.upstream().config().cluster;
        let identity = Identity { request: incoming.request, caller: self.caller, body };
        let headers = identity.headers(cluster, course.record.details.lane);
        let (body, plan, chains) =
            incoming.translated(messages, &resolved, course.hooked, course.record, |chat, own| {
                let mut body = Vec::new();
                let chain = ChainBuilder::write(&chat.body, &mut body);
                (body, chat.plan, (chain, own))
            })?;
        recorded::note_target(self.exchange.tap(), &resolved, plan.context_window_beta);
        course.turn =
            Some(ChainedRequest::begin(&self.proxy.activity, identity.session(), chains, &resolved));
        self.drop_saved(is_repeatable, course);
        Ok(Prepared { resolved, body, headers, plan, passed: None, slot })
    }

    /// Drops the copy of the body, unless the request may be sent again.
    fn drop_saved(&self, is_repeatable: bool, course: &mut Course<'_>) {
        if !is_repeatable && !self.gateway.hooks().defines(Hook::Error) {
            course.hooked.saved = None;
        }
    }

    /// Asks an upstream that speaks the Messages API, and passes its answer on as it comes.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    fn pass(
        &self,
        attempt: &mut Attempt,
        mut passed: PassedRequest,
        (slot, kept_size): (Option<&BoxSlot>, usize),
        course: &mut Course<'_>,
        request: &mut Option<Request>,
    ) -> Result<(), Stop> {
        let exchange = self.exchange;
        let wait: Rc<dyn Wait> = exchange.clone();
        let ledger = &self.proxy.thinking;
        exchange.active().enter(Phase::Head);
        let response = passing::open(attempt, &mut passed, ledger, &wait)?;
        note_answer_head(exchange.tap(), &response);
        exchange.mark_head(response.sent());
        let _streaming = begin_answer(exchange, attempt, kept_size, course, request);
        let resolved = &attempt.resolved;
        let answer = MessagesAnswer { exchange, resolved, passed: &passed, ledger, slot, kept_size };
        course.record.error = answer.run(response)?;
        Ok(())
    }

    /// Waits for a place with the client watched, and translates the request for the upstream that it gets.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    fn wait_in_line(
        &self,
        ticket: Ticket,
        request: &Request,
        course: &mut Course<'_>,
    ) -> Result<Prepared, Stop> {
        let exchange = self.exchange;
        let wait: Rc<dyn Wait> = exchange.clone();
        let saved = course.hooked.saved.as_ref().map_or(0, Vec::len);
        exchange.share().set(saved);
        if !exchange.is_expecting() {
            let details = &course.record.details;
            let plan = bare_plan(&details.client_model, ticket.prompt, details.is_streamed);
            // The client gets pings while it waits, and no message if the answer may be one of the upstream's own.
            match course.routing.as_ref().is_some_and(Routing::may_pass) {
                true => exchange.expect_passing(plan),
                false => exchange.expect(plan, ids::message_id(), self.filter(course)),
            }
        }
        exchange.active().describe(&course.record.details);
        exchange.active().enter(Phase::Queue);
        course.outage.set_patience(self.patience());
        let place = course.record.place.get_or_insert_default();
        let slot = wait_for_place(self.gateway.dispatcher(), ticket, &wait, &mut course.outage, place)?;
        let is_repeatable = course.routing.as_ref().is_some_and(Routing::is_repeatable);
        let may_pass = course.routing.as_ref().is_some_and(Routing::may_pass);
        let is_kept = is_repeatable || may_pass || self.gateway.hooks().defines(Hook::Error);
        let saved = if is_kept { course.hooked.saved.clone() } else { course.hooked.saved.take() };
        let mut document = Document::from(saved.unwrap_or_default());
        let incoming = self.incoming(request);
        let body = incoming.parse(&mut document)?;
        self.ready(&incoming, (&body, None), Some(slot), course)
    }

    fn patience(&self) -> Duration {
        self.proxy.options.patience.for_upstreams(self.exchange.streams())
    }

    /// Gives a place back, and notes how its upstream is. Returns the ticket if the upstream was busy or has failed, and not
    /// if it has only refused this request.
    fn give_back(
        &self,
        slot: BoxSlot,
        attempt: &Attempt,
        (answered, asked_at): (&Result<(), Stop>, Instant),
        served: &Served,
        course: &mut Course<'_>,
    ) -> Option<Ticket> {
        let sign = match answered {
            Ok(()) => Sign::Answered,
            Err(Stop::Error(error) | Stop::Cut(error)) => attempt.sign.unwrap_or_else(|| sign_of(error)),
            Err(_) if self.exchange.has_content() => Sign::Answered,
            Err(_) => Sign::Unknown,
        };
        let counts = self.exchange.counts_to_learn();
        let spent = Spent { prompt: counts.prompt, cached: counts.cached, completion: counts.completion };
        if matches!(sign, Sign::Full(_) | Sign::Gone) {
            course.outage.spend(asked_at.elapsed());
        }
        let error = if let Err(Stop::Error(error)) = answered { Some(error) } else { None };
        let routing = course.routing.as_mut();
        let may_follow = routing.is_some_and(|routing| routing.note_end(&attempt.resolved, sign, error));
        let ticket = may_follow.then(|| slot.ticket().clone());
        let sign = if passing::is_clients_limit(attempt, answered) { Sign::Unknown } else { sign };
        let error = answered.as_ref().err().and_then(Stop::upstream_error);
        give_back(self.gateway, slot, served.name(), (sign, spent), (error, self.exchange.active()));
        ticket
    }

    /// Notes that a request goes elsewhere after the failure of an upstream.
    fn note_failover(&self, name: &str, error: Error, course: &mut Course<'_>) {
        let words = self.exchange.active().cleaned(&error);
        log::info!("{}: {name} failed: {words}", course.record.request_id);
        self.proxy.activity.counters().add_failover();
        if course.refusal.is_none() && error.relayed_answer().is_some() {
            course.refusal = Some(error);
        }
    }

    /// Whether the request can be tried again after a failure of the upstream.
    fn another(&self, ticket: &Ticket, course: &mut Course<'_>) -> NextTry {
        course.outage.set_patience(self.patience());
        let is_spent = course.outage.is_spent();
        course.routing.as_ref().map_or(NextTry::Impossible, |routing| routing.another(ticket, is_spent))
    }

    /// Handles the failure of an upstream before anything went to the client: `on_error` may name another upstream, or
    /// another error.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    fn elsewhere(
        &self,
        request: &Request,
        error: Error,
        tried: &[String],
        course: &mut Course<'_>,
    ) -> Result<NextTurn, Stop> {
        let incoming = self.incoming(request);
        let hooks = self.gateway.hooks();
        if !hooks.defines(Hook::Error) {
            return Err(error.into());
        }
        let (Some(shown), Some(saved)) = (&course.hooked.shown, &course.hooked.saved) else {
            return Err(error.into());
        };
        let failed = tried.last().map_or("", String::as_str);
        let alias = course.routing.as_ref().and_then(|routing| self.gateway.alias(routing.requested()));
        let untried = || {
            let mut upstreams = self.gateway.upstreams().iter();
            let is_untried = |served: &&Arc<Served>| !tried.iter().any(|tried| tried == served.name());
            let may = |served: &&Arc<Served>| self.gateway.may_replace(alias, served);
            upstreams.find(|served| is_untried(served) && may(served)).map(|served| served.name().to_string())
        };
        let (model, upstream) = match hooks.on_error(&error, failed, &mut shown.borrow_mut())? {
            ErrorDecision::Replace(other) => {
                course.refusal = None; // the owner's word is the last one
                return Err(other.into());
            }
            _ if tried.len() >= ROUNDS_MAX => (None, None),
            ErrorDecision::Continue => (None, None),
            ErrorDecision::RetryOther => (None, untried()),
            // This may be the same upstream again, with another of its models.
            ErrorDecision::Route { model, upstream } => (model, upstream),
        };
        let Some(next) = upstream.as_deref().or(model.as_deref()) else { return Err(error.into()) };
        let words = self.exchange.active().cleaned(&error);
        log::info!("{}: {failed} failed, trying {}: {words}", course.record.request_id, ShownText::new(next));
        self.proxy.activity.counters().add_failover();
        let mut document = Document::from(saved.clone());
        course.hooked.reroute(model, upstream);
        self.route(&incoming, &incoming.parse(&mut document)?, course)
    }
}

/// The plan for a message that a hook gave.
fn plan_of(course: &Course<'_>) -> Plan {
    let hooked = &*course.hooked;
    let shown = hooked.shown.as_ref().map(|shown| shown.borrow());
    let shown = shown.as_deref();
    bare_plan(
        &hooked.client_model,
        shown.map_or(1, |shown| shown.tokens_est),
        shown.is_some_and(|shown| shown.stream),
    )
}

/// The plan for the beginning of an answer to a request that was not translated.
fn bare_plan(model: &str, prompt_tokens: u64, is_streamed: bool) -> Plan {
    let (model, prompt_tokens) = (model.to_string(), prompt_tokens.max(1));
    let asked = Asked { model, prompt_tokens, ..Asked::default() };
    Plan { asked, stream: is_streamed, ..Plan::default() }
}
