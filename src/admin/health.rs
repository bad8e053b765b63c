//! `GET /health`: that the server runs, and the counts since its start. `GET /ready`: whether a request could be answered
//! now.

use std::time::Instant;

use crate::activity::Activity;
use crate::fleet::{Availability, Gateway, HealthState, Load, Served};
use crate::hooks::Hook;
use crate::json::{Object, Value};
use crate::logger;

/// The answer, as JSON.
pub fn health(gateway: &Gateway, activity: &Activity) -> Vec<u8> {
    let names: Vec<Value<'_>> = gateway.upstreams().iter().map(|served| served.name().into()).collect();
    let failures: u64 = Hook::ALL.iter().map(|hook| gateway.hooks().failures(*hook)).sum();
    let mut health = Object::new();
    health.push("status", "ok");
    health.push("version", env!("CARGO_PKG_VERSION"));
    health.push("hooks", gateway.hooks().hash());
    health.push("upstreams", names);
    health.push("pool", pool(gateway));
    activity.add_to(&mut health);
    health.push("log_lines_lost", logger::lost_lines());
    // Counted since the last load, because newly loaded hooks have not failed yet.
    health.push("hook_failures", failures);
    Value::from(health).to_json().into_bytes()
}

/// The members of pools, and other upstreams with a queue: how each one is, and its requests.
pub(super) fn pool(gateway: &Gateway) -> Value<'_> {
    let now = Instant::now();
    let members = gateway
        .upstreams()
        .iter()
        .filter_map(|served| Some((served.name().into(), member(gateway, served, now)?.into())));
    Value::from(members.collect::<Object<'_>>())
}

/// How an upstream is, and its requests, if they need a place.
pub(super) fn member(gateway: &Gateway, served: &Served, now: Instant) -> Option<Object<'static>> {
    let number = |count: usize| Value::from(u64::try_from(count).unwrap_or(u64::MAX));
    let load = |load: Load| {
        let cache_use = load.cache_use.map_or(Value::Null, Value::from);
        let (running, waiting) = (u64::from(load.running), u64::from(load.waiting));
        Value::object([("running", running.into()), ("waiting", waiting.into()), ("cache_use", cache_use)])
    };
    let report = gateway.dispatcher().report(served.id()).filter(|_| served.needs_place())?;
    let (state, since) = report.health;
    let mut member = Object::new();
    member.push("state", state.name());
    member.push("for_seconds", now.saturating_duration_since(since).as_secs());
    member.push("in_flight", number(report.running));
    member.push("max_in_flight", report.places.map_or(Value::Null, |places| u64::from(places).into()));
    member.push("waiting", Value::Array(report.waiting.into_iter().map(number).collect()));
    member.push("load", report.load.map_or(Value::Null, load));
    Some(member)
}

/// The state of an upstream in a word: `well`, `full` or `out`.
pub(super) fn state(gateway: &Gateway, served: &Served) -> &'static str {
    let report = gateway.dispatcher().report(served.id()).filter(|_| served.needs_place());
    match report.map(|report| report.health.0) {
        Some(state @ (HealthState::Full | HealthState::Out)) => state.name(),
        Some(_) => "well",
        None if served.upstream().availability() == Availability::Down => "out",
        None => "well",
    }
}

/// The status and the answer of `/ready`, as JSON: 200 if an upstream gets requests, 503 if none does or the server stops.
/// A load balancer then sends its clients elsewhere. Nothing is asked: the states are those of the last seconds.
pub fn ready(gateway: &Gateway, is_draining: bool) -> (u16, Vec<u8>) {
    // Also a box that lists its models may answer no request, such as one that hangs. Once its trial is due it counts as up
    // again: a load balancer that sends nothing would otherwise keep it out.
    let state = |served: &Served| match served.upstream().availability() {
        Availability::Up if served.needs_place() && gateway.dispatcher().rests(served.id()) => "out",
        state => state.name(),
    };
    let states: Vec<(&str, &str)> =
        gateway.upstreams().iter().map(|served| (served.name(), state(served))).collect();
    let is_up = states.iter().any(|(_, state)| *state == Availability::Up.name());
    let (status, word) = match (is_draining, is_up) {
        (true, _) => (503, "draining"),
        (false, false) => (503, "no upstream can be reached"),
        (false, true) => (200, "ready"),
    };
    let states: Object<'_> = states.into_iter().map(|(name, state)| (name.into(), state.into())).collect();
    let ready = Value::object([("status", word.into()), ("upstreams", states.into())]);
    (status, ready.to_json().into_bytes())
}
