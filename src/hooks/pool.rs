//! The pool of VMs; each is lent to one call at a time.
//!
//! A call never waits for I/O while it has a VM, so a few are enough for any number of connections.

use std::num::NonZero;
use std::sync::{Condvar, Mutex, PoisonError};

use super::load::{Blueprint, LoadError};
use super::vm::Vm;

/// The fewest VMs: one hook that runs into its time limit must not block every other request.
const VMS_MIN: usize = 2;

/// The VMs that are not lent out.
pub(super) struct LuaPool {
    idle: Mutex<Vec<Slot>>,
    returned: Condvar,
}

/// A VM, or the place of one that was thrown away; the next call makes a new one for it.
enum Slot {
    Ready(Box<Vm>),
    Empty,
}

impl LuaPool {
    /// Makes a pool of one VM per core, all like the first.
    pub(super) fn new(blueprint: &Blueprint, first: Vm) -> Result<LuaPool, LoadError> {
        let vms = std::thread::available_parallelism().map_or(VMS_MIN, NonZero::get).max(VMS_MIN);
        let mut idle = vec![Slot::Ready(Box::new(first))];
        while idle.len() < vms {
            idle.push(Slot::Ready(Box::new(blueprint.build()?)));
        }
        Ok(LuaPool { idle: Mutex::new(idle), returned: Condvar::new() })
    }

    /// Runs `f` with a VM, and throws the VM away if it is spent afterwards.
    pub(super) fn with<T>(&self, blueprint: &Blueprint, f: impl FnOnce(&Vm) -> T) -> Result<T, LoadError> {
        // `Lent` returns the slot in every case, even after a panic; otherwise the pool would run empty.
        let mut lent = Lent { pool: self, slot: self.take() };
        if matches!(lent.slot, Slot::Empty) {
            lent.slot = Slot::Ready(Box::new(blueprint.build()?));
        }
        let Slot::Ready(vm) = std::mem::replace(&mut lent.slot, Slot::Empty) else {
            return Err(LoadError { mistakes: Vec::new() });
        };
        let outcome = f(&vm);
        if !vm.is_spent() {
            lent.slot = Slot::Ready(vm);
        }
        Ok(outcome)
    }

    /// The memory of the VMs that are not lent out, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.iter().map(|slot| if let Slot::Ready(vm) = slot { vm.memory_bytes() } else { 0 }).sum()
    }

    fn take(&self) -> Slot {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Take the VM that was returned last: most of its memory is still in the processor's caches.
            if let Some(slot) = idle.pop() {
                return slot;
            }
            idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn put(&self, slot: Slot) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        self.returned.notify_one();
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
