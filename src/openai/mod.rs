//! The wire format of OpenAI-compatible servers: the chunks and errors that they send.
//!
//! | file | duty |
//! |---|---|
//! | `chunk` | one event of a streamed answer |
//! | `conversation` | a request of OpenAI's protocol as the Messages request that it resembles, for the choice of an upstream |
//! | `echo` | the parts of an error's text that repeat the request |
//! | `envelope` | errors of sparkgap in OpenAI's form |
//! | `failure` | an error body, whatever its shape -> its meaning |
//! | `form` | a field of a form |
//! | `markup` | the text of an error page in HTML |
//! | `upstream_error` | [`UpstreamError`]: the meanings |
//! | `overflow` | the texts for "the prompt does not fit", with their numbers |
//! | `passing` | the id, the counts and the reason in an answer that is passed on |
//! | `refusal` | the texts of refusals, and the changes that help |
//! | `repair` | [`Repair`]: the changes |
//! | `repair_text` | the changes as text, for the state folder |
//!
//! Knows the chat completions wire format of vLLM, llama.cpp, SGLang, Ollama and LM Studio; knows nothing of
//! the Messages API or of sockets.

mod answer_form;
mod chunk;
mod conversation;
mod echo;
mod envelope;
mod failure;
mod form;
mod markup;
mod overflow;
mod passing;
mod refusal;
mod repair;
mod repair_text;
mod upstream_error;

pub use answer_form::{AnswerForm, page_words};
pub use chunk::{Choice, Chunk, ChunkDelta, Counts, ToolCallDelta};
pub use conversation::conversation_view;
pub use envelope::{in_openai_form, openai_error_event};
pub use failure::{read_error_chunk, read_failure};
pub use form::{FormPart, cut_form_files, form_field, form_parts, is_form};
pub use passing::PassingAnswer;
pub use repair::{EFFORTS, Repair};
pub use upstream_error::UpstreamError;
