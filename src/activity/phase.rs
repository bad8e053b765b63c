//! The phases of a request.

/// The phase that a request is in. The log and `/health` name it for a request whose client has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its body is being read.
    Body,
    /// It is being prepared: hooks, translation.
    Hook,
    /// It waits in the queue, since its upstream gets a limited number of requests at a time.
    Queue,
    /// A connection to the upstream is being made, or its list of models is awaited.
    Connect,
    /// It was sent to the upstream, which has not answered yet; or it waits before another try.
    Head,
    /// The answer is being streamed.
    Stream,
    /// The answer is being gathered for a client that does not stream.
    Whole,
    /// The client is still connected, but has not read from its answer for too long.
    Unread,
}

impl Phase {
    /// All phases, in the order of their discriminants.
    pub const ALL: [Phase; 8] = [
        Phase::Body,
        Phase::Hook,
        Phase::Queue,
        Phase::Connect,
        Phase::Head,
        Phase::Stream,
        Phase::Whole,
        Phase::Unread,
    ];

    /// Its name in `/health` and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Body => "body",
            Phase::Hook => "hook",
            Phase::Queue => "queue",
            Phase::Connect => "connect",
            Phase::Head => "head",
            Phase::Stream => "stream",
            Phase::Whole => "whole",
            Phase::Unread => "unread",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_the_phases() {
        for (i, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, i);
        }
    }
}
