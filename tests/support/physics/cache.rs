//! The memory for keys and values of one box: blocks of a few tokens, as vLLM manages them.
//!
//! A full block is known by a hash of everything up to its end, so that requests with the same beginning share blocks.
//! A block that no request uses stays until its memory is needed; the one that was given up first goes first.

use std::collections::{BTreeMap, HashMap};

/// The tokens of a block in vLLM.
pub const BLOCK: u64 = 16;

/// A block that has a hash.
struct SharedBlock {
    users: u32,
    /// Its place in the order of eviction. It counts while nobody uses the block.
    given_up: u64,
}

pub struct PrefixCache {
    capacity: usize,
    shared: HashMap<u64, SharedBlock>,
    /// The blocks without users, in the order in which they were given up.
    unused: BTreeMap<u64, u64>,
    /// The number of blocks that belong to one request alone: not yet full, or computed twice.
    private: usize,
    clock: u64,
}

impl PrefixCache {
    /// `tokens`: the size of the memory; `block`: the tokens of a block.
    pub fn new(tokens: u64, block: u64) -> PrefixCache {
        let capacity = (tokens / block) as usize;
        PrefixCache { capacity, shared: HashMap::new(), unused: BTreeMap::new(), private: 0, clock: 0 }
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The number of blocks at the beginning of `hashes` that are here.
    pub fn matched(&self, hashes: &[u64]) -> usize {
        hashes.iter().take_while(|hash| self.shared.contains_key(hash)).count()
    }

    /// The share of the memory that requests use now.
    pub fn usage(&self) -> f64 {
        self.used() as f64 / self.capacity as f64
    }

    fn used(&self) -> usize {
        self.private + self.shared.len() - self.unused.len()
    }

    /// Takes the blocks `matched`, which are here, and `private` new ones. Returns false if the memory is too full.
    pub fn reserve(&mut self, matched: &[u64], private: usize) -> bool {
        let revived = matched.iter().filter(|hash| self.shared[hash].users == 0).count();
        if self.used() + revived + private > self.capacity {
            return false;
        }
        for hash in matched {
            let block = self.shared.get_mut(hash).unwrap();
            if block.users == 0 {
                self.unused.remove(&block.given_up);
            }
            block.users += 1;
        }
        self.private += private;
        while self.private + self.shared.len() > self.capacity {
            let (_, hash) = self.unused.pop_first().unwrap();
            self.shared.remove(&hash);
        }
        true
    }

    /// A private block is full and can be shared from now on. Returns false if the same block is here already: then it
    /// stays private.
    pub fn publish(&mut self, hash: u64) -> bool {
        if self.shared.contains_key(&hash) {
            return false;
        }
        self.private -= 1;
        self.shared.insert(hash, SharedBlock { users: 1, given_up: 0 });
        true
    }

    /// A request that used these blocks has ended. The end of its text is forgotten before the beginning.
    pub fn release(&mut self, shared: &[u64], private: usize) {
        self.private -= private;
        for hash in shared.iter().rev() {
            let block = self.shared.get_mut(hash).unwrap();
            block.users -= 1;
            if block.users == 0 {
                self.clock += 1;
                block.given_up = self.clock;
                self.unused.insert(self.clock, *hash);
            }
        }
    }
}
