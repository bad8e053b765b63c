//! The last call to an upstream in a recording: where it went, how, and what came back. Shared by `show` and `replay`.

use crate::activity::{StepKind, read_steps};
use crate::dialect::ServerKind;
use crate::json::{self, Value};
use crate::openai::{cut_form_files, is_form};
use crate::proxy::RecordedWay;
use crate::shown::ShownText;
use crate::state::RecordingRow;

/// The type of most bodies.
pub(super) const JSON: &str = "application/json";

/// The error for a recording without a call.
pub(super) const NOTHING_SENT: &str = "no upstream was asked, so there is nothing to send";

/// The last call to an upstream.
#[derive(Debug)]
pub(super) struct RecordedCall {
    pub(super) way: RecordedWay,
    /// The base URL of the upstream.
    pub(super) base: String,
    /// The path below it, or beside its `/v1` if `is_root`.
    pub(super) path: String,
    pub(super) is_root: bool,
    /// The type of the body.
    pub(super) kind: String,
    /// The type of its answer, if it told one.
    pub(super) answer_kind: Option<String>,
    /// The kind of the server.
    pub(super) flavour: Option<ServerKind>,
}

impl RecordedCall {
    /// Reads the last call of a recording. `None`: no upstream was asked.
    pub(super) fn read(row: &RecordingRow) -> Option<RecordedCall> {
        let steps = read_steps(&row.steps, &row.places);
        let facts = |kind: StepKind| -> Option<Value<'static>> {
            let mut text = steps.iter().rfind(|step| step.kind == kind)?.facts.as_bytes().to_vec();
            Some(json::parse(&mut text).ok()?.into_owned())
        };
        let target = facts(StepKind::Target)?;
        // A number of tokens may be an estimate: an upstream was chosen, and nothing was sent.
        steps.iter().find(|step| step.kind == StepKind::Sent)?;
        let sent = facts(StepKind::Sent).unwrap_or(Value::Null);
        let text = |facts: &Value<'_>, key: &str| facts.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(RecordedCall {
            way: RecordedWay::read(&target),
            base: text(&target, "url")?,
            path: text(&sent, "path").unwrap_or_else(|| "/chat/completions".to_owned()),
            is_root: sent.get("root").and_then(Value::as_bool).unwrap_or_default(),
            kind: text(&sent, "type").unwrap_or_else(|| JSON.to_owned()),
            flavour: text(&target, "flavour").and_then(|name| ServerKind::from_name(&name)),
            answer_kind: facts(StepKind::Head).and_then(|head| text(&head, "type")),
        })
    }

    /// The whole URL.
    pub(super) fn url(&self) -> String {
        let base = match self.is_root {
            true => self.base.strip_suffix("/v1").unwrap_or(&self.base),
            false => &self.base,
        };
        format!("{base}{}", self.path)
    }

    /// The name of the protocol that its server must speak.
    pub(super) fn protocol(&self) -> &'static str {
        match self.way {
            RecordedWay::Messages => "the Messages API",
            RecordedWay::Translated | RecordedWay::OpenAi => "OpenAI's protocol",
            RecordedWay::Count => "this server's own way to count tokens",
        }
    }
}

/// The body that was sent to the upstream last.
pub(super) fn sent_of(row: &RecordingRow) -> &[u8] {
    let [_, _, sent, ..] = &row.places;
    sent
}

/// The upstream's bytes since the last body was sent.
pub(super) fn last_answer(row: &RecordingRow) -> Vec<u8> {
    let steps = read_steps(&row.steps, &row.places);
    let sent = steps.iter().rposition(|step| step.kind == StepKind::Sent).unwrap_or_default();
    let answers = steps.iter().skip(sent).filter(|step| step.kind.place() == Some(ANSWER_PLACE));
    answers.map(|step| step.bytes).collect::<Vec<_>>().concat()
}

/// The index of the place of an upstream's bytes.
const ANSWER_PLACE: usize = 3;

/// The headers of the client's request that go to an upstream of the Messages API and whose values are kept.
pub(super) fn passed_headers(row: &RecordingRow) -> Vec<(String, String)> {
    let mut head = row.head.as_bytes().to_vec();
    let head = json::parse(&mut head).unwrap_or(Value::Null);
    let headers = head.get("request").and_then(|request| request.get("headers")).and_then(Value::as_array);
    let passed = headers.unwrap_or_default().iter().filter_map(|header| {
        let (name, value) = (header.get("name")?.as_str()?, header.get("value")?.as_str()?);
        (name.starts_with("anthropic-") && !value.contains('*')).then(|| (name.to_owned(), value.to_owned()))
    });
    let mut passed: Vec<_> = passed.collect();
    if !passed.iter().any(|(name, _)| name == "anthropic-version") {
        passed.push(("anthropic-version".to_owned(), "2023-06-01".to_owned()));
    }
    passed
}

/// Bytes as text. Those that are not text, such as audio, are named by their size and type; so are the files of a form.
pub(super) fn readable(bytes: &[u8], kind: &str) -> String {
    let cut = cut_form_files(bytes, kind).filter(|_| is_form(kind));
    let bytes = cut.as_deref().unwrap_or(bytes);
    // A limit may have cut a text within a character.
    let is_text = std::str::from_utf8(bytes).err().is_none_or(|error| error.error_len().is_none());
    match is_text && !bytes.contains(&0) {
        true => String::from_utf8_lossy(bytes).into_owned(),
        false => format!("({} bytes of {}, not text)", bytes.len(), ShownText::new(kind)),
    }
}

/// The type of the client's body.
pub(super) fn client_kind(head: &Value<'_>) -> String {
    let headers = head.get("request").and_then(|request| request.get("headers")).and_then(Value::as_array);
    kind_in(headers.unwrap_or_default()).unwrap_or(JSON).to_owned()
}

/// The value of `content-type` among headers.
pub(super) fn kind_in<'v>(headers: &'v [Value<'_>]) -> Option<&'v str> {
    let is_kind = |header: &&Value<'_>| header.get("name").and_then(Value::as_str) == Some("content-type");
    headers.iter().find(is_kind)?.get("value")?.as_str()
}
