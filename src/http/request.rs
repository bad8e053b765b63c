//! The head of a request, the limits on it, and why there is none.

use super::headers::Headers;

use crate::error::Error;
use std::fmt;
use std::io;

/// How much of a client's request we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's head. Claude Code sends about 2 KiB; proxies in front may add cookies.
    pub head_size_max: usize,
    /// Bytes of a request's decoded body. 32 MiB is the Messages API's own limit.
    pub body_size_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { head_size_max: 64 * 1024, body_size_max: 32 * 1024 * 1024 }
    }
}

/// The head of one request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method as on the wire.
    pub method: String,
    /// The path as on the wire, without the query.
    pub path: String,
    /// What follows the `?`, if there is one.
    pub query: Option<String>,
    /// The host and port of a target that is a whole URL (`GET http://box:4000/health HTTP/1.1`).
    pub authority: Option<String>,
    /// The headers.
    pub headers: Headers,
}

impl Request {
    /// The first value of this header, in whatever case; `None` also where it is not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The host and port that the client means: those of the target if it is a whole URL, which then win over the `host`
    /// header (RFC 9112, section 3.2.2). `None` where neither is there, or where it is not visible ASCII.
    pub fn host(&self) -> Option<&str> {
        self.authority.as_deref().or_else(|| self.header("host"))
    }
}

/// Why there is no request.
#[derive(Debug)]
pub enum Failure {
    /// To be answered with this error; then the connection has to be closed.
    Reject(Error),
    /// The client went away, or cut its request short: there is nobody to answer.
    Closed,
    /// The stream failed in some other way.
    Io(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Reject(error) => error.fmt(f),
            Failure::Closed => f.write_str("the client closed the connection"),
            Failure::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Reject(error)
    }
}

/// For callers that can do nothing about a failure but end the connection.
impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Reject(error) => io::Error::other(error),
            Failure::Closed => io::ErrorKind::ConnectionAborted.into(),
            Failure::Io(error) => error,
        }
    }
}
