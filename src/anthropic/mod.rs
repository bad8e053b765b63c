//! The Anthropic side: the Messages API's request and its stream events.
//!
//! Knows the wire format of the Messages API as its SDKs and Claude Code use it; knows nothing of chat completions.

mod event;
mod request;
mod search;

pub(crate) use event::write_stop;
pub use event::{Delta, Event, StopReason, Usage};
pub use request::{
    Block, Effort, MODEL_LENGTH_MAX, Message, MessagesRequest, Role, Thinking, Tool, ToolChoice, ToolResult,
};
pub use search::{
    SearchFailure, SearchHit, SearchOutcome, WEB_SEARCH, WebSearchTool, search_call, search_result,
    search_text,
};
