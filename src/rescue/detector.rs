//! Reads text as it comes, and says which part may be shown and which is held because it may be a call.
//!
//! | state | text | then |
//! |---|---|---|
//! | Plain | without the beginning of a trigger | shown as it is |
//! | Plain | the beginning of a trigger at its end | held |
//! | held | that rules out all forms | shown up to there, and Plain from there on |
//! | held | that still fits a form | held |
//! | held, or Plain before a quoted tag | that fits only forms of which it is known that they stay text | shown, and Followed |
//! | Followed | that still fits such a form | shown as it is |
//! | Followed | that rules out all forms | shown up to there, and Plain from there on |
//!
//! The last byte decides: text is shown as soon as no form fits it any more, and never changed. A trigger inside held
//! text is not looked for again, so each byte is read a fixed number of times. The same holds for a text that is followed:
//! the tags in a quoted call, in the arguments of a call to an unknown tool, and next to it, are text as well.

use memchr::memchr2;

use super::families::{CallFamily, FAMILIES};
use super::form::{CallForm, is_in_name};
use super::found::FoundCall;
use super::offered::OfferedTools;

/// The most text that is held, in bytes. A longer call goes out as text: an answer of 128,000 tokens has half of it.
pub const HELD_SIZE_MAX: usize = 1024 * 1024;

/// The memory that an idle detector keeps for the next held text, in bytes.
const KEPT_SIZE_MAX: usize = 256;

/// The part of a pushed text that may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The pushed text, as it is. Nothing is held.
    Pushed,
    /// The text in [`CallDetector::ready`].
    Ready,
    /// Nothing yet.
    Nothing,
}

/// Finds calls at the end of a text.
#[derive(Debug)]
pub struct CallDetector {
    /// The text that is followed, the text that may be shown now, and the text that may be a call.
    held: String,
    /// The size of the part of `held` that was shown, and is only followed.
    shown: usize,
    /// The place in `held` up to which it may be shown.
    ready: usize,
    /// Where the text of the forms begins.
    begun: usize,
    /// The first byte of `held` that was not read.
    at: usize,
    /// The forms that fit the held text. Empty while only a part of a trigger is held.
    forms: Vec<CallForm>,
    /// True until something else than white space was shown: some forms count only for a whole answer.
    is_at_start: bool,
    /// The last eight bytes that were shown, the last one lowest. A trigger behind a quote is only mentioned.
    last: u64,
}

impl CallDetector {
    /// A detector for a new text. With `is_part` it is not a whole answer, so that the forms for those do not count.
    pub fn new(is_part: bool) -> Self {
        CallDetector {
            held: String::new(),
            shown: 0,
            ready: 0,
            begun: 0,
            at: 0,
            forms: Vec::new(),
            is_at_start: !is_part,
            last: 0,
        }
    }

    /// True if text is held.
    pub fn is_holding(&self) -> bool {
        self.held.len() > self.shown
    }

    /// The bytes of text that are held or followed.
    pub fn held_size(&self) -> usize {
        self.held.len()
    }

    /// Takes the next piece of the text if it can be shown at once, as nearly all pieces can: nothing is held, and no tag
    /// begins in it. Otherwise returns false, and the piece must be pushed.
    #[inline]
    pub fn passes(&mut self, text: &str) -> bool {
        if !self.held.is_empty() || self.is_at_start {
            return false;
        }
        let last = pass(self.last, text.as_bytes());
        self.last = last.unwrap_or(self.last);
        last.is_some()
    }

    /// Takes the next piece of the text.
    pub fn push(&mut self, text: &str, tools: &dyn OfferedTools) -> Release {
        if self.passes(text) {
            return Release::Pushed;
        }
        if self.held.is_empty() && !self.may_begin_in(text, tools) {
            self.is_at_start = self.is_at_start && text.trim_ascii().is_empty();
            self.last = with_last(self.last, text.as_bytes());
            return Release::Pushed;
        }
        self.push_held(text, tools)
    }

    /// The text that may be shown now. Call [`CallDetector::clear_ready`] behind it.
    pub fn ready(&self) -> &str {
        self.held.get(self.shown..self.ready).unwrap_or_default()
    }

    /// Removes the text that was shown, except what is followed.
    pub fn clear_ready(&mut self) {
        let removed = if self.is_following() { self.begun } else { self.ready };
        self.held.drain(..removed);
        self.at -= removed;
        self.begun = self.begun.saturating_sub(removed);
        self.forms.iter_mut().for_each(|form| form.shift(removed));
        self.ready -= removed;
        self.shown = self.ready;
        if self.held.is_empty() && self.held.capacity() > KEPT_SIZE_MAX {
            self.held = String::new();
        }
    }

    /// Gives all text free to be shown, because it is not the end of the answer.
    pub fn release(&mut self) -> Release {
        if !self.is_holding() {
            return Release::Nothing;
        }
        self.free_up_to(self.held.len());
        self.at = self.ready;
        self.forms = Vec::new();
        Release::Ready
    }

    /// The calls that the held text is, at the end of the answer, and their family. The text stays held.
    pub fn calls(&self) -> Option<(Vec<FoundCall>, &'static CallFamily)> {
        let complete = self.forms.iter().filter(|form| form.is_complete(self.held.len()));
        complete.filter_map(|form| Some((form.calls(&self.held)?, form.family()))).next()
    }

    /// Drops the held text, since its calls were taken.
    pub fn drop_held(&mut self) {
        self.held = String::new();
        (self.shown, self.ready, self.at) = (0, 0, 0);
        self.forms = Vec::new();
    }

    /// The place from which on a text that is followed must be read again if it is ruled out.
    fn unsure_from(&self) -> Option<usize> {
        self.forms.iter().filter_map(CallForm::unsure_from).min().filter(|_| self.is_following())
    }

    /// True if the text has the form of a call, but stays text.
    fn is_following(&self) -> bool {
        !self.forms.is_empty() && self.forms.iter().all(CallForm::is_text)
    }

    /// True if a trigger, or the beginning of one at the end, is in the text.
    fn may_begin_in(&self, text: &str, tools: &dyn OfferedTools) -> bool {
        if self.is_at_start {
            let seen = text.trim_ascii_start();
            if !seen.is_empty() && may_trigger(seen, tools) {
                return true;
            }
        }
        find_tag(text.as_bytes(), 0).is_some()
    }

    fn push_held(&mut self, text: &str, tools: &dyn OfferedTools) -> Release {
        self.held.push_str(text);
        if self.held.len() > HELD_SIZE_MAX {
            return self.release();
        }
        while self.at < self.held.len() {
            if self.forms.is_empty() && !self.begin(tools) {
                break;
            }
            if self.forms.is_empty() {
                continue;
            }
            let (text, at) = (self.held.as_bytes(), self.at);
            let unsure = self.unsure_from();
            self.forms.retain_mut(|form| form.push(text, at, tools));
            if self.forms.is_empty() {
                // The byte that ruled the forms out may begin another trigger, or the tag that it belongs to.
                self.forms = Vec::new();
                self.free_up_to(unsure.unwrap_or(self.at).max(self.begun + 1));
                self.at = self.ready;
            } else {
                self.at += 1;
            }
        }
        if self.is_following() {
            self.free_up_to(self.unsure_from().unwrap_or(self.held.len()));
        }
        if self.ready > self.shown {
            return Release::Ready;
        }
        self.clear_ready();
        Release::Nothing
    }

    /// Looks for a trigger from `at` on, and gives free what is before it. Begins its forms if it is whole. Returns false
    /// if the text ends before that is decided.
    fn begin(&mut self, tools: &dyn OfferedTools) -> bool {
        let rest = self.held.get(self.at..).unwrap_or_default();
        let seen = rest.trim_ascii_start();
        let is_whole_answer = self.is_at_start && (seen.is_empty() || may_trigger(seen, tools));
        let at = if is_whole_answer {
            Some(self.held.len() - seen.len()).filter(|_| !seen.is_empty())
        } else {
            find_tag(self.held.as_bytes(), self.at)
        };
        let Some(at) = at else {
            self.free_up_to(self.held.len());
            self.at = self.ready;
            return false;
        };
        self.free_up_to(at);
        self.at = at;
        let seen = self.held.get(at..).unwrap_or_default();
        let is_at_start = self.is_at_start;
        let mut is_met = false;
        let mut forms = Vec::new();
        for family in FAMILIES.iter().filter(|family| is_at_start || !family.is_whole_answer) {
            let mut fits = false;
            for trigger in family.triggers() {
                let (is_found, is_part) = compare(seen, trigger, tools);
                is_met |= is_found;
                fits |= is_found || is_part;
            }
            if fits {
                forms.push(family);
            }
        }
        if !is_met {
            return false;
        }
        let is_quoted = ends_in_quote(self.last);
        self.forms = forms.into_iter().map(|family| CallForm::new(family, at, is_quoted)).collect();
        self.begun = at;
        true
    }

    /// Gives the held text free up to a place.
    fn free_up_to(&mut self, end: usize) {
        let mut end = end.min(self.held.len());
        while !self.held.is_char_boundary(end) {
            end += 1;
        }
        let shown = self.held.get(self.ready..end).unwrap_or_default();
        self.is_at_start = self.is_at_start && shown.trim_ascii().is_empty();
        self.last = with_last(self.last, shown.as_bytes());
        self.ready = end;
    }
}

/// The next place from `from` on at which a tag may begin that opens a call.
fn find_tag(text: &[u8], from: usize) -> Option<usize> {
    let mut from = from;
    loop {
        let rest = text.get(from..)?;
        let at = from + memchr2(b'<', b'[', rest)?;
        if may_be_tag(text.get(at..).unwrap_or_default()) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// The last eight bytes that are shown once a text is, after these of the text before it. `None` if the text has a byte with
/// which a tag may begin. This is the path of nearly all pieces of an answer. A piece is a token, so most have at most
/// sixteen bytes, which are compared as one or two numbers: the set-up of a search by SIMD costs more than that.
#[inline]
fn pass(last: u64, text: &[u8]) -> Option<u64> {
    let Some(end) = text.last_chunk() else {
        let word = short_word(text);
        return (!has_bracket(word)).then_some(last << (8 * text.len()) | word);
    };
    let end = u64::from_be_bytes(*end);
    let has_tag = match text.first_chunk() {
        Some(first) if text.len() <= 16 => has_bracket(u64::from_be_bytes(*first)) || has_bracket(end),
        _ => memchr2(b'<', b'[', text).is_some(),
    };
    (!has_tag).then_some(end)
}

/// The last eight bytes of a text, after these of the text before it.
fn with_last(last: u64, text: &[u8]) -> u64 {
    match text.last_chunk() {
        Some(end) => u64::from_be_bytes(*end),
        None => last << (8 * text.len()) | short_word(text),
    }
}

/// A text of less than eight bytes as a number, its last byte lowest.
#[inline]
fn short_word(text: &[u8]) -> u64 {
    match (text.first_chunk(), text.last_chunk()) {
        // The two halves may overlap: the bytes in both are the same.
        (Some(first), Some(end)) => {
            let above = u64::from(u32::from_be_bytes(*first)) << (8 * (text.len() - 4));
            above | u64::from(u32::from_be_bytes(*end))
        }
        _ => text.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// True if one of the eight bytes of a number is `<` or `[`, with which every tag begins.
#[inline]
fn has_bracket(word: u64) -> bool {
    /// Each byte is 1.
    const ONES: u64 = u64::MAX / 255;
    /// The highest bit of each byte.
    const TOPS: u64 = ONES << 7;
    // The lowest byte that is 0 gets its highest bit by the subtraction, and had none before.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let (angle, square) = (ONES * u64::from(b'<'), ONES * u64::from(b'['));
    (zeros(word ^ angle) | zeros(word ^ square)) & TOPS != 0
}

/// The quotation marks of texts and of HTML, behind which a tag is only mentioned.
const QUOTES: [&str; 19] = [
    "`", "\"", "'", "\u{2018}", "\u{2019}", "\u{201a}", "\u{201b}", "\u{201c}", "\u{201d}", "\u{201e}",
    "\u{ab}", "\u{bb}", "\u{2039}", "\u{203a}", "&quot;", "&apos;", "&#34;", "&#39;", "&#x27;",
];

/// True if the last bytes that were shown end in a quotation mark.
fn ends_in_quote(last: u64) -> bool {
    QUOTES.iter().any(|quote| last.to_be_bytes().ends_with(quote.as_bytes()))
}

/// True if a text that begins with `<` or `[` may begin with a tag that opens a call. The next two bytes decide for most:
/// they are those of the tags in the table of families.
fn may_be_tag(text: &[u8]) -> bool {
    match text {
        [b'<', b't' | b'f' | b'i' | b'm' | b'|' | b'T' | b's' | b'a' | 0xef] | [b'[', b'T'] => true,
        [b'<', b't', b'o', ..]
        | [b'<', b'f', b'u', ..]
        | [b'<', b'i', b'n', ..]
        | [b'<', b'm', b'i', ..]
        | [b'<', b's', b'e', ..]
        | [b'<', b'a', b'n', ..]
        | [b'<', b'T', b'O', ..]
        | [b'<', b'|' | 0xef, ..]
        | [b'[', b'T', b'O', ..] => {
            let mut triggers = FAMILIES.iter().filter(|family| !family.is_whole_answer);
            triggers.any(|family| family.triggers().any(|word| shares_beginning(text, word.as_bytes())))
        }
        [b'<' | b'['] => true,
        _ => false,
    }
}

/// True if an answer may begin with a trigger.
fn may_trigger(text: &str, tools: &dyn OfferedTools) -> bool {
    FAMILIES.iter().any(|family| {
        family.triggers().any(|trigger| {
            let (is_found, is_part) = compare(text, trigger, tools);
            is_found || is_part
        })
    })
}

/// Compares the beginning of a text with a trigger: whether it has the whole trigger, and whether it is a part of it. The
/// empty trigger stands for the name of an offered tool.
fn compare(text: &str, trigger: &str, tools: &dyn OfferedTools) -> (bool, bool) {
    if trigger.is_empty() {
        let name = text.split(|c: char| !is_in_name(c)).next().unwrap_or_default();
        return (!name.is_empty() && tools.may_offer(name), false);
    }
    (text.starts_with(trigger), trigger.starts_with(text))
}

/// True if one of the two begins with the other.
fn shares_beginning(text: &[u8], word: &[u8]) -> bool {
    text.starts_with(word) || word.starts_with(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_beginning_of_each_tag_is_noticed() {
        for family in FAMILIES.iter().filter(|family| !family.is_whole_answer) {
            for trigger in family.triggers() {
                for end in 1..=trigger.len() {
                    let part = trigger.as_bytes().get(..end).unwrap_or_default();
                    assert!(pass(0, part).is_none() && may_be_tag(part), "{trigger} {end}");
                }
            }
        }
        for text in ["<tag", "<-", "< ", "[1]", "<td>", "<file", "[Tag"] {
            assert!(!may_be_tag(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_byte_with_which_a_tag_may_begin_is_found_at_each_place() {
        for size in 0..=40 {
            for byte in 0..=u8::MAX {
                let text = vec![byte; size];
                let is_bracket = size > 0 && matches!(byte, b'<' | b'[');
                assert_eq!(pass(0, &text).is_none(), is_bracket, "{size} times {byte}");
            }
            for (at, bracket) in (0..size).flat_map(|at| [(at, b'<'), (at, b'[')]) {
                for other in [0, b'=', b';', b'Z', b'\\', 0xff] {
                    let mut text = vec![other; size];
                    if let Some(place) = text.get_mut(at) {
                        *place = bracket;
                    }
                    assert_eq!(pass(0, &text), None, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn the_last_eight_bytes_do_not_depend_on_the_cuts() {
        let text: Vec<u8> = (b'a'..=b'z').collect();
        for end in 0..=text.len() {
            for cut in 0..=end {
                let (first, second) = text.split_at(cut);
                let second = second.get(..end - cut).unwrap_or_default();
                let expected = first.iter().chain(second).fold(7, |last, byte| last << 8 | u64::from(*byte));
                assert_eq!(with_last(with_last(7, first), second), expected, "{cut} of {end}");
                assert_eq!(pass(7, first).and_then(|last| pass(last, second)), Some(expected));
            }
        }
    }
}
