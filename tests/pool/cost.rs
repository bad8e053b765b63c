//! sparkgap's own choice: the machine that serves real requests, on the clock of the simulation.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sparkgap::fleet::{BoxId, Candidate, Dispatch, Sign, Spent, Ticket};
use sparkgap::lane::Lane;

use super::policy::{BoxView, Policy};
use crate::physics::engine::chain;
use crate::physics::traffic::{Ask, Class};

/// The requests that a box of a pool gets at a time if nobody says a number.
const PLACES: u32 = 8;

/// A request that the dispatch knows.
struct Known {
    number: u64,
    cached: u64,
}

pub(crate) struct Cost {
    dispatch: Dispatch,
    boxes: Vec<BoxId>,
    /// The time 0 of the simulation.
    began: Instant,
    /// By session and agent: each has one request at a time.
    known: HashMap<(u64, Option<u64>), Known>,
    /// The estimated tokens of a prompt for each real one.
    estimate: f64,
}

impl Cost {
    /// A choice that takes prompts for this many times as long as they are.
    pub(crate) fn estimating(boxes: usize, estimate: f64) -> Cost {
        let (mut dispatch, began) = (Dispatch::default(), Instant::now());
        let mut add = |name| {
            let id = dispatch.add(chain(2, name), began);
            dispatch.set(id, Some(PLACES), false);
            id
        };
        let boxes = (0..boxes as u64).map(&mut add).collect();
        Cost { dispatch, boxes, began, known: HashMap::new(), estimate }
    }

    fn at(&self, now: f64) -> Instant {
        self.began + Duration::from_secs_f64(now)
    }

    fn ticket(&self, ask: &Ask) -> Ticket {
        let candidate = |id: &BoxId| Candidate { id: *id, model: "model".into(), rank: 0 };
        let tokens = |real: u64| (real as f64 * self.estimate) as u64;
        Ticket {
            candidates: self.boxes.iter().map(candidate).collect(),
            conversation: chain(ask.session, ask.agent.unwrap_or(0)),
            head: (chain(3, ask.head), tokens(ask.head)),
            prompt: tokens(ask.job.prompt),
            lane: if ask.class == Class::SubAgent { Lane::Agent } else { Lane::Person },
            client: ask.person,
            waits_for_health: true,
            is_failover: false,
        }
    }
}

impl Policy for Cost {
    fn choose(&mut self, now: f64, ask: &Ask, _: &[BoxView]) -> Option<usize> {
        let now = self.at(now);
        let key = (ask.session, ask.agent);
        if !self.known.contains_key(&key) {
            let number = self.dispatch.join(self.ticket(ask), now).unwrap();
            self.known.insert(key, Known { number, cached: 0 });
        }
        self.dispatch.serve(now);
        let upstream = self.dispatch.collect(self.known[&key].number)?.1.upstream;
        self.boxes.iter().position(|id| *id == upstream)
    }

    fn first_token(&mut self, now: f64, ask: &Ask, _: usize, cached: u64) {
        let now = self.at(now);
        let known = self.known.get_mut(&(ask.session, ask.agent)).unwrap();
        known.cached = cached;
        self.dispatch.first_token(known.number, now);
    }

    fn done(&mut self, now: f64, ask: &Ask, _: usize) {
        let now = self.at(now);
        let Known { number, cached } = self.known.remove(&(ask.session, ask.agent)).unwrap();
        let spent = Spent { prompt: ask.job.prompt, cached, completion: ask.job.output };
        self.dispatch.end(number, Sign::Answered, spent, now);
    }
}
