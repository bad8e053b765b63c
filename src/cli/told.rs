//! The content of answers, so that two of them can be compared: without ids and times.

use std::fmt::Write as _;

use super::recorded_call::readable;
use crate::activity::hide_keys;
use crate::hash::Fnv;
use crate::json::{self, Value};

/// The members of OpenAI's answers that hold content.
const CONTENT: [&str; 9] = [
    "content",
    "text",
    "reasoning",
    "reasoning_content",
    "refusal",
    "arguments",
    "delta",
    "embedding",
    "relevance_score",
];

/// The content of an answer, as far as two answers can be compared: without ids and times.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Text, reasoning and tool calls, or the error.
    pub(super) content: String,
    stop_reason: String,
    output_tokens: u64,
}

impl Told {
    /// Reads events of the Messages API, or a whole message.
    pub(super) fn read(bytes: &[u8]) -> Told {
        let mut told = Told::default();
        if bytes.trim_ascii_start().starts_with(b"{") {
            let mut copy = bytes.to_vec();
            if let Ok(message) = json::parse(&mut copy) {
                message.get("content").and_then(Value::as_array).into_iter().flatten().for_each(|block| {
                    told.begin(block);
                    told.add(block);
                    if let Some(input) = block.get("input") {
                        told.content.push_str(&input.to_json());
                    }
                });
                told.end(&message, message.get("usage"));
            }
            return told;
        }
        let text = String::from_utf8_lossy(bytes);
        for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let mut copy = data.as_bytes().to_vec();
            let Ok(event) = json::parse(&mut copy) else { continue };
            match event.get("type").and_then(Value::as_str) {
                // The whole of a block's input comes in its deltas.
                Some("content_block_start") => {
                    event.get("content_block").into_iter().for_each(|block| told.begin(block))
                }
                Some("content_block_delta") => {
                    event.get("delta").into_iter().for_each(|delta| told.add(delta))
                }
                Some("message_delta") => {
                    told.end(event.get("delta").unwrap_or(&Value::Null), event.get("usage"));
                }
                Some("error") => told.end(&event, None),
                _ => {}
            }
        }
        told
    }

    /// Reads an answer of OpenAI's protocol: events, JSON, or bytes that are not text.
    pub(super) fn read_openai(bytes: &[u8], kind: &str) -> Told {
        let mut told = Told::default();
        let mut add = |json: &[u8]| match json::parse(&mut json.to_vec()) {
            Ok(value) => told.collect(&value, false),
            Err(_) => false,
        };
        if add(bytes) {
            return told;
        }
        let text = String::from_utf8_lossy(bytes);
        let events = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let added = events.filter(|data| add(data.trim().as_bytes())).count();
        if added > 0 {
            return told;
        }
        let content = format!("{}\n{:016x}", readable(bytes, kind), Fnv::EMPTY.push(bytes).mixed());
        Told { content, ..Told::default() }
    }

    /// An answer that is a number of tokens.
    pub(super) fn count(tokens: Option<u64>) -> Told {
        let content = tokens.map_or("no number of tokens".to_owned(), |tokens| format!("{tokens} tokens"));
        Told { content, ..Told::default() }
    }

    /// Adds the content of an object, and of those in it. Returns true, since it was JSON.
    fn collect(&mut self, value: &Value<'_>, is_content: bool) -> bool {
        match value {
            Value::Object(object) => {
                for (key, inner) in object.iter() {
                    let count = || inner.as_u64().unwrap_or_default();
                    match (key, inner.as_str()) {
                        ("finish_reason" | "status", Some(reason)) => {
                            reason.clone_into(&mut self.stop_reason)
                        }
                        ("completion_tokens" | "output_tokens", _) => self.output_tokens = count(),
                        ("message", Some(message)) => {
                            let _ = write!(self.content, "error: {message}");
                        }
                        ("name", Some(name)) => {
                            let _ = write!(self.content, "[{name}]");
                        }
                        _ => _ = self.collect(inner, CONTENT.contains(&key)),
                    }
                }
            }
            Value::Array(items) if !is_content || items.iter().any(|item| item.as_object().is_some()) => {
                items.iter().for_each(|item| _ = self.collect(item, is_content));
            }
            Value::String(text) if is_content => self.content.push_str(text),
            Value::Null => {}
            number if is_content => self.content.push_str(&number.to_json()),
            _ => {}
        }
        true
    }

    fn begin(&mut self, block: &Value<'_>) {
        let field = |key: &str| block.get(key).and_then(Value::as_str).unwrap_or_default();
        if !self.content.is_empty() {
            self.content.push('\n');
        }
        self.content.push_str(&format!("[{}] {}", field("type"), field("name")));
    }

    fn add(&mut self, piece: &Value<'_>) {
        for key in ["text", "thinking", "partial_json"] {
            self.content.push_str(piece.get(key).and_then(Value::as_str).unwrap_or_default());
        }
    }

    fn end(&mut self, end: &Value<'_>, usage: Option<&Value<'_>>) {
        if let Some(reason) = end.get("stop_reason").and_then(Value::as_str) {
            self.stop_reason = reason.to_owned();
        }
        if let Some(error) = end.get("error").and_then(|error| error.get("message")).and_then(Value::as_str) {
            self.content.push_str(&format!("error: {error}"));
        }
        let tokens = usage.and_then(|usage| usage.get("output_tokens")).and_then(Value::as_u64);
        self.output_tokens = tokens.unwrap_or(self.output_tokens);
    }

    /// Replaces keys by stars.
    pub(super) fn hide_keys(&mut self, known: &[String]) {
        let mut bytes = std::mem::take(&mut self.content).into_bytes();
        hide_keys(&mut bytes, known);
        self.content = String::from_utf8_lossy(&bytes).into_owned();
    }

    /// One line about it.
    pub(super) fn line(&self) -> String {
        let Told { content, stop_reason, output_tokens } = self;
        format!("{} characters, stop reason {stop_reason}, {output_tokens} tokens", content.chars().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_came_in_pieces_is_hidden() {
        let event = |text: &str| {
            format!("data: {{\"type\":\"content_block_delta\",\"delta\":{{\"text\":\"{text}\"}}}}\n\n")
        };
        let read = |pieces: &[&str]| {
            let mut told = Told::read(pieces.iter().map(|text| event(text)).collect::<String>().as_bytes());
            told.hide_keys(&["canary.4711".to_owned()]);
            told
        };
        let whole = read(&["the key canary.4711"]);
        assert_eq!(whole.content, "the key ***********");
        assert_eq!(read(&["the key can", "ary.", "4711"]), whole);
        assert_eq!(read(&["the key ***********"]), whole, "the recorder had hidden it");
    }

    #[test]
    fn events_and_a_message_of_the_same_content_are_the_same() {
        let message = br#"{"content":[{"type":"text","text":"Hi"},{"type":"tool_use","name":"Bash","input":{"a":1}}],"stop_reason":"tool_use","usage":{"output_tokens":3}}"#;
        let events = [
            r#"data: {"type":"content_block_start","content_block":{"type":"text","text":""}}"#,
            r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"H"}}"#,
            r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"i"}}"#,
            r#"data: {"type":"content_block_start","content_block":{"type":"tool_use","name":"Bash","input":{}}}"#,
            r#"data: {"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}"#,
            r#"data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":3}}"#,
            "data: rubbish",
        ];
        let told = Told::read(events.join("\n\n").as_bytes());
        assert_eq!(told, Told::read(message));
        assert_eq!(told.content, "[text] Hi\n[tool_use] Bash{\"a\":1}");
        assert_eq!(
            Told::read_openai(b"data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"H\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"i\"},\"finish_reason\":\"stop\"}],\"usage\":{\"completion_tokens\":2}}\n\ndata: [DONE]\n\n", ""),
            Told::read_openai(br#"{"id":"2","created":7,"choices":[{"message":{"role":"assistant","content":"Hi","tool_calls":[]},"finish_reason":"stop"}],"usage":{"completion_tokens":2}}"#, "")
        );
        let embedding = Told::read_openai(br#"{"data":[{"index":0,"embedding":[0.5,1]}]}"#, "");
        assert_eq!(embedding.content, "[0.5,1]");
        let audio = |bytes: &[u8]| Told::read_openai(bytes, "audio/mpeg");
        assert!(
            audio(b"\xff\0a") != audio(b"\xff\0b")
                && audio(b"\xff").content.starts_with("(1 bytes of audio/mpeg")
        );
        let error = Told::read(br#"{"type":"error","error":{"message":"no"}}"#);
        assert_eq!(error.content, "error: no");
        assert_eq!(Told::read(b"{"), Told::default());
    }
}
