//! Keeps the person's own lines of `ANTHROPIC_CUSTOM_HEADERS` beside the line with sparkgap's key.

use crate::admin::forms::CUSTOM_HEADERS;
use crate::json::Value;
use crate::shell::Variables;

/// The most bytes of a person's own lines. More would not fit into the head of a request.
const SIZE_MAX: usize = 32 * 1024;

/// Puts the person's own lines behind the one of sparkgap, which replaces a line of the same name. They are those of the
/// first of `settings` that has any, otherwise those of this environment, as Claude Code itself reads them.
pub(super) fn keep_own<'s>(
    variables: &mut Variables,
    mut settings: impl Iterator<Item = &'s Value<'static>>,
) {
    let Some((_, ours)) = variables.iter_mut().find(|(name, _)| *name == CUSTOM_HEADERS) else { return };
    let set = |file: &Value<'static>| Some(file.get("env")?.get(CUSTOM_HEADERS)?.as_str()?.to_owned());
    let own = settings.find_map(set).or_else(|| std::env::var(CUSTOM_HEADERS).ok());
    *ours = joined(&own.unwrap_or_default(), ours);
}

fn joined(own: &str, ours: &str) -> String {
    let name = |line: &str| line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_kept = |line: &&str| line.contains(':') && name(line) != name(ours);
    let own = if own.len() > SIZE_MAX { "" } else { own };
    let lines = own.lines().map(str::trim).filter(is_kept);
    [ours].into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_lines_stay_and_ours_wins_by_its_name() {
        for (own, expected) in [
            ("", "x-sparkgap-key: k"),
            ("x-project: a", "x-sparkgap-key: k\nx-project: a"),
            (
                "x-project: a\r\nX-Sparkgap-Key : old\n\nx-b: c:d\nnothing",
                "x-sparkgap-key: k\nx-project: a\nx-b: c:d",
            ),
        ] {
            assert_eq!(joined(own, "x-sparkgap-key: k"), expected, "{own:?}");
        }
        assert_eq!(joined(&"x-a: b\n".repeat(SIZE_MAX), "k: v"), "k: v");
    }
}
