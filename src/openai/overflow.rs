//! The texts in which servers say that a prompt, or a prompt and its answer, do not fit the context window.
//!
//! Both numbers are taken from the text and never invented: a client reads from them how much it must drop.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex, RegexBuilder};

use super::upstream_error::UpstreamError;

/// N: prompt tokens · M: window · O: tokens asked for the answer · C: characters of the prompt · X: excess.
/// The first that matches decides, so the more specific ones come first.
const WORDINGS: [&str; 46] = [
    // vLLM, recent. It counts only to one token beyond the room, even if it does not say "at least".
    r"maximum context length is (?<M>\d+) tokens\. However, you requested (?<O>[1-9]\d*) output tokens and your prompt contains (?<L>at least )?(?<N>\d+) input tokens",
    r"(?<L>You passed )(?<N>\d+) input tokens and requested (?:0|(?<O>\d+)) output tokens\. However, the model's context length is only (?<M>\d+) tokens",
    r"maximum context length is (?<M>\d+) tokens\. However, your prompt contains (?<L>at least )?(?<N>\d+) input tokens",
    r"maximum context length is (?<M>\d+) tokens\. However, your prompt contains (?<C>\d+) characters",
    r"prompt \(length (?<N>\d+)\) is longer than the maximum model length of (?<M>\d+)",
    r"prompt \(length (?<P>\d+)\) plus the number of requested output tokens \(at least 1\) is longer than the maximum model length of (?<M>\d+)",
    r"Input length \((?<N>\d+)\) exceeds model's maximum context length \((?<M>\d+)\)",
    // vLLM, older; OpenAI, old and new; OpenRouter, which adds the tools to the text
    r"maximum context length is (?<M>\d+) tokens[,.] however,? you requested (?:about )?(?<T>\d+) tokens \((?<N>\d+) (?:in (?:the messages|your prompt)|of text input)(?:, (?<A>\d+) of tool input)?[,;] (?<O>\d+) (?:in|for) the (?:completion|output)\)",
    r"maximum context length is (?<M>\d+) tokens[,.] however,? you requested (?:about )?(?<T>\d+) tokens \((?<N>\d+) of text input(?:, (?<A>\d+) of tool input)?\)",
    r"maximum context length is (?<M>\d+) tokens.*your (?:messages|prompt) resulted in (?<N>\d+) tokens",
    r"max_(?:completion_)?tokens'? (?:.*)is too large: (?<O>\d+)\. This model's maximum context length is (?<M>\d+) tokens and your request has (?<N>\d+) input tokens",
    // SGLang
    r"The input \((?<N>\d+) tokens\) is longer than the model's context length \((?<M>\d+) tokens\)",
    r"maximum context length of (?<M>\d+) tokens\. You requested a total of (?<T>\d+) tokens: (?<N>\d+) tokens from the input messages and (?<O>\d+) tokens",
    r"Input length \((?<N>\d+) tokens\) exceeds the maximum allowed length \((?<M>\d+) tokens\)",
    // llama.cpp
    r"request \((?<N>\d+) tokens\) exceeds the available context size \((?<M>\d+) tokens\)",
    r"input \((?<N>\d+) tokens\) is larger than the max context size \((?<M>\d+) tokens\)",
    // Ollama, on MLX and else
    r"input length \((?<N>\d+) tokens\) exceeds the model's maximum context length \((?<M>\d+) tokens\)",
    r"prompt too long; exceeded max context length by (?<X>\d+) tokens",
    r"prompt is longer than the context length currently available",
    // LM Studio
    r"keep the first (?<N>\d+) tokens when (?:the )?context (?:the )?overflows\. However, the model is loaded with context length of only (?<M>\d+) tokens",
    r"n_keep: (?<N>\d+) ?>= n_ctx: (?<M>\d+)",
    r"greater than the context length",
    // oMLX
    r"Prompt too long: (?<N>\d+) tokens exceeds max context window of (?<M>\d+) tokens",
    // Text Generation Inference, Together, Zhipu
    r"`?inputs`? tokens \+ `?max_new_tokens`? must be <= (?<M>\d+)\. Given: (?<N>\d+) `?inputs`? tokens and (?<O>\d+) `?max_new_tokens`?",
    r"`?inputs`? must have less than (?<M>\d+) tokens\. Given: (?<N>\d+)",
    // TensorRT-LLM
    r"sum of prompt length \((?<N>\d+)(?:\.0)?\), query length \(\d+(?:\.0)?\) should not exceed max_num_tokens \((?<M>\d+)\)",
    // mistral.rs
    r"Prompt sequence length is greater than (?<M>\d+)",
    // Mistral
    r"Prompt contains (?<N>\d+) tokens.*too large for model with (?<M>\d+) maximum context length",
    // DwarfStar
    r"Prompt has (?<N>\d[\d,]*) tokens?, but the configured context size is (?<M>\d[\d,]*) tokens",
    // xAI
    r"maximum prompt length is (?<M>\d+) but the request contains (?<N>\d+) tokens",
    // Poolside
    r"Input length \(?(?<N>\d+)\)? exceeds the maximum allowed input length of \(?(?<M>\d+)\)? tokens",
    // Copilot
    r"prompt token count of (?<N>\d+) exceeds the limit of (?<M>\d+)",
    // Gemini
    r"input token count \(?(?<N>\d+)\)? exceeds the maximum number of tokens allowed \(?(?<M>\d+)\)?",
    // the Messages API, behind OpenRouter and others
    r"prompt is too long: (?<N>\d+) tokens > (?<M>\d+) maximum",
    r"input length and `max_tokens` exceed context limit: (?<N>\d+) \+ (?<O>\d+) > (?<M>\d+)",
    // Moonshot
    r"exceeded model token limit: ?(?<M>\d+) \(requested: ?(?<N>\d+)\)",
    r"exceeded model token limit: ?(?<M>\d+)",
    // DashScope
    r"Range of input length should be \[\d+, ?(?<M>\d+)\]",
    // Cerebras
    r"reduce the length of the messages or completion\. Current length is (?<N>\d+) while limit is (?<M>\d+)",
    // Groq, Zhipu, MiniMax: without numbers
    r"reduce the length of the messages or completion",
    r"Prompt exceeds max length",
    r"context window exceeds limit",
    r"maximum context length is (?<M>\d+) tokens",
    // without numbers
    r"prompt too long; exceeded context length|the input length exceeds the context length|Context size has been exceeded",
    r"context_length_exceeded|exceed_context_size|context_window_exceeded",
    r"context (?:length|window|size)\b.{0,80}\bexceed|exceed.{0,80}\bcontext (?:length|window|limit|size)",
];

const OUTPUT_WORDING: &str =
    r"max_(?:completion_)?tokens=(?<O>\d+) cannot be greater than (?:\w+=)+(?<M>\d+)";

/// Compiled at the first error, so that the start is not slowed down.
static PATTERNS: LazyLock<Vec<Regex>> =
    LazyLock::new(|| WORDINGS.iter().filter_map(|text| compile(text)).collect());
static OUTPUT_PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| compile(OUTPUT_WORDING));

/// A pattern that ignores case. `None` for a mistake in it, which a test would find.
pub(super) fn compile(text: &str) -> Option<Regex> {
    RegexBuilder::new(text).case_insensitive(true).build().ok()
}

/// The number that a pattern found under this name; a text may write it with commas.
pub(super) fn number(found: &Captures<'_>, name: &str) -> Option<u64> {
    found.name(name)?.as_str().replace(',', "").parse().ok()
}

/// The meaning of a text that says that the prompt, or the answer, is too long. `kind` is the error's own type or code.
pub(super) fn overflow(kind: &str, message: &str) -> Option<UpstreamError> {
    if let Some(found) = OUTPUT_PATTERN.as_ref().and_then(|pattern| pattern.captures(message)) {
        return number(&found, "M").map(|window| UpstreamError::OutputTooLarge { window });
    }
    let text = format!("{kind} {message}");
    let found = PATTERNS.iter().find_map(|pattern| pattern.captures(&text))?;
    let number = |name| number(&found, name);
    let window = number("M");
    let prompt = number("N")
        .map(|n| n.saturating_add(number("A").unwrap_or(0)))
        .or(number("P").map(|n| n.saturating_add(1)))
        .or(number("C").map(|characters| (characters / 4).max(window.unwrap_or(0).saturating_add(1))));
    Some(UpstreamError::Overflow {
        prompt,
        prompt_is_least: found.name("L").is_some() || found.name("C").is_some(),
        window,
        output: number("O"),
        excess: number("X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Numbers = (Option<u64>, Option<u64>, Option<u64>);

    const OVERFLOWS: &[(&str, Numbers)] = &[
        (
            "This model's maximum context length is 8192 tokens. However, you requested 4000 output tokens and your prompt contains at least 4193 input tokens, for a total of at least 8193 tokens. Please reduce",
            (Some(4193), Some(8192), Some(4000)),
        ),
        (
            "You passed 4193 input tokens and requested 4000 output tokens. However, the model's context length is only 8192 tokens, resulting in a maximum input length of 4192 tokens.",
            (Some(4193), Some(8192), Some(4000)),
        ),
        (
            "You passed 8193 input tokens and requested 0 output tokens. However, the model's context length is only 8192 tokens",
            (Some(8193), Some(8192), None),
        ),
        (
            "This model's maximum context length is 8192 tokens. However, your prompt contains at least 8193 input tokens, which exceeds",
            (Some(8193), Some(8192), None),
        ),
        (
            "This model's maximum context length is 8192 tokens. However, your prompt contains 40000 characters",
            (Some(10000), Some(8192), None),
        ),
        (
            "The decoder prompt (length 9001) is longer than the maximum model length of 8192. Make sure",
            (Some(9001), Some(8192), None),
        ),
        (
            "The prompt (length 8192) plus the number of requested output tokens (at least 1) is longer than the maximum model length of 8192",
            (Some(8193), Some(8192), None),
        ),
        (
            "Input length (9000) exceeds model's maximum context length (8192).",
            (Some(9000), Some(8192), None),
        ),
        (
            "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (5000 in the messages, 4000 in the completion). Please",
            (Some(5000), Some(8192), Some(4000)),
        ),
        (
            "This model's maximum context length is 4097 tokens. However, your messages resulted in 5000 tokens. Please reduce",
            (Some(5000), Some(4097), None),
        ),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 4000. This model's maximum context length is 8192 tokens and your request has 5000 input tokens",
            (Some(5000), Some(8192), Some(4000)),
        ),
        (
            "The input (516368 tokens) is longer than the model's context length (262144 tokens).",
            (Some(516_368), Some(262_144), None),
        ),
        (
            "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a total of 9000 tokens: 5000 tokens from the input messages and 4000 tokens for the completion.",
            (Some(5000), Some(8192), Some(4000)),
        ),
        (
            "Input length (9000 tokens) exceeds the maximum allowed length (8187 tokens).",
            (Some(9000), Some(8187), None),
        ),
        (
            "request (9012 tokens) exceeds the available context size (4096 tokens), try increasing it",
            (Some(9012), Some(4096), None),
        ),
        (
            "input (9012 tokens) is larger than the max context size (4096 tokens). skipping",
            (Some(9012), Some(4096), None),
        ),
        ("prompt too long; exceeded max context length by 17 tokens", (None, None, None)),
        (
            "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens",
            (Some(9000), Some(4096), None),
        ),
        ("the input length exceeds the context length", (None, None, None)),
        ("Context size has been exceeded.", (None, None, None)),
        ("the request exceeds the context window", (None, None, None)),
        (
            "input length (9012 tokens) exceeds the model's maximum context length (4096 tokens)",
            (Some(9012), Some(4096), None),
        ),
        (
            "the prompt is longer than the context length currently available to the model; shorten the prompt",
            (None, None, None),
        ),
        (
            "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 10010>= n_ctx: 6144). Try to load",
            (Some(10010), Some(6144), None),
        ),
        ("The prompt is greater than the context length.", (None, None, None)),
        (
            "Prompt too long: 41007 tokens exceeds max context window of 40960 tokens",
            (Some(41007), Some(40960), None),
        ),
        (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 16384. Given: 21790 `inputs` tokens and 1024 `max_new_tokens`",
            (Some(21790), Some(16384), Some(1024)),
        ),
        (
            "inputs tokens + max_new_tokens must be <= 32769. Given: 75307 inputs tokens and 32000 max_new_tokens",
            (Some(75307), Some(32769), Some(32000)),
        ),
        (
            "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
            (Some(2000), Some(1024), None),
        ),
        (
            "The sum of prompt length (72417.0), query length (0) should not exceed max_num_tokens (69632)",
            (Some(72417), Some(69632), None),
        ),
        (
            "Prompt sequence length is greater than 4096, perhaps consider using `truncate_sequence`?",
            (None, Some(4096), None),
        ),
        (
            "Prompt contains 300000 tokens, too large for model with 131072 maximum context length",
            (Some(300_000), Some(131_072), None),
        ),
        (
            "Prompt has 300,000 tokens, but the configured context size is 131,072 tokens",
            (Some(300_000), Some(131_072), None),
        ),
        (
            "This model's maximum prompt length is 131072 but the request contains 537812 tokens",
            (Some(537_812), Some(131_072), None),
        ),
        (
            "Input length (265330) exceeds the maximum allowed input length of (262144) tokens.",
            (Some(265_330), Some(262_144), None),
        ),
        ("prompt token count of 5000 exceeds the limit of 4096", (Some(5000), Some(4096), None)),
        (
            "The input token count (2845475) exceeds the maximum number of tokens allowed (1048576).",
            (Some(2_845_475), Some(1_048_576), None),
        ),
        ("prompt is too long: 213462 tokens > 200000 maximum", (Some(213_462), Some(200_000), None)),
        (
            "input length and `max_tokens` exceed context limit: 149674 + 64000 > 204658, decrease input length",
            (Some(149_674), Some(204_658), Some(64_000)),
        ),
        (
            "Invalid request: Your request exceeded model token limit: 262144 (requested: 291351)",
            (Some(291_351), Some(262_144), None),
        ),
        ("Your request exceeded model token limit: 128000", (None, Some(128_000), None)),
        (
            "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 204800]",
            (None, Some(204_800), None),
        ),
        (
            "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192",
            (Some(9000), Some(8192), None),
        ),
        ("Please reduce the length of the messages or completion.", (None, None, None)),
        ("Prompt exceeds max length", (None, None, None)),
        ("invalid params, context window exceeds limit", (None, None, None)),
        (
            "This model's maximum context length is 4097 tokens, however you requested 4569 tokens (3545 in your prompt; 1024 for the completion). Please reduce",
            (Some(3545), Some(4097), Some(1024)),
        ),
        (
            "This endpoint's maximum context length is 8192 tokens. However, you requested about 9001 tokens (8000 of text input, 1001 in the output). Please",
            (Some(8000), Some(8192), Some(1001)),
        ),
        (
            "This endpoint's maximum context length is 8192 tokens. However, you requested about 9901 tokens (8000 of text input, 900 of tool input, 1001 in the output).",
            (Some(8900), Some(8192), Some(1001)),
        ),
        (
            "This endpoint's maximum context length is 128000 tokens. However, you requested about 175410 tokens (174162 of text input, 1248 of tool input).",
            (Some(175_410), Some(128_000), None),
        ),
        (
            "This model's maximum context length is 131072 tokens. However, you requested 351430 tokens. Please reduce",
            (None, Some(131_072), None),
        ),
        (
            "You passed 65537 input tokens and requested 0 output tokens. However, the model's context length is only 65536 tokens, resulting in a maximum input length of 65536 tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=65537)",
            (Some(65537), Some(65536), None),
        ),
    ];

    fn numbers(kind: &str, message: &str) -> Option<Numbers> {
        match overflow(kind, message)? {
            UpstreamError::Overflow { prompt, window, output, .. } => Some((prompt, window, output)),
            other => panic!("{message}: {other:?}"),
        }
    }

    #[test]
    fn all_patterns_compile() {
        assert_eq!(PATTERNS.len(), WORDINGS.len());
        assert!(OUTPUT_PATTERN.is_some());
    }

    #[test]
    fn wordings_of_overflow() {
        for (message, expected) in OVERFLOWS {
            assert_eq!(numbers("", message), Some(*expected), "{message}");
        }
        assert_eq!(numbers("context_length_exceeded", "no"), Some((None, None, None)));
    }

    #[test]
    fn every_wording_is_met_by_a_text() {
        let codes = ["context_length_exceeded"];
        let texts = || OVERFLOWS.iter().map(|(text, _)| *text).chain(codes);
        for (at, pattern) in PATTERNS.iter().enumerate() {
            let first = |text: &str| PATTERNS.iter().position(|pattern| pattern.is_match(text));
            assert!(texts().any(|text| first(text) == Some(at)), "no text for {pattern}");
        }
    }

    #[test]
    fn other_refusals_are_no_overflow() {
        for message in [
            "max_tokens is too large: 20000. This model supports at most 16384 completion tokens",
            "ThrottlingException: Too many tokens, please wait before trying again.",
            "context deadline exceeded",
            "Rate limit exceeded, see the context of your plan",
            "At most 1 image(s) may be provided in one prompt.",
            "Tool call id was a but must be a-z, A-Z, 0-9, with a length of 9.",
        ] {
            assert_eq!(overflow("BadRequestError", message), None, "{message}");
        }
    }
}
