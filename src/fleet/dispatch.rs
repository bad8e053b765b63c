//! Gives upstreams to requests: the state of all upstreams with a queue, and the line of those who wait, as one machine.
//!
//! A request comes with a [`Ticket`]: the upstreams that can answer it, its conversation, its prompt, its lane. All
//! waiting requests stand in one line, so that a request takes whichever of its upstreams can answer it soonest, not the
//! line of one of them. The next request is found by its lane, then by the client that has got least so far, then by
//! time.
//!
//! Reads no clock: `now` is an argument. Threads and descriptors are `slot`'s.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::choose::{Offer, Why, choose};
use super::conversations::{BoxId, Conversations};
use super::hang::Silence;
use super::health::{Health, HealthState, Sign, StateChange};
use super::load::{Load, LoadPage};
use super::memory::QuestionEnd;
use super::residents::{Expected, Residents};
use super::speed::{Speed, whole};
use super::waking::{Sleeper, WakeCall};
use crate::lane::Lane;

/// The most requests that wait for one upstream or its pool. A further client is told to try again later.
const WAITING_MAX: usize = 512;

/// The most requests that wait in all, so that a look through the line stays short.
const WAITING_IN_ALL_MAX: usize = 2048;

/// The most clients whose shares are remembered.
const CLIENTS_MAX: usize = 1024;

/// The most models of one upstream whose speeds are learned.
const MODELS_MAX: usize = 16;

/// The age from which on an upstream's own figures count as unknown.
const LOAD_AGE_MAX: Duration = Duration::from_secs(10);

/// The wait after which a request of an agent is as urgent as one of a person.
const AGENT_PATIENCE: Duration = Duration::from_secs(60);

/// The wait after which a request in the background is as urgent as one of a person.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(120);

/// The wait before a prefill from which on the prefill's time says nothing about its speed, in seconds.
const ALONE_S: f64 = 0.05;

/// The weight of the time that a prefill takes from each request that is there already, beside the request's own time.
/// From 1 to 2 the simulation (`tests/pool`) shows no difference; at 0 conversations move too often.
const DELAY_WEIGHT: f64 = 1.0;

/// The rest after which a person's conversation goes on in 37 of 100 cases. From 100 s to 1,000 s the simulation
/// (`tests/pool`) shows no difference.
const PERSON_REST: Duration = Duration::from_secs(300);

/// The same for a conversation of an agent, which ends with its task.
const AGENT_REST: Duration = Duration::from_secs(30);

/// An upstream that can answer a request, and the model that it would be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The upstream.
    pub id: BoxId,
    /// The model's name there.
    pub model: String,
    /// 0 for a member of the pool; a backup has its place in the list of backups, from 1.
    pub rank: usize,
}

/// A request that needs an upstream.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The upstreams that can answer it.
    pub candidates: Vec<Candidate>,
    /// The hash of its conversation.
    pub conversation: u64,
    /// The hash of the beginning that it shares with other conversations, and its tokens.
    pub head: (u64, u64),
    /// The tokens of its prompt.
    pub prompt: u64,
    /// How urgent it is.
    pub lane: Lane,
    /// The hash of its client.
    pub client: u64,
    /// True if the health of its upstreams counts: the owner gave it several, or one that can be woken. A request that has
    /// only one other upstream is sent to it however it is.
    pub waits_for_health: bool,
    /// True if another upstream has failed with it.
    pub is_failover: bool,
}

/// The upstream that a request got.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grant {
    /// The upstream, one of the ticket's candidates.
    pub upstream: BoxId,
    /// The reason.
    pub why: Why,
    /// The time in the line.
    pub waited: Duration,
}

/// The token counts of an answer that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// The tokens of the prompt.
    pub prompt: u64,
    /// The tokens of the prompt that were cached; 0 if the server does not say.
    pub cached: u64,
    /// The tokens of the answer.
    pub completion: u64,
}

impl Spent {
    /// The same counts in the units of a ticket, which estimates the prompt as `estimate` tokens. Prompts that are to come
    /// are estimated alike, so a part that was read before is compared with like.
    fn scaled_to(self, estimate: u64) -> Spent {
        let scaled = |tokens: u64| match u128::from(self.prompt) {
            0 => tokens,
            prompt => u64::try_from(u128::from(tokens) * u128::from(estimate) / prompt).unwrap_or(u64::MAX),
        };
        Spent {
            prompt: scaled(self.prompt),
            cached: scaled(self.cached),
            completion: scaled(self.completion),
        }
    }
}

/// The state of an upstream, for `/health` and the log.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxReport {
    /// Whether it gets requests, and since when.
    pub health: (HealthState, Instant),
    /// The requests that it has.
    pub running: usize,
    /// The most that it gets at a time.
    pub places: Option<u32>,
    /// The requests that could go to it and wait, by lane.
    pub waiting: [usize; 3],
    /// Its own figures, if they are fresh.
    pub load: Option<Load>,
}

/// The upstreams, and the requests that have one or wait for one. Public for the simulation of a pool (`tests/pool`); the
/// program uses it through [`super::Dispatcher`].
#[derive(Debug, Default)]
pub struct Dispatch {
    boxes: HashMap<BoxId, BoxState>,
    /// The upstreams that were ever added.
    added: u64,
    line: Vec<Waiter>,
    granted: HashMap<u64, (Ticket, Grant)>,
    conversations: Conversations,
    /// The estimated tokens that each client has got.
    clients: HashMap<u64, u64>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    since: Instant,
    ticket: Ticket,
}

#[derive(Debug)]
struct BoxState {
    name: u64,
    places: Option<u32>,
    drains: bool,
    sleeper: Option<Sleeper>,
    health: Health,
    running: Vec<Running>,
    speeds: HashMap<String, Speed>,
    residents: Residents,
    load: Option<(Load, Instant)>,
    /// The number of pieces of answers that have come. The requests that it works on count them.
    heard: Arc<AtomicU64>,
    silence: Silence,
    /// The conversation of the last request that failed.
    failed: Option<u64>,
}

/// A request that an upstream works on.
#[derive(Debug)]
struct Running {
    number: u64,
    conversation: u64,
    model: String,
    /// The tokens of the prompt, as its ticket says.
    prompt: u64,
    /// The tokens that should be cached.
    held: u64,
    /// The hash of the beginning that it shares, and its tokens.
    head: (u64, u64),
    /// The tokens behind that beginning that should be cached, to learn from.
    expected: Expected,
    lane: Lane,
    /// The seconds of prefill that it is expected to take.
    prefill: f64,
    begun: Instant,
    /// True if nothing else was in prefill beside it.
    is_alone: bool,
    first: Option<Instant>,
}

impl Dispatch {
    /// Adds an upstream. `name` is the hash of its name.
    pub fn add(&mut self, name: u64, now: Instant) -> BoxId {
        self.added += 1;
        let id = BoxId(self.added);
        let state = BoxState {
            name,
            places: None,
            drains: false,
            sleeper: None,
            health: Health::new(now),
            running: Vec::new(),
            speeds: HashMap::new(),
            residents: Residents::default(),
            load: None,
            heard: Arc::default(),
            silence: Silence::default(),
            failed: None,
        };
        self.boxes.insert(id, state);
        id
    }

    /// Sets the most requests that an upstream gets at a time, and whether it drains.
    pub fn set(&mut self, id: BoxId, places: Option<u32>, drains: bool) {
        if let Some(state) = self.boxes.get_mut(&id) {
            (state.places, state.drains) = (places, drains);
        }
    }

    /// Sets how the machine of an upstream is woken. `None`: it cannot be.
    pub(super) fn set_sleeper(&mut self, id: BoxId, sleeper: Option<Sleeper>) {
        if let Some(state) = self.boxes.get_mut(&id) {
            state.sleeper = sleeper;
        }
    }

    /// The magic packets that are due: for upstreams that are out, and wanted by a waiting request or by one that has just
    /// failed there.
    pub(super) fn due_wakes(&mut self, failed: Option<BoxId>, now: Instant) -> Vec<WakeCall> {
        let Dispatch { boxes, line, .. } = self;
        let is_wanted = |id: BoxId| {
            let wants = |waiter: &Waiter| waiter.ticket.candidates.iter().any(|candidate| candidate.id == id);
            failed == Some(id) || line.iter().any(wants)
        };
        let due = |(id, state): (&BoxId, &mut BoxState)| {
            let sleeper = state.sleeper.as_mut().filter(|_| state.health.is_out())?;
            is_wanted(*id).then(|| sleeper.call(now)).flatten()
        };
        boxes.iter_mut().filter_map(due).collect()
    }

    /// The speeds of an upstream's models, as text.
    pub(super) fn speeds(&self, id: BoxId) -> Vec<(String, String)> {
        let speeds = self.boxes.get(&id).into_iter().flat_map(|state| &state.speeds);
        speeds.map(|(model, speed)| (model.clone(), speed.to_text())).collect()
    }

    /// Takes over the speed of a model from before a restart. Ignores a text that is not a speed, and one for which there
    /// is no room.
    pub(super) fn restore_speed(&mut self, id: BoxId, model: &str, text: &str) {
        let Some(state) = self.boxes.get_mut(&id).filter(|state| state.speeds.len() < MODELS_MAX) else {
            return;
        };
        if let Some(speed) = Speed::from_text(text) {
            state.speeds.entry(model.to_owned()).or_insert(speed);
        }
    }

    /// Removes an upstream that was taken out of the configuration. Requests that it works on end as they do.
    pub(super) fn remove(&mut self, id: BoxId) {
        self.boxes.remove(&id);
        self.conversations.forget(id);
    }

    /// Adds a request to the line, if that is not full, and returns its number. [`Dispatch::serve`] gives it its place.
    pub fn join(&mut self, ticket: Ticket, now: Instant) -> Option<u64> {
        // Those who want the same upstream stand in each other's way, those of other pools do not.
        let wants = |id: BoxId| ticket.candidates.iter().any(|candidate| candidate.id == id);
        let shares = |waiter: &&Waiter| waiter.ticket.candidates.iter().any(|it| wants(it.id));
        if self.line.len() >= WAITING_IN_ALL_MAX || self.line.iter().filter(shares).count() >= WAITING_MAX {
            return None;
        }
        self.next += 1;
        // A client that comes back after a rest does not get everything that it did not use.
        let least = self.line.iter().filter_map(|waiter| self.clients.get(&waiter.ticket.client)).min();
        let least = least.copied().unwrap_or(0);
        if self.clients.len() >= CLIENTS_MAX {
            self.clients.clear();
        }
        let share = self.clients.entry(ticket.client).or_default();
        *share = (*share).max(least);
        self.line.push(Waiter { number: self.next, since: now, ticket });
        Some(self.next)
    }

    /// Takes a request out of the line, or gives back the place that it was granted just now.
    pub(super) fn leave(&mut self, number: u64, now: Instant) {
        self.line.retain(|waiter| waiter.number != number);
        if self.granted.remove(&number).is_some() {
            self.end(number, Sign::Unknown, Spent::default(), now);
        }
    }

    /// The upstream that the request was granted.
    pub fn collect(&mut self, number: u64) -> Option<(Ticket, Grant)> {
        self.granted.remove(&number)
    }

    /// The time until the first full upstream of a waiting request takes requests again, zero if all are out. `None`: one of
    /// them is well, and only busy, or the request does not wait for health.
    pub(super) fn lacks_upstream(&self, number: u64, now: Instant) -> Option<Duration> {
        let waiter = self.line.iter().find(|waiter| waiter.number == number)?;
        let healths = || {
            let candidates = waiter.ticket.candidates.iter();
            candidates.filter_map(|it| self.boxes.get(&it.id)).map(|state| &state.health)
        };
        let takes_requests = |health: &Health| !health.is_out() && health.admits(now);
        if !waiter.ticket.waits_for_health || healths().any(takes_requests) {
            return None;
        }
        Some(healths().filter_map(|health| health.full_for(now)).min().unwrap_or_default())
    }

    /// True while an upstream is out and its trial is not due yet.
    pub(super) fn rests(&self, id: BoxId, now: Instant) -> bool {
        self.boxes.get(&id).is_some_and(|state| state.health.rests(now))
    }

    /// True if an upstream gets new conversations now, as far as its health and the operator say.
    pub(super) fn takes_new(&self, id: BoxId, now: Instant) -> bool {
        self.boxes
            .get(&id)
            .is_some_and(|state| state.health.admits(now) && !state.health.is_out() && !state.drains)
    }

    /// Gives upstreams to waiting requests, as far as there are places. Returns the numbers of these requests.
    pub fn serve(&mut self, now: Instant) -> Vec<u64> {
        let mut served = Vec::new();
        while let Some((at, grant)) = self.next_grant(now) {
            let waiter = self.line.remove(at);
            served.push(waiter.number);
            self.begin(waiter, grant, now);
        }
        served
    }

    /// The first request in the line that can have its upstream now.
    fn next_grant(&self, now: Instant) -> Option<(usize, Grant)> {
        let rank = |waiter: &Waiter| {
            let waited = now.saturating_duration_since(waiter.since);
            let share = self.clients.get(&waiter.ticket.client).copied().unwrap_or(0);
            (aged(waiter.ticket.lane, waited), share, waiter.number)
        };
        let mut order: Vec<usize> = (0..self.line.len()).collect();
        order.sort_by_cached_key(|at| self.line.get(*at).map(rank));
        order.into_iter().find_map(|at| Some((at, self.grant(self.line.get(at)?, now)?)))
    }

    /// The upstream for a request, if the one that answers it soonest has a place for it.
    fn grant(&self, waiter: &Waiter, now: Instant) -> Option<Grant> {
        let Waiter { since, ticket, .. } = waiter;
        let waited = now.saturating_duration_since(*since);
        let open = |candidate: &Candidate| {
            self.boxes
                .get(&candidate.id)
                .is_some_and(|state| !ticket.waits_for_health || state.health.admits(now))
        };
        // A backup goes before members that drain. The client of an answer that broke off repeats its request: the upstream
        // that failed is the last resort for it, as it is within one request.
        let failed_at = self.conversations.failed_at(ticket.conversation);
        let order = |candidate: &Candidate| {
            let drains = self.boxes.get(&candidate.id).is_some_and(|it| it.drains);
            (failed_at == Some(candidate.id), drains, candidate.rank)
        };
        let (is_last_resort, _, rank) =
            ticket.candidates.iter().filter(|candidate| open(candidate)).map(order).min()?;
        let has_failed = |candidate: &Candidate| failed_at == Some(candidate.id);
        let (ids, offers): (Vec<BoxId>, Vec<Offer>) = ticket
            .candidates
            .iter()
            .filter(|candidate| candidate.rank == rank && has_failed(candidate) == is_last_resort)
            .filter(|candidate| open(candidate))
            .filter_map(|candidate| Some((candidate.id, self.offer(ticket, candidate, now)?)))
            .unzip();
        let (chosen, why) = choose(ticket.conversation, &offers)?;
        let upstream = *ids.get(chosen)?;
        let leaves_failed = !is_last_resort && ticket.candidates.iter().any(has_failed);
        let why = if ticket.is_failover || leaves_failed { Why::Failover } else { why };
        let has_place = self.boxes.get(&upstream)?.has_place(aged(ticket.lane, waited));
        has_place.then_some(Grant { upstream, why, waited })
    }

    /// The seconds that a request costs at an upstream.
    fn offer(&self, ticket: &Ticket, candidate: &Candidate, now: Instant) -> Option<Offer> {
        let state = self.boxes.get(&candidate.id)?;
        let speed = self.speed(ticket, candidate);
        let home = self.conversations.home(ticket.conversation);
        let mut held = self.held(ticket, candidate.id);
        if home.is_none() {
            // A new conversation finds the beginning that it shares at one upstream soon at all of them, since each one reads
            // it once. Counted as what it is now, it would draw all conversations to the upstream that read it first.
            let shared = ticket.candidates.iter().map(|it| self.conversations.held(ticket.head.0, it.id));
            held = held.max(shared.max().unwrap_or(0).min(ticket.prompt));
        }
        let held = speed.cached(held).min(ticket.prompt);
        let prefill = speed.prefill_seconds(ticket.prompt - held, ticket.prompt);
        // The conversations that have to read their prompts again because this one takes their memory.
        let tail = ticket.prompt.saturating_sub(ticket.head.1);
        let lost = whole(state.residents.displaced(ticket.conversation, tail, now));
        let displaced = speed.prefill_seconds(lost, lost.max(ticket.prompt));
        let (streams, waiting) = state.streams(now);
        let queue = f64::from(waiting) / f64::from(streams.max(1)) * speed.answer_seconds(streams);
        let cost = state.prefill_left(now)
            + state.place_seconds(&speed, streams)
            + queue
            + prefill * (1.0 + DELAY_WEIGHT * f64::from(streams))
            + 0.5 * speed.slowdown_seconds(streams)
            + displaced;
        Some(Offer { name: state.name, cost, is_home: home == Some(candidate.id), drains: state.drains })
    }

    /// The speed of a model at an upstream. One that has not answered yet is assumed to be as fast as another one of the
    /// pool: beside faster ones it would otherwise look slow, and never be asked.
    fn speed(&self, ticket: &Ticket, candidate: &Candidate) -> Speed {
        let known = |it: &Candidate| self.boxes.get(&it.id)?.speeds.get(&it.model).copied();
        known(candidate).or_else(|| ticket.candidates.iter().find_map(known)).unwrap_or_default()
    }

    /// The tokens of the prompt that the upstream has read before, by our own memory, as far as its cache should still have
    /// them.
    fn held(&self, ticket: &Ticket, id: BoxId) -> u64 {
        let head = self.conversations.held(ticket.head.0, id);
        let read = self.conversations.held(ticket.conversation, id).min(ticket.prompt);
        match self.boxes.get(&id) {
            Some(state) if read > head => {
                head + state.residents.expect(ticket.conversation, read - head).cached
            }
            _ => head.min(ticket.prompt),
        }
    }

    fn begin(&mut self, waiter: Waiter, grant: Grant, now: Instant) {
        let Waiter { number, ticket, .. } = waiter;
        let Some(candidate) = ticket.candidates.iter().find(|it| it.id == grant.upstream) else { return };
        let held = self.held(&ticket, candidate.id);
        let home = self.conversations.home(ticket.conversation).filter(|home| *home != candidate.id);
        let speed = self.speed(&ticket, candidate);
        *self.clients.entry(ticket.client).or_default() += (ticket.prompt - held).max(1);
        let Some(state) = self.boxes.get_mut(&candidate.id) else { return };
        let cached = speed.cached(held).min(ticket.prompt);
        let is_alone = state.prefill_left(now) < ALONE_S;
        // Whoever is in prefill now is disturbed by the newcomer.
        state.running.iter_mut().filter(|other| other.first.is_none()).for_each(|it| it.is_alone = false);
        state.health.begin();
        let tail = ticket.prompt.saturating_sub(ticket.head.1);
        let expected = state.residents.expect(ticket.conversation, tail);
        state.hold(ticket.head, (ticket.conversation, tail), ticket.lane, now);
        state.running.push(Running {
            number,
            conversation: ticket.conversation,
            model: candidate.model.clone(),
            prompt: ticket.prompt,
            held,
            head: ticket.head,
            expected,
            lane: ticket.lane,
            prefill: speed.prefill_seconds(ticket.prompt - cached, ticket.prompt),
            begun: now,
            is_alone,
            first: None,
        });
        if let Some(state) = home.and_then(|home| self.boxes.get_mut(&home)) {
            state.residents.abandon(ticket.conversation);
        }
        // The next request of the conversation finds it here even while this one runs.
        self.conversations.note(ticket.head.0, candidate.id, ticket.head.1);
        self.conversations.note(ticket.conversation, candidate.id, held);
        self.granted.insert(number, (ticket, grant));
    }

    /// Notes that the first token of an answer has come. Returns the upstream and the change of its state, if there was one: a
    /// trial has succeeded as far as others need to know.
    pub fn first_token(&mut self, number: u64, now: Instant) -> Option<(BoxId, StateChange)> {
        let (id, state) = self.boxes.iter_mut().find(|(_, state)| state.has(number))?;
        let running = state.running.iter_mut().find(|running| running.number == number)?;
        running.first.get_or_insert(now);
        state.health.recover(now).map(|change| (*id, change))
    }

    /// Ends a request, learns from it, and frees its place. Returns the upstream and the change of its state, if
    /// there was one.
    pub fn end(
        &mut self,
        number: u64,
        sign: Sign,
        spent: Spent,
        now: Instant,
    ) -> Option<(BoxId, StateChange)> {
        let has = |state: &BoxState| state.running.iter().position(|running| running.number == number);
        let (id, at) = self.boxes.iter().find_map(|(id, state)| Some((*id, has(state)?)))?;
        let state = self.boxes.get_mut(&id)?;
        let streams = state.streams(now).0;
        let running = state.running.remove(at);
        match sign {
            Sign::Failed => self.conversations.note_failure(running.conversation, Some(id)),
            Sign::Answered => self.conversations.note_failure(running.conversation, None),
            Sign::Full(_) | Sign::Gone | Sign::Unknown => {}
        }
        let sign = state.counted(sign, running.conversation);
        let spent = spent.scaled_to(running.prompt);
        if spent.prompt > 0 {
            state.learn(&running, spent, streams, now);
            let read = spent.prompt.saturating_add(spent.completion);
            let tail = (running.conversation, read.saturating_sub(running.head.1));
            state.hold(running.head, tail, running.lane, now);
            self.conversations.note(running.conversation, id, read);
        }
        if sign == Sign::Gone {
            // Whatever server answers next was started anew, with an empty cache.
            state.forget_cache(id, &mut self.conversations);
        }
        state.health.take(sign, now).map(|change| (id, change))
    }

    /// Takes in how the background's question to an upstream ended. Returns the change of the upstream's state, if there
    /// was one.
    pub(super) fn probed(&mut self, id: BoxId, end: QuestionEnd, now: Instant) -> Option<StateChange> {
        let state = self.boxes.get_mut(&id)?;
        state.silence.note_question(end);
        // A server that is mute may only be busy: its streams tell.
        state.health.probed(end != QuestionEnd::Unreached, now)
    }

    /// Takes in the figures of a server about its own work. If the owner set no number of places, the server's own one
    /// holds (`may_set_places`).
    pub(super) fn loaded(&mut self, id: BoxId, page: &LoadPage, may_set_places: bool, now: Instant) {
        if let Some(state) = self.boxes.get_mut(&id) {
            state.load = Some((page.load, now));
            if state.silence.take(page) {
                state.health.works(now);
            }
            if may_set_places && page.slots.is_some() {
                state.places = page.slots;
            }
        }
    }

    /// The counter of the pieces of answers that have come from an upstream.
    pub(super) fn heard(&self, id: BoxId) -> Option<Arc<AtomicU64>> {
        self.boxes.get(&id).map(|state| Arc::clone(&state.heard))
    }

    /// Looks whether an upstream hangs, and puts it out then. `limit` is the least silence that counts. Returns the time of
    /// its silence, and the change of its state, if there was one.
    pub(super) fn look(
        &mut self,
        id: BoxId,
        limit: Duration,
        now: Instant,
    ) -> Option<(Duration, Option<StateChange>)> {
        let state = self.boxes.get_mut(&id)?;
        let heard = (state.heard.load(Ordering::Relaxed), state.running.len());
        let (predicted, is_fresh) = (state.prefill_at_most(), state.fresh_load(now).is_some());
        let silent = state.silence.look(heard, predicted, limit, is_fresh, now)?;
        let change = state.health.stand_still(now);
        state.forget_cache(id, &mut self.conversations);
        Some((silent, change))
    }

    /// The state of an upstream.
    pub(super) fn report(&self, id: BoxId, now: Instant) -> Option<BoxReport> {
        let state = self.boxes.get(&id)?;
        let mut waiting = [0; 3];
        for waiter in &self.line {
            let ticket = &waiter.ticket;
            let is_here = ticket.candidates.iter().any(|candidate| candidate.id == id);
            if let Some(count) = waiting.get_mut(usize::from(ticket.lane.number())).filter(|_| is_here) {
                *count += 1;
            }
        }
        Some(BoxReport {
            health: state.health.state_at(now),
            running: state.running.len(),
            places: state.places,
            waiting,
            load: state.fresh_load(now),
        })
    }
}

impl BoxState {
    fn has(&self, number: u64) -> bool {
        self.running.iter().any(|running| running.number == number)
    }

    /// The sign that a request of this conversation gives. One conversation fails once in a row: a request that kills every
    /// server would otherwise put all of them out, since its client repeats it.
    fn counted(&mut self, sign: Sign, conversation: u64) -> Sign {
        match sign {
            Sign::Failed if self.failed == Some(conversation) && !self.health.is_out() => Sign::Unknown,
            Sign::Failed => {
                self.failed = Some(conversation);
                sign
            }
            Sign::Answered => {
                self.failed = None;
                sign
            }
            Sign::Full(_) | Sign::Gone | Sign::Unknown => sign,
        }
    }

    fn fresh_load(&self, now: Instant) -> Option<Load> {
        let (load, at) = self.load?;
        (now.saturating_duration_since(at) <= LOAD_AGE_MAX).then_some(load)
    }

    /// The requests that the server works on, and those that wait in it and are not ours.
    fn streams(&self, now: Instant) -> (u32, u32) {
        let own = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        match self.fresh_load(now) {
            Some(load) => {
                let all = load.running.saturating_add(load.waiting);
                let others_waiting = load.waiting.min(all.saturating_sub(own));
                (own.max(load.running), others_waiting)
            }
            None => (own, 0),
        }
    }

    /// The seconds of prefill that the upstream still has to do for the requests that it has.
    fn prefill_left(&self, now: Instant) -> f64 {
        let pending = self.running.iter().filter(|running| running.first.is_none());
        let (mut left, mut since) = (0.0, None::<Instant>);
        for running in pending {
            left += running.prefill;
            // The prefills are made one after the other, since the last first token or the first of these requests.
            since = Some(since.map_or(running.begun, |since| since.min(running.begun)));
        }
        let last_first = self.running.iter().filter_map(|running| running.first).max();
        let since = since.map(|since| last_first.map_or(since, |first| since.max(first)));
        let done = since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        f64::max(left - done, 0.0)
    }

    /// The most time that the prefills of all its requests should take together, from their begin on.
    fn prefill_at_most(&self) -> Duration {
        let pending = self.running.iter().filter(|running| running.first.is_none());
        let speed = |model: &String| self.speeds.get(model).copied().unwrap_or_default();
        let seconds = pending.map(|running| running.prefill * speed(&running.model).doubt()).sum();
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// The seconds until a place is free.
    fn place_seconds(&self, speed: &Speed, streams: u32) -> f64 {
        let Some(places) = self.places else { return 0.0 };
        let own = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        if own < places {
            return 0.0;
        }
        speed.answer_seconds(streams) * f64::from(own - places + 1) / f64::from(places.max(1))
    }

    /// True if there is a place for a request of this lane. One place of two or more is kept for persons.
    fn has_place(&self, lane: Lane) -> bool {
        let Some(places) = self.places else { return true };
        let kept = u32::from(lane != Lane::Person && places >= 2);
        self.running.len() < usize::try_from(places - kept).unwrap_or(usize::MAX)
    }

    /// Forgets all that its cache had.
    fn forget_cache(&mut self, id: BoxId, conversations: &mut Conversations) {
        self.residents = Residents::default();
        conversations.forget(id);
    }

    /// Notes that its cache has the beginning and the rest of a conversation from now on: key and tokens of each.
    fn hold(&mut self, head: (u64, u64), tail: (u64, u64), lane: Lane, now: Instant) {
        let life = match lane {
            Lane::Person => PERSON_REST,
            Lane::Agent | Lane::Background => AGENT_REST,
        };
        self.residents.touch(head.0, head.1, PERSON_REST, now);
        self.residents.touch(tail.0, tail.1, life, now);
    }

    fn learn(&mut self, running: &Running, spent: Spent, streams: u32, now: Instant) {
        if !self.speeds.contains_key(&running.model) && self.speeds.len() >= MODELS_MAX {
            self.speeds.clear();
        }
        let speed = self.speeds.entry(running.model.clone()).or_default();
        speed.learn_cached(running.held, spent.cached);
        if spent.cached > 0 {
            self.residents.learn(running.expected, spent.cached.saturating_sub(running.head.1));
        }
        let Some(first) = running.first else { return };
        let cached = if spent.cached > 0 { spent.cached } else { speed.cached(running.held) };
        if running.is_alone {
            let seconds = first.saturating_duration_since(running.begun).as_secs_f64();
            speed.learn_prefill(spent.prompt.saturating_sub(cached), spent.prompt, seconds);
        }
        speed.learn_answer(spent.completion, now.saturating_duration_since(first).as_secs_f64(), streams);
    }
}

/// The lane of a request that has waited for this time. Nobody waits without end.
fn aged(lane: Lane, waited: Duration) -> Lane {
    let patience = match lane {
        Lane::Person => return lane,
        Lane::Agent => AGENT_PATIENCE,
        Lane::Background => BACKGROUND_PATIENCE,
    };
    if waited >= patience { Lane::Person } else { lane }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WakeTarget;

    const SECOND: Duration = Duration::from_secs(1);
    const A: BoxId = BoxId(1);
    const B: BoxId = BoxId(2);

    /// A dispatch with upstreams A and B of one model, with this number of places each.
    fn two(places: u32) -> (Dispatch, Instant) {
        let (mut dispatch, now) = (Dispatch::default(), Instant::now());
        for (id, name) in [(A, 11), (B, 22)] {
            assert_eq!(dispatch.add(name, now), id);
            dispatch.set(id, Some(places), false);
        }
        (dispatch, now)
    }

    fn ticket(conversation: u64, prompt: u64) -> Ticket {
        let candidate = |id| Candidate { id, model: "m".to_owned(), rank: 0 };
        Ticket {
            candidates: vec![candidate(A), candidate(B)],
            conversation,
            head: (99, prompt.min(14_000)),
            prompt,
            lane: Lane::Person,
            client: 1,
            waits_for_health: true,
            is_failover: false,
        }
    }

    /// Sends a request: its number, and the upstream that it got.
    fn send(dispatch: &mut Dispatch, ticket: Ticket, now: Instant) -> (u64, Option<(BoxId, Why)>) {
        let number = dispatch.join(ticket, now).unwrap();
        dispatch.serve(now);
        (number, collected(dispatch, number))
    }

    fn collected(dispatch: &mut Dispatch, number: u64) -> Option<(BoxId, Why)> {
        dispatch.collect(number).map(|(_, grant)| (grant.upstream, grant.why))
    }

    /// The upstream and its new state.
    fn new_state(change: Option<(BoxId, StateChange)>) -> Option<(BoxId, HealthState)> {
        change.map(|(id, change)| (id, change.state))
    }

    /// Ends a request after a first token, with these counts.
    fn finish(dispatch: &mut Dispatch, number: u64, prompt: u64, now: Instant) {
        dispatch.first_token(number, now);
        dispatch.end(number, Sign::Answered, Spent { prompt, cached: 0, completion: 10 }, now);
    }

    #[test]
    fn a_conversation_comes_home_and_a_second_one_goes_where_nobody_is() {
        let (mut dispatch, now) = two(4);
        let (first, got) = send(&mut dispatch, ticket(1, 50_000), now);
        let (home, why) = got.unwrap();
        assert_eq!(why, Why::Cost);
        let (second, got) = send(&mut dispatch, ticket(2, 50_000), now);
        let other = got.unwrap().0;
        assert_ne!(other, home, "50,000 tokens of prefill are ahead there");
        finish(&mut dispatch, first, 50_000, now + 12 * SECOND);
        finish(&mut dispatch, second, 50_000, now + 12 * SECOND);
        for turn in 0..5 {
            let now = now + (20 + turn) * SECOND;
            let (number, got) = send(&mut dispatch, ticket(1, 50_000 + 100 * u64::from(turn)), now);
            assert_eq!(got, Some((home, Why::Home)));
            finish(&mut dispatch, number, 50_500, now);
            let (number, got) = send(&mut dispatch, ticket(2, 50_000), now);
            assert_eq!(got, Some((other, Why::Home)));
            finish(&mut dispatch, number, 50_500, now);
        }
    }

    #[test]
    fn a_conversation_waits_at_home_only_while_that_is_cheaper() {
        let (mut dispatch, now) = two(1);
        let (number, got) = send(&mut dispatch, ticket(1, 100_000), now);
        let home = got.unwrap().0;
        finish(&mut dispatch, number, 100_000, now);
        // Somebody else's short question takes the only place at home.
        let mut short = ticket(5, 50);
        short.candidates.retain(|candidate| candidate.id == home);
        let (short, got) = send(&mut dispatch, short, now);
        assert_eq!(got, Some((home, Why::Only)));
        // 100,000 tokens elsewhere take 25 s, the place at home is free within 6 s.
        let (waiting, got) = send(&mut dispatch, ticket(1, 100_100), now);
        assert_eq!(got, None);
        // A new conversation does not wait behind it.
        let (fresh, got) = send(&mut dispatch, ticket(2, 1_000), now);
        assert_ne!(got.unwrap().0, home);
        finish(&mut dispatch, short, 50, now + SECOND);
        assert_eq!(dispatch.serve(now + SECOND), [waiting]);
        let (_, grant) = dispatch.collect(waiting).unwrap();
        assert_eq!((grant.upstream, grant.why, grant.waited), (home, Why::Home, SECOND));
        finish(&mut dispatch, fresh, 1_000, now + SECOND);
    }

    #[test]
    fn lanes_come_first_then_the_client_that_got_least() {
        let (mut dispatch, now) = two(1);
        let busy: Vec<u64> = (0..2).map(|key| send(&mut dispatch, ticket(key, 100), now).0).collect();
        let mut wait = |conversation, lane, client| {
            let (number, got) =
                send(&mut dispatch, Ticket { lane, client, ..ticket(conversation, 9_000) }, now);
            assert_eq!(got, None);
            number
        };
        let background = wait(10, Lane::Background, 3);
        let agent = wait(11, Lane::Agent, 3);
        let many: Vec<u64> = (20..23).map(|key| wait(key, Lane::Person, 1)).collect();
        let one = wait(30, Lane::Person, 2);
        // Client 1 has had two short requests, client 2 nothing.
        let mut order = Vec::new();
        let mut free = busy;
        while let Some(number) = free.pop() {
            finish(&mut dispatch, number, 100, now);
            for served in dispatch.serve(now) {
                dispatch.collect(served).unwrap();
                order.push(served);
                free.insert(0, served);
            }
        }
        assert_eq!(order, [one, many[0], many[1], many[2], agent, background]);
    }

    #[test]
    fn a_place_is_kept_for_persons() {
        let (mut dispatch, now) = two(2);
        let agent = |key| Ticket { lane: Lane::Agent, ..ticket(key, 5_000) };
        let got: Vec<bool> = (0..4).map(|key| send(&mut dispatch, agent(key), now).1.is_some()).collect();
        assert_eq!(got, [true, true, false, false]);
        assert!(send(&mut dispatch, ticket(9, 5_000), now).1.is_some());
        // After a minute in the line an agent is as urgent as a person.
        assert_eq!(dispatch.serve(now + 59 * SECOND).len(), 0);
        assert_eq!(dispatch.serve(now + 60 * SECOND).len(), 1);
    }

    #[test]
    fn a_sleeper_is_called_only_while_it_is_out_and_wanted() {
        let (mut dispatch, now) = two(1);
        let target = WakeTarget::parse("aa:bb:cc:dd:ee:ff").unwrap();
        dispatch.set_sleeper(A, Some(Sleeper::new("spark", target)));
        let wants = |id| {
            let mut ticket = ticket(9, 100);
            ticket.candidates.retain(|candidate| candidate.id == id);
            ticket
        };
        let (number, got) = send(&mut dispatch, wants(A), now);
        assert_eq!((got, dispatch.due_wakes(Some(A), now)), (Some((A, Why::Only)), vec![]), "it is well");
        dispatch.end(number, Sign::Gone, Spent::default(), now);
        assert_eq!(dispatch.due_wakes(None, now), [], "nobody wants it");
        let call = [WakeCall { name: "spark".into(), target }];
        assert_eq!(dispatch.due_wakes(Some(A), now), call);
        let other = dispatch.join(wants(B), now + 20 * SECOND).unwrap();
        assert_eq!(dispatch.due_wakes(None, now + 20 * SECOND), [], "another one is wanted");
        dispatch.leave(other, now + 20 * SECOND);
        dispatch.join(ticket(1, 100), now + 20 * SECOND).unwrap();
        assert_eq!(dispatch.due_wakes(None, now + 20 * SECOND), call);
        assert_eq!(dispatch.due_wakes(None, now + 29 * SECOND), [], "the last packet was sent just now");
        assert_eq!(dispatch.due_wakes(None, now + 30 * SECOND), call);
    }

    #[test]
    fn an_upstream_that_has_not_answered_yet_counts_as_fast_as_the_others() {
        let (mut dispatch, mut now) = two(8);
        let mut seen = [false; 2];
        for key in 0..16 {
            let (number, got) = send(&mut dispatch, ticket(key, 5_000), now);
            seen[usize::from(got.unwrap().0 == B)] = true;
            now += Duration::from_millis(1);
            finish(&mut dispatch, number, 5_000, now);
        }
        assert_eq!(
            seen, [true; 2],
            "5,000 tokens take a millisecond, so that it matters little which of them are cached"
        );
    }

    #[test]
    fn a_long_prefill_goes_where_it_delays_nobody() {
        let (mut dispatch, now) = two(8);
        // B has three answers in progress, A reads a prompt of 12,000 tokens.
        let only = |key, id| {
            let mut ticket = ticket(key, if id == A { 12_000 } else { 100 });
            ticket.head = (key, 10);
            ticket.candidates.retain(|candidate| candidate.id == id);
            ticket
        };
        for key in 0..3 {
            let (number, _) = send(&mut dispatch, only(key, B), now);
            dispatch.first_token(number, now);
        }
        send(&mut dispatch, only(9, A), now);
        // The prompt would be read at once at B, but it would stop all three answers there for 5 s.
        assert_eq!(send(&mut dispatch, ticket(20, 30_000), now).1, Some((A, Why::Cost)));
    }

    #[test]
    fn lanes_age() {
        assert_eq!(aged(Lane::Agent, 59 * SECOND), Lane::Agent);
        assert_eq!(aged(Lane::Agent, 60 * SECOND), Lane::Person);
        assert_eq!(aged(Lane::Background, 119 * SECOND), Lane::Background);
        assert_eq!(aged(Lane::Background, 120 * SECOND), Lane::Person);
    }

    #[test]
    fn backups_serve_only_while_no_member_can() {
        let (mut dispatch, now) = two(1);
        let with_backup = |key| {
            let mut ticket = ticket(key, 100);
            ticket.candidates[1].rank = 1;
            ticket
        };
        let (first, got) = send(&mut dispatch, with_backup(1), now);
        assert_eq!(got, Some((A, Why::Only)));
        let (second, got) = send(&mut dispatch, with_backup(2), now);
        assert_eq!(got, None, "a member that is only busy is waited for");
        let state = dispatch.end(first, Sign::Gone, Spent::default(), now);
        assert_eq!(new_state(state), Some((A, HealthState::Out)));
        assert_eq!(dispatch.serve(now), [second]);
        assert_eq!(collected(&mut dispatch, second), Some((B, Why::Only)));
    }

    #[test]
    fn a_backup_goes_before_a_member_that_drains() {
        let (mut dispatch, now) = two(4);
        let mut with_backup = ticket(1, 100);
        with_backup.candidates[1].rank = 1;
        dispatch.set(A, Some(4), true);
        assert_eq!(send(&mut dispatch, with_backup.clone(), now).1, Some((B, Why::Only)));
        dispatch.set(B, Some(4), true);
        assert_eq!(send(&mut dispatch, with_backup, now).1, Some((A, Why::Only)));
    }

    #[test]
    fn all_out_strands_a_request_until_one_trial() {
        let (mut dispatch, now) = two(4);
        for key in 0..2 {
            let (number, got) = send(&mut dispatch, ticket(key, 30_000), now);
            assert!(got.is_some());
            dispatch.end(number, Sign::Gone, Spent::default(), now);
        }
        let (first, got) = send(&mut dispatch, ticket(7, 100), now);
        assert!(got.is_none() && dispatch.lacks_upstream(first, now) == Some(Duration::ZERO));
        let (second, _) = send(&mut dispatch, ticket(8, 100), now);
        dispatch.probed(A, QuestionEnd::Answered, now);
        assert_eq!(dispatch.serve(now), [first], "one trial at a time");
        assert_eq!(collected(&mut dispatch, first), Some((A, Why::Only)));
        assert_eq!(dispatch.lacks_upstream(second, now), Some(Duration::ZERO));
        finish(&mut dispatch, first, 100, now);
        assert_eq!(dispatch.serve(now), [second]);
    }

    #[test]
    fn a_request_with_one_upstream_is_sent_however_that_is() {
        let (mut dispatch, now) = two(4);
        for key in 0..9 {
            let mut only = Ticket { waits_for_health: false, ..ticket(key, 100) };
            only.candidates.truncate(1);
            let (number, got) = send(&mut dispatch, only, now);
            assert_eq!(got, Some((A, Why::Only)));
            dispatch.end(number, Sign::Gone, Spent::default(), now);
        }
    }

    #[test]
    fn a_conversation_that_always_fails_puts_nothing_out() {
        let (mut dispatch, now) = two(4);
        for _ in 0..9 {
            let (number, got) = send(&mut dispatch, ticket(1, 100), now);
            assert!(got.is_some());
            assert_eq!(dispatch.end(number, Sign::Failed, Spent::default(), now), None);
        }
        let out = (10..30).filter(|key| {
            let (number, _) = send(&mut dispatch, ticket(*key, 100), now);
            dispatch.end(number, Sign::Failed, Spent::default(), now).is_some()
        });
        assert_eq!(out.count(), 2, "failures of several conversations do");
    }

    #[test]
    fn a_conversation_leaves_the_upstream_that_failed_with_it() {
        let (mut dispatch, now) = two(4);
        let mut ask = |sign| {
            let (number, got) = send(&mut dispatch, ticket(1, 60_000), now);
            dispatch.end(number, sign, Spent::default(), now);
            got.unwrap()
        };
        let (home, _) = ask(Sign::Answered);
        assert_eq!(ask(Sign::Failed), (home, Why::Home));
        let (other, why) = ask(Sign::Failed);
        assert_eq!(
            (other != home, why),
            (true, Why::Failover),
            "its prefix is dear, but the home has failed"
        );
        assert_eq!(ask(Sign::Answered), (home, Why::Failover), "each is the last resort in turn");
        assert_eq!(ask(Sign::Answered), (home, Why::Home));
        let mut only = ticket(1, 60_000);
        only.candidates.retain(|candidate| candidate.id == home);
        for why in [Why::Only, Why::Only] {
            let (number, got) = send(&mut dispatch, only.clone(), now);
            assert_eq!(got, Some((home, why)), "there is no other one");
            dispatch.end(number, Sign::Failed, Spent::default(), now);
        }
    }

    #[test]
    fn the_first_token_of_a_trial_lets_others_in() {
        let (mut dispatch, now) = two(4);
        let only = |key| {
            let mut ticket = ticket(key, 100);
            ticket.candidates.truncate(1);
            ticket
        };
        let (number, _) = send(&mut dispatch, only(1), now);
        dispatch.end(number, Sign::Gone, Spent::default(), now);
        let (trial, got) = send(&mut dispatch, only(1), now + SECOND);
        assert!(got.is_some());
        let (other, got) = send(&mut dispatch, only(2), now + SECOND);
        assert!(got.is_none());
        let recovered = dispatch.first_token(trial, now + SECOND);
        assert_eq!(new_state(recovered), Some((A, HealthState::Well)));
        assert_eq!(dispatch.serve(now + SECOND), [other]);
        dispatch.collect(other).unwrap();
        let state = dispatch.end(trial, Sign::Failed, Spent::default(), now + SECOND);
        assert_eq!(
            new_state(state),
            Some((A, HealthState::Out)),
            "it breaks its answers off: one failure suffices now"
        );
    }

    #[test]
    fn conversations_that_share_their_beginning_are_spread() {
        let (mut dispatch, mut now) = two(8);
        let mut counts = [0; 2];
        for key in 0..40 {
            let (number, got) = send(&mut dispatch, ticket(key, 14_500), now);
            counts[usize::from(got.unwrap().0 == B)] += 1;
            now += 3 * SECOND;
            finish(&mut dispatch, number, 14_500, now);
            now += 60 * SECOND;
        }
        assert!(counts.iter().all(|count| *count >= 10), "{counts:?}");
    }

    #[test]
    fn a_restarted_server_has_an_empty_cache() {
        let (mut dispatch, now) = two(4);
        let (number, got) = send(&mut dispatch, ticket(1, 100_000), now);
        let home = got.unwrap().0;
        finish(&mut dispatch, number, 100_000, now);
        let (number, _) = send(&mut dispatch, ticket(1, 100_000), now);
        dispatch.end(number, Sign::Gone, Spent::default(), now);
        let (_, got) = send(&mut dispatch, ticket(1, 100_000), now);
        assert_ne!(got.unwrap().0, home);
    }

    #[test]
    fn a_departed_waiter_frees_the_place_that_it_just_got() {
        let (mut dispatch, now) = two(1);
        let (number, _) = send(&mut dispatch, ticket(1, 100), now);
        let other = dispatch.join(ticket(2, 100), now).unwrap();
        dispatch.serve(now);
        dispatch.leave(other, now);
        dispatch.leave(number, now);
        assert_eq!(dispatch.report(A, now).unwrap().running + dispatch.report(B, now).unwrap().running, 1);
        dispatch.end(number, Sign::Unknown, Spent::default(), now);
        assert!(dispatch.boxes.values().all(|state| state.running.is_empty()));
    }

    #[test]
    fn prefixes_are_compared_in_the_units_of_the_estimate() {
        let (mut dispatch, now) = two(4);
        // A prompt that is estimated as 50,000 tokens has 40,000, of which 20,000 were cached; 400 follow.
        let (number, got) = send(&mut dispatch, ticket(1, 50_000), now);
        dispatch.first_token(number, now + SECOND);
        let spent = Spent { prompt: 40_000, cached: 20_000, completion: 400 };
        dispatch.end(number, Sign::Answered, spent, now + SECOND);
        assert_eq!(dispatch.held(&ticket(1, 51_000), got.unwrap().0), 50_500);
        assert_eq!(spent.scaled_to(50_000), Spent { prompt: 50_000, cached: 25_000, completion: 500 });
        assert_eq!(Spent::default().scaled_to(50_000), Spent::default());
    }

    #[test]
    fn the_line_has_an_end() {
        let mut dispatch = Dispatch::default();
        let now = Instant::now();
        dispatch.add(11, now);
        dispatch.set(A, Some(1), false);
        let for_box = |id: u64| {
            let candidates = vec![Candidate { id: BoxId(id), model: "m".to_owned(), rank: 0 }];
            Ticket { candidates, ..ticket(1, 1) }
        };
        for _ in 0..WAITING_MAX {
            assert!(dispatch.join(ticket(1, 1), now).is_some());
        }
        assert!(dispatch.join(ticket(1, 1), now).is_none());
        assert!(dispatch.join(for_box(1), now).is_none(), "a line for one upstream of the pool");
        // Other pools have lines of their own, up to a limit for all.
        let mut fill = |id| (0..WAITING_MAX).filter(|_| dispatch.join(for_box(id), now).is_some()).count();
        assert_eq!([3, 4, 5, 6, 7].map(&mut fill), [512, 512, 512, 0, 0]);
    }

    #[test]
    fn a_request_that_waits_for_a_busy_upstream_lacks_none() {
        let (mut dispatch, now) = two(1);
        let running = [0, 1].map(|key| send(&mut dispatch, ticket(key, 100), now).0);
        let (waiting, got) = send(&mut dispatch, ticket(7, 100), now);
        assert_eq!((got, dispatch.lacks_upstream(waiting, now)), (None, None));
        dispatch.end(running[0], Sign::Gone, Spent::default(), now);
        assert_eq!(dispatch.lacks_upstream(waiting, now), None, "the other one is only busy");
        dispatch.end(running[1], Sign::Full(None), Spent::default(), now);
        assert_eq!(dispatch.lacks_upstream(waiting, now), Some(5 * SECOND));
        assert_eq!(dispatch.lacks_upstream(waiting, now + 5 * SECOND), None, "it takes requests again");
        assert!(!dispatch.takes_new(A, now) && !dispatch.takes_new(B, now));
    }

    #[test]
    fn a_new_conversation_spares_the_memory_that_others_come_back_to() {
        let (mut dispatch, now) = two(4);
        let at = |id: BoxId, key: u64, prompt: u64| {
            let mut ticket = Ticket { head: (99, 0), ..ticket(key, prompt) };
            ticket.candidates.retain(|candidate| candidate.id == id);
            ticket
        };
        let ask = |dispatch: &mut Dispatch, ticket: Ticket, cached: u64| {
            let prompt = ticket.prompt;
            let (number, got) = send(dispatch, ticket, now);
            dispatch.first_token(number, now);
            dispatch.end(number, Sign::Answered, Spent { prompt, cached, completion: 10 }, now);
            got.unwrap().0
        };
        // A has read 90,000 tokens, and a conversation finds but 10,000 of its 40,000: it holds 60,000.
        ask(&mut dispatch, at(A, 1, 40_000), 0);
        ask(&mut dispatch, at(A, 2, 50_000), 0);
        ask(&mut dispatch, at(A, 1, 41_000), 10_000);
        assert!(dispatch.held(&at(A, 2, 50_000), A) < 25_000, "the others were dropped in part");
        // B has read as much, and found everything.
        ask(&mut dispatch, at(B, 3, 40_000), 0);
        ask(&mut dispatch, at(B, 4, 50_000), 0);
        ask(&mut dispatch, at(B, 3, 41_000), 40_000);
        assert!((10..30).all(|key| {
            let mut new = Ticket { head: (99, 0), ..ticket(key, 30_000) };
            new.client = key;
            let (number, got) = send(&mut dispatch, new, now);
            dispatch.end(number, Sign::Unknown, Spent::default(), now);
            got.unwrap().0 == B
        }));
    }

    #[test]
    fn work_of_others_counts_while_it_is_fresh() {
        let (mut dispatch, now) = two(8);
        let load = Load { running: 8, waiting: 30, cache_use: Some(0.9) };
        dispatch.loaded(A, &LoadPage { load, tokens: 0, slots: None }, true, now);
        for key in 0..8 {
            assert_eq!(send(&mut dispatch, ticket(key, 10), now).1.unwrap().0, B);
        }
        let later = now + LOAD_AGE_MAX + SECOND;
        assert!((100..108).any(|key| send(&mut dispatch, ticket(key, 10), later).1.unwrap().0 == A));
    }
}
