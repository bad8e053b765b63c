//! The record of a request: one line in the log at its end, whether it succeeded or not.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::changes::BehaviorChanges;
use super::times::PhaseTimes;
use crate::anthropic::{StopReason, Usage};
use crate::json::{Object, Value};
use crate::lane::Lane;
use crate::prefix::{Grouped, PrefixVerdict};
use crate::shown::{OrDash, cut};

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

    /// The name that usage is counted by: the owner of the key, otherwise the address.
    pub fn name(&self) -> Arc<str> {
        self.user.clone().unwrap_or_else(|| self.address.to_string().into())
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
    /// The client's session; `None` if its headers name none.
    pub session: Option<Arc<str>>,
    /// The client's agent within the session; `None` for the main one.
    pub agent: Option<Arc<str>>,
    /// How urgent the request is: by `on_request`, else by the limits of its key, else by its headers.
    pub lane: Lane,
    /// The estimated tokens of the prompt; 0 until it was translated.
    pub prompt_estimate: u64,
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
            session: None,
            agent: None,
            lane: Lane::default(),
            prompt_estimate: 0,
        }
    }
}

/// The name of a session or an agent, cut to [`NAME_SIZE_MAX`] bytes.
pub fn kept_name(name: Option<&str>) -> Option<Arc<str>> {
    name.map(|name| cut(name, NAME_SIZE_MAX).into())
}

/// The most bytes of the name of a session or an agent that are kept. Claude Code's have 36.
const NAME_SIZE_MAX: usize = 128;

/// The most bytes of an error that are kept with a record.
const ERROR_SIZE_MAX: usize = 1024;

/// The place of a request at one of several upstreams, or at one with a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// The reason for the choice of the upstream: `home`, `cost`, `moved`, `failover` or `only`; empty until one was
    /// chosen.
    pub why: &'static str,
    /// The time in the line.
    pub waited: Duration,
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
    /// True if the upstream said how many tokens of the prompt were cached. If not, none counts as cached.
    pub is_cache_told: bool,
    /// The number of values in the arguments of tool calls that were coerced to the types in their schema.
    pub coercions: usize,
    /// The number of places in the arguments of tool calls that were not JSON and were repaired.
    pub repairs: usize,
    /// Calls found in text, and loops.
    pub behavior: BehaviorChanges,
    /// The number of changes to the request after refusals of its upstream, so that it was taken.
    pub request_repairs: usize,
    /// The moment at which the head of the request was here.
    pub began: Instant,
    /// The same moment by the clock of the machine.
    pub began_at: SystemTime,
    /// The times of the phases.
    pub times: PhaseTimes,
    /// How much of the conversation's prefix its upstream had cached; `None` for a first turn, and for a request without
    /// counts.
    pub prefix: Option<PrefixVerdict>,
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
            is_cache_told: false,
            coercions: 0,
            repairs: 0,
            behavior: BehaviorChanges::default(),
            request_repairs: 0,
            began: Instant::now(),
            began_at: SystemTime::now(),
            times: PhaseTimes::default(),
            prefix: None,
            error: None,
            place: None,
        }
    }

    /// True if the request was refused before any upstream was chosen.
    pub fn is_refused(&self) -> bool {
        self.status >= 400 && self.status != CLIENT_GONE && self.details.upstream.is_empty()
    }

    /// True if the request failed, and the client did not leave. Its line is a warning.
    pub fn is_failed(&self) -> bool {
        self.error.is_some() && self.status != CLIENT_GONE
    }

    /// Ends the record: no time passes in it any more.
    pub fn end(&mut self) {
        self.times.end = Some(self.began.elapsed());
        if let Some(error) = self.error.as_mut().filter(|error| error.len() > ERROR_SIZE_MAX) {
            // A copy, so that the memory of the long one is given back.
            *error = cut(error, ERROR_SIZE_MAX).to_owned();
        }
    }

    /// The tokens of the whole prompt, as the client got them.
    pub fn prompt_tokens(&self) -> u64 {
        self.usage.input + self.usage.cache_read + self.usage.cache_creation
    }

    /// The time in the line for a place.
    pub fn queue_time(&self) -> Duration {
        self.place.map_or(Duration::ZERO, |place| place.waited)
    }

    /// The line about a lost prefix, if it was lost: where, how many tokens, about how long they took to read, and why.
    pub fn lost_prefix(&self) -> Option<String> {
        let verdict = self.prefix.as_ref()?;
        let (lost, cause) = verdict.miss()?;
        let at = verdict.at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        let time = self
            .read_time(lost)
            .map(|time| format!(", about {} s", time.as_secs().max(1)))
            .unwrap_or_default();
        Some(format!("{} prefix lost{at}: {} tokens{time}: {}", self.request_id, Grouped(lost), cause.name()))
    }

    /// The time that the upstream took to read this many tokens of the prompt, by the speed of this request.
    fn read_time(&self, tokens: u64) -> Option<Duration> {
        let prefill = self.times.first_byte?.checked_sub(self.times.sent?)?;
        let read = self.prompt_tokens().checked_sub(self.usage.cache_read).filter(|read| *read > 0)?;
        let micros = prefill.as_micros().saturating_mul(tokens.min(read).into()) / u128::from(read);
        Some(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }

    /// The time since the head of the request was here, or until its end.
    pub fn total(&self) -> Duration {
        self.times.end.unwrap_or_else(|| self.began.elapsed())
    }

    /// The number of bytes that it takes, about.
    pub(super) fn size(&self) -> usize {
        let RequestDetails { client_model, upstream, upstream_model, session, agent, .. } = &self.details;
        let texts = [&self.request_id, client_model, upstream, upstream_model].map(String::len);
        let shared = [session, agent].map(|name| name.as_deref().map_or(0, str::len));
        let error = self.error.as_deref().map_or(0, str::len);
        size_of::<Record>() + texts.iter().chain(&shared).sum::<usize>() + error
    }

    /// The record as JSON: for `on_log`, the log in JSON, `/activity` and the live page. hooks/README.md lists the keys;
    /// `sparkgap requests --json` has some of them under the same names.
    // `inline(never)`: keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory
    // budget).
    #[inline(never)]
    pub fn to_value(&self) -> Value<'static> {
        let millis = |time: Duration| Value::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let moment = |time: Option<Duration>| time.map_or(Value::Null, millis);
        let name =
            |name: &Option<Arc<str>>| name.as_deref().map_or(Value::Null, |name| name.to_owned().into());
        let tenths = |number: f64| Value::from((number * 10.0).round() / 10.0);
        let (details, usage, times) = (&self.details, self.usage, &self.times);
        let speed = times.tokens_per_second(usage.output);
        let mut record = Value::object([
            ("request_id", self.request_id.clone().into()),
            ("time", humantime::format_rfc3339_millis(self.began_at).to_string().into()),
            ("client", details.caller.address.to_string().into()),
            ("user", name(&details.caller.user)),
            ("session", name(&details.session)),
            ("agent", name(&details.agent)),
            ("model", details.client_model.clone().into()),
            ("upstream", details.upstream.clone().into()),
            ("upstream_model", details.upstream_model.clone().into()),
            ("stream", details.is_streamed.into()),
            ("status", u64::from(self.status).into()),
            ("stop_reason", self.stop_reason.map_or(Value::Null, |reason| reason.name().into())),
            ("input_tokens", self.prompt_tokens().into()),
            ("cached_tokens", usage.cache_read.into()),
            ("new_tokens", (usage.input + usage.cache_creation).into()),
            ("output_tokens", usage.output.into()),
            ("tokens_per_second", speed.map_or(Value::Null, tenths)),
            ("coerced_arguments", (self.coercions as u64).into()),
            ("repaired_arguments", (self.repairs as u64).into()),
            ("request_repairs", (self.request_repairs as u64).into()),
            ("received_ms", moment(times.received)),
            ("queue_ms", self.place.map_or(Value::Null, |place| millis(place.waited))),
            ("connect_ms", millis(times.connect)),
            ("sent_ms", moment(times.sent)),
            ("head_ms", moment(times.head)),
            ("first_byte_ms", moment(times.first_byte)),
            ("first_word_ms", moment(times.first_word)),
            ("total_ms", millis(self.total())),
            ("error", self.error.clone().map_or(Value::Null, Value::from)),
            ("why", self.place.map_or(Value::Null, |place| place.why.into())),
            ("lane", u64::from(details.lane.number()).into()),
        ]);
        if let Some(object) = record.as_object_mut() {
            self.behavior.members().into_iter().for_each(|(name, value)| object.push(name, value));
        }
        if let (Some(verdict), Some(record)) = (&self.prefix, record.as_object_mut()) {
            record.push("prefix", prefix_value(verdict));
        }
        record
    }
}

/// The verdict on a prefix as JSON. Unknown members are left out.
fn prefix_value(verdict: &PrefixVerdict) -> Value<'static> {
    let members = [
        ("kept", verdict.kept.map(Value::from)),
        ("lost", verdict.lost.map(Value::from)),
        ("cause", verdict.cause.map(|cause| cause.name().into())),
        ("at", verdict.at.as_ref().map(|at| at.to_string().into())),
    ];
    let members = members.into_iter().filter_map(|(key, value)| Some((key.into(), value?)));
    Value::from(members.collect::<Object<'_>>())
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
        let (prompt, usage) = (self.prompt_tokens(), self.usage);
        if let Some(reason) = self.stop_reason {
            write!(f, " {}", reason.name())?;
        }
        // The counts of an answer that broke off count, too.
        if self.stop_reason.is_some() || prompt > 0 {
            write!(f, " in {prompt} out {} cached {}", usage.output, usage.cache_read)?;
        }
        for (count, what) in [(self.coercions, "coerced"), (self.repairs, "repaired")] {
            if count > 0 {
                write!(f, " {what} {count}")?;
            }
        }
        write!(f, "{}", self.behavior)?;
        if let Some(Placed { why, waited }) = self.place {
            let lane = details.lane.number();
            write!(f, " {} lane {lane} queued {} ms", OrDash(why), waited.as_millis())?;
        }
        if let Some(first) = self.times.first_byte {
            write!(f, " first {} ms", first.as_millis())?;
        }
        write!(f, " total {} ms", self.total().as_millis())?;
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
