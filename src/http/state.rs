//! The states of a connection; see the table in [`super`].

/// Where a connection is in its request. See the table in [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Awaiting,
    Pending(Coding),
    Streaming(Coding),
    Broken,
}

/// How a streamed body goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// In chunks.
    Chunked,
    /// As it is, and the connection's end is its end: HTTP/1.0 has no chunks.
    UntilClose,
    /// Not at all: the response to HEAD, or a status without a body.
    Nothing,
}
