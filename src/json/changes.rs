//! The differences of two JSON values, as lines for a person.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::Value;

/// The most characters of a value that are shown. Between two texts, the equal parts at both ends are left out first.
const SHOWN_CHARS_MAX: usize = 2000;

/// The most bytes of changes, about: what a person can read. The rest is left out.
const SIZE_MAX: usize = 256 * 1024;

/// The characters that are shown of the equal part before and behind a change.
const CONTEXT_CHARS: usize = 40;

/// The value that represents a missing member. So a `null` that was added or removed is not shown: upstreams treat both
/// alike.
const ABSENT: Value<'static> = Value::Null;

/// Appends to `text` a line for each value that only `before` has (`-`) and for each that only `after` has (`+`), with its path
/// below `path`.
pub fn add_changes(path: &str, before: &Value<'_>, after: &Value<'_>, text: &mut String) {
    if before == after {
        return;
    }
    // A path is only written where something changed: there may be many entries below a long one.
    let mut below = |old: &Value<'_>, new: &Value<'_>, step: &dyn std::fmt::Display| {
        if old != new && text.len() < SIZE_MAX {
            add_changes(&format!("{path}{step}"), old, new, text);
        }
    };
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let (befores, afters): (HashMap<_, _>, HashMap<_, _>) =
                (old.iter().collect(), new.iter().collect());
            for (key, value) in old.iter() {
                below(value, afters.get(key).unwrap_or(&&ABSENT), &format_args!(".{key}"));
            }
            for (key, value) in new.iter().filter(|(key, _)| !befores.contains_key(key)) {
                below(&ABSENT, value, &format_args!(".{key}"));
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for i in 0..old.len().max(new.len()) {
                let (old, new) = (old.get(i).unwrap_or(&ABSENT), new.get(i).unwrap_or(&ABSENT));
                below(old, new, &format_args!("[{}]", i + 1));
            }
        }
        (Value::String(old), Value::String(new)) => {
            let (start, end) = equal_ends(old, new);
            for (sign, value) in [('-', old), ('+', new)] {
                let _ = writeln!(text, "{sign} {}: {}", shown_path(path), changed_part(value, start, end));
            }
        }
        _ => {
            for (sign, value) in [('-', before), ('+', after)] {
                if *value != ABSENT {
                    let _ = writeln!(text, "{sign} {}: {}", shown_path(path), shortened(&value.to_json()));
                }
            }
        }
    }
}

fn shown_path(path: &str) -> &str {
    path.trim_start_matches('.')
}

/// The beginning of a text, with the number of characters that are left out.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => {
            let (shown, rest) = text.split_at(end);
            format!("{shown}… ({} more characters)", rest.chars().count())
        }
    }
}

/// The characters at the beginning and at the end that two texts have in common. The two parts do not overlap.
fn equal_ends(one: &str, other: &str) -> (usize, usize) {
    let start = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let left = one.chars().count().min(other.chars().count()) - start;
    let same = one.chars().rev().zip(other.chars().rev()).take_while(|(a, b)| a == b);
    (start, same.take(left).count())
}

/// A text as JSON, without the equal parts at its ends, of which a few characters stay.
fn changed_part(text: &str, start: usize, end: usize) -> String {
    let (skipped, dropped) = (start.saturating_sub(CONTEXT_CHARS), end.saturating_sub(CONTEXT_CHARS));
    let kept = text.chars().count().saturating_sub(skipped + dropped);
    let part: String = text.chars().skip(skipped).take(kept).collect();
    let count = |count: usize| if count > 0 { format!("({count} characters) … ") } else { String::new() };
    let behind = if dropped > 0 { format!(" … ({dropped} characters)") } else { String::new() };
    format!("{}{}{behind}", count(skipped), shortened(&Value::from(part).to_json()))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn changes(before: &str, after: &str) -> String {
        let (mut before, mut after) = (before.as_bytes().to_vec(), after.as_bytes().to_vec());
        let mut text = String::new();
        add_changes("", &parse(&mut before).unwrap(), &parse(&mut after).unwrap(), &mut text);
        text
    }

    #[test]
    fn differences_are_named_by_their_paths() {
        assert_eq!(
            changes(
                r#"{"a":1,"b":[1,{"c":"x"}],"d":true}"#,
                r#"{"a":1,"b":[1,{"c":"y"},3],"e":null,"f":{}}"#
            ),
            "- b[2].c: \"x\"\n+ b[2].c: \"y\"\n+ b[3]: 3\n- d: true\n+ f: {}\n"
        );
    }

    #[test]
    fn many_changes_below_long_names_end() {
        let name = "n".repeat(100_000);
        let many = |value: usize| {
            let entries: Vec<String> = (0..20_000).map(|at| format!("\"{at}\":{}", at * value)).collect();
            format!("{{\"{name}\":{{{}}}}}", entries.join(","))
        };
        assert_eq!(changes(&many(1), &many(1)), "");
        let told = changes(&many(1), &many(2));
        assert!((SIZE_MAX..2 * SIZE_MAX).contains(&told.len()), "{}", told.len());
    }

    #[test]
    fn a_change_far_inside_a_text_is_shown() {
        let long = "ä".repeat(500);
        let (before, after) =
            (format!(r#"{{"s":"{long}"}}"#), format!(r#"{{"s":"{long} Answer in German."}}"#));
        let told = changes(&before, &after);
        let near = "ä".repeat(40);
        assert_eq!(
            told,
            format!(
                "- s: (460 characters) … \"{near}\"\n+ s: (460 characters) … \"{near} Answer in German.\"\n"
            )
        );
        let told = changes(&format!(r#"{{"s":"x{long}"}}"#), &format!(r#"{{"s":"y{long}"}}"#));
        assert_eq!(
            told,
            format!("- s: \"x{near}\" … (460 characters)\n+ s: \"y{near}\" … (460 characters)\n")
        );
        // Equal ends never overlap.
        assert_eq!(changes(r#"{"s":"aa"}"#, r#"{"s":"aaa"}"#), "- s: \"aa\"\n+ s: \"aaa\"\n");
        let added = changes("{}", &format!(r#"{{"s":"{}"}}"#, "z".repeat(3000)));
        assert!(added.ends_with("… (1002 more characters)\n"), "{added}");
    }
}
