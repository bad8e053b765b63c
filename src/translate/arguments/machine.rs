//! The pushdown machine: does one step of the table in [`super`], and holds text back or sends it on.

use super::number::{self, NumberState};
use super::schema::{self, Types};
use super::{Arguments, ArgumentsState, DEPTH_MAX, is_space};

/// JSON's literals, and Python's, which small models write. Each stands beside its JSON.
static LITERALS: [(&str, &str); 6] = [
    ("true", "true"),
    ("false", "false"),
    ("null", "null"),
    ("True", "true"),
    ("False", "false"),
    ("None", "null"),
];

impl Arguments {
    /// Takes at least one byte, or changes the state. Returns the number of bytes that it took.
    pub(super) fn step(&mut self, rest: &str, out: &mut String) -> usize {
        let Some(&byte) = rest.as_bytes().first() else { return 0 };
        match self.state {
            ArgumentsState::Start => self.start(byte),
            ArgumentsState::KeyText | ArgumentsState::Text => self.string(rest, out),
            ArgumentsState::Number(number) => self.number(number, byte, out),
            ArgumentsState::Literal(literal, matched) => self.literal(literal, matched, byte, out),
            ArgumentsState::Complete => self.after_the_end(rest),
            ArgumentsState::Other | ArgumentsState::Broken | ArgumentsState::Ended(_) => rest.len(),
            _ if is_space(byte) => {
                // After a value, white space is certain and sent at once; elsewhere it is held back with the text that
                // follows.
                if self.state == ArgumentsState::AfterValue { out } else { &mut self.held }
                    .push(char::from(byte));
                1
            }
            _ => self.structure(byte, out),
        }
    }

    fn start(&mut self, byte: u8) -> usize {
        if is_space(byte) {
            return 1;
        }
        if byte != b'{' {
            self.state = ArgumentsState::Other;
            return 0;
        }
        // Held back as long as the object is empty, since an empty object may turn out to be a placeholder.
        self.held.push('{');
        self.open(true);
        1
    }

    fn structure(&mut self, byte: u8, out: &mut String) -> usize {
        match (self.state, byte) {
            (ArgumentsState::FirstKey | ArgumentsState::Key, b'"') => {
                self.held.push('"');
                self.key.start = self.held.len();
                self.is_text_held = true;
                self.state = ArgumentsState::KeyText;
            }
            (ArgumentsState::FirstKey, b'}') | (ArgumentsState::FirstElement, b']') => {
                self.close_container(byte, out)
            }
            (ArgumentsState::Key, b'}') | (ArgumentsState::Element, b']') => {
                self.held.clear();
                self.repairs += 1;
                self.close_container(byte, out);
            }
            (ArgumentsState::Colon, b':') => {
                self.held.push(':');
                self.state = ArgumentsState::Value;
            }
            (ArgumentsState::Value | ArgumentsState::FirstElement | ArgumentsState::Element, _) => {
                self.begin_value(byte, out)
            }
            (ArgumentsState::AfterValue, b',') => {
                self.held.push(',');
                self.state = if self.is_in_object() { ArgumentsState::Key } else { ArgumentsState::Element };
            }
            (ArgumentsState::AfterValue, b'}' | b']') => self.close_or_mend(byte, out),
            _ => self.break_off(),
        }
        // An invalid byte may be the first of a longer character, so the next step takes it.
        usize::from(self.state != ArgumentsState::Broken)
    }

    fn begin_value(&mut self, byte: u8, out: &mut String) {
        self.wanted = match &self.schema {
            Some(schema) if self.depth == 1 => schema.types(self.held.get(self.key.clone()).unwrap_or("")),
            _ => Types::ALL,
        };
        self.value_start = self.held.len();
        match byte {
            b'"' => {
                self.held.push('"');
                self.is_text_held = !self.wanted.admit_string();
                self.state = ArgumentsState::Text;
                if !self.is_text_held {
                    self.send_held(out);
                }
            }
            b'{' | b'[' if self.depth < DEPTH_MAX => {
                self.held.push(char::from(byte));
                self.send_held(out);
                self.open(byte == b'{');
            }
            _ => {
                if let Some(number) = NumberState::start(byte) {
                    self.held.push(char::from(byte));
                    self.state = ArgumentsState::Number(number);
                } else if let Some(literal) =
                    LITERALS.iter().find(|(word, _)| word.as_bytes().first() == Some(&byte))
                {
                    self.state = ArgumentsState::Literal(literal, 1);
                } else {
                    self.break_off();
                }
            }
        }
    }

    fn string(&mut self, rest: &str, out: &mut String) -> usize {
        let sink = if self.is_text_held { &mut self.held } else { &mut *out };
        let Some(taken) = self.text.push(rest, sink) else { return rest.len() };
        if self.state == ArgumentsState::KeyText {
            self.key.end = self.held.len() - 1;
            self.state = ArgumentsState::Colon;
        } else {
            self.end_text(out);
        }
        taken
    }

    /// Ends a string value. The schema may want another type than a string.
    pub(super) fn end_text(&mut self, out: &mut String) {
        self.state = ArgumentsState::AfterValue;
        if !self.is_text_held {
            return;
        }
        let inside = self.held.get(self.value_start + 1..self.held.len() - 1).unwrap_or("");
        let text = schema::unescape(inside);
        if let Some(json) = self.wanted.value_in(&text).map(str::to_string) {
            self.coercions += 1;
            self.held.truncate(self.value_start);
            self.held.push_str(&json);
        }
        self.send_held(out);
    }

    fn number(&mut self, number: NumberState, byte: u8, out: &mut String) -> usize {
        if let Some(number) = number.next(byte) {
            self.held.push(char::from(byte));
            self.state = ArgumentsState::Number(number);
            return 1;
        }
        if number.is_whole() && (is_space(byte) || b",]}".contains(&byte)) {
            self.end_number(out);
        } else {
            self.break_off();
        }
        0
    }

    pub(super) fn end_number(&mut self, out: &mut String) {
        if !number::is_finite(self.held.get(self.value_start..).unwrap_or("")) {
            self.break_off();
            return;
        }
        if self.wanted.admit_only_string() {
            self.coercions += 1;
            self.held.insert(self.value_start, '"');
            self.held.push('"');
        }
        self.send_held(out);
        self.state = ArgumentsState::AfterValue;
    }

    fn literal(
        &mut self,
        literal: &'static (&'static str, &'static str),
        matched: usize,
        byte: u8,
        out: &mut String,
    ) -> usize {
        if literal.0.as_bytes().get(matched) != Some(&byte) {
            self.break_off();
            return 0;
        }
        self.state = ArgumentsState::Literal(literal, matched + 1);
        if matched + 1 == literal.0.len() {
            self.end_literal(literal, out);
        }
        1
    }

    pub(super) fn end_literal(&mut self, (word, json): &(&str, &str), out: &mut String) {
        self.repairs += usize::from(word != json);
        if self.wanted.admit_only_string() && *json != "null" {
            self.coercions += 1;
            self.held.extend(["\"", *json, "\""]);
        } else {
            self.held.push_str(json);
        }
        self.send_held(out);
        self.state = ArgumentsState::AfterValue;
    }

    fn open(&mut self, is_object: bool) {
        self.containers = self.containers << 1 | u128::from(is_object);
        self.depth += 1;
        self.state = if is_object { ArgumentsState::FirstKey } else { ArgumentsState::FirstElement };
    }

    fn is_in_object(&self) -> bool {
        self.containers & 1 == 1
    }

    /// The byte that closes the innermost container.
    pub(super) fn closer(&self) -> u8 {
        if self.is_in_object() { b'}' } else { b']' }
    }

    fn close_or_mend(&mut self, byte: u8, out: &mut String) {
        if byte != self.closer() {
            // One closer may be missing, if this byte closes the container around it.
            let outer = if self.containers >> 1 & 1 == 1 { b'}' } else { b']' };
            if self.depth < 2 || outer != byte {
                self.break_off();
                return;
            }
            self.repairs += 1;
            self.close_container(self.closer(), out);
        }
        self.close_container(byte, out);
    }

    fn close_container(&mut self, byte: u8, out: &mut String) {
        self.held.push(char::from(byte));
        if self.has_sent {
            out.push_str(&self.held);
            self.held.clear();
        }
        self.containers >>= 1;
        self.depth -= 1;
        self.state = if self.depth == 0 { ArgumentsState::Complete } else { ArgumentsState::AfterValue };
    }

    /// Sends the text that was held back, because its value begins or is complete.
    fn send_held(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
        self.has_sent = true;
        self.has_members |= self.depth == 1;
    }

    /// Gives up understanding the text. The text that is held back is dropped; the raw text still contains it.
    pub(super) fn break_off(&mut self) {
        self.held.clear();
        self.state = ArgumentsState::Broken;
    }
}
