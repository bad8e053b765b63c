//! The way in which an answer came that was not translated: written into the recording of its request, and read here.

use crate::activity::{StepKind, Tap};
use crate::fleet::Resolved;
use crate::json::Value;
use crate::transport::{Path, Response};

use super::recorded::{note_upstream, refusal_facts};

/// The parameters of a query whose values are kept. Of the others only the names are, since a value may be a key.
const KEPT_PARAMETERS: [&str; 2] = ["beta", "api-version"];

/// The way in which the answer of a recorded request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordedWay {
    /// It was translated from a chat completion.
    Translated,
    /// It passed, from an upstream that speaks the Messages API.
    Messages,
    /// It passed, by OpenAI's protocol.
    OpenAi,
    /// It is a number of tokens that an upstream has counted in the way of its kind, or an estimate.
    Count,
}

impl RecordedWay {
    const NAMES: [(RecordedWay, &'static str); 4] = [
        (RecordedWay::Translated, "translated"),
        (RecordedWay::Messages, "messages"),
        (RecordedWay::OpenAi, "openai"),
        (RecordedWay::Count, "count"),
    ];

    /// The way that the facts of a [`StepKind::Target`] name. A translated answer needs no name.
    pub fn read(facts: &Value<'_>) -> RecordedWay {
        let name = facts.get("way").and_then(Value::as_str);
        Self::NAMES.iter().find(|row| Some(row.1) == name).map_or(RecordedWay::Translated, |row| row.0)
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|row| row.0 == self).map_or("", |row| row.1)
    }
}

/// Notes the upstream that is asked next in this way. `tokens`: the answer to a count if the upstream gives none.
pub(super) fn note_way(tap: &Tap, resolved: &Resolved, way: RecordedWay, tokens: Option<u64>) {
    note_upstream(tap, resolved, || {
        let tokens = tokens.map(|tokens| ("tokens", tokens.into()));
        [("way", way.name().into())].into_iter().chain(tokens).collect()
    });
}

/// Notes a body for an upstream, its type, and the path that it goes to.
pub(super) fn note_sent(tap: &Tap, path: Path<'_>, (kind, body): (&str, &[u8])) {
    tap.note(StepKind::Sent, body, || {
        let (path, is_root) = match path {
            Path::Api(path) => (path, false),
            Path::Root(path) => (path, true),
        };
        let facts = [("path", kept_path(path).into()), ("root", is_root.into()), ("type", kind.into())];
        Value::object(facts).to_json()
    });
}

/// Notes the head of an upstream's successful answer.
pub(super) fn note_answer_head(tap: &Tap, response: &Response) {
    tap.note(StepKind::Head, b"", || {
        let kind = response.content_type().map_or(Value::Null, Value::from);
        Value::object([("status", u64::from(response.status).into()), ("type", kind)]).to_json()
    });
}

/// Notes an upstream's refusal.
pub(super) fn note_refusal(tap: &Tap, status: u16, retry_after: Option<u32>, body: &[u8]) {
    tap.note(StepKind::Refusal, body, || refusal_facts(status, retry_after));
}

/// A path with the values of its query replaced by stars, except for those of [`KEPT_PARAMETERS`].
fn kept_path(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
    let kept = query.split('&').map(|parameter| match parameter.split_once('=') {
        Some((name, value)) if KEPT_PARAMETERS.contains(&name) && is_short(value) => parameter.to_owned(),
        Some((name, _)) if is_short(name) => format!("{name}=***"),
        None if is_short(parameter) => parameter.to_owned(),
        _ => "***".to_owned(),
    });
    format!("{path}?{}", kept.collect::<Vec<_>>().join("&"))
}

/// True for a word that is too short and plain for a key, such as a date.
fn is_short(word: &str) -> bool {
    word.len() <= WORD_SIZE_MAX
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The longest word of a query that is kept, in bytes: `2026-11-30-preview` has 18.
const WORD_SIZE_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_keeps_only_values_that_are_known_to_be_harmless() {
        for (path, kept) in [
            ("/messages", "/messages"),
            ("/messages?beta=true", "/messages?beta=true"),
            ("/embeddings?api-version=2&key=canary&x", "/embeddings?api-version=2&key=***&x"),
            ("/embeddings?a-canary-without-a-name", "/embeddings?***"),
            ("/embeddings?beta=1?key=canary", "/embeddings?beta=***"),
            ("/embeddings?a-canary-without-a-name=1", "/embeddings?***"),
        ] {
            assert_eq!(kept_path(path), kept);
        }
    }

    #[test]
    fn a_way_comes_back_by_its_name() {
        for (way, name) in RecordedWay::NAMES {
            assert_eq!(RecordedWay::read(&Value::object([("way", name.into())])), way);
            assert_eq!(way.name(), name);
        }
        assert_eq!(RecordedWay::read(&Value::Null), RecordedWay::Translated);
    }
}
