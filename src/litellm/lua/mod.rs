//! Writes models and routes as the text of a Lua file.
//!
//! It writes only what the configuration needs: aliases alone if every name has one entry without conditions, otherwise
//! a table of groups and hooks. The Lua code of the hooks is in `hooks.rs`.

mod hooks;
mod needs;
mod syntax;
mod write;

pub(super) use write::write;
