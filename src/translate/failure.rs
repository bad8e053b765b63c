//! The client's error for an upstream's failure that a second try did not repair.

use crate::error::{Error, Kind, Retry};
use crate::openai::UpstreamError;

use super::finish::overflow_error;
use super::plan::Asked;

/// The error for the client (docs/translation.md, E).
pub fn failure_error(failure: UpstreamError, asked: &Asked) -> Error {
    match failure {
        UpstreamError::Overflow { prompt, prompt_is_least, window: told, output, excess } => {
            let least = if prompt_is_least { asked.prompt_tokens } else { 0 };
            let window = told.or(asked.window);
            let counted = prompt.or(window.zip(excess).map(|(window, excess)| window.saturating_add(excess)));
            let prompt = counted.map_or(asked.prompt_tokens, |prompt| prompt.max(least));
            // If no number is known: the client parses two numbers, and the second must be the smaller.
            let window = window.unwrap_or(prompt.saturating_sub(1));
            overflow_error(prompt, window, output)
        }
        UpstreamError::OutputTooLarge { window } => Error::invalid(format!(
            "max_tokens: {} > {window}, which is the maximum allowed number of output tokens for {}",
            asked.max_tokens, asked.model
        )),
        UpstreamError::OutputEnded => Error::invalid(format!(
            "max_tokens: {} tokens are too few for an answer of {}",
            asked.max_tokens, asked.model
        )),
        UpstreamError::Other(error) if error.kind == Kind::NotFound && names_a_model(&error) => {
            let source = error.source.unwrap_or(error.message);
            Error::new(Kind::NotFound, format!("model: {}", asked.model)).retry(Retry::Never).source(source)
        }
        UpstreamError::Other(error) | UpstreamError::Refused { error, .. } => with_hint(error),
    }
}

/// A refusal in the server's own words, followed by a hint for its reader: the client repeats the request as it is, so
/// that only a change at the server or in the configuration helps.
fn with_hint(mut error: Error) -> Error {
    if error.kind == Kind::InvalidRequest && !error.message.ends_with(HINT) {
        error.message.push_str(HINT);
    }
    error
}

/// Told behind a refusal that no repair helped against.
const HINT: &str = " (the model server refused the request; `sparkgap doctor` may find the cause)";

/// True if the error says that a model does not exist. vLLM: ``The model `x` does not exist.``; Ollama: `model "x" not
/// found, try pulling it first`.
fn names_a_model(error: &Error) -> bool {
    // `source` has the upstream's words even if the client must not see them: a model's name may be a path.
    let message = error.source.as_ref().unwrap_or(&error.message).to_ascii_lowercase();
    message.contains("model") && (message.contains("does not exist") || message.contains("not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers at the edges of what an upstream can name, in every place of an overflow.
    const EDGES: [u64; 5] = [0, 1, 8_192, u64::MAX - 1, u64::MAX];

    fn told() -> impl Iterator<Item = Option<u64>> {
        EDGES.into_iter().map(Some).chain([None])
    }

    /// N and M of `prompt is too long: N tokens > M maximum`.
    fn numbers(message: &str) -> Option<(u64, u64)> {
        let (n, rest) = message.strip_prefix("prompt is too long: ")?.split_once(" tokens > ")?;
        Some((n.parse().ok()?, rest.strip_suffix(" maximum")?.parse().ok()?))
    }

    #[test]
    fn a_prompt_that_is_too_long_is_longer_than_the_maximum_whatever_was_told() {
        for (prompt, window, output) in
            told().flat_map(|p| told().flat_map(move |w| told().map(move |o| (p, w, o))))
        {
            for (excess, known, own) in
                told().flat_map(|e| told().flat_map(move |k| EDGES.map(|own| (e, k, own))))
            {
                let asked = Asked {
                    model: "m".into(),
                    prompt_tokens: own,
                    max_tokens: own,
                    window: known,
                    ..Asked::default()
                };
                let prompt_is_least = own % 2 == 0;
                let failure = UpstreamError::Overflow { prompt, prompt_is_least, window, output, excess };
                let message = failure_error(failure, &asked).message;
                match numbers(&message) {
                    Some((n, m)) => assert!(n > m, "{message}"),
                    None => {
                        assert!(message.starts_with("input length and `max_tokens` exceed"), "{message}");
                    }
                }
            }
        }
    }
}
