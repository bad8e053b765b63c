//! The meanings of an upstream's error that sparkgap tells apart.

use crate::error::Error;

use super::repair::Repair;

/// The meaning of an upstream's error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamError {
    /// The prompt does not fit the window, or leaves no room for the answer.
    Overflow {
        /// The prompt's tokens, if the server names them. If `prompt_is_least` is set, the real number may be larger.
        prompt: Option<u64>,
        /// vLLM stops counting one token beyond the window.
        prompt_is_least: bool,
        /// The window, if the server names it.
        window: Option<u64>,
        /// The tokens requested for the answer, if the server names them: then prompt and answer together are too many.
        output: Option<u64>,
        /// The number of tokens by which the prompt is too long, if the server names only that (Ollama).
        excess: Option<u64>,
    },
    /// `max_tokens` alone is larger than the window; the prompt may well fit.
    OutputTooLarge {
        /// The window.
        window: u64,
    },
    /// The answer ended at its limit before anything of it was visible.
    OutputEnded,
    /// The server refuses something that can be changed. `repairs` are the changes that may help, the mildest first.
    /// The error is for a client whom they do not help.
    Refused {
        /// The changes to try, in this order.
        repairs: Vec<Repair>,
        /// The refusal in the server's own words.
        error: Error,
    },
    /// Anything else.
    Other(Error),
}

impl UpstreamError {
    /// Edits the server's own words in this error.
    pub fn edit_words(&mut self, edit: impl Fn(&mut String)) {
        if let UpstreamError::Refused { error, .. } | UpstreamError::Other(error) = self {
            edit(&mut error.message);
            error.source.iter_mut().for_each(edit);
        }
    }
}
