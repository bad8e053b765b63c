//! The chain of a request's body, from its translation to the verdict on its prefix.

use crate::activity::{Activity, OpenTurn};
use crate::fleet::Resolved;
use crate::hash::Fnv;
use crate::openai::Counts;
use crate::prefix::{Chain, PrefixVerdict, Reading};

/// A request whose body was compared with that of the turn before.
pub(super) struct ChainedRequest {
    turn: OpenTurn,
    /// The hash of the upstream's name.
    upstream: u64,
    /// The number of the server that runs there.
    generation: u64,
}

impl ChainedRequest {
    /// Compares a body with that of the turn before. A client that names no session is known by the beginning of its body.
    pub(super) fn begin(
        activity: &Activity,
        session: Option<Fnv>,
        (chain, own): (Chain, Option<Chain>),
        resolved: &Resolved,
    ) -> Self {
        let key = session.map_or_else(|| chain.root(), Fnv::mixed);
        let served = &resolved.served;
        ChainedRequest {
            turn: activity.prefixes().begin(key, chain, own),
            upstream: Fnv::EMPTY.push(served.name().as_bytes()).mixed(),
            generation: served.upstream().generation(),
        }
    }

    /// Judges the turn by its counts. `is_sent`: the upstream has answered the body that was compared; otherwise, or
    /// without counts, the turn is forgotten.
    pub(super) fn end(self, activity: &Activity, counts: Counts, is_sent: bool) -> Option<PrefixVerdict> {
        let ChainedRequest { turn, upstream, generation } = self;
        let cached = counts.is_cache_told.then_some(counts.cached);
        let reading = Reading { prompt: counts.prompt, cached, upstream, generation };
        activity.prefixes().end(turn, (is_sent && counts.prompt > 0).then_some(reading))
    }
}
