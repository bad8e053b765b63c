//! Measures how long people with Claude Code wait when several boxes stand behind one name.
//!
//! `cargo bench --bench pool` lets eight people work for 20 minutes on two model servers with physics
//! (`tests/support/physics`), in turn behind each router: sparkgap, haproxy (hash of the session's header) and LiteLLM
//! (shuffle, least busy). All clocks run 20 times as fast. Options: `--boxes N`, `--users N`, `--seconds N`, `--pace N`,
//! `--seed N`, and `--only NAME` (sparkgap, haproxy, litellm-shuffle, litellm-least-busy; repeatable). A router that is
//! not installed has no row (`benches/install-peers`). The last line is the time of one choice, without sockets.
//!
//! | file | duty |
//! |---|---|
//! | `router` | the programs that spread requests, each with its configuration |
//! | `people` | the sessions, whose requests go over sockets |
//! | `wire` | one request and its streamed answer |
//! | `choice` | the time of a choice alone |

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    reason = "a benchmark that cannot go on has nothing better to do than to stop; and it prints"
)]

mod choice;
mod people;
#[path = "../../tests/support/physics/mod.rs"]
mod physics;
mod router;
mod wire;

use people::Outcome;
use physics::engine::Profile;
use physics::server::{Answer, ModelServer};
use router::{Kind, Router};

/// The setting of all runs.
pub(crate) struct Setting {
    boxes: usize,
    users: u64,
    /// The length of a run on the clock of the boxes.
    seconds: f64,
    pace: f64,
    seed: u64,
    only: Vec<String>,
}

fn main() {
    // `cargo test --all-targets` runs this too, and must not wait for a measurement.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let setting = setting();
    println!(
        "| {} people on {} boxes | first token p50, s | p95, s | M tokens prefilled | cached | turns | requests | failed |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|",
        setting.users, setting.boxes
    );
    for kind in Kind::ALL {
        let is_wanted = setting.only.is_empty() || setting.only.iter().any(|name| name == kind.name());
        if is_wanted && kind.is_installed() {
            println!("{}", row(kind, &setting));
        }
    }
    println!("\nTimes are those of the boxes, whose clock ran {} times as fast.", setting.pace);
    println!("One choice among eight boxes takes {:.1} us.", choice::time().as_secs_f64() * 1e6);
}

/// Measures one router on boxes of its own, whose memory is empty.
fn row(kind: Kind, setting: &Setting) -> String {
    let profile = Profile { kv_tokens: 480_000, ..Profile::spark() };
    let start = |_| {
        let server = ModelServer::start(profile.clone(), setting.pace);
        server.set_script(|chat| Answer {
            thinking: 0,
            text: chat["max_completion_tokens"].as_u64().or(chat["max_tokens"].as_u64()).unwrap_or(1),
        });
        server
    };
    let boxes: Vec<ModelServer> = (0..setting.boxes).map(start).collect();
    let router = Router::start(kind, &boxes);
    let Outcome { waits, turns, requests, failed } = people::work(setting, kind, router.address);
    let totals: Vec<_> = boxes.iter().map(ModelServer::totals).collect();
    let prefilled: u64 = totals.iter().map(|totals| totals.prefilled).sum();
    let cached: u64 = totals.iter().map(|totals| totals.cached).sum();
    let wait = |share: f64| {
        let at = (waits.len().saturating_sub(1) as f64 * share) as usize;
        waits.get(at).copied().unwrap_or(f64::NAN)
    };
    // The boxes stop too, so that they take no time from the next router.
    boxes.iter().for_each(ModelServer::kill);
    format!(
        "| {} | {:.2} | {:.1} | {:.2} | {:.1} % | {turns} | {requests} | {failed} |",
        kind.name(),
        wait(0.5),
        wait(0.95),
        prefilled as f64 / 1e6,
        100.0 * cached as f64 / (cached + prefilled).max(1) as f64,
    )
}

fn setting() -> Setting {
    let mut setting = Setting { boxes: 2, users: 8, seconds: 1200.0, pace: 20.0, seed: 1, only: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--bench" {
            continue;
        }
        let value = arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--boxes" => setting.boxes = value.parse().unwrap(),
            "--users" => setting.users = value.parse().unwrap(),
            "--seconds" => setting.seconds = value.parse().unwrap(),
            "--pace" => setting.pace = value.parse().unwrap(),
            "--seed" => setting.seed = value.parse().unwrap(),
            "--only" => setting.only.push(value),
            other => {
                eprintln!("unknown option {other}; see the head of benches/pool/main.rs");
                std::process::abort();
            }
        }
    }
    setting
}
