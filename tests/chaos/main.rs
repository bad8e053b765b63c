//! Everything goes wrong at once: 64 clients, an upstream and a network that fail at random, from fixed seeds.
//!
//! | file | duty |
//! |---|---|
//! | `plan` | the events of one request: drawn from its number alone, so that both sides know them |
//! | `faulty` | the upstreams, which do their part of each plan and note when the proxy leaves |
//! | `guest` | the client, which does the other part and judges the answer |
//!
//! It runs for 15 seconds, or for `SPARKGAP_CHAOS_SECONDS`, from the seeds that `SPARKGAP_CHAOS_SEED` (a number below 65536)
//! chooses. For each request it checks: a finished answer is exactly
//! the one that the upstream sent; a failed answer has everything that came before the failure and ends in a
//! well-formed error; no request stays at the upstream after its client has left. Some requests go to a pool of two or
//! three upstreams, of which each one fails in its own way: their answers may also be cut off in mid-text. For all requests together it checks
//! that threads, sockets and memory return to their numbers from before, and that the process lives.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "helpers fail as tests do; some are for other tests"
)]

#[path = "../support/json_prefix.rs"]
mod json_prefix;
#[path = "../support/validator.rs"]
mod validator;

#[path = "../e2e/client.rs"]
mod client;
#[path = "../e2e/server.rs"]
mod server;
#[path = "../e2e/upstream.rs"]
mod upstream;

mod faulty;
mod guest;
mod plan;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use faulty::Faulty;
use server::{Server, hooks_file};

/// Ends a test that hangs; no working test comes near it.
pub(crate) const HANG: Duration = Duration::from_secs(60);

const CLIENTS: u64 = 64;

/// The longest time that an upstream's request may outlive its client. On an idle machine less than 1 ms was measured;
/// the limit allows for a machine on which a thread waits seconds for its turn.
const OUTLIVED_MAX: Duration = Duration::from_secs(2);

/// The memory that a run may leave in use, in bytes: caches of the allocator, and a pool of connections.
const GROWTH_MAX: u64 = 48 * 1024 * 1024;

/// The size of the pools of idle connections to the upstreams.
const POOLED_MAX: usize = 5 * 64;

#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) whole: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) left: AtomicU64,
    /// Answers of pools that were cut off, so that the client asks again.
    pub(crate) cut: AtomicU64,
    pub(crate) events: AtomicU64,
}

#[test]
fn each_failure_ends_one_request_only() {
    let seconds = number_of("SPARKGAP_CHAOS_SECONDS").unwrap_or(15);
    // Above the numbers of clients and of their requests.
    let seed = number_of("SPARKGAP_CHAOS_SEED").unwrap_or(0) << 48;
    let upstreams = [0, 1, 2, 3].map(Faulty::start);
    let server = start(&upstreams);
    for name in ["default", "few", "one", "two", "three"] {
        server.wait_for(&format!("upstream {name}: "));
    }
    // Things that are made once, at their first use, belong to the start.
    let tally = Arc::new(Tally::default());
    run(&server, &upstreams, &tally, seed, Instant::now() + Duration::from_secs(2));
    settle(&server, None);
    let before = server.usage();
    let began = Instant::now();
    run(&server, &upstreams, &tally, seed + (1 << 32), began + Duration::from_secs(seconds));
    upstreams.iter().for_each(Faulty::wait_until_idle);
    settle(&server, Some(&before));
    let after = server.usage();
    let mut outlived: Vec<Duration> = upstreams.iter().flat_map(Faulty::outlived).collect();
    outlived.sort();
    report(&tally, &outlived, began.elapsed());
    println!("before: {before:?}\nafter:  {after:?}\nhealth: {}", server.health());
    assert!(outlived.last().is_none_or(|longest| *longest < OUTLIVED_MAX), "{:?}", outlived.last());
    assert!(after.memory < before.memory + GROWTH_MAX);
    assert_eq!(server.health()["streams"], 0);
    let log = server.terminate_and_log();
    assert!(log.contains("stopped\n"), "it did not live to its end");
    let bad = log.lines().find(|line| line.contains("ERROR") || line.contains("panicked"));
    assert_eq!(bad, None);
}

/// The number in an environment variable, if it is set.
fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}: {error}")))
}

fn start(upstreams: &[Faulty; 4]) -> Server {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let [url, one, two, three] = upstreams.each_ref().map(Faulty::url);
    let lua = format!(
        r#"return {{ api = 1,
            upstreams = {{
                default = {{ url = "{url}" }},
                few = {{ url = "{url}", max_in_flight = 8 }},
                dead = {{ url = "http://{nobody}/v1" }},
                one = {{ url = "{one}" }}, two = {{ url = "{two}" }}, three = {{ url = "{three}" }},
            }},
            aliases = {{
                {{ "pair*", upstream = {{ "one", "two" }} }}, {{ "trio*", upstream = {{ "one", "two", "three" }} }},
                {{ "few*", upstream = "few" }}, {{ "dead*", upstream = "dead" }}, {{ "*", upstream = "default" }},
            }},
        }}"#
    );
    let hooks = hooks_file("chaos", &lua);
    let arguments = [
        &["serve", "--hooks", &hooks, "--log-level", "info", "--open-after", "1", "--ping-every", "1"][..],
        &["--first-byte-timeout", "8", "--idle-timeout", "6", "--head-timeout", "2", "--body-timeout", "2"],
        &["--write-timeout", "8", "--wait-for-upstream", "4"],
    ];
    Server::run(&arguments.concat(), &[])
}

/// All clients, each with one plan after the other.
fn run(server: &Server, upstreams: &[Faulty], tally: &Arc<Tally>, seed: u64, until: Instant) {
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let address = server.address;
            scope.spawn(move || guest::work(address, upstreams, tally, seed + (number << 40), until));
        }
    });
}

/// Waits until the server holds no more than before.
fn settle(server: &Server, before: Option<&server::Usage>) {
    server.wait_until(|health| health["streams"] == 0);
    if let Some(before) = before {
        server.wait_for_usage(|usage| {
            usage.threads <= before.threads + 1 && usage.sockets <= before.sockets + POOLED_MAX
        });
    }
}

fn report(tally: &Tally, outlived: &[Duration], time: Duration) {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{} whole, {} failed, {} cut, {} refused, {} left; {} events in {:.0} s",
        read(&tally.whole),
        read(&tally.failed),
        read(&tally.cut),
        read(&tally.refused),
        read(&tally.left),
        read(&tally.events),
        time.as_secs_f64()
    );
    if let Some(longest) = outlived.last() {
        let at = |share: usize| outlived[(outlived.len() - 1) * share / 1000];
        println!(
            "{} upstream requests outlived their clients by {:?} (median), {:?} (99 %), {:?} (99.9 %), {longest:?} (most)",
            outlived.len(),
            at(500),
            at(990),
            at(999)
        );
    }
}
