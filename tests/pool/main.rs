//! Several boxes behind one name.
//!
//! | file | duty |
//! |---|---|
//! | `model` | the model server with physics (`support/physics`) keeps the published figures and its own rules |
//!
//! All of it runs on a virtual clock, so nothing waits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    reason = "helpers fail as tests do"
)]

#[path = "../support/physics/mod.rs"]
mod physics;

mod model;
