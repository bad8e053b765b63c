//! The pool of VMs; each is lent to one call at a time.
//!
//! A call never waits for I/O while it has a VM, so a few are enough for any number of connections. A request that waits
//! for a VM watches its client, and waits for a limited time.

use std::num::NonZero;
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::load::{Blueprint, LoadError};
use super::vm::Vm;
use crate::hang_up;
use crate::http::Socket;
use crate::line::WaitingLine;
use crate::wake::Wake;

/// The fewest VMs: one hook that runs into its time limit must not block every other request.
const VMS_MIN: usize = 2;

/// The longest wait for a VM. Calls take microseconds, so a wait shows that hooks run into their time limit one after the
/// other.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The most calls that wait for a VM. At 50 ms for each, those at the end would wait longer than they may.
const WAITING_MAX: usize = 512;

/// The VMs that are not lent out, and the calls that wait for one.
pub(super) struct LuaPool(Mutex<LuaPoolState>);

struct LuaPoolState {
    idle: Vec<Slot>,
    waiting: WaitingLine<Turn>,
}

/// A call that waits for a VM.
struct Turn {
    wake: Wake,
    /// The VM that was given to it.
    slot: Mutex<Option<Slot>>,
}

/// A VM, or the place of one that was thrown away; the next call makes a new one for it.
enum Slot {
    Ready(Box<Vm>),
    Empty,
}

/// The reason why a call gets no VM.
#[derive(Debug)]
pub(super) enum NoVm {
    /// The client has left.
    ClientGone,
    /// All VMs were busy for the longest wait, too many calls wait, or the system cannot wait.
    Busy,
    /// A new VM could not be made.
    Load(LoadError),
}

impl LuaPool {
    /// Makes a pool of one VM per core, all like the first.
    pub(super) fn new(blueprint: &Blueprint, first: Vm) -> Result<LuaPool, LoadError> {
        let vms = std::thread::available_parallelism().map_or(VMS_MIN, NonZero::get).max(VMS_MIN);
        let mut idle = vec![Slot::Ready(Box::new(first))];
        while idle.len() < vms {
            idle.push(Slot::Ready(Box::new(blueprint.build()?)));
        }
        Ok(LuaPool::of(idle))
    }

    fn of(idle: Vec<Slot>) -> LuaPool {
        LuaPool(Mutex::new(LuaPoolState { idle, waiting: WaitingLine::new(WAITING_MAX) }))
    }

    /// Runs `f` with a VM, and throws the VM away if it is spent afterwards. Waits for a VM if there must be one, and
    /// watches `client` meanwhile.
    pub(super) fn with<T>(
        &self,
        blueprint: &Blueprint,
        client: Option<&Socket>,
        f: impl FnOnce(&Vm) -> T,
    ) -> Result<T, NoVm> {
        // `Lent` returns the slot in every case, even after a panic; otherwise the pool would run empty.
        let mut lent = Lent { pool: self, slot: self.take(client, WAIT_MAX)? };
        if matches!(lent.slot, Slot::Empty) {
            lent.slot = Slot::Ready(Box::new(blueprint.build().map_err(NoVm::Load)?));
        }
        let Slot::Ready(vm) = std::mem::replace(&mut lent.slot, Slot::Empty) else { return Err(NoVm::Busy) };
        let outcome = f(&vm);
        if !vm.is_spent() {
            lent.slot = Slot::Ready(vm);
        }
        Ok(outcome)
    }

    /// The memory of the VMs that are not lent out, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let used = |slot: &Slot| if let Slot::Ready(vm) = slot { vm.memory_bytes() } else { 0 };
        self.state(|state| state.idle.iter().map(used).sum())
    }

    fn take(&self, client: Option<&Socket>, wait_max: Duration) -> Result<Slot, NoVm> {
        let turn = self.state(|state| {
            // Take the VM that was returned last: most of its memory is still in the processor's caches.
            if let Some(slot) = state.idle.pop() {
                return Ok(Err(slot));
            }
            if state.waiting.is_full() {
                return Err(NoVm::Busy);
            }
            // Without descriptors nothing can be waited for.
            let wake = Wake::new().map_err(|_| NoVm::Busy)?;
            Ok(Ok(state.waiting.join(Turn { wake, slot: Mutex::default() })))
        })?;
        let turn = match turn {
            Ok(turn) => turn,
            Err(slot) => return Ok(slot),
        };
        let waited = turn.wait(client, wait_max);
        // It may have been given a VM after the wait ended for another reason.
        self.state(|state| state.waiting.leave(&turn));
        let slot = turn.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (slot, waited) {
            (Some(slot), Err(NoVm::ClientGone)) => {
                self.put(slot);
                Err(NoVm::ClientGone)
            }
            (Some(slot), _) => Ok(slot),
            (None, waited) => Err(waited.err().unwrap_or(NoVm::Busy)),
        }
    }

    fn put(&self, slot: Slot) {
        self.state(|state| match state.waiting.take_first() {
            Some(next) => {
                *next.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(slot);
                next.wake.wake();
            }
            None => state.idle.push(slot),
        });
    }

    fn state<T>(&self, change: impl FnOnce(&mut LuaPoolState) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Turn {
    /// Waits until the turn has come, for `time` at most, or until the client hangs up.
    fn wait(&self, client: Option<&Socket>, time: Duration) -> Result<(), NoVm> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| NoVm::Busy)?;
            let turn = PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN);
            // Only a hang-up matters: a pipelined request does not mean that the client left.
            let client = client.map(Socket::as_fd);
            let watched = client.map(|client| PollFd::from_borrowed_fd(client, hang_up::events(client)));
            let mut sockets: Vec<PollFd<'_>> = std::iter::once(turn).chain(watched).collect();
            match poll(&mut sockets, Some(&timeout)) {
                Ok(0) => return Err(NoVm::Busy),
                Ok(_)
                    if client
                        .zip(sockets.get(1))
                        .is_some_and(|(client, seen)| hang_up::is_shown(client, seen.revents())) =>
                {
                    return Err(NoVm::ClientGone);
                }
                // A client that sends its next request ends the wait on systems without an event for a hang-up.
                Ok(_) if sockets.first().is_none_or(|turn| turn.revents().is_empty()) => {}
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(NoVm::Busy),
            }
        }
    }
}

/// A slot on loan.
struct Lent<'p> {
    pool: &'p LuaPool,
    slot: Slot,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.pool.put(std::mem::replace(&mut self.slot, Slot::Empty));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    use super::*;

    fn busy() -> LuaPool {
        LuaPool::of(Vec::new())
    }

    fn client() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Socket::new(listener.accept().unwrap().0), far)
    }

    #[test]
    fn a_call_waits_for_a_vm_for_a_limited_time() {
        let pool = busy();
        assert!(matches!(pool.take(None, Duration::from_millis(1)), Err(NoVm::Busy)));
        assert_eq!(pool.state(|state| state.waiting.len()), 0);
    }

    #[test]
    fn a_client_that_leaves_waits_no_longer() {
        let pool = busy();
        let (socket, far) = client();
        drop(far);
        assert!(matches!(pool.take(Some(&socket), Duration::from_secs(600)), Err(NoVm::ClientGone)));
        assert_eq!(pool.state(|state| state.waiting.len()), 0);
    }

    #[test]
    fn a_vm_that_is_returned_goes_to_the_first_that_waits() {
        let pool = Arc::new(busy());
        let waiter = Arc::clone(&pool);
        let thread = std::thread::spawn(move || {
            let (socket, _far) = client();
            waiter.take(Some(&socket), Duration::from_secs(600)).is_ok()
        });
        while pool.state(|state| state.waiting.is_empty()) {
            std::thread::yield_now();
        }
        pool.put(Slot::Empty);
        assert!(thread.join().unwrap());
        assert_eq!(pool.state(|state| (state.idle.len(), state.waiting.len())), (0, 0));
        pool.put(Slot::Empty);
        assert!(pool.take(None, Duration::ZERO).is_ok(), "nobody waits, so it is idle");
    }
}
