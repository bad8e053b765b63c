//! Stop sequences, matched in the text of an answer as it comes.
//!
//! Only what could still become a stop sequence is held back, so that no part of one is ever shown.

/// A matcher for any number of sequences over text that arrives in pieces.
#[derive(Clone, Debug, Default)]
pub(super) struct StopMatcher {
    sequences: Vec<String>,
    held: String,
}

/// A sequence that was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) sequence: String,
    /// The text behind it.
    pub(super) rest: String,
}

impl StopMatcher {
    pub(super) fn new(sequences: Vec<String>) -> Self {
        StopMatcher { sequences, held: String::new() }
    }

    /// Whether this is one of the sequences.
    pub(super) fn knows(&self, sequence: &str) -> bool {
        self.sequences.iter().any(|known| known == sequence)
    }

    /// Takes a piece, hands what is safe to `show`, and tells the sequence that was met, if one was: the one that
    /// is complete first, and of several that end there the longest; so the answer does not depend on how the text was
    /// cut. Nothing is to be pushed after that.
    pub(super) fn push(&mut self, text: &str, show: &mut dyn FnMut(&str)) -> Option<Met> {
        if self.sequences.is_empty() {
            show(text);
            return None;
        }
        self.held.push_str(text);
        if let Some((at, sequence)) = self.find() {
            let rest = self.held.get(at + sequence.len()..).unwrap_or_default().to_string();
            let sequence = sequence.to_string();
            show_some(self.held.get(..at), show);
            self.held.clear();
            return Some(Met { sequence, rest });
        }
        let keep = self.held.len() - self.partial_len();
        show_some(self.held.get(..keep), show);
        self.held.drain(..keep);
        None
    }

    /// Nothing more comes that could complete a sequence: shows what was held back.
    pub(super) fn flush(&mut self, show: &mut dyn FnMut(&str)) {
        show_some(Some(&self.held), show);
        self.held.clear();
    }

    fn find(&self) -> Option<(usize, &str)> {
        let found =
            self.sequences.iter().filter_map(|sequence| Some((self.held.find(sequence)?, sequence.as_str())));
        found.min_by_key(|(at, sequence)| (at + sequence.len(), *at))
    }

    /// The length of the longest end of the held text that begins a sequence.
    fn partial_len(&self) -> usize {
        let begins = |sequence: &String| {
            let longest = sequence.len().saturating_sub(1).min(self.held.len());
            (1..=longest).rev().find(|&len| {
                let start = self.held.len() - len;
                self.held.get(start..).is_some_and(|end| sequence.starts_with(end))
            })
        };
        self.sequences.iter().filter_map(begins).max().unwrap_or(0)
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
    fn whole_and_in_pieces() {
        for (sequences, text, shown, stop) in [
            (&["END"][..], "some END more", "some ", Some("END")),
            (&["END"], "some EN", "some EN", None),
            (&["END"], "ENEND", "EN", Some("END")),
            (&["aab"], "aaab", "a", Some("aab")),
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
}
