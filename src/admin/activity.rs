//! `GET /activity`: the requests in progress, and the last ones that have ended, for `sparkgap top` and `sparkgap statusline`.

use crate::activity::{ActiveRequest, Activity, Caller, Phase, Record};
use crate::fleet::Gateway;
use crate::json::{Object, Value};

use super::health::pool;
use super::query::parameter;

/// The most requests in progress that are told, the oldest first.
const IN_FLIGHT_MAX: usize = 200;

/// The ended requests that are told unless `limit=` asks for fewer.
const FINISHED_MAX: usize = 50;

/// The answer, as JSON. The query may name a `session` and a `limit` of ended requests. Of a session's ended requests only those
/// of its main agent are told.
/// Only the requests that the caller may see are told.
pub fn activity(gateway: &Gateway, activity: &Activity, query: Option<&str>, caller: &Caller) -> Vec<u8> {
    let session = parameter(query, "session");
    let limit = parameter(query, "limit").and_then(|limit| limit.parse().ok());
    let limit = limit.unwrap_or(FINISHED_MAX).min(FINISHED_MAX);
    let requests = activity.in_flight().requests();
    let waiting = requests.iter().filter(|request| request.phase() == Phase::Queue).count();
    // Without a model it is a question about the server itself, or a message whose body is not here yet.
    let is_message = |request: &ActiveRequest| {
        let details = request.details();
        !details.client_model.is_empty()
            && may_see(caller, &details.caller)
            && session.is_none_or(|session| details.session.as_deref() == Some(session))
    };
    let shown = requests.iter().filter(|request| is_message(request)).take(IN_FLIGHT_MAX);
    let shown: Vec<Value<'static>> = shown.map(|request| request.to_value()).collect();
    let is_asked = |record: &Record| {
        let details = &record.details;
        may_see(caller, &details.caller)
            && session
                .is_none_or(|session| details.session.as_deref() == Some(session) && details.agent.is_none())
    };
    let history = activity.history().after(0);
    let finished = history.iter().rev().map(|row| &row.record).filter(|record| is_asked(record)).take(limit);
    let mut finished: Vec<Value<'static>> = finished.map(Record::to_value).collect();
    finished.reverse();
    let mut told = Object::new();
    told.push("version", env!("CARGO_PKG_VERSION"));
    told.push("boxes", pool(gateway));
    told.push("waiting", waiting as u64);
    told.push("in_flight", shown);
    told.push("finished", finished);
    Value::from(told).to_json().into_bytes()
}

/// True if a caller may see a request of this owner: the owner of a key with a name sees their own requests, anybody else on
/// this machine all of them, and anybody else those of their address.
pub(super) fn may_see(caller: &Caller, owner: &Caller) -> bool {
    match &caller.user {
        Some(_) => owner.user == caller.user,
        None if caller.address.is_loopback() => true,
        None => owner.user.is_none() && owner.address == caller.address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sees_what() {
        let of = |address: [u8; 4], user: Option<&str>| Caller {
            user: user.map(Into::into),
            ..Caller::new(address.into())
        };
        let (here, there, other) = ([127, 0, 0, 1], [192, 168, 1, 7], [192, 168, 1, 8]);
        for (caller, owner, expected) in [
            (of(here, None), of(there, Some("anna")), true),
            (of(here, Some("bert")), of(here, Some("anna")), false),
            (of(there, Some("anna")), of(other, Some("anna")), true),
            (of(there, None), of(there, None), true),
            (of(there, None), of(other, None), false),
            (of(there, None), of(there, Some("anna")), false),
        ] {
            assert_eq!(may_see(&caller, &owner), expected, "{caller} {owner}");
        }
    }
}
