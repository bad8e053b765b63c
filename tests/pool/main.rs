//! Several boxes behind one name.
//!
//! | file | duty |
//! |---|---|
//! | `model` | the model server with physics (`support/physics`) keeps the published figures and its own rules |
//! | `policy` | ways to choose a box |
//! | `simulation` | sessions, a router and boxes on one clock |
//! | `ranking` | how long people wait under each policy |
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
mod policy;
mod ranking;
mod simulation;
