//! One chunk of a streamed chat completion, read from the parser's tape without an allocation.
//!
//! A whole (not streamed) completion is read as one chunk too: its `message` has the shape of a `delta`.

use simd_json::prelude::{ValueAsScalar as _, ValueIntoString as _};

use crate::json::Tape;

/// A chunk, or a whole completion.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chunk<'t, 'a> {
    /// The whole chunk, if it is an error: `{"error": …}`, or a flat `{"object":"error", …}` (SGLang, old vLLM).
    pub error: Option<Tape<'t, 'a>>,
    /// The token counts, if the server sent any.
    pub counts: Option<Counts>,
    /// The choice of index 0. Other choices are never asked for, and ignored.
    pub choice: Option<Choice<'t, 'a>>,
}

/// The largest count that is accepted: JavaScript, in which clients are written, has no exact whole numbers beyond it.
const COUNT_MAX: u64 = (1 << 53) - 1;

/// The token counts of an upstream. `prompt` is the whole prompt on all servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `prompt_tokens`
    pub prompt: u64,
    /// `completion_tokens`
    pub completion: u64,
    /// `prompt_tokens_details.cached_tokens`
    pub cached: u64,
    /// `prompt_tokens_details.created_cache_tokens` (vLLM), `cache_write_tokens` (others)
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
    /// True if it is a whole answer, false if it is a piece of one.
    pub is_whole: bool,
}

/// New pieces of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkDelta<'t, 'a> {
    /// `reasoning` (recent vLLM), `reasoning_content` (llama.cpp, SGLang, old vLLM) or `thinking` (Ollama).
    pub reasoning: Option<&'a str>,
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
        let Some(object) = tape.as_object() else { return chunk };
        for (key, value) in object.iter() {
            match key {
                "choices" => chunk.choice = first_choice(value),
                "usage" => chunk.counts = Counts::read(value).or(chunk.counts),
                "prompt_progress" => chunk.counts = chunk.counts.or(Counts::read_progress(value)),
                "error" if value.as_null().is_none() => chunk.error = Some(tape),
                "object" if value.into_string() == Some("error") => chunk.error = Some(tape),
                _ => {}
            }
        }
        chunk
    }
}

impl Counts {
    fn read(usage: Tape<'_, '_>) -> Option<Counts> {
        let mut counts = Counts::default();
        for (key, value) in usage.as_object()?.iter() {
            match key {
                "prompt_tokens" => counts.prompt = count(value).unwrap_or(0),
                "completion_tokens" => counts.completion = count(value).unwrap_or(0),
                "prompt_tokens_details" => {
                    counts.cached = number(value, "cached_tokens").unwrap_or(0);
                    let created = number(value, "created_cache_tokens");
                    counts.cache_created = created.or(number(value, "cache_write_tokens")).unwrap_or(0);
                }
                "completion_tokens_details" => counts.reasoning = number(value, "reasoning_tokens"),
                _ => {}
            }
        }
        Some(counts)
    }

    /// Reads llama.cpp's `return_progress`: exact counts before the first token.
    fn read_progress(progress: Tape<'_, '_>) -> Option<Counts> {
        let prompt = number(progress, "total")?;
        Some(Counts { prompt, cached: number(progress, "cache").unwrap_or(0), ..Counts::default() })
    }

    /// Combines both counts, with the larger of each: servers repeat their counts, and the last need not be the
    /// fullest.
    #[must_use]
    pub fn merge(self, other: Counts) -> Counts {
        Counts {
            prompt: self.prompt.max(other.prompt),
            completion: self.completion.max(other.completion),
            cached: self.cached.max(other.cached),
            cache_created: self.cache_created.max(other.cache_created),
            reasoning: self.reasoning.max(other.reasoning),
        }
    }
}

fn number(object: Tape<'_, '_>, key: &str) -> Option<u64> {
    count(object.get(key)?)
}

/// A number of tokens; `None` above [`COUNT_MAX`], where JSON readers do not agree on a number.
fn count(value: Tape<'_, '_>) -> Option<u64> {
    value.as_u64().filter(|count| *count <= COUNT_MAX)
}

fn first_choice<'t, 'a>(choices: Tape<'t, 'a>) -> Option<Choice<'t, 'a>> {
    choices.as_array()?.iter().find_map(|choice| {
        let object = choice.as_object()?;
        let mut read = Choice::default();
        for (key, value) in object.iter() {
            match key {
                "index" if value.as_u64().is_some_and(|index| index != 0) => return None,
                "delta" | "message" => {
                    read.delta = ChunkDelta::read(value);
                    read.is_whole = key == "message";
                }
                "finish_reason" => read.finish_reason = value.into_string().filter(|reason| is_told(reason)),
                "stop_reason" | "matched_stop" => read.stop = read.stop.or(value.into_string()),
                _ => {}
            }
        }
        Some(read)
    })
}

/// Whether a finish reason says anything. `null` and `None` are what some servers make of a missing one.
fn is_told(reason: &str) -> bool {
    !matches!(reason.trim(), "" | "null" | "None")
}

impl<'t, 'a> ChunkDelta<'t, 'a> {
    fn read(tape: Tape<'t, 'a>) -> Self {
        let mut delta = ChunkDelta::default();
        let Some(object) = tape.as_object() else { return delta };
        for (key, value) in object.iter() {
            match key {
                "reasoning" | "reasoning_content" | "thinking" => {
                    let text = value.into_string().filter(|text| !text.is_empty());
                    // Some servers send one text under two of these names.
                    delta.reasoning = delta.reasoning.or(text);
                }
                "content" => delta.content = Some(value),
                "refusal" => delta.refusal = value.into_string().filter(|text| !text.is_empty()),
                "tool_calls" => delta.tool_calls = Some(value),
                "function_call" => delta.function_call = Some(value),
                _ => {}
            }
        }
        delta
    }

    /// The pieces of text: one, or those of an array of parts. Empty ones are skipped.
    pub fn texts(&self) -> impl Iterator<Item = &'a str> + use<'t, 'a> {
        let whole = self.content.and_then(|content| content.into_string());
        let parts = self.content.and_then(|content| content.as_array());
        let parts = parts
            .into_iter()
            .flat_map(|parts| parts.iter())
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
