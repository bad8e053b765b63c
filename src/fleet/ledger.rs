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

/// Stands for the model of a block that the API has refused: no model is known that accepts it.
const NOBODY: u64 = 0;

/// The model of each block, by hashes.
#[derive(Debug, Default)]
pub struct ThinkingLedger(Mutex<LedgerPages>);

#[derive(Debug, Default)]
struct LedgerPages {
    models: HashMap<u64, u64>,
    order: VecDeque<u64>,
}

impl ThinkingLedger {
    fn pages(&self) -> MutexGuard<'_, LedgerPages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the model of this name has made the block of this id.
    pub fn note(&self, block: u64, model: &str) {
        self.set(block, model_id(model));
    }

    /// Notes that the API has refused these blocks, so that no model gets them again.
    pub fn disown(&self, blocks: &[u64]) {
        blocks.iter().for_each(|block| self.set(*block, NOBODY));
    }

    fn set(&self, block: u64, model: u64) {
        let mut pages = self.pages();
        if pages.models.insert(block, model).is_none() {
            pages.order.push_back(block);
        }
        if pages.order.len() > BLOCKS_MAX
            && let Some(oldest) = pages.order.pop_front()
        {
            pages.models.remove(&oldest);
        }
    }

    /// The maker of the block of this id, for a request to the model of this name.
    pub fn maker(&self, block: u64, model: &str) -> ThinkingMaker {
        match self.pages().models.get(&block) {
            None => ThinkingMaker::Unknown,
            Some(known) if *known == model_id(model) => ThinkingMaker::Same,
            Some(_) => ThinkingMaker::Other,
        }
    }
}

fn model_id(model: &str) -> u64 {
    Fnv::EMPTY.push(model.as_bytes()).mixed().max(NOBODY + 1)
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
        ledger.disown(&[1, 2]);
        assert_eq!(ledger.maker(1, "a"), ThinkingMaker::Other);
        assert_eq!(ledger.maker(2, "a"), ThinkingMaker::Other);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let ledger = ThinkingLedger::default();
        let most = u64::try_from(BLOCKS_MAX).unwrap();
        (0..=most).for_each(|block| ledger.note(block, "a"));
        assert_eq!(ledger.maker(0, "a"), ThinkingMaker::Unknown);
        assert_eq!(ledger.maker(1, "a"), ThinkingMaker::Same);
        assert_eq!(ledger.pages().models.len(), BLOCKS_MAX);
    }
}
