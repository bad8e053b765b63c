//! The limits of hooks, and how to load them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use crate::config::Secret;

/// What one call and one VM may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookLimits {
    /// The time of one call.
    pub call: Duration,
    /// The time of one file, and of one `on_load`.
    pub load: Duration,
    /// The memory of one VM.
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

/// How to load. `shared` goes from one set of hooks to the next at a reload.
#[derive(Clone, Default)]
pub struct LoadOptions {
    /// Keep Lua's full standard library (`io`, `os`, `package`, coroutines, `load`), but for `debug`.
    pub unsafe_hooks: bool,
    /// The limits.
    pub limits: HookLimits,
    /// The dictionary that all VMs share.
    pub shared: Shared,
    /// Texts to load like files, before them: name and Lua.
    pub texts: Vec<(String, String)>,
    /// What `env` finds before the process's own environment.
    pub environment: Arc<BTreeMap<String, Secret>>,
}
