//! sparkgap: the Anthropic Messages API in front of OpenAI-compatible servers.
//!
//! ```text
//! server ─► http::Request ─► proxy
//!                             │  prepare    JSON, on_request, checks, route, translation, on_upstream_request
//!                             │  attempt    the upstream asked; repaired and repeated where that helps
//!                             │  relay      bytes ─► sse::Decoder ─► openai::Chunk ─► translate::MessageStream
//!                             │  filter     on_event, on_tool_call
//!                             │  exchange   anthropic::Event ─► the client; pings, and more, in silence
//!                             └► record     one line in the log, on_log
//! ```
//!
//! Threads, not an async runtime: one for each connection, which waits for its upstream and for its client's hang-up
//! in one `poll`.
//!
//! The rooms stand on floors, and imports go down only: a room imports no room of its own floor or of one above. A test
//! reads this table and checks it, for the files inside each folder as well. The rooms marked "pure" name no I/O, clock,
//! log or Lua.
//!
//! | floor | rooms |
//! |--:|---|
//! | 9 | `cli` |
//! | 8 | `app`, `latency` |
//! | 7 | `proxy` |
//! | 6 | `protocol`, `admin`, `doctor`, `exam` |
//! | 5 | `fleet`, `probe`, `demo`, `search` |
//! | 4 | `translate` (pure), `hooks`, `transport`, `server`, `activity`, `litellm`, `access` |
//! | 3 | `config`, `anthropic` (pure), `openai` (pure), `rescue` (pure), `http`, `state` |
//! | 2 | `error` (pure), `settings` (pure), `prefix` (pure), `cluster` (pure), `shell` (pure), `policy` (pure), `logger` |
//! | 1 | `json` (pure), `sse` (pure), `hash` (pure), `route` (pure), `lane` (pure), `dialect` (pure), `line` (pure), `shown` (pure), `claude_code` (pure), `lua_pattern` (pure), `base64_text` (pure), `ids`, `threads`, `wake`, `hang_up`, `service` |

pub mod base64_text;
pub mod claude_code;
pub mod dialect;
pub mod hang_up;
pub mod hash;
pub mod ids;
pub mod json;
pub mod lane;
pub mod line;
pub mod lua_pattern;
pub mod route;
pub mod service;
pub mod shown;
pub mod sse;
pub mod threads;
pub mod wake;

pub mod cluster;
pub mod error;
pub mod logger;
pub mod policy;
pub mod prefix;
pub mod settings;
pub mod shell;

pub mod anthropic;
pub mod config;
pub mod http;
pub mod openai;
pub mod rescue;
pub mod state;

pub mod access;
pub mod activity;
pub mod hooks;
pub mod litellm;
pub mod server;
pub mod translate;
pub mod transport;

pub mod demo;
pub mod fleet;
pub mod probe;
pub mod search;

pub mod admin;
pub mod doctor;
pub mod exam;
pub mod protocol;

pub mod proxy;

pub mod app;
pub mod latency;

pub mod cli;
