//! Finds the known name that is nearest to a mistyped one.
//!
//! Pure; for messages only.

/// The longest name that is compared with the known ones, and the part of a longer one that a message shows, in
/// characters. The comparison takes time in proportion to the length, and a hook may ask for any name.
const NAME_CHARS_MAX: usize = 100;

/// A message on an unknown name, "`what` 'name'": it suggests the nearest known name, or lists all if none is near.
pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    if let Some((end, _)) = name.char_indices().nth(NAME_CHARS_MAX) {
        let begin = name.get(..end).unwrap_or_default();
        return format!("{what} '{begin}…'; known are: {}", known.join(", "));
    }
    match nearest(name, known) {
        Some(near) => format!("{what} '{name}'; did you mean '{near}'?"),
        None => format!("{what} '{name}'; known are: {}", known.join(", ")),
    }
}

/// The known name that is the fewest edits away, if that number is at most about a third of the letters.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let edits_max = name.chars().count().div_ceil(3).clamp(1, 3);
    known
        .iter()
        .map(|k| (strsim::levenshtein(name, k), *k))
        .min()
        .filter(|(d, _)| *d <= edits_max)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_offered_and_a_far_one_is_not() {
        assert_eq!(
            unknown("unknown key", "modle", &["model", "url"]),
            "unknown key 'modle'; did you mean 'model'?"
        );
        assert_eq!(
            unknown("unknown key", "zzz", &["model", "url"]),
            "unknown key 'zzz'; known are: model, url"
        );
    }

    #[test]
    fn a_long_name_is_cut_and_not_compared() {
        let shown = "é".repeat(NAME_CHARS_MAX);
        assert_eq!(
            unknown("unknown key", &"é".repeat(2_000_000), &["model", "url"]),
            format!("unknown key '{shown}…'; known are: model, url")
        );
    }
}
