//! What the client is told of an upstream's failure that was not mended by a second try.

use crate::error::{Error, Kind, Retry};
use crate::openai::Failure;

use super::finish::overflow_error;
use super::request::Plan;

/// The error for the client (translation.md E). `window`: the model's context window, where known.
pub fn failure_error(failure: Failure, plan: &Plan, window: Option<u64>) -> Error {
    match failure {
        Failure::Overflow { prompt, prompt_is_least, window: told, output, excess } => {
            let least = if prompt_is_least { plan.prompt_tokens } else { 0 };
            let window = told.or(window);
            let counted = prompt.or(window.zip(excess).map(|(window, excess)| window + excess));
            let prompt = counted.map_or(plan.prompt_tokens, |prompt| prompt.max(least));
            // Without any number: the client parses two, and the second must be the smaller.
            let window = window.unwrap_or(prompt.saturating_sub(1));
            overflow_error(prompt, window, output)
        }
        Failure::OutputTooLarge { window } => Error::invalid(format!(
            "max_tokens: {} > {window}, which is the maximum allowed number of output tokens for {}",
            plan.max_tokens, plan.model
        )),
        Failure::NoThinkingBudget => {
            Error::invalid("thinking.budget_tokens: the upstream takes no thinking budget")
        }
        Failure::Other(error) if error.kind == Kind::NotFound && names_a_model(&error.message) => {
            let source = error.source.unwrap_or(error.message);
            Error::new(Kind::NotFound, format!("model: {}", plan.model)).retry(Retry::Never).source(source)
        }
        Failure::Other(error) => error,
    }
}

/// vLLM: ``The model `x` does not exist.``; Ollama: `model "x" not found, try pulling it first`.
fn names_a_model(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("model") && (message.contains("does not exist") || message.contains("not found"))
}
