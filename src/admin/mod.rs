//! Answers to questions about the server itself.
//!
//! | file | path |
//! |---|---|
//! | `activity` | `GET /activity` |
//! | `health` | `GET /health`, `GET /ready` |
//! | `metrics` | `GET /metrics` |
//! | `models` | `GET /v1/models` |
//! | `environment` | `GET /env` |
//! | `forms` | `GET /env.sh`, `/env.fish`, `/env.ps1`, `/env.json` |
//! | `page` | `GET /` in a browser |
//! | `ui` | `GET /ui`, the live page |
//! | `query` | none of its own: reads the parameters of the other paths |
//!
//! Reads `fleet` and `activity`; knows nothing of how a message is served.

pub mod activity;
pub mod environment;
pub mod forms;
pub mod health;
pub mod metrics;
pub mod models;
pub mod page;
mod query;
pub mod ui;
