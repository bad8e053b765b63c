//! The growth of cost with size: five series, each a chart in `benches/`.

use std::path::Path;
use std::time::Duration;

use super::measure::{first_tokens, listen, times_of};
use super::plot::{Chart, Line};
use super::table::{median, short};
use super::target::{Kind, Target};
use super::upstream::{Script, Upstream};
use crate::workloads::{self, Request};

/// Measures and draws everything, and prints the figures meanwhile.
pub(crate) fn all(upstream: &Upstream, kinds: &[Kind], time: Duration, most_streams: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    sizes(upstream, kinds, time).save(&folder.join("growth-request.svg"));
    histories(upstream, kinds, time).save(&folder.join("growth-history.svg"));
    fragments().save(&folder.join("growth-arguments.svg"));
    stops().save(&folder.join("growth-stops.svg"));
    streams(upstream, kinds, time, most_streams).save(&folder.join("growth-streams.svg"));
}

fn say(chart: &Chart<'_>) {
    println!("\n{} ({} by {})\n", chart.title, chart.y, chart.x);
    for line in &chart.lines {
        let points: Vec<String> =
            line.points.iter().map(|(x, y)| format!("{}: {}", short(*x), short(*y))).collect();
        println!("- {}: {}", line.name, points.join(", "));
    }
}

fn float(n: usize) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "sizes of a benchmark are far below 2^53")]
    {
        n as f64
    }
}

/// A line for each kind. The kinds take turns at each point.
fn by_kind(kinds: &[Kind], xs: &[usize], mut measure: impl FnMut(Kind, usize) -> f64) -> Vec<Line> {
    let name = |kind: &Kind| kind.name().trim_matches('*').to_string();
    let mut lines: Vec<Line> =
        kinds.iter().map(|kind| Line { name: name(kind), points: Vec::new() }).collect();
    for &x in xs {
        for (line, &kind) in lines.iter_mut().zip(kinds) {
            line.points.push((float(x), measure(kind, x)));
        }
    }
    lines
}

fn relays(kinds: &[Kind]) -> Vec<Kind> {
    kinds
        .iter()
        .copied()
        .filter(|kind| matches!(kind, Kind::Direct | Kind::Haproxy | Kind::Sparkgap))
        .collect()
}

fn sizes(upstream: &Upstream, kinds: &[Kind], time: Duration) -> Chart<'static> {
    let lines = by_kind(kinds, &[3, 10, 30, 100, 300, 1000, 2000], |kind, kb| {
        let (target, _) = Target::start(kind, upstream.address);
        median(&first_tokens(kind, target.address, kb * 1000, time / 4))
    });
    let chart =
        Chart { title: "Time to the first token, by the request's size", x: "KB", y: "ms (p50)", lines };
    say(&chart);
    chart
}

fn histories(upstream: &Upstream, kinds: &[Kind], time: Duration) -> Chart<'static> {
    let lines = by_kind(kinds, &[2, 10, 30, 100, 300, 1000], |kind, messages| {
        let request = Request { size: 30_000, stream: true, max_tokens: Script::Short.max_tokens() };
        let (target, _) = Target::start(kind, upstream.address);
        let request = kind.with_body(&request.body_with_history(messages), true);
        median(&times_of(target.address, &request, time / 4))
    });
    let chart = Chart {
        title: "Time to the first token, by messages in the history",
        x: "messages",
        y: "ms (p50)",
        lines,
    };
    say(&chart);
    chart
}

fn streams(upstream: &Upstream, kinds: &[Kind], time: Duration, most: usize) -> Chart<'static> {
    let counts: Vec<usize> =
        [1, 10, 50, 100, 500, 1000, 2000, 5000].into_iter().filter(|n| *n <= most).collect();
    let kinds = relays(kinds);
    let mut tails: Vec<(Kind, f64, f64)> = Vec::new();
    let mut lines = by_kind(&kinds, &counts, |kind, streams| {
        let slow = listen(kind, upstream, streams, 500, time.max(Duration::from_secs(2)));
        tails.push((kind, float(streams), slow.p99));
        slow.p50
    });
    for kind in [Kind::Haproxy, Kind::Sparkgap] {
        let points = tails.iter().filter(|tail| tail.0 == kind).map(|tail| (tail.1, tail.2)).collect();
        lines.push(Line { name: format!("{} p99", kind.name().trim_matches('*')), points });
    }
    let title = "Latency of an event, by streams (an event each 500 ms)";
    let chart = Chart { title, x: "streams", y: "ms (p50)", lines };
    say(&chart);
    chart
}

/// The time of this thread on a processor so far, in ms, without the time that it waited for one.
fn on_processor() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
}

/// The shortest of some runs, in ms, since other work of the machine can only add to it.
fn best(mut run: impl FnMut()) -> f64 {
    let once = |run: &mut dyn FnMut()| {
        // The kernel updates the thread's time when the thread yields.
        std::thread::yield_now();
        let began = on_processor();
        run();
        std::thread::yield_now();
        on_processor() - began
    };
    (0..9).map(|_| once(&mut run)).fold(f64::INFINITY, f64::min)
}

fn fragments() -> Chart<'static> {
    let mut points = Vec::new();
    for kb in [4, 16, 64, 256, 1024] {
        let answer = workloads::fragments(kb * 1024 / 4);
        let mut out = Vec::new();
        let took = best(|| _ = workloads::relay(&answer, workloads::plan(0), &mut out));
        points.push((float(kb), took));
    }
    let lines = vec![Line { name: "sparkgap".into(), points }];
    let title = "Arguments of a tool call in fragments of 4 bytes (translation alone)";
    let chart = Chart { title, x: "KB of arguments", y: "ms", lines };
    say(&chart);
    chart
}

fn stops() -> Chart<'static> {
    const DELTAS: usize = 10_000;
    let answer = workloads::answer(workloads::Kind::Text, DELTAS);
    let mut points = Vec::new();
    for count in [0, 1, 2, 4, 8, 16, 32, 64] {
        let mut out = Vec::new();
        let took = best(|| _ = workloads::relay(&answer, workloads::plan(count), &mut out));
        // The point for zero is drawn at one half, since a logarithmic axis has no zero.
        let x = if count == 0 { 0.5 } else { float(count) };
        points.push((x, took * 1e6 / float(DELTAS)));
    }
    let lines = vec![Line { name: "sparkgap".into(), points }];
    let title = "An event of text, by stop sequences (translation alone; none is drawn at 0.5)";
    let chart = Chart { title, x: "stop sequences", y: "ns per event", lines };
    say(&chart);
    chart
}
