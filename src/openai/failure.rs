//! The meaning of an upstream's error: either one of the few that sparkgap can work around, or an error for the client.
//!
//! Reads the error bodies of all servers, and all their texts for "the prompt does not fit" (docs/translation.md, E).

use std::borrow::Cow;

use crate::error::{Error, Kind, Retry};
use crate::json::{self, Value};
use crate::shown::cut;

use super::echo::without_echo;
use super::markup;
use super::overflow::overflow;
use super::refusal::repairs;
use super::upstream_error::UpstreamError;

/// The most bytes of an upstream's own text that the client gets.
const MESSAGE_SIZE_MAX: usize = 2048;

/// The bytes of an error's text in which a refusal is looked for: about a hundred patterns read them.
const READ_SIZE_MAX: usize = 6 * 1024;
const READ_END_SIZE: usize = 1024;

/// The seconds that a client is asked to wait for a server that is starting or busy.
const RETRY_AFTER_S: u32 = 2;

/// The parts of an error body that matter, whatever its shape.
#[derive(Debug, Default)]
struct Said {
    message: String,
    /// The error's `code`, if it is a word, else its `type`.
    kind: String,
    /// The member of the request that the error names.
    param: Option<String>,
    code: Option<u64>,
    prompt: Option<u64>,
    window: Option<u64>,
    /// True if the response had no body at all.
    is_silent: bool,
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
        if body.is_empty() {
            return Said { is_silent: true, ..Said::default() };
        }
        let text = String::from_utf8_lossy(body).into_owned();
        match json::parse(body) {
            Ok(value) => Said::read_json(&value).unwrap_or_else(|| Said::read_text(&text)),
            Err(_) => Said::read_text(&text),
        }
    }

    /// `{"error":{…}}`, `{"error":"…"}`, flat `{"message":…}` or `{"msg":…}`, `{"detail":…}`.
    fn read_json(value: &Value<'_>) -> Option<Said> {
        // Gemini puts the error into a list.
        let value = value.as_array().and_then(<[Value<'_>]>::first).unwrap_or(value);
        let object = value.as_object()?;
        let inner = object.get("error").filter(|error| !error.is_null());
        if let Some(text) = inner.and_then(Value::as_str) {
            return Some(Said { message: text.to_string(), ..Said::default() });
        }
        let error = inner.unwrap_or(value);
        // OpenRouter puts the error of the server behind it into a string.
        if let Some(raw) =
            error.get("metadata").and_then(|metadata| metadata.get("raw")).and_then(Value::as_str)
        {
            let said = Said::read(&mut raw.as_bytes().to_vec());
            let code = said.code.or(error.get("code").and_then(Value::as_u64));
            return Some(Said { code, ..said }).filter(|said| !said.message.is_empty());
        }
        let text = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_string);
        let number = |key: &str| error.get(key).and_then(Value::as_u64);
        let told = ["message", "msg"].iter().find_map(|key| error.get(key).filter(|told| !told.is_null()));
        let told = told.or(object.get("detail"))?;
        let message = told.as_str().map_or_else(|| told.to_json(), str::to_string);
        // Some relays put the reason of the server behind them into `param`.
        let param = text("param");
        let message = match &param {
            Some(reason) if reason.contains(' ') => format!("{message}: {reason}"),
            _ => message,
        };
        // `code` may be a word (OpenAI's `context_length_exceeded`), which is more specific than the type.
        Some(Said {
            message,
            kind: text("code").or(text("type")).unwrap_or_default(),
            param,
            code: number("code"),
            prompt: number("n_prompt_tokens"),
            window: number("n_ctx"),
            is_silent: false,
        })
    }

    /// Plain text, or the text of an HTML page.
    fn read_text(text: &str) -> Said {
        let text = text.trim();
        let message = markup::page_text(text).unwrap_or_else(|| text.to_string());
        Said { message, ..Said::default() }
    }

    fn meaning(self, status: u16, retry_after: Option<u32>) -> UpstreamError {
        let status = match status {
            200..=299 => self.code.map(|code| u16::try_from(code).unwrap_or(500)),
            _ => Some(status),
        };
        let text = read_part(&self.message);
        if let Some(failure) = self.overflow(&text, status) {
            return failure;
        }
        if text.contains(OUTPUT_ENDED) {
            return UpstreamError::OutputEnded;
        }
        let status = status.unwrap_or(500);
        let repairs = match status {
            // A key, a quota, a gateway or a server that starts: no change to the request helps.
            401..=403 | 408 | 429 | 502..=504 | 529 => Vec::new(),
            500.. if speaks_of_server(&text) => Vec::new(),
            _ => repairs(&self.kind, self.param.as_deref(), &text),
        };
        let error = self.to_error(&text, status, retry_after);
        if repairs.is_empty() {
            UpstreamError::Other(error)
        } else {
            UpstreamError::Refused { repairs, error }
        }
    }

    /// The meaning of an error that speaks of the context window. `text` is the part of its message that is read.
    fn overflow(&self, text: &str, status: Option<u16>) -> Option<UpstreamError> {
        // llama.cpp names both numbers beside its text.
        if self.prompt.is_some() && self.kind == "exceed_context_size_error" {
            return Some(UpstreamError::Overflow {
                prompt: self.prompt,
                prompt_is_least: false,
                window: self.window,
                output: None,
                excess: None,
            });
        }
        overflow(&self.kind, text, status)
    }

    /// True if the engine behind the server has died, which then ends itself, so that something starts it anew. In
    /// streams vLLM gave this error the code 400 for a time, and its other answers then had no body.
    fn is_of_dead_engine(&self, text: &str, status: u16) -> bool {
        (status == 500 && self.is_silent) || DEAD_ENGINE.iter().any(|words| text.contains(words))
    }

    /// The error for the client. `text` is the part of its message that is read.
    fn to_error(&self, text: &str, status: u16, retry_after: Option<u32>) -> Error {
        let mut lines = telling_lines(&self.message, (400..=499).contains(&status));
        let source = format!("upstream status {status}: {}", joined(&lines));
        lines.retain(|line| !LEAKS.iter().any(|leak| line.contains(leak)));
        let told = if lines.is_empty() {
            format!("the upstream answered {status}")
        } else {
            without_paths(&joined(&lines))
        };
        let after = Retry::After(retry_after.unwrap_or(RETRY_AFTER_S));
        let error = match status {
            _ if self.is_of_dead_engine(text, status) => Error::new(Kind::Overloaded, told).retry(after),
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
            _ if TEMPLATE_ERROR.iter().any(|words| text.contains(words)) => {
                Error::new(Kind::InvalidRequest, told)
            }
            _ => Error::new(Kind::Api, told),
        };
        error.source(source)
    }
}

/// The words of vLLM whose engine has died: of its present engine, since 0.8, and of the two before it.
const DEAD_ENGINE: [&str; 5] = [
    "EngineCore encountered an issue",
    "EngineDeadError",
    "Engine loop is not running",
    "Background loop has errored already",
    "Background loop is stopped",
];

/// Errors that llama.cpp answers with 500 although a retry can never help: complaints of the chat template, an image
/// for a model that accepts none, tools for a server that was started without templates.
const TEMPLATE_ERROR: [&str; 5] = [
    "System message must be at the beginning",
    "image input is not supported",
    "Jinja",
    "Failed to parse tool call arguments",
    "requires --jinja",
];

/// OpenAI's text for an answer that thought up to its limit.
const OUTPUT_ENDED: &str = "max_tokens or model output limit was reached";

/// Signs of the upstream's code or key: a line that contains one of these goes only to the log.
const LEAKS: [&str; 4] = ["Traceback", "File \"", ".py\"", "Bearer "];

/// Signs of the upstream's files: a word that contains one of these goes only to the log.
const PATHS: [&str; 10] =
    [".py:", ".rs:", ".cpp:", "/home/", "/root/", "/usr/", "/opt/", "/var/", "/tmp/", "/mnt/"];

/// The beginnings of the lines of a stack trace.
const TRACE_LINES: [&str; 2] = ["at /", "File \""];

/// The words of a server that is in trouble itself, in lower case: no change to the request helps.
const TROUBLES: [&str; 11] = [
    "memory",
    "cuda",
    "gpu",
    "slot",
    "busy",
    "queue",
    "crashed",
    "restarted",
    "timed out",
    "unavailable",
    "load mmproj",
];

/// True if an error of the server speaks of the server, not of the request.
fn speaks_of_server(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    TROUBLES.iter().any(|words| text.contains(words))
}

/// llama.cpp's text between an excerpt of the chat template and the template's own error text.
const TEMPLATE_WORDS: &str = "Jinja Exception: ";

/// The beginning of a stack trace of Python.
const TRACE_WORDS: &str = "Traceback (most recent call last)";

/// The most lines that are kept of a text whose first line announces the cause.
const TELLING_LINES_MAX: usize = 8;

/// The part of an error's text in which a refusal is looked for: its beginning, and its end, where a stack trace names the
/// exception. Parts that repeat the request are left out.
fn read_part(text: &str) -> Cow<'_, str> {
    let text = without_echo(text);
    if text.len() <= READ_SIZE_MAX + READ_END_SIZE {
        return text;
    }
    let mut start = text.len() - READ_END_SIZE;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    Cow::Owned(format!("{}\n{}", cut(&text, READ_SIZE_MAX), text.get(start..).unwrap_or_default()))
}

/// The lines that are more than rules and marks below other lines.
fn lines(text: &str) -> Vec<&str> {
    let is_rule = |c: char| matches!(c, '-' | '=' | '^' | '~' | ' ');
    text.lines().map(str::trim).filter(|line| !line.chars().all(is_rule)).collect()
}

/// The lines of an error's text that say what is wrong, without the stack trace or source code around them. A first line
/// that only announces the cause, as those of validators and of llama.cpp do, is followed by the cause; so is any first
/// line of a refusal that has no stack trace.
fn telling_lines(text: &str, is_refusal: bool) -> Vec<&str> {
    if let Some((_, words)) = text.split_once(TEMPLATE_WORDS) {
        return lines(words).into_iter().take(1).collect();
    }
    if let Some((before, trace)) = text.split_once(TRACE_WORDS) {
        // The last line of a trace names the exception.
        return lines(before).into_iter().chain(lines(trace).pop()).collect();
    }
    let lines = lines(text);
    let announces =
        lines.first().is_some_and(|line| line.ends_with(':') || line.contains("validation error"));
    let is_trace = || lines.iter().any(|line| TRACE_LINES.iter().any(|begin| line.starts_with(begin)));
    let max = if announces || (is_refusal && !is_trace()) { TELLING_LINES_MAX } else { 1 };
    lines.into_iter().take(max).collect()
}

/// The text with a mark in place of each path of the server.
fn without_paths(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '(' | ')' | ',' | '[' | ']');
    let shown = |word: &str| {
        if !PATHS.iter().any(|path| word.contains(path)) {
            return word.to_string();
        }
        word.chars()
            .last()
            .filter(|last| ends(*last))
            .map_or_else(|| "…".to_string(), |last| format!("…{last}"))
    };
    text.split_inclusive(ends).map(shown).collect()
}

/// The lines in one, up to the limit for texts.
fn joined(lines: &[&str]) -> String {
    cut(&lines.join(" "), MESSAGE_SIZE_MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::overflow::tests::OVERFLOWS;
    use super::*;
    use crate::openai::Repair;

    fn read(status: u16, body: &str) -> UpstreamError {
        read_failure(status, &mut body.as_bytes().to_vec(), None)
    }

    #[test]
    fn numbers_beside_the_text() {
        let body = r#"{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_prompt_tokens":9000,"n_ctx":8192}}"#;
        let UpstreamError::Overflow { prompt, window, .. } = read(400, body) else { panic!() };
        assert_eq!((prompt, window), (Some(9000), Some(8192)));
        let body = r#"{"error":{"message":"max_completion_tokens=40000 cannot be greater than max_model_len=32768. Please","code":400}}"#;
        assert_eq!(read(400, body), UpstreamError::OutputTooLarge { window: 32768 });
    }

    #[test]
    fn every_text_of_overflow_is_read_in_every_shape() {
        let numbers = |failure| match failure {
            UpstreamError::Overflow { prompt, window, output, .. } => (prompt, window, output),
            other => panic!("{other:?}"),
        };
        for (text, expected) in OVERFLOWS {
            let quoted = Value::from((*text).to_string()).to_json();
            for (status, body) in [
                (400, (*text).to_string()),
                (413, format!(r#"{{"error":{quoted}}}"#)),
                (422, format!(r#"{{"detail":{quoted}}}"#)),
                (400, format!(r#"[{{"error":{{"message":{quoted},"code":400}}}}]"#)),
                (
                    200,
                    format!(r#"{{"object":"error","message":{quoted},"type":"BadRequestError","code":400}}"#),
                ),
                (200, format!(r#"{{"error":{{"message":{quoted}}}}}"#)),
            ] {
                assert_eq!(numbers(read(status, &body)), *expected, "{body}");
            }
            let mut body = format!(r#"{{"error":{{"message":{quoted},"code":400}}}}"#).into_bytes();
            let chunk = json::parse(&mut body).unwrap();
            assert_eq!(numbers(read_error_chunk(&chunk)), *expected, "{text}");
        }
    }

    #[test]
    fn bodies_of_overflow() {
        for (status, body, expected) in [
            (
                413,
                r#"{"error": {"code": "tokens_limit_reached", "message": "Request body too large for gpt-5-mini model. Max size: 4000 tokens.", "details": "x"}}"#,
                (None, Some(4000)),
            ),
            (
                400,
                r#"{"error": {"message": "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300031 tokens. Please reduce the length of the messages.", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}"#,
                (Some(300_031), Some(272_000)),
            ),
            (
                400,
                r#"{"error": {"message": "CONTEXT_EXCEEDED prompt_tokens=150000 requested=4 capacity=131072", "code": "context_length_exceeded"}}"#,
                (Some(150_000), Some(131_072)),
            ),
            (
                400,
                r#"{"code": 20015, "message": "length of prompt_tokens (140000) must be less than max_seq_len (131072).", "data": null}"#,
                (Some(140_000), Some(131_072)),
            ),
            (400, r#"{"error": {"code": "1261", "message": "Prompt 超长"}}"#, (None, None)),
            (
                400,
                r#"{"error": {"message": "Error code: 400 - {'object': 'error', 'message': \"The input (233781 tokens) is longer than the model's context length (131072 tokens).\", 'type': 'BadRequestError', 'param': None, 'code': 400}"}}"#,
                (Some(233_781), Some(131_072)),
            ),
            (
                400,
                r#"[{"error": {"code": 400, "message": "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).", "status": "INVALID_ARGUMENT"}}]"#,
                (Some(1_200_293), Some(1_048_576)),
            ),
            (
                400,
                r#"{"object": "error", "message": {"detail": [{"type": "value_error", "msg": "Prompt contains 140000 tokens and 0 draft tokens, too large for model with 131072 maximum context length"}]}, "code": 3051}"#,
                (Some(140_000), Some(131_072)),
            ),
            (
                400,
                r#"{"error": {"message": "Error from provider: Provider returned error", "code": 400, "metadata": {"raw": "{\"error\":{\"message\":\"Invalid request: Your request exceeded model token limit: 262144 (requested: 291351)\",\"type\":\"invalid_request_error\"}}", "provider_name": "Moonshot AI"}}, "user_id": "u"}"#,
                (Some(291_351), Some(262_144)),
            ),
        ] {
            for status in [status, 200] {
                let UpstreamError::Overflow { prompt, window, .. } = read(status, body) else {
                    panic!("{body}")
                };
                assert_eq!((prompt, window), expected, "{body}");
            }
        }
    }

    #[test]
    fn only_a_refusal_is_repaired() {
        let body = r#"{"error":{"message":"m is not a multimodal model"}}"#;
        for (status, is_refusal) in [
            (400, true),
            (404, true),
            (422, true),
            (500, true),
            (200, true),
            (401, false),
            (429, false),
            (503, false),
        ] {
            assert_eq!(matches!(read(status, body), UpstreamError::Refused { .. }), is_refusal, "{status}");
        }
        let behind = r#"{"error":{"message":"Provider returned error","code":400,"metadata":{"raw":"{\"error\":{\"message\":\"m is not a multimodal model\"}}","provider_name":"x"}}}"#;
        let UpstreamError::Refused { repairs, error } = read(400, behind) else { panic!() };
        assert_eq!(
            (repairs, error.message.as_str()),
            (vec![Repair::NoImages], "m is not a multimodal model")
        );
    }

    #[test]
    fn a_server_in_trouble_is_not_repaired() {
        for text in [
            "failed to load mmproj: CUDA out of memory",
            "failed to process image: slot unavailable",
            "xgrammar compilation timed out: grammar compile worker restarted, schema queue full",
            "GPU temperature must be below 95C",
            "the reasoning effort parser crashed: use low",
        ] {
            let said = Said { message: text.into(), ..Said::default() };
            assert!(matches!(said.meaning(500, None), UpstreamError::Other(_)), "{text}");
        }
    }

    #[test]
    fn a_dead_engine_is_worth_another_try() {
        let told = |text: &str| format!(r#"{{"error":{{"message":"{text}","code":500}}}}"#);
        for body in [
            told("EngineCore encountered an issue. See stack trace (above) for the root cause."),
            told("Engine loop is not running. Inspect the stacktrace to find the original error: x."),
            told("Background loop has errored already."),
            told("vllm.v1.engine.exceptions.EngineDeadError: x"),
            String::new(),
        ] {
            let UpstreamError::Other(error) = read(500, &body) else { panic!("{body}") };
            assert_eq!((error.kind, error.retry), (Kind::Overloaded, Retry::After(RETRY_AFTER_S)), "{body}");
        }
        // The error in a stream of older versions.
        let chunk = r#"{"error":{"message":"EngineCore encountered an issue. See","type":"BadRequestError","code":400}}"#;
        let UpstreamError::Other(error) = read(200, chunk) else { panic!() };
        assert_eq!(error.kind, Kind::Overloaded);
        for (status, body) in [(500, "Internal Server Error"), (400, "the engine stopped"), (404, "")] {
            let UpstreamError::Other(error) = read(status, body) else { panic!("{body}") };
            assert_eq!(error.retry, if status == 404 { Retry::Never } else { Retry::Unsaid }, "{body}");
        }
    }

    #[test]
    fn an_echo_of_the_request_decides_nothing() {
        let text = "Extra inputs are not permitted, field: 'messages[2].reasoning', value: 'The prompt exceeds the context window, and m is not a multimodal model'";
        let said = Said { message: text.into(), ..Said::default() };
        let UpstreamError::Refused { repairs, .. } = said.meaning(400, None) else { panic!() };
        assert_eq!(repairs, [Repair::Without("reasoning".into())]);
        // Conversations about model servers have their errors, too.
        for (status, words, kind) in [
            (400, "EngineDeadError", Kind::InvalidRequest),
            (422, OUTPUT_ENDED, Kind::InvalidRequest),
            (500, "requires --jinja", Kind::Api),
        ] {
            let body = format!(
                r#"{{"detail":[{{"loc":["body"],"msg":"not allowed","input":{{"role":"user","content":"{words}"}}}}]}}"#
            );
            let UpstreamError::Other(error) = read(status, &body) else { panic!("{words}") };
            assert_eq!((error.kind, error.retry), (kind, Retry::Unsaid), "{words}");
        }
    }

    #[test]
    fn reasons_in_odd_places_are_read() {
        for body in [
            r#"{"error":{"message":"Param Incorrect","param":"max_tokens is too large: 32000. This model supports at most 64 completion tokens","code":"400"}}"#,
            r#"[{"error":{"code":400,"message":"This model supports at most 64 completion tokens"}}]"#,
        ] {
            let UpstreamError::Refused { repairs, .. } = read(400, body) else { panic!("{body}") };
            assert_eq!(repairs, [Repair::OutputMax(64)]);
        }
    }

    #[test]
    fn the_reason_is_told_and_the_trace_is_not() {
        for (text, told) in [
            (
                "1 validation error for ChatCompletionRequest\nreasoning_effort\n  Input should be 'low', 'medium' or 'high' [type=literal_error]",
                "1 validation error for ChatCompletionRequest reasoning_effort Input should be 'low', 'medium' or 'high' [type=literal_error]",
            ),
            (
                "JSON schema conversion failed:\nPattern must start with '^' and end with '$'",
                "JSON schema conversion failed: Pattern must start with '^' and end with '$'",
            ),
            (
                "\n------------\nWhile executing CallExpression at line 189\nError: Jinja Exception: roles must alternate.\n{{ x }}",
                "roles must alternate.",
            ),
            (
                "no\nTraceback (most recent call last):\n  File \"/usr/lib/x.py\", line 1\n    x()\nValueError: too bad",
                "no ValueError: too bad",
            ),
            (
                "2 errors occurred\n\t* a is wrong\n\t* b is wrong",
                "2 errors occurred * a is wrong * b is wrong",
            ),
            ("boom\n  at /usr/lib/x.py:1\n  at /usr/lib/y.py:2", "boom"),
            (
                "The template at '/root/.cache/x.jinja' says: sort the tools (x.cpp:12)",
                "The template at '…' says: sort the tools (…)",
            ),
            (
                "Traceback (most recent call last):\n  File \"/root/x.py\", line 1",
                "the upstream answered 400",
            ),
        ] {
            let error = Said { message: text.into(), ..Said::default() }.to_error(text, 400, None);
            assert_eq!(error.message, told);
        }
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
            (502, "<html><h1>Bad Gateway</h1></html>", Kind::BadGateway, "Bad Gateway"),
            (502, "<html><body></body></html>", Kind::BadGateway, "the upstream answered 502"),
            (
                400,
                "<html><body>400 Bad Request: field `frobnicate` is unknown</body></html>",
                Kind::InvalidRequest,
                "400 Bad Request: field `frobnicate` is unknown",
            ),
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
                200,
                r#"{"code":429,"msg":"too many requests","success":false}"#,
                Kind::RateLimit,
                "too many requests",
            ),
            (
                500,
                r#"{"error":{"code":500,"message":"image input is not supported - hint: mmproj"}}"#,
                Kind::InvalidRequest,
                "image input is not supported - hint: mmproj",
            ),
            (418, r#"[]"#, Kind::InvalidRequest, "[]"),
            (500, r#"{"error":null}"#, Kind::Api, r#"{"error":null}"#),
        ] {
            let (UpstreamError::Other(error) | UpstreamError::Refused { error, .. }) = read(status, body)
            else {
                panic!("{body}")
            };
            assert_eq!((error.kind, error.message.as_str()), (kind, message), "{status} {body}");
        }
    }

    #[test]
    fn a_refusal_is_found_at_both_ends_of_a_long_text() {
        let (said, long) = ("m is not a multimodal model", "é".repeat(100_000));
        for text in [format!("{said}{long}"), format!("{long}{said}")] {
            let said = Said { message: text, ..Said::default() };
            assert!(matches!(said.meaning(400, None), UpstreamError::Refused { .. }));
        }
        assert!(matches!(
            Said { message: long, ..Said::default() }.meaning(400, None),
            UpstreamError::Other(_)
        ));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let body = "é".repeat(5000);
        let UpstreamError::Other(error) = read(500, &body) else { panic!() };
        assert_eq!(error.message.len(), MESSAGE_SIZE_MAX);
    }
}
