//! sparkgap: the Anthropic Messages API in front of OpenAI-compatible servers.

pub mod error;
pub mod json;

pub mod anthropic;
pub mod openai;
pub mod route;
pub mod sse;
pub mod translate;

pub mod config;
pub mod http;
pub mod ids;
pub mod litellm;
pub mod upstream;

pub mod server;
