//! `reload`: replaces the process of the service by a new one, for `ExecReload=` of its unit.

use super::arguments::ReloadCommand;
use super::output::Failed;
use crate::service::start_successor;

/// `sparkgap reload serve OPTIONS`: starts that command, and returns once it serves in the place of the running process.
pub(super) fn run(typed: &ReloadCommand) -> Result<(), Failed> {
    if typed.command.first().is_none_or(|first| first != "serve") {
        return Err("reload: name the command of the new process: sparkgap reload serve OPTIONS".into());
    }
    start_successor(&typed.command).map_err(|why| format!("reload failed: {why}"))
}
