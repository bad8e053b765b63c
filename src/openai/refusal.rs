//! The texts in which servers refuse a request for something that can be changed, and the changes that may help.
//!
//! One row for each kind of refusal; docs/repairs.md shows the same table with the servers. A server's own name of a
//! field, number or value is read from the text. A change that does not change the refused request is skipped by the
//! caller, so a row may name more than one.

use std::sync::LazyLock;

use regex_lite::{Captures, Regex};

use super::overflow::{compile, compile_all, number};
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
const NEEDED: [&str; 17] = [
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
    "description",
    "parameters",
    "tool_calls",
    "tool_call_id",
    "arguments",
    "id",
    "body",
];

/// The keywords of schemas that refusals name as if they were members of the request; `$schema` is read as `schema`.
const SCHEMA_WORDS: [&str; 15] = [
    "additionalProperties",
    "schema",
    "pattern",
    "format",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minItems",
    "maxItems",
    "uniqueItems",
    "propertyNames",
    "const",
];

/// The first that matches decides, so the more specific ones come first.
const ROWS: &[RefusalRow] = &[
    // vLLM without a parser for calls.
    RefusalRow { pattern: r#""auto" tool choice requires"#, repairs: |_, _| vec![Repair::CallsAsText] },
    // A server without a template that has tools: it must be started differently.
    RefusalRow { pattern: r"requires --jinja|does not support tools", repairs: |_, _| Vec::new() },
    // thinking
    RefusalRow {
        pattern: r"does not support (?:thinking|reasoning)\b|think value .{0,40}is not supported|\b(?:thinking|reasoning) is not supported",
        repairs: |_, _| vec![Repair::NoThinking],
    },
    RefusalRow {
        pattern: r"reasoning_content\S? (?:in the thinking mode must be passed back|is missing)",
        repairs: |_, _| vec![Repair::ReasoningContent, Repair::NoThinking],
    },
    RefusalRow {
        pattern: r"thinking_token_budget is set but",
        repairs: |_, _| without("thinking_token_budget"),
    },
    RefusalRow { pattern: r"priority scheduling is not enabled", repairs: |_, _| without("priority") },
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
        pattern: r"is not a multimodal model|missing data required for image|no vision|text-only model|images? (?:inputs? )?(?:(?:is|are) )?not (?:supported|enabled)|(?:not|n't) support (?:the )?(?:images?|vision|multimodal|multi-modal)\b|support image input|unknown variant .image_url|image_url\S{0,2} is (?:not|only) supported|unknown part type: image_url|unsupported content part type: .{0,2}image|unsupported content\[\]\.type|only .text. content type|content\.type .{0,20}\['text'\]|mmproj",
        repairs: |_, _| vec![Repair::NoImages],
    },
    RefusalRow {
        pattern: r"(?:failed to|cannot|can't|could not|unable to) (?:load|decode|identify|process|open|read|parse) (?:the |input |an )?image|invalid image|image (?:data |file )?is (?:truncated|invalid|corrupt)|broken data stream when reading image|(?:unsupported|unknown|invalid) image (?:format|type|media)|image: unknown format|uploaded an unsupported image|represent a valid image|must be a base64.encoded image|must be larger than factor|aspect ratio must be smaller|image size .{0,60}exceeds limit|image exceeds .{0,20} maximum",
        repairs: |_, _| vec![Repair::PlainImages, Repair::NewestImage, Repair::PresentImages],
    },
    // tool schemas, and the format of the answer
    RefusalRow {
        pattern: r"invalid schema for response_format|'?response_format'?.{0,80}'?required'? is required",
        repairs: |_, _| vec![Repair::LooseFormat, Repair::PlainFormat, Repair::FormatAsText],
    },
    RefusalRow {
        pattern: r"response_format type is unavailable|response_format.{0,80}(?:not supported|unsupported|unavailable|not permitted|not allowed|must be)|json_schema.{0,40}not supported|json mode response is not supported",
        repairs: |_, _| vec![Repair::FormatAsText],
    },
    RefusalRow {
        pattern: r"schema conversion failed|failed to parse grammar|initialize samplers|grammar (?:error|specification|compil)|(?:compile|parse|convert|invalid|unsupported|not supported)[^.]{0,60}(?:grammar|schema)|unrecognized schema|error resolving ref|features? (?:not supported|unsupported) by xgrammar|xgrammar does not support|pattern must start with|regex uses unsupported feature|transform json schema into a grammar|invalid structural tag|json schema not supported|invalid fields for schema|cannot unmarshal .{0,40}tools\.function\.parameters",
        repairs: |_, text| schemas(named_tool(text)),
    },
    // ids and names
    RefusalRow { pattern: r"tool call id .{0,300}with a length of 9", repairs: |_, _| vec![Repair::CallIds] },
    RefusalRow {
        pattern: r"function name was .{0,300}must be a-z|invalid function name|toolspec\.name\b.{0,120}length less than|tools?\S{0,20}name\S{0,3}:? .{0,40}(?:too long|match(?:es)? (?:the )?pattern|maximum length)",
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
        pattern: r"(?:developer|system) instruction is not enabled|invalid message role: \S?(?:system|developer)",
        repairs: |_, _| vec![Repair::NoSystem],
    },
    RefusalRow {
        pattern: r"role.{0,10}does not support .developer|unexpected role .?developer",
        repairs: |_, _| vec![Repair::SystemRole("system")],
    },
    RefusalRow {
        pattern: r"must alternate|should alternate|should be alternating|alternate between user|unexpected role .{0,20} (?:after role|following)|user message (?:cannot follow|is not allowed directly after) a tool|expected assistant message after tool|system message must be (?:at the beginning|the first)|(?:first|last) message must|conversation must start|2 or more assistant messages|expected last role",
        repairs: |_, _| vec![Repair::Alternation, Repair::NoSystem],
    },
    // the limit of the answer
    RefusalRow { pattern: r"at most (?<n>\d+) (?:completion|output) tokens", repairs: output_max },
    RefusalRow { pattern: r"range of max_tokens (?:is|should be) ?\[\d+, ?(?<n>\d+)\]", repairs: output_max },
    RefusalRow { pattern: r"max_tokens.{0,40}\[\d+, ?(?<n>\d+)\]", repairs: output_max },
    RefusalRow { pattern: r"max_tokens: \d+ > (?<n>\d+), which is the maximum", repairs: output_max },
    RefusalRow {
        pattern: r"max_?output_?tokens.{0,80}range is from \d+ \(inclusive\) to (?:(?<n>\d+) \(inclusive|(?<E>\d+) \(exclusive)",
        repairs: output_max,
    },
    RefusalRow {
        pattern: r"maximum tokens you requested exceeds the model limit of (?<n>\d+)",
        repairs: output_max,
    },
    RefusalRow {
        pattern: r"(?s)max_?(?:completion_?|output_?)?tokens\b.{0,120}?(?:less than or equal to|<=|at most|no more than) ['`\x22]?(?<n>\d+)",
        repairs: output_max,
    },
    RefusalRow {
        pattern: r"max_tokens\S{0,2} is not supported|use .max_completion_tokens. instead",
        repairs: |_, _| vec![Repair::LimitName("max_completion_tokens")],
    },
    // the effort: after the members that are refused as such
    RefusalRow {
        pattern: r"reasoning.?effort\S? (?:is not supported|is unsupported|is not a)",
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
    RefusalRow { pattern: r"temperature\S? and \S?top_p\S? cannot both", repairs: |_, _| without("top_p") },
    RefusalRow { pattern: r"tool.?choice", repairs: |_, _| vec![Repair::NoNamedChoice, Repair::NoChoice] },
    RefusalRow {
        pattern: r"\bstop\b.{0,60}(?:at most|maximum|up to|too many|too long|array)",
        repairs: |_, _| without("stop"),
    },
    RefusalRow {
        pattern: r"['`\x22]?(?<F>temperature|top_p|top_k|min_p|seed|logit_bias|frequency_penalty|presence_penalty|repetition_penalty|priority|parallel_tool_calls|stream_options|logprobs|user)\b['`\x22]?.{0,60}(?:does not support|only the default|only [\d.]+ is allowed|not supported|unsupported|must be|should be|is only allowed|is not allowed|not permitted|unavailable|deprecated)",
        repairs: |found, _| found.name("F").map_or_else(Vec::new, |name| without(name.as_str())),
    },
];

/// The texts that surely name a member which the server does not know: they decide before all rows. `F` is a list of
/// members or of paths to them, `L` the words of a path, `A` a path to the member `F`.
const FIELDS: &[&str] = &[
    r"unrecognized request arguments? supplied: (?<F>[\w., ]+)",
    r"(?:unknown|unsupported|unrecognized) (?:parameter|field|argument|key|property|member|keyword argument)s?(?:\(s\))?(?: in object)?:? (?<F>['`\x22]?[\w.\[\]]+['`\x22]?(?:, ?(?:['`\x22][\w.\[\]]+['`\x22]|\w+_\w+)){0,15})",
    r"(?:argument|parameter) not supported on this model: (?<F>[\w.\[\]]+)",
    r"(?:not|n't) support parameters?:? [\[{]?(?<F>['`\x22]?[\w.\[\]]+['`\x22]?(?:, ?(?:['`\x22][\w.\[\]]+['`\x22]|\w+_\w+)){0,15})",
    r"property ['`\x22](?<F>[\w.$\[\]]+)['`\x22] is unsupported",
    r"loc['\x22]: ?[\[(](?<L>[^\])]*)[\])], ?['\x22]msg['\x22]: ?['\x22](?:extra inputs are|extra fields) not permitted",
    r"extra inputs are not permitted, field: ['`\x22]?(?<F>[\w.$\[\]]+)",
    r"(?<F>[\w.$\[\]]+)['`\x22]?[\s:]+(?:extra inputs are|extra fields) not permitted",
    r"additional properties are not allowed \((?<F>[^)]{1,300}) (?:was|were) unexpected",
    r"unknown name ['\x22](?<F>[^'\x22]{1,64})['\x22](?: at ['\x22](?<A>[^'\x22]{1,300})['\x22])?: cannot find field",
    r"extraneous key \[(?<F>[\w.$]+)\] is not permitted",
];

/// The texts that seem to do so, after all rows.
const LOOSE_FIELDS: &[&str] = &[
    r"(?:unexpected|invalid) (?:parameter|field|argument|key|property|member|keyword argument)s?:? ['`\x22]?(?<F>[\w.\[\]]+)",
    r"['`\x22](?<F>[\w.\[\]]+)['`\x22] (?:is not|is) (?:supported|unsupported|allowed|permitted|unknown|unrecognized)",
    r"(?<F>\w+_\w+) (?:parameter )?(?:is not|is|are not) (?:supported|unsupported|allowed|permitted)",
];

/// Compiled at the first refusal, so that the start is not slowed down.
static PATTERNS: LazyLock<Vec<Option<Regex>>> =
    LazyLock::new(|| ROWS.iter().map(|row| compile(row.pattern)).collect());
static FIELD_PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| compile_all(FIELDS));
static LOOSE_FIELD_PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| compile_all(LOOSE_FIELDS));

/// The changes that may help against a refusal, the mildest first; none if its text is unknown. `code` and `param` are
/// the members of the error with these names; `text` repeats nothing of the request (`echo`).
pub(super) fn repairs(code: &str, param: Option<&str>, text: &str) -> Vec<Repair> {
    let found = without_fields(&FIELD_PATTERNS, text, None);
    if !found.is_empty() {
        return found;
    }
    let param = param.filter(|param| !param.contains(' '));
    // A text may leave it to `param` to say which member is meant.
    let named = param.filter(|param| !text.contains(*param)).map(|param| format!("{param}: {text}"));
    let text = named.as_deref().unwrap_or(text);
    for (row, pattern) in ROWS.iter().zip(PATTERNS.iter()) {
        if let Some(found) = pattern.as_ref().and_then(|pattern| pattern.captures(text)) {
            return (row.repairs)(&found, text);
        }
    }
    let is_of_param =
        ["unsupported", "unknown", "wrong_api_format", "extra"].iter().any(|word| code.contains(word));
    without_fields(&LOOSE_FIELD_PATTERNS, text, param.filter(|_| is_of_param))
}

/// The changes for the members that the patterns find in the text, and for `param`.
fn without_fields(patterns: &[Regex], text: &str, param: Option<&str>) -> Vec<Repair> {
    let of_param = param.into_iter().flat_map(|param| without_path("", param));
    let of_text = patterns.iter().flat_map(|pattern| pattern.captures_iter(text)).flat_map(|found| {
        let group = |name| found.name(name).map_or("", |group| group.as_str());
        let list = group("F").split([',', ' ']).take(FIELDS_MAX);
        let of_list = list.flat_map(|path| without_path(group("A"), path)).collect::<Vec<_>>();
        [of_list, without_path("", group("L"))].concat()
    });
    let mut repairs: Vec<Repair> = Vec::new();
    for repair in of_param.chain(of_text) {
        if !repairs.contains(&repair) && repairs.len() < FIELDS_MAX {
            repairs.push(repair);
        }
    }
    repairs
}

/// The changes for a request whose member at this path is refused: the last of its words that is not a number.
fn without_path(before: &str, path: &str) -> Vec<Repair> {
    let mut words = path.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let Some(name) = words.rfind(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
    else {
        return Vec::new();
    };
    let is_in_schema =
        before.ends_with(".parameters") || before.contains(".parameters.") || path.contains(".parameters.");
    if is_in_schema || SCHEMA_WORDS.contains(&name) {
        return schemas(None);
    }
    without(&snake_case(name))
}

/// `presence_penalty` for `presencePenalty`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_uppercase() && snake.ends_with(|before: char| before.is_ascii_lowercase()) {
            snake.push('_');
        }
        snake.push(c);
    }
    // A name that is not written so keeps its letters.
    if snake.len() > name.len() { snake.to_ascii_lowercase() } else { snake }
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

/// The changes for a request with a schema that the server cannot compile.
fn schemas(tool: Option<String>) -> Vec<Repair> {
    // A format first: a request rarely has one, and the schemas of tools must not change for its sake.
    let mut repairs = vec![Repair::PlainFormat, Repair::Without("strict".into()), Repair::PlainSchemas];
    repairs.extend(tool.map(Repair::OpenSchema));
    repairs.extend([Repair::FormatAsText, Repair::OpenSchemas]);
    repairs
}

fn output_max(found: &Captures<'_>, _: &str) -> Vec<Repair> {
    let below = number(found, "E").map(|end| end.saturating_sub(1));
    number(found, "n").or(below).filter(|max| *max > 0).map(Repair::OutputMax).into_iter().collect()
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

    fn fields(names: &[&str]) -> Vec<Repair> {
        names.iter().map(|name| Repair::Without((*name).into())).collect()
    }

    fn schema(more: Option<&str>) -> Vec<Repair> {
        schemas(more.map(str::to_string))
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
            ("Got priority 1 but Priority scheduling is not enabled.", field("priority")),
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
                vec![Repair::LooseFormat, Repair::PlainFormat, Repair::FormatAsText],
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
                "'max_tokens' is not supported with this model",
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
                vec![Repair::CallsAsText],
            ),
            ("registry.ollama.ai/library/gemma3 does not support tools", vec![]),
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
            ("Unknown parameter: 'messages[2].reasoning'.", field("reasoning")),
            ("Unknown parameter: 'tools[0].function.strict'.", field("strict")),
            (
                "Extra inputs are not permitted, field: 'messages[2].reasoning', value: …; Extra inputs are not permitted, field: 'tools[0].function.strict', value: …",
                fields(&["reasoning", "strict"]),
            ),
            (
                "Validation: Unsupported parameter(s): chat_template_kwargs, stream_options",
                fields(&["chat_template_kwargs", "stream_options"]),
            ),
            (
                "Unsupported parameter(s): `chat_template_kwargs`, `stream_options`",
                fields(&["chat_template_kwargs", "stream_options"]),
            ),
            (
                "body -> chat_template_kwargs\n  Extra inputs are not permitted (type=extra_forbidden)",
                field("chat_template_kwargs"),
            ),
            ("Model grok-4 does not support parameter reasoningEffort.", field("reasoning_effort")),
            ("Model does not support parameter presencePenalty", field("presence_penalty")),
            ("Argument not supported on this model: reasoning_effort", field("reasoning_effort")),
            (
                "openai does not support parameters: ['reasoning_effort', 'top_k'], for model=foo. To drop these, set `litellm.drop_params=True`",
                fields(&["reasoning_effort", "top_k"]),
            ),
            (
                "databricks does not support parameters: {'chat_template_kwargs': {'enable_thinking': True}}, for model=foo.",
                field("chat_template_kwargs"),
            ),
            (
                "unknown field `stream_options`, expected one of … at line 1 column 120",
                field("stream_options"),
            ),
            (
                "Unrecognized field \"chat_template_kwargs\" (class com.acme.ChatRequest), not marked as ignorable (6 known properties: …])",
                field("chat_template_kwargs"),
            ),
            (
                "[{\"loc\":[\"body\",\"chat_template_kwargs\"],\"msg\":\"extra fields not permitted\",\"type\":\"value_error.extra\"}]",
                field("chat_template_kwargs"),
            ),
            (
                "1 validation error for ChatCompletionRequest\nchat_template_kwargs\n  extra fields not permitted (type=value_error.extra)",
                field("chat_template_kwargs"),
            ),
            (
                "Additional properties are not allowed ('chat_template_kwargs', 'stream_options' were unexpected)",
                fields(&["chat_template_kwargs", "stream_options"]),
            ),
            (
                "Additional properties are not allowed ('reasoning' was unexpected) - 'messages.2'",
                field("reasoning"),
            ),
            (
                "Malformed input request: #: extraneous key [stream_options] is not permitted",
                field("stream_options"),
            ),
            (
                "Unknown name \"chat_template_kwargs\": Cannot find field.\nInvalid JSON payload received. Unknown name \"reasoning_effort\": Cannot find field.",
                fields(&["chat_template_kwargs", "reasoning_effort"]),
            ),
            (
                "Invalid JSON payload received. Unknown name \"title\" at 'tools[0].function_declarations[0].parameters': Cannot find field.",
                schema(None),
            ),
            ("tools.0.function.parameters.$schema: Extra inputs are not permitted", schema(None)),
            ("property 'additionalProperties' is unsupported", schema(None)),
            ("tools.0.function.parameters.properties.command: property 'description' is unsupported", vec![]),
            ("got an unexpected keyword argument 'description'", vec![]),
            (
                "('body', 'chat_template_kwargs', 'x'): enable_thinking is not supported by this model",
                field("enable_thinking"),
            ),
            (
                "Invalid 'max_tokens': integer above maximum value. Expected a value <= 4096, but got 32000 instead.",
                vec![Repair::OutputMax(4096)],
            ),
            (
                "The parameter `max_tokens` specified in the request are not valid: integer above maximum value, expected a value <= 12288, but got 32000 instead.",
                vec![Repair::OutputMax(12_288)],
            ),
            (
                "The maximum tokens you requested exceeds the model limit of 8192. Try again with a maximum tokens value that is lower than 8192.",
                vec![Repair::OutputMax(8192)],
            ),
            ("max_tokens (32000) must be less than or equal to 8192", vec![Repair::OutputMax(8192)]),
            (
                "body -> max_tokens\n  Input should be less than or equal to 4096 (type=less_than_equal; le=4096)",
                vec![Repair::OutputMax(4096)],
            ),
            (
                "[{\"loc\":[\"body\",\"max_tokens\"],\"msg\":\"ensure this value is less than or equal to 4096\"}]",
                vec![Repair::OutputMax(4096)],
            ),
            (
                "Unable to submit request because it has a maxOutputTokens value of 32000 but the supported range is from 1 (inclusive) to 8193 (exclusive).",
                vec![Repair::OutputMax(8192)],
            ),
            ("height:1 or width:200 must be larger than factor:28", broken()),
            ("absolute aspect ratio must be smaller than 200, got 300.0", broken()),
            (
                "Image size (200000000 pixels) exceeds limit of 178956970 pixels, could be decompression bomb DOS attack.",
                broken(),
            ),
            (
                "messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: 6000000 bytes > 5242880 bytes",
                broken(),
            ),
            ("Failed to process inputs: image: unknown format", broken()),
            (
                "You uploaded an unsupported image. Please make sure your image has of one the following formats: ['png', 'jpeg', 'gif', 'webp'].",
                broken(),
            ),
            ("The image data you provided does not represent a valid image.", broken()),
            ("'url' field must be a base64 encoded image.", broken()),
            (
                "Failed to parse messages: Unsupported content part type: \"image_url\"; messages = …",
                vec![Repair::NoImages],
            ),
            ("unsupported content[].type", vec![Repair::NoImages]),
            ("Image input is not enabled for this model", vec![Repair::NoImages]),
            ("Image input not supported for this model", vec![Repair::NoImages]),
            ("messages.content.type 参数非法，取值范围 ['text']", vec![Repair::NoImages]),
            (
                "Regex uses unsupported feature for structured outputs: lookahead. Only basic matching constructs are supported",
                schema(None),
            ),
            ("Failed to transform json schema into a grammar: unsupported", schema(None)),
            ("Invalid structural tag specification.", schema(None)),
            (
                "JSON Schema not supported: could not understand the instance `{'minLength': 1}`.",
                schema(None),
            ),
            ("Invalid fields for schema with types ['string']: {'minLength', 'pattern'}", schema(None)),
            ("Json mode response is not supported when enable_thinking is true", vec![Repair::FormatAsText]),
            (
                "After the (optional) system message(s), user and assistant roles should be alternating.",
                order(),
            ),
            ("user or tool message(s) should alternate with assistant message(s).", order()),
            ("Please ensure that multiturn requests alternate between user and model.", order()),
            ("Unexpected role \"user\" following \"tool\" message", order()),
            ("Invalid message order: user message cannot follow a tool message", order()),
            ("A user message is not allowed directly after a tool message", order()),
            ("Expected assistant message after tool messages, got user", order()),
            ("Developer instruction is not enabled for models/gemma-3-27b-it", vec![Repair::NoSystem]),
            ("invalid params, invalid message role: system (2013)", vec![Repair::NoSystem]),
            ("Invalid function name. Must start with a letter or an underscore.", vec![Repair::ToolNames]),
            (
                "Value 'mcp__x' at 'toolConfig.tools.1.member.toolSpec.name' failed to satisfy constraint: Member must have length less than or equal to 64",
                vec![Repair::ToolNames],
            ),
            (
                "The `reasoning_content` in the thinking mode must be passed back to the API.",
                vec![Repair::ReasoningContent, Repair::NoThinking],
            ),
            (
                "thinking is enabled but reasoning_content is missing in assistant tool call message at index 2",
                vec![Repair::ReasoningContent, Repair::NoThinking],
            ),
            ("invalid temperature: only 1 is allowed for this model", field("temperature")),
            ("invalid top_p: only 0.95 is allowed for this model", field("top_p")),
            (
                "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
                field("top_p"),
            ),
        ]
    }

    #[test]
    fn all_patterns_compile() {
        assert!(PATTERNS.iter().all(Option::is_some));
        assert_eq!(FIELD_PATTERNS.len(), FIELDS.len());
        assert_eq!(LOOSE_FIELD_PATTERNS.len(), LOOSE_FIELDS.len());
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
            let first = |text: &str| {
                without_fields(&FIELD_PATTERNS, text, None).is_empty().then_some(())?;
                PATTERNS.iter().position(|pattern| pattern.as_ref().unwrap().is_match(text))
            };
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
    fn a_param_says_which_member_is_meant() {
        let text = "Invalid value: 'xhigh'. Supported values are: 'low', 'medium', and 'high'.";
        assert_eq!(
            repairs("invalid_value", Some("reasoning_effort"), text),
            efforts(&["low", "medium", "high"])
        );
        assert_eq!(repairs("invalid_value", Some("model"), text), []);
    }

    #[test]
    fn other_errors_are_not_repaired() {
        for text in [
            "",
            "boom",
            "The model `x` does not exist.",
            "Not Found",
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
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
