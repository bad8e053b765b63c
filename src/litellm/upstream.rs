//! A server that a LiteLLM file names, and text that may stand in the environment.

/// Text that stands in the file, or the name of the environment variable that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Literal(String),
    Environment(String),
}

impl Text {
    pub(super) fn read(text: &str) -> Text {
        match text.strip_prefix("os.environ/") {
            Some(name) => Text::Environment(name.to_owned()),
            None => Text::Literal(text.to_owned()),
        }
    }
}

/// One server with one key: what identical pairs of `api_base` and `api_key` become.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) url: Text,
    /// The environment variable that holds its key.
    pub(super) key: Option<String>,
    /// Whether the key stood in the YAML, so that someone must move it.
    pub(super) key_was_literal: bool,
    /// The server kind that the provider prefixes name, if they agree.
    pub(super) flavour: Option<&'static str>,
}
