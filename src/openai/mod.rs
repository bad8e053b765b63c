//! The wire format of OpenAI-compatible servers: the chunks and errors that they send.
//!
//! | file | duty |
//! |---|---|
//! | `chunk` | one event of a streamed answer |
//! | `echo` | the parts of an error's text that repeat the request |
//! | `failure` | an error body, whatever its shape -> its meaning |
//! | `markup` | the text of an error page in HTML |
//! | `upstream_error` | [`UpstreamError`]: the meanings |
//! | `overflow` | the texts for "the prompt does not fit", with their numbers |
//! | `refusal` | the texts of refusals, and the changes that help |
//! | `repair` | [`Repair`]: the changes |
//!
//! Knows the chat completions wire format of vLLM, llama.cpp, SGLang, Ollama and LM Studio; knows nothing of
//! the Messages API or of sockets.

mod chunk;
mod echo;
mod failure;
mod markup;
mod overflow;
mod refusal;
mod repair;
mod upstream_error;

pub use chunk::{Choice, Chunk, ChunkDelta, Counts, ToolCallDelta};
pub use failure::{read_error_chunk, read_failure};
pub use markup::page_text;
pub use repair::{EFFORTS, Repair};
pub use upstream_error::UpstreamError;
