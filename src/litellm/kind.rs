//! Finds out whose configuration a file is: LiteLLM's, claude-code-router's or llama-swap's.

use super::error::ImportError;
use super::import::{Import, ImportContext, import_parsed};
use super::{ccr, llama_swap, yaml};

/// Translates the configuration of any of these programs. Any other file counts as LiteLLM's.
///
/// # Errors
/// Those of [`import`]; for the other programs: it has no model that can be served.
pub fn import_any(text: &str, context: ImportContext<'_>) -> Result<Import, ImportError> {
    // Editors on Windows begin files with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with(['{', '/']) {
        let plain = ccr::without_comments(text);
        match yaml::parse(&plain, None) {
            Ok((root, _)) if ccr::is_one(&root) => return ccr::translate(&root, context.variable),
            // Only claude-code-router's file has comments with slashes.
            Err(error) if plain.contains("\"Providers\"") || plain.contains("\"Router\"") => {
                return Err(error);
            }
            _ => {}
        }
    }
    let (root, repeated) = yaml::parse(text, None)?;
    match llama_swap::is_one(&root) {
        true => llama_swap::translate(&root),
        false => import_parsed((root, repeated), text.len(), context),
    }
}
