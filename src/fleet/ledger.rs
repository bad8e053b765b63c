//! The models that have made the blocks of thinking of running conversations: the API accepts such a block only from the
//! model that has made it.
//!
//! Holds hashes only, of signatures and of models' names. It is lost with the process: a block of which nothing is known is
//! sent, and if the API refuses it, that is noted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::hash::Fnv;
use crate::translate::ThinkingMaker;

/// The most blocks that are known; the oldest are forgotten first. A conversation of a day has some hundred. 65,536 take 3 MB.
const BLOCKS_MAX: usize = 65_536;

/// The known facts about a block. Models stand by the hashes of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockOrigin {
    /// This model has made it.
    MadeBy(u64),
    /// This model has refused it, so another one has made it.
    RefusedBy(u64),
    /// More than one model has refused it.
    Lost,
}

/// The origin of each block, by its id.
#[derive(Debug, Default)]
pub struct ThinkingLedger(Mutex<LedgerPages>);

#[derive(Debug, Default)]
struct LedgerPages {
    origins: HashMap<u64, BlockOrigin>,
    order: VecDeque<u64>,
}

impl ThinkingLedger {
    fn pages(&self) -> MutexGuard<'_, LedgerPages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the model of this name has made the block of this id.
    pub fn note(&self, block: u64, model: &str) {
        self.pages().set(block, BlockOrigin::MadeBy(model_id(model)));
    }

    /// Notes that the model of this name has refused a request with these blocks, so that it does not get them again. Only
    /// those that it has not made can be the reason, if there are any.
    pub fn disown(&self, blocks: &[u64], model: &str) {
        let model = model_id(model);
        let mut pages = self.pages();
        let is_own =
            |pages: &LedgerPages, block: &u64| pages.origins.get(block) == Some(&BlockOrigin::MadeBy(model));
        let are_all_own = blocks.iter().all(|block| is_own(&pages, block));
        for block in blocks {
            let origin = match pages.origins.get(block) {
                Some(BlockOrigin::MadeBy(known)) if *known == model && !are_all_own => continue,
                Some(BlockOrigin::RefusedBy(known)) if *known != model => BlockOrigin::Lost,
                Some(BlockOrigin::Lost) => BlockOrigin::Lost,
                _ => BlockOrigin::RefusedBy(model),
            };
            pages.set(*block, origin);
        }
    }

    /// The maker of the block of this id, for a request to the model of this name.
    pub fn maker(&self, block: u64, model: &str) -> ThinkingMaker {
        let model = model_id(model);
        match self.pages().origins.get(&block) {
            None => ThinkingMaker::Unknown,
            Some(BlockOrigin::MadeBy(known)) if *known == model => ThinkingMaker::Same,
            Some(BlockOrigin::RefusedBy(known)) if *known != model => ThinkingMaker::Unknown,
            Some(_) => ThinkingMaker::Other,
        }
    }
}

impl LedgerPages {
    fn set(&mut self, block: u64, origin: BlockOrigin) {
        if self.origins.insert(block, origin).is_none() {
            self.order.push_back(block);
        }
        if self.order.len() > BLOCKS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.origins.remove(&oldest);
        }
    }
}

fn model_id(model: &str) -> u64 {
    Fnv::EMPTY.push(model.as_bytes()).mixed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_belong_to_their_models() {
        let ledger = ThinkingLedger::default();
        ledger.note(1, "a");
        assert_eq!(ledger.maker(1, "a"), ThinkingMaker::Same);
        assert_eq!(ledger.maker(1, "b"), ThinkingMaker::Other);
        assert_eq!(ledger.maker(2, "a"), ThinkingMaker::Unknown);
    }

    #[test]
    fn a_refused_block_is_kept_for_the_other_models() {
        let ledger = ThinkingLedger::default();
        ledger.note(1, "a");
        ledger.disown(&[1, 2], "a");
        assert_eq!(ledger.maker(1, "a"), ThinkingMaker::Same, "only the other one can be the reason");
        assert_eq!(
            (ledger.maker(2, "a"), ledger.maker(2, "b")),
            (ThinkingMaker::Other, ThinkingMaker::Unknown)
        );
        ledger.disown(&[2], "b");
        for model in ["a", "b", "c"] {
            assert_eq!(ledger.maker(2, model), ThinkingMaker::Other, "{model}");
        }
        // Where all blocks are known to be its own, it refuses one of these.
        ledger.disown(&[1], "a");
        assert_eq!(ledger.maker(1, "a"), ThinkingMaker::Other);
        ledger.note(1, "a");
        assert_eq!(ledger.maker(1, "a"), ThinkingMaker::Same);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let ledger = ThinkingLedger::default();
        let most = u64::try_from(BLOCKS_MAX).unwrap();
        (0..=most).for_each(|block| ledger.note(block, "a"));
        assert_eq!(ledger.maker(0, "a"), ThinkingMaker::Unknown);
        assert_eq!(ledger.maker(1, "a"), ThinkingMaker::Same);
        assert_eq!(ledger.pages().origins.len(), BLOCKS_MAX);
    }
}
