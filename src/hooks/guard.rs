//! The limits of one VM: the time and the C stack of a call, and the bytes that it may write into a request.
//!
//! Lua calls the debug hook here before every function call and every thousandth instruction. The debug hook is the
//! only thing that can stop running Lua code. The sandbox therefore leaves out everything that escapes it: coroutines
//! (each has a debug hook of its own) and finalisers (they run with it off).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mlua::debug::Debug;
use mlua::{HookTriggers, Lua, VmState};

/// The number of instructions after which the clock is read in code that calls no function.
const INSTRUCTIONS_PER_CHECK: u32 = 1000;

/// The C stack that Lua may use below the call, in bytes. A connection's thread has 256 KiB. The proxy needs up to
/// 48 KiB of them, and the largest single step after a check (a conversion to JSON, `string.gsub`) less than 64 KiB.
const STACK_BYTES_MAX: usize = 112 * 1024;

/// The bytes that one call may write into a request. They are stored outside the VM, so the VM's memory limit does not
/// count them.
const WRITTEN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The limits of the call that runs in one VM, and how much of them is used.
pub(super) struct Guard {
    epoch: Instant,
    deadline_nanos: AtomicU64,
    stack_base: AtomicUsize,
    written_bytes: AtomicUsize,
    /// The place in the Lua code at which the time limit was hit.
    expired_at: OnceLock<String>,
}

impl Guard {
    /// Makes a guard that watches `lua` from now on. Nothing may run before [`Guard::start`].
    pub(super) fn install(lua: &Lua) -> mlua::Result<Arc<Guard>> {
        let guard = Arc::new(Guard {
            epoch: Instant::now(),
            deadline_nanos: AtomicU64::new(0),
            stack_base: AtomicUsize::new(0),
            written_bytes: AtomicUsize::new(0),
            expired_at: OnceLock::new(),
        });
        let triggers = HookTriggers::new().on_calls().every_nth_instruction(INSTRUCTIONS_PER_CHECK);
        watch(lua, &guard, triggers)?;
        Ok(guard)
    }

    /// Starts the limits of a call: it runs on this thread's stack, and may take `time_max`.
    pub(super) fn start(&self, time_max: Duration) {
        let nanos = u64::try_from((self.epoch.elapsed() + time_max).as_nanos()).unwrap_or(u64::MAX);
        self.deadline_nanos.store(nanos, Ordering::Relaxed);
        self.stack_base.store(stack_address(), Ordering::Relaxed);
        self.written_bytes.store(0, Ordering::Relaxed);
    }

    /// True if the time limit was hit. The VM then raises an error at every instruction, so it must be thrown away.
    pub(super) fn expired(&self) -> bool {
        self.expired_at.get().is_some()
    }

    /// Fails if the C stack has grown too deep.
    pub(super) fn check_stack(&self) -> mlua::Result<()> {
        let used = self.stack_base.load(Ordering::Relaxed).saturating_sub(stack_address());
        if used > STACK_BYTES_MAX {
            return Err(mlua::Error::runtime("stack overflow: calls nest too deep"));
        }
        Ok(())
    }

    /// Counts bytes that are written into a request; fails if they are too many.
    pub(super) fn spend(&self, bytes: usize) -> mlua::Result<()> {
        let written = self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        if written.saturating_add(bytes) > WRITTEN_BYTES_MAX {
            return Err(mlua::Error::runtime(format!(
                "more than {} MiB written in one call",
                WRITTEN_BYTES_MAX >> 20
            )));
        }
        Ok(())
    }

    /// Fails if the time is over or the stack is too deep. For loops and recursion in Rust, which the debug hook does
    /// not see.
    pub(super) fn check(&self) -> mlua::Result<()> {
        if self.time_is_over() {
            return Err(mlua::Error::runtime("time limit: the hook took too long"));
        }
        self.check_stack()
    }

    fn time_is_over(&self) -> bool {
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        now > self.deadline_nanos.load(Ordering::Relaxed)
    }
}

/// Sets the debug hook. Once the deadline has passed, it is set again for every instruction and fails at each of them,
/// since `while true do pcall(f) end` would swallow single errors without end.
fn watch(lua: &Lua, guard: &Arc<Guard>, triggers: HookTriggers) -> mlua::Result<()> {
    let guard = Arc::clone(guard);
    lua.set_global_hook(triggers, move |lua, debug| {
        if guard.time_is_over() {
            let is_first = guard.expired_at.get().is_none();
            let place = guard.expired_at.get_or_init(|| place_of(debug));
            let error = mlua::Error::runtime(format!("{place}time limit: the hook took too long"));
            if is_first {
                watch(lua, &guard, HookTriggers::new().on_calls().every_nth_instruction(1))?;
            }
            return Err(error);
        }
        guard.check_stack()?;
        Ok(VmState::Continue)
    })
}

/// The place as Lua begins its messages, `file.lua:5: `; empty in C code.
fn place_of(debug: &Debug<'_>) -> String {
    match (debug.source().short_src, debug.current_line()) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        _ => String::new(),
    }
}

/// The address where this thread's stack ends now, approximately. Stacks grow downwards on every platform that sparkgap
/// supports.
// `inline(never)`: the function measures the address of its own frame, so it needs one, below the caller's.
#[inline(never)]
fn stack_address() -> usize {
    let marker = 0u8;
    std::ptr::from_ref(std::hint::black_box(&marker)).addr()
}
