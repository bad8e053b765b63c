//! The arguments of one tool call: turns fragments of text into pieces of a JSON object that a client may parse at any
//! time.
//!
//! The client's SDK parses all text so far after every piece, and gives up the whole turn if the text cannot become
//! JSON any more. So a pushdown machine reads every byte, sends on the bytes that are certain, and holds back the
//! others: a comma and a key until their value begins; a number, a literal or an escape until it is complete. The text
//! that was sent can therefore always be closed. String content is sent on at once. This module knows nothing of either
//! API's messages, and it never fails: text that is not an object is put, whole, into a member `_raw_arguments` of an
//! object, so that the client's schema check refuses the call and the model sees its own text.
//!
//! | state | next | then |
//! |---|---|---|
//! | Start | `{` | FirstKey |
//! | Start | else | Other: collected, and examined at the end |
//! | FirstKey | `"` / `}` | KeyText / closed |
//! | Key | `"` / `}` | KeyText / closed without the comma (a repair) |
//! | KeyText | closing quote | Colon |
//! | Colon | `:` | Value |
//! | Value, FirstElement, Element | a value's first byte | Text, Word, FirstKey or FirstElement |
//! | FirstElement | `]` | closed |
//! | Element | `]` | closed without the comma (a repair) |
//! | Text, Word | its end | AfterValue |
//! | AfterValue | `,` | Key or Element |
//! | AfterValue | `}` `]` | closed; where one closer is missing before it, that is added (a repair) |
//! | Complete | `{` after an empty object | Start: some servers send `{}` first and the arguments afterwards |
//! | Complete | else | ignored; the same object once more is expected, anything else is remembered |
//! | any | else | Broken: collected, and kept as raw text at the end |
//!
//! Closed means AfterValue, or Complete for the outermost object. A Word is a number or a literal. White space is passed
//! on inside the object and dropped around it.
//!
//! | part | duty |
//! |---|---|
//! | `machine` | the table above; completes the object at the end |
//! | `nesting` | the open arrays and objects |
//! | `scalar`, with `text` and `number` | one string, number or literal, and the type that `schema` wants |
//! | `raw` | all text so far |
//! | `repetition` | text that the server sends again |
//! | `end` | how far the text had come |
//! | `fit` | whole arguments of a call that was found in text, and whether they fit the schema |

mod end;
mod fit;
mod machine;
mod nesting;
mod number;
mod raw;
mod repetition;
mod scalar;
mod schema;
#[cfg(test)]
mod tests;
mod text;

use crate::json;
pub(in crate::translate) use fit::fit;
use machine::{ObjectMachine, ObjectState};
use raw::RawText;
use repetition::ResentText;
pub use schema::Schema;

/// The most raw text that is kept, in bytes: half of the largest request, and far more than any answer has.
pub const RAW_SIZE_MAX: usize = 16 << 20;

/// The deepest nesting of the arguments. It is less than [`json::DEPTH_MAX`], because the client sends the object back
/// inside a request, where it stands five levels deep.
pub const DEPTH_MAX: usize = json::DEPTH_MAX - 8;

/// The member that carries text which could not be understood.
pub const RAW_KEY: &str = "_raw_arguments";

/// White space in JSON.
pub(super) const SPACES: [char; 4] = [' ', '\t', '\n', '\r'];

/// How far the model's own text had come when the fragments ended, as returned by [`Arguments::ending`]. Whether a call
/// in that state may run is decided in `finish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The text reached its own end. It is one object, however much was repaired inside it; or it is not an object, such
    /// as a number or plain text, nothing shows that a part is missing, and the client gets it as raw text only.
    Whole,
    /// Only closing brackets are missing after a complete value, or no arguments came at all.
    Unclosed,
    /// The text ends inside a string, a number, a literal or a key, or after a colon, a comma or an opening bracket; or
    /// a part of it was sent before the text became invalid. The rest is unknown, so the call must not run.
    Cut,
}

/// The way the arguments ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One object, as the model wrote it, except for coerced values.
    Complete,
    /// Nothing, white space or `null`; nothing was sent.
    Empty,
    /// One object that had to be repaired.
    Repaired,
    /// Not an object; the object that was sent carries the raw text.
    Raw,
    /// An incomplete object was sent and is never completed, so that no client runs the call.
    Truncated,
}

/// The arguments of one tool call while they arrive.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    machine: ObjectMachine,
    raw: RawText,
    resent: ResentText,
    /// How many times the object was encoded as a string.
    encodings: usize,
    outcome: Option<Outcome>,
}

impl Arguments {
    /// Starts without arguments. Without a schema no value is coerced.
    pub fn new(schema: Option<Schema>) -> Self {
        Arguments { machine: ObjectMachine::new(schema), ..Arguments::default() }
    }

    /// Takes a fragment, and appends the text that may be sent on, if any, to `out`.
    pub fn push(&mut self, fragment: &str, out: &mut String) {
        if fragment.is_empty() || self.outcome.is_some() {
            return;
        }
        self.settle(Some(fragment), out);
        if let Some(news) = self.resent.news(fragment, self.raw.as_str(), self.machine.state()) {
            self.take(news, out);
        }
    }

    /// Takes the waiting fragment, if there is one, now that the next one, or the end, decides what it is.
    fn settle(&mut self, next: Option<&str>, out: &mut String) {
        if let Some(news) = self.resent.settle(next, self.raw.as_str()) {
            self.take(&news, out);
        }
    }

    fn take(&mut self, news: &str, out: &mut String) {
        let is_behind = self.machine.state() == ObjectState::Complete;
        let mut rest = if is_behind { news } else { self.raw.fitting(news) };
        let is_too_much = rest.len() < news.len();
        while !rest.is_empty() {
            let is_behind = self.machine.state() == ObjectState::Complete;
            let taken = if is_behind { self.pass_over(rest) } else { self.machine.step(rest, out) };
            let (consumed, left) = rest.split_at_checked(taken).unwrap_or((rest, ""));
            // Leading white space and text after the object do not belong to it.
            if !is_behind && self.machine.state() != ObjectState::Start {
                self.raw.push(consumed);
            }
            rest = left;
        }
        if is_too_much && self.machine.state() != ObjectState::Complete {
            self.machine.break_off(out);
        }
    }

    /// Takes text after the complete object, and returns its size up to the object that replaces an empty one.
    fn pass_over(&mut self, rest: &str) -> usize {
        let at = self.resent.pass_over(rest, self.raw.as_str(), !self.machine.has_sent());
        if let Some(object) = rest.get(at..).filter(|object| !object.is_empty()) {
            self.raw.clear();
            self.machine.step(object, &mut String::new());
        }
        at
    }

    /// True if the text so far is one complete JSON object; further text will be ignored. False after the end.
    pub fn is_complete(&self) -> bool {
        self.outcome.is_none() && self.machine.state() == ObjectState::Complete
    }

    /// True if the object has ended and cannot change: more text can only be a repetition or belong to another call. An
    /// empty object that was not sent on yet may still be a placeholder for the real one, so it does not count.
    pub fn takes_no_more(&self) -> bool {
        self.outcome.is_some() || (self.is_complete() && self.machine.has_sent())
    }

    /// True if a fragment may belong to these arguments although it comes with the name and id that begin a call. It
    /// does not if it begins an object where none is allowed, or if it is empty and only closing brackets are missing.
    pub fn may_go_on_with(&self, fragment: &str) -> bool {
        let text = fragment.trim_start_matches(SPACES);
        match self.machine.state() {
            _ if self.outcome.is_some() => !text.starts_with('{'),
            ObjectState::Start | ObjectState::KeyText | ObjectState::Text => true,
            ObjectState::Value | ObjectState::FirstElement | ObjectState::Element => true,
            ObjectState::AfterValue => !text.is_empty() && !text.starts_with('{'),
            _ => !text.starts_with('{'),
        }
    }

    /// True if nothing but white space has come.
    pub fn is_empty(&self) -> bool {
        self.outcome.is_none() && self.machine.state() == ObjectState::Start
    }

    /// The number of values that were given the type that the schema wants, and of repairs of the text itself.
    pub fn changes(&self) -> (usize, usize) {
        let (coercions, repairs) = self.machine.changes();
        (coercions, repairs + self.encodings)
    }

    /// The bytes of text that are held.
    pub fn size(&self) -> usize {
        self.raw.as_str().len() + self.resent.doubtful().len()
    }

    /// All the text so far, as it came, up to [`RAW_SIZE_MAX`].
    pub fn raw(&self) -> &str {
        self.raw.as_str()
    }

    /// Pushes all text so far into `other`.
    pub fn replay(&self, other: &mut Arguments, out: &mut String) {
        other.push(self.raw.as_str(), out);
        other.push(self.resent.doubtful(), out);
    }

    /// How far the text had come. Call it at the end of the fragments, before [`Arguments::finish`]. Appends to `out`
    /// the text that may be sent on.
    ///
    /// With `is_told_cut` there is evidence that the answer was cut. Then a fragment that may be a repetition of all
    /// arguments is not taken for one, and text that is not an object does not count as whole.
    pub fn ending(&mut self, is_told_cut: bool, out: &mut String) -> Ending {
        if !is_told_cut {
            self.settle(None, out);
        }
        let raw = self.raw.as_str();
        match (self.outcome, self.machine.state()) {
            (Some(Outcome::Truncated), _) => Ending::Cut,
            (Some(_), _) | (None, ObjectState::Complete) => Ending::Whole,
            (None, ObjectState::Start | ObjectState::AfterValue) => Ending::Unclosed,
            (None, ObjectState::Other) => end::ending_of_other(raw, is_told_cut || self.raw.is_cut()),
            // No part of the text was sent, so no part can run: the client gets the raw text and refuses it.
            (None, ObjectState::Broken)
                if !is_told_cut
                    && !self.machine.has_sent()
                    && !self.raw.is_cut()
                    && end::is_balanced(raw) =>
            {
                Ending::Whole
            }
            // A number at the very end of the text may have been about to get longer.
            _ => Ending::Cut,
        }
    }

    /// Ends the arguments: appends the text that is missing to make an object. With `truncated` the call must not run,
    /// so an incomplete object is left incomplete, and no client takes it for a whole one: see [`Arguments::abandon`].
    pub fn finish(&mut self, truncated: bool, out: &mut String) -> Outcome {
        if let Some(outcome) = self.outcome {
            return outcome;
        }
        if !truncated {
            self.settle(None, out);
        }
        let outcome = match self.machine.state() {
            ObjectState::Complete => self.machine.finish(self.raw.as_str(), out),
            _ if truncated => {
                self.machine.abandon(out);
                Outcome::Truncated
            }
            ObjectState::Start => Outcome::Empty,
            ObjectState::Other => self.finish_other(out),
            _ => self.machine.finish(self.raw.as_str(), out),
        };
        self.outcome = Some(outcome);
        outcome
    }

    /// Handles text that does not begin as an object: it may be empty, or an object inside a string. Anything else is
    /// sent as raw text.
    fn finish_other(&mut self, out: &mut String) -> Outcome {
        let raw = self.raw.as_str().trim_end_matches(SPACES);
        if end::is_null(raw) {
            return Outcome::Empty;
        }
        // Each level of encoding doubles the backslashes, so this recursion is shallow.
        if let Some(text) = schema::decode(raw).or_else(|| schema::decode(&format!("{raw}\""))) {
            let mut inner = Arguments::new(self.machine.schema().cloned());
            let mut object = String::new();
            inner.push(&text, &mut object);
            let outcome = inner.finish(false, &mut object);
            if outcome != Outcome::Raw {
                out.push_str(&object);
                self.encodings = inner.encodings + 1;
                self.machine = inner.machine;
                return if outcome == Outcome::Empty { outcome } else { Outcome::Repaired };
            }
        }
        self.machine.finish(self.raw.as_str(), out)
    }

    /// Makes sure that the text that was sent cannot pass for a whole object, when no more will be sent. Appends `{` if
    /// nothing was sent yet, because clients read a tool use without any JSON as the empty object and run it.
    pub fn abandon(&mut self, out: &mut String) {
        if self.outcome.is_none() {
            self.machine.abandon(out);
        }
    }

    /// True if the text is one valid object, or the beginning of one.
    fn is_legal_beginning(text: &str) -> bool {
        let mut arguments = Arguments::default();
        arguments.push(text, &mut String::new());
        let is_object = !matches!(arguments.machine.state(), ObjectState::Other | ObjectState::Broken);
        is_object && arguments.changes().1 == 0 && !arguments.resent.has_trailing()
    }
}

/// True if the text is one valid array or object that is not nested too deep.
fn is_legal_value(text: &str) -> bool {
    let mut machine = ObjectMachine::of_value();
    let (mut rest, mut out) = (text, String::new());
    while !rest.is_empty() && machine.state() != ObjectState::Complete {
        let taken = machine.step(rest, &mut out);
        rest = rest.get(taken..).unwrap_or_default();
    }
    machine.state() == ObjectState::Complete && rest.is_empty() && machine.changes().1 == 0
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
