//! Starts, reloads and stops a running server from one checked configuration.
//!
//! | file | duty |
//! |---|---|
//! | `options` | [`RunOptions`]: the checked configuration of a run, with every default |
//! | `configure` | [`Sources`]: upstreams, aliases and hooks from the command line, Lua files and a LiteLLM file |
//! | `clients` | the keys that clients must send |
//! | `setup` | the upstreams, hooks and limits of one server, loaded at the start and at each reload |
//! | `serve` | [`serve`]: from the options to a running server and its end |
//! | `reload` | signals: `SIGHUP` loads the files again, `SIGINT` and `SIGTERM` end the server |
//! | `handover` | the running process's side of a reload by a new process |
//! | `kept` | the state folder: opened, saved every minute, closed |
//! | `status` | the reports to the service manager |
//! | `find_server` | [`Search`]: the search for a model server on the usual local ports |

mod clients;
mod configure;
mod find_server;
mod handover;
mod kept;
mod options;
mod reload;
mod serve;
mod setup;
mod status;

pub use configure::{DEMO, Sources, found_upstreams, read_litellm};
pub use find_server::Search;
pub use options::RunOptions;
pub use serve::{ServeFailure, serve};
