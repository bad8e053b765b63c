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
//! | Value, FirstElement, Element | a value's first byte | Text, Number, Literal, FirstKey or FirstElement |
//! | FirstElement | `]` | closed |
//! | Element | `]` | closed without the comma (a repair) |
//! | Text, Number, Literal | its end | AfterValue |
//! | AfterValue | `,` | Key or Element |
//! | AfterValue | `}` `]` | closed; where one closer is missing before it, that is added (a repair) |
//! | Complete | `{` after an empty object | Start: some servers send `{}` first and the arguments afterwards |
//! | Complete | else | ignored; the same object once more is expected, anything else is remembered |
//! | any | else | Broken: collected, and kept as raw text at the end |
//!
//! Closed means AfterValue, or Complete for the outermost object. White space is passed on inside the object
//! and dropped around it.

mod end;
mod machine;
mod number;
mod repetition;
mod schema;
#[cfg(test)]
mod tests;
mod text;

use crate::json;
use number::NumberState;
pub use schema::Schema;
use schema::Types;
use text::TextState;

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
    /// The text reached its own end. It is one object, however much was repaired inside it; or it is not an object but
    /// has balanced brackets, and the client gets it as raw text only.
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ArgumentsState {
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
    Number(NumberState),
    /// The literal as it is written and its JSON, and the number of its bytes that have come.
    Literal(&'static (&'static str, &'static str), usize),
    AfterValue,
    Complete,
    Other,
    Broken,
    Ended(Outcome),
}

/// The arguments of one tool call while they arrive.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    schema: Option<Schema>,
    state: ArgumentsState,
    /// The open containers, the innermost in the lowest bit; 1 is an object. [`DEPTH_MAX`] bits are needed.
    containers: u128,
    depth: usize,
    /// All text so far without leading white space. It is kept for the end, and to recognize servers that repeat
    /// themselves.
    raw: String,
    /// True if `raw` is full, and more text was dropped.
    is_cut: bool,
    /// The text that is not certain yet, in the order in which it will be sent.
    held: String,
    /// The range in `held` of the last key without its quotes, and the index where the value starts.
    key: std::ops::Range<usize>,
    value_start: usize,
    text: TextState,
    /// True if the string is written to `held`, not to the client.
    is_text_held: bool,
    /// The types that the schema allows for the current value.
    wanted: Types,
    has_sent: bool,
    /// True if a member of the outermost object was sent, so that the next one needs a comma.
    has_members: bool,
    /// A fragment that is either a nested object or a repetition of all arguments so far. The next fragment decides.
    doubtful: String,
    /// True if the server turned out to send all arguments so far with every fragment.
    is_cumulative: bool,
    /// The number of bytes of the same object that have come again after its end.
    repeated: usize,
    has_trailing: bool,
    repairs: usize,
    coercions: usize,
}

impl Arguments {
    /// Starts without arguments. Without a schema no value is coerced.
    pub fn new(schema: Option<Schema>) -> Self {
        Arguments { schema, ..Arguments::default() }
    }

    /// Takes a fragment, and appends the text that may be sent on, if any, to `out`.
    pub fn push(&mut self, fragment: &str, out: &mut String) {
        if fragment.is_empty() || matches!(self.state, ArgumentsState::Ended(_)) {
            return;
        }
        self.settle(Some(fragment), out);
        match self.news(fragment) {
            Some(news) => self.take(news, out),
            None => self.doubtful.push_str(fragment),
        }
    }

    fn take(&mut self, news: &str, out: &mut String) {
        let mut rest = self.fitting(news);
        let is_too_much = rest.len() < news.len();
        while !rest.is_empty() {
            let before = self.state;
            let taken = self.step(rest, out);
            let (consumed, left) = rest.split_at_checked(taken).unwrap_or((rest, ""));
            // Leading white space and text after the object do not belong to it.
            if self.state != ArgumentsState::Start && before != ArgumentsState::Complete {
                self.raw.push_str(consumed);
            }
            rest = left;
        }
        if is_too_much && self.state != ArgumentsState::Complete {
            self.end_value(out);
            self.break_off();
            self.is_cut = true;
        }
    }

    /// True if the text so far is one complete JSON object; further text will be ignored. False after the end.
    pub fn is_complete(&self) -> bool {
        self.state == ArgumentsState::Complete
    }

    /// True if the object has ended and cannot change: more text can only be a repetition or belong to another call. An
    /// empty object that was not sent on yet may still be a placeholder for the real one, so it does not count.
    pub fn takes_no_more(&self) -> bool {
        matches!(self.state, ArgumentsState::Ended(_))
            || (self.state == ArgumentsState::Complete && self.has_sent)
    }

    /// True if a fragment may belong to these arguments although it comes with the name and id that begin a call. It
    /// does not if it begins an object where none is allowed, or if it is empty and only closing brackets are missing.
    pub fn may_go_on_with(&self, fragment: &str) -> bool {
        let text = fragment.trim_start_matches(SPACES);
        match self.state {
            ArgumentsState::Start | ArgumentsState::KeyText | ArgumentsState::Text => true,
            ArgumentsState::Value | ArgumentsState::FirstElement | ArgumentsState::Element => true,
            ArgumentsState::AfterValue => !text.is_empty() && !text.starts_with('{'),
            _ => !text.starts_with('{'),
        }
    }

    /// True if nothing but white space has come.
    pub fn is_empty(&self) -> bool {
        self.state == ArgumentsState::Start
    }

    /// True if text other than the same object followed the complete object.
    pub fn has_trailing(&self) -> bool {
        self.has_trailing || self.repeated > 0
    }

    /// The number of values that were given the type that the schema wants.
    pub fn coercions(&self) -> usize {
        self.coercions
    }

    /// The number of repairs of the text itself.
    pub fn repairs(&self) -> usize {
        self.repairs + self.text.repairs()
    }

    /// The bytes of text that are held.
    pub fn size(&self) -> usize {
        self.raw.len() + self.doubtful.len()
    }

    /// All the text so far, as it came, up to [`RAW_SIZE_MAX`].
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Pushes all text so far into `other`.
    pub fn replay(&self, other: &mut Arguments, out: &mut String) {
        other.push(&self.raw, out);
        other.push(&self.doubtful, out);
    }

    /// Ends the arguments: appends the text that is missing to make an object. With `truncated` the call must not run,
    /// so an incomplete object is left incomplete, and no client takes it for a whole one: see [`Arguments::abandon`].
    pub fn finish(&mut self, truncated: bool, out: &mut String) -> Outcome {
        if !truncated {
            self.settle(None, out);
        }
        if truncated && !matches!(self.state, ArgumentsState::Complete | ArgumentsState::Ended(_)) {
            self.abandon(out);
            self.state = ArgumentsState::Ended(Outcome::Truncated);
            return Outcome::Truncated;
        }
        let outcome = match self.state {
            ArgumentsState::Ended(outcome) => outcome,
            ArgumentsState::Start => Outcome::Empty,
            ArgumentsState::Complete => {
                out.push_str(&self.held);
                self.mended_or(Outcome::Complete)
            }
            ArgumentsState::Other => self.finish_other(out),
            ArgumentsState::Broken => self.write_raw(out),
            _ => self.finish_object(out),
        };
        self.held.clear();
        self.state = ArgumentsState::Ended(outcome);
        outcome
    }

    /// Makes sure that the text that was sent cannot pass for a whole object, when no more will be sent. Appends `{` if
    /// nothing was sent yet, because clients read a tool use without any JSON as the empty object and run it.
    pub fn abandon(&mut self, out: &mut String) {
        if !self.has_sent && !matches!(self.state, ArgumentsState::Ended(_)) {
            self.has_sent = true;
            out.push('{');
        }
    }

    /// Appends the text that completes the object, which is `{}` if there were no arguments. Call it instead of
    /// [`Arguments::finish`], or after a `finish` that was not truncated.
    pub fn close(&mut self, out: &mut String) {
        if self.finish(false, out) == Outcome::Empty && !self.has_sent {
            self.has_sent = true;
            out.push_str("{}");
        }
    }

    /// True if the text is one valid array or object that is not nested too deep.
    fn is_legal_value(text: &str) -> bool {
        let mut arguments = Arguments { state: ArgumentsState::Value, ..Arguments::default() };
        arguments.push(text, &mut String::new());
        arguments.is_complete() && arguments.raw.len() == text.len() && arguments.repairs() == 0
    }

    /// True if the text is one valid object, or the beginning of one.
    fn is_legal_beginning(text: &str) -> bool {
        let mut arguments = Arguments::default();
        arguments.push(text, &mut String::new());
        let is_object = !matches!(arguments.state, ArgumentsState::Other | ArgumentsState::Broken);
        is_object && arguments.repairs() == 0 && !arguments.has_trailing()
    }

    /// The beginning of `text` that still fits into the raw text.
    fn fitting<'f>(&self, text: &'f str) -> &'f str {
        if matches!(self.state, ArgumentsState::Complete) {
            return text;
        }
        let room = if self.is_cut { 0 } else { RAW_SIZE_MAX.saturating_sub(self.raw.len()) };
        if text.len() <= room {
            return text;
        }
        let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.get(..end).unwrap_or("")
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
