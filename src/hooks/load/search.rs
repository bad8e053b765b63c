//! Reads the search engine of web searches.

use mlua::Table;

use super::super::table::{Mistakes, TableReader};
use crate::config::SearchConfig;

/// Reads `search = { searxng = "http://box:8888" }`.
pub(super) fn read_search(table: &Table, mistakes: &mut Mistakes<'_>) -> Option<SearchConfig> {
    let reader = TableReader::new(table, "search", "search");
    reader.check_keys(&["searxng"], 0, mistakes);
    let before = mistakes.list.len();
    let Some(url) = reader.text("searxng", "a URL such as \"http://box:8888\"", mistakes) else {
        if mistakes.list.len() == before {
            reader.wrong("searxng", "is missing; for example searxng = \"http://box:8888\"", mistakes);
        }
        return None;
    };
    SearchConfig::new(&url).map_err(|what| reader.wrong("searxng", &what, mistakes)).ok()
}
