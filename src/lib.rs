//! sparkgap: the Anthropic Messages API in front of OpenAI-compatible servers.
//!
//! ```text
//! server ─► http::Request ─► proxy
//!                             │  prepare    JSON, on_request, checks, route, translation, on_upstream_request
//!                             │  attempt    the upstream asked; mended and repeated where that helps
//!                             │  relay      bytes ─► sse::Decoder ─► openai::Chunk ─► translate::MessageStream
//!                             │  filter     on_event, on_tool_call
//!                             │  exchange   anthropic::Event ─► the client; pings, and more, in silence
//!                             └► record     one line in the log, on_log
//! ```
//!
//! A module imports only modules above it; a test checks that, and that the pure ones name no I/O, clock, log or Lua.
//! Threads, not an async runtime: one for each connection, which waits for its upstream and for its client's hang-up
//! in one `poll`.

// Pure: bytes and trees in, bytes and trees out.
pub mod json;

pub mod hash;

pub mod error;
pub mod sse;

pub mod anthropic;
pub mod openai;
pub mod translate;

pub mod route;

// What the process has around it.
pub mod service;

pub mod logger;

pub mod config;
pub mod litellm;

// The shell.
pub mod http;

pub mod access;
pub mod hooks;
pub mod ids;

pub mod server;
pub mod upstream;

pub mod proxy;

// What a command asks of servers.
pub mod probe;

pub mod doctor;
pub mod latency;

pub mod demo;

pub mod cli;
