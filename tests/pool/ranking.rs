//! The policies beside each other: the cost of a lost prefix, the gain of a box for each conversation, and the program's
//! own choice.
//!
//! The tests take two seeds and 45 minutes, so that they end soon. `table` prints the whole comparison:
//! `cargo test --release --test pool table -- --ignored --nocapture`.

use super::cost::Cost;
use super::policy::{ByAgent, BySession, InTurn, LeastBusy, Policy, Shuffle};
use super::simulation::{Report, Setup, simulate};
use crate::physics::engine::Profile;
use crate::physics::traffic::Dice;

/// A Spark whose memory just holds its half of the conversations. Its large blocks save time and change no figure much.
pub(crate) fn spark() -> Profile {
    Profile { block: 256, kv_tokens: 480_000, ..Profile::spark() }
}

/// The boxes, the people who use them, and the boxes that the best static assignment gives them in turn.
struct Place {
    name: &'static str,
    boxes: Vec<Profile>,
    users: u64,
    in_turn: Vec<usize>,
}

fn even() -> Place {
    Place { name: "two boxes", boxes: vec![spark(); 2], users: 8, in_turn: vec![0, 1] }
}

fn uneven() -> Place {
    let half = Profile { rates: spark().rates.slower(2.0), ..spark() };
    Place { name: "one at half speed", boxes: vec![spark(), half], users: 8, in_turn: vec![0, 0, 1] }
}

fn tight() -> Place {
    let tight = Profile { kv_tokens: 300_000, ..spark() };
    Place { name: "little memory", boxes: vec![tight; 2], users: 8, in_turn: vec![0, 1] }
}

/// Three boxes that differ in speed and memory.
fn mixed() -> Place {
    let tight = Profile { kv_tokens: 300_000, ..spark() };
    let slow = Profile { rates: spark().rates.slower(2.0), ..tight.clone() };
    Place { name: "mixed", boxes: vec![spark(), tight, slow], users: 10, in_turn: vec![0, 1, 0, 2] }
}

fn large() -> Place {
    Place { name: "four boxes", boxes: vec![spark(); 4], users: 12, in_turn: vec![0, 1, 2, 3] }
}

/// Some runs on one kind of place.
struct Runs {
    place: Place,
    seconds: f64,
    seeds: std::ops::RangeInclusive<u64>,
}

impl Runs {
    fn short(place: Place) -> Runs {
        Runs { place, seconds: 2700.0, seeds: 1..=2 }
    }

    fn report(&self, name: &str, make: impl Fn(u64) -> Box<dyn Policy>) -> Report {
        let mut all = Report::default();
        for seed in self.seeds.clone() {
            let Place { boxes, users, .. } = &self.place;
            let setup = Setup { boxes: boxes.clone(), users: *users, seconds: self.seconds, seed };
            all.add(simulate(&setup, &mut *make(seed)));
        }
        println!("{:18} {}", self.place.name, all.line(name));
        all
    }

    fn shuffle(&self) -> Report {
        self.report("any box", |seed| Box::new(Shuffle(Dice::new(seed))))
    }

    fn least_busy(&self) -> Report {
        self.report("least busy", |seed| Box::new(LeastBusy(Dice::new(seed))))
    }

    fn by_session(&self) -> Report {
        self.report("session", |_| Box::new(BySession))
    }

    fn by_agent(&self) -> Report {
        self.report("session and agent", |_| Box::new(ByAgent))
    }

    fn in_turn(&self) -> Report {
        self.report("in turn", |_| Box::new(InTurn(self.place.in_turn.clone())))
    }

    /// The program's own choice; `estimate`: the tokens that it takes a prompt's token for.
    fn cost(&self, estimate: f64) -> Report {
        let boxes = self.place.boxes.len();
        self.report(&format!("cost, {estimate}"), |_| Box::new(Cost::estimating(boxes, estimate)))
    }
}

#[test]
fn a_box_for_each_conversation_beats_any_box() {
    let runs = Runs::short(even());
    let (shuffle, least_busy) = (runs.shuffle(), runs.least_busy());
    let (by_session, by_agent) = (runs.by_session(), runs.by_agent());
    let cost = runs.cost(1.0);
    assert!(shuffle.wait(0.95) > 2.0 * by_session.wait(0.95).min(by_agent.wait(0.95)));
    assert!(by_agent.turns as f64 > 1.2 * shuffle.turns as f64);
    assert!(least_busy.turns > shuffle.turns && by_session.turns > shuffle.turns);
    assert!(shuffle.wait(0.95) > 3.0 * cost.wait(0.95) && least_busy.wait(0.95) > 3.0 * cost.wait(0.95));
    assert!(cost.cached_share() > 0.93 && cost.turns as f64 > 1.2 * least_busy.turns as f64);
}

/// Whether a report has at least this share of another one's turns, and at most this multiple of its p95.
#[track_caller]
fn assert_keeps_up(report: &Report, other: &Report, turns: f64, wait: f64) {
    let (least, most) = (turns * other.turns as f64, wait * other.wait(0.95));
    assert!(report.turns as f64 >= least, "{} turns of {least}", report.turns);
    assert!(report.wait(0.95) <= most, "{} s of {most}", report.wait(0.95));
}

#[test]
fn little_memory_is_shared_as_well_as_by_a_person() {
    let runs = Runs::short(tight());
    let (by_agent, in_turn) = (runs.by_agent(), runs.in_turn());
    for estimate in [1.0, 1.25] {
        let cost = runs.cost(estimate);
        assert_keeps_up(&cost, &in_turn, 0.92, 1.5);
        assert_keeps_up(&cost, &by_agent, 1.25, 0.6);
    }
}

#[test]
fn boxes_that_differ_get_what_they_can_do() {
    let runs = Runs::short(uneven());
    let (by_agent, in_turn, cost) = (runs.by_agent(), runs.in_turn(), runs.cost(1.0));
    assert_keeps_up(&cost, &in_turn, 0.93, 1.3);
    assert_keeps_up(&cost, &by_agent, 1.2, 1.0);
    let runs = Runs { seeds: 1..=1, ..Runs::short(mixed()) };
    let (by_session, in_turn, cost) = (runs.by_session(), runs.in_turn(), runs.cost(1.0));
    assert_keeps_up(&cost, &in_turn, 0.93, 1.4);
    assert_keeps_up(&cost, &by_session, 1.1, 0.8);
}

#[test]
fn four_boxes_serve_as_by_a_person() {
    let runs = Runs::short(large());
    let (in_turn, cost) = (runs.in_turn(), runs.cost(1.0));
    assert_keeps_up(&cost, &in_turn, 0.95, 1.25);
    assert!(cost.cached_share() > 0.94);
}

#[test]
fn a_wrong_estimate_of_prompts_does_no_harm() {
    let runs = Runs { seeds: 1..=1, ..Runs::short(uneven()) };
    let (exact, large) = (runs.cost(1.0), runs.cost(1.25));
    assert!(large.turns as f64 > 0.85 * exact.turns as f64);
    assert!(large.cached_share() > exact.cached_share() - 0.02);
}

#[test]
#[ignore = "prints a comparison that takes minutes in a debug build"]
fn table() {
    for place in [even(), uneven(), tight(), large(), mixed()] {
        let runs = Runs { place, seconds: 5400.0, seeds: 1..=6 };
        runs.shuffle();
        runs.least_busy();
        runs.by_session();
        runs.by_agent();
        runs.in_turn();
        for estimate in [1.0, 1.25, 0.8] {
            runs.cost(estimate);
        }
    }
}

/// Keeps every request back until nothing runs.
struct OneAtATime;

impl Policy for OneAtATime {
    fn choose(
        &mut self,
        _: f64,
        _: &crate::physics::traffic::Ask,
        boxes: &[super::policy::BoxView],
    ) -> Option<usize> {
        boxes.iter().all(|one| one.in_flight == 0).then_some(0)
    }
}

#[test]
fn a_router_may_keep_requests_back() {
    let setup = Setup { boxes: vec![spark(); 2], users: 4, seconds: 900.0, seed: 1 };
    let held = simulate(&setup, &mut OneAtATime);
    let spread = simulate(&setup, &mut ByAgent);
    assert!(held.turns > 0 && held.wait(0.95) > spread.wait(0.95));
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let setup = |seed| Setup { boxes: vec![spark(); 3], users: 5, seconds: 900.0, seed };
    let figures = |seed| simulate(&setup(seed), &mut BySession).line("");
    assert_eq!(figures(7), figures(7));
    assert_ne!(figures(7), figures(8));
}

#[test]
fn one_slow_box_is_felt_by_its_sessions_alone() {
    let slow = Profile { rates: spark().rates.slower(10.0), ..spark() };
    let setup = |boxes| Setup { boxes, users: 8, seconds: 1800.0, seed: 3 };
    let even = simulate(&setup(vec![spark(), spark()]), &mut BySession);
    let uneven = simulate(&setup(vec![spark(), slow]), &mut BySession);
    println!("{}\n{}", even.line("even"), uneven.line("one slow"));
    assert!(uneven.wait(0.95) > 3.0 * even.wait(0.95));
    assert!(uneven.turns < even.turns);
}
