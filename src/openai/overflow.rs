//! The texts in which servers say that a prompt, or a prompt and its answer, do not fit the context window.
//!
//! Both numbers are taken from the text and never invented: a client reads from them how much it must drop.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex, RegexBuilder};

use super::upstream_error::UpstreamError;
use crate::shown::cut;

/// The sentences of single servers, which mean an overflow whatever the status.
/// N: prompt tokens · M: window · O: tokens asked for the answer · C: characters of the prompt · X: excess · T: prompt
/// and answer together. The first that matches decides, so the more specific ones come first.
const WORDINGS: [&str; 55] = [
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
    r"maximum context length is (?<M>\d+) tokens[,.] however,? you requested (?:about )?(?<N>\d+) tokens in the messages",
    r"maximum context length is (?<M>\d+) tokens[,.] however,? you requested (?:about )?(?<T>\d+) tokens",
    r"maximum context length is (?<M>\d+) tokens.*your (?:messages|prompt) resulted in (?<N>\d+) tokens",
    r"max_(?:completion_)?tokens'? (?:.*)is too large: (?<O>\d+)\. This model's maximum context length is (?<M>\d+) tokens and your request has (?<N>\d+) input tokens",
    r"input tokens exceed the configured limit of (?<M>\d+) tokens\. Your messages resulted in (?<N>\d+) tokens",
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
    r"reached context length of (?<M>\d+) tokens with model",
    r"n_keep: (?<N>\d+) ?>= n_ctx: (?<M>\d+)",
    r"greater than the context length",
    // oMLX
    r"Prompt too long: (?<N>\d+) tokens exceeds max context window of (?<M>\d+) tokens",
    // Text Generation Inference, Together, Zhipu
    r"`?inputs`? tokens \+ `?max_new_tokens`? must be <= (?<M>\d+)\. Given: (?<N>\d+) `?inputs`? tokens and (?<O>\d+) `?max_new_tokens`?",
    r"`?inputs`? must have less than (?<M>\d+) tokens\. Given: (?<N>\d+)",
    // TensorRT-LLM
    r"sum of prompt length \((?<N>\d+)(?:\.0)?\), query length \(\d+(?:\.0)?\) should not exceed max_num_tokens \((?<M>\d+)\)",
    r"max_seq_len \((?<M>\d+)\) - splited_prompt_len \((?<N>\d+)\)",
    // SiliconFlow
    r"length of prompt_tokens \((?<N>\d+)\) must be less than max_seq_len \((?<M>\d+)\)",
    // Workers AI. It counts the answer too.
    r"number of input and maximum output tokens \((?<T>\d+)\) exceeded this model context window limit \((?<M>\d+)\)",
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
    r"input token count exceeds the maximum number of tokens allowed \((?<M>\d+)\)",
    // GitHub Models
    r"request body too large for .{1,80} model\. Max size: (?<M>\d+) tokens",
    // servers that say only both numbers
    r"prompt is (?<N>\d+) tokens but the model context window is (?<M>\d+) tokens",
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
    // llama.cpp, Ollama: without numbers
    r"prompt too long; exceeded context length|the input length exceeds the context length|Context size has been exceeded",
    // Groq, Zhipu, MiniMax, Bedrock, DashScope, Spark: without numbers
    r"reduce the length of the messages or completion",
    r"Prompt exceeds max length|Prompt 超长",
    // vLLM, for a prompt that fills the window exactly: sparkgap never asks for less than one token.
    r"max_tokens must be at least 1, got 0",
    r"context window exceeds limit|input is too long for requested model",
    r"total tokens of image and text exceed max message tokens|total message token length exceed model limit|the max input characters is \d",
];

/// Words without both numbers that a failure of another kind may contain. They are asked after everything else.
const LOOSE_WORDINGS: [&str; 3] = [
    r"maximum context length is (?<M>\d+) tokens\b.{0,200}\b(?:request(?:ed)?|resulted|reduce|shorten|exceed\w*|too (?:long|large|many))\b",
    r"(?:prompt|input)(?: is| was)? too long|prompt exceeds (?:the )?max|prompt size exceeds",
    r"context (?:length|window|size|limit)(?: \w+){0,3} exceed|exceed\w*(?: [\w']+){0,6} context (?:length|window|limit|size)\b",
];

/// The error codes that mean an overflow; some servers put them into the text.
const CODES: &str =
    r"context_length_exceeded|exceed_context_size|context_?window_?exceeded|tokens_limit_reached";

/// A sentence in a wording of its own says that a prompt is too long if it names something of a prompt, and a limit.
const PROMPT_WORDS: &str = "prompt|input|context|token|message";
const LIMIT_WORDS: &str =
    r"too (?:long|large|big|many)|exceed|larger|greater|longer|overflow|limit|\bmax|up to|>";

/// Sentences about the answer, about images, or about what is not counted in tokens.
const OTHER_LIMITS: &str = r"max_(?:completion_|new_|output_)?tokens|output|completion|budget|thinking|reasoning|image|pixel|audio|video|file|byte|character|string|schema|\b[kmg]i?b\b|second|memory|cache|block|batch";

/// Texts about what an account may use in some time, at which a smaller prompt is not what the server asks for.
const RATE_LIMITS: &str = r"per[ -](?:second|minute|min|hour|day|month)|\b[rt]p[smhd]\b|quota|rate[ _-]?limit|credit|afford|billing|balance|throttl";

/// Numbers that are names: codes of errors, identifiers, versions.
const NAMES: &str = r#"<\d+>|\b(?:code|status|error|http|id|version)["']?[ :=#]{0,3}["']?\d+"#;

/// The bytes of a text in which a sentence in a wording of its own is looked for: servers say first what is wrong, and
/// repeat parts of the request behind it.
const SENTENCES_SIZE_MAX: usize = 1024;

/// The smallest number that may be a count of a prompt or a window.
const COUNT_MIN: u64 = 256;

const OUTPUT_WORDING: &str =
    r"max_(?:completion_)?tokens=(?<O>\d+) cannot be greater than (?:\w+=)+(?<M>\d+)";

/// Compiled at the first error, so that the start is not slowed down.
static PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| compile_all(&WORDINGS));
static LOOSE_PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| compile_all(&LOOSE_WORDINGS));
static OUTPUT_PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| compile(OUTPUT_WORDING));
static CODE_PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| compile(CODES));
static RATE_PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| compile(RATE_LIMITS));
static SENTENCE_PATTERNS: LazyLock<Option<SentencePatterns>> = LazyLock::new(SentencePatterns::compile);

/// The patterns for a sentence in a wording of its own.
struct SentencePatterns {
    prompt: Regex,
    limit: Regex,
    other: Regex,
    names: Regex,
}

impl SentencePatterns {
    fn compile() -> Option<SentencePatterns> {
        Some(SentencePatterns {
            prompt: compile(PROMPT_WORDS)?,
            limit: compile(LIMIT_WORDS)?,
            other: compile(OTHER_LIMITS)?,
            names: compile(NAMES)?,
        })
    }

    /// Prompt and window of the first sentence that has just these two numbers: the prompt is the larger.
    fn read(&self, text: &str) -> Option<(u64, u64)> {
        let sentences = text.lines().flat_map(|line| line.split(". "));
        sentences.filter(|sentence| self.limits_a_prompt(sentence)).find_map(|sentence| {
            let sentence = self.names.replace_all(sentence, " ");
            let mut counts: Vec<u64> = counts(&sentence).collect();
            counts.sort_unstable();
            counts.dedup();
            match counts.as_slice() {
                [window, prompt] => Some((*prompt, *window)),
                _ => None,
            }
        })
    }

    fn limits_a_prompt(&self, sentence: &str) -> bool {
        self.prompt.is_match(sentence) && self.limit.is_match(sentence) && !self.other.is_match(sentence)
    }
}

/// The numbers of a sentence that may count tokens. Those in names, versions, dates and amounts are left out.
fn counts(sentence: &str) -> impl Iterator<Item = u64> {
    let is_in_word =
        |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ',' | '-' | '/' | '#' | '@' | '$' | ':');
    sentence.split(move |c: char| !is_in_word(c)).filter_map(count)
}

/// `131072`, `131,072`, `131072.0`, `131072-token` or `limit:131072`.
fn count(word: &str) -> Option<u64> {
    let word = word.trim_end_matches(['.', ',', ':', '-']);
    let word = match word.rsplit_once(':') {
        Some((name, rest)) if name.chars().all(|c| c.is_alphabetic() || c == '_') => rest,
        _ => word,
    };
    let word = word.strip_suffix("-token").unwrap_or(word);
    let digits = word.strip_suffix(".0").unwrap_or(word);
    let mut groups = digits.split(',');
    let first = groups.next()?;
    let mut is_grouped = false;
    for group in groups {
        is_grouped = true;
        if group.len() != 3 {
            return None;
        }
    }
    if is_grouped && first.len() > 3 {
        return None;
    }
    // A sign is not a digit, although a number of Rust may have one.
    let number = digits.replace(',', "");
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse().ok().filter(|count| *count >= COUNT_MIN)
}

/// The patterns of a table, without those that have a mistake.
pub(super) fn compile_all(wordings: &[&str]) -> Vec<Regex> {
    wordings.iter().filter_map(|text| compile(text)).collect()
}

fn is_match(pattern: &Option<Regex>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// A pattern that ignores case. `None` for a mistake in it, which a test would find.
pub(super) fn compile(text: &str) -> Option<Regex> {
    RegexBuilder::new(text).case_insensitive(true).build().ok()
}

/// The number that a pattern found under this name; a text may write it with commas.
pub(super) fn number(found: &Captures<'_>, name: &str) -> Option<u64> {
    found.name(name)?.as_str().replace(',', "").parse().ok()
}

/// The meaning of a text that says that the prompt, or the answer, is too long. `kind` is the error's own type or code,
/// `status` its status, if it has one.
pub(super) fn overflow(kind: &str, message: &str, status: Option<u16>) -> Option<UpstreamError> {
    if let Some(found) = OUTPUT_PATTERN.as_ref().and_then(|pattern| pattern.captures(message)) {
        return number(&found, "M").map(|window| UpstreamError::OutputTooLarge { window });
    }
    let is_code = is_match(&CODE_PATTERN, kind);
    let wording = || PATTERNS.iter().find_map(|pattern| pattern.captures(message)).map(|found| read(&found));
    let other = || other_wording(message, is_code);
    let coded = || (is_code || is_match(&CODE_PATTERN, message)).then(|| numbers(None, None));
    match status {
        _ if is_code => wording().or_else(other).or_else(coded),
        // A key, an account or a rate: only a text that shows that the prompt is too long means it.
        Some(401..=403 | 429) => wording().filter(shows_excess),
        // A fault of the server often names its context.
        Some(500..=599) => wording().or_else(|| other().filter(shows_excess)).or_else(coded),
        _ => wording().or_else(other).or_else(coded),
    }
}

/// The meaning of a text that is not one of the known sentences.
fn other_wording(message: &str, is_code: bool) -> Option<UpstreamError> {
    if !is_code && is_match(&RATE_PATTERN, message) {
        return None;
    }
    let start = cut(message, SENTENCES_SIZE_MAX);
    let both = SENTENCE_PATTERNS.as_ref().and_then(|patterns| patterns.read(start));
    let both = both.map(|(prompt, window)| numbers(Some(prompt), Some(window)));
    both.or_else(|| {
        LOOSE_PATTERNS.iter().find_map(|pattern| pattern.captures(start)).map(|found| read(&found))
    })
}

/// The numbers that a wording names.
fn read(found: &Captures<'_>) -> UpstreamError {
    let number = |name| number(found, name);
    let window = number("M");
    let prompt = number("N")
        .map(|n| n.saturating_add(number("A").unwrap_or(0)))
        .or(number("P").map(|n| n.saturating_add(1)))
        .or(number("C").map(|characters| (characters / 4).max(window.unwrap_or(0).saturating_add(1))));
    UpstreamError::Overflow {
        prompt,
        prompt_is_least: found.name("L").is_some() || found.name("C").is_some(),
        window,
        output: number("O"),
        excess: number("X"),
    }
}

fn numbers(prompt: Option<u64>, window: Option<u64>) -> UpstreamError {
    UpstreamError::Overflow { prompt, prompt_is_least: false, window, output: None, excess: None }
}

/// True if the text names a prompt, and a window that it does not fit.
fn shows_excess(failure: &UpstreamError) -> bool {
    match failure {
        UpstreamError::Overflow { prompt: Some(prompt), window: Some(window), output, .. } => {
            prompt.saturating_add(output.unwrap_or(0)) > *window
        }
        _ => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) type Numbers = (Option<u64>, Option<u64>, Option<u64>);

    pub(in super::super) const OVERFLOWS: &[(&str, Numbers)] = &[
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
        ("Input is too long for requested model.", (None, None, None)),
        (
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300031 tokens. Please reduce the length of the messages.",
            (Some(300_031), Some(272_000), None),
        ),
        (
            "Your input exceeds the context window of this model. Please adjust your input and try again.",
            (None, None, None),
        ),
        (
            "The input token count exceeds the maximum number of tokens allowed (1048576).",
            (None, Some(1_048_576), None),
        ),
        ("Requested tokens (180000) exceed context window of 131072", (Some(180_000), Some(131_072), None)),
        (
            "Number of tokens (140000) exceeded maximum context length (131072).",
            (Some(140_000), Some(131_072), None),
        ),
        ("Prompt exceeds maximum context length", (None, None, None)),
        (
            "Prompt is 151543 tokens but the model context window is 131072 tokens.",
            (Some(151_543), Some(131_072), None),
        ),
        (
            "Prompt token count of 146620 exceeds max token count of 131072.",
            (Some(146_620), Some(131_072), None),
        ),
        ("Context length 140000 is greater than max_seq_len 131072", (Some(140_000), Some(131_072), None)),
        (
            "The prompt is too long: 140000, model maximum context length: 131071",
            (Some(140_000), Some(131_071), None),
        ),
        (
            "too many tokens: total number of tokens in the prompt cannot exceed 131072 - received 200000. Try using a shorter prompt, or enabling prompt truncation.",
            (Some(200_000), Some(131_072), None),
        ),
        ("Total tokens of image and text exceed max message tokens. Request id: 0217", (None, None, None)),
        ("Input length 140000 exceeds the maximum length 131072", (Some(140_000), Some(131_072), None)),
        (
            "AiError: The estimated number of input and maximum output tokens (150000) exceeded this model context window limit (131072).",
            (None, Some(131_072), None),
        ),
        (
            "the number of input tokens 150001 cannot exceed the total tokens limit 131072 for this model",
            (Some(150_001), Some(131_072), None),
        ),
        (
            "The engine prompt length 145000 exceeds the max_model_len 131072. Please reduce prompt.",
            (Some(145_000), Some(131_072), None),
        ),
        (
            "The prompt (total length 140500) is too long to fit into the model (context length 131072). Make sure that `max_model_len` is no smaller than the number of text tokens plus multimodal tokens.",
            (Some(140_500), Some(131_072), None),
        ),
        (
            "the request exceeds the available context size. try increasing the context size or enable context shift",
            (None, None, None),
        ),
        (
            "Reached context length of 131072 tokens with model (arch: qwen2) that does not currently support mid-generation context overflow. Try reloading with a larger context length or shortening the prompt/chat.",
            (None, Some(131_072), None),
        ),
        (
            "Multimodal prompt is too long after expanding multimodal tokens. After expanding len(req.origin_input_ids_unpadded)=100 => 200000 >= 131072.",
            (Some(200_000), Some(131_072), None),
        ),
        (
            "default_max_tokens (-100) should be greater than 0, default_max_tokens (-100) = max_seq_len (131072) - splited_prompt_len (131172) - query_token_len (0)",
            (Some(131_172), Some(131_072), None),
        ),
        (
            "Prompt length (140000) exceeds maximum input length (131072). Set log level to info and check TRTGptModel logs for how maximum input length is set",
            (Some(140_000), Some(131_072), None),
        ),
        (
            "Request prompt has 140000 tokens in total, larger than the model input length limit 131072.",
            (Some(140_000), Some(131_072), None),
        ),
        (
            "InternalError.Algo.InvalidParameter: Total message token length exceed model limit",
            (None, None, None),
        ),
        (
            "Unable to submit request because the input token count is 2000000 but model only supports up to 1048576. Reduce the input token count and try again. You can also use the CountTokens API to calculate prompt token count and billable characters.",
            (Some(2_000_000), Some(1_048_576), None),
        ),
        ("the max input characters is 11200", (None, None, None)),
        (
            "The message was too long and could not be processed (140000 > 131068)",
            (Some(140_000), Some(131_068), None),
        ),
        (
            "ERROR: The prompt size exceeds the context window size and cannot be processed.",
            (None, None, None),
        ),
        (
            "litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError: OpenAIException - This model's maximum context length is 131072 tokens. However, your messages resulted in 140000 tokens. Please reduce the length of the messages.. Received Model Group=x\nAvailable Model Group Fallbacks=None",
            (Some(140_000), Some(131_072), None),
        ),
        ("prompt is too long", (None, None, None)),
        ("Token limit exceeded. Input: 140000, limit: 131072", (Some(140_000), Some(131_072), None)),
        ("context overflow: 140000 tokens in prompt, 131072 available", (Some(140_000), Some(131_072), None)),
        (
            "This model's maximum context length is 131072 tokens. However, you requested 150000 tokens in the messages, Please reduce the length",
            (Some(150_000), Some(131_072), None),
        ),
        (
            "Input length of 140,000 tokens exceeds the model's context window of 131,072 tokens",
            (Some(140_000), Some(131_072), None),
        ),
        ("Request body too large for gpt-5-mini model. Max size: 4000 tokens.", (None, Some(4000), None)),
        (
            "length of prompt_tokens (140000) must be less than max_seq_len (131072).",
            (Some(140_000), Some(131_072), None),
        ),
        ("Prompt 超长", (None, None, None)),
        ("max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", (None, None, None)),
        (
            "CONTEXT_EXCEEDED prompt_tokens=150000 requested=4 capacity=131072",
            (Some(150_000), Some(131_072), None),
        ),
    ];

    fn numbers(kind: &str, message: &str, status: Option<u16>) -> Option<Numbers> {
        match overflow(kind, message, status)? {
            UpstreamError::Overflow { prompt, window, output, .. } => Some((prompt, window, output)),
            other => panic!("{message}: {other:?}"),
        }
    }

    #[test]
    fn all_patterns_compile() {
        assert_eq!(PATTERNS.len(), WORDINGS.len());
        assert_eq!(LOOSE_PATTERNS.len(), LOOSE_WORDINGS.len());
        assert!(OUTPUT_PATTERN.is_some() && CODE_PATTERN.is_some() && RATE_PATTERN.is_some());
        assert!(SENTENCE_PATTERNS.is_some());
    }

    #[test]
    fn wordings_of_overflow() {
        for (message, expected) in OVERFLOWS {
            assert_eq!(numbers("", message, Some(400)), Some(*expected), "{message}");
        }
        for code in ["context_length_exceeded", "exceed_context_size_error", "ContextWindowExceededError"] {
            assert_eq!(numbers(code, "no", Some(500)), Some((None, None, None)));
            assert_eq!(numbers("", code, Some(400)), Some((None, None, None)));
        }
    }

    #[test]
    fn every_wording_is_met_by_a_text() {
        for patterns in [&*PATTERNS, &*LOOSE_PATTERNS] {
            for (at, pattern) in patterns.iter().enumerate() {
                let first = |text: &str| patterns.iter().position(|pattern| pattern.is_match(text));
                assert!(OVERFLOWS.iter().any(|(text, _)| first(text) == Some(at)), "no text for {pattern}");
            }
        }
    }

    #[test]
    fn other_refusals_are_no_overflow() {
        for message in [
            "max_tokens is too large: 20000. This model supports at most 16384 completion tokens",
            "max_tokens (64000) exceeds the limit of 32768 tokens",
            "thinking budget of 32000 tokens exceeds the maximum of 24576",
            "the input image of 4000 pixels is larger than 2048",
            "Message 3: the string with 1540820 characters exceeds the maximum of 1048576",
            "ThrottlingException: Too many tokens, please wait before trying again.",
            "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 9000",
            "Rate limit reached: input tokens limit 30000, used 41000",
            "You exceeded your quota of 30000 tokens: the prompt has 41000",
            "context deadline exceeded",
            "Rate limit exceeded, see the context of your plan",
            "The maximum context length is 131072 tokens for this tier; your API version is invalid",
            "Unknown model 'max-context-length-exceeded'",
            "model input-131072 exceeds the limit, use input-32768",
            "messages exceed the limit at v2.1024 of 2024-10-13",
            "At most 1 image(s) may be provided in one prompt.",
            "Tool call id was a but must be a-z, A-Z, 0-9, with a length of 9.",
        ] {
            assert_eq!(overflow("BadRequestError", message, Some(400)), None, "{message}");
            assert_eq!(overflow("", message, None), None, "{message}");
        }
    }

    #[test]
    fn a_wording_of_its_own_is_read_in_one_sentence() {
        for (message, expected) in [
            ("Your prompt: 140,000 tokens. Limit of context: 131,072", None),
            ("Your prompt has 140,000 tokens, limit 131,072.", Some((140_000, 131_072))),
            ("error 400: the prompt has 140000 tokens > 131072", Some((140_000, 131_072))),
            ("<400> The prompt has 140000.0 tokens > 131072.0", Some((140_000, 131_072))),
            ("prompt of 140000 tokens is over the 131072-token limit", Some((140_000, 131_072))),
            ("gpt-4-32768 limits the prompt to:131072, not 140000", Some((140_000, 131_072))),
            ("too many tokens: 131072 are the limit, and 131072 is not 140000", Some((140_000, 131_072))),
            ("prompt of 140000 tokens exceeds 131072 by 8928", None),
            ("prompt of 1400 tokens exceeds 128", None),
            ("prompt of 140k tokens exceeds 131072", None),
            ("prompt of 1,40,000 tokens exceeds 131072", None),
        ] {
            let found = SENTENCE_PATTERNS.as_ref().unwrap().read(message);
            assert_eq!(found, expected, "{message}");
        }
        let late = format!("{} the prompt has 140000 tokens, limit 131072", "é".repeat(SENTENCES_SIZE_MAX));
        assert_eq!(overflow("", &late, Some(400)), None);
    }

    #[test]
    fn a_fault_that_names_a_context_is_no_overflow() {
        for (message, statuses) in [
            ("Rate limit exceeded: long context window requests are limited to 2 per minute", [429, 400]),
            ("You exceeded your current quota for requests with context length above 32k", [429, 400]),
            ("Your plan does not include it: exceeded allowed context window tier", [403, 401]),
            (
                "This request requires more credits. You requested up to 32000 tokens, but can only afford 3208",
                [402, 400],
            ),
            ("input tokens: limit 30000, used 41000", [429, 402]),
            ("KV cache exhausted: exceeded GPU memory while extending the context length", [500, 503]),
            ("Request timeout exceeded while allocating context window", [500, 504]),
            ("the context window exceeded by a worker", [500, 502]),
        ] {
            for status in statuses {
                assert_eq!(overflow("", message, Some(status)), None, "{status} {message}");
            }
        }
        let both = "prompt is too long: 213462 tokens > 200000 maximum";
        for status in [401, 402, 403, 429, 500, 503] {
            assert_eq!(numbers("", both, Some(status)), Some((Some(213_462), Some(200_000), None)));
            let coded = numbers("context_length_exceeded", "rate limit", Some(status));
            assert_eq!(coded, Some((None, None, None)));
        }
        // llama.cpp says this with 500.
        assert!(overflow("server_error", "Context size has been exceeded.", Some(500)).is_some());
    }
}
