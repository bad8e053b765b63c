//! `show`: a recorded request, from the state folder, as text, HAR, curl command or difference.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::arguments::ShowCommand;
use super::history::open;
use super::output::{Failed, note, print, print_exactly, print_json};
use super::recorded_call::{
    JSON, NOTHING_SENT, RecordedCall, client_kind, kind_in, passed_headers, readable, sent_of,
};
use crate::activity::{RecordedStep, StepKind, body_difference, read_steps};
use crate::json::{self, Value};
use crate::openai::is_form;
use crate::proxy::RecordedWay;
use crate::shell::{in_quotes, quoted};
use crate::shown::{ShownText, is_command};
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
        if [&before, &row].iter().any(|row| sent_of(row).is_empty()) {
            return Err(NOTHING_SENT.to_owned());
        }
        print(&body_difference(sent_of(&before), sent_of(&row), usize::MAX, usize::MAX));
    } else {
        print(&to_text(&row));
    }
    Ok(())
}

/// JSON with an entry a line; other texts as they are.
fn pretty(bytes: &[u8], kind: &str) -> String {
    let mut copy = bytes.to_vec();
    match json::parse(&mut copy) {
        Ok(value) => value.to_pretty_json(),
        Err(_) => readable(bytes, kind),
    }
}

fn to_text(row: &RecordingRow) -> String {
    let mut head = row.head.as_bytes().to_vec();
    let head = json::parse(&mut head).unwrap_or(Value::Null);
    let steps = read_steps(&row.steps, &row.places);
    let [client, hooked, sent, upstream, answer] = &row.places;
    let mut text = format!("{}\n{}\n", ShownText::new(&row.id), head.to_pretty_json());
    let call = RecordedCall::read(row);
    let (url, sent_kind) =
        call.as_ref().map_or_else(Default::default, |call| (call.url(), call.kind.as_str()));
    let (client_kind, answer_kind) = (client_kind(&head), answer_kind(call.as_ref()));
    let mut part = |title: &str, (bytes, kind): (&[u8], &str), kinds: &[StepKind]| {
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
            pretty(bytes, kind)
        );
    };
    part("the client's body", (client, &client_kind), &[StepKind::Request]);
    part("the same after on_request", (hooked, &client_kind), &[StepKind::Hooked]);
    part(&format!("the upstream's body, to {url}"), (sent, sent_kind), &[StepKind::Sent]);
    let kinds = [StepKind::Piece, StepKind::Whole, StepKind::Refusal];
    part("the upstream's answer", (upstream, answer_kind), &kinds);
    part("the client's answer", (answer, answer_kind), &[StepKind::Answer]);
    text
}

/// The type of an answer that is neither JSON nor events.
fn answer_kind(call: Option<&RecordedCall>) -> &str {
    call.and_then(|call| call.answer_kind.as_deref()).unwrap_or("an unknown type")
}

/// A command for any POSIX shell that sends the recorded body, byte for byte. The body is an argument of the shell's own
/// `printf`, which has no limit as the arguments of programs have.
fn to_curl(row: &RecordingRow) -> Result<String, Failed> {
    let call = RecordedCall::read(row).ok_or(NOTHING_SENT)?;
    let body = std::str::from_utf8(sent_of(row)).ok().filter(|_| !is_form(&call.kind));
    let body = body
        .ok_or("its body is a form or not text, which no command line can hold; sparkgap replay sends it")?;
    let mut headers = format!("-H {}", quoted(&format!("content-type: {}", call.kind)));
    let key = match call.way {
        RecordedWay::Messages => {
            for (name, value) in passed_headers(row) {
                headers.push_str(&format!(" -H {}", quoted(&format!("{name}: {value}"))));
            }
            "x-api-key: "
        }
        _ => "authorization: Bearer ",
    };
    let target = quoted(&call.url());
    Ok(format!(
        "{} |\n  curl -sSN {target} {headers} \\\n  ${{SPARKGAP_UPSTREAM_KEY:+-H \"{key}$SPARKGAP_UPSTREAM_KEY\"}} --data-binary @-\n",
        printf(body)
    ))
}

/// A command of a POSIX shell that writes exactly this text. Characters that command a terminal, or make a line read as another
/// one, are written as their bytes in octal.
fn printf(text: &str) -> String {
    let is_escaped = |c: char| is_command(c) && c != '\n';
    if !text.contains(is_escaped) {
        return format!("printf %s {}", in_quotes(text));
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            c if is_escaped(c) => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(escaped, "\\0{byte:03o}");
                }
            }
            c => escaped.push(c),
        }
    }
    format!("printf %b {}", in_quotes(&escaped))
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
    let call = RecordedCall::read(row);
    let path = request("path").and_then(|path| path.as_str().map(str::to_owned)).unwrap_or_default();
    let headers = request("headers").map_or_else(|| Vec::new().into(), Value::into_owned);
    let status = record("status").map_or(Value::from(0_u64), Value::into_owned);
    let mut entries = vec![entry(
        (&time, steps.iter().find(|step| step.kind == StepKind::Request), steps.last()),
        (format!("http://sparkgap{path}"), headers, client),
        (status, answer, answer_kind(call.as_ref())),
    )];
    if let Some(call) = &call {
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
        let kind = Value::object([("name", "content-type".into()), ("value", call.kind.as_str().into())]);
        let time = asked.map_or(time.reborrow(), |step| later(&time, row, step.at));
        entries.push(entry(
            (&time, asked, last.or(asked)),
            (call.url(), vec![kind].into(), sent),
            (status.into(), upstream, answer_kind(Some(call))),
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
    (status, answer, answer_kind): (Value<'_>, &[u8], &str),
) -> Value<'static> {
    let text = |bytes: &[u8], kind: &str| Value::from(readable(bytes, kind));
    let size = |bytes: &[u8]| Value::from(bytes.len() as u64);
    let nothing = || Value::from(Vec::new());
    let at = |step: Option<&RecordedStep<'_>>| step.map_or(0, |step| step.at);
    let millis = at(to).saturating_sub(at(from)) / 1000;
    let kind = match answer {
        [b'{', ..] => JSON,
        _ if is_events(answer) => "text/event-stream",
        _ => answer_kind,
    };
    let body_kind = headers.as_array().and_then(kind_in).unwrap_or(JSON).to_owned();
    let post = Value::object([("text", text(body, &body_kind)), ("mimeType", body_kind.into())]);
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
    let content =
        Value::object([("size", size(answer)), ("mimeType", kind.into()), ("text", text(answer, kind))]);
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

/// True if bytes begin as events do, or are not there yet.
fn is_events(bytes: &[u8]) -> bool {
    bytes.is_empty() || [&b"event:"[..], b"data:", b":", b"id:"].iter().any(|line| bytes.starts_with(line))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

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
        assert!(
            curl.starts_with("printf %s '{'\\''\n}' |\n  curl -sSN http://box:8000/v1/chat/completions ")
        );
        let text = to_text(&row);
        assert!(
            text.contains("== the upstream's answer: 3 bytes in 1 parts, from 5 to 5 ms\nabc\n"),
            "{text}"
        );
    }

    #[test]
    fn a_shell_sends_the_body_as_it_was() {
        let many = "a 'quoted' \\n text\n".repeat(20_000);
        for body in [
            "{'\n}",
            "two\r\nlines\n\n",
            "\u{1b}[2J\u{7f}\u{85}\u{9b}1\u{202e}\u{2028}7 \\0101 \\\\ %s $HOME `id` $(id)\0",
            "SPARKGAP_BODY\n-n",
            many.as_str(),
        ] {
            let mut row = row();
            row.places[2] = body.as_bytes().to_vec();
            let curl = to_curl(&row).unwrap();
            assert!(!curl.contains(|c| is_command(c) && c != '\n'), "{curl:?}");
            let mut shell = Command::new("sh");
            shell.arg("-s").stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut shell = shell.spawn().unwrap();
            let script = format!("curl() {{ cat; }}\n{curl}");
            shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            assert_eq!(shell.wait_with_output().unwrap().stdout, body.as_bytes(), "{body:?}");
        }
    }

    #[test]
    fn an_estimate_was_sent_nowhere() {
        let mut row = row();
        row.steps =
            "10 i 2 \n20 k 0 {\"url\":\"http://box:8000/v1\",\"way\":\"count\",\"tokens\":7}\n30 c 4 \n"
                .to_owned();
        row.places = [b"{}".to_vec(), Vec::new(), Vec::new(), Vec::new(), b"{\"input_tokens\":7}".to_vec()];
        assert_eq!(to_curl(&row), Err(NOTHING_SENT.to_owned()));
        assert_eq!(to_har(&row).to_json().matches("startedDateTime").count(), 1);
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
