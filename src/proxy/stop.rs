//! The ends of a request that an upstream's message does not answer.

use std::io;

use crate::error::Error;
use crate::fleet::queue::NoSlot;
use crate::http;
use crate::json::Value;

/// The end of a request that no message of an upstream answers.
#[derive(Debug)]
pub(super) enum Stop {
    /// With an error for the client.
    Error(Error),
    /// With the failure of a hook of policy closed that saw the answer. No other upstream is asked: its answer would be
    /// for the same hook.
    Refused(Error),
    /// With nothing: the client has left.
    ClientGone,
    /// With its connection: it cannot be written to.
    Client(io::Error),
    /// With the message that a hook gave.
    Respond(Value<'static>),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

impl From<http::Failure> for Stop {
    fn from(failure: http::Failure) -> Self {
        match failure {
            http::Failure::Reject(error) => Stop::Error(error),
            http::Failure::Closed => Stop::ClientGone,
            http::Failure::Io(error) => Stop::Client(error),
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
