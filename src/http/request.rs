//! The head of a request, the limits on a request, and the failures of reading one.

use super::headers::Headers;

use crate::error::Error;
use std::fmt;
use std::io;

/// The size limits of a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// The largest head, in bytes. Claude Code sends about 2 KiB; proxies in front may add cookies.
    pub head_size_max: usize,
    /// The largest decoded body, in bytes. 32 MiB is the Messages API's own limit.
    pub body_size_max: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        RequestLimits { head_size_max: 64 * 1024, body_size_max: 32 * 1024 * 1024 }
    }
}

/// The head of one request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method as on the wire.
    pub method: String,
    /// The path as on the wire, without the query.
    pub path: String,
    /// The text after the `?`, if there is one.
    pub query: Option<String>,
    /// The host and port of a target that is a whole URL (`GET http://box:4000/health HTTP/1.1`).
    pub authority: Option<String>,
    /// The headers.
    pub headers: Headers,
}

impl Request {
    /// The first value of this header, whose name may be in any case. `None` also if the value is not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The host and port that the client means: those of the target if it is a whole URL, otherwise those of the `host`
    /// header (RFC 9112, section 3.2.2). `None` if both are missing, or if the value is not visible ASCII.
    pub fn host(&self) -> Option<&str> {
        self.authority.as_deref().or_else(|| self.header("host"))
    }
}

/// The reason why no request could be read.
#[derive(Debug)]
pub enum RequestFailure {
    /// The client gets this error as its response; then the connection has to be closed.
    Reject(Error),
    /// The client left or cut its request short, so there is nobody to respond to.
    Closed,
    /// The stream failed in some other way.
    Io(io::Error),
}

impl fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestFailure::Reject(error) => error.fmt(f),
            RequestFailure::Closed => f.write_str("the client closed the connection"),
            RequestFailure::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RequestFailure {}

impl From<Error> for RequestFailure {
    fn from(error: Error) -> Self {
        RequestFailure::Reject(error)
    }
}

/// For callers that can only end the connection after a failure.
impl From<RequestFailure> for io::Error {
    fn from(failure: RequestFailure) -> Self {
        match failure {
            RequestFailure::Reject(error) => io::Error::other(error),
            RequestFailure::Closed => io::ErrorKind::ConnectionAborted.into(),
            RequestFailure::Io(error) => error,
        }
    }
}
