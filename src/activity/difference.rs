//! The difference of two bodies, as lines for a person: where the prompt of a turn departs from the turn before.

use crate::json::{PrettyLine, PrettyLines};

/// The lines around a difference that are shown as they are.
const CONTEXT_LINES: usize = 3;

/// The lines that differ between two bodies, with some lines around them: the part between the longest common beginning and
/// the longest common end. JSON has an entry a line. At most `lines_max` lines from the first difference on are compared;
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
    let mut add = |mark: u8, lines: &[PrettyLine<'_>]| {
        for line in lines {
            if out.len() >= size_max {
                return;
            }
            out.extend([mark, b' ']);
            line.write(&mut out);
            out.push(b'\n');
            out.truncate(size_max);
        }
    };
    add(b' ', &context);
    let many = old.clone().count().max(new.clone().count());
    if many > lines_max {
        out.extend_from_slice(format!("{many} lines behind it: too many to compare\n").as_bytes());
        return String::from_utf8_lossy(&out).into_owned();
    }
    let (old, new): (Vec<_>, Vec<_>) = (old.collect(), new.collect());
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    add(b'-', old.get(..old.len() - end).unwrap_or_default());
    add(b'+', new.get(..new.len() - end).unwrap_or_default());
    let behind = new.get(new.len() - end..).unwrap_or_default();
    add(b' ', behind.get(..CONTEXT_LINES.min(end)).unwrap_or_default());
    String::from_utf8_lossy(&out).into_owned()
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
    fn limits_hold() {
        let (old, new) = (format!("[{}1]", "0,".repeat(1000)), format!("[2{}]", ",0".repeat(1000)));
        let told = body_difference(old.as_bytes(), new.as_bytes(), 1000, usize::MAX);
        assert_eq!(told, "@@ line 2 @@\n  [\n1002 lines behind it: too many to compare\n");
        let told = body_difference(old.as_bytes(), new.as_bytes(), 2000, 500);
        assert_eq!(told.len(), 500);
    }
}
