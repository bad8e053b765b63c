//! Finds stop sequences in the text of an answer while it arrives.
//!
//! Only text that could still become a stop sequence is held back, so that no part of one is ever shown. The time is
//! linear in the length of the text, however many and however long the sequences are: an automaton reads each byte
//! once.

mod automaton;

use automaton::{Automaton, Position};

/// A matcher for any number of sequences over text that arrives in pieces.
#[derive(Clone, Debug, Default)]
pub(super) struct StopMatcher {
    /// Sorted, without duplicates.
    sequences: Vec<String>,
    /// Built when the first text comes: an answer without text, or one that still waits for its upstream, needs no
    /// automaton.
    automaton: Option<Box<Automaton>>,
    /// How much of a sequence the held text matches.
    position: Position,
    /// The held text, behind text that was shown already.
    held: String,
    /// The place in `held` where the held text begins. The part before it is removed once it is half of all: to remove it with
    /// every piece would move a long held text as often as pieces come.
    start: usize,
}

/// A stop sequence that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) sequence: String,
    /// The text after the sequence.
    pub(super) rest: String,
}

impl StopMatcher {
    pub(super) fn new(mut sequences: Vec<String>) -> Self {
        sequences.sort_unstable();
        sequences.dedup();
        // An empty sequence would end every answer before its first character.
        sequences.retain(|sequence| !sequence.is_empty());
        StopMatcher { sequences, ..StopMatcher::default() }
    }

    /// Whether this is one of the sequences.
    pub(super) fn knows(&self, sequence: &str) -> bool {
        self.sequences.binary_search_by(|known| known.as_str().cmp(sequence)).is_ok()
    }

    /// Takes a piece, passes the text that is safe to `show`, and returns the sequence that was found, if any. The
    /// first sequence to be complete wins; if several end at the same place, the longest. So the answer does not depend
    /// on how the text was split. Do not push anything after a sequence was found.
    pub(super) fn push(&mut self, text: &str, show: &mut dyn FnMut(&str)) -> Option<Met> {
        if self.sequences.is_empty() {
            show(text);
            return None;
        }
        let automaton = self.automaton.get_or_insert_with(|| Box::new(Automaton::new(&self.sequences)));
        if self.held.is_empty() && !automaton.begins_in(text) {
            show_some(Some(text), show);
            return None;
        }
        let before = self.held.len();
        self.held.push_str(text);
        let found = automaton.read(&mut self.position, text);
        if let Some((end, sequence)) = found {
            let sequence = self.sequences.get(sequence).cloned().unwrap_or_default();
            let end = before + end;
            let rest = self.held.get(end..).unwrap_or_default().to_string();
            show_some(self.held.get(self.start..end - sequence.len()), show);
            self.held.clear();
            self.start = 0;
            return Some(Met { sequence, rest });
        }
        let keep = self.held.len() - automaton.matched(self.position);
        show_some(self.held.get(self.start..keep), show);
        self.start = keep;
        if 2 * self.start >= self.held.len() {
            self.held.drain(..self.start);
            self.start = 0;
        }
        None
    }

    /// Shows the text that was held back, because no more text comes that could complete a sequence.
    pub(super) fn flush(&mut self, show: &mut dyn FnMut(&str)) {
        show_some(self.held.get(self.start..), show);
        self.held.clear();
        self.start = 0;
        self.position = Position::default();
    }
}

fn show_some(text: Option<&str>, show: &mut dyn FnMut(&str)) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        show(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sequences: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut matcher = StopMatcher::new(sequences.iter().map(ToString::to_string).collect());
        let mut shown = String::new();
        for piece in pieces {
            if let Some(met) = matcher.push(piece, &mut |text| shown.push_str(text)) {
                return (shown, Some(met.sequence));
            }
        }
        matcher.flush(&mut |text| shown.push_str(text));
        (shown, None)
    }

    #[test]
    fn sequences_are_found_whole_and_in_pieces() {
        for (sequences, text, shown, stop) in [
            (&["END"][..], "some END more", "some ", Some("END")),
            (&["END"], "some EN", "some EN", None),
            (&["END"], "ENEND", "EN", Some("END")),
            (&["aab"], "aaab", "a", Some("aab")),
            (&["aaaab"], "aaaaaaaaab", "aaaaa", Some("aaaab")),
            (&["aaaab"], "aaaaaaaaaaa", "aaaaaaaaaaa", None),
            (&["a", "b", "c", "d", "e", "fé"], "xyfé", "xy", Some("fé")),
            (&["</block>", "</b"], "<block>no</block>", "<block>no", Some("</b")),
            (&["ab", "abc"], "xabc", "x", Some("ab")),
            (&[], "anything", "anything", None),
            (&["\n\nHuman:"], "hi\n\nHum", "hi\n\nHum", None),
        ] {
            let expected = (shown.to_string(), stop.map(str::to_string));
            let single: Vec<String> = text.chars().map(String::from).collect();
            let single: Vec<&str> = single.iter().map(String::as_str).collect();
            assert_eq!(run(sequences, &single), expected, "{text:?} by characters");
            assert_eq!(run(sequences, &[text]), expected, "{text:?} whole");
        }
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let mut matcher = StopMatcher::new(vec!["END".into()]);
        let mut shown = Vec::new();
        matcher.push("abc E", &mut |text| shown.push(text.to_string()));
        matcher.push("N", &mut |text| shown.push(text.to_string()));
        matcher.push("X", &mut |text| shown.push(text.to_string()));
        assert_eq!(shown, ["abc ", "ENX"]);
    }

    /// A direct implementation of the rule, for comparison: the first place where a sequence ends, and the longest
    /// sequence that ends there.
    fn expected(sequences: &[&str], text: &str) -> (String, Option<String>) {
        let ends = sequences.iter().filter_map(|s| text.find(s).map(|at| (at + s.len(), at, *s)));
        match ends.min_by_key(|(end, at, _)| (*end, *at)) {
            Some((_, at, sequence)) => (text.get(..at).unwrap().to_string(), Some(sequence.to_string())),
            None => (text.to_string(), None),
        }
    }

    #[test]
    fn every_short_text_and_set_of_sequences_is_read_as_the_rule_says() {
        let words = |length: u32| {
            (0..3_u32.pow(length)).map(move |n| {
                (0..length)
                    .map(|digit| ['a', 'b', 'é'][(n / 3_u32.pow(digit) % 3) as usize])
                    .collect::<String>()
            })
        };
        let sequences: Vec<String> = (1..=3).flat_map(words).collect();
        let texts: Vec<String> = words(6).collect();
        for (i, text) in texts.iter().enumerate() {
            for set in 0..20 {
                // A different set for each text, the same in each run.
                let chosen: Vec<&str> = (0..4)
                    .map(|j| sequences[(i * 31 + set * 17 + j * j * 11) % sequences.len()].as_str())
                    .collect();
                let single: Vec<String> = text.chars().map(String::from).collect();
                let single: Vec<&str> = single.iter().map(String::as_str).collect();
                assert_eq!(run(&chosen, &[text]), expected(&chosen, text), "{text} {chosen:?}");
                assert_eq!(run(&chosen, &single), expected(&chosen, text), "{text} {chosen:?} by characters");
            }
        }
    }

    #[test]
    fn what_was_flushed_is_no_beginning_any_more() {
        let mut matcher = StopMatcher::new(vec!["END".into()]);
        let mut shown = String::new();
        assert_eq!(matcher.push("EN", &mut |text| shown.push_str(text)), None);
        matcher.flush(&mut |text| shown.push_str(text));
        assert_eq!(matcher.push("D", &mut |text| shown.push_str(text)), None);
        assert_eq!(shown, "END");
    }

    #[test]
    fn thousands_of_sequences_and_long_ones_that_repeat_themselves() {
        let many: Vec<String> = (0..2500).map(|n| format!("{n:05}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(run(&many, &["x0249", "9y"]), ("x".into(), Some("02499".into())));
        assert_eq!(run(&many, &["x025", "00y"]), ("x02500y".into(), None));
        let long = format!("{}b", "a".repeat(60_000));
        let text = "a".repeat(59_999);
        assert_eq!(run(&[&long], &["a", &text, "a", "b"]), ("a".into(), Some(long.clone())));
        assert_eq!(run(&[&long], &[&text, "b"]), (format!("{text}b"), None));
    }
}
