//! Finds the place where a text begins to repeat one line without end.

use crate::hash::Fnv;

/// The number of equal lines in a row at which the text ends.
pub(in super::super) const LINES_MAX: usize = 20;

/// The fewest letters and digits of a line that counts. Shorter ones repeat in tables, figures and code.
const LETTERS_MIN: usize = 4;

/// The lines of a text so far.
#[derive(Debug)]
pub(super) struct RepeatedLines {
    is_on: bool,
    is_wanted: bool,
    /// The hash of the line that is read, and the number of its letters and digits.
    line: Fnv,
    letters: usize,
    /// The hash of the line before it, and the number of times that it came in a row.
    last: Fnv,
    times: usize,
}

impl RepeatedLines {
    pub(super) fn new(is_on: bool) -> Self {
        RepeatedLines { is_on, is_wanted: is_on, line: Fnv::EMPTY, letters: 0, last: Fnv::EMPTY, times: 0 }
    }

    /// Begins the text of the next round.
    pub(super) fn next_round(&mut self) {
        *self = RepeatedLines::new(self.is_wanted);
    }

    /// Takes a piece of the text. Returns the size of the part up to the end of the last line that is shown, if the text is
    /// to end there.
    #[inline]
    pub(super) fn push(&mut self, text: &str) -> Option<usize> {
        if self.is_on { self.read(text) } else { None }
    }

    fn read(&mut self, text: &str) -> Option<usize> {
        let mut end = 0;
        for line in text.split_inclusive('\n') {
            end += line.len();
            let is_whole = line.ends_with('\n');
            let part = line.trim_end_matches('\n').as_bytes();
            self.line = self.line.push(part);
            self.letters +=
                part.iter().filter(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii()).count();
            if is_whole && self.end_line() {
                self.is_on = false;
                return Some(end);
            }
        }
        None
    }

    /// Ends a line. Returns true if it came too often.
    fn end_line(&mut self) -> bool {
        let (line, letters) =
            (std::mem::replace(&mut self.line, Fnv::EMPTY), std::mem::take(&mut self.letters));
        // A blank line between two equal ones does not matter.
        if letters == 0 && line == Fnv::EMPTY {
            return false;
        }
        self.times = if line == self.last { self.times + 1 } else { 1 };
        self.last = line;
        self.times >= LINES_MAX && letters >= LETTERS_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the text that is shown, however it is cut.
    fn shown(text: &str) -> usize {
        let run = |size: usize| {
            let mut lines = RepeatedLines::new(true);
            let mut at = 0;
            for piece in text.as_bytes().chunks(size).map(|piece| std::str::from_utf8(piece).unwrap()) {
                if let Some(end) = lines.push(piece) {
                    return at + end;
                }
                at += piece.len();
            }
            at
        };
        let whole = run(text.len());
        (1..9).for_each(|size| assert_eq!(run(size), whole, "{size}"));
        whole
    }

    #[test]
    fn a_text_ends_at_the_twentieth_equal_line() {
        assert_eq!(shown(&"I will check.\n".repeat(30)), 20 * 14);
        assert_eq!(shown(&"I will check.\n\n".repeat(30)), 20 * 15 - 1);
        assert_eq!(shown(&format!("Hm.\n{}", "Wait, no.\n".repeat(19))), 4 + 190);
        for text in ["|  |\n", "}\n", "\n", "0,\n", "ab "] {
            assert_eq!(shown(&text.repeat(99)), 99 * text.len());
        }
        let different: String = (0..99).map(|n| format!("line {n}\n")).collect();
        assert_eq!(shown(&different), different.len());
        assert_eq!(RepeatedLines::new(false).push(&"I will check.\n".repeat(30)), None);
    }
}
