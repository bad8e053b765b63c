//! Makes the searches that a model asks for at the end of its answer, and prepares the next round: the request that the same
//! upstream gets then, and the place in the client's message where its answer goes on.

use std::rc::Rc;

use crate::anthropic::{SearchFailure, search_call, search_result, search_text};
use crate::error::Error;
use crate::fleet::{BoxSlot, Gateway};
use crate::ids;
use crate::json::Value;
use crate::search::shown_query;
use crate::translate::{MessageStream, SearchRound};
use crate::transport::{ExtraHeaders, Wait};

use super::attempt::Attempt;
use super::budget::Budget;
use super::exchange::Exchange;
use super::filter::Shown;
use super::search::make_search;
use super::stop::Stop;
use crate::activity::StepKind;

/// The most searches of one request, unless the client sets another number.
const SEARCHES_DEFAULT: usize = 8;

/// The most searches of one request, whatever the client sets: each costs the engine a search and the upstream a prompt.
const SEARCHES_MAX: usize = 32;

/// The parts of the request of a round that the next one needs.
pub(super) struct KeptRequest {
    body: Vec<u8>,
    headers: ExtraHeaders,
}

impl KeptRequest {
    /// Takes them, if another round may follow.
    pub(super) fn take(attempt: &mut Attempt) -> Option<Self> {
        attempt.search.as_ref()?;
        let (body, headers) = (std::mem::take(&mut attempt.body), std::mem::take(&mut attempt.headers));
        Some(KeptRequest { body, headers })
    }

    /// The bytes that it holds.
    pub(super) fn size(&self) -> usize {
        self.body.len()
    }
}

/// The searches of one answer.
pub(super) struct SearchRounds<'s> {
    pub(super) gateway: &'s Gateway,
    pub(super) exchange: &'s Rc<Exchange>,
    /// The request as hooks see it.
    pub(super) shown: Option<&'s Shown>,
    /// The request's place at the upstream, which it keeps during its searches.
    pub(super) slot: Option<&'s BoxSlot>,
    /// The memory that all requests share, for the tree of the next body.
    pub(super) budget: &'s Budget,
}

impl SearchRounds<'_> {
    /// Makes the searches that the answer asks for, if any. `made`: the searches of the request so far. Returns true if the
    /// upstream is to be asked again; otherwise the message has ended.
    ///
    /// # Errors
    /// The client has left, a hook of policy closed failed, or there is no memory for another round. None of these is a failure
    /// of the upstream, so no other one is asked.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    pub(super) fn run(
        &self,
        attempt: &mut Attempt,
        kept: Option<KeptRequest>,
        made: &mut usize,
    ) -> Result<bool, Stop> {
        let Some(round) = self.step(|stream, _| stream.take_searches())?.flatten() else { return Ok(false) };
        let is_offered = attempt.search.is_some();
        let results = self.search(&round, attempt, made).map_err(not_of_upstream)?;
        let tap = self.exchange.tap();
        tap.note(StepKind::Round, b"", || Value::object([("goes_on", is_offered.into())]).to_json());
        let has_ended = self.step(|stream, emit| stream.end_searches(is_offered, emit))?.unwrap_or(true);
        self.exchange.flush().map_err(Stop::Client)?;
        let Some(kept) = kept.filter(|_| !has_ended) else { return Ok(false) };
        let room = (&self.budget.trees(), self.exchange.as_ref() as &dyn Wait);
        attempt.extend(kept.body, (&round, &results), room).map_err(not_of_upstream)?;
        attempt.headers = kept.headers;
        self.exchange.next_round(&attempt.asked);
        self.exchange.set_limits(&attempt.asked);
        Ok(true)
    }

    /// Makes the searches one after the other, and shows the blocks of each. Returns their results as texts for the model. Once
    /// the model has asked for more than it may, it is offered none any more.
    fn search(
        &self,
        round: &SearchRound,
        attempt: &mut Attempt,
        made: &mut usize,
    ) -> Result<Vec<String>, Stop> {
        let rules = attempt.search.clone();
        let wanted = rules.as_ref().and_then(|rules| rules.uses_max).map(usize::try_from);
        let made_max =
            wanted.map_or(SEARCHES_DEFAULT, |wanted| wanted.unwrap_or(SEARCHES_MAX)).min(SEARCHES_MAX);
        let mut results = Vec::with_capacity(round.calls.len());
        for call in &round.calls {
            let (id, query) = (ids::server_tool_use_id(), shown_query(&call.query));
            self.show(&search_call(&id, &query))?;
            let outcome = match &rules {
                Some(rules) if *made < made_max => {
                    *made += 1;
                    let rules = rules.as_ref().clone();
                    make_search(self.gateway, self.shown, &call.query, rules, self.exchange.as_ref())?
                }
                _ => {
                    attempt.search = None;
                    Err(SearchFailure::MaxUsesExceeded)
                }
            };
            // The upstream is not silent: it waits.
            if let Some(slot) = self.slot {
                slot.hear();
            }
            self.show(&search_result(&id, &outcome))?;
            results.push(search_text(&query, &outcome));
        }
        Ok(results)
    }

    fn show(&self, block: &Value<'_>) -> Result<(), Stop> {
        self.exchange.tap().note(StepKind::Search, b"", || block.to_json());
        self.step(|stream, emit| stream.search_block(block, emit))?;
        self.exchange.flush().map_err(Stop::Client)
    }

    fn step<T>(
        &self,
        step: impl FnOnce(&mut MessageStream, &mut crate::translate::Emit<'_>) -> T,
    ) -> Result<Option<T>, Stop> {
        self.exchange.step(step).transpose().map_err(|error: Error| Stop::Refused(error))
    }
}

/// The same end of the request, but not one that counts against its upstream.
fn not_of_upstream(stop: Stop) -> Stop {
    if let Stop::Error(error) = stop { Stop::Refused(error) } else { stop }
}
