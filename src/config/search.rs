//! The search engine that answers web searches.

use super::url::ServerUrl;

/// `search = { searxng = "http://box:8888" }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchConfig {
    /// The base URL of a SearXNG, without a slash at the end.
    pub searxng: String,
}

impl SearchConfig {
    /// Checks the URL of a SearXNG.
    ///
    /// # Errors
    /// The reason why the URL cannot be used.
    pub fn new(searxng: &str) -> Result<Self, String> {
        let searxng = searxng.trim_end_matches('/');
        ServerUrl::parse(searxng)?;
        Ok(SearchConfig { searxng: searxng.to_owned() })
    }
}
