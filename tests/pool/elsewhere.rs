//! Places and seeds that no number of the choice was tuned on, for `benches/README.md`:
//! `cargo test --release --test pool elsewhere -- --ignored --nocapture`.

use std::ops::RangeInclusive;

use super::cost::Cost;
use super::policy::{ByAgent, BySession, InTurn, LeastBusy, Policy};
use super::ranking::spark;
use super::simulation::{Report, Setup, simulate};
use crate::physics::engine::Profile;
use crate::physics::traffic::Dice;

const SEEDS: RangeInclusive<u64> = 101..=106;

/// The seconds of a run: an hour and a half.
const SECONDS: f64 = 5400.0;

fn run(
    boxes: &[Profile],
    users: u64,
    seeds: RangeInclusive<u64>,
    make: impl Fn(u64) -> Box<dyn Policy>,
) -> Report {
    let mut all = Report::default();
    for seed in seeds {
        let setup = Setup { boxes: boxes.to_vec(), users, seconds: SECONDS, seed };
        all.add(simulate(&setup, &mut *make(seed)));
    }
    all
}

fn kv(tokens: u64) -> Profile {
    Profile { kv_tokens: tokens, ..spark() }
}

fn prefill(times: f64) -> Profile {
    Profile { rates: spark().rates.slower_prefill(times), ..spark() }
}

/// The places: boxes, people, and the boxes of the assignment person by person.
fn places() -> Vec<(&'static str, Vec<Profile>, u64, Vec<usize>)> {
    let half = Profile { rates: spark().rates.slower(2.0), ..spark() };
    vec![
        ("two alike", vec![spark(); 2], 8, vec![0, 1]),
        ("room for everything", vec![kv(2_000_000); 2], 8, vec![0, 1]),
        ("three alike", vec![spark(); 3], 10, vec![0, 1, 2]),
        ("one half as fast", vec![spark(), half], 8, vec![0, 0, 1]),
        ("one prefill 1/3", vec![spark(), prefill(3.0)], 8, vec![0, 0, 1]),
        ("prefill 1/3", vec![prefill(3.0); 2], 8, vec![0, 1]),
        ("prefill 3", vec![prefill(1.0 / 3.0); 2], 8, vec![0, 1]),
        ("one small cache", vec![spark(), kv(200_000)], 8, vec![0, 0, 1]),
        ("small caches", vec![kv(300_000); 2], 8, vec![0, 1]),
    ]
}

#[test]
#[ignore = "prints a comparison that takes minutes"]
fn elsewhere() {
    for (name, boxes, users, in_turn) in places() {
        let run = |label: &str, make: &dyn Fn(u64) -> Box<dyn Policy>| {
            let report = run(&boxes, users, SEEDS, make);
            println!("{name:20} {}", report.line(label));
            report
        };
        let busy = run("least busy", &|seed| Box::new(LeastBusy(Dice::new(seed))));
        let fixed = [
            run("session", &|_| Box::new(BySession)),
            run("session and agent", &|_| Box::new(ByAgent)),
            run("in turn", &|_| Box::new(InTurn(in_turn.clone()))),
        ];
        let cost = run("cost", &|_| Box::new(Cost::estimating(boxes.len(), 1.0)));
        let p95 = fixed.iter().map(|report| report.wait(0.95)).fold(f64::MAX, f64::min);
        let turns = fixed.iter().map(|report| report.turns).max().unwrap_or(1);
        println!(
            "{name:20} p95 {:.2} times static, turns {:.2} times static, {:.2} times least busy",
            cost.wait(0.95) / p95,
            cost.turns as f64 / turns as f64,
            cost.turns as f64 / busy.turns as f64
        );
    }
}

#[test]
#[ignore = "takes minutes in a debug build"]
fn two_boxes_serve_nearly_twice_as_much_as_one_elsewhere() {
    for seeds in [SEEDS, 201..=206] {
        let one = run(&[spark()], 4, seeds.clone(), |_| Box::new(Cost::estimating(1, 1.0)));
        let two = run(&[spark(), spark()], 8, seeds, |_| Box::new(Cost::estimating(2, 1.0)));
        let share = two.requests as f64 / (2.0 * one.requests as f64);
        println!("two boxes: {share:.3} of twice one box at half the load");
        assert!(share > 0.95);
    }
}
