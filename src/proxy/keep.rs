//! The row of a request for the state folder.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::activity::Record;
use crate::route::Price;
use crate::state::RequestRow;

/// The time since 1970 by the system's clock; zero if the clock is before that.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A time in whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The row of a request that has ended now.
pub(super) fn row_of(record: &Record, price: Option<Price>) -> RequestRow {
    let (details, usage) = (&record.details, record.usage);
    let (prompt, cached) = (record.prompt_tokens(), usage.cache_read);
    RequestRow {
        id: record.request_id.clone(),
        ended_ms: millis(now()),
        client: details.caller.name().to_string(),
        session: details.session.as_deref().unwrap_or_default().to_owned(),
        model: details.client_model.clone(),
        upstream: details.upstream.clone(),
        upstream_model: details.upstream_model.clone(),
        is_streamed: details.is_streamed,
        status: record.status,
        stop_reason: record.stop_reason.map_or(String::new(), |reason| reason.name().to_owned()),
        prompt,
        cached,
        output: usage.output,
        cost: price.map_or(0, |price| price.cost(prompt, cached, usage.output)),
        lane: record.place.map(|_| details.lane.number()),
        queue_ms: record.place.map(|place| millis(place.waited)),
        first_byte_ms: record.times.first_byte.map(millis),
        total_ms: millis(record.total()),
        error: record.error.clone().unwrap_or_default(),
        is_recorded: false,
        is_unused: false,
    }
}
