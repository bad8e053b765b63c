//! The tokens of each conversation's prefix that each upstream has read, by our own memory.
//!
//! The beginning that many conversations share (tools and system prompt) is remembered like a conversation of its own.
//! At most [`REMEMBERED_MAX`] entries are kept; the one that was used longest ago is dropped first.
//!
//! Pure.

use std::collections::{BTreeMap, HashMap};

/// The most conversations and shared beginnings that are remembered: about 1 MB.
const REMEMBERED_MAX: usize = 2 * 4096;

/// The most upstreams that one entry remembers.
const PLACES_MAX: usize = 8;

/// An upstream, as the dispatch of requests knows it. A number is never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BoxId(pub(super) u64);

/// The memory of conversations.
#[derive(Debug, Default)]
pub(super) struct Conversations {
    known: HashMap<u64, Conversation>,
    /// The keys by the time of their last use.
    used: BTreeMap<u64, u64>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Conversation {
    /// The upstreams and the tokens of the prefix there; the last one is the conversation's home.
    places: Vec<(BoxId, u64)>,
    /// The upstream that has failed with it since it was last answered.
    failed_at: Option<BoxId>,
    used: u64,
}

impl Conversations {
    /// The upstream that had the conversation's last turn.
    pub(super) fn home(&self, key: u64) -> Option<BoxId> {
        self.known.get(&key)?.places.last().map(|(id, _)| *id)
    }

    /// The tokens of the conversation's prefix that this upstream has read.
    pub(super) fn held(&self, key: u64, id: BoxId) -> u64 {
        let places = self.known.get(&key).map(|known| known.places.as_slice()).unwrap_or_default();
        places.iter().find(|(place, _)| *place == id).map_or(0, |(_, tokens)| *tokens)
    }

    /// Notes that this upstream has read a prefix of this many tokens, and is the conversation's home.
    pub(super) fn note(&mut self, key: u64, id: BoxId, tokens: u64) {
        self.clock += 1;
        let known = self.known.entry(key).or_default();
        self.used.remove(&known.used);
        known.used = self.clock;
        self.used.insert(self.clock, key);
        known.places.retain(|(place, _)| *place != id);
        if known.places.len() >= PLACES_MAX {
            known.places.remove(0);
        }
        known.places.push((id, tokens));
        if self.known.len() > REMEMBERED_MAX
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.known.remove(&oldest);
        }
    }

    /// The upstream that has failed with the conversation since it was last answered. Its client asks again, and another
    /// upstream should answer.
    pub(super) fn failed_at(&self, key: u64) -> Option<BoxId> {
        self.known.get(&key)?.failed_at
    }

    /// Notes the upstream that has failed with a conversation; `None`: the conversation was answered.
    pub(super) fn note_failure(&mut self, key: u64, failed_at: Option<BoxId>) {
        if let Some(known) = self.known.get_mut(&key) {
            known.failed_at = failed_at;
        }
    }

    /// Forgets all prefixes at an upstream, which was started anew.
    pub(super) fn forget(&mut self, id: BoxId) {
        self.known.values_mut().for_each(|known| known.places.retain(|(place, _)| *place != id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BoxId = BoxId(1);
    const B: BoxId = BoxId(2);

    #[test]
    fn it_knows_home_and_prefixes() {
        let mut known = Conversations::default();
        assert_eq!((known.home(7), known.held(7, A)), (None, 0));
        known.note(7, A, 100);
        known.note(7, B, 50);
        known.note(7, A, 120);
        assert_eq!((known.home(7), known.held(7, A), known.held(7, B)), (Some(A), 120, 50));
        known.forget(A);
        assert_eq!((known.home(7), known.held(7, A), known.held(7, B)), (Some(B), 0, 50));
    }

    #[test]
    fn the_one_that_was_used_longest_ago_is_dropped_first() {
        let mut known = Conversations::default();
        let most = REMEMBERED_MAX as u64;
        (0..most).for_each(|key| known.note(key, A, key));
        known.note(0, A, 1);
        known.note(most, A, 1);
        known.note(most + 1, A, 1);
        assert_eq!(
            (known.home(0), known.home(1), known.home(2), known.home(3)),
            (Some(A), None, None, Some(A))
        );
        assert_eq!((known.known.len(), known.used.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }

    #[test]
    fn one_entry_remembers_few_upstreams() {
        let mut known = Conversations::default();
        (0..20).for_each(|id| known.note(7, BoxId(id), 10));
        assert_eq!((known.held(7, BoxId(11)), known.held(7, BoxId(12))), (0, 10));
    }
}
