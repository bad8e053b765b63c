//! `requests`: the requests that have ended, from the state folder.

use std::time::Duration;

use super::arguments::RequestsCommand;
use super::history::{ago, money, open};
use super::output::{Failed, note, print, print_json};
use crate::json::Value;
use crate::shown::OrDash;
use crate::state::{RequestFilter, RequestRow, moment};

/// The most rows that are printed: what a person can look through.
const ROWS_MAX: u32 = 1000;

/// `sparkgap requests`: a line or a JSON object for each.
pub(super) fn run(options: RequestsCommand) -> Result<(), Failed> {
    let since_ms = u64::try_from(ago(options.since).as_millis()).unwrap_or(u64::MAX);
    let RequestsCommand { state, failed, session, json, .. } = options;
    let filter = RequestFilter { since_ms, failed, session, rows_max: ROWS_MAX };
    let rows = open(state)?.requests(&filter)?;
    for row in &rows {
        match json {
            true => print_json(&to_json(row)),
            false => print(&to_line(row)),
        }
    }
    if rows.len() >= usize::try_from(ROWS_MAX).unwrap_or(usize::MAX) {
        note(&format!(
            "only the newest {ROWS_MAX} are shown; ask for fewer with --since, --failed or --session\n"
        ));
    }
    if rows.is_empty() && !json {
        note("no such requests; --since 30d looks back as far as rows are kept\n");
    }
    Ok(())
}

/// The time of the end, by UTC.
fn time_of(row: &RequestRow) -> String {
    humantime::format_rfc3339_millis(moment(Duration::from_millis(row.ended_ms))).to_string()
}

fn to_line(row: &RequestRow) -> String {
    let [client, model, upstream, upstream_model, stop_reason] =
        [&row.client, &row.model, &row.upstream, &row.upstream_model, &row.stop_reason]
            .map(|text| OrDash(text));
    let mut line = format!(
        "{} {} {client} {model} -> {upstream}/{upstream_model} {} {stop_reason} in {} cached {} out {} total {} ms",
        time_of(row),
        row.id,
        row.status,
        row.prompt,
        row.cached,
        row.output,
        row.total_ms,
    );
    if let Some(queued) = row.queue_ms {
        line.push_str(&format!(" queued {queued} ms"));
    }
    if let Some(first) = row.first_byte_ms {
        line.push_str(&format!(" first {first} ms"));
    }
    if row.is_recorded {
        line.push_str(" recorded");
    }
    if !row.error.is_empty() {
        line.push_str(&format!(": {}", OrDash(&row.error)));
    }
    line.push('\n');
    line
}

fn to_json(row: &RequestRow) -> Value<'_> {
    let text = |text: &'_ str| if text.is_empty() { Value::Null } else { text.to_owned().into() };
    let number = |number: Option<u64>| number.map_or(Value::Null, Value::from);
    Value::object([
        ("request_id", row.id.as_str().into()),
        ("ended", time_of(row).into()),
        ("client", row.client.as_str().into()),
        ("session", text(&row.session)),
        ("model", text(&row.model)),
        ("upstream", text(&row.upstream)),
        ("upstream_model", text(&row.upstream_model)),
        ("stream", row.is_streamed.into()),
        ("status", u64::from(row.status).into()),
        ("stop_reason", text(&row.stop_reason)),
        ("input_tokens", row.prompt.into()),
        ("cached_tokens", row.cached.into()),
        ("output_tokens", row.output.into()),
        ("cost", money(row.cost).into()),
        ("lane", number(row.lane.map(u64::from))),
        ("queue_ms", number(row.queue_ms)),
        ("first_byte_ms", number(row.first_byte_ms)),
        ("total_ms", row.total_ms.into()),
        ("error", text(&row.error)),
        ("recorded", row.is_recorded.into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_row_stays_one_line() {
        let bad = "a\r\nreq_2 \u{1b}[2J".to_owned();
        let row = RequestRow { model: bad.clone(), client: bad.clone(), error: bad, ..RequestRow::default() };
        let line = to_line(&row);
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(!line.contains('\u{1b}') && line.starts_with("1970-01-01T00:00:00.000Z "), "{line}");
        let latest = RequestRow { ended_ms: u64::MAX, ..row };
        assert!(to_line(&latest).starts_with("9999-12-31T23:59:59"));
    }
}
