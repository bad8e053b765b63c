//! The parts of a recording as texts for a person. However large a part was, its text has a limit.

use crate::activity::{RecordedStep, StepKind, body_difference, read_steps};
use crate::json::{self, Object, PrettyLines, Value, add_changes};
use crate::shown::{cut, plain_json};
use crate::state::RecordingRow;

/// The most bytes of a part that are shown.
pub(super) const PART_SIZE_MAX: usize = 256 * 1024;

/// The most bytes of the text of a part. Line breaks and blanks make it longer than its bytes.
const TEXT_SIZE_MAX: usize = 4 * PART_SIZE_MAX;

/// The most lines of two bodies that are compared. A prompt that fills a window of a million tokens has far fewer.
const LINES_MAX: usize = 100_000;

/// The most bytes of a body whose values are compared one by one; a larger one is compared by lines, which needs no memory.
const COMPARED_SIZE_MAX: usize = 2 * 1024 * 1024;

/// The end of a note with a command. The path of the folder stays at the server.
const WHERE: &str = ", on the server, with --state DIR if serve has it";

/// A part of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordedPart {
    /// The body of the client's request.
    ClientBody,
    /// The changes that `on_request` made to it.
    HookChanges,
    /// The body that was sent to an upstream last.
    UpstreamBody,
    /// Its difference to that of the turn before.
    Difference,
    /// The upstream's bytes.
    UpstreamAnswer,
    /// The client's bytes.
    ClientAnswer,
}

impl RecordedPart {
    /// The parts and their names in a query.
    pub(super) const NAMES: [(RecordedPart, &'static str); 6] = [
        (RecordedPart::ClientBody, "client_body"),
        (RecordedPart::HookChanges, "hook_changes"),
        (RecordedPart::UpstreamBody, "upstream_body"),
        (RecordedPart::Difference, "difference"),
        (RecordedPart::UpstreamAnswer, "upstream_answer"),
        (RecordedPart::ClientAnswer, "client_answer"),
    ];

    /// The part of this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(part, _)| *part)
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(part, _)| *part == self).map_or("", |(_, name)| name)
    }
}

/// A text, and the number of bytes of the part that it was made of.
#[derive(Default)]
struct PartText {
    text: Vec<u8>,
    used: usize,
}

/// A part of a recording as JSON: `request_id`, `part`, `size` (of the part, in bytes), `shown` (the bytes of it that the text
/// has), `notes` and `text`. `before`: the recording of the turn before, for the difference to it.
pub(super) fn show(part: RecordedPart, row: &RecordingRow, before: Option<&RecordingRow>) -> Object<'static> {
    let steps = read_steps(&row.steps, &row.places);
    let [client, _, sent, upstream, answer] = &row.places;
    let mut notes = Vec::new();
    let (size, made) = match part {
        RecordedPart::ClientBody => (client.len(), body(client)),
        RecordedPart::UpstreamBody => {
            notes.extend(sent_note(&steps));
            (sent.len(), body(sent))
        }
        RecordedPart::UpstreamAnswer => (upstream.len(), answer_text(&steps, StepKind::is_of_upstream)),
        RecordedPart::ClientAnswer => (answer.len(), answer_text(&steps, |kind| kind == StepKind::Answer)),
        RecordedPart::HookChanges | RecordedPart::Difference => {
            let text = compared(part, row, before, &mut notes);
            (text.len(), PartText { used: text.len(), text: text.into_bytes() })
        }
    };
    if size == 0 && notes.is_empty() {
        notes.push("empty: nothing was sent here".to_owned());
    }
    if made.used < size {
        let command = if part == RecordedPart::UpstreamBody { " --curl" } else { "" };
        notes.push(format!(
            "only the first {} of {size} bytes are shown: `sparkgap show {}{command}` prints all that was kept{WHERE}",
            made.used, row.id
        ));
    }
    // Characters that could make a line read as another one are escaped as JSON does it.
    let text = String::from_utf8_lossy(&made.text);
    let escaped = plain_json(&text);
    let text = cut(&escaped, TEXT_SIZE_MAX);
    if text.len() < escaped.len() {
        notes.push(format!(
            "the text ends after {TEXT_SIZE_MAX} bytes: `sparkgap show {}` prints more{WHERE}",
            row.id
        ));
    }
    if row.is_cut {
        notes.push("a limit has cut this recording; a part of it is missing".to_owned());
    }
    let mut shown = Object::new();
    shown.push("request_id", row.id.clone());
    shown.push("part", part.name());
    shown.push("size", size as u64);
    shown.push("shown", made.used as u64);
    shown.push("notes", notes.into_iter().map(Value::from).collect::<Vec<_>>());
    shown.push("text", text.to_owned());
    shown
}

/// The changes of a hook, or the difference to the turn before; empty with a note if there is nothing to compare.
fn compared(
    part: RecordedPart,
    row: &RecordingRow,
    before: Option<&RecordingRow>,
    notes: &mut Vec<String>,
) -> String {
    let [client, hooked, sent, ..] = &row.places;
    let is_hook = part == RecordedPart::HookChanges;
    let text = match before {
        _ if is_hook && hooked.is_empty() => Err("on_request did not change this body, or is not defined"),
        _ if is_hook => Ok(changes(client, hooked)),
        _ if sent.is_empty() => Err("no upstream was asked"),
        None => Err("no earlier turn of its conversation was recorded, so there is nothing to compare with"),
        Some(before) => {
            notes.push(format!("compared with {}", before.id));
            let [_, _, earlier, ..] = &before.places;
            Ok(body_difference(earlier, sent, LINES_MAX, PART_SIZE_MAX))
        }
    };
    let text = text.unwrap_or_else(|why| {
        notes.push(why.to_owned());
        String::new()
    });
    if text.len() >= PART_SIZE_MAX {
        let command = if is_hook { "" } else { " --diff" };
        notes.push(format!(
            "only the first {PART_SIZE_MAX} bytes are shown: `sparkgap show {}{command}` prints more{WHERE}",
            row.id
        ));
    }
    text
}

/// The upstream that got the last body, and the number of those before, which are not kept.
fn sent_note(steps: &[RecordedStep<'_>]) -> Option<String> {
    let count = steps.iter().filter(|step| step.kind == StepKind::Sent).count();
    let sent = steps.iter().rfind(|step| step.kind == StepKind::Sent)?;
    let target = steps.iter().rfind(|step| step.kind == StepKind::Target);
    let mut facts = target.map_or("", |target| target.facts).as_bytes().to_vec();
    let facts = json::parse(&mut facts).unwrap_or(Value::Null);
    let name = facts.get("upstream").and_then(Value::as_str).unwrap_or_default();
    let more = if count > 1 { format!(", the last of {count} bodies") } else { String::new() };
    Some(format!("sent to {name} after {} ms{more}", sent.at / 1000))
}

/// The beginning of these bytes, without a torn character.
fn beginning(bytes: &[u8], size_max: usize) -> &[u8] {
    let is_begin = |at: &usize| bytes.get(*at).is_none_or(|byte| byte & 0xC0 != 0x80);
    let end = size_max.min(bytes.len());
    // A character has at most four bytes.
    let end = (end.saturating_sub(3)..=end).rev().find(is_begin).unwrap_or(end);
    bytes.get(..end).unwrap_or_default()
}

/// A body, with an entry a line.
fn body(bytes: &[u8]) -> PartText {
    let mut made = PartText::default();
    add_body(bytes, PART_SIZE_MAX, &mut made);
    made
}

fn add_body(bytes: &[u8], size_max: usize, made: &mut PartText) {
    let kept = beginning(bytes, size_max);
    let mut lines = PrettyLines::new(kept);
    while made.text.len() < TEXT_SIZE_MAX {
        let Some(line) = lines.next() else { break };
        line.write(&mut made.text);
        made.text.push(b'\n');
    }
    made.used += kept.len() - lines.left();
}

/// The changes of a hook, by the paths of the values.
fn changes(before: &[u8], after: &[u8]) -> String {
    if before.len().max(after.len()) <= COMPARED_SIZE_MAX {
        let (mut old, mut new) = (before.to_vec(), after.to_vec());
        if let (Ok(old), Ok(new)) = (json::parse(&mut old), json::parse(&mut new)) {
            let mut text = String::new();
            add_changes("", &old, &new, &mut text);
            text.truncate(beginning(text.as_bytes(), PART_SIZE_MAX).len());
            return text;
        }
    }
    body_difference(before, after, LINES_MAX, PART_SIZE_MAX)
}

/// The bytes of an answer with their times: an event a line, a whole body as JSON.
fn answer_text(steps: &[RecordedStep<'_>], is_wanted: impl Fn(StepKind) -> bool) -> PartText {
    let mut made = PartText::default();
    let mut pieces = Pieces::default();
    for step in steps.iter().filter(|step| is_wanted(step.kind)) {
        let left = PART_SIZE_MAX.saturating_sub(made.used + pieces.bytes.len());
        if step.kind == StepKind::Piece || step.kind == StepKind::Answer {
            pieces.begins.push((pieces.bytes.len(), step.at));
            pieces.bytes.extend_from_slice(step.bytes.get(..left).unwrap_or(step.bytes));
            continue;
        }
        pieces.write(&mut made);
        let word = if step.kind == StepKind::Refusal { "refused " } else { "" };
        made.text.extend_from_slice(format!("{:>8} ms  {word}{}\n", step.at / 1000, step.facts).as_bytes());
        add_body(step.bytes, left, &mut made);
    }
    pieces.write(&mut made);
    made
}

/// Bytes of one answer, and where each piece of them began, with its time in microseconds.
#[derive(Default)]
struct Pieces {
    bytes: Vec<u8>,
    begins: Vec<(usize, u64)>,
}

impl Pieces {
    /// Writes the events, and forgets them. The time of an event is that of its first byte.
    fn write(&mut self, made: &mut PartText) {
        let Pieces { bytes, begins } = std::mem::take(self);
        let bytes = beginning(&bytes, bytes.len());
        let time = |at: u64| format!("{:>8} ms  ", at / 1000);
        if matches!(bytes.first(), Some(b'{' | b'[')) {
            let began = begins.first().map_or(0, |begin| begin.1);
            made.text.extend_from_slice(format!("{}\n", time(began)).as_bytes());
            return add_body(bytes, bytes.len(), made);
        }
        let (mut at, mut next, mut is_new) = (0, begins.iter().peekable(), true);
        let mut now = 0;
        for line in bytes.split(|byte| *byte == b'\n') {
            if made.text.len() >= TEXT_SIZE_MAX {
                break;
            }
            while let Some((_, time)) = next.next_if(|(from, _)| *from <= at) {
                now = *time;
            }
            let shown = line.strip_suffix(b"\r").unwrap_or(line);
            if !shown.is_empty() {
                let start = if is_new { time(now) } else { " ".repeat(time(now).len()) };
                made.text.extend_from_slice(start.as_bytes());
                made.text.extend_from_slice(shown);
                made.text.push(b'\n');
            }
            is_new = shown.is_empty();
            at += line.len() + 1;
        }
        made.used += at.min(bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(steps: &str, places: [&str; 5]) -> RecordingRow {
        RecordingRow {
            id: "req_1".to_owned(),
            steps: steps.to_owned(),
            places: places.map(|text| text.as_bytes().to_vec()),
            ..RecordingRow::default()
        }
    }

    fn shown(part: RecordedPart, row: &RecordingRow) -> (String, String) {
        let shown = Value::from(show(part, row, None)).to_json();
        let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
        (value["text"].as_str().unwrap().to_owned(), value["notes"].to_string())
    }

    #[test]
    fn an_answer_has_a_line_for_each_event_with_its_time() {
        let steps = "1000 b 2 \n2000 r 9 {\"status\":400}\n3000 u 10 \n4500 u 13 \n5000 u 4 \n9000 u 0 \n1500 k 0 {\"upstream\":\"box\"}\n1900 b 2 \n";
        let answer = "{\"no\":tru: hi\n\ndata: {\"a\":1}\r\n\r\nx: y";
        let row = row(steps, ["", "", "{}", answer, ""]);
        let (text, notes) = shown(RecordedPart::UpstreamAnswer, &row);
        assert_eq!(
            text,
            "       2 ms  refused {\"status\":400}\n{\n  \"no\": tru\n       3 ms  : hi\n       3 ms  data: {\"a\":1}\n       5 ms  x: y\n"
        );
        assert_eq!(notes, "[]");
        let (_, notes) = shown(RecordedPart::UpstreamBody, &row);
        assert_eq!(notes, r#"["sent to box after 1 ms, the last of 2 bodies"]"#);
        let (text, notes) = shown(RecordedPart::ClientAnswer, &row);
        assert!(text.is_empty() && notes.contains("nothing was sent"), "{notes}");
    }

    #[test]
    fn a_hooks_changes_are_named_by_their_paths() {
        let with = |hooked: &str| row("", [r#"{"model":"a","n":[1,2]}"#, hooked, "", "", ""]);
        let (text, _) = shown(RecordedPart::HookChanges, &with(r#"{"model":"b","n":[1,2,3]}"#));
        assert_eq!(text, "- model: \"a\"\n+ model: \"b\"\n+ n[3]: 3\n");
        let (text, notes) = shown(RecordedPart::HookChanges, &with(""));
        assert!(text.is_empty() && notes.contains("did not change"), "{notes}");
        let (text, _) = shown(RecordedPart::HookChanges, &with("rubbish"));
        assert!(text.starts_with("@@ line 1 @@\n- {\n"), "{text}");
    }

    #[test]
    fn a_part_of_any_size_has_a_text_of_limited_size() {
        let deep = format!("{}{}", "[".repeat(200), "0,".repeat(2_000_000));
        let long = format!("{{\"a\":\"{}\"}}", "é".repeat(1_000_000));
        let breaks = "\n".repeat(5_000_000);
        let events = "a\n".repeat(2_000_000);
        let controls = "\u{0}".repeat(3_000_000);
        for bytes in [&deep, &long, &breaks, &events, &controls] {
            let steps = format!("1 u {}\n2 c {}\n", bytes.len(), bytes.len());
            let row = row(&steps, [bytes, "[1]", bytes, bytes, bytes]);
            for (part, _) in
                RecordedPart::NAMES.into_iter().filter(|(part, _)| *part != RecordedPart::Difference)
            {
                let (text, notes) = shown(part, &row);
                assert!(text.len() <= TEXT_SIZE_MAX, "{part:?} {}", text.len());
                assert!(!text.contains('\u{fffd}') && !text.contains('\u{0}'), "{part:?}");
                let is_told = notes.contains("sparkgap show req_1") || part == RecordedPart::HookChanges;
                assert!(is_told, "{part:?} {notes}");
            }
            let difference =
                show(RecordedPart::Difference, &row, Some(&self::row("", ["", "", "{}", "", ""])));
            assert!(Value::from(difference).to_json().len() <= 8 * PART_SIZE_MAX);
        }
    }

    #[test]
    fn text_that_would_read_as_another_one_is_escaped() {
        let row = row("", ["{\"a\":\"x\u{202e}y\u{200b}</script>\"}", "", "", "", ""]);
        let (text, _) = shown(RecordedPart::ClientBody, &row);
        assert_eq!(text, "{\n  \"a\": \"x\\u202ey\\u200b</script>\"\n}\n");
    }
}
