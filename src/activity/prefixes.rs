//! The chains of the conversations' last turns: compares each new turn with the one before, and judges it at its end.
//!
//! A chain is compared and kept when its body is written, so that a running answer holds only the comparison. It counts
//! as read by the upstream once its answer has ended with counts; the chain of a request that failed is dropped again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::prefix::{Chain, Comparison, PrefixVerdict, Reading, judge};

/// The most bytes that all chains take together. One of 30 tools, 15 KB of system prompt and 300 messages takes 7 KB.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most turns that are kept for one conversation: Claude Code asks for titles and the like under the same session.
const TURNS_MAX: usize = 4;

/// The bytes that a conversation takes in the maps, counted with each of its turns.
const CONVERSATION_SIZE: usize = 200;

/// The most upstreams of which it is known that they tell their cached tokens.
const UPSTREAMS_MAX: usize = 1024;

/// The last turns of the conversations.
#[derive(Debug, Default)]
pub struct Prefixes(Mutex<Turns>);

#[derive(Debug, Default)]
struct Turns {
    known: HashMap<u64, ConversationTurns>,
    /// The keys by the time of their last use.
    used: BTreeMap<u64, u64>,
    clock: u64,
    bytes: usize,
    /// The upstreams that have told their cached tokens, with the last server of each that did. Some leave the number out
    /// where it is 0.
    tellers: HashMap<u64, u64>,
}

#[derive(Debug, Default)]
struct ConversationTurns {
    turns: Vec<ChainedTurn>,
    used: u64,
}

#[derive(Debug)]
struct ChainedTurn {
    number: u64,
    chain: Chain,
    /// The chain before the hooks, where a hook may have changed the body.
    own: Option<Chain>,
    /// `None` until the answer has ended.
    reading: Option<Reading>,
}

impl ChainedTurn {
    fn size(&self) -> usize {
        CONVERSATION_SIZE
            + size_of::<ChainedTurn>()
            + self.chain.size()
            + self.own.as_ref().map_or(0, Chain::size)
    }
}

/// A turn whose answer has not ended, and how it differs from the turn before.
#[derive(Debug)]
pub struct OpenTurn {
    key: u64,
    number: u64,
    /// The turn before, what was read of it, and the comparison with it.
    before: Option<(u64, Reading, Comparison)>,
}

impl Prefixes {
    /// Compares a turn's body with that of the turn before, and keeps its chain. `own` is the chain before the hooks, if one
    /// may have changed the body.
    pub fn begin(&self, key: u64, chain: Chain, own: Option<Chain>) -> OpenTurn {
        let mut turns = self.turns();
        turns.clock += 1;
        let number = turns.clock;
        let Turns { known, used, bytes, .. } = &mut *turns;
        let conversation = known.entry(key).or_default();
        used.remove(&conversation.used);
        conversation.used = number;
        used.insert(number, key);
        let candidates = conversation
            .turns
            .iter()
            .filter_map(|turn| Some((chain.shared(&turn.chain)?, turn.number, turn, turn.reading?)));
        let before = candidates.max_by_key(|(shared, number, ..)| (*shared, *number));
        let before = before.map(|(_, _, turn, reading)| {
            let mut found = chain.compare(&turn.chain);
            // A turn without such a hook is its own: the hook may have been loaded between the two.
            if own.is_some() || turn.own.is_some() {
                let (own, before) =
                    (own.as_ref().unwrap_or(&chain), turn.own.as_ref().unwrap_or(&turn.chain));
                found.tell_hooks(&own.compare(before));
            }
            (turn.number, reading, found)
        });
        if conversation.turns.len() >= TURNS_MAX {
            *bytes = bytes.saturating_sub(conversation.turns.remove(0).size());
        }
        let turn = ChainedTurn { number, chain, own, reading: None };
        *bytes += turn.size();
        conversation.turns.push(turn);
        turns.make_room();
        OpenTurn { key, number, before }
    }

    /// Ends a turn. `reading`: the facts of its answer; `None` if the upstream has not answered it, or not counted it.
    /// Returns the verdict, if there was a turn before.
    pub fn end(&self, open: OpenTurn, reading: Option<Reading>) -> Option<PrefixVerdict> {
        let mut turns = self.turns();
        let Some(mut now) = reading else {
            turns.remove(open.key, open.number);
            return None;
        };
        let told = turns.tellers.get(&now.upstream).copied();
        if now.cached.is_some() {
            if told.is_some() || turns.tellers.len() < UPSTREAMS_MAX {
                turns.tellers.insert(now.upstream, now.generation);
            }
        } else if let Some(told) = told {
            // A server that was started anew may not tell any more. Its first turn of a conversation finds nothing anyway.
            let before = open.before.as_ref().map(|(_, before, _)| before);
            let is_first =
                before.is_some_and(|it| it.upstream == now.upstream && it.generation != now.generation);
            now.cached = (told == now.generation || is_first).then_some(0);
        }
        let conversation = turns.known.get_mut(&open.key);
        let turn = conversation.and_then(|it| it.turns.iter_mut().find(|turn| turn.number == open.number));
        if let Some(turn) = turn {
            turn.reading = Some(now);
        }
        let (number, before, found) = open.before?;
        turns.remove(open.key, number);
        drop(turns);
        Some(judge(&found, &before, &now))
    }

    /// Locks the turns. A thread that panicked has at worst left a turn without a reading.
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    fn remove(&mut self, key: u64, number: u64) {
        let Turns { known, used, bytes, .. } = self;
        let Some(conversation) = known.get_mut(&key) else { return };
        conversation.turns.retain(|turn| {
            if turn.number == number {
                *bytes = bytes.saturating_sub(turn.size());
            }
            turn.number != number
        });
        if conversation.turns.is_empty() {
            used.remove(&conversation.used);
            known.remove(&key);
        }
    }

    /// Forgets the conversations that were used longest ago until the rest fits.
    fn make_room(&mut self) {
        while self.bytes > BYTES_MAX {
            let Some((_, oldest)) = self.used.pop_first() else { return };
            let forgotten = self.known.remove(&oldest);
            let size: usize = forgotten.iter().flat_map(|it| &it.turns).map(ChainedTurn::size).sum();
            self.bytes = self.bytes.saturating_sub(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Value;
    use crate::prefix::{Cause, ChainBuilder};

    /// The chain of a body of a few thousand tokens.
    fn chain(model: &str, effort: &str, start: &str, turns: u64) -> Chain {
        let message = |role: &str, text: String| {
            Value::object([("role", role.to_owned().into()), ("content", text.into())])
        };
        let system = message("system", format!("{start}{}", "word ".repeat(4000)));
        let more = (0..turns).map(|turn| message("user", format!("{turn} {}", "text ".repeat(2000))));
        let body = Value::object([
            ("model", model.to_owned().into()),
            ("reasoning_effort", effort.to_owned().into()),
            ("messages", std::iter::once(system).chain(more).collect::<Vec<_>>().into()),
        ]);
        ChainBuilder::write(&body, &mut Vec::new())
    }

    fn reading(cached: Option<u64>, generation: u64) -> Option<Reading> {
        Some(Reading { prompt: 5000, cached, upstream: 1, generation })
    }

    /// The cause of the next turn of one conversation.
    fn turn(prefixes: &Prefixes, chain: Chain, own: Option<Chain>, read: Option<Reading>) -> Option<Cause> {
        let open = prefixes.begin(7, chain, own);
        prefixes.end(open, read).and_then(|verdict| verdict.cause)
    }

    #[test]
    fn a_server_that_tells_no_more_after_a_restart_is_not_judged() {
        let prefixes = Prefixes::default();
        let turns = [
            (Some(0), 1, None),
            (Some(5000), 1, None),
            // It left the number out where it was 0.
            (None, 1, Some(Cause::Evicted)),
            (None, 2, Some(Cause::BoxRestarted)),
            (None, 2, Some(Cause::NotReported)),
            (None, 2, Some(Cause::NotReported)),
            (Some(5000), 2, None),
            (None, 2, Some(Cause::Evicted)),
        ];
        for (number, (cached, generation, expected)) in (1..).zip(turns) {
            let chain = chain("m", "low", "", number);
            assert_eq!(turn(&prefixes, chain, None, reading(cached, generation)), expected, "turn {number}");
        }
    }

    #[test]
    fn changes_by_a_hook_are_the_hook_s() {
        let own = |turns| chain("m", "low", "", turns);
        for changed in [chain("x", "low", "", 2), chain("m", "high", "", 2), chain("m", "low", "hooked", 2)] {
            // The hook was there before, or was loaded between the turns.
            for own_before in [Some(own(1)), None] {
                let prefixes = Prefixes::default();
                turn(&prefixes, own(1), own_before, reading(Some(0), 1));
                let cause = turn(&prefixes, changed.clone(), Some(own(2)), reading(Some(0), 1));
                assert_eq!(cause, Some(Cause::Hook));
            }
            let prefixes = Prefixes::default();
            turn(&prefixes, own(1), Some(own(1)), reading(Some(0), 1));
            let cause = turn(&prefixes, changed.clone(), Some(changed.clone()), reading(Some(0), 1));
            assert!(cause.is_some_and(|cause| cause != Cause::Hook), "the client's: {cause:?}");
        }
    }
}
