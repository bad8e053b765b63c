//! Answers to questions about the server itself.
//!
//! | file | path |
//! |---|---|
//! | `health` | `GET /health` |
//! | `models` | `GET /v1/models` |
//! | `environment` | `GET /env` |
//!
//! Reads `fleet` and `activity`; knows nothing of how a message is served.

pub mod environment;
pub mod health;
pub mod models;
