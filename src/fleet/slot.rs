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
pub struct Dispatcher(Mutex<DispatchLine>);

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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let number = line.dispatch.join(ticket.clone(), now).ok_or_else(too_many)?;
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

    /// A place for a request, at once or when it is its turn. While all of its upstreams are out, it waits for
    /// `patience` at most.
    ///
    /// # Errors
    /// The client has left, too many requests wait already, or the wait was too long.
    pub fn take(
        self: &Arc<Self>,
        ticket: Ticket,
        wait: &Rc<dyn Wait>,
        patience: Duration,
    ) -> Result<BoxSlot, NoSlot> {
        let began = Instant::now();
        let (number, wake) = {
            let mut line = self.line();
            let number = line.dispatch.join(ticket, began).ok_or_else(too_many)?;
            line.serve(began);
            if let Some(granted) = line.dispatch.collect(number) {
                return Ok(self.slot(&line, number, granted));
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
        let mut stranded = None::<Instant>;
        let failure = loop {
            let calls = self.line().dispatch.due_wakes(None, Instant::now());
            send(&calls);
            let waited = wait_for(wait.as_ref(), wake.as_fd(), LOOK_EVERY);
            let now = Instant::now();
            let mut line = self.line();
            line.look(now);
            if waited != Err(Failure::ClientGone)
                && let Some(granted) = line.dispatch.collect(number)
            {
                return Ok(self.slot(&line, number, granted));
            }
            stranded = line.dispatch.is_stranded(number).then(|| stranded.unwrap_or(now));
            match waited {
                Err(Failure::ClientGone) => break NoSlot::ClientGone,
                _ if now.saturating_duration_since(began) >= WAIT_MAX => {
                    break refused("waited too long for this model");
                }
                _ => {}
            }
            if stranded.is_some_and(|since| now.saturating_duration_since(since) >= patience) {
                break refused("none of this model's upstreams answers");
            }
        };
        let mut line = self.line();
        line.wakes.remove(&number);
        line.dispatch.leave(number, Instant::now());
        line.serve(Instant::now());
        Err(failure)
    }

    fn slot(self: &Arc<Self>, line: &DispatchLine, number: u64, (ticket, grant): (Ticket, Grant)) -> BoxSlot {
        let heard = line.dispatch.heard(grant.upstream).unwrap_or_default();
        let (recovered, has_ended) = (Cell::default(), false);
        BoxSlot { dispatcher: Arc::clone(self), number, ticket, grant, heard, recovered, has_ended }
    }

    /// Looks whether an upstream hangs, and puts it out then. `limit` is the least silence that counts. Returns the time of
    /// its silence, and the change of its state, if there was one: the caller ends its requests.
    pub fn look(&self, id: BoxId, limit: Duration) -> Option<(Duration, Option<StateChange>)> {
        self.line().dispatch.look(id, limit, Instant::now())
    }

    /// Takes in whether the background's question to an upstream was answered. Returns the change of the upstream's state, if
    /// there was one.
    pub fn probed(&self, id: BoxId, is_answered: bool) -> Option<StateChange> {
        let mut line = self.line();
        let now = Instant::now();
        let change = line.dispatch.probed(id, is_answered, now);
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

/// A refusal that asks the client to try again soon.
fn refused(words: &str) -> NoSlot {
    NoSlot::Refused(Error::new(Kind::Overloaded, words).retry(Retry::After(RETRY_AFTER_S)))
}

fn too_many() -> NoSlot {
    refused("too many requests wait for this model")
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
