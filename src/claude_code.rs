//! Facts about Claude Code that more than one room relies on, measured with version 2.1.332 (docs/clients.md).
//!
//! Pure.

/// The tokens of the first request of a conversation: system prompt, tools and reminders.
pub const FIRST_REQUEST_TOKENS: u64 = 14_000;

/// The tokens of the request by which auto mode checks one tool call.
pub const AUTO_CHECK_TOKENS: u64 = 36_000;

/// The seconds that Claude Code waits for the answer to such a check. No variable changes this limit.
pub const AUTO_CHECK_SECONDS: u64 = 60;

/// The smallest window for auto mode, in tokens: the check, its answer of up to 2,112 tokens, and about 10,000 tokens of
/// the conversation that it judges.
pub const AUTO_WINDOW_MIN: u64 = 48_000;

/// The tokens a second that a server must read for a check to be answered in time.
pub const AUTO_PREFILL_MIN: u64 = AUTO_CHECK_TOKENS / AUTO_CHECK_SECONDS;

/// Claude Code's switch between its two system prompts: `1` is the lean one, `0` the full one. Without it the name of the model
/// decides ([`gets_full_prompt`]).
pub const PROMPT_VARIABLE: &str = "CLAUDE_CODE_SIMPLE_SYSTEM_PROMPT";

/// The tokens of the two system prompts. With the full one the descriptions of the tools are longer, too, by about 4,500 tokens.
pub const LEAN_PROMPT_TOKENS: u64 = 1_700;
/// See [`LEAN_PROMPT_TOKENS`].
pub const FULL_PROMPT_TOKENS: u64 = 7_000;

/// The value of [`PROMPT_VARIABLE`] for a size by name: `lean` or `full`.
pub fn prompt_value(size: &str) -> Option<&'static str> {
    match size {
        "lean" => Some("1"),
        "full" => Some("0"),
        _ => None,
    }
}

/// True if Claude Code sends its full system prompt for a model of this name: one that holds the name of an older model of
/// Anthropic's. All others, also those of its newest models, get a lean one.
pub fn gets_full_prompt(model: &str) -> bool {
    const FULL: [&str; 10] = [
        "claude-3-",
        "claude-haiku-4-5",
        "claude-sonnet-4-5",
        "claude-sonnet-4-6",
        "claude-sonnet-4-0",
        "claude-opus-4-0",
        "claude-opus-4-1",
        "claude-opus-4-5",
        "claude-opus-4-6",
        "claude-opus-4-7",
    ];
    /// These have no minor version: a date or another word may follow, and a single digit is another model.
    const FULL_MAJOR: [&str; 3] = ["claude-sonnet-5", "claude-sonnet-4", "claude-opus-4"];
    let model = model.to_ascii_lowercase().replace('.', "-");
    let is_minor = |rest: &str| {
        let version = rest.strip_prefix('-').unwrap_or_default();
        version.bytes().take_while(u8::is_ascii_digit).count() == 1
    };
    let is_major = |name: &&str| {
        model
            .split_once(*name)
            .is_some_and(|(_, rest)| !is_minor(rest) && !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    FULL.iter().any(|name| model.contains(name)) || FULL_MAJOR.iter().any(is_major)
}

/// Variables that make Claude Code send its requests elsewhere than to `ANTHROPIC_BASE_URL`.
pub const DETOURS: [&str; 11] = [
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_GATEWAY",
    "ANTHROPIC_UNIX_SOCKET",
    "CLAUDE_CODE_PROVIDER_MANAGED_BY_HOST",
    "CLAUDE_CODE_HOST_AUTH_ENV_VAR",
    "CLAUDE_CODE_HOST_CREDS_FILE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_on_the_prompt() {
        // Measured with Claude Code 2.1.332: the size of `system` in its first request.
        for (name, is_full) in [
            ("qwen3", false),
            ("claude-qwen3", false),
            ("anthropic/qwen3", false),
            ("claude-opus-5-5", false),
            ("claude-sonnet-5-5", false),
            ("claude-haiku-5-5", false),
            ("claude-fable-5-2", false),
            ("claude-opus-5", false),
            ("claude-opus-4-8", false),
            ("claude-sonnet-4-9", false),
            ("claude-sonnet-5", true),
            ("claude-sonnet-5-mine", true),
            ("claude-haiku-4-5", true),
            ("claude-haiku-4-5-mine", true),
            ("my-claude-sonnet-4-5-x", true),
            ("CLAUDE-SONNET-4-5", true),
            ("anthropic/claude-sonnet-4.5", true),
            ("claude-sonnet-4-5-20250929", true),
            ("claude-sonnet-4-20250514", true),
            ("claude-opus-4", true),
            ("claude-opus-4-7", true),
            ("claude-3-5-sonnet", true),
            ("my-claude-3-opus", true),
        ] {
            assert_eq!(gets_full_prompt(name), is_full, "{name}");
        }
    }

    #[test]
    fn a_size_has_a_value() {
        assert_eq!(
            (prompt_value("lean"), prompt_value("full"), prompt_value("short")),
            (Some("1"), Some("0"), None)
        );
    }
}
