//! The hooks of one set of files: which are defined, and one call of one of them with its policy.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::kind::{Defined, Hook, HookPlace};
use super::load::{self, Blueprint, LoadError};
use super::options::LoadOptions;
use super::outcome::Returned;
use super::pool::{LuaPool, NoVm};
use super::request::HookRequest;
use super::vm::Vm;
use crate::config::{Config, UpstreamConfig};
use crate::error::{Error, Kind, Retry};
use crate::hash::Fnv;
use crate::json::Value;

/// A set of files, loaded and checked.
pub struct Loaded {
    /// The hooks, ready to run.
    pub hooks: Hooks,
    /// Upstreams and aliases; the default upstream is the first.
    pub config: Config,
}

/// The hooks of one set of files, immutable once loaded. A reload replaces the owner's `Arc` of them; requests in
/// flight finish with the old hooks.
pub struct Hooks {
    pub(super) blueprint: Blueprint,
    pool: LuaPool,
    hash: String,
    failures: [AtomicU64; Hook::ALL.len()],
    /// For each hook of `blueprint.defined`: the time of its last logged failure, and the number of failures since then
    /// that were not logged.
    reported: Mutex<Vec<Option<(Instant, u64)>>>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// The time between two logged failures of a hook that keeps failing.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The time after which a client should come back whose request found no free VM, as `retry-after` gives it.
const RETRY_AFTER_S: u32 = 5;

impl Hooks {
    /// Loads files and folders (every `*.lua` in the order of names), or the embedded `hooks/default.lua` if there are
    /// no files. `upstreams` are those of the command line; the first of them is the default.
    ///
    /// # Errors
    /// Every mistake found in the files.
    pub fn load(
        sources: &[PathBuf],
        upstreams: Vec<UpstreamConfig>,
        options: LoadOptions,
    ) -> Result<Loaded, LoadError> {
        let (blueprint, first, config) = load::load(sources, upstreams, options)?;
        Ok(Loaded { hooks: Hooks::new(blueprint, first)?, config })
    }

    fn new(blueprint: Blueprint, first: Vm) -> Result<Hooks, LoadError> {
        let pool = LuaPool::new(&blueprint, first)?;
        let hash = hash_of(&blueprint);
        let reported = Mutex::new(vec![None; blueprint.defined.len()]);
        Ok(Hooks { blueprint, pool, hash, failures: Default::default(), reported })
    }

    /// The files that were read, by the names that they were given by.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.blueprint
            .sources
            .iter()
            .map(|source| source.file.as_str())
            .filter(|file| *file != load::DEFAULT_FILE)
    }

    /// True if any file defines this hook. Otherwise calling it does not enter a VM.
    pub fn defines(&self, hook: Hook) -> bool {
        self.blueprint.defined.iter().any(|defined| defined.hook == hook)
    }

    /// True if any file defines this hook with policy closed.
    pub fn is_closed(&self, hook: Hook) -> bool {
        self.blueprint.defined.iter().any(|defined| defined.hook == hook && defined.closed)
    }

    /// True if an `on_event` is to be called for events of this type.
    pub fn wants_event(&self, event_type: &str) -> bool {
        self.blueprint.defined.iter().any(|defined| defined.wants_event(event_type))
    }

    /// A short hash of the files' names and texts.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The environment variables that the files asked for by `env` and that are not set, the first 64.
    pub fn unset_variables(&self) -> Vec<String> {
        self.blueprint.options.unset.names()
    }

    /// Where the hooks are defined, in the order in which they run.
    pub fn places(&self) -> Vec<HookPlace> {
        let file_of = |file: usize| {
            self.blueprint.sources.get(file).map_or_else(String::new, |source| source.file.clone())
        };
        self.blueprint
            .defined
            .iter()
            .map(|d| HookPlace { hook: d.hook, file: file_of(d.file), line: d.line, closed: d.closed })
            .collect()
    }

    /// The memory of the VMs that are not lent to a call, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.pool.memory_bytes()
    }

    /// Logs the number of the hooks' log lines that were left out, if there are any. The end of the program calls it.
    pub fn report_left_out(&self) {
        self.blueprint.options.log.report();
    }

    /// The number of failures of this hook since the load.
    pub fn failures(&self, hook: Hook) -> u64 {
        self.failures.get(hook as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Calls one hook. `Ok(None)`: it failed, and the request goes on as if the hook were not defined.
    pub(super) fn call<'a, T>(
        &self,
        index: usize,
        defined: &Defined,
        subject: &mut Value<'a>,
        request: &mut HookRequest,
        read: &dyn Fn(Returned<'a>, &mut Value<'a>) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        // `on_log` runs after the end, when most clients have left.
        let client = if defined.hook == Hook::Log { None } else { request.client.clone() };
        let outcome = self.pool.with(&self.blueprint, client.as_ref(), |vm| {
            vm.call(index, defined.hook, subject, request, read)
        });
        let (text, is_busy) = match read_outcome(outcome) {
            Ok(decision) => return Ok(Some(decision)),
            Err(failure) => failure,
        };
        self.report(index, defined, &text);
        if !defined.closed {
            return Ok(None);
        }
        let name = defined.hook.name();
        Err(if is_busy {
            let message = format!("the hook {name} could not run: too many calls of hooks at a time");
            Error::new(Kind::Overloaded, message).retry(Retry::After(RETRY_AFTER_S)).source(text)
        } else {
            let message = format!("refused: the hook {name} failed and its policy is closed");
            Error::new(Kind::Permission, message).retry(Retry::Never).source(text)
        })
    }

    /// Calls a hook that belongs to no request with these arguments, and logs it if it fails.
    pub(super) fn tell(&self, index: usize, defined: &Defined, arguments: [&str; 3]) {
        let outcome = self.pool.with(&self.blueprint, None, |vm| vm.tell(index, arguments));
        if let Err((text, _)) = read_outcome(outcome) {
            self.report(index, defined, &text);
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

/// The decision of a call; otherwise the text of its failure, and whether it failed only because too much else is going on.
fn read_outcome<T>(outcome: Result<Result<T, String>, NoVm>) -> Result<T, (String, bool)> {
    match outcome {
        Ok(Ok(decision)) => Ok(decision),
        Ok(Err(text)) => Err((text, false)),
        Err(NoVm::Load(error)) => Err((format!("the VM could not be made anew: {error}"), false)),
        Err(NoVm::Busy) => Err(("no VM was free; other calls of hooks take too long".to_owned(), true)),
        Err(NoVm::ClientGone) => Err(("the client has left while the hook waited for a VM".to_owned(), true)),
    }
}

/// A hash of the files' names and texts, which tells two sets apart.
fn hash_of(blueprint: &Blueprint) -> String {
    let parts = blueprint.sources.iter().flat_map(|source| [&source.file, &source.text]);
    // The zero byte separates a text from the next name.
    parts.fold(Fnv::EMPTY, |hash, part| hash.push(part.as_bytes()).push(&[0])).hex()
}
