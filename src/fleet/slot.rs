//! The place of a request at an upstream, for threads: waits for it, and gives it back.
//!
//! A waiting client is watched like one whose upstream is silent: it gets its pings, and when it leaves, its place is
//! freed. The decisions are `dispatch`'s.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::conversations::BoxId;
use super::dispatch::{BoxReport, Dispatch, Grant, Spent, Ticket};
use super::health::{Sign, StateChange};
use super::load::LoadPage;
use super::memory::QuestionEnd;
use super::outage::Outage;
use super::tally::Tally;
use super::waking::{Sleeper, WakeCall};
use crate::config::UpstreamConfig;
use crate::error::{Error, Kind, Retry};
use crate::transport::{Failure, Wait, send_magic_packet, wait_for};
use crate::wake::Wake;

const RETRY_AFTER_S: u32 = 5;

/// The longest wait for a place: a day, so that in practice the client's patience decides.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How often a waiting request looks at the line itself: nothing wakes it at the end of a pause.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The dispatch of all upstreams, shared by all threads and kept over reloads.
#[derive(Debug, Default)]
pub struct Dispatcher {
    line: Mutex<DispatchLine>,
    tally: Tally,
}

#[derive(Debug, Default)]
struct DispatchLine {
    dispatch: Dispatch,
    wakes: HashMap<u64, Arc<Wake>>,
    /// When the free places were given out last.
    served: Option<Instant>,
}

impl DispatchLine {
    /// Gives out free places, and wakes those who got one.
    fn serve(&mut self, now: Instant) {
        self.served = Some(now);
        for number in self.dispatch.serve(now) {
            if let Some(wake) = self.wakes.remove(&number) {
                wake.wake();
            }
        }
    }

    /// Gives out the places that only time has freed, unless another request has looked just now: all those who wait
    /// come here, and each look goes through the whole line.
    fn look(&mut self, now: Instant) {
        if self.served.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EVERY / 2) {
            self.serve(now);
        }
    }
}

/// The reason why a request gets no place.
#[derive(Debug)]
pub enum NoSlot {
    /// The client has left.
    ClientGone,
    /// Too many requests wait already, or this one waited too long.
    Refused(Error),
}

/// A place at an upstream. When it is dropped, the next request gets it.
#[derive(Debug)]
pub struct BoxSlot {
    dispatcher: Arc<Dispatcher>,
    number: u64,
    ticket: Ticket,
    grant: Grant,
    /// Counts the pieces of its upstream's answers.
    heard: Arc<AtomicU64>,
    /// The change of the upstream's state that the first token has made.
    recovered: Cell<Option<StateChange>>,
    has_ended: bool,
}

impl Dispatcher {
    fn line(&self) -> MutexGuard<'_, DispatchLine> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an upstream; `name` is the hash of its name.
    pub(super) fn add(&self, name: u64) -> BoxId {
        self.line().dispatch.add(name, Instant::now())
    }

    /// Sets how an upstream is used: the most requests that it gets at a time, whether it drains, and how it is woken.
    pub(super) fn set(&self, id: BoxId, places: Option<u32>, config: &UpstreamConfig) {
        let mut line = self.line();
        line.dispatch.set(id, places, config.drain);
        line.dispatch.set_sleeper(id, config.wake.map(|target| Sleeper::new(&config.name, target)));
        line.serve(Instant::now());
    }

    /// Removes an upstream that is no longer configured.
    pub(super) fn remove(&self, id: BoxId) {
        self.line().dispatch.remove(id);
    }

    /// A place for a request, if one is free and nobody else is to have it first.
    ///
    /// # Errors
    /// [`NoSlot::Refused`]: too many requests wait already.
    pub fn take_at_once(self: &Arc<Self>, ticket: Ticket) -> Result<Result<BoxSlot, Ticket>, NoSlot> {
        let now = Instant::now();
        let mut line = self.line();
        let number = line.dispatch.join(ticket.clone(), now).ok_or_else(|| self.too_many())?;
        let calls = line.dispatch.due_wakes(None, now);
        line.serve(now);
        let collected = line.dispatch.collect(number);
        if collected.is_none() {
            line.dispatch.leave(number, now);
        }
        let taken = collected.map(|granted| self.slot(&line, number, granted)).ok_or(ticket);
        drop(line);
        send(&calls);
        Ok(taken)
    }

    /// A place for a request, at once or when it is its turn. The time in which none of its upstreams takes requests counts
    /// against its patience; the time in the line of one that is only busy does not.
    ///
    /// # Errors
    /// The client has left, too many requests wait already, or the wait was too long.
    pub fn take(
        self: &Arc<Self>,
        ticket: Ticket,
        wait: &Rc<dyn Wait>,
        outage: &mut Outage,
    ) -> Result<BoxSlot, NoSlot> {
        let began = Instant::now();
        let (number, wake) = {
            let mut line = self.line();
            let number = line.dispatch.join(ticket, began).ok_or_else(|| self.too_many())?;
            line.serve(began);
            if let Some(granted) = line.dispatch.collect(number) {
                return Ok(self.slot(&line, number, granted));
            }
            if let Some(full_for) = line.dispatch.lacks_upstream(number, began).filter(|_| outage.is_spent())
            {
                line.dispatch.leave(number, began);
                return Err(NoSlot::Refused(self.no_upstream(full_for)));
            }
            let wake = match Wake::new() {
                Ok(wake) => Arc::new(wake),
                Err(error) => {
                    line.dispatch.leave(number, began);
                    return Err(NoSlot::Refused(Error::exhausted(error)));
                }
            };
            line.wakes.insert(number, Arc::clone(&wake));
            (number, wake)
        };
        let mut looked = began;
        let failure = loop {
            let calls = self.line().dispatch.due_wakes(None, Instant::now());
            send(&calls);
            let waited =
                wait_for(wait.as_ref(), wake.as_fd(), LOOK_EVERY.min(outage.left().unwrap_or(LOOK_EVERY)));
            let now = Instant::now();
            let mut line = self.line();
            line.look(now);
            if waited != Err(Failure::ClientGone)
                && let Some(granted) = line.dispatch.collect(number)
            {
                return Ok(self.slot(&line, number, granted));
            }
            if let Some(full_for) = line.dispatch.lacks_upstream(number, now) {
                outage.spend(now.saturating_duration_since(looked));
                if waited != Err(Failure::ClientGone) && outage.is_spent() {
                    break NoSlot::Refused(self.no_upstream(full_for));
                }
            }
            looked = now;
            match waited {
                Err(Failure::ClientGone) => break NoSlot::ClientGone,
                _ if now.saturating_duration_since(began) >= WAIT_MAX => {
                    break NoSlot::Refused(overloaded("waited too long for this model"));
                }
                _ => {}
            }
        };
        let mut line = self.line();
        line.wakes.remove(&number);
        line.dispatch.leave(number, Instant::now());
        line.serve(Instant::now());
        Err(failure)
    }

    fn slot(self: &Arc<Self>, line: &DispatchLine, number: u64, (ticket, grant): (Ticket, Grant)) -> BoxSlot {
        self.tally.add_choice(grant.why);
        let heard = line.dispatch.heard(grant.upstream).unwrap_or_default();
        let (recovered, has_ended) = (Cell::default(), false);
        BoxSlot { dispatcher: Arc::clone(self), number, ticket, grant, heard, recovered, has_ended }
    }

    /// The error of a request whose patience is over while none of its upstreams takes it. `last`: the error of the upstream
    /// that it asked last. It is always a 529, so that clients try again, however the outage was noticed.
    pub fn unreachable(&self, last: Option<&Error>) -> Error {
        self.tally.add_given_up();
        let words = "none of this model's upstreams answers";
        let Some(last) = last else { return overloaded(words) };
        let told = if let Retry::After(seconds) = last.retry { seconds } else { 0 };
        overloaded(&format!("{words}; the last one: {}", last.message))
            .retry(Retry::After(told.max(RETRY_AFTER_S)))
    }

    /// The error of a request that must not wait for its upstreams: all are out, or one is full for this time.
    fn no_upstream(&self, full_for: Duration) -> Error {
        if full_for.is_zero() {
            return self.unreachable(None);
        }
        self.tally.add_given_up();
        let seconds = u32::try_from(full_for.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        overloaded("all of this model's upstreams are busy").retry(Retry::After(seconds))
    }

    fn too_many(&self) -> NoSlot {
        self.tally.add_refused();
        NoSlot::Refused(overloaded("too many requests wait for this model"))
    }

    /// Counters of what the choice of upstreams has done since the start.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Looks whether an upstream hangs, and puts it out then. `limit` is the least silence that counts. Returns the time of
    /// its silence, and the change of its state, if there was one: the caller ends its requests.
    pub fn look(&self, id: BoxId, limit: Duration) -> Option<(Duration, Option<StateChange>)> {
        self.line().dispatch.look(id, limit, Instant::now())
    }

    /// Takes in how the background's question to an upstream ended. Returns the change of the upstream's state, if
    /// there was one.
    pub fn probed(&self, id: BoxId, end: QuestionEnd) -> Option<StateChange> {
        let mut line = self.line();
        let now = Instant::now();
        let change = line.dispatch.probed(id, end, now);
        line.serve(now);
        change
    }

    /// Takes in the figures of a server about its own work. If the owner set no number of places, the server's own one
    /// holds (`may_set_places`).
    pub fn loaded(&self, id: BoxId, page: &LoadPage, may_set_places: bool) {
        let mut line = self.line();
        let now = Instant::now();
        line.dispatch.loaded(id, page, may_set_places, now);
        line.serve(now);
    }

    /// True while an upstream is out and its trial is not due yet: it gets no request at all.
    pub fn rests(&self, id: BoxId) -> bool {
        self.line().dispatch.rests(id, Instant::now())
    }

    /// True if an upstream gets new conversations now: it is well, and does not drain.
    pub fn takes_new(&self, id: BoxId) -> bool {
        self.line().dispatch.takes_new(id, Instant::now())
    }

    /// The speeds of an upstream's models, as text.
    pub(super) fn speeds(&self, id: BoxId) -> Vec<(String, String)> {
        self.line().dispatch.speeds(id)
    }

    /// Takes over the speed of a model from before a restart.
    pub(super) fn restore_speed(&self, id: BoxId, model: &str, text: &str) {
        self.line().dispatch.restore_speed(id, model, text);
    }

    /// The state of an upstream.
    pub fn report(&self, id: BoxId) -> Option<BoxReport> {
        self.line().dispatch.report(id, Instant::now())
    }
}

/// True if a sign says that an upstream did not answer.
fn is_failure(sign: Sign) -> bool {
    matches!(sign, Sign::Failed | Sign::Gone)
}

/// Sends the magic packets that are due.
fn send(calls: &[WakeCall]) {
    for WakeCall { name, target } in calls {
        match send_magic_packet(target) {
            Ok(()) => log::info!(
                "upstream {name}: a request wants it while it is out; sent a magic packet to {target}"
            ),
            Err(error) => log::warn!("upstream {name}: no magic packet could be sent to {target}: {error}"),
        }
    }
}

/// An error that asks the client to try again soon.
fn overloaded(words: &str) -> Error {
    Error::new(Kind::Overloaded, words).retry(Retry::After(RETRY_AFTER_S))
}

impl BoxSlot {
    /// The upstream, why it was chosen, and the time in the line.
    pub fn grant(&self) -> Grant {
        self.grant
    }

    /// The ticket of the request.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// Notes that a piece of the answer has come. Costs one addition, since it is called for each.
    pub fn hear(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the first token has come.
    pub fn first_token(&self) {
        let mut line = self.dispatcher.line();
        let now = Instant::now();
        if let Some((_, change)) = line.dispatch.first_token(self.number, now) {
            self.recovered.set(Some(change));
            line.serve(now);
        }
    }

    /// Ends the request. Returns the change of the state of its upstream, if there was one.
    pub fn end(mut self, sign: Sign, spent: Spent) -> Option<StateChange> {
        self.release(sign, spent)
    }

    fn release(&mut self, sign: Sign, spent: Spent) -> Option<StateChange> {
        self.has_ended = true;
        let mut line = self.dispatcher.line();
        let now = Instant::now();
        let change = line.dispatch.end(self.number, sign, spent, now);
        let calls = line.dispatch.due_wakes(is_failure(sign).then_some(self.grant.upstream), now);
        line.serve(now);
        drop(line);
        send(&calls);
        change.map(|(_, change)| change).or(self.recovered.take())
    }
}

impl Drop for BoxSlot {
    fn drop(&mut self) {
        if !self.has_ended {
            self.release(Sign::Unknown, Spent::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::dispatch::Candidate;
    use crate::lane::Lane;
    use crate::transport::nobody;

    /// A dispatcher whose only upstream refuses connections, and a ticket for it.
    fn unreachable() -> (Arc<Dispatcher>, Ticket) {
        let dispatcher = Arc::new(Dispatcher::default());
        let id = dispatcher.add(1);
        let ticket = Ticket {
            candidates: vec![Candidate { id, model: "m".to_owned(), rank: 0 }],
            conversation: 1,
            head: (2, 10),
            prompt: 100,
            lane: Lane::Person,
            client: 1,
            waits_for_health: true,
            is_failover: false,
        };
        let slot = dispatcher.take_at_once(ticket.clone()).unwrap().unwrap();
        assert!(slot.end(Sign::Gone, Spent::default()).is_some());
        (dispatcher, ticket)
    }

    fn count(dispatcher: &Dispatcher, kind: &str, value: &str) -> u64 {
        let found = dispatcher.tally().iter().find(|(its, name, _)| (*its, *name) == (kind, value));
        found.unwrap().2
    }

    #[test]
    fn all_tries_of_a_request_have_one_patience() {
        let (dispatcher, ticket) = unreachable();
        let patience = Duration::from_secs(3600);
        let mut outage = Outage::new(patience);
        outage.spend(patience);
        for _ in 0..2 {
            let taken = dispatcher.take(ticket.clone(), &nobody(), &mut outage);
            let Err(NoSlot::Refused(error)) = taken else { panic!("{taken:?}") };
            assert_eq!((error.status(), error.retry), (529, Retry::After(RETRY_AFTER_S)));
        }
        assert_eq!(count(&dispatcher, "refused", "outage"), 2);
        assert_eq!(count(&dispatcher, "choice", "only"), 1);
        assert_eq!(dispatcher.report(ticket.candidates[0].id).unwrap().waiting, [0, 0, 0]);
    }

    #[test]
    fn one_without_patience_is_told_when_a_full_upstream_takes_requests_again() {
        let dispatcher = Arc::new(Dispatcher::default());
        let (_, mut ticket) = unreachable();
        ticket.candidates[0].id = dispatcher.add(1);
        let slot = dispatcher.take_at_once(ticket.clone()).unwrap().unwrap();
        slot.end(Sign::Full(Some(Duration::from_secs(100))), Spent::default());
        let taken = dispatcher.take(ticket, &nobody(), &mut Outage::new(Duration::ZERO));
        let Err(NoSlot::Refused(error)) = taken else { panic!("{taken:?}") };
        let Retry::After(seconds) = error.retry else { panic!("{error:?}") };
        assert!(error.status() == 529 && (60..=101).contains(&seconds), "{seconds}");
    }

    #[test]
    fn an_outage_ends_alike_however_it_was_noticed() {
        let (dispatcher, _) = unreachable();
        let told = Error::new(Kind::BadGateway, "connection refused");
        let error = dispatcher.unreachable(Some(&told));
        assert_eq!((error.status(), error.retry), (529, Retry::After(RETRY_AFTER_S)));
        assert_eq!(error.message, "none of this model's upstreams answers; the last one: connection refused");
        let busy = Error::new(Kind::RateLimit, "busy").retry(Retry::After(40));
        assert_eq!(dispatcher.unreachable(Some(&busy)).retry, Retry::After(40));
    }
}
