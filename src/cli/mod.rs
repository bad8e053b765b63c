//! The command line: turns what was typed into one call of a room below.
//!
//! | file | duty |
//! |---|---|
//! | `arguments` | the commands and their options, as argh reads them |
//! | `run` | [`run`]: from the process's arguments to a command and its exit code |
//! | `help` | help texts with the defaults in them |
//! | `serve` | `serve` and `demo`: what was typed -> `app::RunOptions` |
//! | `hook_samples` | a part of `hook`: the samples for hooks that run later |
//! | `check`, `hook`, `import`, `key`, `env`, `claude`, `doctor`, `exam`, `bench`, `health`, `generate`, `reload`, `usage`, `requests`, `show`, `replay`, `statusline`, `top` | the commands of these names |
//! | `settings_file` | `claude --settings` and `--undo`: the person's settings file |
//! | `activity` | the question of `top` and `statusline` to a running sparkgap |
//! | `remote` | the questions of `env`, `claude` and `bench` to a running sparkgap |
//! | `told` | the content of two answers, for `replay` to compare |
//! | `recorded_call` | the last call to an upstream in a recording, for `show` and `replay` |
//! | `history` | the state folder that `usage`, `requests`, `show` and `replay` read |
//! | `progress`, `output` | lines for stderr and stdout |

mod activity;
mod arguments;
mod bench;
mod check;
mod claude;
mod custom_headers;
mod doctor;
mod env;
mod exam;
mod generate;
mod health;
mod help;
mod history;
mod hook;
mod hook_samples;
mod import;
mod key;
mod output;
mod progress;
mod recorded_call;
mod reload;
mod remote;
mod replay;
mod requests;
mod run;
mod serve;
mod settings_file;
mod show;
mod statusline;
mod told;
mod top;
mod usage;

pub use run::run;
