//! A LiteLLM `config.yaml` -> Lua for sparkgap, with a report on every key.
//!
//! ```text
//! text ─► yaml ─► include  the files under include:, merged
//!            │
//!            ├──► models   model_list: servers, groups of entries
//!            │         (`facts`: windows, time limits, kinds of models; `providers`: prefixes and addresses, `names`: the names of upstreams, `share`: `order` and `weight`,
//!            │          `target`: the server and the key of an entry, `sources`: where LiteLLM looks for them)
//!            ├──► router   other names of groups, and fallbacks between them
//!            ├──► pools    the alias table: who shares a name, and who waits behind
//!            └──► report   a verdict for every leaf of the file; `keys` holds those that never change; `summary` the
//!                          ten lines that matter most
//!                   └► lua  the file to write
//! ```
//!
//! `kind` recognizes the configurations of other programs: `ccr` translates claude-code-router's, `llama_swap` llama-swap's.
//!
//! Pure: text in, text out. The environment and a reader of included files are arguments, and no key is written to the Lua or the report.
//!
//! The differences between LiteLLM and the Lua:
//!
//! | LiteLLM | here |
//! |---|---|
//! | several entries of one `model_name`: one is drawn for each request, by `weight` or a `routing_strategy` | the one that answers soonest, as in any pool: a conversation keeps its upstream and its prefix cache |
//! | an entry fails: another of its order, then the next `order`, then `fallbacks` and theirs | the same, in that order, 32 backups at most; those of one order share the requests only in the lowest one |
//! | falls back after any error | after an upstream that is full or has failed, not after a refusal (4xx), except of a prompt that is too long |
//! | entries that fail often are skipped for a while (`allowed_fails`, `cooldown_time`) | the rules of every pool: three failures in a row or a refused connection, then pauses of 1 to 30 s |
//! | no limit unless the file sets one | upstreams that share a name or have a backup get 8 requests at a time |
//! | a `*` pattern matches from the start of a name | it matches the whole name |
//! | a name that nothing matches is a 400 | it is a 404 that names the model |

mod ccr;
mod error;
mod facts;
mod import;
mod include;
mod keys;
mod kind;
mod llama_swap;
mod lua;
mod models;
mod names;
mod pools;
mod providers;
mod report;
mod router;
mod share;
mod sources;
mod summary;
mod target;
mod upstream;
mod verdict;
mod yaml;

pub use error::ImportError;
pub use import::{Import, ImportContext, MasterKey, import};
pub use include::ReadInclude;
pub use kind::import_any;
pub use report::Line;
pub use sources::{Unset, Variable};
pub use summary::is_loss;
pub use verdict::KeyVerdict;
pub use yaml::SIZE_MAX;
