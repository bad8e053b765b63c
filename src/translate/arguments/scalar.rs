//! One string, number or literal: reads it, and gives it the type that the schema wants.
//!
//! A string that needs no other type is written on at once. Everything else is held until it is complete, because its
//! text may still become invalid or change its type. This module does not know where the value stands.

use super::is_space;
use super::number::{self, NumberState};
use super::schema::{self, Types};
use super::text::TextState;

/// JSON's literals, and Python's, which small models write. Each stands beside its JSON.
static LITERALS: [(&str, &str); 6] = [
    ("true", "true"),
    ("false", "false"),
    ("null", "null"),
    ("True", "true"),
    ("False", "false"),
    ("None", "null"),
];

#[derive(Clone, Copy, Debug, Default)]
enum ScalarForm {
    /// A string that is written on at once.
    #[default]
    Passing,
    /// A string that is held.
    Held,
    Number(NumberState),
    /// The literal as it is written and its JSON, and the number of its bytes that have come.
    Literal(&'static (&'static str, &'static str), u8),
}

/// The kind of a value, as its first byte tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScalarKind {
    /// A string that is written on at once.
    PassingText,
    HeldText,
    /// A number or a literal.
    Word,
}

/// How far a value has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScalarProgress {
    More,
    Complete,
    /// The next byte cannot follow, or the value is not allowed.
    Invalid,
}

/// One value. The same one is used for all values of a text, one after another.
#[derive(Clone, Debug, Default)]
pub(super) struct ScalarText {
    form: ScalarForm,
    /// The types that the schema allows.
    wanted: Types,
    text: TextState,
    /// The JSON of the value, as far as it is held.
    json: String,
    coercions: usize,
    /// The literals that were not JSON's.
    repairs: usize,
}

impl ScalarText {
    /// Begins a value with its first byte. `None`: no value begins so. The caller writes the opening quote of a string
    /// that is written on at once.
    pub(super) fn begin(&mut self, byte: u8, wanted: Types) -> Option<ScalarKind> {
        self.wanted = wanted;
        self.json.clear();
        if byte == b'"' && wanted.admit_string() {
            self.form = ScalarForm::Passing;
            return Some(ScalarKind::PassingText);
        }
        if byte == b'"' {
            self.json.push('"');
            self.form = ScalarForm::Held;
            return Some(ScalarKind::HeldText);
        }
        self.form = match NumberState::start(byte) {
            Some(number) => {
                self.json.push(char::from(byte));
                ScalarForm::Number(number)
            }
            None => {
                let begins = |(word, _): &&(&str, &str)| word.as_bytes().first() == Some(&byte);
                ScalarForm::Literal(LITERALS.iter().find(begins)?, 1)
            }
        };
        Some(ScalarKind::Word)
    }

    /// Begins a key, which is held and keeps its type.
    pub(super) fn begin_key(&mut self) {
        self.wanted = Types::ALL;
        self.json.clear();
        self.json.push('"');
        self.form = ScalarForm::Held;
    }

    /// Takes more of the value, and returns the number of bytes that it took. A string that is written on at once goes
    /// to `out`.
    pub(super) fn push(&mut self, rest: &str, out: &mut String) -> (usize, ScalarProgress) {
        match self.form {
            ScalarForm::Passing => match self.text.push(rest, out) {
                Some(taken) => (taken, ScalarProgress::Complete),
                None => (rest.len(), ScalarProgress::More),
            },
            ScalarForm::Held => match self.text.push(rest, &mut self.json) {
                Some(taken) => (taken, self.end_text()),
                None => (rest.len(), ScalarProgress::More),
            },
            ScalarForm::Number(number) => self.number(number, rest),
            ScalarForm::Literal(literal, matched) => self.literal(literal, matched, rest),
        }
    }

    /// Ends the value where the text ends. `More`: too little of it has come.
    pub(super) fn finish(&mut self, out: &mut String) -> ScalarProgress {
        match self.form {
            ScalarForm::Passing => {
                self.text.finish(out);
                ScalarProgress::Complete
            }
            ScalarForm::Held => {
                self.text.finish(&mut self.json);
                self.end_text()
            }
            ScalarForm::Number(number) if number.is_whole() => self.end_number(),
            ScalarForm::Number(_) => ScalarProgress::More,
            ScalarForm::Literal(literal, _) => self.end_literal(literal),
        }
    }

    /// The JSON that is held.
    pub(super) fn json(&self) -> &str {
        &self.json
    }

    /// The number of values that were coerced, and of repairs.
    pub(super) fn changes(&self) -> (usize, usize) {
        (self.coercions, self.repairs + self.text.repairs())
    }

    fn end_text(&mut self) -> ScalarProgress {
        let inside = self.json.get(1..self.json.len() - 1).unwrap_or("");
        if !self.wanted.admit_string()
            && let Some(json) = self.wanted.value_in(&schema::unescape(inside)).map(str::to_string)
        {
            self.coercions += 1;
            self.json = json;
        }
        ScalarProgress::Complete
    }

    fn number(&mut self, mut number: NumberState, rest: &str) -> (usize, ScalarProgress) {
        for (at, byte) in rest.bytes().enumerate() {
            match number.next(byte) {
                Some(next) => {
                    number = next;
                    self.json.push(char::from(byte));
                }
                None if number.is_whole() && (is_space(byte) || b",]}".contains(&byte)) => {
                    return (at, self.end_number());
                }
                None => return (at, ScalarProgress::Invalid),
            }
        }
        self.form = ScalarForm::Number(number);
        (rest.len(), ScalarProgress::More)
    }

    fn end_number(&mut self) -> ScalarProgress {
        if !number::is_finite(&self.json) {
            return ScalarProgress::Invalid;
        }
        if self.wanted.admit_only_string() {
            self.coercions += 1;
            self.json.insert(0, '"');
            self.json.push('"');
        }
        ScalarProgress::Complete
    }

    fn literal(
        &mut self,
        literal: &'static (&'static str, &'static str),
        matched: u8,
        rest: &str,
    ) -> (usize, ScalarProgress) {
        let due = literal.0.as_bytes().get(usize::from(matched)..).unwrap_or_default();
        let count = due.iter().zip(rest.as_bytes()).take_while(|(due, byte)| due == byte).count();
        self.form =
            ScalarForm::Literal(literal, matched.saturating_add(u8::try_from(count).unwrap_or(u8::MAX)));
        if count == due.len() {
            (count, self.end_literal(literal))
        } else if count == rest.len() {
            (count, ScalarProgress::More)
        } else {
            (count, ScalarProgress::Invalid)
        }
    }

    fn end_literal(&mut self, (word, json): &(&str, &str)) -> ScalarProgress {
        self.repairs += usize::from(word != json);
        if self.wanted.admit_only_string() && *json != "null" {
            self.coercions += 1;
            self.json.extend(["\"", *json, "\""]);
        } else {
            self.json.push_str(json);
        }
        ScalarProgress::Complete
    }
}
