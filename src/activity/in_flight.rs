//! The registry of requests in progress: one slot for each, from its head to its end.
//!
//! A request's own thread writes to its slot; any thread may read. A request pays three short locks and a few
//! allocations for it, and an event of a stream pays nothing. A client's connection has one request at a time, so the
//! limit on connections is the limit of the registry.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::phase::Phase;
use super::record::{Caller, Record, RequestDetails};
use super::request_keys::RequestKeys;
use super::times::{Moment, Moments, PhaseTimes, since};
use crate::json::Value;

/// The requests in progress.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    /// The key of the next request. Keys grow, so the oldest request comes first.
    next: u64,
    requests: BTreeMap<u64, Arc<ActiveRequest>>,
}

impl InFlight {
    /// Registers a request that has just come, until the slot is dropped.
    pub fn begin(&self, request_id: String, caller: Caller) -> InFlightSlot<'_> {
        let request = Arc::new(ActiveRequest::new(request_id, caller));
        let mut slots = self.slots();
        let key = slots.next;
        slots.next += 1;
        slots.requests.insert(key, Arc::clone(&request));
        InFlightSlot { registry: self, key, request }
    }

    /// The requests in progress, the oldest first.
    pub fn requests(&self) -> Vec<Arc<ActiveRequest>> {
        self.slots().requests.values().cloned().collect()
    }

    /// The number of requests in progress.
    pub fn count(&self) -> usize {
        self.slots().requests.len()
    }

    /// The number of answers that are being streamed.
    pub fn streams(&self) -> usize {
        self.slots().requests.values().filter(|request| request.is_streaming()).count()
    }

    /// Locks the map. Each change is one call of the map, so a thread that panicked has left the map in order.
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of one request. Dropping it ends the request for all readers, after a panic as well.
#[derive(Debug)]
pub struct InFlightSlot<'r> {
    registry: &'r InFlight,
    key: u64,
    request: Arc<ActiveRequest>,
}

impl InFlightSlot<'_> {
    /// The request in the slot.
    pub fn request(&self) -> &Arc<ActiveRequest> {
        &self.request
    }
}

impl Drop for InFlightSlot<'_> {
    fn drop(&mut self) {
        self.registry.slots().requests.remove(&self.key);
    }
}

/// A request in progress: the facts that other threads may read.
#[derive(Debug)]
pub struct ActiveRequest {
    request_id: String,
    began: Instant,
    /// An index into [`Phase::ALL`].
    phase: AtomicU8,
    is_streaming: AtomicBool,
    moments: Moments,
    details: Mutex<RequestDetails>,
    keys: OnceLock<RequestKeys>,
}

/// Marks an answer as being streamed until it is dropped.
#[derive(Debug)]
pub struct Streaming<'r>(&'r AtomicBool);

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl ActiveRequest {
    fn new(request_id: String, caller: Caller) -> Self {
        ActiveRequest {
            request_id,
            began: Instant::now(),
            phase: AtomicU8::new(Phase::Body as u8),
            is_streaming: AtomicBool::new(false),
            moments: Moments::default(),
            details: Mutex::new(RequestDetails::new(caller)),
            keys: OnceLock::new(),
        }
    }

    /// The id of the request, `req_…`, which the client gets as a header.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The moment at which the head of the request was here.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The phase that the request is in.
    pub fn phase(&self) -> Phase {
        Phase::ALL.get(usize::from(self.phase.load(Ordering::Relaxed))).copied().unwrap_or(Phase::Body)
    }

    /// Sets the phase that the request is in from now on.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Notes when a moment of the request was; a later note replaces an earlier one.
    pub fn mark(&self, moment: Moment, at: Instant) {
        self.moments.mark(moment, since(self.began, at));
    }

    /// Adds time in which a connection was made, or an upstream's models were awaited.
    pub fn add_connect(&self, time: Duration) {
        self.moments.add_connect(time);
    }

    /// The times of the phases so far.
    pub fn times(&self) -> PhaseTimes {
        self.moments.times()
    }

    /// Marks the answer as being streamed until the returned value is dropped.
    pub fn begin_stream(&self) -> Streaming<'_> {
        self.is_streaming.store(true, Ordering::Relaxed);
        Streaming(&self.is_streaming)
    }

    /// True while the answer is being streamed.
    pub fn is_streaming(&self) -> bool {
        self.is_streaming.load(Ordering::Relaxed)
    }

    /// Notes the keys that the request brings, which no reader may see.
    pub fn note_keys(&self, keys: RequestKeys) {
        let _ = self.keys.set(keys);
    }

    /// A text about the request without keys ([`RequestKeys::cleaned`]), for lines of the log.
    pub fn cleaned(&self, text: impl fmt::Display) -> String {
        self.keys.get_or_init(RequestKeys::default).cleaned(text)
    }

    /// Replaces the keys in a record of the request before anybody reads it.
    pub fn hide_keys(&self, record: &mut Record) {
        self.keys.get_or_init(RequestKeys::default).hide_in(record);
    }

    /// Shows these details to readers from now on, without the request's own keys.
    pub fn describe(&self, details: &RequestDetails) {
        let mut details = details.clone();
        if let Some(keys) = self.keys.get() {
            keys.hide_in_details(&mut details);
        }
        *self.lock() = details;
    }

    /// A copy of the facts that are known by now.
    pub fn details(&self) -> RequestDetails {
        self.lock().clone()
    }

    /// The request with the keys of one that has ended ([`Record::to_value`]), its phase, and the estimate of its prompt. Facts
    /// that are not known yet are null or 0.
    pub fn to_value(&self) -> Value<'static> {
        let details = self.details();
        let mut record = Record::new(self.request_id(), &details.caller);
        record.began = self.began;
        record.began_at = record.began_at.checked_sub(self.began.elapsed()).unwrap_or(record.began_at);
        record.times = self.times();
        let prompt_estimate = details.prompt_estimate;
        record.details = details;
        let mut value = record.to_value();
        if let Some(object) = value.as_object_mut() {
            object.push("phase", self.phase().name());
            object.push("prompt_estimate", prompt_estimate);
        }
        value
    }

    fn lock(&self) -> MutexGuard<'_, RequestDetails> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn caller() -> Caller {
        Caller::new([192, 168, 1, 7].into())
    }

    #[test]
    fn a_request_is_listed_until_its_slot_is_dropped() {
        let registry = InFlight::default();
        let first = registry.begin("req_1".to_owned(), caller());
        let second = registry.begin("req_2".to_owned(), caller());
        let ids = || -> Vec<String> {
            registry.requests().iter().map(|request| request.request_id().to_owned()).collect()
        };
        assert_eq!(ids(), ["req_1", "req_2"], "the oldest first");
        drop(first);
        let third = registry.begin("req_3".to_owned(), caller());
        assert_eq!(ids(), ["req_2", "req_3"]);
        drop((second, third));
        assert_eq!(registry.count(), 0);
    }

    #[test]
    fn a_panic_releases_the_slot_and_ends_its_stream() {
        let registry = InFlight::default();
        let other = registry.begin("req_1".to_owned(), caller());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let slot = registry.begin("req_2".to_owned(), caller());
            let _stream = slot.request().begin_stream();
            assert_eq!((registry.count(), registry.streams()), (2, 1));
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!((registry.count(), registry.streams()), (1, 0));
        assert_eq!(registry.requests()[0].request_id(), other.request().request_id());
    }

    #[test]
    fn readers_see_phase_and_details() {
        let registry = InFlight::default();
        let slot = registry.begin("req_1".to_owned(), caller());
        for phase in Phase::ALL {
            slot.request().enter(phase);
            assert_eq!(registry.requests()[0].phase(), phase);
        }
        assert_eq!(registry.requests()[0].details(), RequestDetails::new(caller()));
        let known = RequestDetails {
            client_model: "claude".to_owned(),
            upstream: "spark".to_owned(),
            upstream_model: "qwen".to_owned(),
            is_streamed: true,
            ..RequestDetails::new(Caller { user: Some("anna".into()), ..caller() })
        };
        slot.request().describe(&known);
        assert_eq!(registry.requests()[0].details(), known);
        slot.request().note_keys(RequestKeys::new(vec!["canary-4711".to_owned()]));
        let session = Some("x-canary-4711".into());
        slot.request().describe(&RequestDetails { client_model: "canary-4711".to_owned(), session, ..known });
        let shown = registry.requests()[0].to_value().to_json();
        assert!(shown.contains("x-***") && !shown.contains("canary"), "{shown}");
    }

    #[test]
    fn a_stream_counts_until_it_ends() {
        let registry = InFlight::default();
        let slot = registry.begin("req_1".to_owned(), caller());
        assert_eq!(registry.streams(), 0);
        let stream = slot.request().begin_stream();
        assert_eq!(registry.streams(), 1);
        drop(stream);
        assert_eq!((registry.streams(), registry.count()), (0, 1));
    }
}
