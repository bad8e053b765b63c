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
//! | `on_search` | before a web search | the query, a string |
//! | `on_error` | the upstream failed before its first byte | `{ status, type, message, upstream }` |
//! | `on_log` | after the end | the log record |
//! | `on_upstream_state` | the state of an upstream changed; no request | none: three strings |
//!
//! A hook's writes go straight into the subject. If the hook fails, they are undone, and the failure is counted and
//! logged. With policy open the request then goes on; with policy closed it is refused, or its answer is ended. If
//! several files define a hook, all of them run, in the order of the files.
//!
//! Nothing in Lua may end or stall the process, so every call has limits:
//!
//! | danger | bound |
//! |---|---|
//! | a loop, also in `pcall` | the debug hook (`guard`): after 50 ms an error at every instruction |
//! | instructions that take long, as on large strings | checks that come more often as the memory grows (`guard`) |
//! | deep recursion | Lua's own limit for Lua calls; `guard` measures the C stack at every call |
//! | large strings and tables | the VM's memory limit, 64 MiB |
//! | large writes into the request | 64 MiB per call (`guard`) |
//! | string patterns | a matcher of our own that knows the time (`lua_pattern`) |
//! | other C functions that loop by themselves | written in Lua, or limits of their own (`prelude.lua`) |
//! | loops in Rust | `Guard::step` |
//! | finalisers, `__close`, `__mode`, coroutines, `load` | removed: the time limit would not reach them |
//! | many calls at a time | the wait for a VM has a limit, and watches the client (`pool`) |
//! | a file whose load never ends | the caller loads in a thread that nothing else waits for |
//!
//! `tests/escapes.rs` calls every function that the globals lead to with arguments that are meant to escape the limit.
//!
//! This module does not know HTTP, and it does not carry out the decisions of hooks.

mod calls;
mod convert;
mod globals;
mod guard;
mod hints;
mod kind;
mod load;
mod log_lines;
mod nearest;
mod options;
mod outcome;
mod pool;
mod request;
mod search;
mod set;
pub mod shared;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod unset;
mod view;
mod vm;

pub use calls::{Decision, ErrorDecision};
pub use kind::{Hook, HookPlace};
pub use load::LoadError;
pub use options::{HookLimits, LoadOptions};
pub use request::{Context, HookRequest};
pub use search::SearchDecision;
pub use set::{Hooks, Loaded};
pub use shared::Shared;
pub use table::Mistake;
pub use unset::UnsetVariables;
