//! sparkgap: the Anthropic Messages API in front of OpenAI-compatible servers.
pub mod config;
pub mod error;
pub mod hooks;
pub mod json;
pub mod openai;
pub mod route;
