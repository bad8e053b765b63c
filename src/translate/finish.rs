//! How an answer ended and what it cost, and the words for a prompt that does not fit.

use crate::anthropic::{StopReason, Usage};
use crate::error::Error;
use crate::openai::Counts;

/// What is known at the end of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'e> {
    /// The upstream's `finish_reason`.
    pub(super) finish_reason: &'e str,
    /// A requested stop sequence that was met, by the upstream or by us.
    pub(super) stop_sequence: Option<&'e str>,
    /// Whether a whole tool call was passed on.
    pub(super) has_tool_use: bool,
    /// Whether the upstream refused.
    pub(super) refused: bool,
    /// Whether the context window is full, and the client knows the reason for it.
    pub(super) window_exceeded: bool,
}

/// The stop reason (docs/translation.md, C). A whole tool call outweighs `stop`: vLLM says that of a forced call. `length`
/// outweighs the call: it may be cut.
pub(super) fn stop_reason(end: &End<'_>) -> StopReason {
    match end.finish_reason {
        "length" if end.window_exceeded => StopReason::ContextWindow,
        "length" => StopReason::MaxTokens,
        "content_filter" => StopReason::Refusal,
        _ if end.has_tool_use => StopReason::ToolUse,
        _ if end.refused => StopReason::Refusal,
        _ if end.stop_sequence.is_some() => StopReason::StopSequence,
        _ => StopReason::EndTurn,
    }
}

/// The usage to tell (docs/translation.md, C): the parts always add up to the prompt, and input is never 0, which clients
/// read as "not told". What the upstream did not count is estimated.
pub(super) fn usage(counts: Counts, prompt_estimate: u64, output_estimate: u64) -> Usage {
    let prompt = if counts.prompt > 0 { counts.prompt } else { prompt_estimate };
    let prompt = prompt.max(1);
    let cache_read = counts.cached.min(prompt - 1);
    let cache_creation = counts.cache_created.min(prompt - 1 - cache_read);
    Usage {
        input: prompt - cache_read - cache_creation,
        cache_read,
        cache_creation,
        output: if counts.completion > 0 { counts.completion } else { output_estimate },
        thinking: counts.reasoning,
    }
}

/// The error for a prompt that does not fit, in the words that make Claude Code compact its conversation and go on.
/// With `output`, the words that make it lower `max_tokens` instead.
pub fn overflow_error(prompt: u64, window: u64, output: Option<u64>) -> Error {
    Error::invalid(match output {
        Some(output) if prompt <= window => format!(
            "input length and `max_tokens` exceed context limit: {prompt} + {output} > {window}, \
             decrease input length or `max_tokens` and try again"
        ),
        _ => {
            format!("prompt is too long: {} tokens > {window} maximum", prompt.max(window.saturating_add(1)))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_prompt_add_up() {
        for (prompt, cached, created, expected) in [
            (1000, 900, 0, (100, 900, 0)),
            (1000, 1000, 0, (1, 999, 0)),
            (1000, 2000, 0, (1, 999, 0)),
            (1000, 500, 600, (1, 500, 499)),
            (0, 0, 0, (7, 0, 0)),
            (1, 1, 0, (1, 0, 0)),
            (10, 0, 10, (1, 0, 9)),
        ] {
            let counts = Counts { prompt, cached, cache_created: created, ..Counts::default() };
            let usage = usage(counts, 7, 3);
            assert_eq!(
                (usage.input, usage.cache_read, usage.cache_creation),
                expected,
                "{prompt} {cached} {created}"
            );
            assert_eq!(usage.output, 3);
        }
    }

    #[test]
    fn reasons() {
        let end = |finish_reason, stop_sequence, has_tool_use| End {
            finish_reason,
            stop_sequence,
            has_tool_use,
            refused: false,
            window_exceeded: false,
        };
        for (case, expected) in [
            (end("stop", None, false), StopReason::EndTurn),
            (end("stop", None, true), StopReason::ToolUse),
            (end("stop", Some("END"), false), StopReason::StopSequence),
            (end("tool_calls", None, true), StopReason::ToolUse),
            (end("tool_calls", None, false), StopReason::EndTurn),
            (end("length", None, true), StopReason::MaxTokens),
            (end("content_filter", None, false), StopReason::Refusal),
            (end("abort", None, false), StopReason::EndTurn),
        ] {
            assert_eq!(stop_reason(&case), expected, "{case:?}");
        }
    }

    #[test]
    fn overflow_words() {
        assert_eq!(
            overflow_error(9000, 8192, None).message,
            "prompt is too long: 9000 tokens > 8192 maximum"
        );
        assert_eq!(overflow_error(10, 8192, None).message, "prompt is too long: 8193 tokens > 8192 maximum");
        assert!(
            overflow_error(5000, 8192, Some(4000))
                .message
                .contains("exceed context limit: 5000 + 4000 > 8192")
        );
        assert_eq!(
            overflow_error(9000, 8192, Some(10)).message,
            "prompt is too long: 9000 tokens > 8192 maximum"
        );
    }
}
