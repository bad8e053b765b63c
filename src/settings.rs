//! The owner's switches for one upstream.
//!
//! Pure.

use crate::dialect::ServerKind;

/// Decides whether a hybrid model thinks before it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThinkingMode {
    /// As the client asks; off if the client does not say. Qwen3 thinks by default and would use up the small
    /// `max_tokens` of Claude Code's helper calls.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// The treatment of `role: system` messages in the middle of a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SystemMessages {
    /// Appended to the message before it as a `<system-reminder>`: Qwen's templates refuse system messages in place.
    #[default]
    Fold,
    /// Sent where they stand.
    Keep,
}

/// The schemes of images' addresses that are passed on unless the owner says otherwise. A server fetches the address from
/// its own place in the network, and with others it could be made to read its files (`file:`) or the services around it
/// (`http:`).
const IMAGE_SCHEMES: [&str; 2] = ["https", "data"];

/// The place of tools that the client declares in the course of a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LateTools {
    /// Among `tools`, which changes the beginning of the prompt: the prefix cache is lost from there on.
    #[default]
    Declare,
    /// As text where the conversation refers to them first. Only for servers that pass on calls of tools that are not
    /// declared (vLLM); for others it has no effect.
    Text,
}

/// The treatment of a model that repeats itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoopMode {
    /// Nothing is done.
    Off,
    /// From the third equal call in a row on, with equal results, a line in the result tells the model.
    #[default]
    Warn,
    /// In addition, calls are forbidden for one turn after each sixth one, and a text ends that repeats one line 20 times.
    Break,
}

/// The settings that the owner made for an upstream, or left to its discovery. All of them shape the translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The server's flavour; `None`: it is discovered.
    pub flavour: Option<ServerKind>,
    /// The context window in tokens; `None`: it is discovered.
    pub window: Option<u64>,
    /// The largest `max_tokens` that is sent.
    pub max_tokens: Option<u64>,
    /// Decides whether the model thinks.
    pub thinking: ThinkingMode,
    /// True if the model sees images. Otherwise a line of text replaces each image.
    pub vision: bool,
    /// The treatment of system messages in the middle of a conversation.
    pub system_messages: SystemMessages,
    /// Send `chat_template_kwargs.preserve_thinking`, so that the template keeps earlier reasoning in place and the
    /// prefix cache holds over user turns (Qwen3.6; unknown to older templates and harmless there).
    pub preserve_thinking: bool,
    /// Send the reasoning of answers before the user's last turn inside their text, so that the prefix cache holds over
    /// user turns. It is for templates that drop that reasoning and do not know `preserve_thinking` (Qwen3.5), and for
    /// vLLM.
    pub thinking_in_text: bool,
    /// Send earlier thinking that has another maker's signature as the model's own reasoning. False where conversations move
    /// between this upstream and one that speaks the Messages API: there it is another model's.
    pub foreign_thinking: bool,
    /// Decides whether `thinking.budget_tokens` is passed on; `None`: to llama.cpp only.
    pub thinking_budget: Option<bool>,
    /// Repair tool arguments of the wrong type (`"5"` where the schema wants a number).
    pub coerce_arguments: bool,
    /// Take calls that end the text of an answer for tool calls, where the server recognized none.
    pub rescue_tool_calls: bool,
    /// The treatment of a model that repeats itself.
    pub loops: LoopMode,
    /// The server has no reasoning parser and the template opens the reasoning itself: the answer of a thinking model
    /// counts as reasoning up to `</think>`.
    pub think_tags: bool,
    /// Put a block of empty text into an answer that would otherwise have no block.
    pub never_empty: bool,
    /// The place of tools that come late.
    pub late_tools: LateTools,
    /// Pass `metadata.user_id` on as `user`. It may name an account, so by default it is not sent.
    pub user_id: bool,
    /// Members of a request that clients may pass on beyond the usual ones: of the body, and of its
    /// `chat_template_kwargs`. Some of them replace the model's template, jump a queue, or read another client's cache,
    /// so the owner names each one.
    pub allow_extra: Vec<String>,
    /// The schemes of the addresses of images that clients may have the server fetch.
    pub image_schemes: Vec<String>,
    /// Web searches can be made, so a web search beside other tools is offered to the model as a function. Follows from
    /// `search` and `on_search`; it has no key of its own.
    pub web_search: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            flavour: None,
            window: None,
            max_tokens: None,
            thinking: ThinkingMode::Auto,
            vision: true,
            system_messages: SystemMessages::Fold,
            preserve_thinking: true,
            thinking_in_text: false,
            foreign_thinking: true,
            thinking_budget: None,
            coerce_arguments: true,
            rescue_tool_calls: true,
            loops: LoopMode::Warn,
            think_tags: false,
            never_empty: false,
            late_tools: LateTools::Declare,
            user_id: false,
            allow_extra: Vec::new(),
            image_schemes: IMAGE_SCHEMES.map(str::to_owned).to_vec(),
            web_search: false,
        }
    }
}
