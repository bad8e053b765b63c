//! `GET /metrics`: the numbers of the server in the text format of Prometheus.
//!
//! All series are named and explained in docs/metrics.md. Labels are names from the configuration, so their number is the
//! owner's; clients have labels only with `--metrics-by-client`.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::activity::{Activity, ClientTotals, Histogram, Phase, UpstreamMetrics};
use crate::fleet::Gateway;
use crate::hooks::Hook;
use crate::logger;

/// The content type of the answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The states of an upstream, in the order in which they are written.
const STATES: [&str; 3] = ["well", "full", "out"];

/// The counters of the choice of upstreams: kind, name of the series, label, and help.
const TALLIES: [(&str, &str, &str, &str); 3] = [
    ("choice", "pool_decisions_total", "why", "Choices of an upstream for a request, by reason."),
    ("state", "upstream_changes_total", "state", "Changes of upstreams to this state."),
    ("refused", "turned_away_total", "why", "Requests that got no upstream."),
];

/// The answer. `connections`: the open connections of clients.
pub fn metrics(gateway: &Gateway, activity: &Activity, connections: usize) -> Vec<u8> {
    let mut page = MetricsPage(String::with_capacity(16 * 1024));
    page.requests(activity);
    page.tokens(activity);
    page.prefixes(activity);
    page.now(gateway, activity, connections);
    page.totals(gateway, activity);
    page.clients(activity);
    page.process();
    page.0.into_bytes()
}

/// The text so far.
struct MetricsPage(String);

impl MetricsPage {
    /// Begins a family of series.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP sparkgap_{name} {help}\n# TYPE sparkgap_{name} {kind}");
    }

    /// Writes one series.
    fn series(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.0, "sparkgap_{name}");
        for (i, (key, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{key}=\"{}\"", if i == 0 { '{' } else { ',' }, LabelValue(text));
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// Writes a family of one series without labels.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.series(name, &[], value);
    }

    /// Writes the series of a histogram. At most one label comes before the bound.
    fn histogram(&mut self, name: &str, label: Option<(&str, &str)>, histogram: &Histogram) {
        let (buckets, count) = histogram.buckets();
        let labels: Vec<(&str, &str)> = label.into_iter().collect();
        let bucket = format!("{name}_bucket");
        for (bound, count) in buckets {
            let bound = bound.to_string();
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.series(&bucket, &labels, count);
        }
        let labels_of_all: Vec<_> = labels.iter().copied().chain([("le", "+Inf")]).collect();
        self.series(&bucket, &labels_of_all, count);
        self.series(&format!("{name}_sum"), &labels, histogram.sum());
        self.series(&format!("{name}_count"), &labels, count);
    }

    fn requests(&mut self, activity: &Activity) {
        let metrics = activity.metrics();
        self.family(
            "requests_total",
            "counter",
            "Requests for messages that have ended, by alias, upstream, lane and outcome.",
        );
        for (labels, count) in metrics.requests() {
            let lane = labels.lane.to_string();
            let outcome = labels.outcome.name();
            let labels = [
                ("alias", &*labels.alias),
                ("upstream", &*labels.upstream),
                ("lane", &lane),
                ("outcome", outcome),
            ];
            self.series("requests_total", &labels, count);
        }
        let upstreams = metrics.upstreams();
        for (name, help, pick) in [
            (
                "request_duration_seconds",
                "Time from the head of a request to the end of its answer.",
                (|it| &it.duration) as fn(&UpstreamMetrics) -> &Histogram,
            ),
            (
                "time_to_first_token_seconds",
                "Time from the head of a request to the first content of its answer, reasoning included.",
                |it| &it.first_token,
            ),
            (
                "inter_token_seconds",
                "Mean time between two tokens of an answer; one observation for each answer.",
                |it| &it.inter_token,
            ),
        ] {
            self.family(name, "histogram", help);
            for (upstream, numbers) in &upstreams {
                self.histogram(name, Some(("upstream", upstream)), pick(numbers));
            }
        }
        self.family("queue_seconds", "histogram", "Time in the line for a place at an upstream.");
        self.histogram("queue_seconds", None, &metrics.queue);
        let help = "Time that sparkgap itself took from the end of a request's body until the upstream had the request.";
        self.family("overhead_seconds", "histogram", help);
        self.histogram("overhead_seconds", None, &metrics.overhead);
    }

    fn tokens(&mut self, activity: &Activity) {
        let upstreams = activity.metrics().upstreams();
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let help = "Tokens of prompts: those that the upstream's cache had, and those that it read anew.";
        self.family("prompt_tokens_total", "counter", help);
        for (name, numbers) in &upstreams {
            for (kind, number) in [("cached", &numbers.cached_tokens), ("new", &numbers.new_tokens)] {
                self.series("prompt_tokens_total", &[("upstream", name), ("kind", kind)], load(number));
            }
        }
        self.family("output_tokens_total", "counter", "Tokens of answers, reasoning included.");
        for (name, numbers) in &upstreams {
            self.series("output_tokens_total", &[("upstream", name)], load(&numbers.output_tokens));
        }
    }

    fn prefixes(&mut self, activity: &Activity) {
        let help = "Turns of which the upstream had lost the prefix, by cause; not_reported: turns that could not be judged.";
        self.family("prefix_misses_total", "counter", help);
        for (cause, misses, _) in activity.metrics().misses() {
            self.series("prefix_misses_total", &[("cause", cause.name())], misses);
        }
        let help = "Tokens of lost prefixes, which the upstream had to read again, by cause.";
        self.family("reprefilled_tokens_total", "counter", help);
        for (cause, _, tokens) in activity.metrics().misses() {
            self.series("reprefilled_tokens_total", &[("cause", cause.name())], tokens);
        }
    }

    fn now(&mut self, gateway: &Gateway, activity: &Activity, connections: usize) {
        let requests = activity.in_flight().requests();
        self.single(
            "in_flight",
            "gauge",
            "Requests of any kind in progress, this one included.",
            requests.len(),
        );
        self.family("queued", "gauge", "Requests that wait for a place at an upstream, by lane.");
        let mut queued = [0u32; 3];
        for request in requests.iter().filter(|request| request.phase() == Phase::Queue) {
            if let Some(count) = queued.get_mut(usize::from(request.details().lane.number())) {
                *count += 1;
            }
        }
        for (lane, count) in queued.into_iter().enumerate() {
            self.series("queued", &[("lane", &lane.to_string())], count);
        }
        let help = "The state of each upstream: 1 for the one that it is in, 0 for the others.";
        self.family("upstream_state", "gauge", help);
        for served in gateway.upstreams() {
            let now = super::health::state(gateway, served);
            for state in STATES {
                let labels = [("upstream", served.name()), ("state", state)];
                self.series("upstream_state", &labels, u8::from(state == now));
            }
        }
        self.single("connections", "gauge", "Open connections of clients, this one included.", connections);
    }

    fn totals(&mut self, gateway: &Gateway, activity: &Activity) {
        let metrics = activity.metrics();
        for (kind, name, label, help) in TALLIES {
            self.family(name, "counter", help);
            for (_, value, count) in gateway.dispatcher().tally().iter().filter(|(its, ..)| *its == kind) {
                self.series(name, &[(label, value)], count);
            }
        }
        self.family(
            "cancelled_total",
            "counter",
            "Requests whose client left, by the phase that they were in.",
        );
        for (phase, count) in activity.counters().cancelled_counts() {
            self.series("cancelled_total", &[("phase", phase.name())], count);
        }
        self.single("pings_total", "counter", "Pings that waiting clients got.", activity.counters().pings());
        self.family("hook_failures_total", "counter", "Failures of hooks since they were loaded, by hook.");
        for hook in Hook::ALL {
            self.series("hook_failures_total", &[("hook", hook.name())], gateway.hooks().failures(hook));
        }
        let (coerced, repaired) = (&metrics.coercions, &metrics.repairs);
        let (rescued, broken_loops) = activity.counters().behavior();
        let help = "Corrections of tool calls: arguments given the type of their schema, repaired JSON, calls found in text.";
        self.family("tool_repairs_total", "counter", help);
        for (kind, count) in [
            ("coerced", coerced.load(Ordering::Relaxed)),
            ("repaired", repaired.load(Ordering::Relaxed)),
            ("rescued", rescued),
        ] {
            self.series("tool_repairs_total", &[("kind", kind)], count);
        }
        let help = "Turns in which calls were forbidden, and texts that were ended, because of a loop.";
        self.single("broken_loops_total", "counter", help, broken_loops);
        let help = "Web searches that were made, failed ones included.";
        self.single("searches_total", "counter", help, activity.counters().searches());
        let help = "Log lines that were dropped, since stderr took none for too long.";
        self.single("log_lines_lost_total", "counter", help, logger::lost_lines());
        self.family("build_info", "gauge", "Always 1; the version is its label.");
        self.series("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    }

    fn clients(&mut self, activity: &Activity) {
        let Some(clients) = activity.metrics().clients() else { return };
        self.family(
            "client_requests_total",
            "counter",
            "Requests of each client, by the owner of its key or its address.",
        );
        for (client, totals) in &clients {
            self.series("client_requests_total", &[("client", client)], totals.requests);
        }
        self.family("client_tokens_total", "counter", "Tokens of each client's prompts and answers.");
        for (client, totals) in &clients {
            for (kind, count) in kinds(totals) {
                self.series("client_tokens_total", &[("client", client), ("kind", kind)], count);
            }
        }
    }

    /// Writes the numbers of the process, under the names that Prometheus uses everywhere. Only Linux has them.
    fn process(&mut self) {
        let Some(process) = ProcessNumbers::read() else { return };
        let ProcessNumbers { cpu_seconds, resident_bytes, open_fds, threads } = process;
        for (name, kind, help, value) in [
            ("cpu_seconds_total", "counter", "Processor time in user and system mode.", cpu_seconds),
            ("resident_memory_bytes", "gauge", "Memory that the process has now.", resident_bytes),
            ("open_fds", "gauge", "Open file descriptors.", open_fds),
            ("threads", "gauge", "Threads.", threads),
        ] {
            let _ = writeln!(
                self.0,
                "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}"
            );
        }
    }
}

fn kinds(totals: &ClientTotals) -> [(&'static str, u64); 3] {
    [("cached", totals.cached), ("new", totals.new), ("output", totals.output)]
}

/// A label's value with the escapes of the format.
struct LabelValue<'t>(&'t str);

impl Display for LabelValue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The numbers of this process.
struct ProcessNumbers {
    cpu_seconds: f64,
    resident_bytes: f64,
    open_fds: f64,
    threads: f64,
}

impl ProcessNumbers {
    #[cfg(target_os = "linux")]
    #[allow(clippy::cast_precision_loss, reason = "all of them are far below 2^52")]
    fn read() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse::<f64>().ok()
        };
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Some(ProcessNumbers {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes: field("VmRSS")? * 1024.0,
            open_fds: std::fs::read_dir("/proc/self/fd").ok()?.count() as f64,
            threads: field("Threads")?,
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn read() -> Option<Self> {
        None
    }
}
