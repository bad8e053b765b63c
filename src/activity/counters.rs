//! What has happened since the start, in numbers: for `/health`.
//!
//! Counts only; who has left, and where, is found out by the stages themselves.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::json::{Object, Value};

/// Where in its life a request is: told of one whose client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its body is being read.
    Body,
    /// It is being prepared: hooks, translation.
    Hook,
    /// It waits for a place among those that its upstream gets at a time.
    Queue,
    /// A connection to the upstream is being made.
    Connect,
    /// It is with the upstream, which has said nothing yet; or it waits before another try.
    Head,
    /// The answer is being streamed.
    Stream,
    /// The answer is being gathered for a client that does not stream.
    Whole,
    /// The client is there, but has taken nothing of its answer for too long.
    Unread,
}

impl Phase {
    const ALL: [Phase; 8] = [
        Phase::Body,
        Phase::Hook,
        Phase::Queue,
        Phase::Connect,
        Phase::Head,
        Phase::Stream,
        Phase::Whole,
        Phase::Unread,
    ];

    /// Its name in `/health` and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Body => "body",
            Phase::Hook => "hook",
            Phase::Queue => "queue",
            Phase::Connect => "connect",
            Phase::Head => "head",
            Phase::Stream => "stream",
            Phase::Whole => "whole",
            Phase::Unread => "unread",
        }
    }
}

/// The numbers.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    streams: AtomicU64,
    cancelled: [AtomicU64; Phase::ALL.len()],
}

/// Counts one streamed answer until it is dropped.
pub struct Streaming<'c>(&'c AtomicU64);

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    /// One more request, whatever it is for.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer is streamed from now on.
    pub fn streaming(&self) -> Streaming<'_> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Streaming(&self.streams)
    }

    /// A client has left.
    pub fn cancelled(&self, phase: Phase) {
        if let Some(count) = self.cancelled.get(phase as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds the numbers to an object.
    pub fn tell(&self, object: &mut Object<'_>) {
        let read = |count: &AtomicU64| Value::from(count.load(Ordering::Relaxed));
        object.push("requests", read(&self.requests));
        object.push("streams", read(&self.streams));
        let mut cancelled = Object::new();
        for (phase, count) in Phase::ALL.iter().zip(&self.cancelled) {
            cancelled.push(phase.name(), read(count));
        }
        object.push("cancelled", cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_a_number_of_its_own() {
        let counters = Counters::default();
        counters.request();
        let streaming = counters.streaming();
        for (times, phase) in Phase::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| counters.cancelled(phase));
        }
        let mut told = Object::new();
        counters.tell(&mut told);
        drop(streaming);
        assert_eq!(
            Value::from(told).to_json(),
            r#"{"requests":1,"streams":1,"cancelled":{"body":0,"hook":1,"queue":2,"connect":3,"head":4,"stream":5,"whole":6,"unread":7}}"#
        );
        let mut told = Object::new();
        counters.tell(&mut told);
        assert_eq!(told.get("streams").and_then(Value::as_u64), Some(0));
    }
}
