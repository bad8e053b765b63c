//! Limits the memory that all requests take together, and queues requests while it is used up.
//!
//! There are two pools, each of half the budget, so that requests never wait for each other in a circle:
//!
//! | pool | holds | a request waits for it |
//! |---|---|---|
//! | bodies | the bytes of bodies as they arrive, what is sent to upstreams, answers that are put together, what streams keep | while its body is read, or its answer is put together |
//! | trees | parsed bodies and what the translation makes of them | once, before its body is parsed |
//!
//! Only memory that is really held counts: announcing a large body takes nothing from others. A request that holds a
//! tree waits for no other memory of the budget, so trees are always given back. Small requests are not counted and
//! never wait.
//!
//! Several bodies that arrive at once could each hold a part of the pool and wait forever for the rest. So one request
//! at a time may overdraw the pool: it gets all that it needs until its body is complete.

use std::cell::Cell;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Retry};
use crate::line::WaitingLine;
use crate::service;
use crate::transport::{Failure, Wait, wait_for};
use crate::wake::Wake;

use super::stop::Stop;

/// The bytes that a request may hold of each pool without being counted, for pools of half a gigabyte and more. 1,024
/// connections take 128 MiB of these; a Claude Code request of 20 KB fits.
const FREE_SIZE_MAX: usize = 128 * 1024;

/// The uncounted bytes as a part of the pool, one in 4,096; used where that is less than [`FREE_SIZE_MAX`].
const FREE_PART: usize = 4096;

/// Claims are rounded up to this, so that a body that arrives in small pieces seldom takes the lock.
const STEP: usize = 64 * 1024;

/// How long a request waits for memory before it is told to come back later. A tree is held for a fraction of a second.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How many requests may wait for one pool. A further one is told at once to come back later.
const WAITING_MAX: usize = 256;

/// The largest claim that may overdraw a pool: large enough for one read of a body, too small for a large tree.
const OVERDRAFT_STEP_MAX: usize = 1024 * 1024;

const RETRY_AFTER_S: u32 = 2;

/// The age at which the service manager's memory limits are read again, on the next claim: they may change while the
/// process runs.
const LIMIT_AGE_MAX: Duration = Duration::from_secs(5);

/// The memory budget that all requests share.
#[derive(Debug)]
pub(super) struct Budget {
    bodies: Arc<MemoryPool>,
    trees: Arc<MemoryPool>,
}

impl Budget {
    /// A budget of `size` bytes. `None`: half of the memory that the process may take.
    pub(super) fn new(size: Option<usize>) -> Self {
        let pool = || Arc::new(MemoryPool::new(size));
        Budget { bodies: pool(), trees: pool() }
    }

    /// A share for the bodies and the answer of one request.
    pub(super) fn bodies(&self) -> MemoryShare {
        MemoryShare::of(&self.bodies)
    }

    /// A share for the tree of one request and its translation.
    pub(super) fn trees(&self) -> MemoryShare {
        MemoryShare::of(&self.trees)
    }
}

/// One half of the budget.
#[derive(Debug)]
struct MemoryPool {
    /// The size that the operator set. `None`: computed from the memory limit.
    fixed_size: Option<usize>,
    /// The bytes that a share may hold without being counted.
    free: AtomicUsize,
    state: Mutex<PoolState>,
}

#[derive(Debug)]
struct PoolState {
    size: usize,
    /// When the size was computed.
    read_at: Instant,
    held: usize,
    /// True while a request overdraws the pool.
    is_overdrawn: bool,
    /// Served in order of arrival, so that smaller claims cannot keep a large one waiting without limit.
    waiting: WaitingLine<QueueTurn>,
}

/// The place of one request in the queue.
#[derive(Debug)]
struct QueueTurn {
    /// The bytes that the request waits for.
    size: usize,
    /// Woken once the memory belongs to this request.
    wake: Wake,
    /// True if the memory was granted by overdrawing. Set before `wake` is woken.
    overdraws: AtomicBool,
}

impl QueueTurn {
    fn new(size: usize) -> Result<Self, Error> {
        let wake = Wake::new().map_err(Error::exhausted)?;
        Ok(QueueTurn { size, wake, overdraws: AtomicBool::new(false) })
    }
}

/// The result of a claim.
#[derive(Debug)]
enum Taken {
    Now,
    /// Granted at once by overdrawing; all further claims of this request are granted at once, too.
    Overdrawn,
    /// Granted once this turn is woken.
    Later(Arc<QueueTurn>),
}

impl MemoryPool {
    fn new(fixed_size: Option<usize>) -> Self {
        let mut state = PoolState {
            size: 0,
            read_at: Instant::now(),
            held: 0,
            is_overdrawn: false,
            waiting: WaitingLine::new(WAITING_MAX),
        };
        let free = AtomicUsize::new(0);
        set_size(&mut state, fixed_size, &free);
        MemoryPool { fixed_size, free, state: Mutex::new(state) }
    }

    fn with<T>(&self, change: impl FnOnce(&mut PoolState) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes `more` bytes at once if there is room, otherwise queues for them.
    fn take(&self, more: usize) -> Result<Taken, Stop> {
        self.with(|state| {
            if self.fixed_size.is_none() && state.read_at.elapsed() > LIMIT_AGE_MAX {
                set_size(state, None, &self.free);
            }
            if more > state.size {
                return Err(too_large(more, state.size).into());
            }
            if state.waiting.is_empty() {
                if state.held + more <= state.size {
                    state.held += more;
                    return Ok(Taken::Now);
                }
                if state.may_overdraw(more) {
                    state.held += more;
                    state.is_overdrawn = true;
                    return Ok(Taken::Overdrawn);
                }
            }
            if state.waiting.is_full() {
                return Err(overloaded().into());
            }
            Ok(Taken::Later(state.waiting.join(QueueTurn::new(more)?)))
        })
    }

    fn end_overdraft(&self) {
        self.with(|state| {
            state.is_overdrawn = false;
            state.serve();
        });
    }

    /// Takes `more` bytes even if there is no room.
    fn take_always(&self, more: usize) {
        self.with(|state| state.held += more);
    }

    fn give(&self, size: usize) {
        self.with(|state| {
            state.held = state.held.saturating_sub(size);
            state.serve();
        });
    }

    /// Leaves the queue. Returns true if the memory had been handed over just before.
    fn leave(&self, turn: &Arc<QueueTurn>) -> bool {
        self.with(|state| {
            let was_waiting = state.waiting.leave(turn);
            state.serve(); // smaller claims behind this one may fit now
            !was_waiting
        })
    }
}

/// Sets the size of a pool to half the budget. The budget is half of what the process may take, unless the operator set
/// it.
fn set_size(state: &mut PoolState, fixed_size: Option<usize>, free: &AtomicUsize) {
    state.size = fixed_size.unwrap_or_else(|| service::memory_limit() / 2) / 2;
    state.read_at = Instant::now();
    free.store((state.size / FREE_PART).min(FREE_SIZE_MAX), Ordering::Relaxed);
}

impl PoolState {
    fn may_overdraw(&self, more: usize) -> bool {
        // A body that is complete may stay for minutes, in the line for an upstream. It must make room before another one
        // overdraws.
        !self.is_overdrawn && self.held <= self.size && more <= OVERDRAFT_STEP_MAX
    }

    /// Hands free memory to the waiting requests.
    fn serve(&mut self) {
        while let Some(next) = self.waiting.first() {
            let fits = self.held + next.size <= self.size;
            if !fits && !self.may_overdraw(next.size) {
                return;
            }
            self.held += next.size;
            self.is_overdrawn |= !fits;
            next.overdraws.store(!fits, Ordering::Release);
            next.wake.wake();
            self.waiting.take_first();
        }
    }
}

fn overloaded() -> Error {
    Error::new(Kind::Overloaded, "too many large requests at a time").retry(Retry::After(RETRY_AFTER_S))
}

fn too_large(size: usize, pool_size: usize) -> Error {
    const MIB: usize = 1024 * 1024;
    let what = format!(
        "the request takes about {} MiB of memory, and all together may take {} MiB; send less at a time, or start \
         sparkgap with a larger --memory-max",
        size.div_ceil(MIB),
        pool_size / MIB
    );
    Error::new(Kind::RequestTooLarge, what).retry(Retry::Never)
}

/// The memory that one request holds of a pool. It is given back on drop.
#[derive(Debug)]
pub(super) struct MemoryShare {
    pool: Arc<MemoryPool>,
    /// The bytes that this share may hold without being counted.
    free: usize,
    /// The bytes that are counted in the pool.
    counted: Cell<usize>,
    /// True if this share is the one that overdraws the pool.
    overdraws: Cell<bool>,
}

impl MemoryShare {
    fn of(pool: &Arc<MemoryPool>) -> Self {
        MemoryShare {
            pool: Arc::clone(pool),
            free: pool.free.load(Ordering::Relaxed),
            counted: Cell::new(0),
            overdraws: Cell::new(false),
        }
    }

    /// The bytes to count in the pool for `size` held bytes.
    fn counted_of(&self, size: usize) -> usize {
        size.saturating_sub(self.free).checked_next_multiple_of(STEP).unwrap_or(usize::MAX)
    }

    /// Makes the share hold at least `size` bytes. Waits for room, up to [`WAIT_MAX`], and watches the client
    /// meanwhile. Returns whether it had to wait.
    ///
    /// # Errors
    /// 413 if the pool is smaller than the claim. 529 if other requests hold the memory. Also if the client has left.
    pub(super) fn claim(&self, size: usize, wait: &dyn Wait) -> Result<bool, Stop> {
        let wanted = self.counted_of(size);
        let Some(more) = wanted.checked_sub(self.counted.get()).filter(|more| *more > 0) else {
            return Ok(false);
        };
        if self.overdraws.get() {
            self.set_counted(wanted);
            return Ok(false);
        }
        let turn = match self.pool.take(more)? {
            Taken::Later(turn) => turn,
            taken => {
                self.overdraws.set(matches!(taken, Taken::Overdrawn));
                self.counted.set(wanted);
                return Ok(false);
            }
        };
        let left = wait_for(wait, turn.wake.as_fd(), WAIT_MAX);
        if !matches!(left, Ok(true)) && !self.pool.leave(&turn) {
            return Err(match left {
                Err(Failure::ClientGone) => Stop::ClientGone,
                _ => overloaded().into(),
            });
        }
        // The memory belongs to this request; it may have been handed over just after the wait failed.
        self.overdraws.set(turn.overdraws.load(Ordering::Acquire));
        self.counted.set(wanted);
        match left {
            Err(Failure::ClientGone) => Err(Stop::ClientGone),
            _ => Ok(true),
        }
    }

    /// Ends this share's overdraft, if any: the body is complete, so another request may overdraw.
    pub(super) fn settle(&self) {
        if self.overdraws.replace(false) {
            self.pool.end_overdraft();
        }
    }

    /// Sets the held size to `size` bytes without waiting: either less than before, or memory that is already in use.
    pub(super) fn set(&self, size: usize) {
        self.settle();
        self.set_counted(self.counted_of(size));
    }

    fn set_counted(&self, now: usize) {
        let before = self.counted.get();
        if now > before {
            self.pool.take_always(now - before);
        } else if now < before {
            self.pool.give(before - now);
        }
        self.counted.set(now);
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::transport::{minded, nobody};

    const MIB: usize = 1024 * 1024;

    fn held(budget: &Budget) -> usize {
        budget.bodies.with(|state| state.held)
    }

    fn waiting(budget: &Budget) -> usize {
        budget.bodies.with(|state| state.waiting.len())
    }

    #[test]
    fn a_small_request_is_not_counted() {
        let budget = Budget::new(Some(1024 * MIB));
        let share = budget.bodies();
        assert!(matches!(share.claim(FREE_SIZE_MAX, &*nobody()), Ok(false)));
        assert_eq!(held(&budget), 0);
        assert!(matches!(share.claim(FREE_SIZE_MAX + 1, &*nobody()), Ok(false)));
        assert_eq!(held(&budget), STEP);
        share.set(10 * MIB);
        share.set(0);
        assert_eq!(held(&budget), 0);
    }

    #[test]
    fn what_does_not_fit_waits_and_what_is_small_passes() {
        let budget = Arc::new(Budget::new(Some(64 * MIB)));
        let first = budget.bodies();
        assert!(first.claim(30 * MIB, &*nobody()).is_ok());
        let (sender, served) = sync_channel(1);
        let thread = std::thread::spawn({
            let budget = Arc::clone(&budget);
            move || {
                let share = budget.bodies();
                sender.send(matches!(share.claim(20 * MIB, &*nobody()), Ok(true))).unwrap();
            }
        });
        while waiting(&budget) == 0 {
            std::thread::yield_now();
        }
        assert!(matches!(budget.bodies().claim(4 * 1024, &*nobody()), Ok(false)));
        drop(first);
        assert!(served.recv().unwrap());
        thread.join().unwrap();
        assert_eq!(held(&budget), 0);
    }

    #[test]
    fn bodies_that_arrive_side_by_side_do_not_wait_for_each_other() {
        let budget = Arc::new(Budget::new(Some(64 * MIB)));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let budget = Arc::clone(&budget);
                std::thread::spawn(move || {
                    let share = budget.bodies();
                    let steps = (1..=100).map(|step| share.claim(step * MIB / 10, &*nobody()));
                    steps.for_each(|claimed| assert!(claimed.is_ok()));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(budget.bodies.with(|state| (state.held, state.is_overdrawn)), (0, false));
    }

    #[test]
    fn a_client_that_leaves_waits_no_longer() {
        let budget = Budget::new(Some(64 * MIB));
        let first = budget.bodies();
        first.set(40 * MIB);
        let (wait, client) = minded();
        drop(client);
        let share = budget.bodies();
        assert!(matches!(share.claim(20 * MIB, &*wait), Err(Stop::ClientGone)));
        assert_eq!(waiting(&budget), 0);
        drop((first, share));
        assert_eq!(held(&budget), 0);
    }

    #[test]
    fn what_will_never_fit_is_refused_at_once() {
        let budget = Budget::new(Some(64 * MIB));
        let refused = budget.bodies().claim(40 * MIB, &*nobody());
        assert!(matches!(refused, Err(Stop::Error(error)) if error.kind == Kind::RequestTooLarge));
    }

    #[test]
    fn the_line_has_an_end() {
        let budget = Budget::new(Some(64 * MIB));
        let first = budget.bodies();
        first.set(40 * MIB);
        budget.bodies.with(|state| {
            (0..WAITING_MAX).for_each(|_| drop(state.waiting.join(QueueTurn::new(MIB).unwrap())));
        });
        let refused = budget.bodies().claim(20 * MIB, &*nobody());
        let Err(Stop::Error(error)) = refused else { panic!("not refused") };
        assert_eq!((error.kind, error.retry), (Kind::Overloaded, Retry::After(RETRY_AFTER_S)));
    }
}
