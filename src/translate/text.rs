//! Cuts texts from others to a size.

/// The beginning of `text`, at most `size_max` bytes long.
pub(super) fn cut(text: &str, size_max: usize) -> &str {
    let end = (0..=size_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}
