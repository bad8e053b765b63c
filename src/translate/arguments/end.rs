//! The end of the arguments: closes the open containers, and sends text that could not be understood as raw text.
//!
//! Starts from the state in which the machine stopped. The machine itself is in `machine`.

use super::{Arguments, ArgumentsState, Ending, Outcome, RAW_KEY, SPACES, schema};
use crate::json::Value;

impl Arguments {
    /// How far the text had come. Call it at the end of the fragments, before [`Arguments::finish`]. Appends to `out`
    /// the text that may be sent on.
    ///
    /// With `is_told_cut` there is evidence that the answer was cut. Then a fragment that may be a repetition of all
    /// arguments is not taken for one, and text that is not an object does not count as whole.
    pub fn ending(&mut self, is_told_cut: bool, out: &mut String) -> Ending {
        if !is_told_cut {
            self.settle(None, out);
        }
        match self.state {
            ArgumentsState::Complete => Ending::Whole,
            ArgumentsState::Start | ArgumentsState::AfterValue => Ending::Unclosed,
            ArgumentsState::Other => ending_of_other(&self.raw, is_told_cut),
            // No part of the text was sent, so no part can run: the client gets the raw text and refuses it.
            ArgumentsState::Broken
                if !is_told_cut && !self.has_sent && !self.is_cut && is_balanced(&self.raw) =>
            {
                Ending::Whole
            }
            ArgumentsState::Ended(outcome) if outcome != Outcome::Truncated => Ending::Whole,
            // A number at the very end of the text may have been about to get longer.
            _ => Ending::Cut,
        }
    }

    /// Ends the value that is being read, if enough of the value has come.
    pub(super) fn end_value(&mut self, out: &mut String) {
        match self.state {
            ArgumentsState::Text => {
                self.text.finish(if self.is_text_held { &mut self.held } else { &mut *out });
                self.end_text(out);
            }
            ArgumentsState::Number(number) if number.is_whole() => self.end_number(out),
            ArgumentsState::Literal(literal, _) => self.end_literal(literal, out),
            _ => {}
        }
    }

    pub(super) fn mended_or(&self, outcome: Outcome) -> Outcome {
        if self.repairs() > 0 { Outcome::Repaired } else { outcome }
    }

    /// Completes the object: ends its last value, drops a key without a value, and closes everything.
    pub(super) fn finish_object(&mut self, out: &mut String) -> Outcome {
        self.end_value(out);
        if self.state == ArgumentsState::Broken {
            return self.write_raw(out);
        }
        if !self.has_sent {
            out.push('{');
        }
        self.close_down_to(0, out);
        self.repairs += 1;
        Outcome::Repaired
    }

    /// Handles text that does not begin as an object: it may be empty, or an object inside a string. Anything else is
    /// sent as raw text.
    pub(super) fn finish_other(&mut self, out: &mut String) -> Outcome {
        let raw = self.raw.trim_end_matches(SPACES);
        if raw == "null" || raw == "None" {
            return Outcome::Empty;
        }
        // Each level of encoding doubles the backslashes, so this recursion is shallow.
        if let Some(text) = schema::decode(raw).or_else(|| schema::decode(&format!("{raw}\""))) {
            let mut inner = Arguments::new(self.schema.clone());
            let mut object = String::new();
            inner.push(&text, &mut object);
            let outcome = inner.finish(false, &mut object);
            if outcome != Outcome::Raw {
                out.push_str(&object);
                self.repairs += 1 + inner.repairs();
                self.coercions += inner.coercions;
                return if outcome == Outcome::Empty { outcome } else { Outcome::Repaired };
            }
        }
        self.write_raw(out)
    }

    /// Closes all containers except the outermost object, and adds the raw text to that object.
    pub(super) fn write_raw(&mut self, out: &mut String) -> Outcome {
        if self.has_sent {
            self.close_down_to(1, out);
        } else {
            out.push('{');
        }
        if self.has_members {
            out.push(',');
        }
        out.extend(["\"", RAW_KEY, "\":", &Value::from(self.raw.as_str()).to_json(), "}"]);
        Outcome::Raw
    }

    fn close_down_to(&mut self, depth: usize, out: &mut String) {
        while self.depth > depth {
            out.push(char::from(self.closer()));
            self.containers >>= 1;
            self.depth -= 1;
        }
    }
}

/// How far text that does not begin as an object had come. An object may be inside a string, at any number of levels.
fn ending_of_other(raw: &str, is_told_cut: bool) -> Ending {
    let raw = raw.trim_end_matches(SPACES);
    if raw == "null" || raw == "None" {
        return Ending::Unclosed;
    }
    match schema::decode(raw) {
        // Each level of encoding doubles the backslashes, so this recursion is shallow.
        Some(text) => {
            let mut inner = Arguments::default();
            inner.push(&text, &mut String::new());
            inner.ending(is_told_cut, &mut String::new())
        }
        None if !is_told_cut && is_balanced(raw) => Ending::Whole,
        None => Ending::Cut,
    }
}

/// True if text that is not valid JSON still has a recognizable end: it has brackets, all of them are closed, and it
/// does not end inside a double-quoted string.
fn is_balanced(text: &str) -> bool {
    let (mut depth, mut has_brackets, mut in_string, mut is_escaped) = (0_usize, false, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => (depth, has_brackets) = (depth + 1, true),
            b'}' | b']' if depth == 0 => return false,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    has_brackets && depth == 0 && !in_string
}
