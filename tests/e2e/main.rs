//! The real binary, end to end, between a raw client and a scripted upstream.
//!
//! | file | duty |
//! |---|---|
//! | `server` | starts the binary, waits for the lines it logs, ends it |
//! | `upstream` | an upstream that answers as a test says, and records the requests that it gets |
//! | `client` | a client with only as much HTTP as the tests need, so that it can send mistakes on purpose |
//!
//! Nothing sleeps: each side waits for what the other one did. Every answer is judged by `support/validator.rs`.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "helpers fail as tests do"
)]

#[allow(dead_code, reason = "the recorder's tests use a part of it")]
#[path = "../support/cuts.rs"]
mod cuts;
#[allow(dead_code, reason = "the recorder's tests use a part of it")]
#[path = "../support/golden.rs"]
mod golden;
#[path = "../support/json_prefix.rs"]
mod json_prefix;
#[path = "../support/messages_api.rs"]
mod messages_api;
#[path = "../support/physics/mod.rs"]
mod physics;
#[path = "../support/pretty.rs"]
mod pretty;
#[allow(dead_code, reason = "the recorder's tests use a part of it")]
#[path = "../support/replay.rs"]
mod replay;
#[path = "../support/validator.rs"]
mod validator;

mod client;
mod server;
mod top;
mod upstream;

mod abuse;
mod access;
mod answers;
mod bad_input;
mod bench;
mod boxes;
mod calls;
mod client_limits;
mod closed;
mod cloud;
mod cloud_fallback;
mod cloud_headers;
mod clusters;
mod commands;
mod connections;
mod demo;
mod doctor;
mod ending;
mod environment;
mod errors;
mod evaluation;
mod exam;
mod failover;
mod forms;
mod framing;
mod handover;
mod hooks;
mod kept_back;
mod keys_hidden;
mod learned;
mod leaving;
mod limits;
mod litellm;
mod logs;
mod memory;
mod metrics;
mod models;
mod moving;
mod odd_answers;
mod paths;
mod patience;
mod pool;
mod pool_errors;
mod recorder;
mod recorder_cases;
mod recorder_ways;
mod recordings;
mod relayed;
mod repairs;
mod rescue;
mod restarts;
mod search;
mod search_rounds;
mod service;
mod settings_file;
mod silence;
mod state;
mod states;
mod strangers;
mod tls;
mod ui;

/// Ends a test that hangs; no working test comes near it.
pub(crate) const HANG: std::time::Duration = std::time::Duration::from_secs(60);
