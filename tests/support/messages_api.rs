//! A server of the Messages API that judges as Anthropic's own does: each block of thinking must be the very bytes that it
//! gave, and come back to the model that has made it.
//!
//! Answers are scripted, or drawn from a generator with a seed. It records each refusal, so that a test can say that nothing
//! was refused.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// A request that it got.
#[derive(Clone, Debug)]
pub struct Got {
    pub head: String,
    pub body: Vec<u8>,
}

impl Got {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Answers one request in its own way. Returns false if the connection is to be closed.
type Script = Box<dyn FnOnce(&mut TcpStream, &Got) -> bool + Send>;

#[derive(Default)]
struct Records {
    got: Vec<Got>,
    scripts: VecDeque<Script>,
    /// The signature of each block, its model and its text.
    blocks: HashMap<String, (String, String)>,
    /// The requests that were refused: why, and the model.
    refused: Vec<String>,
    draws: u64,
    answers: u64,
}

/// A running server.
pub struct MessagesApi {
    pub address: SocketAddr,
    records: Arc<Mutex<Records>>,
}

impl MessagesApi {
    pub fn start() -> MessagesApi {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let records = Arc::new(Mutex::new(Records::default()));
        let shared = Arc::clone(&records);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, records) = (stream.unwrap(), Arc::clone(&shared));
                thread::spawn(move || converse(stream, &records));
            }
        });
        MessagesApi { address, records }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    pub fn got(&self) -> Vec<Got> {
        self.records.lock().unwrap().got.clone()
    }

    /// The reasons of the refusals so far.
    pub fn refused(&self) -> Vec<String> {
        self.records.lock().unwrap().refused.clone()
    }

    /// The next request is answered by this.
    pub fn next(&self, script: impl FnOnce(&mut TcpStream, &Got) -> bool + Send + 'static) {
        self.records.lock().unwrap().scripts.push_back(Box::new(script));
    }

    /// The next request is answered by these bytes.
    pub fn next_bytes(&self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.next(move |stream, _| stream.write_all(&bytes).is_ok());
    }

    /// The next request is answered with this status, these header lines and this body.
    pub fn next_answer(&self, status: u16, headers: &str, body: &str) {
        self.next_bytes(whole(status, headers, body));
    }
}

/// An answer that is not a stream.
pub fn whole(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn converse(stream: TcpStream, records: &Mutex<Records>) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(stream.read_line(&mut head), Ok(1..)) {
                return;
            }
        }
        let length = head.to_ascii_lowercase();
        let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let got = Got { head, body };
        let script = {
            let mut records = records.lock().unwrap();
            records.got.push(got.clone());
            records.scripts.pop_front()
        };
        let goes_on = match script {
            Some(script) => script(stream.get_mut(), &got),
            None => {
                let answer = records.lock().unwrap().answer(&got);
                stream.get_mut().write_all(&answer).is_ok()
            }
        };
        if !goes_on {
            return;
        }
    }
}

impl Records {
    /// The next number of the generator.
    fn draw(&mut self, below: u64) -> u64 {
        self.draws =
            self.draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.draws >> 33) % below
    }

    fn answer(&mut self, got: &Got) -> Vec<u8> {
        let body: Value = match serde_json::from_slice(&got.body) {
            Ok(body) => body,
            Err(error) => return self.refuse(&format!("The request body is not valid JSON: {error}")),
        };
        if let Err(why) = self.judge(&body) {
            return self.refuse(&why);
        }
        if got.head.starts_with("POST /v1/messages/count_tokens") {
            return whole(200, "", r#"{"input_tokens":1234}"#);
        }
        let content = self.content(&body);
        let calls = content.iter().any(|block| block["type"] == "tool_use");
        let stop = if calls { "tool_use" } else { "end_turn" };
        self.answers += 1;
        let message = json!({"id": format!("msg_cloud{}", self.answers), "type": "message", "role": "assistant",
            "model": body["model"], "content": content, "stop_reason": stop, "stop_sequence": null,
            "usage": {"input_tokens": 7, "cache_read_input_tokens": 11, "cache_creation_input_tokens": 13, "output_tokens": 5}});
        if body["stream"] == true {
            stream(&message)
        } else {
            whole(200, "request-id: req_cloud\r\n", &message.to_string())
        }
    }

    fn refuse(&mut self, why: &str) -> Vec<u8> {
        self.refused.push(why.to_owned());
        let body = json!({"type": "error", "error": {"type": "invalid_request_error", "message": why}, "request_id": "req_cloud"});
        whole(400, "request-id: req_cloud\r\n", &body.to_string())
    }

    /// Draws the content of an answer.
    fn content(&mut self, body: &Value) -> Vec<Value> {
        let mut content = Vec::new();
        let asks = matches!(body["thinking"]["type"].as_str(), Some("enabled" | "adaptive"));
        let is_adaptive = body["thinking"]["type"] == "adaptive";
        if asks && !(is_adaptive && self.draw(3) == 0) {
            for _ in 0..=self.draw(2) {
                let number = self.draw(1 << 30);
                let (text, signature) =
                    (format!("cloud thought {number}"), format!("EqQB{number}+/{}==", self.blocks.len()));
                let is_redacted = self.draw(4) == 0;
                let known = if is_redacted { String::new() } else { text.clone() };
                self.blocks.insert(
                    signature.clone(),
                    (body["model"].as_str().unwrap_or_default().to_owned(), known),
                );
                content.push(match is_redacted {
                    true => json!({"type": "redacted_thinking", "data": signature}),
                    false => json!({"type": "thinking", "thinking": text, "signature": signature}),
                });
            }
        }
        let has_tools = body["tools"].as_array().is_some_and(|tools| !tools.is_empty());
        let calls = if has_tools { self.draw(3) } else { 0 };
        if calls == 0 || self.draw(2) == 0 {
            content.push(json!({"type": "text", "text": "cloud text"}));
        }
        for _ in 0..calls {
            let id = format!("toolu_cloud{}", self.draw(1 << 30));
            content.push(json!({"type": "tool_use", "id": id, "name": "Read", "input": {"path": "/a"}}));
        }
        content
    }

    /// Checks a conversation as the API does.
    fn judge(&self, body: &Value) -> Result<(), String> {
        let messages = body["messages"].as_array().ok_or("messages: Field required")?;
        for (at, message) in messages.iter().enumerate() {
            if message["content"] == json!([]) || message["content"] == "" {
                return Err(format!("messages.{at}: all messages must have non-empty content"));
            }
            for (place, block) in message["content"].as_array().into_iter().flatten().enumerate() {
                self.judge_block(&body["model"], block)
                    .map_err(|why| format!("messages.{at}.content.{place}: {why}"))?;
            }
        }
        judge_calls(messages)?;
        let asks = matches!(body["thinking"]["type"].as_str(), Some("enabled" | "adaptive"));
        let clears = body["context_management"]["edits"].to_string().contains("clear_thinking");
        if clears && !asks {
            return Err("context_management.edits.0: `clear_thinking_20251015` strategy requires `thinking` to be enabled or adaptive".into());
        }
        if body["thinking"]["type"] == "enabled" { judge_turn(messages) } else { Ok(()) }
    }

    fn judge_block(&self, model: &Value, block: &Value) -> Result<(), String> {
        let (name, text) = match block["type"].as_str() {
            Some("thinking") => ("signature", block["thinking"].as_str().unwrap_or("?")),
            Some("redacted_thinking") => ("data", ""),
            Some("text") if block["text"].as_str().is_none_or(|text| text.trim().is_empty()) => {
                return Err("text content blocks must contain non-whitespace text".into());
            }
            _ => return Ok(()),
        };
        let signature = block[name].as_str().unwrap_or_default();
        match self.blocks.get(signature) {
            Some((maker, known)) if Some(maker.as_str()) == model.as_str() && known == text => Ok(()),
            _ if name == "data" => Err("Invalid `data` in `redacted_thinking` block".into()),
            _ => Err("Invalid `signature` in `thinking` block".into()),
        }
    }
}

/// Each result belongs to a call of the message before it, and each call has its result.
fn judge_calls(messages: &[Value]) -> Result<(), String> {
    let ids = |message: &Value, kind: &str, key: &str| -> Vec<String> {
        let blocks = message["content"].as_array().into_iter().flatten();
        blocks.filter(|block| block["type"] == kind).map(|block| block[key].to_string()).collect()
    };
    for (at, pair) in messages.windows(2).enumerate() {
        let mut calls = ids(&pair[0], "tool_use", "id");
        let mut results = ids(&pair[1], "tool_result", "tool_use_id");
        calls.sort();
        results.sort();
        if calls != results {
            return Err(format!(
                "messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after"
            ));
        }
    }
    Ok(())
}

/// A turn that calls tools begins with thinking.
fn judge_turn(messages: &[Value]) -> Result<(), String> {
    let has = |message: &Value, kind: &str| {
        message["content"].as_array().is_some_and(|blocks| blocks.iter().any(|block| block["type"] == kind))
    };
    if !messages.last().is_some_and(|last| has(last, "tool_result")) {
        return Ok(());
    }
    let turn = messages
        .iter()
        .rev()
        .take_while(|message| message["role"] == "assistant" || has(message, "tool_result"));
    let Some(first) = turn.filter(|message| message["role"] == "assistant").last() else { return Ok(()) };
    match first["content"][0]["type"].as_str() {
        Some("thinking" | "redacted_thinking") => Ok(()),
        other => Err(format!(
            "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{}`. When `thinking` is enabled, a final `assistant` message must start with a thinking block",
            other.unwrap_or("text")
        )),
    }
}

/// A message as the API streams it, in one chunk.
pub fn stream(message: &Value) -> Vec<u8> {
    let mut events = String::new();
    let mut event = |name: &str, data: Value| events.push_str(&format!("event: {name}\ndata: {data}\n\n"));
    let mut start = message.clone();
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    event("message_start", json!({"type": "message_start", "message": start}));
    event("ping", json!({"type": "ping"}));
    for (index, block) in message["content"].as_array().unwrap().iter().enumerate() {
        let (empty, deltas) = match block["type"].as_str().unwrap() {
            "text" => (
                json!({"type": "text", "text": ""}),
                vec![json!({"type": "text_delta", "text": block["text"]})],
            ),
            "thinking" => {
                let (one, two) = block["signature"].as_str().unwrap().split_at(5);
                let mut deltas = vec![json!({"type": "thinking_delta", "thinking": block["thinking"]})];
                deltas.extend([one, two].map(|piece| json!({"type": "signature_delta", "signature": piece})));
                (json!({"type": "thinking", "thinking": "", "signature": ""}), deltas)
            }
            "tool_use" => {
                let mut empty = block.clone();
                empty["input"] = json!({});
                (empty, vec![json!({"type": "input_json_delta", "partial_json": block["input"].to_string()})])
            }
            _ => (block.clone(), vec![]),
        };
        event(
            "content_block_start",
            json!({"type": "content_block_start", "index": index, "content_block": empty}),
        );
        for delta in deltas {
            event(
                "content_block_delta",
                json!({"type": "content_block_delta", "index": index, "delta": delta}),
            );
        }
        event("content_block_stop", json!({"type": "content_block_stop", "index": index}));
    }
    let delta = json!({"stop_reason": message["stop_reason"], "stop_sequence": null});
    event("message_delta", json!({"type": "message_delta", "delta": delta, "usage": message["usage"]}));
    event("message_stop", json!({"type": "message_stop"}));
    streamed(&events)
}

/// Events as an answer in one chunk.
pub fn streamed(events: &str) -> Vec<u8> {
    let size = events.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nrequest-id: req_cloud\r\nanthropic-ratelimit-requests-remaining: 49\r\nserver: cloudflare\r\nset-cookie: a=b\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{events}\r\n0\r\n\r\n")
        .into_bytes()
}
