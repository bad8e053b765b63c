//! `GET /health`: whether the server runs, and the counts since its start.

use crate::activity::Activity;
use crate::fleet::Gateway;
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
    activity.add_to(&mut health);
    health.push("log_lines_lost", logger::lost_lines());
    // Counted since the last load, because newly loaded hooks have not failed yet.
    health.push("hook_failures", failures);
    Value::from(health).to_json().into_bytes()
}
