//! One box: takes requests, works in steps, and says when what happens. No socket, no thread; the clock is an argument.
//!
//! Each step is one pass of the model, as in vLLM: every running answer grows by a token, and the rest of a budget of
//! tokens goes to prompts, in the order of their arrival. So a long prompt slows the answers beside it down. Requests
//! wait in one line for a place and for memory. The memory for the whole answer is taken at the start, so that no
//! request is ever preempted; vLLM would let it start and, if memory runs out, compute it again later.
//!
//! Whoever drives it calls `advance` with the time of `next_event`, before anything else that happens at that time:
//!
//! ```text
//! let id = engine.arrive(now, &job);
//! while let Some(at) = engine.next_event() { for event in engine.advance(at) { … } }
//! ```

use std::collections::VecDeque;

use super::cache::{BLOCK, PrefixCache};
use super::rates::Rates;

/// The build of a box.
#[derive(Clone, Debug)]
pub struct Profile {
    pub rates: Rates,
    /// The number of requests that run at once.
    pub slots: usize,
    /// The number of tokens in the memory for keys and values.
    pub kv_tokens: u64,
    /// The tokens of a block of that memory. A simulation of hours takes larger blocks than vLLM, to save time.
    pub block: u64,
    /// The number of tokens that one step computes at most.
    pub step_tokens: u64,
}

impl Profile {
    /// A DGX Spark as vLLM would set it up.
    pub fn spark() -> Profile {
        Profile { rates: Rates::spark(), slots: 16, kv_tokens: 640_000, block: BLOCK, step_tokens: 2048 }
    }
}

/// A request for a box.
#[derive(Clone, Debug)]
pub struct Job {
    /// A hash for each full block of the prompt, and then of prompt and answer together. Each covers everything up to
    /// the end of its block ([`chain`]). Blocks without a hash are never found again.
    pub blocks: Vec<u64>,
    pub prompt: u64,
    /// The number of tokens of the answer, at least 1.
    pub output: u64,
}

/// The hash of a block, from the hash of the block before it and its own content.
pub fn chain(before: u64, content: u64) -> u64 {
    sparkgap::hash::Fnv::EMPTY.push(&before.to_le_bytes()).push(&content.to_le_bytes()).mixed()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It has a place, and its prompt is read from the next step on.
    Started,
    FirstToken,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    pub at: f64,
    pub id: u64,
    pub kind: EventKind,
    /// The tokens of its prompt that were found in memory.
    pub cached: u64,
}

/// Sums since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The tokens of all prompts that have started.
    pub prompt: u64,
    /// The tokens of them that were found in memory.
    pub cached: u64,
    pub prefilled: u64,
    pub generated: u64,
    pub done: u64,
}

/// One pass of the model, or several equal ones in which answers grow and nothing else happens.
struct Step {
    /// The seconds of work of one pass.
    pass: f64,
    /// The number of passes whose results are not entered yet.
    passes: u64,
    /// The seconds of work that are left.
    left: f64,
}

/// A request with a place.
struct Running {
    id: u64,
    job: Job,
    cached: u64,
    /// The tokens of prompt and answer whose keys and values are in memory.
    computed: u64,
    produced: u64,
    /// The tokens that one pass of the current step computes.
    planned: u64,
    /// The number of blocks that were full so far.
    full: usize,
    shared: Vec<u64>,
    private: usize,
}

impl Running {
    fn is_decoding(&self) -> bool {
        self.produced > 0
    }

    fn event(&self, at: f64, kind: EventKind) -> Event {
        Event { at, id: self.id, kind, cached: self.cached }
    }
}

pub struct Engine {
    profile: Profile,
    cache: PrefixCache,
    waiting: VecDeque<(u64, Job)>,
    running: Vec<Running>,
    /// True if the first of the line found too little memory, and no memory was given up since.
    is_full: bool,
    events: Vec<Event>,
    clock: f64,
    step: Option<Step>,
    speed: f64,
    next_id: u64,
    totals: Totals,
}

impl Engine {
    pub fn new(profile: Profile) -> Engine {
        Engine {
            cache: PrefixCache::new(profile.kv_tokens, profile.block),
            profile,
            waiting: VecDeque::new(),
            running: Vec::new(),
            is_full: false,
            events: Vec::new(),
            clock: 0.0,
            step: None,
            speed: 1.0,
            next_id: 0,
            totals: Totals::default(),
        }
    }

    /// True if the memory has room for a request of this size at all.
    pub fn fits(&self, tokens: u64) -> bool {
        (tokens.div_ceil(self.profile.block) as usize) <= self.cache.capacity()
    }

    /// Adds a request to the line. `advance` must have been called for everything before `now`.
    pub fn arrive(&mut self, now: f64, job: Job) -> u64 {
        assert!(job.output > 0 && job.prompt > 0, "an empty request");
        assert!(self.fits(job.prompt + job.output), "it would wait forever for memory");
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.push_back((id, job));
        match self.step {
            Some(_) => self.end_after_this_pass(),
            None => {
                self.clock = self.clock.max(now);
                self.plan();
            }
        }
        id
    }

    /// The client of this request has left.
    pub fn abort(&mut self, id: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        self.is_full = false;
        if let Some(at) = self.running.iter().position(|running| running.id == id) {
            let gone = self.running.remove(at);
            self.cache.release(&gone.shared, gone.private);
            self.end_after_this_pass();
        }
    }

    /// The next passes will be planned anew, since what they would do has changed.
    fn end_after_this_pass(&mut self) {
        if let Some(step) = &mut self.step {
            step.left -= (step.passes - 1) as f64 * step.pass;
            step.passes = 1;
        }
    }

    /// From `now` on it works at this speed: 0.1 is a tenth, 0 hangs.
    pub fn set_speed(&mut self, now: f64, speed: f64) {
        if self.step.is_none() {
            self.clock = self.clock.max(now);
        }
        self.speed = speed;
        if self.step.is_none() {
            self.plan();
        }
    }

    /// The time of the next event; `None`: nothing happens until a request arrives or the speed changes.
    pub fn next_event(&self) -> Option<f64> {
        let event = self.events.first().map(|event| event.at);
        event.or_else(|| self.step.as_ref().map(|step| self.end(step)).filter(|end| end.is_finite()))
    }

    fn end(&self, step: &Step) -> f64 {
        if self.speed > 0.0 { self.clock + step.left / self.speed } else { f64::INFINITY }
    }

    /// Works until `now`, and returns the events up to then in their order. A step may end without an event.
    pub fn advance(&mut self, now: f64) -> Vec<Event> {
        while let Some(step) = self.step.take() {
            let end = self.end(&step);
            if end > now {
                self.go_on(step, (now - self.clock).max(0.0) * self.speed);
                break;
            }
            self.clock = end;
            self.enter(step.passes);
            self.plan();
        }
        self.clock = self.clock.max(now);
        std::mem::take(&mut self.events)
    }

    /// Works for some seconds on a step that does not end in this time.
    fn go_on(&mut self, mut step: Step, work: f64) {
        step.left -= work;
        // A pass that is over except for a rounding error counts as over.
        let open = ((step.left / step.pass - 1e-6).ceil() as u64).clamp(1, step.passes);
        self.enter(step.passes - open);
        step.passes = open;
        self.step = Some(step);
    }

    /// Begins the next step if there is work.
    fn plan(&mut self) {
        if self.speed == 0.0 {
            self.step = None;
            return;
        }
        let decoding = self.running.iter().filter(|running| running.is_decoding()).count();
        let mut budget = self.profile.step_tokens.saturating_sub(decoding as u64);
        let mut work = self.profile.rates.decode(decoding);
        for running in &mut self.running {
            if running.is_decoding() {
                running.planned = 1;
            } else {
                work += plan_prompt(&self.profile.rates, running, &mut budget);
            }
        }
        while budget > 0
            && let Some(mut started) = self.start()
        {
            work += plan_prompt(&self.profile.rates, &mut started, &mut budget);
            self.running.push(started);
        }
        // While answers grow alone, nothing changes until the first of them ends.
        let is_decoding_only = decoding == self.running.len();
        let left = self.running.iter().map(|running| running.job.output - running.produced).min();
        let passes = left.filter(|_| is_decoding_only).unwrap_or(1);
        self.step = (work > 0.0).then_some(Step { pass: work, passes, left: work * passes as f64 });
    }

    /// Gives the first request of the line a place, if there is one and memory for it.
    fn start(&mut self) -> Option<Running> {
        if self.running.len() >= self.profile.slots || self.is_full {
            return None;
        }
        let (_, job) = self.waiting.front()?;
        // The last token is always computed, since the first one of the answer comes from it.
        let most = ((job.prompt - 1) / self.profile.block) as usize;
        let matched = self.cache.matched(&job.blocks[..most.min(job.blocks.len())]);
        let private = (job.prompt + job.output).div_ceil(self.profile.block) as usize - matched;
        if !self.cache.reserve(&job.blocks[..matched], private) {
            self.is_full = true;
            return None;
        }
        let (id, job) = self.waiting.pop_front()?;
        let cached = matched as u64 * self.profile.block;
        self.totals.prompt += job.prompt;
        self.totals.cached += cached;
        self.events.push(Event { at: self.clock, id, kind: EventKind::Started, cached });
        let shared = job.blocks[..matched].to_vec();
        let (computed, full) = (cached, matched);
        Some(Running { id, job, cached, computed, produced: 0, planned: 0, full, shared, private })
    }

    /// Enters what these passes have done.
    fn enter(&mut self, passes: u64) {
        for running in self.running.iter_mut().filter(|_| passes > 0) {
            let was_decoding = running.is_decoding();
            let tokens = running.planned * passes;
            running.computed += tokens;
            if was_decoding {
                running.produced += tokens;
                self.totals.generated += tokens;
            } else {
                self.totals.prefilled += tokens;
            }
            publish(&mut self.cache, self.profile.block, running);
            if !was_decoding && running.computed == running.job.prompt {
                running.produced = 1;
                self.totals.generated += 1;
                self.events.push(running.event(self.clock, EventKind::FirstToken));
            }
        }
        let is_done = |running: &mut Running| running.produced >= running.job.output;
        for done in self.running.extract_if(.., is_done) {
            self.cache.release(&done.shared, done.private);
            self.totals.done += 1;
            self.is_full = false;
            self.events.push(done.event(self.clock, EventKind::Done));
        }
    }

    /// The number of requests with a place.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The number of requests in the line.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The share of the memory that running requests use.
    pub fn kv_usage(&self) -> f64 {
        self.cache.usage()
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The tokens of this request's prompt that were in memory when it started; `None`: it does not run.
    pub fn cached_tokens(&self, id: u64) -> Option<u64> {
        self.find(id).map(|running| running.cached)
    }

    /// The number of tokens of its answer so far; `None`: it does not run.
    pub fn produced(&self, id: u64) -> Option<u64> {
        self.find(id).map(|running| running.produced)
    }

    /// The tokens of a prompt that would be found in memory now.
    pub fn would_find(&self, job: &Job) -> u64 {
        let most = ((job.prompt - 1) / self.profile.block) as usize;
        self.cache.matched(&job.blocks[..most.min(job.blocks.len())]) as u64 * self.profile.block
    }

    fn find(&self, id: u64) -> Option<&Running> {
        self.running.iter().find(|running| running.id == id)
    }
}

/// Plans the next piece of a prompt within the budget, and returns its seconds.
fn plan_prompt(rates: &Rates, running: &mut Running, budget: &mut u64) -> f64 {
    running.planned = (running.job.prompt - running.computed).min(*budget);
    *budget -= running.planned;
    rates.prefill(running.computed, running.planned)
}

/// Shares the blocks that have become full.
fn publish(cache: &mut PrefixCache, block: u64, running: &mut Running) {
    while running.full < (running.computed / block) as usize {
        if let Some(hash) = running.job.blocks.get(running.full)
            && cache.publish(*hash)
        {
            running.private -= 1;
            running.shared.push(*hash);
        }
        running.full += 1;
    }
}
