//! One chunk of a streamed chat completion, read from the parser's tape without an allocation.
//!
//! A whole (not streamed) completion is read as one chunk too: its `message` has the shape of a `delta`. Servers differ in
//! names and shapes; every form that is known is read here, so that the other modules see one.

use simd_json::prelude::{ValueAsScalar as _, ValueIntoString as _};

use crate::json::{Number, Tape};

/// A chunk, or a whole completion.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chunk<'t, 'a> {
    /// The whole chunk, if it is an error: `{"error": …}`, alone or in a list, a flat `{"object":"error", …}` (SGLang, old
    /// vLLM), or a `message` with a `code`.
    pub error: Option<Tape<'t, 'a>>,
    /// The token counts, if the server sent any.
    pub counts: Option<Counts>,
    /// The choice of index 0. Other choices are never asked for, and ignored.
    pub choice: Option<Choice<'t, 'a>>,
    /// True if it would be a whole answer in a body that is one JSON object, even without choices: its `object` says so,
    /// or its choices are empty.
    pub is_completion: bool,
}

/// The largest count that is accepted: JavaScript, in which clients are written, has no exact whole numbers beyond it.
const COUNT_MAX: u64 = (1 << 53) - 1;

/// The names of the tokens read from the cache, inside `prompt_tokens_details` or beside it: OpenAI and vLLM, DeepSeek,
/// LiteLLM (which takes Anthropic's).
const CACHED_KEYS: [&str; 5] = [
    "cached_tokens",
    "prompt_cache_hit_tokens",
    "cache_read_input_tokens",
    "cache_read_tokens",
    "num_cached_tokens",
];

/// The names of the tokens written to the cache: vLLM, OpenRouter, LiteLLM, Envoy.
const CREATED_KEYS: [&str; 4] =
    ["created_cache_tokens", "cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens"];

/// The token counts of an upstream. `prompt` is the whole prompt on all servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `prompt_tokens`
    pub prompt: u64,
    /// `completion_tokens`
    pub completion: u64,
    /// The tokens read from the cache: `prompt_tokens_details.cached_tokens`, or one of [`CACHED_KEYS`].
    pub cached: u64,
    /// True if the server said how many tokens were cached.
    pub is_cache_told: bool,
    /// The tokens written to the cache: one of [`CREATED_KEYS`].
    pub cache_created: u64,
    /// `completion_tokens_details.reasoning_tokens`
    pub reasoning: Option<u64>,
}

/// A choice: its delta, and how it ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'t, 'a> {
    /// The new pieces of the answer.
    pub delta: ChunkDelta<'t, 'a>,
    /// `finish_reason`, where one is told: some servers send an empty text or the text `null` with every chunk.
    pub finish_reason: Option<&'a str>,
    /// The stop string that was met: `stop_reason` (vLLM; a number there is a token id and is ignored) or
    /// `matched_stop` (SGLang).
    pub stop: Option<&'a str>,
    /// True if it has a `message` and no `delta`: in a body of JSON it is the whole answer, in a stream perhaps a piece.
    pub is_whole: bool,
    /// The `message`, without a `delta` or beside one that says nothing. It is read only where it is used.
    message: Option<Tape<'t, 'a>>,
    /// The choice, if it has an `error` (OpenRouter).
    error: Option<Tape<'t, 'a>>,
}

/// New pieces of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkDelta<'t, 'a> {
    /// `reasoning` (recent vLLM), `reasoning_content` (llama.cpp, SGLang, old vLLM) or `thinking` (Ollama).
    reasoning: Option<&'a str>,
    /// Reasoning in another shape than a text: an object (Envoy), `thinking_blocks` (LiteLLM) or `reasoning_details`
    /// (OpenRouter), which repeat a text that stands beside them.
    reasoning_parts: Option<Tape<'t, 'a>>,
    /// `content`: text, or an array of parts.
    content: Option<Tape<'t, 'a>>,
    /// `refusal`
    pub refusal: Option<&'a str>,
    tool_calls: Option<Tape<'t, 'a>>,
    function_call: Option<Tape<'t, 'a>>,
}

/// A piece of a tool call.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToolCallDelta<'t, 'a> {
    /// The index of the call within the answer, if the server sends it.
    pub index: Option<u64>,
    /// Usually on the first piece only. Never empty.
    pub id: Option<&'a str>,
    /// Usually on the first piece only. Never empty.
    pub name: Option<&'a str>,
    arguments: Option<Tape<'t, 'a>>,
}

impl<'t, 'a> Chunk<'t, 'a> {
    /// Reads a chunk. A member of an unexpected type counts as absent, because servers differ in them.
    pub fn read(tape: Tape<'t, 'a>) -> Self {
        let mut chunk = Chunk::default();
        let Some(object) = tape.as_object() else {
            // Gemini puts an error into a list.
            let first = tape.as_array().and_then(|list| list.iter().next());
            chunk.error = first.and_then(Chunk::read_error);
            return chunk;
        };
        let (mut detail, mut is_answer, mut blank_error) = (false, false, false);
        let (mut message, mut code) = (false, false);
        for (key, value) in object.iter() {
            match key {
                "object" => match value.into_string() {
                    Some("chat.completion") => chunk.is_completion = true,
                    Some("error") => chunk.error = Some(tape),
                    _ => {}
                },
                "choices" => {
                    is_answer = true;
                    chunk.is_completion |= is_empty(value);
                    chunk.choice = first_choice(value);
                    let failed = chunk.choice.as_ref().and_then(|choice| choice.error);
                    chunk.error = chunk.error.or(failed);
                }
                // FastAPI's form of an error.
                "detail" => detail = value.as_null().is_none(),
                "usage" => chunk.counts = Counts::read(value).or(chunk.counts),
                "prompt_progress" => chunk.counts = chunk.counts.or(Counts::read_progress(value)),
                // Some servers put a blank one beside each good answer.
                "error" if is_blank(value) => blank_error = value.as_null().is_none(),
                "error" => chunk.error = Some(tape),
                // An error without a member `error` (relays, some of which say `msg`).
                "message" | "msg" => message = value.into_string().is_some_and(|text| !text.is_empty()),
                "code" => code = is_error_code(value),
                _ => {}
            }
        }
        if (detail || blank_error || (message && code)) && !is_answer {
            chunk.error = Some(tape);
        }
        chunk
    }

    /// The error in an object that is one.
    fn read_error(tape: Tape<'t, 'a>) -> Option<Tape<'t, 'a>> {
        tape.as_object()?;
        Chunk::read(tape).error
    }

    /// True if the server says that it failed, and perhaps not why.
    pub fn is_failed(&self) -> bool {
        let reason = self.choice.as_ref().and_then(|choice| choice.finish_reason);
        reason.is_some_and(|reason| reason.eq_ignore_ascii_case("error"))
    }
}

/// True for a value that says nothing: null, false, an empty text or an empty object.
fn is_blank(value: Tape<'_, '_>) -> bool {
    value.as_null().is_some()
        || value.as_bool() == Some(false)
        || value.into_string() == Some("")
        || value.as_object().is_some_and(|object| object.is_empty())
}

/// True for a status of an error, as a number or a text, or for the name of an error.
fn is_error_code(code: Tape<'_, '_>) -> bool {
    let is_error = |code: u64| code >= 400;
    code.as_u64().is_some_and(is_error)
        || code.into_string().is_some_and(|code| code.parse().map_or(!code.is_empty(), is_error))
}

/// True for a list of choices without any.
fn is_empty(choices: Tape<'_, '_>) -> bool {
    choices.as_null().is_some() || choices.as_array().is_some_and(|choices| choices.is_empty())
}

impl Counts {
    /// Reads a `usage`, of a chat completion or of a response. `None`: it is not an object.
    pub(super) fn read(usage: Tape<'_, '_>) -> Option<Counts> {
        let mut counts = Counts::default();
        for (key, value) in usage.as_object()?.iter() {
            match key {
                "prompt_tokens" => counts.prompt = count(value).unwrap_or(0),
                "completion_tokens" => counts.completion = count(value).unwrap_or(0),
                // The names of OpenAI's other API, which some servers use in this one.
                "input_tokens" => counts.prompt = counts.prompt.max(count(value).unwrap_or(0)),
                "output_tokens" => counts.completion = counts.completion.max(count(value).unwrap_or(0)),
                "prompt_tokens_details" | "input_tokens_details" => {
                    for (key, value) in value.as_object().iter().flat_map(|details| details.iter()) {
                        counts.read_cache(key, value);
                    }
                }
                "completion_tokens_details" | "output_tokens_details" => {
                    counts.reasoning = number(value, "reasoning_tokens").or(counts.reasoning);
                }
                key => counts.read_cache(key, value),
            }
        }
        Some(counts)
    }

    fn read_cache(&mut self, key: &str, value: Tape<'_, '_>) {
        if CACHED_KEYS.contains(&key) {
            let told = count(value);
            self.cached = self.cached.max(told.unwrap_or(0));
            self.is_cache_told |= told.is_some();
        } else if CREATED_KEYS.contains(&key) {
            self.cache_created = self.cache_created.max(count(value).unwrap_or(0));
        }
    }

    /// Reads llama.cpp's `return_progress`: exact counts before the first token.
    fn read_progress(progress: Tape<'_, '_>) -> Option<Counts> {
        let prompt = number(progress, "total")?;
        let cached = number(progress, "cache");
        let is_cache_told = cached.is_some();
        Some(Counts { prompt, cached: cached.unwrap_or(0), is_cache_told, ..Counts::default() })
    }

    /// Combines both counts, with the larger of each: servers repeat their counts, and the last need not be the
    /// fullest.
    #[must_use]
    pub fn merge(self, other: Counts) -> Counts {
        Counts {
            prompt: self.prompt.max(other.prompt),
            completion: self.completion.max(other.completion),
            cached: self.cached.max(other.cached),
            is_cache_told: self.is_cache_told || other.is_cache_told,
            cache_created: self.cache_created.max(other.cache_created),
            reasoning: self.reasoning.max(other.reasoning),
        }
    }
}

fn number(object: Tape<'_, '_>, key: &str) -> Option<u64> {
    count(object.get(key)?)
}

/// A number of tokens, which some servers write as a float (`640.0`); `None` above [`COUNT_MAX`], where JSON readers do
/// not agree on a number.
fn count(value: Tape<'_, '_>) -> Option<u64> {
    let whole = value.as_u64().or_else(|| Number::Float(value.as_f64()?).as_u64());
    let whole = whole.or_else(|| value.into_string()?.trim().parse().ok());
    whole.filter(|count| *count <= COUNT_MAX)
}

fn first_choice<'t, 'a>(choices: Tape<'t, 'a>) -> Option<Choice<'t, 'a>> {
    choices.as_array()?.iter().find_map(|choice| {
        let object = choice.as_object()?;
        let mut read = Choice::default();
        let (mut delta, mut message) = (None, None);
        for (key, value) in object.iter() {
            match key {
                "index" if value.as_u64().is_some_and(|index| index != 0) => return None,
                "delta" => delta = ChunkDelta::read(value),
                "message" => message = Some(value).filter(|value| value.is_object()),
                "error" if !is_blank(value) => read.error = Some(choice),
                "finish_reason" => read.finish_reason = value.into_string().filter(|reason| is_told(reason)),
                "stop_reason" | "matched_stop" => read.stop = read.stop.or(value.into_string()),
                _ => {}
            }
        }
        read.is_whole = delta.is_none() && message.is_some();
        read.delta = delta.unwrap_or_default();
        // Servers that send both repeat the text of all pieces so far in `message`.
        read.message = message.filter(|_| read.delta.is_empty());
        Some(read)
    })
}

impl<'t, 'a> Choice<'t, 'a> {
    /// The `message`, without a `delta` or beside one that says nothing: some servers send all the text so far in it.
    pub fn message(&self) -> Option<ChunkDelta<'t, 'a>> {
        self.message.and_then(ChunkDelta::read)
    }
}

/// Whether a finish reason says anything. `null` and `None` are what some servers make of a missing one.
fn is_told(reason: &str) -> bool {
    !matches!(reason.trim(), "" | "null" | "None")
}

impl<'t, 'a> ChunkDelta<'t, 'a> {
    /// `None`: it is not an object.
    fn read(tape: Tape<'t, 'a>) -> Option<Self> {
        let mut delta = ChunkDelta::default();
        for (key, value) in tape.as_object()?.iter() {
            match key {
                "reasoning" | "reasoning_content" | "thinking" => {
                    let text = value.into_string().filter(|text| !text.is_empty());
                    // Some servers send one text under two of these names.
                    delta.reasoning = delta.reasoning.or(text);
                    if value.is_object() || value.is_array() {
                        delta.reasoning_parts = delta.reasoning_parts.or(Some(value));
                    }
                }
                "thinking_blocks" | "reasoning_details" if value.is_array() => {
                    delta.reasoning_parts = delta.reasoning_parts.or(Some(value));
                }
                "content" => delta.content = Some(value),
                "refusal" => delta.refusal = value.into_string().filter(|text| !text.is_empty()),
                "tool_calls" => delta.tool_calls = Some(value),
                "function_call" => delta.function_call = Some(value),
                _ => {}
            }
        }
        Some(delta)
    }

    /// True if it brings nothing of an answer.
    fn is_empty(&self) -> bool {
        self.reasonings().next().is_none()
            && self.texts().next().is_none()
            && self.refusal.is_none()
            && self.tool_calls().next().is_none()
    }

    /// True if it may have reasoning: a quick look, since nearly all deltas have text alone.
    pub fn may_reason(&self) -> bool {
        let has_parts = self.content.is_some_and(|content| content.is_array());
        self.reasoning.is_some() || self.reasoning_parts.is_some() || has_parts
    }

    /// True if it may have a piece of a tool call: a quick look, as above.
    pub fn may_call(&self) -> bool {
        self.tool_calls.is_some() || self.function_call.is_some()
    }

    /// True if it brings text, reasoning or a piece of a call.
    pub fn has_words(&self) -> bool {
        // Nearly all deltas have one text.
        self.content.and_then(Tape::into_string).is_some_and(|text| !text.is_empty())
            || self.may_reason()
            || self.may_call()
            || self.texts().next().is_some()
    }

    /// The pieces of reasoning, before the text: one text, or those of its parts and of the content's (Mistral).
    pub fn reasonings(&self) -> impl Iterator<Item = &'a str> + use<'t, 'a> {
        let parts = self.reasoning_parts.filter(|_| self.reasoning.is_none());
        let single = parts.filter(|parts| parts.is_object());
        let several = parts.and_then(|parts| parts.as_array());
        let parts = single.into_iter().chain(several.into_iter().flat_map(|parts| parts.iter()));
        let content = self.content.and_then(|content| content.as_array());
        let thoughts = content.into_iter().flat_map(|parts| parts.iter());
        let thoughts = thoughts.filter_map(|part| part.get("thinking")).flat_map(|thinking| {
            let pieces = thinking.as_array().into_iter().flat_map(|pieces| pieces.iter());
            thinking.into_string().into_iter().chain(pieces.filter_map(reasoning_text))
        });
        let marked = content.into_iter().flat_map(|parts| parts.iter()).filter(|part| is_reasoning(*part));
        let thoughts = thoughts.chain(marked.filter_map(reasoning_text));
        let texts = self.reasoning.into_iter().chain(parts.filter_map(reasoning_text)).chain(thoughts);
        texts.filter(|text| !text.is_empty())
    }

    /// The pieces of text: one, or those of an array of parts. Empty ones are skipped.
    pub fn texts(&self) -> impl Iterator<Item = &'a str> + use<'t, 'a> {
        let whole = self.content.and_then(|content| content.into_string());
        let parts = self.content.and_then(|content| content.as_array());
        let parts = parts
            .into_iter()
            .flat_map(|parts| parts.iter())
            .filter(|part| !is_reasoning(*part))
            .filter_map(|part| part.get("text")?.into_string());
        whole.into_iter().chain(parts).filter(|text| !text.is_empty())
    }

    /// The pieces of tool calls. The older `function_call` counts as a call of index 0.
    pub fn tool_calls(&self) -> impl Iterator<Item = ToolCallDelta<'t, 'a>> + use<'t, 'a> {
        let calls = self.tool_calls.and_then(|calls| calls.as_array());
        let calls = calls.into_iter().flat_map(|calls| calls.iter()).filter_map(ToolCallDelta::read);
        let older = self.function_call.filter(|call| call.is_object());
        calls.chain(older.map(|call| {
            let mut read = ToolCallDelta { index: Some(0), ..ToolCallDelta::default() };
            read.read_function(call);
            read
        }))
    }
}

/// True for a part of the content whose type says that its text is reasoning.
fn is_reasoning(part: Tape<'_, '_>) -> bool {
    part.get("type").and_then(|kind| kind.into_string()) == Some("reasoning")
}

/// The text of one part of a model's reasoning.
fn reasoning_text<'a>(part: Tape<'_, 'a>) -> Option<&'a str> {
    let text = |key| part.get(key).and_then(|value| value.into_string());
    part.into_string().or_else(|| ["text", "thinking", "content", "summary"].into_iter().find_map(text))
}

impl<'t, 'a> ToolCallDelta<'t, 'a> {
    fn read(tape: Tape<'t, 'a>) -> Option<Self> {
        let mut delta = ToolCallDelta::default();
        for (key, value) in tape.as_object()?.iter() {
            match key {
                "index" => delta.index = value.as_u64(),
                "id" => delta.id = value.into_string().filter(|id| !id.is_empty()),
                "function" => delta.read_function(value),
                _ => {}
            }
        }
        Some(delta)
    }

    fn read_function(&mut self, function: Tape<'t, 'a>) {
        self.name = function.get("name").and_then(|name| name.into_string()).filter(|name| !name.is_empty());
        self.arguments = function.get("arguments").filter(|arguments| arguments.as_null().is_none());
    }

    /// Calls `read` with the text of the arguments. An object, as Ollama sends it, is passed as JSON text.
    pub fn arguments<T>(&self, read: impl FnOnce(&str) -> T) -> T {
        match self.arguments {
            None => read(""),
            Some(arguments) => match arguments.into_string() {
                Some(text) => read(text),
                None => read(&crate::json::Value::from_tape(arguments).to_json()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Chunk;
    use crate::json::Parser;

    #[test]
    fn an_error_without_a_member_error_has_a_code_of_one() {
        for (body, is_error) in [
            (r#"{"message":"no","code":400}"#, true),
            (r#"{"code":"500","msg":"404 NOT_FOUND","success":false}"#, true),
            (r#"{"message":"no","code":"context_length_exceeded"}"#, true),
            (r#"{"message":"in the queue","code":200}"#, false),
            (r#"{"message":"in the queue","code":"200"}"#, false),
            (r#"{"msg":"","code":"500"}"#, false),
            (r#"{"msg":"no","code":500,"choices":[]}"#, false),
            (r#"{"error":{},"choices":[]}"#, false),
            (r#"{"choices":[{"index":0,"error":"","delta":{}}],"error":false}"#, false),
            (r#"{"error":{}}"#, true),
            (r#"{"error":{"message":"no"},"choices":[]}"#, true),
        ] {
            let found = Parser::default()
                .read(&mut body.as_bytes().to_vec(), |tape| Chunk::read(tape).error.is_some());
            assert_eq!(found, Ok(is_error), "{body}");
        }
    }
}
