//! The target of a request, and the plan for reading its answer: what the two halves of the translation share.

use super::arguments::Schema;
use super::estimate::{self, Prompt};
use super::estimator::Estimator;
use super::tool_id::TakenIds;
use crate::anthropic::WebSearchTool;
use crate::dialect::ServerKind;
use crate::json::Value;
use crate::settings::Settings;

/// The memory that a text or a tool takes in a [`Plan`] beside its own bytes.
pub(super) const KEPT_ITEM_SIZE: usize = 32;

/// The model that will answer, and the facts known about it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// The model's name on the upstream.
    pub model: &'t str,
    /// The server's flavour.
    pub flavour: ServerKind,
    /// The context window in tokens, if known.
    pub window: Option<u64>,
    /// Facts learned from the model's earlier answers and refusals.
    pub lessons: Lessons,
    /// The operator's settings.
    pub settings: &'t Settings,
}

/// Facts learned from a model's earlier answers and refusals. Empty by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lessons {
    /// How the model counts prompts.
    pub tokens: Estimator,
    /// The context window that a refusal named. It is used if [`Target::window`] is not known.
    pub window: Option<ToldWindow>,
}

/// A context window that is only known from a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldWindow {
    /// The window's size in tokens.
    pub tokens: u64,
    /// Whether the server refuses a prompt and an answer that are too large together. Other servers (LM Studio) refuse
    /// only a prompt, and end an answer at the end of the window: there is no reason to ask them for a smaller answer.
    pub limits_answers: bool,
}

/// The facts about a request that its errors name, and from which the gateway learns how a model counts.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The model as the client named it.
    pub model: String,
    /// The prompt's tokens by rule of thumb. Together with the answer's count they teach how the model counts.
    pub estimate: Prompt,
    /// The prompt's tokens as the model will most likely count them; never 0.
    pub prompt_tokens: u64,
    /// The limit on the answer's tokens that the client and the operator set, whatever the window.
    pub wanted_tokens: u64,
    /// The limit on the answer's tokens that was sent.
    pub max_tokens: u64,
    /// True if the window left less room than the client asked for.
    pub is_clamped_to_window: bool,
    /// The model's context window in tokens, if known.
    pub window: Option<u64>,
}

/// The facts about a request that the translation of its answer needs. The plan owns its data, so that the request can
/// be freed while a long answer runs.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The facts that errors name, too.
    pub asked: Asked,
    /// Whether the client wants a stream of events.
    pub stream: bool,
    /// All stop sequences; matched in the answer's text.
    pub stop_sequences: Vec<String>,
    /// Whether the client asked for reasoning, so that it expects blocks of it.
    pub thinking_asked: bool,
    /// Whether the reasoning is withheld and only its signature shown.
    pub thinking_omitted: bool,
    /// Whether text is reasoning up to `</think>`: the template opens the reasoning itself, and the server has no
    /// parser for it.
    pub think_tags: bool,
    /// The beginning of the answer as the client sent it, if the server repeats it before it continues (llama.cpp).
    pub repeated: Option<String>,
    /// No tool call is passed on, because the client forbade calls.
    pub no_tool_call: bool,
    /// The tool that the client wants called, if it named one: no call of another is looked for in text.
    pub forced_tool: Option<String>,
    /// Only the first tool call is passed on.
    pub one_tool_call: bool,
    /// Whether values in arguments are given the types of the schema.
    pub coerces: bool,
    /// Whether calls are looked for in text, where the server recognized none.
    pub rescues: bool,
    /// The number of equal calls in a row at the end of the conversation, if the model was told of them; else 0.
    pub loop_length: usize,
    /// Calls are forbidden for this turn because of them.
    pub is_loop_broken: bool,
    /// Whether a text ends that repeats one line without end.
    pub ends_repeated_lines: bool,
    /// The declared tools, each with the schema that is needed to coerce and to check its arguments.
    pub tools: Vec<(String, Option<Schema>)>,
    /// The ids of tool calls that the client knows from the history: a new call must not have one of them.
    pub taken_ids: TakenIds,
    /// Tools whose names a strict server takes only shortened: the name there, and the client's.
    pub renamed: Vec<(String, String)>,
    /// Whether an answer without content gets a block of empty text.
    pub never_empty: bool,
    /// Whether nothing is shown: the client asked for 0 tokens, to warm the cache.
    pub discard: bool,
    /// The rules for web searches, if the model is offered them: then calls of that function are not the client's.
    pub search: Option<Box<WebSearchTool>>,
    /// The client knows the stop reason `model_context_window_exceeded`: its `anthropic-beta` header named
    /// `model-context-window-exceeded-2025-08-26`. The caller sets it.
    pub context_window_beta: bool,
}

impl Plan {
    /// The approximate number of bytes that it keeps beside its own size.
    pub fn kept_size(&self) -> usize {
        let texts = self
            .stop_sequences
            .iter()
            .chain(&self.repeated)
            .chain(&self.forced_tool)
            .chain([&self.asked.model]);
        let texts = texts.map(|text| text.len() + KEPT_ITEM_SIZE).sum::<usize>();
        let tools = self
            .tools
            .iter()
            .map(|(name, schema)| name.len() + KEPT_ITEM_SIZE + schema.as_ref().map_or(0, Schema::size));
        let renamed = self.renamed.iter().map(|(sent, own)| sent.len() + own.len() + 2 * KEPT_ITEM_SIZE);
        let search = self.search.as_deref().map_or(0, WebSearchTool::size);
        texts + tools.sum::<usize>() + renamed.sum::<usize>() + self.taken_ids.size() + search
    }

    /// Estimates the prompt that is sent. Call it again after a hook has changed the prompt: the upstream counts the
    /// prompt that was sent.
    pub fn measure(&mut self, chat: &Value<'_>, tokens: &Estimator) {
        self.asked.estimate = estimate::prompt(chat);
        self.asked.prompt_tokens = tokens.tokens(self.asked.estimate);
    }
}
