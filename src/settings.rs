//! The owner's switches for one upstream.
//!
//! Pure.

use crate::dialect::ServerKind as Flavour;

/// Whether a hybrid model thinks before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Thinking {
    /// As the client asks; off where it does not say. Qwen3 thinks by default and would use up the small
    /// `max_tokens` of Claude Code's helper calls.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What becomes of `role: system` messages in the middle of a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SystemMessages {
    /// Appended to the message before it as a `<system-reminder>`: Qwen's templates refuse them in place.
    #[default]
    Fold,
    /// Sent where they stand.
    Keep,
}

/// What the owner set for an upstream, or left to its discovery. All of it shapes the translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The server's flavour, if set; else it is discovered.
    pub flavour: Option<Flavour>,
    /// The context window in tokens, if set; else it is discovered.
    pub window: Option<u64>,
    /// A cap on `max_tokens`.
    pub max_tokens: Option<u64>,
    /// Whether the model thinks.
    pub thinking: Thinking,
    /// Whether the model sees images. `false`: they are replaced by a line of text.
    pub vision: bool,
    /// What becomes of system messages in mid-conversation.
    pub system_messages: SystemMessages,
    /// Send `chat_template_kwargs.preserve_thinking`, so that the template keeps earlier reasoning in place and the
    /// prefix cache holds over user turns (Qwen3.6; unknown to older templates and harmless there).
    pub preserve_thinking: bool,
    /// Send the reasoning of answers before the last turn of the user inside their text: for templates that drop it
    /// there and do not know `preserve_thinking` (Qwen3.5), so that the prefix cache holds over user turns. For vLLM.
    pub thinking_in_text: bool,
    /// Whether `thinking.budget_tokens` is passed on; if not set, to llama.cpp only.
    pub thinking_budget: Option<bool>,
    /// Repair tool arguments of the wrong type (`"5"` where the schema wants a number).
    pub coerce_arguments: bool,
    /// The server has no reasoning parser and the template opens the reasoning itself: an answer of a model that thinks
    /// is reasoning up to `</think>`.
    pub think_tags: bool,
    /// Put a block of empty text where an answer has nothing at all.
    pub never_empty: bool,
    /// Pass `metadata.user_id` on as `user`. It may name an account, so it stays here by default.
    pub user_id: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            flavour: None,
            window: None,
            max_tokens: None,
            thinking: Thinking::Auto,
            vision: true,
            system_messages: SystemMessages::Fold,
            preserve_thinking: true,
            thinking_in_text: false,
            thinking_budget: None,
            coerce_arguments: true,
            think_tags: false,
            never_empty: false,
            user_id: false,
        }
    }
}
