//! A box that takes the time that a real one would take: the published rates, and a memory of the prompts that it has read.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::rates::Rates;
use crate::hash::Fnv;

/// The bytes of a token, and the tokens of a block that the memory finds again.
const TOKEN_BYTES: usize = 4;
const BLOCK_TOKENS: usize = 16;

/// The most prompts that a box remembers. The one that was read first is forgotten.
const PROMPTS_MAX: usize = 24;

/// The tokens of which the cache's size is made up.
const CACHE_TOKENS: u64 = 640_000;

/// The longest time of one prompt: a prompt of a real client may be long, and a demo is not to look stuck.
const READ_MAX: Duration = Duration::from_secs(20);

/// One box.
#[derive(Debug)]
pub(super) struct PacedBox {
    rates: Rates,
    state: Mutex<BoxMemory>,
}

#[derive(Debug, Default)]
struct BoxMemory {
    /// For each prompt a hash of each block, which covers everything before it.
    prompts: VecDeque<Vec<u64>>,
    writing: usize,
    running: usize,
}

/// A prompt that a box has: it counts as running until this is dropped.
pub(super) struct PromptRead<'b> {
    owner: &'b PacedBox,
    /// The tokens of the prompt, and those of them that the box had in memory.
    pub(super) tokens: u64,
    pub(super) cached: u64,
    is_writing: bool,
}

impl Drop for PromptRead<'_> {
    fn drop(&mut self) {
        let mut state = self.owner.lock();
        state.running = state.running.saturating_sub(1);
        state.writing = state.writing.saturating_sub(usize::from(self.is_writing));
    }
}

impl PacedBox {
    /// A box that takes `times` as long as one DGX Spark.
    pub(super) fn new(times: f64) -> Self {
        PacedBox { rates: Rates::spark().slower(times), state: Mutex::default() }
    }

    /// Reads a prompt, for as long as a real box would take for what it does not remember.
    pub(super) fn read(&self, prompt: &[u8]) -> PromptRead<'_> {
        let mut before = Fnv::EMPTY;
        let blocks: Vec<u64> = prompt
            .chunks_exact(TOKEN_BYTES * BLOCK_TOKENS)
            .map(|block| {
                before = before.push(block);
                before.mixed()
            })
            .collect();
        let same = |known: &Vec<u64>| known.iter().zip(&blocks).take_while(|(a, b)| a == b).count();
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let mut state = self.lock();
        let found = state.prompts.iter().map(same).max().unwrap_or(0);
        state.prompts.push_back(blocks);
        if state.prompts.len() > PROMPTS_MAX {
            state.prompts.pop_front();
        }
        state.running += 1;
        drop(state);
        let tokens = number(prompt.len().div_ceil(TOKEN_BYTES));
        let cached = number(found * BLOCK_TOKENS).min(tokens);
        let mut read = PromptRead { owner: self, tokens, cached, is_writing: false };
        thread::sleep(time(self.rates.prefill(cached, tokens - cached)).min(READ_MAX));
        read.is_writing = true;
        self.lock().writing += 1;
        read
    }

    /// Waits for as long as the box takes to write so many tokens, beside the other answers that it writes.
    pub(super) fn write(&self, tokens: u32) {
        let streams = self.lock().writing;
        thread::sleep(time(self.rates.decode(streams) * f64::from(tokens)));
    }

    /// Its figures, as vLLM shows them.
    pub(super) fn metrics(&self) -> String {
        let state = self.lock();
        let blocks: usize = state.prompts.iter().map(Vec::len).sum();
        let tokens = u64::try_from(blocks * BLOCK_TOKENS).unwrap_or(u64::MAX).min(CACHE_TOKENS);
        let percent = tokens * 100 / CACHE_TOKENS;
        format!(
            "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{engine=\"0\"}} {}\n# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{engine=\"0\"}} 0\n# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{{engine=\"0\"}} {}.{:02}\n",
            state.running,
            percent / 100,
            percent % 100
        )
    }

    fn lock(&self) -> MutexGuard<'_, BoxMemory> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn time(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_finds_the_beginning_of_a_prompt_again() {
        // So fast that nothing waits.
        let fast = PacedBox::new(1e-9);
        let first = fast.read(&[b'a'; 640]);
        assert_eq!((first.tokens, first.cached), (160, 0));
        let longer = [&[b'a'; 640][..], &[b'b'; 640]].concat();
        let second = fast.read(&longer);
        assert_eq!((second.tokens, second.cached), (320, 160));
        assert!(fast.metrics().contains("num_requests_running{engine=\"0\"} 2\n"), "{}", fast.metrics());
        drop((first, second));
        assert_eq!(fast.read(&[b'b'; 640]).cached, 0);
        assert_eq!(fast.read(b"").tokens, 0);
        (0..100).for_each(|_| _ = fast.read(&longer));
        let state = fast.lock();
        assert_eq!((state.prompts.len(), state.running, state.writing), (PROMPTS_MAX, 0, 0));
    }
}
