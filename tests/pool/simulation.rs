//! Drives sessions, a router and boxes on one virtual clock, and reports how long people waited.

use std::collections::HashMap;

use super::policy::{BoxView, Policy};
use crate::physics::engine::{Engine, Event, EventKind, Profile};
use crate::physics::traffic::{Ask, Class, Planned, Session};

/// The place and the people.
pub(crate) struct Setup {
    pub(crate) boxes: Vec<Profile>,
    pub(crate) users: u64,
    pub(crate) seconds: f64,
    pub(crate) seed: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The seconds from the request to the first token, of main conversations alone, in ascending order.
    pub(crate) main_waits: Vec<f64>,
    /// The tokens of prompts that were computed.
    pub(crate) prefilled: u64,
    /// The tokens of prompts that were found in memory.
    pub(crate) cached: u64,
    /// The turns of people that were answered.
    pub(crate) turns: u64,
    pub(crate) requests: u64,
}

impl Report {
    /// The wait that this share of the main conversations' requests did not exceed.
    pub(crate) fn wait(&self, share: f64) -> f64 {
        self.main_waits[((self.main_waits.len() - 1) as f64 * share) as usize]
    }

    pub(crate) fn cached_share(&self) -> f64 {
        self.cached as f64 / (self.cached + self.prefilled) as f64
    }

    /// Adds the requests of another run.
    pub(crate) fn add(&mut self, other: Report) {
        self.main_waits.extend(other.main_waits);
        self.main_waits.sort_by(f64::total_cmp);
        self.prefilled += other.prefilled;
        self.cached += other.cached;
        self.turns += other.turns;
        self.requests += other.requests;
    }

    /// One line for a person to read.
    pub(crate) fn line(&self, name: &str) -> String {
        format!(
            "{name:16} first token p50 {:5.2} s, p95 {:5.1} s; {:6.2} M tokens prefilled, {:4.1} % cached; {} turns, {} requests",
            self.wait(0.5),
            self.wait(0.95),
            self.prefilled as f64 / 1e6,
            100.0 * self.cached_share(),
            self.turns,
            self.requests
        )
    }
}

/// A request that a box has.
struct Sent {
    ask: Ask,
    since: f64,
}

struct Simulation<'p> {
    policy: &'p mut dyn Policy,
    engines: Vec<Engine>,
    sessions: Vec<Session>,
    /// The requests that will be sent.
    planned: Vec<Planned>,
    /// The requests that the router keeps back, in the order of their arrival.
    held: Vec<Planned>,
    /// By box and its number for the request.
    sent: HashMap<(usize, u64), Sent>,
    report: Report,
}

/// Simulates until the time is over.
pub(crate) fn simulate(setup: &Setup, policy: &mut dyn Policy) -> Report {
    let mut sessions: Vec<Session> =
        (0..setup.users).map(|number| Session::new(setup.seed, number, setup.boxes[0].block)).collect();
    let planned = sessions.iter_mut().map(Session::begin).collect();
    let engines = setup.boxes.iter().map(|profile| Engine::new(profile.clone())).collect();
    let (held, sent, report) = (Vec::new(), HashMap::new(), Report::default());
    let mut simulation = Simulation { policy, engines, sessions, planned, held, sent, report };
    while let Some(now) = simulation.next_time().filter(|now| *now < setup.seconds) {
        simulation.work(now);
        simulation.send(now);
    }
    simulation.finish()
}

impl Simulation<'_> {
    fn next_time(&self) -> Option<f64> {
        let planned = self.planned.iter().map(|planned| planned.at);
        planned.chain(self.engines.iter().filter_map(Engine::next_event)).min_by(f64::total_cmp)
    }

    /// Lets the boxes work until now, and the sessions react.
    fn work(&mut self, now: f64) {
        for at_box in 0..self.engines.len() {
            for event in self.engines[at_box].advance(now) {
                let key = (at_box, event.id);
                match event.kind {
                    EventKind::Started => {}
                    EventKind::FirstToken => self.first_token(&event, at_box),
                    EventKind::Done => {
                        let Sent { ask, .. } = self.sent.remove(&key).unwrap();
                        self.policy.done(event.at, &ask, at_box);
                        let session = &mut self.sessions[ask.person as usize];
                        self.planned.extend(session.answered(event.at, ask.agent));
                        self.report.requests += 1;
                    }
                }
            }
        }
    }

    fn first_token(&mut self, event: &Event, at_box: usize) {
        let Sent { ask, since } = &self.sent[&(at_box, event.id)];
        self.policy.first_token(event.at, ask, at_box, event.cached);
        if ask.class == Class::Main {
            self.report.main_waits.push(event.at - since);
        }
    }

    /// Sends the requests that are due, those that were held back first.
    fn send(&mut self, now: f64) {
        let mut due: Vec<Planned> = self.planned.extract_if(.., |planned| planned.at <= now).collect();
        due.sort_by(|a, b| a.at.total_cmp(&b.at));
        let held = std::mem::take(&mut self.held);
        for planned in held.into_iter().chain(due) {
            let views = self.views();
            let Some(at_box) = self.policy.choose(now, &planned.ask, &views) else {
                self.held.push(planned);
                continue;
            };
            let id = self.engines[at_box].arrive(now, planned.ask.job.clone());
            self.sent.insert((at_box, id), Sent { ask: planned.ask, since: planned.at });
        }
    }

    fn views(&self) -> Vec<BoxView> {
        let view = |(at, engine): (usize, &Engine)| BoxView {
            in_flight: self.sent.keys().filter(|(at_box, _)| *at_box == at).count(),
            running: engine.running(),
            waiting: engine.waiting(),
            kv_usage: engine.kv_usage(),
        };
        self.engines.iter().enumerate().map(view).collect()
    }

    fn finish(mut self) -> Report {
        for engine in &self.engines {
            self.report.prefilled += engine.totals().prefilled;
            self.report.cached += engine.totals().cached;
        }
        self.report.turns = self.sessions.iter().map(|session| session.turns).sum();
        self.report.main_waits.sort_by(f64::total_cmp);
        self.report
    }
}
