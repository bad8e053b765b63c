//! The writing half of a connection: whole responses and streamed ones.
use std::io::{self, Read, Write};

use ::http::{HeaderName, HeaderValue, StatusCode};

use super::connection::Connection;
use super::state::{Coding, State};
use crate::error::{Error, RelayedAnswer};

/// The room that is reserved for a usual head and the framing of a body, in bytes: growing in steps costs more than the
/// head itself.
const HEAD_SIZE: usize = 512;

impl<S: Read + Write> Connection<S> {
    /// True if any of the response may be on its way, so that it is too late for another one.
    pub fn response_begun(&self) -> bool {
        !matches!(self.state, State::Awaiting | State::Pending(_))
    }

    /// Adds a header to the response that the current request gets, whether that is a whole response, an error or a
    /// stream.
    ///
    /// # Errors
    /// `InvalidInput` for a header that cannot go out.
    pub fn add_header(&mut self, name: &str, value: &str) -> io::Result<()> {
        check_header(name, value)?;
        for part in [name, ": ", value, "\r\n"] {
            self.extra.extend_from_slice(part.as_bytes());
        }
        Ok(())
    }

    /// Sends a whole response in one write. HEAD gets the head only. A response that [`Connection::start_stream`]
    /// prepared is dropped if none of it went out.
    ///
    /// # Errors
    /// Those of the stream; `InvalidInput` for a header that cannot be sent, or if no request waits for a response.
    pub fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        self.output.reserve(HEAD_SIZE + body.len());
        self.encode_head(status, headers)?;
        if !is_bodiless(status) {
            self.push_header("content-length", &body.len().to_string());
        }
        self.output.extend_from_slice(b"\r\n");
        if !self.is_head && !is_bodiless(status) {
            self.output.extend_from_slice(body);
        }
        self.flush_output()?;
        self.state = State::Ready;
        Ok(())
    }

    /// Responds with an error's body, with `request-id` and the error's own headers.
    ///
    /// # Errors
    /// Those of [`Connection::respond`].
    pub fn respond_error(&mut self, error: &Error, request_id: &str) -> io::Result<()> {
        if let Some(answer) = error.relayed_answer() {
            return self.respond_relayed(answer, request_id);
        }
        let mut body = Vec::new();
        error.body(request_id, &mut body);
        let told = error.headers();
        let mut headers = vec![("content-type", error.content_type()), ("request-id", request_id)];
        headers.extend(told.iter().map(|(name, value)| (*name, value.as_str())));
        self.respond(error.status(), &headers, &body)
    }

    /// Responds with an upstream's answer as it came. It gets our id only if the upstream gave none.
    ///
    /// # Errors
    /// Those of [`Connection::respond`].
    pub fn respond_relayed(&mut self, answer: &RelayedAnswer, request_id: &str) -> io::Result<()> {
        let headers = answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut headers: Vec<(&str, &str)> = headers.collect();
        if !headers.iter().any(|(name, _)| *name == "request-id") {
            headers.push(("request-id", request_id));
        }
        self.respond(answer.status, &headers, &answer.body)
    }

    /// Refuses a client whose request is not read: responds with the error and closes.
    ///
    /// # Errors
    /// Those of [`Connection::respond`].
    pub fn refuse(&mut self, error: &Error, request_id: &str) -> io::Result<()> {
        if self.state == State::Ready {
            self.state = State::Awaiting;
        }
        self.closing = true;
        self.respond_error(error, request_id)
    }

    /// Begins a streamed response. Nothing is written yet: the head goes out with the first [`Connection::write`], and
    /// until then [`Connection::respond`] can still replace it.
    ///
    /// # Errors
    /// `InvalidInput` for a header that cannot be sent, or if no request waits for a response.
    pub fn start_stream(&mut self, status: u16, headers: &[(&str, &str)]) -> io::Result<()> {
        let coding = if self.is_head || is_bodiless(status) {
            Coding::Nothing
        } else if self.http10 {
            self.closing = true;
            Coding::UntilClose
        } else {
            Coding::Chunked
        };
        self.output.reserve(HEAD_SIZE);
        self.encode_head(status, headers)?;
        if !self.http10 && !is_bodiless(status) {
            self.push_header("transfer-encoding", "chunked");
        }
        self.output.extend_from_slice(b"\r\n");
        self.state = State::Pending(coding);
        Ok(())
    }

    /// Sends a part of the body as one chunk in one write, together with the head if that was not sent yet. An empty
    /// part sends the head alone, or nothing.
    ///
    /// # Errors
    /// Those of the stream; `InvalidInput` outside a streamed response.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let (State::Pending(coding) | State::Streaming(coding)) = self.state else {
            return Err(invalid("no streamed response is open"));
        };
        // An empty chunk would end the body.
        if !data.is_empty() {
            match coding {
                Coding::Chunked => {
                    // Writing to a Vec cannot fail.
                    let _ = write!(self.output, "{:x}\r\n", data.len());
                    self.output.extend_from_slice(data);
                    self.output.extend_from_slice(b"\r\n");
                }
                Coding::UntilClose => self.output.extend_from_slice(data),
                Coding::Nothing => {}
            }
        }
        self.flush_output()?;
        self.state = State::Streaming(coding);
        Ok(())
    }

    /// Ends the streamed response with its last chunk.
    ///
    /// # Errors
    /// Those of [`Connection::write`].
    pub fn finish(&mut self) -> io::Result<()> {
        let (State::Pending(coding) | State::Streaming(coding)) = self.state else {
            return Err(invalid("no streamed response is open"));
        };
        if coding == Coding::Chunked {
            self.output.extend_from_slice(b"0\r\n\r\n");
        }
        self.flush_output()?;
        self.state = State::Ready;
        Ok(())
    }

    /// Puts the status line and the headers into the output, except for the framing headers and the blank line.
    fn encode_head(&mut self, status: u16, headers: &[(&str, &str)]) -> io::Result<()> {
        if self.response_begun() {
            return Err(invalid("no request waits for a response"));
        }
        let code = StatusCode::from_u16(status).map_err(invalid)?;
        if code.is_informational() {
            return Err(invalid("an interim status cannot be a response"));
        }
        headers.iter().try_for_each(|(name, value)| check_header(name, value))?;
        // Close if a part of the request's body is unread: it would be read as the next request.
        self.closing |= self.has_body_left() || self.is_draining();
        self.output.clear();
        // Writing to a Vec cannot fail.
        let _ = write!(self.output, "HTTP/1.1 {status} {}\r\n", reason(code));
        for (name, value) in headers {
            // An upstream may send headers of the names of those that were added: sparkgap's own limits are the tighter ones.
            if !self.is_added(name) {
                self.push_header(name, value);
            }
        }
        self.output.extend_from_slice(&self.extra);
        if self.closing {
            self.push_header("connection", "close");
        } else if self.http10 {
            self.push_header("connection", "keep-alive");
        }
        Ok(())
    }

    fn is_added(&self, name: &str) -> bool {
        let mut lines = self.extra.split(|byte| *byte == b'\n');
        lines.any(|line| line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b":")))
    }

    fn push_header(&mut self, name: &str, value: &str) {
        for part in [name, ": ", value, "\r\n"] {
            self.output.extend_from_slice(part.as_bytes());
        }
    }

    fn flush_output(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let written = self.stream.write_all(&self.output).and_then(|()| self.stream.flush());
        self.output.clear();
        if written.is_err() {
            self.state = State::Broken;
        }
        written
    }
}

/// True for statuses whose responses have no body and no headers that frame one.
fn is_bodiless(status: u16) -> bool {
    matches!(status, 204 | 304)
}

/// Checks a header. The http crate accepts no line end, so that a header cannot become two headers or a body.
fn check_header(name: &str, value: &str) -> io::Result<()> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(invalid)?;
    HeaderValue::from_str(value).map_err(invalid)?;
    match name.as_str() {
        "connection" | "content-length" | "transfer-encoding" => {
            Err(invalid("the connection itself sets the framing headers"))
        }
        _ => Ok(()),
    }
}

/// The reason phrase of a status; 529 is Anthropic's own.
fn reason(code: StatusCode) -> &'static str {
    code.canonical_reason().unwrap_or(if code.as_u16() == 529 { "Overloaded" } else { "Unknown" })
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}
