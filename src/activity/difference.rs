//! The difference of two bodies, as lines for a person: where the prompt of a turn departs from the turn before.

use crate::json::{PrettyLine, PrettyLines};

/// The lines around a difference that are shown as they are.
const CONTEXT_LINES: usize = 3;

/// The most bytes of a value that are shown in the lines around a difference, and of the equal parts of two long values.
const CONTEXT_SIZE: usize = 120;

/// The lines that differ between two bodies, with some lines around them: the part between the longest common beginning and
/// the longest common end. Of two long values only the part that differs is shown. JSON has an entry a line. At most `lines_max` lines from the first difference on are compared;
/// if there are more, only the place of the first one is told. The text has at most about `size_max` bytes.
pub fn body_difference(before: &[u8], now: &[u8], lines_max: usize, size_max: usize) -> String {
    let (mut old, mut new) = (PrettyLines::new(before), PrettyLines::new(now));
    let (mut same, mut context) = (0_usize, Vec::<PrettyLine<'_>>::new());
    loop {
        let (mut next_old, mut next_new) = (old.clone(), new.clone());
        match (next_old.next(), next_new.next()) {
            (None, None) => return "the bodies are the same\n".to_owned(),
            (Some(one), Some(other)) if one == other => {
                if context.len() == CONTEXT_LINES {
                    context.remove(0);
                }
                context.push(other);
                (same, old, new) = (same + 1, next_old, next_new);
            }
            _ => break,
        }
    }
    let mut out = format!("@@ line {} @@\n", same + 1).into_bytes();
    add(b' ', &context, LongValues::Context, (&mut out, size_max));
    let many = old.clone().count().max(new.clone().count());
    if many > lines_max {
        out.extend_from_slice(format!("{many} lines behind it: too many to compare\n").as_bytes());
        return String::from_utf8_lossy(&out).into_owned();
    }
    let (old, new): (Vec<_>, Vec<_>) = (old.collect(), new.collect());
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let gone = old.get(..old.len() - end).unwrap_or_default();
    let come = new.get(..new.len() - end).unwrap_or_default();
    add(b'-', gone, LongValues::Beside(come), (&mut out, size_max));
    add(b'+', come, LongValues::Beside(gone), (&mut out, size_max));
    let behind = new.get(new.len() - end..).unwrap_or_default();
    add(
        b' ',
        behind.get(..CONTEXT_LINES.min(end)).unwrap_or_default(),
        LongValues::Context,
        (&mut out, size_max),
    );
    String::from_utf8_lossy(&out).into_owned()
}

/// The way in which long values are shown.
#[derive(Clone, Copy)]
enum LongValues<'l> {
    /// Only their beginning.
    Context,
    /// Without the parts that are equal in the line of the same number here, if it has the same place in its document.
    Beside(&'l [PrettyLine<'l>]),
}

/// Appends lines, each behind a mark, up to `size_max` bytes of text.
fn add(mark: u8, lines: &[PrettyLine<'_>], long: LongValues<'_>, (out, size_max): (&mut Vec<u8>, usize)) {
    for (at, line) in lines.iter().enumerate() {
        if out.len() >= size_max {
            return;
        }
        out.extend([mark, b' ']);
        let value = line.value();
        let (skipped, dropped) = match long {
            LongValues::Context => (0, value.len().saturating_sub(CONTEXT_SIZE)),
            LongValues::Beside(others) => match others.get(at).filter(|other| other.is_beside(line)) {
                Some(other) => equal_ends(value, other.value()),
                None => (0, 0),
            },
        };
        // A few bytes are not worth the words about them.
        let (skipped, dropped) = if skipped + dropped > CONTEXT_SIZE { (skipped, dropped) } else { (0, 0) };
        line.write_middle(
            boundary(value, skipped),
            value.len() - boundary(value, value.len() - dropped),
            out,
        );
        out.push(b'\n');
        out.truncate(size_max);
    }
}

/// The bytes at the beginning and at the end that two values have in common, except for some next to the difference. The two
/// parts do not overlap.
fn equal_ends(one: &[u8], other: &[u8]) -> (usize, usize) {
    let start = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    let left = one.len().min(other.len()) - start;
    let end = one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).take(left).count();
    (start.saturating_sub(CONTEXT_SIZE), end.saturating_sub(CONTEXT_SIZE))
}

/// The place of the last character that begins at `at` or before it.
fn boundary(bytes: &[u8], at: usize) -> usize {
    let is_begin = |at: &usize| bytes.get(*at).is_none_or(|byte| byte & 0xC0 != 0x80);
    // A character has at most four bytes.
    (at.saturating_sub(3)..=at).rev().find(is_begin).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(before: &str, now: &str) -> String {
        body_difference(before.as_bytes(), now.as_bytes(), usize::MAX, usize::MAX)
    }

    #[test]
    fn a_difference_is_the_part_that_changed() {
        assert_eq!(difference("a\nb\nc", "a\nb\nc"), "the bodies are the same\n");
        assert_eq!(difference("a\nb\nc", "a\nx\ny\nc"), "@@ line 2 @@\n  a\n- b\n+ x\n+ y\n  c\n");
        assert_eq!(difference("a\na", "a\na\na"), "@@ line 3 @@\n  a\n  a\n+ a\n");
        assert_eq!(difference("", "n"), "@@ line 1 @@\n+ n\n");
        assert_eq!(difference("1\n2\n3\n4\n5", "1\n2\n3\n4"), "@@ line 5 @@\n  2\n  3\n  4\n- 5\n");
    }

    #[test]
    fn a_turn_that_extends_the_one_before_only_adds_lines() {
        let told = difference(r#"{"m":[{"a":1}],"s":true}"#, r#"{"m":[{"a":1},{"a":2}],"s":true}"#);
        assert_eq!(
            told,
            "@@ line 6 @@\n      {\n        \"a\": 1\n      },\n+     {\n+       \"a\": 2\n+     }\n    ],\n    \"s\": true\n  }\n"
        );
    }

    #[test]
    fn of_long_values_the_part_that_changed_is_shown() {
        let (long, near) = ("é".repeat(500), "é".repeat(60));
        let told = difference(
            &format!(r#"["{long}",{{"a":"{long} Monday {long}"}},"{long}"]"#),
            &format!(r#"["{long}",{{"a":"{long} Sunday {long}"}},"{long}"]"#),
        );
        let cut =
            |day: &str| format!("\"a\": (881 bytes) … {near} {day}day {} … (887 bytes)", "é".repeat(57));
        let context = format!("\"{}", "é".repeat(59));
        let expected = format!(
            "@@ line 4 @@\n  [\n    {context} … (883 bytes),\n    {{\n-     {}\n+     {}\n    }},\n    {context} … (883 bytes)\n  ]\n",
            cut("Mon"),
            cut("Sun")
        );
        assert_eq!(told, expected);
        // Lines at other places of their documents are not compared with each other.
        let told = difference(&format!(r#"{{"a":"{long}"}}"#), &format!(r#"{{"b":"{long}"}}"#));
        assert_eq!(told.matches(&long).count(), 2);
    }

    #[test]
    fn limits_hold() {
        let (old, new) = (format!("[{}1]", "0,".repeat(1000)), format!("[2{}]", ",0".repeat(1000)));
        let told = body_difference(old.as_bytes(), new.as_bytes(), 1000, usize::MAX);
        assert_eq!(told, "@@ line 2 @@\n  [\n1002 lines behind it: too many to compare\n");
        let told = body_difference(old.as_bytes(), new.as_bytes(), 2000, 500);
        assert_eq!(told.len(), 500);
    }
}
