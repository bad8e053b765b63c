//! The wire format of OpenAI-compatible servers: the chunks and errors that they send.
//!
//! Knows the chat completions wire format of vLLM, llama.cpp, SGLang, Ollama and LM Studio; knows nothing of
//! the Messages API or of sockets.

mod chunk;
mod failure;

pub use chunk::{Choice, Chunk, ChunkDelta, Counts, ToolCallDelta};
pub use failure::{UpstreamError, read_error_chunk, read_failure};
