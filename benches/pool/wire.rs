//! One request with its streamed answer, as a Messages or as a chat completion request.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::physics::server::MODEL;

/// The key that each request has. Only LiteLLM wants one.
pub(crate) const KEY: &str = "sk-0";

/// The longest silence. No answer waits that long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A request as it goes over the wire.
pub(crate) struct Letter {
    bytes: Vec<u8>,
}

/// The conversation of a request.
pub(crate) struct Content<'c> {
    pub(crate) head: &'c str,
    /// Texts of the person's side and of the model's side, which are true for answers.
    pub(crate) parts: &'c [(bool, String)],
    pub(crate) output: u64,
}

impl Letter {
    /// `headers` are whole lines.
    pub(crate) fn new(translates: bool, headers: &str, content: &Content<'_>) -> Letter {
        let Content { head, parts, output } = content;
        let role = |is_answer: bool| if is_answer { "assistant" } else { "user" };
        let message = |(is_answer, text): &(bool, String)| json!({"role": role(*is_answer), "content": text});
        let mut messages: Vec<Value> = parts.iter().map(message).collect();
        let mut body = json!({"model": MODEL, "max_tokens": output, "stream": true});
        if translates {
            body["system"] = json!([{"type": "text", "text": head}]);
        } else {
            messages.insert(0, json!({"role": "system", "content": head}));
        }
        body["messages"] = messages.into();
        let body = body.to_string();
        let path = if translates { "/v1/messages" } else { "/v1/chat/completions" };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nanthropic-version: 2023-06-01\r\nauthorization: Bearer {KEY}\r\nx-api-key: {KEY}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        Letter { bytes: (head + &body).into_bytes() }
    }

    /// Sends it, and reads the answer to its end. Returns the time until the first token, and the text.
    pub(crate) fn send(&self, address: SocketAddr) -> io::Result<(Duration, String)> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let began = Instant::now();
        stream.write_all(&self.bytes)?;
        let (mut first, mut all, mut is_ended) = (None, String::new(), false);
        for line in BufReader::new(stream).lines() {
            let line = line?;
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let event: Value = serde_json::from_str(data).unwrap_or_default();
            let text = event["delta"]["text"].as_str().or(event["choices"][0]["delta"]["content"].as_str());
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                first.get_or_insert_with(|| began.elapsed());
                all += text;
            }
            is_ended = event["type"] == "message_stop" || data == "[DONE]";
            if is_ended {
                break;
            }
        }
        let first = first.filter(|_| is_ended).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((first, all))
    }
}
