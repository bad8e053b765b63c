//! Boxes, requests in progress and finished requests as JSON. The keys of requests are those of `on_log`, and the keys of
//! boxes those of `/health`.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::activity::{ActiveRequest, Activity, FinishedRequest, Phase};
use crate::admin::health::{member, state};
use crate::fleet::{Availability, Gateway, Served};
use crate::json::{Object, Value};

/// The most requests in progress that are shown, the oldest first; their number is told in any case.
const IN_FLIGHT_MAX: usize = 200;

/// The most models of a box that are shown.
const MODELS_MAX: usize = 20;

/// The state of now: the time in milliseconds since 1970, boxes, requests in progress, totals.
pub(super) fn now(gateway: &Gateway, activity: &Activity) -> Object<'static> {
    let mut now = Object::new();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.push("now", u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX));
    now.push("boxes", gateway.upstreams().iter().map(|served| one_box(gateway, served)).collect::<Vec<_>>());
    let requests = activity.in_flight().requests();
    // In this phase, without a model, it is a question about the server itself, or a message whose body is not here yet.
    let is_shown = |request: &&Arc<ActiveRequest>| {
        request.phase() != Phase::Body || !request.details().client_model.is_empty()
    };
    let shown: Vec<Value<'static>> =
        requests.iter().filter(is_shown).take(IN_FLIGHT_MAX).map(|request| request.to_value()).collect();
    now.push("in_flight", shown);
    let mut totals = Object::new();
    activity.add_to(&mut totals);
    totals.push("in_flight", u64::try_from(requests.len()).unwrap_or(u64::MAX));
    totals.push("pings", activity.counters().pings());
    now.push("totals", Value::from(totals).into_owned());
    now
}

/// One box: its state with the reason, its requests, and its models.
fn one_box(gateway: &Gateway, served: &Served) -> Value<'static> {
    let upstream = served.upstream();
    let discovered = upstream.discovered();
    let kind = upstream.config().settings.flavour.unwrap_or(discovered.flavour);
    let mut shown = Object::new();
    shown.push("name", served.name().to_owned());
    shown.push("kind", kind.name());
    shown.push("state", state(gateway, served));
    let why = match upstream.availability() {
        Availability::Up => Value::Null,
        Availability::Unasked => Availability::Unasked.name().into(),
        Availability::Down => upstream.failure().map_or(Value::Null, |failure| failure.to_string().into()),
    };
    shown.push("why", why);
    shown.push("member", member(gateway, served, Instant::now()).map_or(Value::Null, Value::from));
    let models = discovered.models.iter().take(MODELS_MAX).map(|model| {
        let window = model.window.map_or(Value::Null, Value::from);
        Value::object([("id", model.id.clone().into()), ("window", window)])
    });
    shown.push("models", models.collect::<Vec<_>>());
    Value::from(shown).into_owned()
}

/// A request that has ended, with its number since the start.
pub(super) fn finished(request: &FinishedRequest) -> Value<'static> {
    let mut value = request.record.to_value();
    if let Some(object) = value.as_object_mut() {
        object.push("number", request.number);
    }
    value
}
