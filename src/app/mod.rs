//! Starts, reloads and stops a running server.
