//! A model server with physics: it has no model, but it takes the time that a real one would take.
//!
//! | file | duty |
//! |---|---|
//! | `rates` | the seconds that reading a prompt and writing a token take: those of `sparkgap demo --busy` |
//! | `cache` | the memory for keys and values: blocks of 16 tokens, shared by equal beginnings, oldest unused block out first |
//! | `engine` | one box: a queue, places, continuous batching; pure, on a clock that is an argument |
//! | `traffic` | people who work with Claude Code: the requests that they cause, and when |
//! | `render` | a chat completion request as the tokens of a prompt |
//! | `server` | a box behind a real socket, on a clock that may run fast, with faults that can be switched |
//! | `connection` | the HTTP of that server |
//!
//! Tests and benchmarks use it to see how requests for several boxes are best spread.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    reason = "helpers fail as tests do, and each program uses a part of them"
)]

pub mod cache;
mod connection;
pub mod engine;
pub mod rates;
pub mod render;
pub mod server;
pub mod traffic;
