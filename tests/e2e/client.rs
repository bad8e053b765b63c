//! A client with only as much HTTP as the tests need, so that it can send mistakes on purpose.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::HANG;
use super::validator::{self, Ended};

/// One connection.
pub(crate) struct Client(BufReader<TcpStream>);

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// The smallest request.
pub(crate) fn hello() -> Value {
    json!({"model": "claude-sonnet-5", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]})
}

/// The smallest request for a stream.
pub(crate) fn hello_stream() -> Value {
    let mut body = hello();
    body["stream"] = true.into();
    body
}

/// A `POST /v1/messages` with this body.
pub(crate) fn post(body: &[u8]) -> Vec<u8> {
    post_with("", body)
}

/// A `POST /v1/messages` with this body and more header lines.
pub(crate) fn post_with(headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A `POST` of this body to another path.
pub(crate) fn post_to(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n");
    format!("{head}content-length: {length}\r\n\r\n{body}").into_bytes()
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        Client(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// Ends this side of the connection.
    pub(crate) fn shut(&mut self) {
        self.0.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// Reads the status and the headers.
    pub(crate) fn head(&mut self) -> Answer {
        let line = self.line();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status line: '{line}'"));
        let mut answer = Answer { status: status.parse().unwrap(), headers: Vec::new(), body: Vec::new() };
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(": ") else { return answer };
            answer.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }

    /// Reads a complete answer, whatever its framing is.
    pub(crate) fn receive(&mut self) -> Answer {
        let mut answer = self.head();
        if let Some(length) = answer.header("content-length") {
            answer.body = vec![0; length.parse().unwrap()];
            self.0.read_exact(&mut answer.body).unwrap();
        } else if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(piece) = self.piece() {
                answer.body.extend(piece);
            }
        } else {
            answer.body = self.rest();
        }
        answer
    }

    /// The next chunk of a body; `None` at its end.
    pub(crate) fn piece(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(&self.line(), 16).unwrap();
        let mut piece = vec![0; size + 2];
        self.0.read_exact(&mut piece).unwrap();
        assert_eq!(piece.split_off(size), b"\r\n");
        (size > 0).then_some(piece)
    }

    /// Reads chunks until the body holds this text.
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        let mut body = String::new();
        while !body.contains(text) {
            let piece = self.piece().unwrap_or_else(|| panic!("the stream ended without '{text}':\n{body}"));
            body.push_str(&String::from_utf8(piece).unwrap());
        }
        body
    }

    /// Reads the head of an answer in chunks, and its body until it holds this text.
    pub(crate) fn read_until_head_and(&mut self, text: &str) {
        self.head();
        self.read_until(text);
    }

    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Answer {
        self.send(bytes);
        self.receive()
    }

    pub(crate) fn byte(&mut self) {
        self.0.read_exact(&mut [0]).unwrap();
    }

    /// Asks for a message.
    pub(crate) fn post(&mut self, body: &Value) -> Answer {
        self.ask(&post(body.to_string().as_bytes()))
    }

    /// Reads everything until the server closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        if let Err(error) = self.0.read_to_end(&mut rest) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
        rest
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The type and message of an error in its envelope; its id must be the header's.
    pub(crate) fn error(&self) -> (String, String) {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let found = validator::error(&self.body).unwrap_or_else(|what| panic!("{what}: {}", self.text()));
        let body = self.json();
        let id = body["request_id"].as_str().unwrap();
        assert!(id.starts_with("req_"), "{id}");
        assert_eq!(self.header("request-id"), Some(id));
        found
    }

    /// The content of the answer, which must be a complete, valid Message.
    pub(crate) fn message(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.has_request_id();
        validator::message(&self.body).unwrap_or_else(|what| panic!("{what}: {}", self.text()))
    }

    /// How a stream of events ended, and its content; the events must be valid.
    pub(crate) fn events(&self) -> (Ended, Vec<Value>) {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("text/event-stream; charset=utf-8"));
        assert_eq!(self.header("cache-control"), Some("no-cache"));
        assert_eq!(self.header("x-accel-buffering"), Some("no"));
        self.has_request_id();
        validator::stream(&self.body).unwrap_or_else(|what| panic!("{what}: {}", self.text()))
    }

    /// The content of a stream that ended well.
    pub(crate) fn whole_events(&self) -> Vec<Value> {
        let (ended, content) = self.events();
        assert_eq!(ended, Ended::Whole, "{}", self.text());
        content
    }

    /// The data of all events of this name.
    pub(crate) fn data(&self, name: &str) -> Vec<Value> {
        let head = format!("event: {name}\ndata: ");
        let found = self.text().split("\n\n").filter_map(|frame| frame.strip_prefix(head.as_str()));
        found.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    pub(crate) fn has_request_id(&self) {
        let id = self.header("request-id").unwrap_or_default();
        assert!(id.starts_with("req_") && id.len() == 28, "{self:?}");
    }
}
