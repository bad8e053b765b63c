//! How far a text had come when its fragments ended.

use super::{Arguments, Ending, SPACES, schema};

/// How far text that does not begin as an object had come. An object may be inside a string, at any number of levels.
pub(super) fn ending_of_other(raw: &str, is_told_cut: bool) -> Ending {
    let raw = raw.trim_end_matches(SPACES);
    if is_null(raw) {
        return Ending::Unclosed;
    }
    match schema::decode(raw) {
        // Each level of encoding doubles the backslashes, so this recursion is shallow.
        Some(text) => {
            let mut inner = Arguments::default();
            inner.push(&text, &mut String::new());
            inner.ending(is_told_cut, &mut String::new())
        }
        // None of it can run, since it is sent whole as raw text, which the client's schema check refuses.
        None if !is_told_cut && is_balanced(raw) => Ending::Whole,
        None => Ending::Cut,
    }
}

/// True if the text says that there are no arguments.
pub(super) fn is_null(text: &str) -> bool {
    text == "null" || text == "None"
}

/// True if nothing shows that text which is not an object is incomplete: all its brackets are closed, and it does not end
/// inside a double-quoted string.
pub(super) fn is_balanced(text: &str) -> bool {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return false,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    depth == 0 && !in_string
}
