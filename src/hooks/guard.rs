//! The limits of one VM: time, C stack, and how much a call may write into a request.
//!
//! Lua's debug hook asks here before every function call and every thousandth instruction. It is the only thing
//! that can stop running Lua code, so whatever escapes it is not in the sandbox: coroutines (each has a debug hook
//! of its own) and finalisers (they run with it off).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mlua::debug::Debug;
use mlua::{HookTriggers, Lua, VmState};

/// How often the clock is read in code that calls nothing.
const INSTRUCTIONS_PER_CHECK: u32 = 1000;

/// How much C stack Lua may use below the call. A connection's thread has 256 KiB, the proxy needs up to 48 of them,
/// and the largest single step after a check (a conversion to JSON, `string.gsub`) stays below 64.
const STACK_BYTES_MAX: usize = 112 * 1024;

/// How many bytes one call may write into a request: they live outside the VM, where its memory limit does not count.
const WRITTEN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What one VM's running call may still use.
pub(super) struct Guard {
    epoch: Instant,
    deadline_nanos: AtomicU64,
    stack_base: AtomicUsize,
    written_bytes: AtomicUsize,
    /// Where the code was when its time was over.
    expired_at: OnceLock<String>,
}

impl Guard {
    /// A guard that watches over `lua` from now on; nothing runs before [`Guard::start`].
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

    /// A call begins here, on this thread's stack, and may take this long.
    pub(super) fn start(&self, time_max: Duration) {
        let nanos = u64::try_from((self.epoch.elapsed() + time_max).as_nanos()).unwrap_or(u64::MAX);
        self.deadline_nanos.store(nanos, Ordering::Relaxed);
        self.stack_base.store(stack_address(), Ordering::Relaxed);
        self.written_bytes.store(0, Ordering::Relaxed);
    }

    /// Whether the time limit was hit. The VM is in storm then and of no further use.
    pub(super) fn expired(&self) -> bool {
        self.expired_at.get().is_some()
    }

    /// Fails where the C stack has grown too deep.
    pub(super) fn check_stack(&self) -> mlua::Result<()> {
        let used = self.stack_base.load(Ordering::Relaxed).saturating_sub(stack_address());
        if used > STACK_BYTES_MAX {
            return Err(mlua::Error::runtime("stack overflow: calls nest too deep"));
        }
        Ok(())
    }

    /// Counts bytes that go into a request.
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

    /// Fails where the time is over or the stack too deep, for loops and recursion of our own.
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

/// Sets the debug hook. Once the deadline has passed it is set anew for EVERY instruction and fails at each:
/// `while true do pcall(f) end` would swallow a single error for ever.
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

/// `file.lua:5: `, as Lua begins its messages; nothing in C code.
fn place_of(debug: &Debug<'_>) -> String {
    match (debug.source().short_src, debug.current_line()) {
        (Some(file), Some(line)) => format!("{file}:{line}: "),
        _ => String::new(),
    }
}

/// About where this thread's stack ends just now. Stacks grow downwards on every platform we build for.
#[inline(never)]
fn stack_address() -> usize {
    let marker = 0u8;
    std::ptr::from_ref(std::hint::black_box(&marker)).addr()
}
