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
