//! The error type of a request: the client's message, the log's text, and whether to try again.
//!
//! Knows the Messages API's error names, statuses and envelope; knows nothing of sockets.

use std::fmt;

use crate::json::{Object, Value};
use crate::shown::ShownText;

/// The kind of an error, under the Messages API's names. Each has one HTTP status and one `error.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 400: the request is invalid.
    InvalidRequest,
    /// 401: the client's key for sparkgap is wrong.
    Authentication,
    /// 402: passed on from an upstream.
    Billing,
    /// 403: refused by sparkgap's own policy.
    Permission,
    /// 404: no such model or path.
    NotFound,
    /// 405: the path exists, but does not accept the method.
    MethodNotAllowed,
    /// 408: the client did not complete its request in time.
    RequestTimeout,
    /// 411: the length of the body is missing.
    LengthRequired,
    /// 413: a body over the limit.
    RequestTooLarge,
    /// 429: an upstream's rate limit.
    RateLimit,
    /// 431: the headers are too many or too large.
    HeadersTooLarge,
    /// 500: any error of sparkgap or of an upstream that has no more specific name.
    Api,
    /// 502: the upstream cannot be reached, or its response is invalid.
    BadGateway,
    /// 504: the upstream did not answer in time.
    Timeout,
    /// 529: busy or still starting; another try may succeed soon.
    Overloaded,
}

impl Kind {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        self.row().0
    }

    /// The name in `error.type`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Statuses and names as in the Messages API's error table, except 405, 408, 411 and 431, which it lacks. For
    /// these, `invalid_request_error` stands for faults of the client, and `timeout_error` for requests that took too
    /// long.
    fn row(self) -> (u16, &'static str) {
        match self {
            Kind::InvalidRequest => (400, "invalid_request_error"),
            Kind::Authentication => (401, "authentication_error"),
            Kind::Billing => (402, "billing_error"),
            Kind::Permission => (403, "permission_error"),
            Kind::NotFound => (404, "not_found_error"),
            Kind::MethodNotAllowed => (405, "invalid_request_error"),
            Kind::RequestTimeout => (408, "timeout_error"),
            Kind::LengthRequired => (411, "invalid_request_error"),
            Kind::RequestTooLarge => (413, "request_too_large"),
            Kind::RateLimit => (429, "rate_limit_error"),
            Kind::HeadersTooLarge => (431, "invalid_request_error"),
            Kind::Api => (500, "api_error"),
            Kind::BadGateway => (502, "api_error"),
            Kind::Timeout => (504, "timeout_error"),
            Kind::Overloaded => (529, "overloaded_error"),
        }
    }

    /// True if the same request can never succeed.
    fn is_final(self) -> bool {
        match self {
            Kind::Authentication
            | Kind::Billing
            | Kind::Permission
            | Kind::NotFound
            | Kind::MethodNotAllowed
            | Kind::LengthRequired
            | Kind::RequestTooLarge
            | Kind::HeadersTooLarge => true,
            Kind::InvalidRequest
            | Kind::RequestTimeout
            | Kind::RateLimit
            | Kind::Api
            | Kind::BadGateway
            | Kind::Timeout
            | Kind::Overloaded => false,
        }
    }

    /// The kind for an HTTP status, for errors that hooks or upstreams give by number.
    pub fn from_status(status: u16) -> Kind {
        match status {
            401 => Kind::Authentication,
            402 => Kind::Billing,
            403 => Kind::Permission,
            404 => Kind::NotFound,
            405 => Kind::MethodNotAllowed,
            408 => Kind::RequestTimeout,
            411 => Kind::LengthRequired,
            413 => Kind::RequestTooLarge,
            429 => Kind::RateLimit,
            431 => Kind::HeadersTooLarge,
            502 => Kind::BadGateway,
            504 => Kind::Timeout,
            503 | 529 => Kind::Overloaded,
            400..=499 => Kind::InvalidRequest,
            _ => Kind::Api,
        }
    }
}

/// The advice on retrying that the response headers give to the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// The kind decides: if the same request can never succeed, such as with a wrong path or too large a body, the
    /// client is told not to retry. A 400 gives no advice, because Claude Code then drops one new field after the other
    /// and retries.
    #[default]
    Unsaid,
    /// `x-should-retry: false`: waiting will not help.
    Never,
    /// `retry-after: N` seconds, and `x-should-retry: true`.
    After(u32),
    /// `retry-after: N` seconds, and `x-should-retry: false`: too long to wait for.
    NotBefore(u32),
}

/// The seconds after which a client should try again if this process had no open files left: other requests end, and
/// idle connections are closed.
const EXHAUSTED_RETRY_AFTER_S: u32 = 5;

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its kind: status and name.
    pub kind: Kind,
    /// The status that a hook gave, if the kind has another one.
    status: Option<u16>,
    /// The only message for the client. It never contains a key, a path of this machine or an upstream's address.
    pub message: String,
    /// `error.details.error_code`, if the API defines one.
    pub code: Option<&'static str>,
    /// More detail, for the log only.
    pub source: Option<String>,
    /// The advice on retrying.
    pub retry: Retry,
    /// The parts that few errors have. They are kept apart, because errors are moved through many functions.
    rare: Option<Box<RareParts>>,
}

/// The parts of an error that few errors have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct RareParts {
    /// The methods that the path accepts, if the request used another one.
    allow: &'static [&'static str],
    /// The type and the text of the body, if the client does not read the Messages API's envelope.
    body: Option<(&'static str, String)>,
    /// The answer of an upstream that speaks the Messages API, which the client gets as it came.
    relayed: Option<RelayedAnswer>,
}

/// An upstream's answer that the client gets as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayedAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The headers that go to the client.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Error {
    /// An error of this kind, with a message for the client.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error {
            kind,
            status: None,
            message: message.into(),
            code: None,
            source: None,
            retry: Retry::Unsaid,
            rare: None,
        }
    }

    /// Sets the status, and the kind that matches it best.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.kind = Kind::from_status(status);
        self.status = (status != self.kind.status()).then_some(status);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status.unwrap_or_else(|| self.kind.status())
    }

    /// A 400. If a field is wrong, the message starts with the field as the client wrote it: `max_tokens: Field
    /// required`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidRequest, message)
    }

    /// A 529: this process has no open file, thread or memory left for the request. `source` is the system's error.
    pub fn exhausted(source: impl fmt::Display) -> Self {
        let what = "sparkgap has no open files or threads left for this request";
        Self::new(Kind::Overloaded, what).source(source).retry(Retry::After(EXHAUSTED_RETRY_AFTER_S))
    }

    /// Sets the advice on retrying.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the methods that the path accepts; a 405 must name them (RFC 9110, section 15.5.6).
    #[must_use]
    pub fn allow(mut self, methods: &'static [&'static str]) -> Self {
        self.rare.get_or_insert_default().allow = methods;
        self
    }

    /// Sets the type and the text of the body, for a client that does not read the Messages API's envelope.
    #[must_use]
    pub fn with_body(mut self, content_type: &'static str, body: String) -> Self {
        self.rare.get_or_insert_default().body = Some((content_type, body));
        self
    }

    /// Sets the upstream's answer, which the client gets as it came instead of an envelope.
    #[must_use]
    pub fn relayed(mut self, answer: RelayedAnswer) -> Self {
        self.rare.get_or_insert_default().relayed = Some(answer);
        self
    }

    /// The upstream's answer, if the client is to get it as it came.
    pub fn relayed_answer(&self) -> Option<&RelayedAnswer> {
        self.rare.as_ref()?.relayed.as_ref()
    }

    /// Adds more detail for the log.
    #[must_use]
    pub fn source(mut self, source: impl fmt::Display) -> Self {
        self.source = Some(source.to_string());
        self
    }

    /// Sets the API's error code.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    fn own_body(&self) -> Option<&(&'static str, String)> {
        self.rare.as_ref()?.body.as_ref()
    }

    /// The type of the body of an HTTP error.
    pub fn content_type(&self) -> &'static str {
        self.own_body().map_or("application/json", |(content_type, _)| content_type)
    }

    /// Appends the body of an HTTP error: the Messages API's envelope, unless another text was set.
    pub fn body(&self, request_id: &str, out: &mut Vec<u8>) {
        match self.own_body() {
            Some((_, text)) => out.extend_from_slice(text.as_bytes()),
            None => self.envelope(request_id, out),
        }
    }

    /// Appends the Messages API's envelope, which is also the data of an `error` event.
    pub fn envelope(&self, request_id: &str, out: &mut Vec<u8>) {
        let mut error = Object::new();
        error.push("type", self.kind.name());
        error.push("message", self.message.as_str());
        if let Some(code) = self.code {
            error.push("details", Value::object([("error_code", Value::from(code))]));
        }
        Value::object([("type", "error".into()), ("error", error.into()), ("request_id", request_id.into())])
            .write(out);
    }

    /// The response headers that tell the client whether to retry, and which methods are accepted.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = match self.retry {
            Retry::Unsaid if !self.kind.is_final() => Vec::new(),
            Retry::Unsaid | Retry::Never => vec![("x-should-retry", "false".into())],
            Retry::NotBefore(seconds) => {
                vec![("retry-after", seconds.to_string()), ("x-should-retry", "false".into())]
            }
            Retry::After(seconds) => {
                vec![("retry-after", seconds.to_string()), ("x-should-retry", "true".into())]
            }
        };
        if let Some(rare) = self.rare.as_ref().filter(|rare| !rare.allow.is_empty()) {
            headers.push(("allow", rare.allow.join(", ")));
        }
        headers
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status(), self.kind.name(), ShownText::new(&self.message))?;
        match &self.source {
            Some(source) => write!(f, " ({})", ShownText::new(source)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_comes_back_as_its_kind() {
        for kind in [
            Kind::InvalidRequest,
            Kind::Authentication,
            Kind::Billing,
            Kind::Permission,
            Kind::NotFound,
            Kind::MethodNotAllowed,
            Kind::RequestTimeout,
            Kind::LengthRequired,
            Kind::RequestTooLarge,
            Kind::RateLimit,
            Kind::HeadersTooLarge,
            Kind::Api,
            Kind::BadGateway,
            Kind::Timeout,
            Kind::Overloaded,
        ] {
            assert_eq!(Kind::from_status(kind.status()), kind);
        }
    }

    #[test]
    fn other_statuses_have_a_kind() {
        assert_eq!(Kind::from_status(422), Kind::InvalidRequest);
        assert_eq!(Kind::from_status(503), Kind::Overloaded);
        assert_eq!(Kind::from_status(599), Kind::Api);
    }

    fn body(error: &Error) -> String {
        let mut out = Vec::new();
        error.body("req_1", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_envelope_names_kind_message_and_request() {
        assert_eq!(
            body(&Error::invalid("max_tokens: \"x\"")),
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: \"x\""},"request_id":"req_1"}"#
        );
        let coded =
            Error::new(Kind::Billing, "no credit").code("credits_required").source("not for the client");
        assert_eq!(
            body(&coded),
            r#"{"type":"error","error":{"type":"billing_error","message":"no credit","details":{"error_code":"credits_required"}},"request_id":"req_1"}"#
        );
    }

    #[test]
    fn headers_follow_the_word_on_trying_again() {
        assert_eq!(Error::new(Kind::NotFound, "no").headers(), [("x-should-retry", "false".to_owned())]);
        assert!(Error::invalid("no").headers().is_empty());
        let error = Error::new(Kind::Overloaded, "busy");
        assert!(error.headers().is_empty());
        assert_eq!(error.clone().retry(Retry::Never).headers(), [("x-should-retry", "false".to_owned())]);
        assert_eq!(
            error.retry(Retry::After(7)).headers(),
            [("retry-after", "7".to_owned()), ("x-should-retry", "true".to_owned())]
        );
    }
}
