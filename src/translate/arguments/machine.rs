//! The pushdown machine: does one step of the table in [`super`], holds text back or sends it on, and completes the
//! object at the end.

use super::nesting::Nesting;
use super::scalar::{ScalarKind, ScalarProgress, ScalarText};
use super::schema::{Schema, Types};
use super::{DEPTH_MAX, Outcome, RAW_KEY, is_space};
use crate::json::Value;

/// The expected next part of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ObjectState {
    #[default]
    Start,
    FirstKey,
    Key,
    KeyText,
    Colon,
    Value,
    FirstElement,
    Element,
    Text,
    /// A number or a literal.
    Word,
    AfterValue,
    Complete,
    Other,
    Broken,
}

/// Reads one JSON object and writes it on as far as it is certain.
#[derive(Clone, Debug, Default)]
pub(super) struct ObjectMachine {
    schema: Option<Schema>,
    state: ObjectState,
    nesting: Nesting,
    /// The text before the value that is read, in the order in which it will be sent: a comma, a key, a colon, brackets.
    held: String,
    scalar: ScalarText,
    /// The types that the schema allows for the value of the last key of the outermost object.
    wanted: Types,
    has_sent: bool,
    /// True if a member of the outermost object was sent, so that the next one needs a comma.
    has_members: bool,
    /// The repairs of the structure: values count their own.
    repairs: usize,
}

impl ObjectMachine {
    pub(super) fn new(schema: Option<Schema>) -> Self {
        ObjectMachine { schema, ..ObjectMachine::default() }
    }

    /// A machine that reads one array or object, which is complete at its end.
    pub(super) fn of_value() -> Self {
        ObjectMachine { state: ObjectState::Value, ..ObjectMachine::default() }
    }

    /// The schema by which values are coerced.
    pub(super) fn schema(&self) -> Option<&Schema> {
        self.schema.as_ref()
    }

    pub(super) fn state(&self) -> ObjectState {
        self.state
    }

    /// True if a part of the object was sent.
    pub(super) fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// The number of values that were coerced, and of repairs.
    pub(super) fn changes(&self) -> (usize, usize) {
        let (coercions, repairs) = self.scalar.changes();
        (coercions, self.repairs + repairs)
    }

    /// Takes at least one byte, or changes the state. Returns the number of bytes that it took.
    pub(super) fn step(&mut self, rest: &str, out: &mut String) -> usize {
        let Some(&byte) = rest.as_bytes().first() else { return 0 };
        match self.state {
            ObjectState::Start => self.start(byte),
            ObjectState::KeyText | ObjectState::Text | ObjectState::Word => self.scalar(rest, out),
            ObjectState::Complete => self.start_again(rest),
            ObjectState::Other | ObjectState::Broken => rest.len(),
            _ if is_space(byte) => {
                // After a value, white space is certain and sent at once; elsewhere it is held back with the text that
                // follows.
                if self.state == ObjectState::AfterValue { out } else { &mut self.held }
                    .push(char::from(byte));
                1
            }
            _ => self.structure(byte, out),
        }
    }

    /// Takes no more of the object, although it goes on: completes the value that is read, and counts as broken.
    pub(super) fn break_off(&mut self, out: &mut String) {
        self.end_scalar(out);
        self.give_up();
    }

    /// Completes what was sent so that it is an object, and appends the rest of it. If the object is not readable, the
    /// raw text becomes a member.
    pub(super) fn finish(&mut self, raw: &str, out: &mut String) -> Outcome {
        match self.state {
            ObjectState::Complete => {
                out.push_str(&self.held);
                return if self.changes().1 > 0 { Outcome::Repaired } else { Outcome::Complete };
            }
            ObjectState::Other | ObjectState::Broken => return self.write_raw(raw, out),
            _ => self.end_scalar(out),
        }
        // A number may turn out to have no value that clients can hold.
        if self.state == ObjectState::Broken {
            return self.write_raw(raw, out);
        }
        if !self.has_sent {
            out.push('{');
        }
        self.close_down_to(0, out);
        self.repairs += 1;
        Outcome::Repaired
    }

    /// Makes sure that the text that was sent cannot pass for a whole object, when no more will be sent.
    pub(super) fn abandon(&mut self, out: &mut String) {
        if !std::mem::replace(&mut self.has_sent, true) {
            out.push('{');
        }
    }

    fn start(&mut self, byte: u8) -> usize {
        if is_space(byte) {
            return 1;
        }
        if byte != b'{' {
            self.state = ObjectState::Other;
            return 0;
        }
        // Held back as long as the object is empty, since an empty object may turn out to be a placeholder.
        self.held.push('{');
        self.open(true);
        1
    }

    /// An empty object that was not sent was a placeholder, if another object follows.
    fn start_again(&mut self, rest: &str) -> usize {
        if self.has_sent || !rest.starts_with('{') {
            return rest.len();
        }
        self.held.clear();
        self.state = ObjectState::Start;
        0
    }

    fn structure(&mut self, byte: u8, out: &mut String) -> usize {
        match (self.state, byte) {
            (ObjectState::FirstKey | ObjectState::Key, b'"') => {
                self.scalar.begin_key();
                self.state = ObjectState::KeyText;
            }
            (ObjectState::FirstKey, b'}') | (ObjectState::FirstElement, b']') => self.close(byte, out),
            (ObjectState::Key, b'}') | (ObjectState::Element, b']') => {
                self.held.clear();
                self.repairs += 1;
                self.close(byte, out);
            }
            (ObjectState::Colon, b':') => {
                self.held.push(':');
                self.state = ObjectState::Value;
            }
            (ObjectState::Value | ObjectState::FirstElement | ObjectState::Element, _) => {
                self.begin_value(byte, out)
            }
            (ObjectState::AfterValue, b',') => {
                self.held.push(',');
                let is_in_object = self.nesting.is_in_object();
                self.state = if is_in_object { ObjectState::Key } else { ObjectState::Element };
            }
            (ObjectState::AfterValue, b'}' | b']') => self.close_or_mend(byte, out),
            _ => self.give_up(),
        }
        // An invalid byte may be the first of a longer character, so the next step takes it.
        usize::from(self.state != ObjectState::Broken)
    }

    fn begin_value(&mut self, byte: u8, out: &mut String) {
        if matches!(byte, b'{' | b'[') && self.nesting.depth() < DEPTH_MAX {
            self.held.push(char::from(byte));
            self.send_held(out);
            self.open(byte == b'{');
            return;
        }
        let wanted = if self.nesting.depth() == 1 { self.wanted } else { Types::ALL };
        match self.scalar.begin(byte, wanted) {
            Some(ScalarKind::PassingText) => {
                self.send_held(out);
                out.push('"');
                self.state = ObjectState::Text;
            }
            Some(ScalarKind::HeldText) => self.state = ObjectState::Text,
            Some(ScalarKind::Word) => self.state = ObjectState::Word,
            None => self.give_up(),
        }
    }

    /// Takes more of a key, a string, a number or a literal.
    fn scalar(&mut self, rest: &str, out: &mut String) -> usize {
        let (taken, progress) = self.scalar.push(rest, out);
        match (self.state, progress) {
            (_, ScalarProgress::More) => {}
            (_, ScalarProgress::Invalid) => self.give_up(),
            (ObjectState::KeyText, _) => self.end_key(),
            _ => self.end_value(out),
        }
        taken
    }

    fn end_key(&mut self) {
        let key = self.scalar.json();
        if let (Some(schema), 1) = (&self.schema, self.nesting.depth()) {
            self.wanted = schema.types(key.get(1..key.len() - 1).unwrap_or(""));
        }
        self.held.push_str(key);
        self.state = ObjectState::Colon;
    }

    /// Sends a value that is complete. Of a string that was written on at once nothing is left to send.
    fn end_value(&mut self, out: &mut String) {
        self.send_held(out);
        out.push_str(self.scalar.json());
        self.state = ObjectState::AfterValue;
    }

    /// Ends the value that is being read, if enough of the value has come.
    fn end_scalar(&mut self, out: &mut String) {
        if !matches!(self.state, ObjectState::Text | ObjectState::Word) {
            return;
        }
        match self.scalar.finish(out) {
            ScalarProgress::More => {}
            ScalarProgress::Complete => self.end_value(out),
            ScalarProgress::Invalid => self.give_up(),
        }
    }

    fn open(&mut self, is_object: bool) {
        self.nesting.open(is_object);
        self.state = if is_object { ObjectState::FirstKey } else { ObjectState::FirstElement };
    }

    fn close_or_mend(&mut self, byte: u8, out: &mut String) {
        let closer = self.nesting.closer();
        if byte != closer {
            // One closer may be missing, if this byte closes the container around it.
            if self.nesting.outer_closer() != Some(byte) {
                self.give_up();
                return;
            }
            self.repairs += 1;
            self.close(closer, out);
        }
        self.close(byte, out);
    }

    fn close(&mut self, byte: u8, out: &mut String) {
        self.held.push(char::from(byte));
        if self.has_sent {
            out.push_str(&self.held);
            self.held.clear();
        }
        self.nesting.close();
        let is_outermost = self.nesting.depth() == 0;
        self.state = if is_outermost { ObjectState::Complete } else { ObjectState::AfterValue };
    }

    /// Sends the text that was held back, because its value begins or is complete.
    fn send_held(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
        self.has_sent = true;
        self.has_members |= self.nesting.depth() == 1;
    }

    /// Gives up understanding the text. The text that is held back is dropped; the raw text still contains it.
    fn give_up(&mut self) {
        self.held.clear();
        self.state = ObjectState::Broken;
    }

    /// Closes all containers except the outermost object, and adds the raw text to that object.
    fn write_raw(&mut self, raw: &str, out: &mut String) -> Outcome {
        if self.has_sent {
            self.close_down_to(1, out);
        } else {
            out.push('{');
        }
        if self.has_members {
            out.push(',');
        }
        out.extend(["\"", RAW_KEY, "\":", &Value::from(raw).to_json(), "}"]);
        Outcome::Raw
    }

    fn close_down_to(&mut self, depth: usize, out: &mut String) {
        while self.nesting.depth() > depth {
            out.push(char::from(self.nesting.closer()));
            self.nesting.close();
        }
    }
}

#[cfg(test)]
impl ObjectMachine {
    /// The bytes that are held back.
    pub(super) fn held_size(&self) -> usize {
        self.held.len() + self.scalar.json().len()
    }
}
