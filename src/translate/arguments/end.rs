//! The end of the arguments: closes the open containers, and carries text that was not understood as raw text.
//!
//! Knows the state in which the machine stopped. The machine itself is in `machine`.

use super::{Arguments, Outcome, RAW_KEY, SPACES, State, schema};
use crate::json::Value;

impl Arguments {
    /// Ends the current value, if enough of it has come.
    pub(super) fn end_value(&mut self, out: &mut String) {
        match self.state {
            State::Text => {
                self.text.finish(if self.is_text_held { &mut self.held } else { &mut *out });
                self.end_text(out);
            }
            State::Number(number) if number.is_whole() => self.end_number(out),
            State::Literal(literal, _) => self.end_literal(literal, out),
            _ => {}
        }
    }

    pub(super) fn mended_or(&self, outcome: Outcome) -> Outcome {
        if self.repairs() > 0 { Outcome::Repaired } else { outcome }
    }

    /// Completes the object: ends its last value, drops a key without a value, and closes everything.
    pub(super) fn finish_object(&mut self, out: &mut String) -> Outcome {
        self.end_value(out);
        if self.state == State::Broken {
            return self.write_raw(out);
        }
        if !self.has_sent {
            out.push('{');
        }
        self.close_down_to(0, out);
        self.repairs += 1;
        Outcome::Repaired
    }

    /// Handles text that does not begin as an object: it is empty, or an object inside a string, or kept as raw text.
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

    /// Closes all but the outermost object and adds the raw text to that.
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
