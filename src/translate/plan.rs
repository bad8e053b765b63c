//! The target of a request, and the plan for reading its answer: what the two halves of the translation share.

use super::arguments::Schema;
use super::estimate::{self, Prompt};
use super::estimator::Estimator;
use super::tool_id::TakenIds;
use crate::dialect::ServerKind as Flavour;
use crate::json::Value;
use crate::settings::Settings;

/// What a text or a tool takes in a [`Plan`] beside its bytes.
pub(super) const KEPT_ITEM_SIZE: usize = 32;

/// Who will answer, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// The model's name at the upstream.
    pub model: &'t str,
    /// The server's flavour.
    pub flavour: Flavour,
    /// The context window in tokens, where known.
    pub window: Option<u64>,
    /// What earlier answers and refusals of the model told.
    pub lessons: Lessons,
    /// What the owner set.
    pub settings: &'t Settings,
}

/// What earlier answers and refusals of a model told. By default nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lessons {
    /// How it counts prompts.
    pub tokens: Estimator,
    /// The context window that a refusal named. It counts where [`Target::window`] is not known.
    pub window: Option<ToldWindow>,
}

/// A context window that only a refusal told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldWindow {
    /// Its tokens.
    pub tokens: u64,
    /// Whether the server refuses a prompt and an answer that are too large together. Others (LM Studio) refuse only a
    /// prompt, and end an answer where the window ends: there is no reason to ask them for less.
    pub limits_answers: bool,
}

/// What the answer's translation must know of its request. Owns what it holds, so that the request can be freed while
/// a long answer runs.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The model as the client named it.
    pub model: String,
    /// Whether the client wants events.
    pub stream: bool,
    /// All stop sequences; matched in the answer's text.
    pub stop_sequences: Vec<String>,
    /// Whether the reasoning is withheld and only its signature shown.
    pub thinking_omitted: bool,
    /// The template opens the reasoning itself and the server has no parser for it: text is reasoning up to `</think>`.
    pub think_tags: bool,
    /// How the client began the answer, where the server repeats that before it goes on (llama.cpp).
    pub repeated: Option<String>,
    /// No tool call is passed on: the client asked for none.
    pub no_tool_call: bool,
    /// Only the first tool call is passed on.
    pub one_tool_call: bool,
    /// The tools that were declared, each with what is needed to repair its arguments.
    pub tools: Vec<(String, Option<Schema>)>,
    /// The ids of tool calls that the client knows from the history: a new call gets another one.
    pub taken_ids: TakenIds,
    /// Tools whose names were shortened for a strict API: the name that was sent, and the client's.
    pub renamed: Vec<(String, String)>,
    /// An answer without anything gets a block of empty text.
    pub never_empty: bool,
    /// Nothing is shown: the client asked for 0 tokens, to warm the cache.
    pub discard: bool,
    /// The prompt's tokens by rule of thumb, which the answer's count teaches to scale.
    pub estimate: Prompt,
    /// The prompt's tokens as the model will most likely count them; never 0.
    pub prompt_tokens: u64,
    /// The limit that was sent.
    pub max_tokens: u64,
    /// Whether the window left less room than the client asked for.
    pub is_clamped_to_window: bool,
    /// The context window in tokens, where known.
    pub window: Option<u64>,
    /// The client knows the stop reason `model_context_window_exceeded`: its `anthropic-beta` header named
    /// `model-context-window-exceeded-2025-08-26`. The caller sets it.
    pub context_window_beta: bool,
}

impl Plan {
    /// About the bytes that it keeps beside its own size.
    pub fn kept_size(&self) -> usize {
        let texts = self.stop_sequences.iter().chain(&self.repeated).chain([&self.model]);
        let texts = texts.map(|text| text.len() + KEPT_ITEM_SIZE).sum::<usize>();
        let tools = self
            .tools
            .iter()
            .map(|(name, schema)| name.len() + KEPT_ITEM_SIZE + schema.as_ref().map_or(0, Schema::size));
        let renamed = self.renamed.iter().map(|(sent, own)| sent.len() + own.len() + 2 * KEPT_ITEM_SIZE);
        texts + tools.sum::<usize>() + renamed.sum::<usize>() + self.taken_ids.size()
    }
}

impl Plan {
    /// Estimates the prompt that goes out. Again after a hook has changed it: the answer's count is of what was sent.
    pub fn measure(&mut self, chat: &Value<'_>, tokens: &Estimator) {
        self.estimate = estimate::prompt(chat);
        self.prompt_tokens = tokens.tokens(self.estimate);
    }
}
