//! The body of `POST /v1/messages`: read from a JSON tree and checked, without a copy.
//!
//! A wrong type or a missing field is a 400 that names the field as the client wrote it, in the API's own words.
//! Unknown fields, unknown block types and hints that cannot be followed never fail a request (docs/translation.md,
//! rule 10).

mod messages;
#[cfg(test)]
mod tests;
mod tools;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use crate::error::Error;
use crate::json::{Object, Value};

/// The most elements of `messages`. The API's own limit.
const MESSAGES_MAX: usize = 100_000;

/// The most content blocks of a request, those inside tool results included. The API states no limit for them. A message
/// of Claude Code has a handful.
const CONTENT_BLOCKS_MAX: usize = 200_000;

/// The most images of a request. The API's own limit for its largest context window.
const IMAGES_MAX: usize = 600;

/// The most blocks of `system`. The API states no limit. Claude Code sends up to four.
const SYSTEM_BLOCKS_MAX: usize = 10_000;

/// The most tools of a request, those that system messages add included. The API's own limit for a catalogue of tools.
const TOOLS_MAX: usize = 10_000;

/// The most elements of `stop_sequences`: the limit that Amazon documents for the same models.
const STOP_SEQUENCES_MAX: usize = 2500;

/// The most bytes of all stop sequences together. Each byte is a state of the automaton that looks for them, which a
/// stream keeps until its end.
const STOP_SEQUENCES_SIZE_MAX: usize = 64 * 1024;

/// A checked request.
#[derive(Clone, Debug)]
pub struct MessagesRequest<'r> {
    /// The model as the client names it.
    pub model: &'r str,
    /// The most tokens of the answer. 0 is allowed (the API's cache pre-warming).
    pub max_tokens: u64,
    /// The messages; at least one.
    pub messages: Vec<Message<'r>>,
    /// The texts of the system prompt's blocks.
    pub system: Vec<&'r str>,
    /// True if the client wants a stream of events.
    pub stream: bool,
    /// From 0 to 1; a larger value becomes 1.
    pub temperature: Option<f64>,
    /// The value as sent.
    pub top_p: Option<&'r Value<'r>>,
    /// The value as sent.
    pub top_k: Option<&'r Value<'r>>,
    /// The stop sequences, each once. None of them is blank.
    pub stop_sequences: Vec<&'r str>,
    /// `None`: the upstream's setting decides. A type that is not known here counts as absent.
    pub thinking: Option<Thinking>,
    /// True if `thinking.display` is `omitted`.
    pub thinking_omitted: bool,
    /// `output_config.effort`.
    pub effort: Option<Effort<'r>>,
    /// The JSON schema of `output_config.format` or of the older `output_format`.
    pub schema: Option<&'r Value<'r>>,
    /// Every tool, both those of the client and those of the server.
    pub tools: Vec<Tool<'r>>,
    /// `None`: auto.
    pub tool_choice: Option<ToolChoice<'r>>,
    /// `tool_choice.disable_parallel_tool_use`.
    pub one_tool_call: bool,
    /// The whole body, for additional members that are passed on.
    pub body: &'r Object<'r>,
}

/// `output_config.effort`, passed on as the client wrote it.
pub type Effort<'r> = &'r str;

/// `thinking`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// `disabled`.
    Disabled,
    /// `enabled`, with its budget in tokens.
    Enabled(u64),
    /// `adaptive` and `between_tools`.
    Adaptive,
}

impl Thinking {
    /// True if a request with this `thinking.type` asks the model to think. False for a type that is not known here:
    /// the API refuses such a type, so a client that gets no reasoning loses nothing that it could count on.
    pub fn is_asked_by(kind: &str) -> bool {
        matches!(kind, "enabled" | "adaptive" | "between_tools")
    }
}

/// `tool_choice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolChoice<'r> {
    /// The model decides.
    Auto,
    /// The model must not call a tool.
    None,
    /// The model must call some tool.
    Any,
    /// The model must call this tool.
    Tool(&'r str),
}

/// One of `tools`.
#[derive(Clone, Copy, Debug)]
pub struct Tool<'r> {
    /// `None`: an ordinary tool of the client; otherwise the type of one that the API defines, such as `bash_20250124`.
    pub kind: Option<&'r str>,
    /// Its name.
    pub name: &'r str,
    /// The description that the model reads.
    pub description: Option<&'r str>,
    /// The JSON schema of its input.
    pub schema: Option<&'r Value<'r>>,
    /// True if the input must follow the schema.
    pub strict: Option<bool>,
    /// `input_examples`
    pub examples: &'r [Value<'r>],
    /// True if the client declares it late: `defer_loading`.
    pub deferred: bool,
    /// The declaration as it came, for the members of one kind of tool only.
    pub body: &'r Value<'r>,
}

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The user; also carries the results of tools.
    User,
    /// The model.
    Assistant,
    /// A system message in the middle of the conversation.
    System,
}

/// One of `messages`.
#[derive(Clone, Debug)]
pub struct Message<'r> {
    /// Its author.
    pub role: Role,
    /// Its blocks in order. A string becomes one text block.
    pub content: Vec<Block<'r>>,
    /// True for a system message that no longer holds once a user message follows.
    pub until_next_user: bool,
    /// The effort that a system message asks for.
    pub effort: Option<Effort<'r>>,
}

/// A content block.
#[derive(Clone, Debug)]
pub enum Block<'r> {
    /// Text.
    Text(&'r str),
    /// An image, by its `source`.
    Image(&'r Value<'r>),
    /// A tool call of the model.
    ToolUse {
        /// Its id.
        id: Cow<'r, str>,
        /// The tool.
        name: &'r str,
        /// The input; `None` if absent or null.
        input: Option<&'r Value<'r>>,
    },
    /// The result of a tool.
    ToolResult(ToolResult<'r>),
    /// The model's reasoning.
    Thinking {
        /// Its text; empty if it was withheld.
        text: &'r str,
        /// The signature: sparkgap's own, another provider's, or empty.
        signature: &'r str,
    },
    /// A block of any other type, known or not; in a tool result also a block that belongs into a message only, such as
    /// a call.
    Other {
        /// Its type.
        kind: &'r str,
        /// The whole block.
        body: &'r Object<'r>,
    },
}

/// A `tool_result` block.
#[derive(Clone, Debug)]
pub struct ToolResult<'r> {
    /// The id of the call that it answers.
    pub id: Cow<'r, str>,
    /// Its content; empty if it has none.
    pub content: Vec<Block<'r>>,
    /// True if the tool failed.
    pub is_error: bool,
}

/// The position in the body, for messages such as `messages.0.content: …`.
#[derive(Clone, Copy)]
enum At<'p> {
    Top(&'p str),
    Key(&'p At<'p>, &'p str),
    Index(&'p At<'p>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Top(key) => f.write_str(key),
            At::Key(parent, key) => write!(f, "{parent}.{key}"),
            At::Index(parent, index) => write!(f, "{parent}.{index}"),
        }
    }
}

impl At<'_> {
    fn error(&self, what: &str) -> Error {
        Error::invalid(format!("{self}: {what}"))
    }
}

const REQUIRED: &str = "Field required";
const EMPTY: &str = "String should have at least 1 character";
const NOT_A_STRING: &str = "Input should be a valid string";
const NOT_A_LIST: &str = "Input should be a valid list";
const NOT_AN_OBJECT: &str = "Input should be an object";
const NOT_AN_INTEGER: &str = "Input should be a valid integer";
const NOT_A_BOOLEAN: &str = "Input should be a valid boolean";
const NOT_A_NUMBER: &str = "Input should be a valid number";

/// The longest name of a model, in characters; the API's own limit. A stream keeps the name, and so do the learned
/// facts.
pub const MODEL_LENGTH_MAX: usize = 256;

/// The smallest `thinking.budget_tokens` that the API accepts.
const BUDGET_MIN: u64 = 1024;

type Read<T> = Result<T, Error>;

/// A member that is present and not null.
fn member<'r>(object: &'r Object<'r>, key: &str) -> Option<&'r Value<'r>> {
    object.get(key).filter(|value| !value.is_null())
}

fn required<'r>(object: &'r Object<'r>, key: &str, at: &At<'_>) -> Read<&'r Value<'r>> {
    object.get(key).ok_or_else(|| at.error(REQUIRED))
}

fn string<'r>(value: &'r Value<'r>, at: &At<'_>) -> Read<&'r str> {
    value.as_str().ok_or_else(|| at.error(NOT_A_STRING))
}

/// An array of at most `length_max` elements.
fn list<'r>(value: &'r Value<'r>, at: &At<'_>, length_max: usize) -> Read<&'r [Value<'r>]> {
    let items = value.as_array().ok_or_else(|| at.error(NOT_A_LIST))?;
    check_length(items, at, length_max)?;
    Ok(items)
}

/// Refuses a list of more than `length_max` elements, in the API's words.
fn check_length(items: &[Value<'_>], at: &At<'_>, length_max: usize) -> Read<()> {
    let length = items.len();
    if length > length_max {
        let what = format!("List should have at most {length_max} items after validation, not {length}");
        return Err(at.error(&what));
    }
    Ok(())
}

fn object<'r>(value: &'r Value<'r>, at: &At<'_>) -> Read<&'r Object<'r>> {
    value.as_object().ok_or_else(|| at.error(NOT_AN_OBJECT))
}

fn boolean(object: &Object<'_>, key: &str, at: &At<'_>) -> Read<bool> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| at.error(NOT_A_BOOLEAN)),
    }
}

fn number<'r>(object: &'r Object<'r>, key: &str) -> Read<Option<&'r Value<'r>>> {
    match member(object, key) {
        Some(value) if value.as_f64().is_none() => Err(At::Top(key).error(NOT_A_NUMBER)),
        other => Ok(other),
    }
}

impl<'r> MessagesRequest<'r> {
    /// Reads and checks a body.
    ///
    /// # Errors
    /// A 400 that names the field.
    pub fn read(body: &'r Value<'r>) -> Read<Self> {
        let body =
            body.as_object().ok_or_else(|| Error::invalid("The request body must be a JSON object"))?;
        refuse_what_cannot_be_served(body)?;
        let model = string(required(body, "model", &At::Top("model"))?, &At::Top("model"))?;
        if model.is_empty() {
            return Err(At::Top("model").error(EMPTY));
        }
        if model.chars().nth(MODEL_LENGTH_MAX).is_some() {
            let what = format!("String should have at most {MODEL_LENGTH_MAX} characters");
            return Err(At::Top("model").error(&what));
        }
        let max_tokens = read_max_tokens(body)?;
        let messages = messages::read(body)?;
        let (thinking, thinking_omitted) = read_thinking(body, max_tokens)?;
        let (effort, schema) = read_output_config(body)?;
        let (tool_choice, one_tool_call) = read_tool_choice(body)?;
        Ok(MessagesRequest {
            model,
            max_tokens,
            messages,
            system: read_system(body)?,
            stream: boolean(body, "stream", &At::Top("stream"))?,
            temperature: number(body, "temperature")?.and_then(Value::as_f64).map(|t| t.clamp(0.0, 1.0)),
            top_p: number(body, "top_p")?,
            top_k: number(body, "top_k")?,
            stop_sequences: read_stop_sequences(body)?,
            thinking,
            thinking_omitted,
            effort,
            schema,
            tools: tools::read(body)?,
            tool_choice,
            one_tool_call,
            body,
        })
    }
}

/// Refuses requests for which a plain answer would be wrong, not only less good (docs/translation.md, A).
fn refuse_what_cannot_be_served(body: &Object<'_>) -> Read<()> {
    if member(body, "compaction").is_some() {
        return Err(At::Top("compaction").error("not supported"));
    }
    let thread = member(body, "thread").and_then(|thread| thread.get("type")).and_then(Value::as_str);
    if thread == Some("continue") {
        let error =
            At::Top("thread").error("not found: this server keeps no threads, send the whole conversation");
        return Err(error.code("thread_not_found"));
    }
    Ok(())
}

fn read_max_tokens(body: &Object<'_>) -> Read<u64> {
    let at = At::Top("max_tokens");
    let value = body.get("max_tokens").ok_or_else(|| at.error(REQUIRED))?;
    match (value.as_u64(), value.as_f64()) {
        (Some(n), _) => Ok(n),
        (None, Some(n)) if n < 0.0 => Err(at.error("Input should be greater than or equal to 0")),
        _ => Err(at.error(NOT_AN_INTEGER)),
    }
}

fn read_system<'r>(body: &'r Object<'r>) -> Read<Vec<&'r str>> {
    let at = At::Top("system");
    let Some(value) = member(body, "system") else { return Ok(Vec::new()) };
    if let Some(text) = value.as_str() {
        return Ok(vec![text]);
    }
    let blocks = value
        .as_array()
        .ok_or_else(|| at.error("Input should be a valid string or a list of text blocks"))?;
    check_length(blocks, &at, SYSTEM_BLOCKS_MAX)?;
    let read = |(i, block): (usize, &'r Value<'r>)| {
        let at = At::Index(&at, i);
        let block = object(block, &at)?;
        let at = At::Key(&at, "text");
        string(required(block, "text", &at)?, &at)
    };
    blocks.iter().enumerate().map(read).collect()
}

fn read_stop_sequences<'r>(body: &'r Object<'r>) -> Read<Vec<&'r str>> {
    let at = At::Top("stop_sequences");
    let Some(value) = member(body, "stop_sequences") else { return Ok(Vec::new()) };
    let mut sequences = Vec::new();
    let mut known = HashSet::new();
    let mut size = 0;
    for (i, item) in list(value, &at, STOP_SEQUENCES_MAX)?.iter().enumerate() {
        let text = string(item, &At::Index(&at, i))?;
        if text.trim().is_empty() {
            return Err(at.error("each stop sequence must contain non-whitespace"));
        }
        if known.insert(text) {
            size += text.len();
            sequences.push(text);
        }
    }
    if size > STOP_SEQUENCES_SIZE_MAX {
        let what = format!(
            "All stop sequences together should have at most {STOP_SEQUENCES_SIZE_MAX} bytes, not {size}"
        );
        return Err(at.error(&what));
    }
    Ok(sequences)
}

fn read_thinking(body: &Object<'_>, max_tokens: u64) -> Read<(Option<Thinking>, bool)> {
    let at = At::Top("thinking");
    let Some(value) = body.get("thinking").filter(|value| !value.is_null()) else { return Ok((None, false)) };
    let thinking = value.as_object().ok_or_else(|| at.error(NOT_AN_OBJECT))?;
    let at_type = At::Key(&at, "type");
    let kind = thinking.get("type").ok_or_else(|| at_type.error(REQUIRED))?;
    let kind = kind.as_str().ok_or_else(|| at_type.error(NOT_A_STRING))?;
    let omitted = thinking.get("display").and_then(Value::as_str) == Some("omitted");
    let thinking = match kind {
        "disabled" => Some(Thinking::Disabled),
        "enabled" => {
            Some(Thinking::Enabled(read_budget(thinking, &At::Key(&at, "budget_tokens"), max_tokens)?))
        }
        kind if Thinking::is_asked_by(kind) => Some(Thinking::Adaptive),
        _ => None,
    };
    Ok((thinking, omitted))
}

fn read_budget(thinking: &Object<'_>, at: &At<'_>, max_tokens: u64) -> Read<u64> {
    let value = thinking.get("budget_tokens").ok_or_else(|| at.error(REQUIRED))?;
    let budget = value.as_u64().ok_or_else(|| at.error(NOT_AN_INTEGER))?;
    if budget < BUDGET_MIN {
        return Err(at.error(&format!("Input should be greater than or equal to {BUDGET_MIN}")));
    }
    if budget >= max_tokens && max_tokens > 0 {
        return Err(at.error("`max_tokens` must be greater than `thinking.budget_tokens`"));
    }
    Ok(budget)
}

fn read_output_config<'r>(body: &'r Object<'r>) -> Read<(Option<Effort<'r>>, Option<&'r Value<'r>>)> {
    let at = At::Top("output_config");
    let mut effort = None;
    let mut format = member(body, "output_format").map(|value| (value, At::Top("output_format")));
    if let Some(config) = member(body, "output_config") {
        let config = object(config, &at)?;
        if let Some(value) = member(config, "effort") {
            effort = Some(string(value, &At::Key(&at, "effort"))?);
        }
        if let Some(value) = member(config, "format") {
            format = Some((value, At::Key(&at, "format")));
        }
    }
    let Some((format, at)) = format else { return Ok((effort, None)) };
    let format = object(format, &at)?;
    if format.get("type").and_then(Value::as_str) != Some("json_schema") {
        return Err(At::Key(&at, "type").error("Input should be 'json_schema'"));
    }
    let at = At::Key(&at, "schema");
    let schema = required(format, "schema", &at)?;
    object(schema, &at)?;
    Ok((effort, Some(schema)))
}

fn read_tool_choice<'r>(body: &'r Object<'r>) -> Read<(Option<ToolChoice<'r>>, bool)> {
    let at = At::Top("tool_choice");
    let Some(value) = member(body, "tool_choice") else { return Ok((None, false)) };
    let choice = object(value, &at)?;
    let at_type = At::Key(&at, "type");
    let one = boolean(choice, "disable_parallel_tool_use", &At::Key(&at, "disable_parallel_tool_use"))?;
    let kind = string(required(choice, "type", &at_type)?, &at_type)?;
    let choice = match kind {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "any" => ToolChoice::Any,
        "tool" => {
            let at = At::Key(&at, "name");
            ToolChoice::Tool(string(required(choice, "name", &at)?, &at)?)
        }
        _ => return Err(at_type.error("Input should be 'auto', 'any', 'tool' or 'none'")),
    };
    Ok((Some(choice), one))
}
