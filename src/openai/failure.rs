//! The meaning of an upstream's error: either one of the few that sparkgap can work around, or an error for the client.
//!
//! Reads the error bodies of all servers, and all their texts for "the prompt does not fit" (docs/translation.md, E).

use std::sync::LazyLock;

use regex_lite::{Captures, Regex, RegexBuilder};

use crate::error::{Error, Kind, Retry};
use crate::json::{self, Value};

/// The most bytes of an upstream's own text that the client gets.
const MESSAGE_SIZE_MAX: usize = 2048;

/// The seconds that a client is asked to wait for a server that is starting or busy.
const RETRY_AFTER_S: u32 = 2;

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
    /// The server does not accept `thinking_token_budget`.
    NoThinkingBudget,
    /// The model does not accept images. Holds the error in the server's own words, for a client that gains nothing
    /// from a second try.
    NoVision(Error),
    /// Anything else.
    Other(Error),
}

impl UpstreamError {
    /// Edits the server's own words in this error.
    pub fn edit_words(&mut self, edit: impl Fn(&mut String)) {
        if let UpstreamError::NoVision(error) | UpstreamError::Other(error) = self {
            edit(&mut error.message);
            error.source.iter_mut().for_each(edit);
        }
    }
}

/// The parts of an error body that matter, whatever its shape.
#[derive(Debug, Default)]
struct Said {
    message: String,
    kind: String,
    code: Option<u64>,
    prompt: Option<u64>,
    window: Option<u64>,
}

/// Reads the error in a response. If the status is 200, the code in the body is used instead. `retry_after` is the
/// header's value in seconds.
pub fn read_failure(status: u16, body: &mut [u8], retry_after: Option<u32>) -> UpstreamError {
    Said::read(body).meaning(status, retry_after)
}

/// Reads an error chunk of a stream that began with status 200. The code in the chunk is used as the status.
pub fn read_error_chunk(chunk: &Value<'_>) -> UpstreamError {
    Said::read_json(chunk).unwrap_or_else(|| Said::read_text(&chunk.to_json())).meaning(200, None)
}

impl Said {
    fn read(body: &mut [u8]) -> Said {
        let text = String::from_utf8_lossy(body).into_owned();
        match json::parse(body) {
            Ok(value) => Said::read_json(&value).unwrap_or_else(|| Said::read_text(&text)),
            Err(_) => Said::read_text(&text),
        }
    }

    /// `{"error":{…}}`, `{"error":"…"}`, flat `{"message":…}`, `{"detail":…}`.
    fn read_json(value: &Value<'_>) -> Option<Said> {
        let object = value.as_object()?;
        let inner = object.get("error").filter(|error| !error.is_null());
        if let Some(text) = inner.and_then(Value::as_str) {
            return Some(Said { message: text.to_string(), ..Said::default() });
        }
        let error = inner.unwrap_or(value);
        let text = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_string);
        let number = |key: &str| error.get(key).and_then(Value::as_u64);
        let message = text("message").or_else(|| match object.get("detail")? {
            Value::String(text) => Some(text.to_string()),
            other => Some(other.to_json()),
        })?;
        // `code` may be a word (OpenAI's `context_length_exceeded`), which is more specific than the type.
        Some(Said {
            message,
            kind: text("code").or(text("type")).unwrap_or_default(),
            code: number("code"),
            prompt: number("n_prompt_tokens"),
            window: number("n_ctx"),
        })
    }

    /// Plain text, or a proxy's HTML page, which is useless to a client.
    fn read_text(text: &str) -> Said {
        let text = text.trim();
        let message = if text.starts_with('<') { "" } else { text };
        Said { message: message.to_string(), ..Said::default() }
    }

    fn meaning(self, status: u16, retry_after: Option<u32>) -> UpstreamError {
        if let Some(failure) = overflow(&self) {
            return failure;
        }
        if self.message.contains("thinking_token_budget is set but") {
            return UpstreamError::NoThinkingBudget;
        }
        let is_blind = NO_VISION.iter().any(|text| self.message.contains(text));
        let status = match (status, self.code) {
            (200..=299, Some(code)) => u16::try_from(code).unwrap_or(500),
            (200..=299, None) => 500,
            (status, _) => status,
        };
        let error = self.into_error(status, retry_after);
        if is_blind { UpstreamError::NoVision(error) } else { UpstreamError::Other(error) }
    }

    fn into_error(self, status: u16, retry_after: Option<u32>) -> Error {
        let message = telling_line(&self.message);
        let source = format!("upstream status {status}: {message}");
        let told = if message.is_empty() || LEAKS.iter().any(|leak| message.contains(leak)) {
            format!("the upstream answered {status}")
        } else {
            message
        };
        let after = Retry::After(retry_after.unwrap_or(RETRY_AFTER_S));
        let error = match status {
            // Our key is wrong, not the client's. A 401 would make Claude Code ask its user to log in.
            401 | 403 => Error::new(Kind::BadGateway, "the upstream rejected the gateway's credentials")
                .retry(Retry::Never),
            404 => Error::new(Kind::NotFound, told).retry(Retry::Never),
            402 => Error::new(Kind::Billing, told),
            413 => Error::new(Kind::RequestTooLarge, told),
            429 => Error::new(Kind::RateLimit, told).retry(after),
            503 | 529 => Error::new(Kind::Overloaded, told).retry(after),
            408 | 504 => Error::new(Kind::Timeout, told).retry(after),
            502 => Error::new(Kind::BadGateway, told).retry(after),
            400..=499 | 501 => Error::new(Kind::InvalidRequest, told),
            _ if TEMPLATE_ERROR.iter().any(|text| self.message.contains(text)) => {
                Error::new(Kind::InvalidRequest, told)
            }
            _ => Error::new(Kind::Api, told),
        };
        error.source(source)
    }
}

/// Errors that llama.cpp answers with 500 although a retry can never help: complaints of the chat template, an image
/// for a model that accepts none, tools for a server that was started without templates.
const TEMPLATE_ERROR: [&str; 5] = [
    "System message must be at the beginning",
    "image input is not supported",
    "Jinja",
    "Failed to parse tool call arguments",
    "requires --jinja",
];

/// The texts with which vLLM and llama.cpp refuse an image.
const NO_VISION: [&str; 2] = ["is not a multimodal model", "image input is not supported"];

/// Signs of the upstream's files, code or key: a line that contains one of these goes only to the log.
const LEAKS: [&str; 9] =
    ["Traceback", ".py\"", ".py:", ".rs:", ".cpp:", "/home/", "/root/", "/usr/", "Bearer "];

/// llama.cpp's text between an excerpt of the chat template and the template's own error text.
const TEMPLATE_WORDS: &str = "Jinja Exception: ";

/// The line that states the error, without the stack trace or source code around it. From a list of validation errors,
/// the first.
fn telling_line(text: &str) -> String {
    let text = text.split_once(TEMPLATE_WORDS).map_or(text, |(_, words)| words);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("");
    let is_list = first.contains("validation error");
    let line = if is_list { format!("{first} {}", lines.next().unwrap_or("")) } else { first.to_string() };
    let line = line.trim_end();
    let mut end = line.len().min(MESSAGE_SIZE_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.get(..end).unwrap_or_default().to_string()
}

/// N: prompt tokens · M: window · O: tokens asked for the answer · C: characters of the prompt · X: excess.
/// The first that matches decides, so the more specific ones come first.
const WORDINGS: [&str; 19] = [
    // vLLM, recent. It counts only to one token beyond the room, even if it does not say "at least".
    r"maximum context length is (?<M>\d+) tokens\. However, you requested (?<O>[1-9]\d*) output tokens and your prompt contains (?<L>at least )?(?<N>\d+) input tokens",
    r"(?<L>You passed )(?<N>\d+) input tokens and requested (?:0|(?<O>\d+)) output tokens\. However, the model's context length is only (?<M>\d+) tokens",
    r"maximum context length is (?<M>\d+) tokens\. However, your prompt contains (?<L>at least )?(?<N>\d+) input tokens",
    r"maximum context length is (?<M>\d+) tokens\. However, your prompt contains (?<C>\d+) characters",
    r"prompt \(length (?<N>\d+)\) is longer than the maximum model length of (?<M>\d+)",
    r"prompt \(length (?<P>\d+)\) plus the number of requested output tokens \(at least 1\) is longer than the maximum model length of (?<M>\d+)",
    r"Input length \((?<N>\d+)\) exceeds model's maximum context length \((?<M>\d+)\)",
    // vLLM, older; OpenAI
    r"maximum context length is (?<M>\d+) tokens\. However, you requested (?<T>\d+) tokens \((?<N>\d+) in the messages, (?<O>\d+) in the completion\)",
    r"maximum context length is (?<M>\d+) tokens.*your (?:messages|prompt) resulted in (?<N>\d+) tokens",
    r"max_(?:completion_)?tokens'? (?:.*)is too large: (?<O>\d+)\. This model's maximum context length is (?<M>\d+) tokens and your request has (?<N>\d+) input tokens",
    // SGLang
    r"The input \((?<N>\d+) tokens\) is longer than the model's context length \((?<M>\d+) tokens\)",
    r"maximum context length of (?<M>\d+) tokens\. You requested a total of (?<T>\d+) tokens: (?<N>\d+) tokens from the input messages and (?<O>\d+) tokens",
    r"Input length \((?<N>\d+) tokens\) exceeds the maximum allowed length \((?<M>\d+) tokens\)",
    // llama.cpp
    r"request \((?<N>\d+) tokens\) exceeds the available context size \((?<M>\d+) tokens\)",
    r"input \((?<N>\d+) tokens\) is larger than the max context size \((?<M>\d+) tokens\)",
    // Ollama, LM Studio
    r"prompt too long; exceeded max context length by (?<X>\d+) tokens",
    r"keep the first (?<N>\d+) tokens when (?:the )?context (?:the )?overflows\. However, the model is loaded with context length of only (?<M>\d+) tokens",
    // without numbers
    r"prompt too long; exceeded context length|the input length exceeds the context length|Context size has been exceeded",
    r"context_length_exceeded|exceed_context_size|context (?:length|window|size).*exceed|exceed.*context (?:length|window|limit|size)",
];

const OUTPUT_WORDING: &str =
    r"max_(?:completion_)?tokens=(?<O>\d+) cannot be greater than (?:\w+=)+(?<M>\d+)";

/// Compiled at the first error, so that the start is not slowed down.
static PATTERNS: LazyLock<Vec<Regex>> =
    LazyLock::new(|| WORDINGS.iter().filter_map(|text| compile(text)).collect());
static OUTPUT_PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| compile(OUTPUT_WORDING));

fn compile(text: &str) -> Option<Regex> {
    RegexBuilder::new(text).case_insensitive(true).build().ok()
}

fn overflow(said: &Said) -> Option<UpstreamError> {
    let number = |found: &Captures<'_>, name: &str| found.name(name)?.as_str().parse::<u64>().ok();
    if let Some(found) = OUTPUT_PATTERN.as_ref().and_then(|pattern| pattern.captures(&said.message)) {
        return number(&found, "M").map(|window| UpstreamError::OutputTooLarge { window });
    }
    if said.prompt.is_some() && said.kind == "exceed_context_size_error" {
        return Some(UpstreamError::Overflow {
            prompt: said.prompt,
            prompt_is_least: false,
            window: said.window,
            output: None,
            excess: None,
        });
    }
    let text = format!("{} {}", said.kind, said.message);
    let found = PATTERNS.iter().find_map(|pattern| pattern.captures(&text))?;
    let window = number(&found, "M");
    let prompt =
        number(&found, "N")
            .or(number(&found, "P").map(|n| n.saturating_add(1)))
            .or(number(&found, "C")
                .map(|characters| (characters / 4).max(window.unwrap_or(0).saturating_add(1))));
    Some(UpstreamError::Overflow {
        prompt,
        prompt_is_least: found.name("L").is_some() || found.name("C").is_some(),
        window,
        output: number(&found, "O"),
        excess: number(&found, "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> UpstreamError {
        read_failure(status, &mut body.as_bytes().to_vec(), None)
    }

    fn numbers(body: &str) -> Numbers {
        match read(400, body) {
            UpstreamError::Overflow { prompt, window, output, .. } => (prompt, window, output),
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn all_patterns_compile() {
        assert_eq!(PATTERNS.len(), WORDINGS.len());
        assert!(OUTPUT_PATTERN.is_some());
    }

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
    ];

    #[test]
    fn wordings_of_overflow() {
        let plain = |message: &str| format!("{{\"error\":{{\"message\":\"{message}\",\"code\":400}}}}");
        for (message, expected) in OVERFLOWS {
            assert_eq!(numbers(&plain(message)), *expected, "{message}");
        }
        let body = r#"{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_prompt_tokens":9000,"n_ctx":8192}}"#;
        assert_eq!(numbers(body), (Some(9000), Some(8192), None));
        assert_eq!(
            numbers(r#"{"error":{"message":"no","code":"context_length_exceeded"}}"#),
            (None, None, None)
        );
        assert_eq!(
            numbers(
                r#"{"object":"error","message":"The input (9 tokens) is longer than the model's context length (8 tokens).","code":400}"#
            ),
            (Some(9), Some(8), None)
        );
    }

    #[test]
    fn what_can_be_mended() {
        let body = r#"{"error":{"message":"max_completion_tokens=40000 cannot be greater than max_model_len=32768. Please","code":400}}"#;
        assert_eq!(read(400, body), UpstreamError::OutputTooLarge { window: 32768 });
        let body = r#"{"error":{"message":"thinking_token_budget is set but reasoning_config is not configured","code":400}}"#;
        assert_eq!(read(400, body), UpstreamError::NoThinkingBudget);
    }

    #[test]
    fn statuses_and_shapes() {
        for (status, body, kind, message) in [
            (
                401,
                r#"{"error":"Unauthorized"}"#,
                Kind::BadGateway,
                "the upstream rejected the gateway's credentials",
            ),
            (404, r#"{"detail":"Not Found"}"#, Kind::NotFound, "Not Found"),
            (
                404,
                r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError"}}"#,
                Kind::NotFound,
                "The model `x` does not exist.",
            ),
            (
                422,
                r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#,
                Kind::InvalidRequest,
                r#"[{"loc":["body"],"msg":"field required"}]"#,
            ),
            (
                503,
                r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
                Kind::Overloaded,
                "Loading model",
            ),
            (502, "<html><h1>Bad Gateway</h1></html>", Kind::BadGateway, "the upstream answered 502"),
            (500, "boom\n  at /usr/lib/x.py:1", Kind::Api, "boom"),
            (501, r#"{"error":{"message":"no"}}"#, Kind::InvalidRequest, "no"),
            (429, "", Kind::RateLimit, "the upstream answered 429"),
            (200, r#"{"error":{"message":"bad","code":400}}"#, Kind::InvalidRequest, "bad"),
            (
                200,
                r#"{"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}"#,
                Kind::Api,
                "EngineCore died",
            ),
            (200, r#"{"error":"x"}"#, Kind::Api, "x"),
            (
                500,
                r#"{"error":{"code":500,"message":"image input is not supported - hint: mmproj"}}"#,
                Kind::InvalidRequest,
                "image input is not supported - hint: mmproj",
            ),
            (418, r#"[]"#, Kind::InvalidRequest, "[]"),
            (500, r#"{"error":null}"#, Kind::Api, r#"{"error":null}"#),
        ] {
            let (UpstreamError::Other(error) | UpstreamError::NoVision(error)) = read(status, body) else {
                panic!("{body}")
            };
            assert_eq!((error.kind, error.message.as_str()), (kind, message), "{status} {body}");
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let body = "é".repeat(5000);
        let UpstreamError::Other(error) = read(500, &body) else { panic!() };
        assert_eq!(error.message.len(), MESSAGE_SIZE_MAX);
    }
}
