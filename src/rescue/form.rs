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
//!
//! A form that is only text goes on in the same way, but gives no call: its tag is quoted, one of its calls names a tool that
//! is not offered, or there are too many calls. So the calls in its arguments, and those next to it, are known to be text.

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
    /// The step that has read the last value of the call, if its tag has closed it.
    value_step: Option<u8>,
    /// The text stays text, though it has the form of a call.
    is_text: bool,
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
    /// A form for text that begins at the place `start`. With `is_text` it stays text, whatever comes.
    pub(super) fn new(family: &'static CallFamily, start: usize, is_text: bool) -> Self {
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
            value_step: None,
            is_text,
        }
    }

    pub(super) fn family(&self) -> &'static CallFamily {
        self.family
    }

    /// True if the text stays text, whatever comes: it has the form of a call, but is quoted or names another tool.
    pub(super) fn is_text(&self) -> bool {
        self.is_text
    }

    /// The end of a name of a form that is only text, where the tag behind it is not whole yet: it may open another call.
    pub(super) fn unsure_from(&self) -> Option<usize> {
        self.name_end.filter(|_| self.is_text)
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
            Some(Step::Until(keep, words)) if is_text => {
                self.until(text, at, *keep, words);
                true
            }
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
        let is_ended = self.place == FormPlace::Frame && self.start == size && !self.is_section_empty;
        is_ended && self.calls > 0 && !self.is_text
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
        let (has_called, may_close) = (self.calls > 0, self.may_close);
        let all = |words: &'static [&'static str], meaning, is_possible: bool| {
            words.iter().filter(move |_| is_possible).map(move |word| (*word, meaning))
        };
        // A bracket opens only where the section has begun, so that not every list is taken for calls. Behind a call it may
        // be the first byte of the next section.
        let has_section = family.section.is_empty() || self.is_in_section;
        let is_behind = has_called && !self.is_section_empty;
        let is_section =
            move |word: &str| is_behind && family.section.iter().any(|section| section.starts_with(word));
        let open = all(family.open, FrameWord::Open, true).filter(move |(word, _)| {
            !word.is_empty() && (!is_bracket(word) || has_section && !is_section(word))
        });
        all(family.section, FrameWord::Section, true)
            .chain(open)
            .chain(all(family.close, FrameWord::Close, may_close))
            .chain(all(family.section_end, FrameWord::SectionEnd, has_called))
            .chain(all(SEPARATORS, FrameWord::Separator, has_called))
            .chain(all(TURN_ENDS, FrameWord::TurnEnd, has_called))
    }

    fn frame(&mut self, text: &[u8], at: usize, tools: &dyn OfferedTools) -> bool {
        let (word, meaning) = match next_word(text, self.start, at, self.frame_words()) {
            Word::Found(word, meaning) => (word, meaning),
            Word::Part => return true,
            Word::Wrong => {
                let opens = self.start == at && !self.has_ended && self.family.open.contains(&"");
                let is_open = opens && (self.family.section.is_empty() || self.is_in_section);
                return is_open && self.go_at(0, text, at, tools);
            }
        };
        self.start = at + 1;
        match meaning {
            FrameWord::Section => {
                self.notice_more();
                (self.is_in_section, self.is_section_empty) = (true, true);
            }
            FrameWord::SectionEnd => self.is_in_section = false,
            FrameWord::Close => self.may_close = false,
            FrameWord::Separator => self.notice_more(),
            FrameWord::TurnEnd => self.has_ended = true,
            FrameWord::Open => {
                self.notice_more();
                if is_bracket(word) {
                    return self.go_at(0, text, at, tools);
                }
                self.go(0, at + 1);
            }
        }
        true
    }

    /// Goes to a step, whose text begins at `start`.
    fn go(&mut self, next: u8, start: usize) {
        self.start = start;
        self.name_end = None;
        if next == END {
            self.value_step = None;
            self.calls += 1;
            self.is_section_empty = false;
            self.may_close = true;
            self.place = FormPlace::Frame;
        } else {
            self.place = FormPlace::Step(next);
        }
        self.is_text |= self.calls > CALLS_MAX || self.pieces.len() > PIECES_MAX;
    }

    /// Goes to a step, whose text begins with the byte at `at`.
    fn go_at(&mut self, next: u8, text: &[u8], at: usize, tools: &dyn OfferedTools) -> bool {
        self.go(next, at);
        self.push(text, at, tools)
    }

    /// True if the name of the tool opens the call, without a tag. Only that of an offered tool does.
    fn is_untagged(&self) -> bool {
        self.family.is_whole_answer && self.family.open.contains(&"")
    }

    /// Notices that more calls come. Behind the end of the turn the model only plays on, so all is text.
    fn notice_more(&mut self) {
        self.is_text |= std::mem::take(&mut self.has_ended);
    }

    /// Keeps a piece of a call.
    fn keep(&mut self, piece: Piece) {
        if !self.is_text {
            self.pieces.push(piece);
        }
    }

    fn words(&mut self, text: &[u8], at: usize, words: &'static [(&'static str, u8)]) -> bool {
        match next_word(text, self.start, at, words.iter().copied()) {
            Word::Found(_, next) => self.go(next, at + 1),
            Word::Part => {}
            Word::Wrong => {
                // The closing tag was part of the value, as in a text with a call of this form in it. Where the value ends
                // cannot be known, so it is text.
                let Some(step) = self.value_step else { return false };
                self.is_text = true;
                self.place = FormPlace::Step(step);
            }
        }
        true
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
                self.is_text |= keep == Keep::Name && so_far.is_some_and(|name| !tools.may_offer(name));
                return is_short && !(self.is_text && self.is_untagged());
            }
            self.name_end = Some(at);
            let name = text.get(self.start..at).unwrap_or_default();
            let is_offered = std::str::from_utf8(name).is_ok_and(|name| tools.offers(name));
            self.is_text |= keep == Keep::Name && !is_offered;
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
                self.keep((keep, self.start, end));
            }
            if *word == "{" {
                return self.go_at(*next, text, at, tools);
            }
            self.go(*next, at + 1);
            return true;
        }
        let is_word = |behind: &[u8]| words.iter().any(|(word, _)| word.as_bytes().starts_with(behind));
        let trimmed = behind.trim_ascii_start();
        // Behind the name of another tool only a form with such tokens has them: a word may stand before any tag.
        let may_have_token = !self.is_text || words.iter().any(|(word, _)| word.starts_with("<|"));
        let is_token = keep == Keep::Name && trimmed.first() == Some(&b'<') && may_have_token;
        (is_word(behind) || is_word(trimmed) || is_token) && at - self.start < NAME_SIZE_MAX
    }

    fn until(&mut self, text: &[u8], at: usize, keep: Keep, words: &'static [(&'static str, u8)]) {
        let so_far = text.get(self.start..=at).unwrap_or_default();
        if let Some((word, next)) = words.iter().find(|(word, _)| so_far.ends_with(word.as_bytes())) {
            self.keep((keep, self.start, at + 1 - word.len()));
            self.value_step = match self.place {
                FormPlace::Frame => None,
                FormPlace::Step(step) => Some(step),
            };
            self.go(*next, at + 1);
        }
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
            ValueEvent::More => {}
            ValueEvent::Key(start) => {
                self.member = call_key(told(start));
                // A whole answer with other members is just JSON; behind a tag it is still next to calls.
                self.is_text |= self.member.is_none();
                return self.member.is_some() || !self.family.is_whole_answer;
            }
            ValueEvent::Text(start) => {
                let is_name = matches!(self.member, Some(CallKey::Name | CallKey::Function));
                self.is_text |= is_name && !tools.offers(told(start));
            }
            ValueEvent::Done => {
                self.keep((keep, self.start, at + 1));
                self.go(next, at + 1);
            }
            ValueEvent::DoneBefore | ValueEvent::Dead => return false,
        }
        true
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
        self.keep((Keep::Python, self.start, end));
        self.go(next, end);
        !is_before || self.push(text, at, tools)
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
