//! Ways to choose a box for a request: the simple ones that routers have, and the interface for others.

use crate::physics::engine::chain;
use crate::physics::traffic::{Ask, Dice};

/// The state of one box that a router can see.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "the simple policies look at nothing but `in_flight`")]
pub(crate) struct BoxView {
    /// The requests that the router has sent there and that have not ended.
    pub(crate) in_flight: usize,
    /// The next three are the box's own figures, as `/metrics` tells them.
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) kv_usage: f64,
}

/// A router. It is told what happens to its requests, so that it can learn.
pub(crate) trait Policy {
    /// The box for this request. `None`: it waits, and is asked about again when a request has ended.
    fn choose(&mut self, now: f64, ask: &Ask, boxes: &[BoxView]) -> Option<usize>;

    /// The first token of an answer has come. `cached` is the box's own figure of tokens found in memory.
    fn first_token(&mut self, _now: f64, _ask: &Ask, _at_box: usize, _cached: u64) {}

    fn done(&mut self, _now: f64, _ask: &Ask, _at_box: usize) {}
}

/// LiteLLM's default: any box.
pub(crate) struct Shuffle(pub(crate) Dice);

impl Policy for Shuffle {
    fn choose(&mut self, _: f64, _: &Ask, boxes: &[BoxView]) -> Option<usize> {
        Some(self.0.between(0, boxes.len() as u64 - 1) as usize)
    }
}

/// The box with the fewest requests; of equals, any.
pub(crate) struct LeastBusy(pub(crate) Dice);

impl Policy for LeastBusy {
    fn choose(&mut self, _: f64, _: &Ask, boxes: &[BoxView]) -> Option<usize> {
        let least = boxes.iter().map(|one| one.in_flight).min()?;
        let equals: Vec<usize> = (0..boxes.len()).filter(|at| boxes[*at].in_flight == least).collect();
        Some(equals[self.0.between(0, equals.len() as u64 - 1) as usize])
    }
}

/// A hash of the session: all its conversations go to one box.
pub(crate) struct BySession;

impl Policy for BySession {
    fn choose(&mut self, _: f64, ask: &Ask, boxes: &[BoxView]) -> Option<usize> {
        Some((chain(1, ask.session) % boxes.len() as u64) as usize)
    }
}

/// A hash of session and agent: each conversation has a box.
pub(crate) struct ByAgent;

impl Policy for ByAgent {
    fn choose(&mut self, _: f64, ask: &Ask, boxes: &[BoxView]) -> Option<usize> {
        let key = chain(ask.session, ask.agent.unwrap_or(0));
        Some((chain(1, key) % boxes.len() as u64) as usize)
    }
}

/// The best static assignment: person by person in turn, by these boxes, with all sub-agents.
pub(crate) struct InTurn(pub(crate) Vec<usize>);

impl Policy for InTurn {
    fn choose(&mut self, _: f64, ask: &Ask, _: &[BoxView]) -> Option<usize> {
        Some(self.0[ask.person as usize % self.0.len()])
    }
}
