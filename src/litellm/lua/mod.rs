//! Models and routes -> the text of a Lua file.
//!
//! Writes only what the configuration needs: aliases alone where every name has one entry without conditions, a table of
//! groups and hooks where not. The Lua of the hooks is in `hooks.rs`.

mod hooks;
mod needs;
mod syntax;
mod write;

pub(super) use write::write;
