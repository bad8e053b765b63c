//! Follows the text of one call, or of several, in the form of one family.
//!
//! | place | next | then |
//! |---|---|---|
//! | Frame | white space | Frame |
//! | Frame | a word that opens a section, separates or closes | Frame |
//! | Frame | a word that opens a call | the first step of the body |
//! | Frame, after a call | a token that ends the turn | Frame |
//! | Step | its text | the next step; after the last one Frame, with one more call |
//! | any | else | the text is not a call in this form |
//!
//! The text may end wherever the place is Frame and at least one call has come.

use super::families::{CallFamily, SEPARATORS, TURN_ENDS};
use super::found::{FoundCall, FoundText, push_calls};
use super::offered::OfferedTools;
use super::readers::{CallKey, END, Keep, Step, ValueEvent, ValueReader, call_key};

/// The longest name of a tool or an argument, with the tokens around it, in bytes.
const NAME_SIZE_MAX: usize = 256;

/// The most calls in one answer, and the most pieces of them: names, keys and values.
const CALLS_MAX: usize = 256;
const PIECES_MAX: usize = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FormPlace {
    Frame,
    /// At a step of the body.
    Step(u8),
}

/// A piece of a call: its use, and where it stands in the text.
type Piece = (Keep, usize, usize);

/// The state of one form.
#[derive(Debug)]
pub(super) struct CallForm {
    family: &'static CallFamily,
    place: FormPlace,
    /// Where the word, the text or the value begins that is read; the next place if none has begun.
    start: usize,
    /// Where the name ends that is read, once it has ended.
    name_end: Option<usize>,
    value: ValueReader,
    /// The meaning of the member that is read, in a call as a JSON object.
    member: Option<CallKey>,
    pieces: Vec<Piece>,
    calls: usize,
    is_in_section: bool,
    /// A section has begun in which no call has come yet.
    is_section_empty: bool,
    /// A word that closes the last call may come.
    may_close: bool,
    /// The turn has ended: only more such tokens may come.
    has_ended: bool,
}

/// The result of a word's next byte.
enum Word<T> {
    Found(&'static str, T),
    Part,
    Wrong,
}

/// The meaning of a word of the frame.
#[derive(Clone, Copy)]
enum FrameWord {
    Section,
    SectionEnd,
    Open,
    Close,
    Separator,
    TurnEnd,
}

impl CallForm {
    /// A form for text that begins at the place `start`.
    pub(super) fn new(family: &'static CallFamily, start: usize) -> Self {
        CallForm {
            family,
            place: FormPlace::Frame,
            start,
            name_end: None,
            value: ValueReader::new(false, 0),
            member: None,
            pieces: Vec::new(),
            calls: 0,
            is_in_section: false,
            is_section_empty: false,
            may_close: false,
            has_ended: false,
        }
    }

    pub(super) fn family(&self) -> &'static CallFamily {
        self.family
    }

    /// Takes the byte at the place `at` of `text`. Returns false if the text is not a call in this form.
    pub(super) fn push(&mut self, text: &[u8], at: usize, tools: &dyn OfferedTools) -> bool {
        let Some(&byte) = text.get(at) else { return false };
        let step = match self.place {
            FormPlace::Frame => None,
            FormPlace::Step(step) => match self.family.body.get(usize::from(step)) {
                None => return false,
                step => step,
            },
        };
        // White space may stand before everything but a text, to which it belongs.
        let is_text = matches!(step, Some(Step::Until(keep, _)) if !matches!(keep, Keep::Name | Keep::Key));
        if self.start == at && byte.is_ascii_whitespace() && !is_text {
            self.start = at + 1;
            return true;
        }
        match step {
            None => self.frame(text, at, tools),
            Some(Step::Words(words)) => self.words(text, at, words),
            Some(Step::Until(keep, words)) if is_text => self.until(text, at, *keep, words),
            Some(Step::Until(keep, words)) => self.name(text, at, (*keep, words), tools),
            Some(Step::Json(keep, begin, next)) => self.json(text, at, (*keep, begin, *next), tools),
            Some(Step::Python(next)) => self.python(text, at, *next, tools),
        }
    }

    /// Follows its text to an earlier place: this many bytes before it were removed.
    pub(super) fn shift(&mut self, removed: usize) {
        self.start -= removed;
        self.name_end = self.name_end.map(|end| end - removed);
        self.value.shift(removed);
        for (_, start, end) in &mut self.pieces {
            *start -= removed;
            *end -= removed;
        }
    }

    /// True if the text may end here, at this size.
    pub(super) fn is_complete(&self, size: usize) -> bool {
        self.place == FormPlace::Frame && self.calls > 0 && self.start == size && !self.is_section_empty
    }

    /// The calls in the text. `None` if one of them is not valid.
    pub(super) fn calls(&self, text: &str) -> Option<Vec<FoundCall>> {
        let mut calls: Vec<FoundCall> = Vec::new();
        let mut key = "";
        for &(keep, start, end) in &self.pieces {
            let piece = text.get(start..end)?;
            match keep {
                Keep::Calls => push_calls(piece, &mut calls)?,
                Keep::Name => calls.push(FoundCall::new(piece)),
                Keep::Key => key = piece,
                Keep::Nothing => {}
                Keep::Arguments => calls.last_mut()?.set_json(piece),
                Keep::Text => calls.last_mut()?.push(key, FoundText::Typed(piece.to_owned())),
                Keep::Lines => calls.last_mut()?.push(key, FoundText::Typed(without_newlines(piece))),
                Keep::Exact => calls.last_mut()?.push(key, FoundText::Exact(piece.to_owned())),
                Keep::Python => calls.last_mut()?.push_python(key, piece).then_some(())?,
            }
        }
        (!calls.is_empty() && calls.len() <= CALLS_MAX).then_some(calls)
    }

    /// The words that may come in the frame.
    fn frame_words(&self) -> impl Iterator<Item = (&'static str, FrameWord)> + use<> {
        let family = self.family;
        let (has_called, has_ended, may_close) = (self.calls > 0, self.has_ended, self.may_close);
        let all = |words: &'static [&'static str], meaning, is_possible: bool| {
            words.iter().filter(move |_| is_possible).map(move |word| (*word, meaning))
        };
        // A bracket opens only where the section has begun, so that not every list is taken for calls.
        let has_section = family.section.is_empty() || self.is_in_section;
        let open = all(family.open, FrameWord::Open, !has_ended)
            .filter(move |(word, _)| !word.is_empty() && (has_section || !is_bracket(word)));
        all(family.section, FrameWord::Section, !has_ended)
            .chain(open)
            .chain(all(family.close, FrameWord::Close, may_close))
            .chain(all(family.section_end, FrameWord::SectionEnd, has_called))
            .chain(all(SEPARATORS, FrameWord::Separator, has_called && !has_ended))
            .chain(all(TURN_ENDS, FrameWord::TurnEnd, has_called))
    }

    fn frame(&mut self, text: &[u8], at: usize, tools: &dyn OfferedTools) -> bool {
        let (word, meaning) = match next_word(text, self.start, at, self.frame_words()) {
            Word::Found(word, meaning) => (word, meaning),
            Word::Part => return true,
            Word::Wrong => {
                let opens = self.start == at && !self.has_ended && self.family.open.contains(&"");
                let is_open = opens && (self.family.section.is_empty() || self.is_in_section);
                return is_open && self.go(0, at) && self.push(text, at, tools);
            }
        };
        self.start = at + 1;
        match meaning {
            FrameWord::Section => (self.is_in_section, self.is_section_empty) = (true, true),
            FrameWord::SectionEnd => self.is_in_section = false,
            FrameWord::Close => self.may_close = false,
            FrameWord::Separator => {}
            FrameWord::TurnEnd => self.has_ended = true,
            FrameWord::Open => {
                let is_in_body = is_bracket(word);
                return self.go(0, if is_in_body { at } else { at + 1 })
                    && (!is_in_body || self.push(text, at, tools));
            }
        }
        true
    }

    /// Goes to a step, whose text begins at `start`. Returns false if there are too many calls or pieces.
    fn go(&mut self, next: u8, start: usize) -> bool {
        self.start = start;
        self.name_end = None;
        if next == END {
            self.calls += 1;
            self.is_section_empty = false;
            self.may_close = true;
            self.place = FormPlace::Frame;
        } else {
            self.place = FormPlace::Step(next);
        }
        self.calls <= CALLS_MAX && self.pieces.len() <= PIECES_MAX
    }

    fn words(&mut self, text: &[u8], at: usize, words: &'static [(&'static str, u8)]) -> bool {
        match next_word(text, self.start, at, words.iter().copied()) {
            Word::Found(_, next) => self.go(next, at + 1),
            Word::Part => true,
            Word::Wrong => false,
        }
    }

    /// Reads the name of a tool or an argument. Blank space and control tokens may follow it.
    fn name(
        &mut self,
        text: &[u8],
        at: usize,
        (keep, words): (Keep, &'static [(&'static str, u8)]),
        tools: &dyn OfferedTools,
    ) -> bool {
        let Some(&byte) = text.get(at) else { return false };
        if self.name_end.is_none() {
            if is_in_name(char::from(byte)) {
                let is_short = at - self.start < NAME_SIZE_MAX;
                // The last character may not be whole yet.
                let so_far = text.get(self.start..=at).and_then(|name| std::str::from_utf8(name).ok());
                let is_possible = keep == Keep::Key || so_far.is_none_or(|name| tools.may_offer(name));
                return is_short && is_possible;
            }
            self.name_end = Some(at);
            let name = text.get(self.start..at).unwrap_or_default();
            if keep == Keep::Name && !std::str::from_utf8(name).is_ok_and(|name| tools.offers(name)) {
                return false;
            }
        }
        let end = self.name_end.unwrap_or(at);
        let behind = text.get(end..=at).unwrap_or_default();
        if let Some((word, next)) = words.iter().find(|(word, _)| behind.ends_with(word.as_bytes())) {
            let is_empty = end == self.start;
            // Only the list of arguments may be empty: `f()`.
            if is_empty != (*word == ")") {
                return false;
            }
            if !is_empty {
                self.pieces.push((keep, self.start, end));
            }
            let is_body = *word == "{";
            return self.go(*next, if is_body { at } else { at + 1 })
                && (!is_body || self.push(text, at, tools));
        }
        let is_word = |behind: &[u8]| words.iter().any(|(word, _)| word.as_bytes().starts_with(behind));
        let trimmed = behind.trim_ascii_start();
        let is_token = keep == Keep::Name && trimmed.first() == Some(&b'<');
        (is_word(behind) || is_word(trimmed) || is_token) && at - self.start < NAME_SIZE_MAX
    }

    fn until(&mut self, text: &[u8], at: usize, keep: Keep, words: &'static [(&'static str, u8)]) -> bool {
        let so_far = text.get(self.start..=at).unwrap_or_default();
        let Some((word, next)) = words.iter().find(|(word, _)| so_far.ends_with(word.as_bytes())) else {
            return true;
        };
        self.pieces.push((keep, self.start, at + 1 - word.len()));
        self.go(*next, at + 1)
    }

    fn json(
        &mut self,
        text: &[u8],
        at: usize,
        (keep, begin, next): (Keep, &[u8], u8),
        tools: &dyn OfferedTools,
    ) -> bool {
        let Some(&byte) = text.get(at) else { return false };
        if self.start == at {
            if !begin.contains(&byte) {
                return false;
            }
            // The members of a call are reported: those of the object, or of each object in the array.
            let level = if keep == Keep::Calls { 1 + u32::from(byte == b'[') } else { 0 };
            self.begin_value(ValueReader::new(false, level));
        }
        let is_between = keep == Keep::Calls && self.value.depth() == 1;
        let is_list = text.get(self.start) == Some(&b'[');
        let may_stand = byte.is_ascii_whitespace() || matches!(byte, b'{' | b',' | b']');
        if is_between && is_list && !may_stand {
            return false;
        }
        let told = |start: usize| std::str::from_utf8(text.get(start..at).unwrap_or_default()).unwrap_or("");
        match self.value.push(byte, at) {
            ValueEvent::More => true,
            ValueEvent::Key(start) => {
                self.member = call_key(told(start));
                self.member.is_some()
            }
            ValueEvent::Text(start) => {
                let is_name = matches!(self.member, Some(CallKey::Name | CallKey::Function));
                !is_name || tools.offers(told(start))
            }
            ValueEvent::Done => {
                self.pieces.push((keep, self.start, at + 1));
                self.go(next, at + 1)
            }
            ValueEvent::DoneBefore | ValueEvent::Dead => false,
        }
    }

    fn python(&mut self, text: &[u8], at: usize, next: u8, tools: &dyn OfferedTools) -> bool {
        let Some(&byte) = text.get(at) else { return false };
        if self.start == at {
            self.begin_value(ValueReader::new(true, 0));
        }
        let (end, is_before) = match self.value.push(byte, at) {
            ValueEvent::Done => (at + 1, false),
            ValueEvent::DoneBefore => (at, true),
            ValueEvent::Dead => return false,
            ValueEvent::More | ValueEvent::Key(_) | ValueEvent::Text(_) => return true,
        };
        self.pieces.push((Keep::Python, self.start, end));
        self.go(next, end) && (!is_before || self.push(text, at, tools))
    }

    fn begin_value(&mut self, reader: ValueReader) {
        self.value = reader;
        self.member = None;
    }
}

/// Compares the text from `start` up to and with the byte at `at` with words.
fn next_word<T>(
    text: &[u8],
    start: usize,
    at: usize,
    words: impl Iterator<Item = (&'static str, T)>,
) -> Word<T> {
    let so_far = text.get(start..=at).unwrap_or_default();
    let mut is_part = false;
    for (word, meaning) in words {
        if word.as_bytes() == so_far {
            return Word::Found(word, meaning);
        }
        is_part |= word.as_bytes().starts_with(so_far);
    }
    if is_part { Word::Part } else { Word::Wrong }
}

/// True if a name may have this character.
pub(super) fn is_in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/') || !c.is_ascii()
}

/// True if the word belongs to the body that it opens.
fn is_bracket(word: &str) -> bool {
    matches!(word, "{" | "[")
}

/// The text without the line break at each end that the form puts around a value: `\n`, or `\r\n` from some models.
fn without_newlines(text: &str) -> String {
    let text = text.strip_prefix("\r\n").or_else(|| text.strip_prefix('\n')).unwrap_or(text);
    text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text).to_owned()
}
