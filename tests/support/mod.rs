//! Shared by the tests of the translation: the replay of an exchange, a strict judge of event streams, JSON for files.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "helpers fail as tests do, and each test binary uses a part of them"
)]

pub mod cuts;
pub mod golden;
pub mod json_prefix;
pub mod pretty;
pub mod replay;
pub mod validator;
