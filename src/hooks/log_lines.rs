//! The lines that hooks log: a limited number a second for the whole process, and the number of the others.
//!
//! A hook runs for every request and every event of a stream, so one `print` in a loop could fill a disk.

use crate::logger::LimitedLines;

/// The most lines a second: enough to follow a few requests, and less than 40 GB a day if each has the greatest length.
const LINES_MAX: u32 = 100;

/// Writes the lines of hooks, or counts them. All VMs share one.
#[derive(Clone, Debug)]
pub struct HookLog(LimitedLines<()>);

impl Default for HookLog {
    fn default() -> Self {
        HookLog(LimitedLines::new(LINES_MAX, |_, count| {
            log::warn!("hook: {count} more lines were left out: hooks may log {LINES_MAX} lines a second");
        }))
    }
}

impl HookLog {
    /// Logs a line of a hook, or counts it if there were too many.
    pub(super) fn log(&self, level: log::Level, text: &str) {
        self.0.log((), level, format_args!("hook: {text}"));
    }

    /// Logs the number of lines that were left out, if there are any.
    pub(super) fn report(&self) {
        self.0.report();
    }
}
