//! Writes the upstreams and the alias table as the text of a Lua file.
//!
//! | file | duty |
//! |---|---|
//! | `write` | the file: upstreams and aliases, and hooks only if the configuration needs them |
//! | `hooks` | the hooks: the parameters of entries, and the models for prompts that are too long |
//! | `syntax` | Lua's words and values |

mod hooks;
mod syntax;
mod write;

pub(super) use syntax::{key, quote};
pub(super) use write::write;
