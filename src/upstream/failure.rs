//! What can go wrong between us and an upstream, and what the client is told of it.
//!
//! Knows the reasons of [`wait`](super::wait); holds addresses only in what is for the log.

use std::fmt;
use std::io::{self, ErrorKind};

use super::wait::{Call, Ended, Stage, WHILE_CONNECTING};
use crate::error::{Error, Kind, Retry};

/// A connection error mends itself when the server is up again; a second is what a restart of the proxy's peers
/// on a LAN takes at least.
const RETRY_AFTER_S: u32 = 1;

/// A failed call. The texts are for the log: they may hold the upstream's address, never its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client has left; nobody is there to be told.
    ClientGone,
    /// No connection could be made.
    Refused(String),
    /// The connection broke before the response's head was whole.
    Reset(String),
    /// The connection broke, or ended, within the response's body.
    Truncated(String),
    /// A time limit of [`Options`](super::Options) has passed; named by what was awaited.
    Timeout(&'static str),
    /// TLS could not be agreed on, or broke.
    Tls(String),
    /// What came is not the HTTP that we take: redirects and compressed bodies included.
    Protocol(String),
    /// Discovery was answered with this status.
    Status(u16),
}

impl Failure {
    /// The failure that a read of a [`Response`](super::Response) ended with.
    pub fn of(error: &io::Error) -> Failure {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>()) {
            Some(failure) => failure.clone(),
            None => Failure::Truncated(error.to_string()),
        }
    }

    /// Whether the upstream may have been restarted, so that what was discovered may be wrong now.
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Failure::Refused(_) | Failure::Reset(_) | Failure::Truncated(_) => true,
            // A machine that is off, or on its way up.
            Failure::Timeout(what) => *what == WHILE_CONNECTING,
            Failure::ClientGone | Failure::Tls(_) | Failure::Protocol(_) | Failure::Status(_) => false,
        }
    }

    /// Whether no connection could be made: the request was never sent, so no model can have begun to work on it.
    pub fn is_refused(&self) -> bool {
        matches!(self, Failure::Refused(_))
    }

    /// The error for the client, who is told the upstream's configured `name` and never its address.
    pub fn to_error(&self, name: &str) -> Error {
        let say = |kind, what: &str| Error::new(kind, format!("upstream '{name}' {what}")).source(self);
        match self {
            // Nobody reads it; the status is for the log line alone.
            Failure::ClientGone => Error::new(Kind::Api, "the client has left"),
            Failure::Refused(_) => {
                say(Kind::BadGateway, "cannot be reached").retry(Retry::After(RETRY_AFTER_S))
            }
            Failure::Reset(_) => say(Kind::BadGateway, "closed the connection without an answer")
                .retry(Retry::After(RETRY_AFTER_S)),
            Failure::Truncated(_) => {
                say(Kind::BadGateway, "broke off within its answer").retry(Retry::After(RETRY_AFTER_S))
            }
            Failure::Timeout(what) => {
                say(Kind::Timeout, &format!("timed out {what}")).retry(Retry::After(RETRY_AFTER_S))
            }
            // Certificates and wrong URLs do not mend themselves.
            Failure::Tls(_) => say(Kind::BadGateway, "cannot be reached by TLS").retry(Retry::Never),
            Failure::Protocol(_) => say(Kind::BadGateway, "gave no usable answer").retry(Retry::Never),
            Failure::Status(status) => say(Kind::BadGateway, &format!("answered with status {status}")),
        }
    }

    /// What became of a call; `lost`: what it is when the connection broke.
    pub(super) fn of_io(error: &io::Error, call: &Call, lost: fn(String) -> Failure) -> Failure {
        match (Ended::find(error), call.stage()) {
            (Some(Ended::ClientGone), _) => Failure::ClientGone,
            (Some(Ended::Timeout(what)), _) => Failure::Timeout(what),
            (None, Stage::Connect) => Failure::Refused(error.to_string()),
            // rustls wraps its errors so, in the handshake and after it: with TLS 1.3 a refused client certificate is
            // told only then.
            (None, Stage::Handshake | Stage::Exchange) if error.kind() == ErrorKind::InvalidData => {
                Failure::Tls(error.to_string())
            }
            // Closed in the handshake: a server, or a proxy in front of it, that is just starting or stopping.
            (None, Stage::Handshake) => Failure::Refused(format!("in the TLS handshake: {error}")),
            (None, Stage::Exchange) => lost(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::ClientGone => f.write_str("the client has left"),
            Failure::Refused(why) => write!(f, "no connection: {why}"),
            Failure::Reset(why) => write!(f, "connection lost before the response: {why}"),
            Failure::Truncated(why) => write!(f, "connection lost within the response: {why}"),
            Failure::Timeout(what) => write!(f, "timed out {what}"),
            Failure::Tls(why) => write!(f, "TLS: {why}"),
            Failure::Protocol(why) => write!(f, "unusable answer: {why}"),
            Failure::Status(status) => write!(f, "status {status}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        io::Error::other(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_told_the_name_and_the_log_the_rest() {
        let why = || "10.1.2.3:8000 said no".to_owned();
        for (failure, kind, retry) in [
            (Failure::Refused(why()), Kind::BadGateway, Retry::After(1)),
            (Failure::Reset(why()), Kind::BadGateway, Retry::After(1)),
            (Failure::Truncated(why()), Kind::BadGateway, Retry::After(1)),
            (Failure::Tls(why()), Kind::BadGateway, Retry::Never),
            (Failure::Protocol(why()), Kind::BadGateway, Retry::Never),
        ] {
            let error = failure.to_error("spark");
            assert_eq!((error.kind, error.retry), (kind, retry), "{failure:?}");
            assert!(
                error.message.contains("'spark'") && !error.message.contains("10.1"),
                "{}",
                error.message
            );
            assert!(error.source.unwrap().contains("10.1.2.3"));
        }
    }

    #[test]
    fn a_timeout_is_a_504_that_says_what_was_awaited() {
        let error = Failure::Timeout("before the first byte").to_error("spark");
        assert_eq!(error.kind, Kind::Timeout);
        assert_eq!(error.message, "upstream 'spark' timed out before the first byte");
    }

    #[test]
    fn a_failure_comes_back_out_of_a_read() {
        let error = io::Error::from(Failure::ClientGone);
        assert_eq!(Failure::of(&error), Failure::ClientGone);
        let foreign = io::Error::from(ErrorKind::UnexpectedEof);
        assert!(matches!(Failure::of(&foreign), Failure::Truncated(_)));
    }
}
