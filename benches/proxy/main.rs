//! Measures the whole proxy beside others that may stand in its place, in front of one scripted upstream.
//!
//! `cargo bench --bench proxy` measures the table; with `-- --quick` it takes half a minute, with `-- --growth` it
//! draws the charts. `--only NAME` (direct, haproxy, before, sparkgap, litellm, ccr; repeatable) leaves the others out,
//! and `--rounds N` sets the number of rounds. `--before FILE` measures another build of sparkgap beside this one, to
//! show the effect of a change in one run. `--busy N` lets N threads spin meanwhile, to show a proxy on a busy machine.
//!
//! In each round the kinds take turns, so that other work of the machine slows all alike. The table shows the median
//! and the range of the rounds. A kind that is not installed has no column: no figure is invented.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::string_slice,
    reason = "a benchmark that cannot go on has nothing better to do than to stop; and it prints"
)]

mod epolled;
mod growth;
mod load;
mod measure;
mod plot;
mod table;
mod target;
mod upstream;
#[path = "../workloads/mod.rs"]
mod workloads;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use measure::{Bench, Effort, ROWS};
use table::{Results, short};
use target::{Kind, cpu_of, machine_cpu};
use upstream::Upstream;

struct Options {
    is_quick: bool,
    grows: bool,
    only: Vec<Kind>,
    rounds: Option<usize>,
    busy: usize,
}

fn main() {
    // `cargo test --all-targets` runs this too, and must not wait for a measurement.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let options = options();
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| options.only.is_empty() || options.only.contains(kind))
        .filter(|kind| kind.is_installed())
        .collect();
    allow_descriptors();
    let upstream = Upstream::start();
    for _ in 0..options.busy {
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    let (began, busy, ours) = (Instant::now(), machine_cpu(), cpu_of("self", 4));
    if options.grows {
        let time = Duration::from_millis(if options.is_quick { 500 } else { 2000 });
        growth::all(&upstream, &kinds, time, if options.is_quick { 1000 } else { 5000 });
    } else {
        let mut effort =
            Effort { rounds: 5, time: Duration::from_millis(1500), starts: 7, has_thousands: true };
        if options.is_quick {
            effort = Effort { rounds: 1, time: Duration::from_millis(500), starts: 3, has_thousands: false };
        }
        effort.rounds = options.rounds.unwrap_or(effort.rounds);
        let results = rounds(&upstream, &kinds, effort);
        println!("{}", results.markdown(&ROWS, &kinds));
    }
    let (time, busy, ours) = (began.elapsed(), machine_cpu() - busy, cpu_of("self", 4) - ours);
    println!("{}", busyness(time, busy, ours));
    if options.busy > 0 {
        println!("Beside it {} threads were spinning.", options.busy);
    }
}

fn rounds(upstream: &Upstream, kinds: &[Kind], effort: Effort) -> Results {
    let mut results = Results::default();
    let mut failed = Vec::new();
    for round in 0..effort.rounds {
        // Each kind comes first in turn.
        for at in 0..kinds.len() {
            let kind = kinds[(at + round) % kinds.len()];
            if failed.contains(&kind) {
                continue;
            }
            let began = Instant::now();
            let mut bench = Bench { kind, upstream, effort, results: &mut results };
            // A failure of another proxy must not lose the figures of the rest; a failure of sparkgap ends the run.
            if catch_unwind(AssertUnwindSafe(|| bench.all())).is_err() {
                assert!(!kind.is_light(), "{kind:?} failed");
                eprintln!("{kind:?} failed, see above: what is in the table is from before");
                failed.push(kind);
                continue;
            }
            eprintln!(
                "round {} of {}: {kind:?} {:.0} s",
                round + 1,
                effort.rounds,
                began.elapsed().as_secs_f64()
            );
        }
    }
    results
}

/// A line about how reliable the figures are.
fn busyness(time: Duration, busy: f64, ours: f64) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let seconds = time.as_secs_f64();
    let others = ((busy - ours) / seconds).max(0.0);
    format!(
        "{} s on {cores} cores; beside the benchmark the machine was busy with {} cores' worth of other work. \
         Medians of the rounds (ranges in brackets).",
        short(seconds),
        short(others)
    )
}

fn options() -> Options {
    let mut options = Options { is_quick: false, grows: false, only: Vec::new(), rounds: None, busy: 0 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            "--quick" => options.is_quick = true,
            "--growth" => options.grows = true,
            "--rounds" => options.rounds = arguments.next().and_then(|n| n.parse().ok()),
            "--busy" => options.busy = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(0),
            "--before" => _ = target::BEFORE.set(arguments.next().unwrap_or_default().into()),
            "--only" => options.only.push(kind(&arguments.next().unwrap_or_default())),
            other => {
                eprintln!("unknown option {other}; see the head of benches/proxy/main.rs");
                std::process::abort();
            }
        }
    }
    options
}

fn kind(name: &str) -> Kind {
    match name {
        "direct" => Kind::Direct,
        "haproxy" => Kind::Haproxy,
        "before" => Kind::Before,
        "litellm" => Kind::LiteLlm,
        "ccr" => Kind::ClaudeCodeRouter,
        _ => Kind::Sparkgap,
    }
}

/// Raises the limit on descriptors: five thousand streams are ten thousand sockets here.
fn allow_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}
