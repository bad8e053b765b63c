//! The limits of one VM: the time and the C stack of a call, and the bytes that it may write into a request.
//!
//! Lua calls the debug hook here before every function call, and after every few instructions. The debug hook is the only
//! thing that can stop running Lua code. The sandbox therefore leaves out everything that escapes it: coroutines (each has
//! a debug hook of its own), and finalisers and `__close` (they run with it off).
//!
//! The debug hook cannot stop a C function or a single instruction. The prelude bounds or replaces the C functions that
//! could take long. One instruction takes at most time in proportion to the VM's memory: it copies or compares whole
//! strings, and an allocation near the memory limit collects all garbage first. So the number of instructions between two
//! checks shrinks as the memory grows. The longest one is `a < b` on texts of NUL bytes, which Lua compares one by one:
//! 7 ns a byte, 0.3 s for the largest that fit into a VM (measured). Lua has no place to bound that.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mlua::debug::Debug;
use mlua::{HookTriggers, Lua, VmState};

/// The most instructions between two checks, while the VM is small. A check costs as much as about 30 instructions. With
/// 1000, a loop of `a .. i` on a text of 16 MiB took 0.5 s of processor time beyond its limit (measured).
const INSTRUCTIONS_PER_CHECK: u32 = 64;

/// The product of the VM's memory in bytes and the instructions between two checks stays below this, so that these
/// instructions take about 50 ms at the most: a collection of all garbage takes about 1 ms for each MiB.
const BYTES_TIMES_INSTRUCTIONS: usize = 64 * 1024 * 1024;

/// The elements that a loop in Rust handles between two checks: about 0.1 ms.
const STEPS_PER_CHECK: usize = 1024;

/// The bytes that a call writes between two checks of the time: about 0.1 ms.
const BYTES_PER_CHECK: usize = 64 * 1024;

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
    /// The elements that loops in Rust have handled.
    steps: AtomicUsize,
    /// The instructions between two calls of the debug hook, as it is set now.
    instructions: AtomicU32,
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
            steps: AtomicUsize::new(0),
            instructions: AtomicU32::new(0),
            expired_at: OnceLock::new(),
        });
        watch(lua, &guard, INSTRUCTIONS_PER_CHECK)?;
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

    /// Counts bytes that are written into a request; fails if they are too many, or if the time is over.
    pub(super) fn spend(&self, bytes: usize) -> mlua::Result<()> {
        let written = self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        if written / BYTES_PER_CHECK != written.saturating_add(bytes) / BYTES_PER_CHECK {
            self.check()?;
        }
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

    /// Counts one element of a loop in Rust; fails now and then if the time is over.
    pub(super) fn step(&self) -> mlua::Result<()> {
        let steps = self.steps.fetch_add(1, Ordering::Relaxed);
        if steps.is_multiple_of(STEPS_PER_CHECK) { self.check() } else { Ok(()) }
    }

    fn time_is_over(&self) -> bool {
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        now > self.deadline_nanos.load(Ordering::Relaxed)
    }
}

/// Sets the debug hook. Once the deadline has passed, it is set again for every instruction and fails at each of them,
/// since `while true do pcall(f) end` would swallow single errors without end.
fn watch(lua: &Lua, guard: &Arc<Guard>, instructions: u32) -> mlua::Result<()> {
    let triggers = HookTriggers::new().on_calls().every_nth_instruction(instructions);
    guard.instructions.store(instructions, Ordering::Relaxed);
    let guard = Arc::clone(guard);
    lua.set_global_hook(triggers, move |lua, debug| {
        if guard.time_is_over() {
            let is_first = guard.expired_at.get().is_none();
            let place = guard.expired_at.get_or_init(|| place_of(debug));
            let error = mlua::Error::runtime(format!("{place}time limit: the hook took too long"));
            if is_first {
                watch(lua, &guard, 1)?;
            }
            return Err(error);
        }
        guard.check_stack()?;
        let wanted = instructions_per_check(lua.used_memory());
        let current = guard.instructions.load(Ordering::Relaxed);
        // A memory that grows and shrinks a little is not worth setting the debug hook each time.
        if wanted < current || wanted / 4 >= current {
            watch(lua, &guard, wanted)?;
        }
        Ok(VmState::Continue)
    })
}

/// The number of instructions between two checks in a VM of this size.
fn instructions_per_check(memory_bytes: usize) -> u32 {
    let count = (BYTES_TIMES_INSTRUCTIONS / memory_bytes.max(1)).clamp(1, INSTRUCTIONS_PER_CHECK as usize);
    // Powers of two, so that a memory that grows sets the debug hook a few times and not at every check.
    u32::try_from(count).map_or(1, |count| 1 << count.ilog2())
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
