//! The inputs of the benchmarks: requests in the shape of Claude Code's, answers in the shape of vLLM's.
//!
//! They are the same bytes on every machine and in every run: the only randomness is a small generator with a fixed
//! seed.

#![allow(dead_code, reason = "each benchmark takes what it needs of this file")]

use std::fmt::Write as _;

use sparkgap::anthropic::MessagesRequest;
use sparkgap::dialect::ServerKind;
use sparkgap::json::{Document, Parser};
use sparkgap::settings::Settings;
use sparkgap::sse::Decoder;
use sparkgap::translate::{Lessons, MessageStream, Plan, Target, chat_request};

/// The id of every answer.
const MESSAGE_ID: &str = "msg_000000000000000000000000";

/// The number of tools that Claude Code declares, approximately.
const TOOLS: usize = 24;

/// The bytes of one declared tool, approximately. Small requests have fewer tools.
const TOOL_SIZE: usize = 700;

/// A xorshift generator: the text need not be random, only varied.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % n
    }
}

const WORDS: [&str; 32] = [
    "the",
    "file",
    "returns",
    "a",
    "value",
    "of",
    "type",
    "when",
    "is",
    "not",
    "found",
    "in",
    "function",
    "let",
    "match",
    "error",
    "Result<T, E>",
    "&self",
    "\"name\"",
    "path/to/module.rs",
    "=>",
    "{\n    ",
    "}\n",
    "();\n",
    "// because",
    "tests",
    "should",
    "pass",
    "für",
    "→",
    "impl",
    "\t",
];

/// Prose and code of about `size` bytes, with the quotes, line ends and other characters that JSON escapes.
fn text(random: &mut Random, size: usize) -> String {
    let mut text = String::with_capacity(size + 16);
    while text.len() < size {
        text.push_str(WORDS[random.below(WORDS.len())]);
        text.push(' ');
    }
    text
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn tool(random: &mut Random, at: usize) -> String {
    let name = ["Bash", "Read", "Edit", "Write", "Glob", "Grep", "Task", "WebFetch"][at % 8];
    let description = quoted(&text(random, 260));
    let mut properties = String::new();
    for (i, key) in ["file_path", "pattern", "timeout", "replace_all"].iter().enumerate() {
        let kind = ["string", "string", "number", "boolean"][i];
        let what = quoted(&text(random, 50));
        let comma = if i > 0 { "," } else { "" };
        write!(properties, r#"{comma}"{key}":{{"type":"{kind}","description":{what}}}"#).unwrap();
    }
    format!(
        r#"{{"name":"{name}{at}","description":{description},"input_schema":{{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{{{properties}}},"required":["file_path","pattern"],"additionalProperties":false}}}}"#
    )
}

/// One turn: the model calls a tool, and the client sends its result.
fn turn(random: &mut Random, at: usize, result_size: usize) -> String {
    let said = quoted(&text(random, 120));
    let path = format!("/home/user/project/src/module_{at}.rs");
    let result = quoted(&text(random, result_size));
    format!(
        r#",{{"role":"assistant","content":[{{"type":"text","text":{said}}},{{"type":"tool_use","id":"toolu_{at:024}","name":"Read1","input":{{"file_path":"{path}","limit":200}}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"toolu_{at:024}","content":{result}}}]}}"#
    )
}

/// A Messages request: its size, and the kind of its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) size: usize,
    pub(crate) stream: bool,
    pub(crate) max_tokens: u64,
}

impl Request {
    fn head(self, random: &mut Random) -> String {
        let tools: Vec<String> =
            (0..(self.size / 2 / TOOL_SIZE).min(TOOLS)).map(|at| tool(random, at)).collect();
        let system = quoted(&text(random, (self.size / 5).min(9000)));
        format!(
            r#"{{"model":"claude-sonnet-4-5","max_tokens":{},"stream":{},"metadata":{{"user_id":"user_0_account_0_session_0"}},"system":[{{"type":"text","text":"You are Claude Code, Anthropic's official CLI for Claude.","cache_control":{{"type":"ephemeral"}}}},{{"type":"text","text":{system},"cache_control":{{"type":"ephemeral"}}}}],"tools":[{}],"messages":[{{"role":"user","content":[{{"type":"text","text":"<system-reminder>\nAs you answer, you may use this context.\n</system-reminder>"}},{{"type":"text","text":"Please read the module and fix the failing test."}}]}}"#,
            self.max_tokens,
            self.stream,
            tools.join(",")
        )
    }

    /// Its JSON, of about its size: system blocks, tools, and a history that fills the rest.
    pub(crate) fn body(self) -> Vec<u8> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut body = self.head(&mut random);
        let mut at = 0;
        while body.len() + 500 < self.size {
            // Most results are short, some are whole files.
            let result_size = [300, 1200, 4000, 9000][random.below(4)].min(self.size - body.len() - 400);
            body.push_str(&turn(&mut random, at, result_size));
            at += 1;
        }
        body.push_str("]}");
        body.into_bytes()
    }

    /// Its JSON with a history of this many messages (each pair has about 600 bytes), whatever its size is then.
    pub(crate) fn body_with_history(self, messages: usize) -> Vec<u8> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut body = self.head(&mut random);
        (0..messages / 2).for_each(|at| body.push_str(&turn(&mut random, at, 250)));
        body.push_str("]}");
        body.into_bytes()
    }
}

/// The steps of a request before it is sent: parse, read, translate, write.
pub(crate) fn translate_request(document: &mut Document, out: &mut Vec<u8>) -> Plan {
    let body = document.parse().unwrap();
    let request = MessagesRequest::read(&body).unwrap();
    let settings = Settings::default();
    let target = Target {
        model: "qwen3",
        flavour: ServerKind::Vllm,
        window: Some(1_000_000_000),
        lessons: Lessons::default(),
        settings: &settings,
    };
    let chat = chat_request(&request, &target).unwrap();
    out.clear();
    chat.body.write(out);
    chat.plan
}

/// The same request as the upstream gets it, for proxies that are measured without translation. `stream` is as the
/// client asked, since no proxy there would fold a stream.
pub(crate) fn chat_body(messages_body: &[u8], stream: bool) -> Vec<u8> {
    let mut out = Vec::new();
    translate_request(&mut Document::from(messages_body.to_vec()), &mut out);
    if !stream {
        let text = String::from_utf8(out).unwrap();
        out = text.replacen("\"stream\":true", "\"stream\":false", 1).into_bytes();
    }
    out
}

/// The kind of an answer's deltas.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Text,
    Reasoning,
    Arguments,
    /// Text in chunks with token counts, as vLLM sends them if it is asked for `continuous_usage_stats`.
    Counted,
}

fn event(choice: &str, rest: &str, out: &mut Vec<u8>) {
    let head = r#"data: {"id":"chatcmpl-b0017a5a9799842f","object":"chat.completion.chunk","created":1795369563,"model":"qwen3","choices":["#;
    out.extend_from_slice(format!("{head}{choice}]{rest}}}\n\n").as_bytes());
}

fn delta(delta: &str, finish: &str) -> String {
    format!(r#"{{"index":0,"delta":{{{delta}}},"logprobs":null,"finish_reason":{finish}}}"#)
}

/// One event with a piece of text.
pub(crate) fn text_event(text: &str, out: &mut Vec<u8>) {
    event(&delta(&format!(r#""content":{}"#, quoted(text)), "null"), "", out);
}

/// The first event of an answer.
pub(crate) fn first_event(out: &mut Vec<u8>) {
    event(&delta(r#""role":"assistant","content":"""#, "null"), "", out);
}

/// The last events of an answer: finish reason, counts and the end mark.
pub(crate) fn last_events(finish: &str, out: &mut Vec<u8>) {
    event(&delta("", &quoted(finish)), "", out);
    let counts = r#","usage":{"prompt_tokens":14,"total_tokens":30,"completion_tokens":16}"#;
    event("", counts, out);
    out.extend_from_slice(b"data: [DONE]\n\n");
}

/// A streamed answer with this many deltas, each of about a token.
pub(crate) fn answer(kind: Kind, deltas: usize) -> Vec<u8> {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut out = Vec::new();
    first_event(&mut out);
    if let Kind::Arguments = kind {
        let call = r#""tool_calls":[{"id":"call_1","type":"function","index":0,"function":{"name":"Write3","arguments":"{\"content\": \""}}]"#;
        event(&delta(call, "null"), "", &mut out);
    }
    for at in 0..deltas {
        let token = format!(" {}", WORDS[random.below(WORDS.len())]);
        match kind {
            Kind::Text => text_event(&token, &mut out),
            Kind::Reasoning => {
                event(&delta(&format!(r#""reasoning":{}"#, quoted(&token)), "null"), "", &mut out);
            }
            Kind::Arguments => argument_event(&token, &mut out),
            Kind::Counted => {
                let counts = format!(
                    r#","usage":{{"prompt_tokens":14,"total_tokens":{},"completion_tokens":{at},"completion_tokens_details":{{"reasoning_tokens":0}}}}"#,
                    14 + at
                );
                event(&delta(&format!(r#""content":{}"#, quoted(&token)), "null"), &counts, &mut out);
            }
        }
    }
    if let Kind::Arguments = kind {
        let end = r#""tool_calls":[{"index":0,"function":{"arguments":"\"}"}}]"#;
        event(&delta(end, "null"), "", &mut out);
    }
    last_events(if let Kind::Arguments = kind { "tool_calls" } else { "stop" }, &mut out);
    out
}

/// One event with a piece of a string inside a tool call's arguments.
fn argument_event(piece: &str, out: &mut Vec<u8>) {
    // The text is quoted once for the string in the arguments, and once for the arguments in the event.
    let inside = quoted(piece);
    let arguments = quoted(inside.trim_matches('"'));
    event(
        &delta(&format!(r#""tool_calls":[{{"index":0,"function":{{"arguments":{arguments}}}}}]"#), "null"),
        "",
        out,
    );
}

/// A streamed tool call whose arguments come in this many fragments of four bytes.
pub(crate) fn fragments(count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    first_event(&mut out);
    let call = r#""tool_calls":[{"id":"call_1","type":"function","index":0,"function":{"name":"Write3","arguments":"{\"content\": \""}}]"#;
    event(&delta(call, "null"), "", &mut out);
    for at in 0..count {
        argument_event(["abcd", " = 1", "xyz\n", "fn()"][at % 4], &mut out);
    }
    event(&delta(r#""tool_calls":[{"index":0,"function":{"arguments":"\"}"}}]"#, "null"), "", &mut out);
    last_events("tool_calls", &mut out);
    out
}

/// The plan of a request with the usual tools and these stop sequences.
pub(crate) fn plan(stop_sequences: usize) -> Plan {
    let body = Request { size: 30_000, stream: true, max_tokens: 4096 }.body();
    let mut plan = translate_request(&mut Document::from(body), &mut Vec::new());
    plan.stop_sequences = (0..stop_sequences).map(|at| format!("\n\nStop {at}:")).collect();
    plan
}

/// Relays an answer as the proxy does: reads of 8 KB, and all events of a read encoded into one reused buffer. Returns
/// the number of bytes that a client would have got.
pub(crate) fn relay(answer: &[u8], plan: Plan, out: &mut Vec<u8>) -> usize {
    let mut stream = MessageStream::new(plan, MESSAGE_ID.to_string());
    let (mut decoder, mut parser) = (Decoder::default(), Parser::default());
    let mut written = 0;
    let mut rest = answer;
    while !rest.is_empty() {
        let space = decoder.space();
        let count = space.len().min(rest.len());
        space[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        decoder.advance(count);
        while let Some(event) = decoder.next_event().unwrap() {
            stream.data(&mut parser, event.data, event.is_error, &mut |event| event.encode(out)).unwrap();
        }
        written += out.len();
        out.clear();
    }
    stream.end(&mut |event| event.encode(out)).unwrap();
    written += out.len();
    out.clear();
    written
}

/// The head of a POST with the headers that Claude Code sends.
pub(crate) fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nauthorization: Bearer sk-0\r\nx-api-key: sk-0\r\nuser-agent: claude-cli/2.0.0 (external, cli)\r\nanthropic-version: 2023-06-01\r\nanthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14\r\nanthropic-dangerous-direct-browser-access: true\r\nx-app: cli\r\nx-stainless-arch: x64\r\nx-stainless-lang: js\r\nx-stainless-os: Linux\r\nx-stainless-package-version: 0.60.0\r\nx-stainless-retry-count: 0\r\nx-stainless-runtime: node\r\nx-stainless-runtime-version: v22.0.0\r\nx-stainless-timeout: 600\r\nconnection: keep-alive\r\naccept-language: *\r\nsec-fetch-mode: cors\r\naccept-encoding: gzip, deflate\r\n\r\n"
    )
}
