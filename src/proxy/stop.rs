//! The ways in which a request ends without a message from an upstream.

use std::io;

use crate::error::Error;
use crate::fleet::NoSlot;
use crate::http;
use crate::json::Value;

/// Why a request ends without a message from an upstream.
#[derive(Debug)]
pub(super) enum Stop {
    /// An error, which the client gets.
    Error(Error),
    /// The failure of a hook of policy closed that saw the answer. No other upstream is asked, because the same hook
    /// would see its answer, too.
    Refused(Error),
    /// The upstream broke its answer off after text had gone to the client, and another one can give the answer: the
    /// connection is closed without an error event. Claude Code asks again at once then, as a stream; after an error event it
    /// would ask for an answer that is not streamed, and give up after 300 s.
    Cut(Error),
    /// The client has left, so nothing is sent.
    ClientGone,
    /// The client's connection failed: it cannot be written to.
    Client(io::Error),
    /// The message of a hook, or the results of a web search, which is the answer.
    Respond(Value<'static>),
}

impl Stop {
    /// The failure of the upstream, if it is the reason.
    pub(super) fn upstream_error(&self) -> Option<&Error> {
        match self {
            Stop::Error(error) | Stop::Cut(error) => Some(error),
            Stop::Refused(_) | Stop::ClientGone | Stop::Client(_) | Stop::Respond(_) => None,
        }
    }

    /// The same, or if it is an error of sparkgap or of a box, the answer of the cloud that was asked before: it says best
    /// when to try again.
    pub(super) fn or_refusal(self, refusal: Option<Error>) -> Stop {
        match (self, refusal) {
            (Stop::Error(last), Some(first)) if last.relayed_answer().is_none() => first.source(last).into(),
            (stop, _) => stop,
        }
    }

    /// True if the client ended the request.
    pub(super) fn is_by_client(&self) -> bool {
        matches!(self, Stop::ClientGone | Stop::Client(_))
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

impl From<http::RequestFailure> for Stop {
    fn from(failure: http::RequestFailure) -> Self {
        match failure {
            http::RequestFailure::Reject(error) => Stop::Error(error),
            http::RequestFailure::Closed => Stop::ClientGone,
            http::RequestFailure::Io(error) => Stop::Client(error),
        }
    }
}

impl From<NoSlot> for Stop {
    fn from(none: NoSlot) -> Self {
        match none {
            NoSlot::ClientGone => Stop::ClientGone,
            NoSlot::Refused(error) => Stop::Error(error),
        }
    }
}
