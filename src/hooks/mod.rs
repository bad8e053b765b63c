//! The owner's Lua: configuration and hooks in one place. The only module that names mlua.
//!
//! ```text
//! files ─► load ─► Config                      upstreams and aliases, checked; every mistake with file and line
//!             └──► Hooks ─► pool ─► vm         a few VMs, each lent to one call at a time
//!                                   ├ guard    time, C stack, bytes written: what a call may use
//!                                   ├ globals  log, shared, json, env, time
//!                                   └ view     req and the JSON tree at hand, without a copy
//! ```
//!
//! | hook | runs | subject (its first argument) |
//! |---|---|---|
//! | `on_load` | once per VM | the configuration |
//! | `on_request` | before routing | the Messages request, as `req.body` |
//! | `on_upstream_request` | before sending | the chat completions body |
//! | `on_event` | per stream event | the event |
//! | `on_tool_call` | per complete tool call | `{ id, name, input }` |
//! | `on_error` | the upstream failed before its first byte | `{ status, type, message, upstream }` |
//! | `on_log` | after the end | the log record |
//!
//! A hook's writes go straight into the subject and are undone if it fails. Then the request goes on (policy open)
//! or is refused, or its answer ended (policy closed); it is counted and logged either way. Where several files define a hook all of them
//! run, in the order of the files.
//!
//! What bounds a call, since nothing in Lua may end or stall the process:
//!
//! | danger | bound |
//! |---|---|
//! | a loop, also in `pcall` | the debug hook (`guard`): after 50 ms an error at every instruction |
//! | deep recursion | Lua's own limit for Lua calls; `guard` measures the C stack at every call |
//! | large strings and tables | the VM's memory limit, 64 MiB |
//! | large writes into the request | 64 MiB per call (`guard`) |
//! | string patterns | a matcher of our own that knows the time (`pattern`) |
//! | other C functions that loop by themselves | limits of their own (`prelude.lua`) |
//! | finalisers, `__close`, coroutines, `load` | not there: the time limit would not reach them |
//!
//! This module knows neither HTTP nor what becomes of a decision.

mod calls;
mod convert;
mod globals;
mod guard;
mod load;
mod nearest;
mod pattern;
mod pool;
mod request;
pub mod shared;
mod table;
mod view;
mod vm;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use calls::{Decision, ErrorDecision};
pub use load::{LoadError, Loaded};
pub use request::{Context, Request};
pub use table::Mistake;

use crate::config::{Secret, Upstream};
use crate::error::{Error, Kind, Retry};
use crate::json::Value;
use load::Blueprint;
use pool::Pool;
pub use shared::Shared;
use vm::{Returned, Vm};

/// A function that the owner may define.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `on_load(cfg)`
    Load,
    /// `on_request(req)`
    Request,
    /// `on_upstream_request(body, req)`
    UpstreamRequest,
    /// `on_event(ev, req)`
    Event,
    /// `on_tool_call(call, req)`
    ToolCall,
    /// `on_error(err, req)`
    Error,
    /// `on_log(rec, req)`
    Log,
}

impl Hook {
    /// All of them, in the order in which a request meets them.
    pub const ALL: [Hook; 7] = [
        Hook::Load,
        Hook::Request,
        Hook::UpstreamRequest,
        Hook::Event,
        Hook::ToolCall,
        Hook::Error,
        Hook::Log,
    ];

    /// Its name in Lua.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Load => "on_load",
            Hook::Request => "on_request",
            Hook::UpstreamRequest => "on_upstream_request",
            Hook::Event => "on_event",
            Hook::ToolCall => "on_tool_call",
            Hook::Error => "on_error",
            Hook::Log => "on_log",
        }
    }
}

/// What one call and one VM may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The time of one call.
    pub call: Duration,
    /// The time of one file, and of one `on_load`.
    pub load: Duration,
    /// The memory of one VM.
    pub memory_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            call: Duration::from_millis(50),
            load: Duration::from_secs(1),
            memory_bytes: 64 * 1024 * 1024,
        }
    }
}

/// How to load. `shared` goes from one set of hooks to the next at a reload.
#[derive(Clone, Default)]
pub struct Options {
    /// Keep Lua's full standard library (`io`, `os`, `package`, coroutines, `load`), but for `debug`.
    pub unsafe_hooks: bool,
    /// The limits.
    pub limits: Limits,
    /// The dictionary that all VMs share.
    pub shared: Shared,
    /// Texts to load like files, before them: name and Lua.
    pub texts: Vec<(String, String)>,
    /// What `env` finds before the process's own environment.
    pub environment: Arc<BTreeMap<String, Secret>>,
}

/// One hook that a file defines.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Defined {
    hook: Hook,
    /// Index of the file.
    file: usize,
    line: Option<u32>,
    /// A failure refuses the request.
    closed: bool,
    /// The types of events that `on_event` wants; `None`: all.
    event_types: Option<Vec<String>>,
}

/// Where a hook is defined, for `sparkgap check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The hook.
    pub hook: Hook,
    /// The file as it was given.
    pub file: String,
    /// The line of the function.
    pub line: Option<u32>,
    /// Whether its failure refuses the request.
    pub closed: bool,
}

/// The hooks of one set of files, immutable once loaded. At a reload the owner swaps an `Arc` of it; requests in
/// flight finish on the old one.
pub struct Hooks {
    blueprint: Blueprint,
    pool: Pool,
    hash: String,
    failures: [AtomicU64; Hook::ALL.len()],
    /// For each of `blueprint.defined`: when its failure was logged last, and how many were not since.
    reported: Mutex<Vec<Option<(Instant, u64)>>>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// How long a hook that keeps failing stays silent in the log.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

impl Hooks {
    /// Loads files and folders (every `*.lua` in name order); none: the embedded `hooks/default.lua`. `upstreams`
    /// are those of the command line; the first of them is the default.
    ///
    /// # Errors
    /// Every mistake found in the files.
    pub fn load(
        sources: &[PathBuf],
        upstreams: Vec<Upstream>,
        options: Options,
    ) -> Result<Loaded, LoadError> {
        load::load(sources, upstreams, options)
    }

    fn new(blueprint: Blueprint, first: Vm) -> Result<Hooks, LoadError> {
        let pool = Pool::new(&blueprint, first)?;
        let hash = hash_of(&blueprint);
        let reported = Mutex::new(vec![None; blueprint.defined.len()]);
        Ok(Hooks { blueprint, pool, hash, failures: Default::default(), reported })
    }

    /// Whether any file defines this hook. If not, calling it enters no VM.
    pub fn defines(&self, hook: Hook) -> bool {
        self.blueprint.defined.iter().any(|defined| defined.hook == hook)
    }

    /// Whether any file defines this hook with policy closed.
    pub fn is_closed(&self, hook: Hook) -> bool {
        self.blueprint.defined.iter().any(|defined| defined.hook == hook && defined.closed)
    }

    /// Whether `on_event` is to see events of this type.
    pub fn wants_event(&self, event_type: &str) -> bool {
        self.blueprint.defined.iter().any(|defined| defined.wants_event(event_type))
    }

    /// A short hash of the files' names and texts.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Where the hooks are defined, in the order in which they run.
    pub fn places(&self) -> Vec<Place> {
        let file_of = |file: usize| {
            self.blueprint.sources.get(file).map_or_else(String::new, |source| source.file.clone())
        };
        self.blueprint
            .defined
            .iter()
            .map(|d| Place { hook: d.hook, file: file_of(d.file), line: d.line, closed: d.closed })
            .collect()
    }

    /// The memory that the VMs which are not at work hold, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.pool.memory_bytes()
    }

    /// How often this hook has failed since the load.
    pub fn failures(&self, hook: Hook) -> u64 {
        self.failures.get(hook as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Calls one of the hooks. `Ok(None)`: it failed, and the request goes on as if it were not there.
    fn call<'a, T>(
        &self,
        index: usize,
        defined: &Defined,
        subject: &mut Value<'a>,
        request: &mut Request,
        read: &dyn Fn(Returned<'a>, &mut Value<'a>) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let outcome = self
            .pool
            .with(&self.blueprint, |vm| vm.call(index, defined.hook, subject, request, read))
            .unwrap_or_else(|error| Err(format!("the VM could not be made anew: {error}")));
        match outcome {
            Ok(decision) => Ok(Some(decision)),
            Err(text) => {
                self.report(index, defined, &text);
                if !defined.closed {
                    return Ok(None);
                }
                let message =
                    format!("refused: the hook {} failed and its policy is closed", defined.hook.name());
                Err(Error::new(Kind::Permission, message).retry(Retry::Never).source(text))
            }
        }
    }

    /// Counts a failure and logs it, unless this hook's last one was logged just now.
    fn report(&self, index: usize, defined: &Defined, text: &str) {
        if let Some(count) = self.failures.get(defined.hook as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let now = Instant::now();
        let silent = {
            let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
            match reported.get_mut(index) {
                Some(Some((last, silent))) if now.duration_since(*last) < REPORT_INTERVAL => {
                    *silent += 1;
                    return;
                }
                Some(slot) => slot.replace((now, 0)).map_or(0, |(_, silent)| silent),
                None => 0,
            }
        };
        let more = if silent > 0 { format!(" ({silent} more since the last report)") } else { String::new() };
        let file = self.blueprint.sources.get(defined.file).map_or("", |source| source.file.as_str());
        log::warn!("hook {} of {file} failed{more}: {}", defined.hook.name(), text.replace('\n', " | "));
    }
}

impl Defined {
    fn wants_event(&self, event_type: &str) -> bool {
        self.hook == Hook::Event
            && self.event_types.as_ref().is_none_or(|types| types.iter().any(|t| t == event_type))
    }
}

/// FNV-1a, 64 bits: to tell two sets apart, not to prove anything.
fn hash_of(blueprint: &Blueprint) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for source in &blueprint.sources {
        for byte in source.file.bytes().chain([0]).chain(source.text.bytes()).chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}
