//! The limits of hooks, and how to load them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::log_lines::HookLog;
use super::shared::Shared;
use super::unset::UnsetVariables;
use crate::config::Secret;

/// The limits of one call and of one VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookLimits {
    /// The longest time of one call.
    pub call: Duration,
    /// The longest time for loading one file, and for one `on_load`.
    pub load: Duration,
    /// The most memory of one VM.
    pub memory_bytes: usize,
}

impl Default for HookLimits {
    fn default() -> Self {
        HookLimits {
            call: Duration::from_millis(50),
            load: Duration::from_secs(1),
            memory_bytes: 64 * 1024 * 1024,
        }
    }
}

/// The options of a load. At a reload, the new set of hooks gets the same `shared` and `log` as the old one.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// True if hooks get Lua's full standard library (`io`, `os`, `package`, coroutines, `load`), except for `debug`.
    pub unsafe_hooks: bool,
    /// The limits.
    pub limits: HookLimits,
    /// The dictionary that all VMs share.
    pub shared: Shared,
    /// The lines that hooks log.
    pub log: HookLog,
    /// Texts to load like files, before the files: the name and the Lua of each.
    pub texts: Vec<(String, String)>,
    /// Variables that `env` looks up first, before the process's own environment.
    pub environment: Arc<BTreeMap<String, Secret>>,
    /// Variables that `env` was asked for and that are not set.
    pub unset: UnsetVariables,
}
