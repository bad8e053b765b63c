//! sparkgap: the Anthropic Messages API in front of OpenAI-compatible servers.

pub mod json;

pub mod error;

pub mod anthropic;
pub mod openai;
pub mod route;
pub mod sse;
pub mod translate;

pub mod service;

pub mod config;
pub mod litellm;
pub mod logger;

pub mod access;
pub mod http;

pub mod hooks;
pub mod ids;
pub mod server;
pub mod upstream;

pub mod proxy;

pub mod demo;

pub mod cli;
