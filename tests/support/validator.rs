//! A strict judge of the bytes that a client gets: an Anthropic event stream, or a whole Message.
//!
//! It is stricter than any SDK, because a mistake that no client notices today may break one tomorrow. It shares no
//! code with the translation. docs/translation.md, 0 and 0b, names the clients that each rule protects.

use serde_json::Value;

use super::json_prefix::object_prefix;

/// How an event stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `message_delta`, `message_stop`.
    Whole,
    /// `error`.
    Failed,
}

type Verdict<T> = Result<T, String>;

#[derive(Default)]
struct Judge {
    started: bool,
    next_index: u64,
    open: Option<Open>,
    blocks: Vec<Value>,
    ended: Option<Ended>,
    has_delta: bool,
    stop_reason: String,
}

struct Open {
    kind: String,
    text: String,
    signature: String,
    json: String,
}

// covers: 106, 108
/// Judges a whole stream. Returns how it ended, and the content that a client has put together.
pub fn stream(bytes: &[u8]) -> Verdict<(Ended, Vec<Value>)> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
    let mut judge = Judge::default();
    let body = text.strip_suffix("\n\n").ok_or("the last event has no blank line")?;
    for frame in body.split("\n\n") {
        judge.frame(frame).map_err(|what| format!("{what}\nin {frame}"))?;
    }
    let ended = judge.ended.ok_or("no message_stop and no error")?;
    if ended == Ended::Whole {
        stop_fits_content(&judge.stop_reason, &judge.blocks)?;
    }
    Ok((ended, judge.blocks))
}

/// Judges a whole Message. Returns its content.
pub fn message(bytes: &[u8]) -> Verdict<Vec<Value>> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    head(&value)?;
    let content = value["content"].as_array().ok_or("content is no list")?;
    for block in content {
        whole_block(block)?;
    }
    let reason = stop(&value)?;
    usage(&value["usage"], true)?;
    stop_fits_content(reason, content)?;
    Ok(content.clone())
}

/// Judges an error's envelope. Returns its type and message.
pub fn error(bytes: &[u8]) -> Verdict<(String, String)> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    keys(&value, &["type", "error", "request_id"])?;
    is(&value, "type", "error")?;
    let (kind, message) = (string(&value["error"], "type")?, string(&value["error"], "message")?);
    if kind.is_empty() || message.is_empty() {
        return Err(format!("an empty type or message: {value}"));
    }
    for leak in ["Traceback", ".py\"", ".rs:", "/home/", "/usr/", "Bearer "] {
        if message.contains(leak) {
            return Err(format!("leaks {leak}: {message}"));
        }
    }
    Ok((kind.to_string(), message.to_string()))
}

impl Judge {
    fn frame(&mut self, frame: &str) -> Verdict<()> {
        let lines: Vec<&str> = frame.split('\n').collect();
        let [event, data] = lines.as_slice() else { return Err("not two lines".into()) };
        let name = event.strip_prefix("event: ").ok_or("no event name")?;
        let data = data.strip_prefix("data: ").ok_or("no data")?;
        let value: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
        is(&value, "type", name)?;
        if self.ended.is_some() {
            return Err("an event after the last".into());
        }
        if !self.started && !matches!(name, "message_start" | "error") {
            return Err("the first event is not message_start".into());
        }
        match name {
            "message_start" => self.message_start(&value),
            "ping" => keys(&value, &["type"]),
            "content_block_start" => self.block_start(&value),
            "content_block_delta" => self.block_delta(&value),
            "content_block_stop" => self.block_stop(&value),
            "message_delta" => self.message_delta(&value),
            "message_stop" => self.message_stop(&value),
            "error" => self.error(data),
            _ => Err("an unknown event".into()),
        }
    }

    fn message_start(&mut self, value: &Value) -> Verdict<()> {
        keys(value, &["type", "message"])?;
        if std::mem::replace(&mut self.started, true) {
            return Err("a second message_start".into());
        }
        let message = &value["message"];
        head(message)?;
        if message["content"] != Value::Array(Vec::new()) {
            return Err("content is not empty".into());
        }
        for key in ["stop_reason", "stop_sequence"] {
            if message.get(key) != Some(&Value::Null) {
                return Err(format!("{key} is not null"));
            }
        }
        usage(&message["usage"], false)
    }

    fn index(&self, value: &Value, expected: u64) -> Verdict<()> {
        if value["index"].as_u64() == Some(expected) {
            Ok(())
        } else {
            Err(format!("index is not {expected}"))
        }
    }

    fn block_start(&mut self, value: &Value) -> Verdict<()> {
        keys(value, &["type", "index", "content_block"])?;
        if self.open.is_some() {
            return Err("a block is still open".into());
        }
        if self.has_delta {
            return Err("a block after message_delta".into());
        }
        // The SDKs' eager tool runners run a call once the next block begins.
        if self.blocks.last().is_some_and(|block| block["type"] == "tool_use" && !block["input"].is_object())
        {
            return Err("a block behind a call that is not whole".into());
        }
        self.index(value, self.next_index)?;
        let block = &value["content_block"];
        let kind = string(block, "type")?;
        match kind {
            "text" => (keys(block, &["type", "text"])?, is(block, "text", "")?).1,
            "thinking" => {
                keys(block, &["type", "thinking", "signature"])?;
                is(block, "thinking", "")?;
                is(block, "signature", "")?;
            }
            "tool_use" => {
                keys(block, &["type", "id", "name", "input"])?;
                tool_id(string(block, "id")?)?;
                if block["input"] != Value::Object(serde_json::Map::new())
                    || string(block, "name")?.is_empty()
                {
                    return Err("input is not {}, or no name".into());
                }
            }
            "server_tool_use" => {
                keys(block, &["type", "id", "name", "input"])?;
                server_tool_id(string(block, "id")?)?;
                if block["input"] != Value::Object(serde_json::Map::new()) {
                    return Err("input is not {}".into());
                }
            }
            "web_search_tool_result" => search_result(block)?,
            _ => return Err("an unknown block type".into()),
        }
        let (text, signature, json) = Default::default();
        self.open = Some(Open { kind: kind.to_string(), text, signature, json });
        self.blocks.push(block.clone());
        Ok(())
    }

    fn block_delta(&mut self, value: &Value) -> Verdict<()> {
        keys(value, &["type", "index", "delta"])?;
        self.index(value, self.next_index)?;
        let open = self.open.as_mut().ok_or("no block is open")?;
        let delta = &value["delta"];
        let (wanted, key, into) = match (open.kind.as_str(), string(delta, "type")?) {
            ("text", kind) => (kind == "text_delta", "text", &mut open.text),
            ("tool_use" | "server_tool_use", kind) => {
                (kind == "input_json_delta", "partial_json", &mut open.json)
            }
            ("thinking", "signature_delta") => (open.signature.is_empty(), "signature", &mut open.signature),
            (_, kind) => (kind == "thinking_delta" && open.signature.is_empty(), "thinking", &mut open.text),
        };
        keys(delta, &["type", key])?;
        let piece = string(delta, key)?;
        if !wanted || piece.is_empty() {
            return Err("a delta of the wrong type or place, or an empty one".into());
        }
        into.push_str(piece);
        if let Err(at) = object_prefix(&open.json) {
            return Err(format!("illegal JSON at {at}: {}", open.json));
        }
        Ok(())
    }

    fn block_stop(&mut self, value: &Value) -> Verdict<()> {
        keys(value, &["type", "index"])?;
        self.index(value, self.next_index)?;
        let open = self.open.take().ok_or("no block is open")?;
        let block = self.blocks.last_mut().ok_or("no block")?;
        match open.kind.as_str() {
            "web_search_tool_result" => {}
            "text" if open.text.trim().is_empty() => return Err("a text block of white space".into()),
            "text" => block["text"] = open.text.into(),
            "thinking" if open.signature.is_empty() => return Err("no signature".into()),
            "thinking" => {
                block["thinking"] = open.text.into();
                block["signature"] = open.signature.into();
            }
            // An incomplete call is allowed only at the token limit and before an error, see `stop_fits_content`.
            _ if !open.json.is_empty() && object_prefix(&open.json) == Ok(false) => {
                block["input"] = Value::String(open.json);
            }
            _ if !open.json.is_empty() => {
                block["input"] = serde_json::from_str(&open.json).map_err(|error| error.to_string())?;
            }
            _ => {}
        }
        self.next_index += 1;
        Ok(())
    }

    fn message_delta(&mut self, value: &Value) -> Verdict<()> {
        keys(value, &["type", "delta", "usage"])?;
        if value["delta"]["stop_reason"].is_null() && !self.has_delta {
            return self.usage_so_far(value);
        }
        if self.open.is_some() || std::mem::replace(&mut self.has_delta, true) {
            return Err("a second message_delta, or a block is open".into());
        }
        self.stop_reason = stop(&value["delta"])?.to_string();
        usage(&value["usage"], true)
    }

    /// Judges usage in the middle of a stream, which must not say anything of an end.
    fn usage_so_far(&self, value: &Value) -> Verdict<()> {
        keys(&value["delta"], &["stop_reason", "stop_sequence", "stop_details"])?;
        if value["delta"].as_object().is_some_and(|delta| delta.values().any(|value| !value.is_null())) {
            return Err("an end without a reason".into());
        }
        usage(&value["usage"], true)
    }

    fn message_stop(&mut self, value: &Value) -> Verdict<()> {
        keys(value, &["type"])?;
        self.ended = Some(Ended::Whole);
        if self.has_delta { Ok(()) } else { Err("no message_delta before it".into()) }
    }

    fn error(&mut self, data: &str) -> Verdict<()> {
        self.ended = Some(Ended::Failed);
        if self.open.is_some() || self.has_delta {
            return Err("a block is open, or message_delta was sent".into());
        }
        error(data.as_bytes()).map(|_| ())
    }
}

/// Judges the members that `message_start` and a whole Message have in common.
fn head(message: &Value) -> Verdict<()> {
    keys(
        message,
        &["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "stop_details", "usage"],
    )?;
    is(message, "type", "message")?;
    is(message, "role", "assistant")?;
    let id = string(message, "id")?;
    if !id.starts_with("msg_") || id.len() < 20 || string(message, "model")?.is_empty() {
        return Err(format!("id {id}, or no model"));
    }
    Ok(())
}

fn whole_block(block: &Value) -> Verdict<()> {
    match string(block, "type")? {
        "text" => {
            keys(block, &["type", "text"])?;
            if string(block, "text")?.trim().is_empty() { Err("an empty text".into()) } else { Ok(()) }
        }
        "thinking" => {
            keys(block, &["type", "thinking", "signature"])?;
            if string(block, "signature")?.is_empty() { Err("no signature".into()) } else { Ok(()) }
        }
        "tool_use" => {
            keys(block, &["type", "id", "name", "input"])?;
            tool_id(string(block, "id")?)?;
            if block["input"].is_object() { Ok(()) } else { Err("input is no object".into()) }
        }
        "server_tool_use" => {
            keys(block, &["type", "id", "name", "input"])?;
            server_tool_id(string(block, "id")?)?;
            if block["input"]["query"].is_string() { Ok(()) } else { Err("a search without a query".into()) }
        }
        "web_search_tool_result" => search_result(block),
        kind => Err(format!("block type {kind}")),
    }
}

fn stop(value: &Value) -> Verdict<&str> {
    for key in ["stop_reason", "stop_sequence", "stop_details"] {
        value.get(key).ok_or(format!("no {key}"))?;
    }
    let reason = string(value, "stop_reason")?;
    let known =
        ["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "model_context_window_exceeded"];
    if !known.contains(&reason) {
        return Err(format!("stop_reason {reason}"));
    }
    if (reason == "stop_sequence") != value["stop_sequence"].is_string() {
        return Err("stop_sequence and stop_reason disagree".into());
    }
    if (reason == "refusal") != value["stop_details"].is_object() {
        return Err("stop_details and stop_reason disagree".into());
    }
    Ok(reason)
}

/// The reason is `tool_use` if and only if a complete call is there. An incomplete call is allowed only at the token
/// limit.
fn stop_fits_content(reason: &str, content: &[Value]) -> Verdict<()> {
    let calls = content.iter().filter(|block| block["type"] == "tool_use");
    let (whole, cut): (Vec<&Value>, Vec<&Value>) = calls.partition(|block| block["input"].is_object());
    let limit =
        matches!(reason, "max_tokens" | "model_context_window_exceeded" | "stop_sequence" | "refusal");
    if !cut.is_empty() && !limit {
        return Err(format!("{reason} with a call that is not whole"));
    }
    match reason {
        "tool_use" if whole.is_empty() => Err("tool_use without a call".into()),
        "end_turn" if !whole.is_empty() => Err("end_turn with a call".into()),
        _ => Ok(()),
    }
}

fn usage(usage: &Value, last: bool) -> Verdict<()> {
    let numbers = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"];
    for key in numbers {
        if !usage[key].is_u64() {
            return Err(format!("usage.{key} is {}", usage[key]));
        }
    }
    if usage["input_tokens"] == 0 {
        return Err("input_tokens is 0".into());
    }
    if !last && usage["output_tokens"].as_u64() > Some(1) {
        return Err("output_tokens at the start".into());
    }
    let nested = &usage["cache_creation"];
    for key in ["ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"] {
        if !nested[key].is_u64() {
            return Err(format!("usage.cache_creation.{key} is {}", nested[key]));
        }
    }
    Ok(())
}

/// Judges the result of a web search, as the SDKs describe it.
fn search_result(block: &Value) -> Verdict<()> {
    keys(block, &["type", "tool_use_id", "content"])?;
    server_tool_id(string(block, "tool_use_id")?)?;
    let content = &block["content"];
    let Some(hits) = content.as_array() else {
        keys(content, &["type", "error_code"])?;
        is(content, "type", "web_search_tool_result_error")?;
        let known =
            ["unavailable", "too_many_requests", "query_too_long", "invalid_tool_input", "max_uses_exceeded"];
        let code = string(content, "error_code")?;
        return if known.contains(&code) { Ok(()) } else { Err(format!("error_code {code}")) };
    };
    for hit in hits {
        keys(hit, &["type", "title", "url", "encrypted_content", "page_age"])?;
        is(hit, "type", "web_search_result")?;
        if string(hit, "title")?.is_empty() || string(hit, "url")?.is_empty() {
            return Err(format!("no title or address: {hit}"));
        }
        string(hit, "encrypted_content")?;
    }
    Ok(())
}

fn server_tool_id(id: &str) -> Verdict<()> {
    if id.starts_with("srvtoolu_") { tool_id(id) } else { Err(format!("server tool id {id:?}")) }
}

fn tool_id(id: &str) -> Verdict<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if id.is_empty() || !id.chars().all(allowed) { Err(format!("tool id {id:?}")) } else { Ok(()) }
}

/// Checks that a value has exactly these keys.
fn keys(value: &Value, expected: &[&str]) -> Verdict<()> {
    let object = value.as_object().ok_or("no object")?;
    let mut found: Vec<&str> = object.keys().map(String::as_str).collect();
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    if found == expected { Ok(()) } else { Err(format!("keys {found:?}, expected {expected:?}")) }
}

fn string<'v>(value: &'v Value, key: &str) -> Verdict<&'v str> {
    value.get(key).and_then(Value::as_str).ok_or(format!("{key} is no string in {value}"))
}

fn is(value: &Value, key: &str, expected: &str) -> Verdict<()> {
    let found = string(value, key)?;
    if found == expected { Ok(()) } else { Err(format!("{key} is {found:?}, not {expected:?}")) }
}
