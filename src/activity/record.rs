//! The record of a request: one line in the log at its end, whether it succeeded or not.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::changes::BehaviorChanges;
use crate::anthropic::{StopReason, Usage};
use crate::json::Value;
use crate::lane::Lane;
use crate::shown::ShownText;

/// The caller of a request, for hooks and the log. The log shows the address, and the owner of the key or a dash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The client's address; an IPv4 one is never shown as IPv6.
    pub address: IpAddr,
    /// The owner of the key that let the request in; `None` if no key was needed, or if the key has no owner's name.
    pub user: Option<Arc<str>>,
}

impl Caller {
    /// A caller of whom only the address is known so far.
    pub fn new(address: IpAddr) -> Self {
        Caller { address, user: None }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.address, OrDash(self.user.as_deref().unwrap_or_default()))
    }
}

/// The facts about a request that become known one by one before an upstream is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestDetails {
    /// The client's address, and the owner of the key that let the request in.
    pub caller: Caller,
    /// The model as the client named it; empty until the body was read.
    pub client_model: String,
    /// The name of the upstream; empty until one was chosen.
    pub upstream: String,
    /// The model at the upstream; empty until one was chosen.
    pub upstream_model: String,
    /// True if the client asked for a stream.
    pub is_streamed: bool,
}

impl RequestDetails {
    /// The details of a request of which only the caller is known so far.
    pub fn new(caller: Caller) -> Self {
        RequestDetails {
            caller,
            client_model: String::new(),
            upstream: String::new(),
            upstream_model: String::new(),
            is_streamed: false,
        }
    }
}

/// The place of a request at one of several upstreams, or at one with a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// How urgent the request was.
    pub lane: Lane,
    /// The reason for the choice of the upstream: `home`, `cost`, `moved`, `failover` or `only`; empty until one was
    /// chosen.
    pub why: &'static str,
    /// The time in the line.
    pub waited: Duration,
}

impl Placed {
    /// The place of a request that has no upstream yet.
    pub fn new(lane: Lane) -> Self {
        Placed { lane, why: "", waited: Duration::ZERO }
    }
}

/// The facts about a request, filled in as they happen.
#[derive(Debug)]
pub struct Record {
    /// The id of the request, `req_…`, which the client gets as a header.
    pub request_id: String,
    /// The caller, the models and the upstream.
    pub details: RequestDetails,
    /// The HTTP status; 499 if the client left before it got one (as nginx logs it).
    pub status: u16,
    /// The stop reason that the client got.
    pub stop_reason: Option<StopReason>,
    /// The tokens of prompt and answer, as the client got them.
    pub usage: Usage,
    /// The number of values in the arguments of tool calls that were coerced to the types in their schema.
    pub coercions: usize,
    /// The number of places in the arguments of tool calls that were not JSON and were repaired.
    pub repairs: usize,
    /// Calls found in text, and loops.
    pub behavior: BehaviorChanges,
    /// The moment at which the head of the request was here.
    pub began: Instant,
    /// The time until the first byte of the model's answer.
    pub first_byte: Option<Duration>,
    /// The reason why the request failed.
    pub error: Option<String>,
    /// The place that the request had, if its upstream is one of several, or has a queue.
    pub place: Option<Placed>,
}

/// The status that is logged if the client left.
pub const CLIENT_GONE: u16 = 499;

impl Record {
    /// The record of a request that has just come.
    pub fn new(request_id: &str, caller: &Caller) -> Self {
        Record {
            request_id: request_id.to_string(),
            details: RequestDetails::new(caller.clone()),
            status: 0,
            stop_reason: None,
            usage: Usage::default(),
            coercions: 0,
            repairs: 0,
            behavior: BehaviorChanges::default(),
            began: Instant::now(),
            first_byte: None,
            error: None,
            place: None,
        }
    }
}

impl Record {
    /// True if the request was refused before any upstream was chosen.
    pub fn is_refused(&self) -> bool {
        self.status >= 400 && self.status != CLIENT_GONE && self.details.upstream.is_empty()
    }

    /// True if the request failed, and the client did not leave. Its line is a warning.
    pub fn is_failed(&self) -> bool {
        self.error.is_some() && self.status != CLIENT_GONE
    }

    /// The record as `on_log` sees it.
    // `inline(never)`: keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory
    // budget).
    #[inline(never)]
    pub fn to_value(&self) -> Value<'static> {
        let millis = |time: Duration| Value::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let (details, usage) = (&self.details, self.usage);
        let mut record = Value::object([
            ("request_id", self.request_id.clone().into()),
            ("model", details.client_model.clone().into()),
            ("upstream", details.upstream.clone().into()),
            ("upstream_model", details.upstream_model.clone().into()),
            ("stream", details.is_streamed.into()),
            ("status", u64::from(self.status).into()),
            ("stop_reason", self.stop_reason.map_or(Value::Null, |reason| reason.name().into())),
            ("input_tokens", (usage.input + usage.cache_read + usage.cache_creation).into()),
            ("cached_tokens", usage.cache_read.into()),
            ("output_tokens", usage.output.into()),
            ("coerced_arguments", (self.coercions as u64).into()),
            ("repaired_arguments", (self.repairs as u64).into()),
            ("first_byte_ms", self.first_byte.map_or(Value::Null, millis)),
            ("total_ms", millis(self.began.elapsed())),
            ("error", self.error.clone().map_or(Value::Null, Value::from)),
            ("why", self.place.map_or(Value::Null, |place| place.why.into())),
            ("lane", self.place.map_or(Value::Null, |place| u64::from(place.lane.number()).into())),
            ("queue_ms", self.place.map_or(Value::Null, |place| millis(place.waited))),
        ]);
        if let Some(object) = record.as_object_mut() {
            self.behavior.members().into_iter().for_each(|(name, value)| object.push(name, value));
        }
        record
    }
}

/// A text from outside in a log line; a dash if it is empty.
struct OrDash<'t>(&'t str);

impl fmt::Display for OrDash<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("-") } else { ShownText::new(self.0).fmt(f) }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &self.details;
        write!(
            f,
            "{} {} {} -> {}/{} {} {}",
            self.request_id,
            details.caller,
            OrDash(&details.client_model),
            OrDash(&details.upstream),
            OrDash(&details.upstream_model),
            if details.is_streamed { "stream" } else { "whole" },
            self.status,
        )?;
        if let Some(reason) = self.stop_reason {
            let usage = self.usage;
            let prompt = usage.input + usage.cache_read + usage.cache_creation;
            write!(f, " {} in {prompt} out {} cached {}", reason.name(), usage.output, usage.cache_read)?;
        }
        for (count, what) in [(self.coercions, "coerced"), (self.repairs, "repaired")] {
            if count > 0 {
                write!(f, " {what} {count}")?;
            }
        }
        write!(f, "{}", self.behavior)?;
        if let Some(Placed { lane, why, waited }) = self.place {
            write!(f, " {} lane {} queued {} ms", OrDash(why), lane.number(), waited.as_millis())?;
        }
        if let Some(first) = self.first_byte {
            write!(f, " first {} ms", first.as_millis())?;
        }
        write!(f, " total {} ms", self.began.elapsed().as_millis())?;
        match &self.error {
            Some(error) => write!(f, ": {}", OrDash(error)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        let mut caller = Caller::new([192, 168, 1, 7].into());
        caller.user = Some("anna\u{1b}\n".into());
        let mut record = Record::new("req_1", &caller);
        record.details.client_model = "a\r\nINFO forged".to_string();
        record.error = Some("x\ny".to_string());
        let line = record.to_string();
        assert!(!line.contains('\n') && !line.contains('\r'), "{line}");
        assert!(
            line.starts_with("req_1 192.168.1.7 anna\\u{1b}\\n a\\r\\nINFO forged -> -/- whole 0"),
            "{line}"
        );
        record.details.caller.user = None;
        assert!(record.to_string().starts_with("req_1 192.168.1.7 - a\\r"), "{record}");
    }
}
