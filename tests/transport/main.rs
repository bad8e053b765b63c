//! Calls to a scripted upstream: reuse, cancellation, time limits, failures.
//!
//! Nothing here sleeps or measures time: the scripted side blocks until the event that it waits for has happened.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of tests fail as tests do")]

mod calls;
mod client_leaves;
mod connections;
mod discovery;
mod failures;
mod support;
mod time_limits;
mod tls;
