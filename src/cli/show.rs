//! `show`: a recorded request, from the state folder, as text, HAR, curl command or difference.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::arguments::ShowCommand;
use super::history::open;
use super::output::{Failed, note, print, print_exactly, print_json};
use crate::activity::{RecordedStep, StepKind, body_difference, read_steps};
use crate::json::{self, Value};
use crate::shell::quoted;
use crate::shown::ShownText;
use crate::state::{RecordingRow, moment};

/// `sparkgap show`.
pub(super) fn run(options: &ShowCommand) -> Result<(), Failed> {
    if u8::from(options.har) + u8::from(options.curl) + u8::from(options.diff) > 1 {
        return Err("--har, --curl and --diff exclude each other".to_owned());
    }
    let reader = open(options.state.clone())?;
    let row = reader.recording(&options.id)?;
    if row.is_cut {
        note("sparkgap: a limit has cut this recording; a part of it is missing\n");
    }
    if options.har {
        print_json(&to_har(&row));
    } else if options.curl {
        print_exactly(&to_curl(&row)?);
    } else if options.diff {
        let before = reader
            .turn_before(&row)?
            .ok_or("no earlier turn of its conversation was recorded, so there is nothing to compare with")?;
        print(&body_difference(sent_of(&before), sent_of(&row), usize::MAX, usize::MAX));
    } else {
        print(&to_text(&row));
    }
    Ok(())
}

/// The body that was sent to the upstream last.
pub(super) fn sent_of(row: &RecordingRow) -> &[u8] {
    let [_, _, sent, ..] = &row.places;
    sent
}

/// The base URL of the upstream that was asked last, if one was.
pub(super) fn url_of(row: &RecordingRow) -> Option<String> {
    let steps = read_steps(&row.steps, &row.places);
    let target = steps.iter().rfind(|step| step.kind == StepKind::Target)?;
    let mut facts = target.facts.as_bytes().to_vec();
    Some(json::parse(&mut facts).ok()?.get("url")?.as_str()?.to_owned())
}

/// JSON with an entry a line; other bytes as they are.
fn pretty(bytes: &[u8]) -> String {
    let mut copy = bytes.to_vec();
    match json::parse(&mut copy) {
        Ok(value) => value.to_pretty_json(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn to_text(row: &RecordingRow) -> String {
    let mut head = row.head.as_bytes().to_vec();
    let head = json::parse(&mut head).unwrap_or(Value::Null);
    let steps = read_steps(&row.steps, &row.places);
    let [client, hooked, sent, upstream, answer] = &row.places;
    let mut text = format!("{}\n{}\n", ShownText::new(&row.id), head.to_pretty_json());
    let url = url_of(row).unwrap_or_default();
    let mut part = |title: &str, bytes: &[u8], kinds: &[StepKind]| {
        if bytes.is_empty() {
            return;
        }
        let times: Vec<u64> =
            steps.iter().filter(|step| kinds.contains(&step.kind)).map(|step| step.at).collect();
        let ms = |at: Option<&u64>| at.map_or(0, |at| at / 1000);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n== {title}: {} bytes in {} parts, from {} to {} ms\n{}\n",
            bytes.len(),
            times.len(),
            ms(times.first()),
            ms(times.last()),
            pretty(bytes)
        );
    };
    part("the client's body", client, &[StepKind::Request]);
    part("the same after on_request", hooked, &[StepKind::Hooked]);
    part(&format!("the upstream's body, to {url}/chat/completions"), sent, &[StepKind::Sent]);
    part("the upstream's answer", upstream, &[StepKind::Piece, StepKind::Whole, StepKind::Refusal]);
    part("the client's answer", answer, &[StepKind::Answer]);
    text
}

/// A curl command that sends the recorded body. The body has no line end, so none of its lines ends the shell's document.
fn to_curl(row: &RecordingRow) -> Result<String, Failed> {
    let url = url_of(row).ok_or("no upstream was asked, so there is nothing to send")?;
    let body = String::from_utf8_lossy(sent_of(row)).replace(['\n', '\r'], " ");
    let target = quoted(&format!("{url}/chat/completions"));
    Ok(format!(
        "curl -sSN {target} -H 'content-type: application/json' \\\n  ${{SPARKGAP_UPSTREAM_KEY:+-H \"authorization: Bearer $SPARKGAP_UPSTREAM_KEY\"}} --data-binary @- <<'SPARKGAP_BODY'\n{body}\nSPARKGAP_BODY\n"
    ))
}

/// The recording as HAR 1.2: one entry for the client's request, and one for the upstream's.
fn to_har(row: &RecordingRow) -> Value<'static> {
    let mut bytes = row.head.as_bytes().to_vec();
    let head = json::parse(&mut bytes).unwrap_or(Value::Null);
    let steps = read_steps(&row.steps, &row.places);
    let record = |key: &str| head.get("record").and_then(|record| record.get(key)).map(Value::reborrow);
    let request = |key: &str| head.get("request").and_then(|request| request.get(key)).map(Value::reborrow);
    let time = record("time").map_or(Value::Null, Value::into_owned);
    let [client, _, sent, upstream, answer] = &row.places;
    let path = request("path").and_then(|path| path.as_str().map(str::to_owned)).unwrap_or_default();
    let headers = request("headers").map_or_else(|| Vec::new().into(), Value::into_owned);
    let status = record("status").map_or(Value::from(0_u64), Value::into_owned);
    let mut entries = vec![entry(
        (&time, steps.iter().find(|step| step.kind == StepKind::Request), steps.last()),
        (format!("http://sparkgap{path}"), headers, client),
        (status, answer),
    )];
    if let Some(url) = url_of(row) {
        let is_answer = |step: &&RecordedStep<'_>| {
            matches!(step.kind, StepKind::Piece | StepKind::Whole | StepKind::Refusal)
        };
        let asked = steps.iter().rfind(|step| step.kind == StepKind::Sent);
        let last = steps.iter().rfind(is_answer);
        let refused = last.filter(|step| step.kind == StepKind::Refusal).and_then(|step| {
            let mut facts = step.facts.as_bytes().to_vec();
            json::parse(&mut facts).ok()?.get("status")?.as_u64()
        });
        let status = if last.is_some() { refused.unwrap_or(200) } else { 0 };
        let kind = Value::object([("name", "content-type".into()), ("value", "application/json".into())]);
        let time = asked.map_or(time.reborrow(), |step| later(&time, row, step.at));
        entries.push(entry(
            (&time, asked, last.or(asked)),
            (format!("{url}/chat/completions"), vec![kind].into(), sent),
            (status.into(), upstream),
        ));
    }
    let creator = Value::object([("name", "sparkgap".into()), ("version", env!("CARGO_PKG_VERSION").into())]);
    let log = Value::object([("version", "1.2".into()), ("creator", creator), ("entries", entries.into())]);
    Value::object([("log", log)]).into_owned()
}

/// The moment that lies this many microseconds behind the beginning of the request.
fn later<'v>(began: &Value<'v>, row: &RecordingRow, at: u64) -> Value<'v> {
    let parsed = began.as_str().and_then(|time| humantime::parse_rfc3339(time).ok());
    let began = parsed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let began = began.unwrap_or_else(|| Duration::from_millis(row.ended_ms));
    let at = began.saturating_add(Duration::from_micros(at));
    humantime::format_rfc3339_millis(moment(at)).to_string().into()
}

fn entry(
    (time, from, to): (&Value<'_>, Option<&RecordedStep<'_>>, Option<&RecordedStep<'_>>),
    (url, headers, body): (String, Value<'_>, &[u8]),
    (status, answer): (Value<'_>, &[u8]),
) -> Value<'static> {
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
    let size = |bytes: &[u8]| Value::from(bytes.len() as u64);
    let nothing = || Value::from(Vec::new());
    let at = |step: Option<&RecordedStep<'_>>| step.map_or(0, |step| step.at);
    let millis = at(to).saturating_sub(at(from)) / 1000;
    let kind = if answer.starts_with(b"{") { "application/json" } else { "text/event-stream" };
    let post = Value::object([("mimeType", "application/json".into()), ("text", text(body))]);
    let request = Value::object([
        ("method", "POST".into()),
        ("url", url.into()),
        ("httpVersion", "HTTP/1.1".into()),
        ("cookies", nothing()),
        ("headers", headers),
        ("queryString", nothing()),
        ("postData", post),
        ("headersSize", Value::from(-1_i64)),
        ("bodySize", size(body)),
    ]);
    let content = Value::object([("size", size(answer)), ("mimeType", kind.into()), ("text", text(answer))]);
    let response = Value::object([
        ("status", status),
        ("statusText", "".into()),
        ("httpVersion", "HTTP/1.1".into()),
        ("cookies", nothing()),
        ("headers", nothing()),
        ("content", content),
        ("redirectURL", "".into()),
        ("headersSize", Value::from(-1_i64)),
        ("bodySize", size(answer)),
    ]);
    let timings = Value::object([("send", 0_u64.into()), ("wait", millis.into()), ("receive", 0_u64.into())]);
    Value::object([
        ("startedDateTime", time.reborrow()),
        ("time", millis.into()),
        ("request", request),
        ("response", response),
        ("cache", Value::object([])),
        ("timings", timings),
    ])
    .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> RecordingRow {
        RecordingRow {
            id: "req_1".to_owned(),
            head: r#"{"record":{"time":"2026-11-30T10:00:00.000Z","status":200},"request":{"path":"/v1/messages","headers":[]}}"#
                .to_owned(),
            steps: "10 i 2 \n20 k 0 {\"url\":\"http://box:8000/v1\"}\n30 b 2 \n5000 u 3 \n6000 c 4 \n".to_owned(),
            places: [b"{}".to_vec(), Vec::new(), b"{'\n}".to_vec(), b"abc".to_vec(), b"defg".to_vec()],
            ..RecordingRow::default()
        }
    }

    #[test]
    fn a_recording_has_four_forms() {
        let row = row();
        let har = to_har(&row).to_json();
        assert!(
            har.contains("\"url\":\"http://box:8000/v1/chat/completions\"")
                && har.contains("\"text\":\"defg\""),
            "{har}"
        );
        assert!(har.contains("\"startedDateTime\":\"2026-11-30T10:00:00.000Z\""), "{har}");
        let curl = to_curl(&row).unwrap();
        assert!(curl.starts_with("curl -sSN http://box:8000/v1/chat/completions "), "{curl}");
        assert!(curl.ends_with("\n{' }\nSPARKGAP_BODY\n"), "{curl}");
        let text = to_text(&row);
        assert!(
            text.contains("== the upstream's answer: 3 bytes in 1 parts, from 5 to 5 ms\nabc\n"),
            "{text}"
        );
    }

    #[test]
    fn a_recording_with_rubbish_in_it_is_shown_all_the_same() {
        let row = RecordingRow { head: "{".to_owned(), steps: "x\n".to_owned(), ..RecordingRow::default() };
        assert!(to_text(&row).contains("null") && to_curl(&row).is_err());
        assert!(to_har(&row).to_json().contains("\"status\":0"));
        let late = RecordingRow {
            head: r#"{"record":{"time":"9999-12-31T23:59:59Z"}}"#.to_owned(),
            steps: format!("1 k 0 {{\"url\":\"http://box/v1\"}}\n{} b 0 \n", u64::MAX),
            ..RecordingRow::default()
        };
        assert!(to_har(&late).to_json().contains("\"startedDateTime\":\"9999-12-31T23:59:59.000Z\""));
    }
}
