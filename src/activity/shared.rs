//! The registry and the counters as one value, which all threads share.

use std::sync::Arc;

use super::counters::Counters;
use super::history::{FinishedRequest, RequestHistory};
use super::in_flight::{InFlight, InFlightSlot};
use super::metrics::Metrics;
use super::phase::Phase;
use super::prefixes::Prefixes;
use super::record::{Caller, Record};
use super::refusals::RefusalLog;
use crate::json::{Object, Value};
use crate::logger;

/// The requests in progress, and the numbers since the start of this process.
#[derive(Debug, Default)]
pub struct Activity {
    counters: Counters,
    in_flight: InFlight,
    history: RequestHistory,
    metrics: Metrics,
    prefixes: Prefixes,
    refusals: RefusalLog,
}

impl Activity {
    /// Registers a request that has just come, until the slot is dropped.
    pub fn begin(&self, request_id: String, caller: Caller) -> InFlightSlot<'_> {
        self.in_flight.begin(request_id, caller)
    }

    /// Counts a request. Not for the questions of probes whether the server runs.
    pub fn add_request(&self) {
        self.counters.add_request();
    }

    /// Counts a client that has left, and the phase that its request was in.
    pub fn add_cancelled(&self, phase: Phase) {
        self.counters.add_cancelled(phase);
    }

    /// Ends the record of a request: counts it, logs its line, and keeps it in the history. `alias`: the pattern of the alias
    /// that names its model, if one does.
    pub fn finish(&self, mut record: Record, alias: Option<&str>) -> Arc<FinishedRequest> {
        record.end();
        self.metrics.add(&record, alias);
        self.counters.add_behavior(&record.behavior);
        self.log(&record);
        if let Some(line) = record.lost_prefix() {
            log::info!("{line}");
        }
        self.history.push(record)
    }

    /// Writes the line of a request that has ended. One that was refused before an upstream was chosen may be one of a
    /// flood, so its line is among the refusals.
    pub fn log(&self, record: &Record) {
        if record.is_refused() {
            self.refusals.log(record, format_args!("{record}"));
        } else {
            let level = if record.is_failed() { log::Level::Warn } else { log::Level::Info };
            logger::log_request(level, format_args!("{record}"), || record.to_value());
        }
    }

    /// The log lines of refused requests.
    pub fn refusals(&self) -> &RefusalLog {
        &self.refusals
    }

    /// The requests in progress.
    pub fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// The numbers for Prometheus.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The last turns of the conversations.
    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// The numbers since the start that `/health` shows, too.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The records of the last requests.
    pub fn history(&self) -> &RequestHistory {
        &self.history
    }

    /// Adds the numbers for `/health` to an object.
    pub fn add_to(&self, object: &mut Object<'_>) {
        object.push("requests", Value::from(self.counters.requests()));
        object.push("streams", Value::from(self.in_flight.streams() as u64));
        object.push("cancelled", self.counters.cancelled());
        let (rescued, broken_loops) = self.counters.behavior();
        object.push("rescued_calls", Value::from(rescued));
        object.push("broken_loops", Value::from(broken_loops));
        object.push("failovers", Value::from(self.counters.failovers()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_health() {
        let activity = Activity::default();
        let slot = activity.begin("req_1".to_owned(), Caller::new([127, 0, 0, 1].into()));
        let stream = slot.request().begin_stream();
        activity.add_request();
        activity.add_cancelled(Phase::Queue);
        let text = || {
            let mut object = Object::new();
            activity.add_to(&mut object);
            Value::from(object).to_json()
        };
        let cancelled = r#""cancelled":{"body":0,"hook":0,"queue":1,"connect":0,"head":0,"stream":0,"whole":0,"unread":0},"rescued_calls":0,"broken_loops":0,"failovers":0}"#;
        assert_eq!(text(), format!(r#"{{"requests":1,"streams":1,{cancelled}"#));
        drop(stream);
        drop(slot);
        assert_eq!(text(), format!(r#"{{"requests":1,"streams":0,{cancelled}"#));
    }
}
