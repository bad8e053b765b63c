//! Several boxes behind one name.
//!
//! | file | duty |
//! |---|---|
//! | `model` | the model server with physics (`support/physics`) keeps the published figures and its own rules |
//! | `policy` | simple ways to choose a box |
//! | `cost` | the program's own choice |
//! | `simulation` | sessions, a router and boxes on one clock |
//! | `server` | the model server's HTTP and its faults |
//! | `ranking` | how long people wait under each policy |
//! | `elsewhere` | the same at other places, from other seeds |
//!
//! The simulation and the model run on a virtual clock, so nothing waits; the server's clock runs fast.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    reason = "helpers fail as tests do, and the comparison is printed"
)]

#[path = "../support/physics/mod.rs"]
mod physics;

mod cost;
mod elsewhere;
mod model;
mod policy;
mod ranking;
mod server;
mod simulation;
