//! A server that a LiteLLM file names, and text that may come from the environment.

/// Text in the file, or the name of the environment variable that holds the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SettingText {
    Literal(String),
    Environment(String),
}

impl SettingText {
    pub(super) fn read(text: &str) -> SettingText {
        match text.strip_prefix("os.environ/") {
            Some(name) => SettingText::Environment(name.to_owned()),
            None => SettingText::Literal(text.to_owned()),
        }
    }
}

/// One server with one key. Entries with the same `api_base` and `api_key` share one.
#[derive(Clone, Debug)]
pub(super) struct ImportedUpstream {
    pub(super) name: String,
    pub(super) url: SettingText,
    /// The environment variable that holds its key.
    pub(super) key: Option<String>,
    /// True if the YAML holds the key itself, so that it must be moved to a variable.
    pub(super) key_was_literal: bool,
    /// The server kind that the provider prefixes name, if they agree.
    pub(super) flavour: Option<&'static str>,
    /// True if it is asked by the Messages API.
    pub(super) speaks_messages: bool,
    /// The context window in tokens, if all of its entries agree on one.
    pub(super) window: Option<u64>,
    /// The longest silence in seconds before and within an answer: the longest of its entries' time limits.
    pub(super) timeout: Option<u64>,
    /// The most requests at a time: the largest number of its entries.
    pub(super) max_in_flight: Option<u32>,
    /// The upstream with the same address and key, and the number of this one, if it stands for a further model of the
    /// same server in one alias.
    pub(super) again: Option<(usize, usize)>,
}
