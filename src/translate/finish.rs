//! The stop reason and the usage of an answer, and the error for a prompt that does not fit.

use crate::anthropic::{StopReason, Usage};
use crate::error::Error;
use crate::openai::Counts;

use super::arguments::Ending;

/// The finish reasons that say that the model came to its own end. With any other, with an unknown one, or without one,
/// the answer may have been cut: vLLM says `abort`, Gemini's servers `MAX_TOKENS`, Mistral's `model_length`.
const REGULAR_ENDS: [&str; 8] =
    ["stop", "tool_calls", "function_call", "tool_use", "end_turn", "stop_sequence", "eos", "eos_token"];

/// The names under which servers say that the answer met its limit, in any case of letters: Gemini's `MAX_TOKENS`,
/// Mistral's `model_length`.
const LENGTHS: [&str; 3] = ["length", "max_tokens", "model_length"];

/// A finish reason under the name of the API.
pub(super) fn canonical(reason: &str) -> &str {
    if LENGTHS.iter().any(|length| reason.trim().eq_ignore_ascii_case(length)) { "length" } else { reason }
}

/// The evidence that the upstream may have cut the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'l> {
    /// The upstream's `finish_reason`, if it sent one.
    pub(super) finish_reason: Option<&'l str>,
    /// Whether a requested stop sequence was met. vLLM looks for it inside arguments, too.
    pub(super) stop_sequence_met: bool,
    /// The answer's tokens as counted by the upstream; 0 if it did not count them.
    pub(super) completion: u64,
    /// The limit on the answer's tokens that was sent.
    pub(super) max_tokens: u64,
    /// Whether prompt and answer fill the context window.
    pub(super) window_full: bool,
}

impl Limits<'_> {
    /// True if there is any evidence that the answer was cut. Older vLLM gives the reason `tool_calls` for a streamed
    /// call that `max_tokens` cut, so the counts are checked as well.
    pub(super) fn say_cut(&self) -> bool {
        let is_at_limit = self.completion > 0 && self.completion >= self.max_tokens;
        let is_regular = self.finish_reason.is_some_and(|reason| REGULAR_ENDS.contains(&reason));
        !is_regular || self.stop_sequence_met || is_at_limit || self.window_full
    }
}

/// True if a tool call may be passed on as ready to run: its arguments are complete as the model wrote them; or only
/// closing brackets are missing, and there is no evidence that the answer was cut.
pub(super) fn is_ready(ending: Ending, is_told_cut: bool) -> bool {
    match ending {
        Ending::Whole => true,
        Ending::Unclosed => !is_told_cut,
        Ending::Cut => false,
    }
}

/// The facts that decide the stop reason at the end of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'e> {
    /// The upstream's `finish_reason`.
    pub(super) finish_reason: &'e str,
    /// The requested stop sequence that was met, whether the upstream or the proxy found it.
    pub(super) stop_sequence: Option<&'e str>,
    /// Whether a tool call that is ready to run was passed on.
    pub(super) has_tool_use: bool,
    /// True if a tool call was cut: then no call of the answer may pass for ready to run.
    pub(super) has_cut_call: bool,
    /// Whether the upstream refused.
    pub(super) refused: bool,
    /// Whether the context window is full, and the client knows the stop reason for that.
    pub(super) window_exceeded: bool,
}

/// The stop reason (docs/translation.md, C). A whole tool call outweighs `stop`, because vLLM says `stop` for a forced
/// call. `length` outweighs the call, because the call may be cut. A cut call also outweighs a whole one, whatever
/// the upstream says, because clients run all calls if the reason is `tool_use`.
pub(super) fn stop_reason(end: &End<'_>) -> StopReason {
    match end.finish_reason {
        "length" if end.window_exceeded => StopReason::ContextWindow,
        "length" => StopReason::MaxTokens,
        "content_filter" => StopReason::Refusal,
        _ if end.has_cut_call && end.stop_sequence.is_some() => StopReason::StopSequence,
        _ if end.has_cut_call && end.window_exceeded => StopReason::ContextWindow,
        _ if end.has_cut_call => StopReason::MaxTokens,
        _ if end.has_tool_use => StopReason::ToolUse,
        _ if end.refused => StopReason::Refusal,
        _ if end.stop_sequence.is_some() => StopReason::StopSequence,
        _ => StopReason::EndTurn,
    }
}

/// The usage for the client (docs/translation.md, C). The parts always add up to the prompt, and input is never 0,
/// because clients read 0 as "not counted". Counts that the upstream did not send are estimated.
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
        searches: 0,
    }
}

/// The error for a prompt that does not fit. Its wording makes Claude Code compact its conversation and go on. If
/// `output` is given and the prompt alone fits, the wording makes Claude Code lower `max_tokens` instead.
pub fn overflow_error(prompt: u64, window: u64, output: Option<u64>) -> Error {
    // One less than the largest number, so that a larger number of tokens exists.
    let window = window.min(u64::MAX - 1);
    Error::invalid(match output {
        Some(output) if prompt <= window => format!(
            "input length and `max_tokens` exceed context limit: {prompt} + {output} > {window}, \
             decrease input length or `max_tokens` and try again"
        ),
        _ => {
            format!("prompt is too long: {} tokens > {window} maximum", prompt.max(window + 1))
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
            has_cut_call: false,
            refused: false,
            window_exceeded: false,
        };
        let cut = |end| End { has_cut_call: true, ..end };
        for (case, expected) in [
            (end("stop", None, false), StopReason::EndTurn),
            (end("stop", None, true), StopReason::ToolUse),
            (end("stop", Some("END"), false), StopReason::StopSequence),
            (end("tool_calls", None, true), StopReason::ToolUse),
            (end("tool_calls", None, false), StopReason::EndTurn),
            (end("length", None, true), StopReason::MaxTokens),
            (end("content_filter", None, false), StopReason::Refusal),
            (end("abort", None, false), StopReason::EndTurn),
            (cut(end("tool_calls", None, false)), StopReason::MaxTokens),
            (cut(end("tool_calls", None, true)), StopReason::MaxTokens),
            (cut(end("stop", None, true)), StopReason::MaxTokens),
            (cut(end("length", None, true)), StopReason::MaxTokens),
            (cut(end("abort", None, false)), StopReason::MaxTokens),
            (cut(end("content_filter", None, true)), StopReason::Refusal),
            (cut(end("stop", Some("END"), true)), StopReason::StopSequence),
            (End { window_exceeded: true, ..cut(end("tool_calls", None, true)) }, StopReason::ContextWindow),
        ] {
            assert_eq!(stop_reason(&case), expected, "{case:?}");
        }
    }

    #[test]
    fn names_of_the_limit() {
        for (reason, expected) in [
            ("length", "length"),
            ("LENGTH", "length"),
            ("max_tokens", "length"),
            ("MAX_TOKENS", "length"),
            ("model_length", "length"),
            ("stop", "stop"),
            ("lengthy", "lengthy"),
        ] {
            assert_eq!(canonical(reason), expected);
        }
    }

    #[test]
    fn calls_that_are_ready_to_run() {
        let regular = Limits {
            finish_reason: Some("tool_calls"),
            stop_sequence_met: false,
            completion: 10,
            max_tokens: 100,
            window_full: false,
        };
        let reason = |finish_reason| Limits { finish_reason, ..regular };
        let counted = |completion| Limits { completion, ..regular };
        for (limits, says_cut) in [
            (regular, false),
            (reason(Some("stop")), false),
            (reason(Some("function_call")), false),
            (reason(Some("eos_token")), false),
            (reason(None), true),
            (reason(Some("length")), true),
            (reason(Some("content_filter")), true),
            (reason(Some("abort")), true),
            (reason(Some("MAX_TOKENS")), true),
            (reason(Some("unheard-of")), true),
            (counted(0), false),
            (Limits { max_tokens: 0, ..counted(0) }, false),
            (counted(99), false),
            (counted(100), true),
            (counted(101), true),
            (Limits { stop_sequence_met: true, ..regular }, true),
            (Limits { window_full: true, ..regular }, true),
        ] {
            assert_eq!(limits.say_cut(), says_cut, "{limits:?}");
            for (ending, ready) in
                [(Ending::Whole, true), (Ending::Unclosed, !says_cut), (Ending::Cut, false)]
            {
                assert_eq!(is_ready(ending, limits.say_cut()), ready, "{ending:?} {limits:?}");
            }
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
