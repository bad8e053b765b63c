//! The texts in which servers refuse a request for something that can be changed, and the changes that may help.
//!
//! One row for each kind of refusal; docs/repairs.md shows the same table with the servers. A server's own name of a
//! field, number or value is read from the text. A change that does not change the refused request is skipped by the
//! caller, so a row may name more than one.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

use super::overflow::{compile, number};
use super::repair::{EFFORTS, Repair};

/// A refusal's texts, as a pattern, and the changes for it, the mildest first.
struct RefusalRow {
    pattern: &'static str,
    repairs: fn(&Captures<'_>, &str) -> Vec<Repair>,
}

/// The longest name of a field that is left out, in bytes.
const FIELD_SIZE_MAX: usize = 64;

/// The most fields that one refusal can name.
const FIELDS_MAX: usize = 16;

/// The members that a chat completion cannot do without. A refusal that names one of them means its content.
const NEEDED: [&str; 16] = [
    "model",
    "messages",
    "message",
    "role",
    "content",
    "stream",
    "tools",
    "type",
    "function",
    "name",
    "parameters",
    "tool_calls",
    "tool_call_id",
    "arguments",
    "id",
    "body",
];

/// The first that matches decides, so the more specific ones come first.
const ROWS: &[RefusalRow] = &[
    // A server without a parser for calls: it must be started differently.
    RefusalRow {
        pattern: r#""auto" tool choice requires|requires --jinja|does not support tools"#,
        repairs: |_, _| Vec::new(),
    },
    // thinking
    RefusalRow {
        pattern: r"does not support (?:thinking|reasoning)\b|think value .{0,40}is not supported|(?:thinking|reasoning) is not supported",
        repairs: |_, _| vec![Repair::NoThinking],
    },
    RefusalRow {
        pattern: r"thinking_token_budget is set but",
        repairs: |_, _| without("thinking_token_budget"),
    },
    RefusalRow {
        pattern: r"chat_template is not supported for Mistral",
        repairs: |_, _| without("chat_template_kwargs"),
    },
    // images
    RefusalRow {
        pattern: r"(?:at most|up to|maximum of|more than) (?<n>\d+) images?\b",
        repairs: |found, _| match number(found, "n").and_then(|max| usize::try_from(max).ok()) {
            None | Some(0) => vec![Repair::NoImages],
            Some(max) => vec![Repair::ImagesMax(max)],
        },
    },
    RefusalRow {
        pattern: r"is not a multimodal model|missing data required for image|no vision|text-only model|images? (?:inputs? )?(?:is|are) not supported|(?:not|n't) support (?:the )?(?:images?|vision|multimodal|multi-modal)\b|support image input|unknown variant .image_url|image_url\S{0,2} is (?:not|only) supported|unknown part type: image_url|only .text. content type|mmproj",
        repairs: |_, _| vec![Repair::NoImages],
    },
    RefusalRow {
        pattern: r"(?:failed to|cannot|can't|could not|unable to) (?:load|decode|identify|process|open|read|parse) (?:the |input |an )?image|invalid image|image (?:data |file )?is (?:truncated|invalid|corrupt)|broken data stream when reading image|(?:unsupported|unknown|invalid) image (?:format|type|media)",
        repairs: |_, _| vec![Repair::PlainImages, Repair::NewestImage, Repair::PresentImages],
    },
    // tool schemas, and the format of the answer
    RefusalRow {
        pattern: r"invalid schema for response_format|'?response_format'?.{0,80}'?required'? is required",
        repairs: |_, _| vec![Repair::LooseFormat, Repair::PlainSchemas, Repair::FormatAsText],
    },
    RefusalRow {
        pattern: r"response_format type is unavailable|response_format.{0,80}(?:not supported|unsupported|unavailable|not permitted|not allowed|must be)|json_schema.{0,40}not supported",
        repairs: |_, _| vec![Repair::FormatAsText],
    },
    RefusalRow {
        pattern: r"schema conversion failed|failed to parse grammar|initialize samplers|grammar (?:error|specification|compil)|(?:compile|parse|convert|invalid|unsupported|not supported)[^.]{0,60}(?:grammar|schema)|unrecognized schema|error resolving ref|features? (?:not supported|unsupported) by xgrammar|xgrammar does not support|pattern must start with|cannot unmarshal .{0,40}tools\.function\.parameters",
        repairs: |_, text| {
            let mut repairs = vec![Repair::Without("strict".into()), Repair::PlainSchemas];
            repairs.extend(named_tool(text).map(Repair::OpenSchema));
            repairs.extend([Repair::FormatAsText, Repair::OpenSchemas]);
            repairs
        },
    },
    // ids and names
    RefusalRow { pattern: r"tool call id .{0,300}with a length of 9", repairs: |_, _| vec![Repair::CallIds] },
    RefusalRow {
        pattern: r"function name was .{0,300}must be a-z|tools?\S{0,20}name\S{0,3}:? .{0,40}(?:too long|match(?:es)? (?:the )?pattern|maximum length)",
        repairs: |_, _| vec![Repair::ToolNames],
    },
    // the order of messages
    RefusalRow { pattern: r"single tool-calls? at once", repairs: |_, _| vec![Repair::SingleCalls] },
    RefusalRow {
        pattern: r"either content or tool_calls, but not both",
        repairs: |_, _| vec![Repair::CallsAlone],
    },
    RefusalRow {
        pattern: r"system (?:role|messages?|prompts?) (?:is |are )?not supported|does not support system|role.{0,10}does not support .system",
        repairs: |_, _| vec![Repair::SystemRole("developer"), Repair::NoSystem],
    },
    RefusalRow {
        pattern: r"role.{0,10}does not support .developer|unexpected role .?developer",
        repairs: |_, _| vec![Repair::SystemRole("system")],
    },
    RefusalRow {
        pattern: r"must alternate|unexpected role .{0,20} after role|system message must be (?:at the beginning|the first)|(?:first|last) message must|conversation must start|2 or more assistant messages|expected last role",
        repairs: |_, _| vec![Repair::Alternation, Repair::NoSystem],
    },
    // the limit of the answer
    RefusalRow { pattern: r"at most (?<n>\d+) (?:completion|output) tokens", repairs: output_max },
    RefusalRow { pattern: r"range of max_tokens (?:is|should be) ?\[\d+, ?(?<n>\d+)\]", repairs: output_max },
    RefusalRow { pattern: r"max_tokens.{0,40}\[\d+, ?(?<n>\d+)\]", repairs: output_max },
    RefusalRow {
        pattern: r"max_(?:completion_|output_)?tokens\S{0,2} (?:must|should) be (?:less than or equal to|<=|at most) \S?(?<n>\d+)",
        repairs: output_max,
    },
    RefusalRow { pattern: r"max_tokens: \d+ > (?<n>\d+), which is the maximum", repairs: output_max },
    RefusalRow {
        pattern: r"max_tokens\S{0,2} is not supported|use .max_completion_tokens. instead",
        repairs: |_, _| vec![Repair::LimitName("max_completion_tokens")],
    },
    // the effort: after the members that are refused as such
    RefusalRow {
        pattern: r"(?:unknown|unrecognized|unsupported) (?:request )?(?:parameter|argument|field)s?(?: supplied)?:? \S?reasoning_effort",
        repairs: |_, _| without("reasoning_effort"),
    },
    RefusalRow {
        pattern: r"reasoning.?effort.{0,200}extra inputs are not permitted|reasoning.?effort\S? (?:is not supported|is unsupported|is not a)",
        repairs: |_, _| without("reasoning_effort"),
    },
    RefusalRow {
        pattern: r"(?s)(?:reasoning.?effort|reasoning value|think value|thinking level)(?<rest>.*)",
        repairs: |found, _| {
            let rest = found.name("rest").map_or("", |rest| rest.as_str());
            let efforts = allowed_efforts(rest).unwrap_or_else(|| vec!["low", "medium", "high"]);
            vec![Repair::Efforts(efforts), Repair::Without("reasoning_effort".into())]
        },
    },
    // forms
    RefusalRow {
        pattern: r"content\b[^.]{0,80}\b(?:null|none)\b|\b(?:null|none)\b[^.]{0,40}\bcontent\b|expected a string, got null",
        repairs: |_, _| vec![Repair::NoNullContent],
    },
    RefusalRow {
        pattern: r"content\b.{0,40} (?:must|should) be a (?:valid )?string|messages.{0,80}content.{0,80}valid string|can only concatenate str|invalid type: sequence, expected a string",
        repairs: |_, _| vec![Repair::NoNullContent, Repair::StringContent],
    },
    RefusalRow { pattern: r"tool.?choice", repairs: |_, _| vec![Repair::NoNamedChoice, Repair::NoChoice] },
    RefusalRow {
        pattern: r"\bstop\b.{0,60}(?:at most|maximum|up to|too many|too long|array)",
        repairs: |_, _| without("stop"),
    },
    RefusalRow {
        pattern: r"['`\x22]?(?<F>temperature|top_p|top_k|min_p|seed|logit_bias|frequency_penalty|presence_penalty|repetition_penalty|priority|parallel_tool_calls|stream_options|logprobs|user)\b['`\x22]?.{0,60}(?:does not support|only the default|not supported|unsupported|must be|should be|is only allowed|is not allowed|not permitted|unavailable|deprecated)",
        repairs: |found, _| found.name("F").map_or_else(Vec::new, |name| without(name.as_str())),
    },
];

/// The texts that name a member which the server does not know. `F` is the member, or a path or a list of them.
const FIELDS: &[&str] = &[
    r"unrecognized request arguments? supplied: (?<F>[\w., ]+)",
    r"(?:unknown|unsupported|unrecognized|unexpected|invalid) (?:parameter|field|argument|key|property|member|keyword argument)s?(?:\(s\) in object)?:? ['`\x22]?(?<F>[\w.]+)",
    r"property ['`\x22](?<F>[\w.]+)['`\x22] is unsupported",
    r"loc['\x22]: ?[\[(](?<F>[^\])]*)[\])], ?['\x22]msg['\x22]: ?['\x22]Extra inputs are not permitted",
    r"extra inputs are not permitted, field: ['`\x22]?(?<F>[\w.]+)",
    r"(?<F>[\w.]+)['`\x22]?[\s:]+extra inputs are not permitted",
    r"['`\x22](?<F>[\w.]+)['`\x22] (?:is not|is) (?:supported|unsupported|allowed|permitted|unknown|unrecognized)",
    r"(?<F>\w+_\w+) (?:parameter )?(?:is not|is|are not) (?:supported|unsupported|allowed|permitted)",
];

/// Compiled at the first refusal, so that the start is not slowed down.
static PATTERNS: LazyLock<Vec<Option<Regex>>> =
    LazyLock::new(|| ROWS.iter().map(|row| compile(row.pattern)).collect());
static FIELD_PATTERNS: LazyLock<Vec<Regex>> =
    LazyLock::new(|| FIELDS.iter().filter_map(|text| compile(text)).collect());

/// The changes that may help against a refusal, the mildest first; none if its text is unknown. `code` and `param` are
/// the members of the error with these names.
pub(super) fn repairs(code: &str, param: Option<&str>, text: &str) -> Vec<Repair> {
    for (row, pattern) in ROWS.iter().zip(PATTERNS.iter()) {
        if let Some(found) = pattern.as_ref().and_then(|pattern| pattern.captures(text)) {
            return (row.repairs)(&found, text);
        }
    }
    let named = FIELD_PATTERNS.iter().flat_map(|pattern| pattern.captures_iter(text));
    let named = named.filter_map(|found| Some(found.name("F")?.as_str()));
    let is_of_param =
        ["unsupported", "unknown", "wrong_api_format", "extra"].iter().any(|word| code.contains(word));
    let param = param.filter(|_| is_of_param);
    let mut found: Vec<Repair> = Vec::new();
    for name in param.into_iter().chain(named).flat_map(names).take(FIELDS_MAX) {
        for repair in without(name) {
            if !found.contains(&repair) {
                found.push(repair);
            }
        }
    }
    found
}

/// The members that a list of paths names: of each path the last word that is not a number.
fn names(list: &str) -> impl Iterator<Item = &str> {
    let is_path = list.contains(['\'', '"']);
    let paths = list.split(move |c: char| !is_path && (c == ',' || c == ' '));
    paths.filter_map(|path| {
        let mut words = path.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        words.rfind(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
    })
}

/// The changes for a request whose member of this name is refused.
fn without(name: &str) -> Vec<Repair> {
    match name {
        "max_tokens" => vec![Repair::LimitName("max_completion_tokens")],
        "max_completion_tokens" => vec![Repair::LimitName("max_tokens")],
        "tool_choice" => vec![Repair::NoNamedChoice, Repair::NoChoice],
        "response_format" | "json_schema" => vec![Repair::FormatAsText],
        "image_url" => vec![Repair::NoImages],
        name if name.len() > FIELD_SIZE_MAX || NEEDED.contains(&name) => Vec::new(),
        name => vec![Repair::Without(name.to_string())],
    }
}

fn output_max(found: &Captures<'_>, _: &str) -> Vec<Repair> {
    number(found, "n").filter(|max| *max > 0).map(Repair::OutputMax).into_iter().collect()
}

/// The tool that a refusal of a schema names.
fn named_tool(text: &str) -> Option<String> {
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| {
        compile(r"(?:function|tool)s? (?:named )?['`\x22](?<name>[^'`\x22]{1,256})['`\x22]")
    });
    let found = PATTERN.as_ref()?.captures(text)?;
    found.name("name").map(|name| name.as_str().to_string())
}

/// The efforts that a refusal says are allowed, the least first.
fn allowed_efforts(text: &str) -> Option<Vec<&'static str>> {
    static ALLOWED: LazyLock<Option<Regex>> = LazyLock::new(|| {
        compile(
            r"(?s)(?:must be|should be|expected|supported values|allowed|one of|available|supports|use)(?<rest>.*)",
        )
    });
    let rest = ALLOWED.as_ref()?.captures(text)?.name("rest")?.as_str().to_ascii_lowercase();
    // The value that was refused may follow the values that are allowed.
    let end = ["input", "[type", "got ", "but ", "received"].iter().filter_map(|word| rest.find(word)).min();
    let rest = rest.get(..end.unwrap_or(rest.len()))?;
    let words: Vec<&str> = rest.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let efforts: Vec<&'static str> = EFFORTS.into_iter().filter(|effort| words.contains(effort)).collect();
    (!efforts.is_empty()).then_some(efforts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str) -> Vec<Repair> {
        vec![Repair::Without(name.into())]
    }

    fn schema(more: Option<&str>) -> Vec<Repair> {
        let mut repairs = vec![Repair::Without("strict".into()), Repair::PlainSchemas];
        repairs.extend(more.map(|name| Repair::OpenSchema(name.into())));
        repairs.extend([Repair::FormatAsText, Repair::OpenSchemas]);
        repairs
    }

    fn efforts(allowed: &[&'static str]) -> Vec<Repair> {
        vec![Repair::Efforts(allowed.to_vec()), Repair::Without("reasoning_effort".into())]
    }

    /// Refusals of real servers, and the repairs for them.
    #[allow(clippy::too_many_lines, reason = "a table, with a line for each text")]
    fn refusals() -> Vec<(&'static str, Vec<Repair>)> {
        let order = || vec![Repair::Alternation, Repair::NoSystem];
        let broken = || vec![Repair::PlainImages, Repair::NewestImage, Repair::PresentImages];
        let choice = || vec![Repair::NoNamedChoice, Repair::NoChoice];
        vec![
            (r#""coder:30b" does not support thinking"#, vec![Repair::NoThinking]),
            (r#"think value "high" is not supported for this model"#, vec![Repair::NoThinking]),
            (
                r#"invalid reasoning value: 'xhigh' (must be "high", "medium", "low", "max", or "none")"#,
                efforts(&["none", "low", "medium", "high", "max"]),
            ),
            (
                "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'reasoning_effort'), 'msg': \"Input should be 'low', 'medium' or 'high'\", 'input': 'xhigh'}",
                efforts(&["low", "medium", "high"]),
            ),
            (
                "1 validation error for ChatCompletionRequest\nreasoning_effort\n  Input should be 'none', 'low', 'medium' or 'high' [type=literal_error, input_value='max', input_type=str]",
                efforts(&["none", "low", "medium", "high"]),
            ),
            (
                r#"Unsupported value: 'reasoning_effort' does not support 'minimal' with this model. Supported values are: 'low', 'medium', and 'high'."#,
                efforts(&["low", "medium", "high"]),
            ),
            (r#"reasoning_effort must be either "none" or "high""#, efforts(&["none", "high"])),
            ("Invalid reasoning effort", efforts(&["low", "medium", "high"])),
            ("Unrecognized request argument supplied: reasoning_effort", field("reasoning_effort")),
            ("Unknown parameter: 'reasoning_effort'.", field("reasoning_effort")),
            ("reasoning_effort is not supported with this model", field("reasoning_effort")),
            (
                "thinking_token_budget is set but reasoning_config is not configured",
                field("thinking_token_budget"),
            ),
            ("chat_template is not supported for Mistral tokenizers.", field("chat_template_kwargs")),
            ("At most 1 image(s) may be provided in one prompt.", vec![Repair::ImagesMax(1)]),
            (
                "At most 0 image(s) may be provided in one prompt. Set `--limit-mm-per-prompt` to increase",
                vec![Repair::NoImages],
            ),
            ("Too many images provided. This model supports up to 5 images", vec![Repair::ImagesMax(5)]),
            ("qwen3 is not a multimodal model", vec![Repair::NoImages]),
            (
                "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
                vec![Repair::NoImages],
            ),
            ("Model does not support images. Please use a model that does.", vec![Repair::NoImages]),
            ("this model is missing data required for image input", vec![Repair::NoImages]),
            ("this model does not support image input", vec![Repair::NoImages]),
            ("No endpoints found that support image input", vec![Repair::NoImages]),
            (
                "messages[1]: unknown variant `image_url`, expected `text` at line 1 column 746109",
                vec![Repair::NoImages],
            ),
            ("Bad Request: [message type 'image_url' is not supported]", vec![Repair::NoImages]),
            ("Failed to load image or audio file", broken()),
            ("cannot identify image file <_io.BytesIO object at 0x7f>", broken()),
            ("invalid image input", broken()),
            (
                "Unable to generate parser for this template. Automatic parser generation failed: JSON schema conversion failed:\nPattern must start with '^' and end with '$'",
                schema(None),
            ),
            ("Failed to initialize samplers: failed to parse grammar", schema(None)),
            ("JSON schema conversion failed:\nUnrecognized schema: {\"description\":\"x\"}", schema(None)),
            (
                "xgrammar does not support advanced JSON schema features like string length, item limits, or property bounds.",
                schema(None),
            ),
            ("The provided JSON schema contains features not supported by xgrammar.", schema(None)),
            (
                "json: cannot unmarshal number into Go struct field .tools.function.parameters.properties.enum of type string",
                schema(None),
            ),
            (
                "Invalid schema for function 'Send': In context=(), 'additionalProperties' is required to be supplied and to be false.",
                schema(Some("Send")),
            ),
            ("Invalid tool schema: 'objekt' is not valid under any of the given schemas", schema(None)),
            (
                "Invalid schema for response_format 'output': In context=(), 'required' is required to be supplied and to be an array including every key in properties. Missing 'age'.",
                vec![Repair::LooseFormat, Repair::PlainSchemas, Repair::FormatAsText],
            ),
            ("This response_format type is unavailable now", vec![Repair::FormatAsText]),
            ("Unexpected role 'user' after role 'tool'", order()),
            (
                "After the optional system message, conversation roles must alternate user and assistant roles except for tool calls and results.",
                order(),
            ),
            ("Conversation roles must alternate user/assistant/user/assistant/...", order()),
            ("System message must be at the beginning.", order()),
            ("Cannot have 2 or more assistant messages at the end of the list.", order()),
            ("System role not supported", vec![Repair::SystemRole("developer"), Repair::NoSystem]),
            (
                "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
                vec![Repair::SystemRole("developer"), Repair::NoSystem],
            ),
            ("Unexpected role developer", vec![Repair::SystemRole("system")]),
            ("This model only supports single tool-calls at once!", vec![Repair::SingleCalls]),
            (
                "Assistant message must have either content or tool_calls, but not both.",
                vec![Repair::CallsAlone],
            ),
            (
                "Tool call id was toolu_01AbC but must be a-z, A-Z, 0-9, with a length of 9.",
                vec![Repair::CallIds],
            ),
            (
                "Function name was mcp__x but must be a-z, A-Z, 0-9, or contain underscores and dashes, with a maximum length of 64.",
                vec![Repair::ToolNames],
            ),
            (
                "Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 64, but got a string with length 90 instead.",
                vec![Repair::ToolNames],
            ),
            (
                "max_tokens is too large: 20000. This model supports at most 16384 completion tokens, whereas you provided 20000.",
                vec![Repair::OutputMax(16_384)],
            ),
            (
                "InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]",
                vec![Repair::OutputMax(8192)],
            ),
            (
                "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
                vec![Repair::OutputMax(8192)],
            ),
            ("max_tokens参数非法：限制数值范围[1,131072]", vec![Repair::OutputMax(131_072)]),
            (
                "`max_tokens` must be less than or equal to `32768`, the maximum value for `max_tokens` is less than the `context_window` for this model",
                vec![Repair::OutputMax(32_768)],
            ),
            (
                "max_tokens: 64000 > 32000, which is the maximum allowed number of output tokens for x",
                vec![Repair::OutputMax(32_000)],
            ),
            (
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                vec![Repair::LimitName("max_completion_tokens")],
            ),
            (
                "Unrecognized request argument supplied: max_completion_tokens",
                vec![Repair::LimitName("max_tokens")],
            ),
            ("Invalid value for 'content': expected a string, got null.", vec![Repair::NoNullContent]),
            ("messages.2.content must be a string", vec![Repair::NoNullContent, Repair::StringContent]),
            ("invalid type: sequence, expected a string", vec![Repair::NoNullContent, Repair::StringContent]),
            ("Invalid tool_choice type: 'object'. Supported string values: none, auto, required", choice()),
            ("deepseek-reasoner does not support this tool_choice", choice()),
            (
                r#""auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"#,
                vec![],
            ),
            ("stop sequences must be at most 4", field("stop")),
            ("Invalid 'stop': array too long. Expected an array with maximum length 4", field("stop")),
            (
                "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported.",
                field("temperature"),
            ),
            (
                "'parallel_tool_calls' is only allowed when 'tools' are specified",
                field("parallel_tool_calls"),
            ),
            ("top_k is not supported by this model", field("top_k")),
            (
                "chat_template_kwargs: property 'chat_template_kwargs' is unsupported",
                field("chat_template_kwargs"),
            ),
            (
                "'messages.4' : for 'role:assistant' the following must be satisfied[('messages.4' : property 'reasoning_content' is unsupported)]",
                field("reasoning_content"),
            ),
            (
                "[{'type': 'extra_forbidden', 'loc': ('body', 'min_p'), 'msg': 'Extra inputs are not permitted', 'input': 0}]",
                field("min_p"),
            ),
            (
                r#"[{"type":"extra_forbidden","loc":["body","messages",2,"assistant","reasoning"],"msg":"Extra inputs are not permitted"},{"type":"extra_forbidden","loc":["body","cache_salt"],"msg":"Extra inputs are not permitted"}]"#,
                vec![Repair::Without("reasoning".into()), Repair::Without("cache_salt".into())],
            ),
            (
                "1 validation error for ChatCompletionRequest\nreturn_progress\n  Extra inputs are not permitted",
                field("return_progress"),
            ),
            (
                "Extra inputs are not permitted, field: 'reasoning_content', value: 'x'",
                field("reasoning_content"),
            ),
            (r#"json: unknown field "return_progress""#, field("return_progress")),
            (
                "Unrecognized request arguments supplied: min_p, cache_salt",
                vec![Repair::Without("min_p".into()), Repair::Without("cache_salt".into())],
            ),
            ("Unrecognized key(s) in object: 'thinking_budget_tokens'", field("thinking_budget_tokens")),
            ("got an unexpected keyword argument 'return_progress'", field("return_progress")),
        ]
    }

    #[test]
    fn all_patterns_compile() {
        assert!(PATTERNS.iter().all(Option::is_some));
        assert_eq!(FIELD_PATTERNS.len(), FIELDS.len());
    }

    #[test]
    fn refusals_of_servers() {
        let mut wrong = Vec::new();
        for (text, expected) in refusals() {
            let found = repairs("BadRequestError", None, text);
            if found != expected {
                wrong.push(format!("{text}\n  found    {found:?}\n  expected {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn every_row_is_met_by_a_text() {
        for (at, row) in ROWS.iter().enumerate() {
            let first =
                |text: &str| PATTERNS.iter().position(|pattern| pattern.as_ref().unwrap().is_match(text));
            assert!(
                refusals().iter().any(|(text, _)| first(text) == Some(at)),
                "no text for {}",
                row.pattern
            );
        }
    }

    #[test]
    fn a_code_that_means_a_member_makes_the_param_count() {
        let text = "Invalid request";
        assert_eq!(repairs("unsupported_parameter", Some("messages.2.reasoning"), text), field("reasoning"));
        assert_eq!(repairs("wrong_api_format", Some("top_k"), text), field("top_k"));
        assert_eq!(repairs("BadRequestError", Some("input_tokens"), text), []);
        assert_eq!(repairs("unknown_parameter", Some("messages[0].content"), text), []);
        assert_eq!(repairs("unknown_parameter", Some(&"x".repeat(65)), text), []);
    }

    #[test]
    fn other_errors_are_not_repaired() {
        for text in [
            "",
            "boom",
            "The model `x` does not exist.",
            "Not Found",
            "EngineCore died",
            "model is required",
            "messages must not be empty",
            "Failed to parse tool call arguments as JSON",
            "the prompt was refused by a filter",
            "invalid character 'x' looking for beginning of value",
        ] {
            assert_eq!(repairs("BadRequestError", None, text), [], "{text}");
        }
    }
}
