//! sparkgap: the Anthropic Messages API in front of OpenAI-compatible servers.
pub mod config;
pub mod error;
pub mod http;
pub mod ids;
pub mod json;
pub mod openai;
pub mod route;
pub mod server;
