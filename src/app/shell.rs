//! Quotes words for a shell: sh, dash, bash, zsh and fish.

/// A word for a shell, in quotes only if it needs them.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/.:_-".contains(c);
    if word.chars().all(is_plain) { word.to_string() } else { in_quotes(word) }
}

/// A word for a shell, in single quotes.
pub fn in_quotes(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
