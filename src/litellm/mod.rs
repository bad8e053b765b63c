//! A LiteLLM `config.yaml` -> Lua for sparkgap, with a report on every key.
//!
//! ```text
//! text ─► yaml ─► models   model_list: upstreams, groups of entries
//!            │         (`providers`: prefixes and addresses, `names`: what upstreams are called,
//!            │          `target`: the server and the key of an entry, `sources`: where LiteLLM looks for them)
//!            ├──► router   aliases and fallbacks between the groups
//!            └──► report   a verdict for every leaf of the file; `keys` holds those that never change
//!                   └► lua  the file to write
//! ```
//!
//! Pure: text in, text out. The environment is an argument, and no key is written to the Lua or the report.
//!
//! The differences between LiteLLM and the Lua:
//!
//! | LiteLLM | here |
//! |---|---|
//! | several entries of one `model_name`: one is drawn for each request, by `weight` | drawn by a hash of the client's session, by `weight`: a conversation keeps its upstream and its prefix cache |
//! | an entry fails: another of its group, then `fallbacks` and theirs | the same, in that order, each once, 32 at most, and only before the first byte of an answer |
//! | falls back after any error | not after a request that is wrong in itself (400, 413), except one that is too long |
//! | entries that fail often are skipped for a while (cooldown) | never skipped: each request begins with its own first entry |
//! | a `*` pattern matches from the start of a name | it matches the whole name |
//! | a name that nothing matches is a 400 | it is a 404 that names the model |

mod error;
mod import;
mod keys;
mod lua;
mod models;
mod names;
mod providers;
mod report;
mod router;
mod sources;
mod target;
mod upstream;
mod verdict;
mod yaml;

pub use error::ImportError;
pub use import::{Import, MasterKey, import};
pub use report::Line;
pub use sources::{Unset, Variable};
pub use verdict::KeyVerdict;
