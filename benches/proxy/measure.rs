//! The scenarios. Each starts its target anew, so that no scenario sees what another left behind.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::load::{self, Client};
use super::table::{Goal, Results, Row, median};
use super::target::{Kind, Target};
use super::upstream::{BLOCK_EVENTS, Script, Seen, Upstream};

use Goal::{Max, MaxOfHaproxy, MinOfHaproxy};

/// The table's rows, in its order.
pub(crate) const ROWS: [Row; 28] = [
    Row { id: "ttft-30", title: "TTFT p50, 30 KB body, ms", goal: MaxOfHaproxy(2.0) },
    Row { id: "ttft-30-p99", title: "the same, p99", goal: Goal::None },
    Row { id: "ttft-300", title: "TTFT p50, 300 KB body, ms", goal: MaxOfHaproxy(2.5) },
    Row { id: "ttft-300-p99", title: "the same, p99", goal: Goal::None },
    Row { id: "rps-1", title: "requests/s, not streamed, 1 KB, 16 connections", goal: MinOfHaproxy(0.6) },
    Row { id: "rps-30", title: "requests/s, not streamed, 30 KB, 16 connections", goal: MinOfHaproxy(0.5) },
    Row { id: "cpu-30", title: "CPU ms per request, 30 KB", goal: Max(0.15) },
    Row { id: "events", title: "events/s at full speed, 8 streams", goal: MinOfHaproxy(0.4) },
    Row { id: "events-cpu", title: "CPU s per million events at full speed", goal: Max(0.8) },
    Row {
        id: "slow-500",
        title: "500 streams, an event each 50 ms: latency p50, ms",
        goal: MaxOfHaproxy(1.0),
    },
    Row { id: "slow-500-p99", title: "the same, p99", goal: MaxOfHaproxy(1.0) },
    Row { id: "slow-500-rss", title: "the same: RSS per stream, KB", goal: Max(40.0) },
    Row { id: "slow-500-cpu", title: "the same: CPU s per million events", goal: Goal::None },
    Row { id: "slow-500-threads", title: "the same: threads", goal: Goal::None },
    Row { id: "slow-5000", title: "5,000 streams, an event each 500 ms: latency p50, ms", goal: Goal::None },
    Row { id: "slow-5000-p99", title: "the same, p99", goal: Goal::None },
    Row { id: "slow-5000-rss", title: "the same: RSS per stream, KB", goal: Goal::None },
    Row { id: "slow-5000-cpu", title: "the same: CPU s per million events", goal: Goal::None },
    Row { id: "slow-5000-threads", title: "the same: threads", goal: Goal::None },
    Row {
        id: "full-5000",
        title: "5,000 streams, an event each 50 ms (100,000 events/s): latency p50, ms",
        goal: Goal::None,
    },
    Row { id: "full-5000-p99", title: "the same, p99", goal: Goal::None },
    Row {
        id: "full-5000-arrived",
        title: "the same: part of the events that came in time",
        goal: Goal::None,
    },
    Row { id: "full-5000-cpu", title: "the same: CPU s per million events", goal: Goal::None },
    Row { id: "start", title: "start to first answer, ms", goal: Max(5.0) },
    Row { id: "rss", title: "idle RSS after one answer, MB", goal: Max(5.0) },
    Row { id: "cancel", title: "client leaves → upstream sees it, mid-stream, ms", goal: Max(0.5) },
    Row { id: "cancel-silent", title: "the same before the first byte, ms", goal: Max(0.5) },
    Row {
        id: "cancel-after",
        title: "cancelled requests that the upstream was not told of",
        goal: Goal::None,
    },
];

/// The effort of measuring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// The time for one figure.
    pub(crate) time: Duration,
    pub(crate) starts: usize,
    pub(crate) has_thousands: bool,
}

/// A kind of proxy in front of an upstream, and the place for its figures.
pub(crate) struct Bench<'b> {
    pub(crate) kind: Kind,
    pub(crate) upstream: &'b Upstream,
    pub(crate) effort: Effort,
    pub(crate) results: &'b mut Results,
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value below which `part` of the sorted values lie.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

fn float(n: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^53")]
    {
        n as f64
    }
}

impl Bench<'_> {
    fn start(&self) -> Target {
        Target::start(self.kind, self.upstream.address).0
    }

    fn add(&mut self, row: &'static str, value: f64) {
        self.results.add(row, self.kind, value);
    }

    /// Runs all scenarios, one after the other.
    pub(crate) fn all(&mut self) {
        self.starts();
        let target = self.start();
        self.first_token(&target, 30_000, ["ttft-30", "ttft-30-p99"]);
        self.first_token(&target, 300_000, ["ttft-300", "ttft-300-p99"]);
        self.requests(&target, 1000, "rps-1");
        self.requests(&target, 30_000, "rps-30");
        self.flood(&target);
        self.cancels(target.address);
        drop(target);
        self.slow(
            500,
            50,
            ["slow-500", "slow-500-p99", "slow-500-rss", "slow-500-cpu", "slow-500-threads", ""],
        );
        // Slow proxies would be measured while they break down; their figures for 500 streams say enough.
        if self.effort.has_thousands && self.kind.is_light() {
            self.slow(
                5000,
                500,
                ["slow-5000", "slow-5000-p99", "slow-5000-rss", "slow-5000-cpu", "slow-5000-threads", ""],
            );
            self.slow(5000, 50, ["full-5000", "full-5000-p99", "", "full-5000-cpu", "", "full-5000-arrived"]);
        }
    }

    fn starts(&mut self) {
        if self.kind == Kind::Direct {
            return;
        }
        let starts = if self.kind.is_light() { self.effort.starts } else { 1 };
        let mut times = Vec::new();
        for _ in 0..starts {
            let (target, took) = Target::start(self.kind, self.upstream.address);
            times.push(ms(took));
            std::thread::sleep(Duration::from_millis(50));
            self.add("rss", target.rss() / 1024.0);
        }
        self.add("start", median(&times));
    }

    fn first_token(&mut self, target: &Target, size: usize, [p50, p99]: [&'static str; 2]) {
        let mut times = first_tokens(self.kind, target.address, size, self.effort.time);
        times.sort_by(f64::total_cmp);
        self.add(p50, quantile(&times, 0.5));
        self.add(p99, quantile(&times, 0.99));
    }

    fn requests(&mut self, target: &Target, size: usize, row: &'static str) {
        let request = self.kind.request(size, false, Script::Short);
        let time = self.effort.time;
        load::ask_on(target.address, &request, 16, until(time / 5));
        let cpu = target.cpu();
        let (answers, took) = load::ask_on(target.address, &request, 16, until(time));
        let cpu = target.cpu() - cpu;
        self.add(row, float(answers) / took.as_secs_f64());
        if row == "rps-30" && self.kind != Kind::Direct {
            self.add("cpu-30", cpu * 1e3 / float(answers));
        }
    }

    fn flood(&mut self, target: &Target) {
        const STREAMS: usize = 8;
        let mut events = BLOCK_EVENTS * 2;
        loop {
            let request = self.kind.request(1000, true, Script::Flood(events));
            let cpu = target.cpu();
            let (answers, took) = load::ask_on(target.address, &request, STREAMS, |_| false);
            let cpu = target.cpu() - cpu;
            let all = float(events * answers);
            // The number of events is raised until they take the time of a figure; short runs show how many that are.
            if took * 3 / 2 >= self.effort.time {
                self.add("events", all / took.as_secs_f64());
                if self.kind != Kind::Direct {
                    self.add("events-cpu", cpu / all * 1e6);
                }
                return;
            }
            let more = (self.effort.time.as_secs_f64() / took.as_secs_f64()).clamp(1.5, 8.0);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let next = (float(events) * more) as u64;
            events = next.next_multiple_of(BLOCK_EVENTS);
        }
    }

    fn slow(&mut self, streams: usize, interval_ms: u64, rows: [&'static str; 6]) {
        let [p50, p99, rss, cpu, threads, arrived] = rows;
        let seen = listen(self.kind, self.upstream, streams, interval_ms, self.effort.time * 2);
        if self.kind == Kind::Direct {
            (self.add(p50, seen.p50), self.add(p99, seen.p99)).0
        } else {
            for (row, value) in
                [(p50, seen.p50), (p99, seen.p99), (rss, seen.rss), (cpu, seen.cpu), (threads, seen.threads)]
            {
                if !row.is_empty() {
                    self.add(row, value);
                }
            }
        }
        if !arrived.is_empty() {
            self.add(arrived, seen.arrived);
        }
    }

    fn cancels(&mut self, address: SocketAddr) {
        let mut untold = 0.0;
        for (row, script) in [("cancel", Script::OneEvent), ("cancel-silent", Script::Silence)] {
            let request = self.kind.request(1000, true, script);
            let mut times = Vec::new();
            for _ in 0..self.effort.starts * 3 {
                while self.upstream.seen.try_recv().is_ok() {}
                let asked = || while !matches!(self.upstream.seen.recv(), Ok(Seen::Request)) {};
                let left = Client::leave(address, &request, script == Script::OneEvent, asked);
                match self.gone() {
                    Some(at) => times.push(ms(at.saturating_duration_since(left))),
                    None => untold += 1.0,
                }
                if untold > 3.0 {
                    break;
                }
            }
            if !times.is_empty() {
                self.add(row, median(&times));
            }
        }
        self.add("cancel-after", untold);
    }

    fn gone(&self) -> Option<Instant> {
        loop {
            match self.upstream.seen.recv_timeout(Duration::from_secs(2)) {
                Ok(Seen::Gone(at)) => return Some(at),
                Ok(Seen::Request) => {}
                Err(_) => return None,
            }
        }
    }
}

fn until(time: Duration) -> impl FnMut(u64) -> bool {
    let began = Instant::now();
    move |_| began.elapsed() < time
}

/// The times to the first token in ms, of one client that asks again and again.
pub(crate) fn first_tokens(kind: Kind, address: SocketAddr, size: usize, time: Duration) -> Vec<f64> {
    times_of(address, &kind.request(size, true, Script::Short), time)
}

/// The times to the first token in ms, for a given request.
pub(crate) fn times_of(address: SocketAddr, request: &[u8], time: Duration) -> Vec<f64> {
    let mut client = Client::new(address);
    (0..5).for_each(|_| _ = client.first_token(request));
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < time || times.len() < 5 {
        times.push(ms(client.first_token(request)));
    }
    times
}

/// The figures of many slow streams.
pub(crate) struct Slow {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// KB per stream.
    pub(crate) rss: f64,
    /// CPU seconds per million events.
    pub(crate) cpu: f64,
    pub(crate) threads: f64,
    /// The share of the due events that arrived.
    pub(crate) arrived: f64,
}

/// Starts the kind and listens to this many streams.
pub(crate) fn listen(
    kind: Kind,
    upstream: &Upstream,
    streams: usize,
    interval_ms: u64,
    time: Duration,
) -> Slow {
    let (target, _) = Target::start(kind, upstream.address);
    let request = kind.request(3000, true, Script::Timed(interval_ms));
    let rss = target.rss();
    let (mut cpu_before, mut cpu_after) = (0.0, 0.0);
    let (mut rss_after, mut threads) = (0.0, 0.0);
    let heard = load::listen(
        target.address,
        &request,
        streams,
        upstream.began,
        time,
        || cpu_before = target.cpu(),
        || (cpu_after, rss_after, threads) = (target.cpu(), target.rss(), target.threads()),
    );
    let latencies: Vec<f64> = heard.latencies.iter().map(|ns| float(*ns) / 1e6).collect();
    let count = float(u64::try_from(latencies.len()).unwrap());
    let all = float(u64::try_from(streams).unwrap());
    let due = all * ms(time) / float(interval_ms);
    Slow {
        p50: quantile(&latencies, 0.5),
        p99: quantile(&latencies, 0.99),
        rss: (rss_after - rss) / all,
        cpu: (cpu_after - cpu_before) / count * 1e6,
        threads,
        arrived: count / due,
    }
}
