//! What the client is told of an upstream's failure that was not mended by a second try.

use crate::error::{Error, Kind, Retry};
use crate::openai::Failure;

use super::estimate::Prompt;
use super::finish::overflow_error;
use super::plan::Plan;

/// What was asked of the upstream, as far as its errors speak of it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The model as the client named it.
    pub model: String,
    /// The prompt's tokens by rule of thumb.
    pub estimate: Prompt,
    /// The prompt's tokens as the model will most likely count them.
    pub prompt_tokens: u64,
    /// The limit that was sent.
    pub max_tokens: u64,
    /// Whether the window left less room than the client asked for.
    pub is_clamped_to_window: bool,
    /// The model's context window in tokens, where known.
    pub window: Option<u64>,
}

impl Plan {
    /// What is asked, for the errors that may come of it.
    pub fn asked(&self) -> Asked {
        Asked {
            model: self.model.clone(),
            estimate: self.estimate,
            prompt_tokens: self.prompt_tokens,
            max_tokens: self.max_tokens,
            is_clamped_to_window: self.is_clamped_to_window,
            window: self.window,
        }
    }
}

/// The error for the client (docs/translation.md, E).
pub fn failure_error(failure: Failure, asked: &Asked) -> Error {
    match failure {
        Failure::Overflow { prompt, prompt_is_least, window: told, output, excess } => {
            let least = if prompt_is_least { asked.prompt_tokens } else { 0 };
            let window = told.or(asked.window);
            let counted = prompt.or(window.zip(excess).map(|(window, excess)| window.saturating_add(excess)));
            let prompt = counted.map_or(asked.prompt_tokens, |prompt| prompt.max(least));
            // Without any number: the client parses two, and the second must be the smaller.
            let window = window.unwrap_or(prompt.saturating_sub(1));
            overflow_error(prompt, window, output)
        }
        Failure::OutputTooLarge { window } => Error::invalid(format!(
            "max_tokens: {} > {window}, which is the maximum allowed number of output tokens for {}",
            asked.max_tokens, asked.model
        )),
        Failure::NoThinkingBudget => {
            Error::invalid("thinking.budget_tokens: the upstream takes no thinking budget")
        }
        Failure::Other(error) if error.kind == Kind::NotFound && names_a_model(&error) => {
            let source = error.source.unwrap_or(error.message);
            Error::new(Kind::NotFound, format!("model: {}", asked.model)).retry(Retry::Never).source(source)
        }
        Failure::Other(error) | Failure::NoVision(error) => error,
    }
}

/// vLLM: ``The model `x` does not exist.``; Ollama: `model "x" not found, try pulling it first`.
fn names_a_model(error: &Error) -> bool {
    // The source has the upstream's words even where they are not for the client: a model may be named by a path.
    let message = error.source.as_ref().unwrap_or(&error.message).to_ascii_lowercase();
    message.contains("model") && (message.contains("does not exist") || message.contains("not found"))
}
