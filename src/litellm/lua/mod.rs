//! Writes models and routes as the text of a Lua file.
//!
//! | file | duty |
//! |---|---|
//! | `write` | the file: only what the configuration needs, aliases alone if every name has one entry without conditions |
//! | `needs` | the abilities that the hooks must have |
//! | `hooks` | the Lua code of the hooks |
//! | `syntax` | Lua's words and values |

mod hooks;
mod needs;
mod syntax;
mod write;

pub(super) use write::write;
