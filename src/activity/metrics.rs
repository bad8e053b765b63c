//! The numbers for Prometheus: histograms and counters by the names of the configuration.
//!
//! A request counts once, at its end. Its numbers are atomics; a short lock finds them by its upstream and its alias.
//! Labels are names from the configuration: a model that no alias names counts as `other`. So the number of series is
//! bounded by the owner, not by clients.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::record::{CLIENT_GONE, Record};
use crate::prefix::Cause;

/// The label of everything that the configuration does not name.
pub const OTHER: &str = "other";

/// The bounds of the buckets for times of requests, in seconds: from a cached prompt to a long answer.
const REQUEST_S: [f64; 14] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0];

/// The bounds for the time between two tokens: 400 to 1 tokens a second.
const TOKEN_S: [f64; 9] = [0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 1.0];

/// The bounds for the time that sparkgap adds.
const OVERHEAD_S: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5];

/// The most names of upstreams, and the most of aliases, that have series of their own since the start: reloads may bring new
/// ones.
const NAMES_MAX: usize = 256;

/// The most series of requests: aliases and upstreams together.
const REQUEST_SERIES_MAX: usize = 4096;

/// The most clients that have series of their own.
const CLIENTS_MAX: usize = 1000;

/// A histogram with fixed buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// The number of observations in each bucket, and last of those above all bounds.
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum_us: AtomicU64::new(0) }
    }

    fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// The bounds, each with the number of observations up to it, and the number of all.
    pub fn buckets(&self) -> (Vec<(f64, u64)>, u64) {
        let mut all = 0;
        let mut counts = self.counts.iter().map(|count| {
            all += count.load(Ordering::Relaxed);
            all
        });
        let buckets = self.bounds.iter().copied().zip(&mut counts).collect();
        let last = counts.next().unwrap_or(0);
        (buckets, last)
    }

    /// The sum of all observations, in seconds.
    #[allow(clippy::cast_precision_loss, reason = "microseconds up to 285 years are exact")]
    pub fn sum(&self) -> f64 {
        self.sum_us.load(Ordering::Relaxed) as f64 / 1e6
    }
}

/// The numbers of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    /// From the head of a request to its end.
    pub duration: Histogram,
    /// From the head of a request to the first content of its answer.
    pub first_token: Histogram,
    /// Between two tokens of an answer, on average; one observation for each answer.
    pub inter_token: Histogram,
    /// The tokens of prompts that came from the cache.
    pub cached_tokens: AtomicU64,
    /// The tokens of prompts that were read.
    pub new_tokens: AtomicU64,
    /// The tokens of answers.
    pub output_tokens: AtomicU64,
}

impl UpstreamMetrics {
    fn new() -> Self {
        UpstreamMetrics {
            duration: Histogram::new(&REQUEST_S),
            first_token: Histogram::new(&REQUEST_S),
            inter_token: Histogram::new(&TOKEN_S),
            cached_tokens: AtomicU64::new(0),
            new_tokens: AtomicU64::new(0),
            output_tokens: AtomicU64::new(0),
        }
    }
}

/// How a request ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestOutcome {
    /// The client got its answer.
    Ok,
    /// It was refused before an upstream was chosen.
    Refused,
    /// The client got an error.
    Error,
    /// The client left first.
    Cancelled,
}

impl RequestOutcome {
    fn of(record: &Record) -> RequestOutcome {
        if record.status == CLIENT_GONE {
            RequestOutcome::Cancelled
        } else if record.is_refused() {
            RequestOutcome::Refused
        } else if record.is_failed() {
            RequestOutcome::Error
        } else {
            RequestOutcome::Ok
        }
    }

    /// Its name as a label.
    pub fn name(self) -> &'static str {
        match self {
            RequestOutcome::Ok => "ok",
            RequestOutcome::Refused => "refused",
            RequestOutcome::Error => "error",
            RequestOutcome::Cancelled => "cancelled",
        }
    }
}

/// The labels of `requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestLabels {
    /// The pattern of the alias, or [`OTHER`].
    pub alias: Arc<str>,
    /// The name of the upstream; empty if none was chosen.
    pub upstream: Arc<str>,
    /// The number of the lane.
    pub lane: u8,
    /// How it ended.
    pub outcome: RequestOutcome,
}

/// The numbers of one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientTotals {
    /// Its requests.
    pub requests: u64,
    /// The tokens of its prompts that came from a cache.
    pub cached: u64,
    /// The tokens of its prompts that were read.
    pub new: u64,
    /// The tokens of its answers.
    pub output: u64,
}

/// The numbers by their labels. A name that was used before is shared, not copied.
#[derive(Debug, Default)]
struct Tables {
    aliases: HashSet<Arc<str>>,
    upstreams: BTreeMap<Arc<str>, Arc<UpstreamMetrics>>,
    requests: BTreeMap<RequestLabels, u64>,
    clients: Option<BTreeMap<Arc<str>, ClientTotals>>,
}

/// The numbers for Prometheus since the start.
#[derive(Debug)]
pub struct Metrics {
    tables: Mutex<Tables>,
    /// The wait for a place, for requests that needed one.
    pub queue: Histogram,
    /// The time that sparkgap itself took before the upstream had the request.
    pub overhead: Histogram,
    /// The misses and the tokens read again, by cause.
    misses: [(AtomicU64, AtomicU64); Cause::ALL.len()],
    /// Values in the arguments of tool calls that were coerced.
    pub coercions: AtomicU64,
    /// Places in the arguments of tool calls that were repaired.
    pub repairs: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            tables: Mutex::default(),
            queue: Histogram::new(&REQUEST_S),
            overhead: Histogram::new(&OVERHEAD_S),
            misses: std::array::from_fn(|_| Default::default()),
            coercions: AtomicU64::new(0),
            repairs: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// Counts by client as well, from now on.
    pub fn count_clients(&self) {
        self.tables().clients.get_or_insert_default();
    }

    /// Counts a request that has ended. `alias`: the pattern of its alias, if one names its model.
    pub(super) fn add(&self, record: &Record, alias: Option<&str>) {
        let add = |number: &AtomicU64, count: u64| _ = number.fetch_add(count, Ordering::Relaxed);
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        add(&self.coercions, count(record.coercions));
        add(&self.repairs, count(record.repairs));
        if record.place.is_some() {
            self.queue.observe(record.queue_time());
        }
        if let Some(overhead) = record.times.overhead(record.queue_time()) {
            self.overhead.observe(overhead);
        }
        if let Some(cause) = record.prefix.as_ref().and_then(|verdict| verdict.cause)
            && let Some((misses, tokens)) = self.misses.get(cause as usize)
        {
            add(misses, 1);
            add(tokens, record.prefix.as_ref().and_then(|verdict| verdict.lost).unwrap_or(0));
        }
        let (cached, new) = (record.usage.cache_read, record.usage.input + record.usage.cache_creation);
        let output = record.usage.output;
        let Some(upstream) =
            self.tables().add(record, alias, ClientTotals { requests: 1, cached, new, output })
        else {
            return;
        };
        add(&upstream.cached_tokens, cached);
        add(&upstream.new_tokens, new);
        add(&upstream.output_tokens, output);
        if let Some(end) = record.times.end {
            upstream.duration.observe(end);
        }
        if let Some(first) = record.times.first_byte {
            upstream.first_token.observe(first);
        }
        if let Some(speed) = record.times.tokens_per_second(output).filter(|speed| *speed > 0.0) {
            upstream.inter_token.observe(Duration::try_from_secs_f64(1.0 / speed).unwrap_or_default());
        }
    }

    /// The numbers of each upstream, by name.
    pub fn upstreams(&self) -> Vec<(Arc<str>, Arc<UpstreamMetrics>)> {
        let tables = self.tables();
        tables.upstreams.iter().map(|(name, it)| (Arc::clone(name), Arc::clone(it))).collect()
    }

    /// The number of requests for each set of labels.
    pub fn requests(&self) -> Vec<(RequestLabels, u64)> {
        self.tables().requests.iter().map(|(labels, count)| (labels.clone(), *count)).collect()
    }

    /// The totals of each client; `None` if they are not counted.
    pub fn clients(&self) -> Option<Vec<(Arc<str>, ClientTotals)>> {
        let tables = self.tables();
        Some(tables.clients.as_ref()?.iter().map(|(name, totals)| (Arc::clone(name), *totals)).collect())
    }

    /// Each cause with its misses, and the tokens that were read again.
    pub fn misses(&self) -> impl Iterator<Item = (Cause, u64, u64)> {
        Cause::ALL.into_iter().zip(&self.misses).map(|(cause, (misses, tokens))| {
            (cause, misses.load(Ordering::Relaxed), tokens.load(Ordering::Relaxed))
        })
    }

    /// Locks the tables. A thread that panicked has at worst left a request out.
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// Counts a request, and returns the numbers of its upstream, if it had one.
    fn add(
        &mut self,
        record: &Record,
        alias: Option<&str>,
        totals: ClientTotals,
    ) -> Option<Arc<UpstreamMetrics>> {
        let (lane, outcome) = (record.details.lane.number(), RequestOutcome::of(record));
        let name = record.details.upstream.as_str();
        let (upstream, metrics) = (!name.is_empty()).then(|| self.upstream(name)).unzip();
        let labels =
            RequestLabels { alias: self.alias(alias), upstream: upstream.unwrap_or_default(), lane, outcome };
        let is_known = self.requests.len() < REQUEST_SERIES_MAX || self.requests.contains_key(&labels);
        let labels = if is_known {
            labels
        } else {
            RequestLabels { alias: OTHER.into(), upstream: OTHER.into(), ..labels }
        };
        *self.requests.entry(labels).or_default() += 1;
        if let Some(clients) = &mut self.clients {
            let name = record.details.caller.name();
            let is_known = clients.len() < CLIENTS_MAX || clients.contains_key(&name);
            let client = clients.entry(if is_known { name } else { OTHER.into() }).or_default();
            client.requests += totals.requests;
            client.cached += totals.cached;
            client.new += totals.new;
            client.output += totals.output;
        }
        metrics
    }

    /// The label of an upstream, kept once, and its numbers.
    fn upstream(&mut self, name: &str) -> (Arc<str>, Arc<UpstreamMetrics>) {
        if let Some((name, metrics)) = self.upstreams.get_key_value(name) {
            return (Arc::clone(name), Arc::clone(metrics));
        }
        let name: Arc<str> = if self.upstreams.len() < NAMES_MAX { name } else { OTHER }.into();
        let new = || Arc::new(UpstreamMetrics::new());
        let metrics = Arc::clone(self.upstreams.entry(Arc::clone(&name)).or_insert_with(new));
        (name, metrics)
    }

    /// The label of an alias, kept once.
    fn alias(&mut self, alias: Option<&str>) -> Arc<str> {
        let is_new = alias.is_some_and(|alias| !self.aliases.contains(alias));
        let alias = if is_new && self.aliases.len() >= NAMES_MAX { OTHER } else { alias.unwrap_or(OTHER) };
        if let Some(known) = self.aliases.get(alias) {
            return Arc::clone(known);
        }
        let label: Arc<str> = alias.into();
        self.aliases.insert(Arc::clone(&label));
        label
    }
}
