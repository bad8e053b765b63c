//! The target of a request, and the plan for reading its answer: what the two halves of the translation share.

use super::arguments::Schema;
use super::tool_id::TakenIds;
use crate::dialect::ServerKind as Flavour;
use crate::settings::Settings;

/// Who will answer, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// The model's name at the upstream.
    pub model: &'t str,
    /// The server's flavour.
    pub flavour: Flavour,
    /// The context window in tokens, where known.
    pub window: Option<u64>,
    /// Real tokens to an estimated one, learned from earlier answers; 1 at first.
    pub tokens_ratio: f64,
    /// What the owner set.
    pub settings: &'t Settings,
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
    /// About the prompt's tokens; never 0.
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
