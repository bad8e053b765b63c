//! The states of a connection; see the table in [`super`].

/// The state of a connection within its current request. See the table in [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Awaiting,
    Pending(Coding),
    Streaming(Coding),
    Broken,
}

/// The way in which a streamed body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// In chunks.
    Chunked,
    /// Without framing: the end of the connection is the end of the body, since HTTP/1.0 has no chunks.
    UntilClose,
    /// Not at all: the response to HEAD, or a status without a body.
    Nothing,
}
