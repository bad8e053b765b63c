//! Finds a text, a path or a pattern in a request, wherever it stands: in any string and any key, in a string that holds
//! JSON, in base64, with its letters percent-encoded, or split over neighbouring blocks.

use std::cell::Cell;

use memchr::memmem;

use super::decode::{decode_runs, shorten_paths, squeeze, unescape, unpercent};
use super::document::{hides_words, is_hiding_label, is_image, is_image_label, is_searchable};
use crate::base64_text::decode_base64;
use crate::json::{Object, Value};
use crate::lua_pattern::{PatternSearch, literal_beginning};

/// How often escapes within escapes are undone. A tool's result that holds a log of JSON requests has three.
const ESCAPE_LEVELS_MAX: usize = 4;

/// How often percent signs within percent-encoding are undone, beside the escapes.
const PERCENT_LEVELS_MAX: usize = 3;

/// How often base64 within base64 is decoded.
const BASE64_LEVELS_MAX: usize = 3;

/// The most checks of the matcher for patterns in one request, each after some thousand steps: about a second. A request that
/// takes longer counts as one that cannot be checked.
const PATTERN_CHECKS_MAX: usize = 100_000;

/// Members whose strings are names of the API or ids. They are searched on their own, and do not stand between two pieces of
/// a text that is split over blocks.
const NAMES: [&str; 13] = [
    "type",
    "role",
    "id",
    "tool_use_id",
    "tool_call_id",
    "call_id",
    "media_type",
    "signature",
    "ttl",
    "model",
    "name",
    "stop_reason",
    "cache_control",
];

/// The bytes that are searched between two questions whether the search may go on.
const BYTES_BETWEEN_STOPS: usize = 256 * 1024;

/// The work of one search so far.
struct SearchWork<'s> {
    /// The checks of the matcher for patterns.
    checks: Cell<usize>,
    /// The bytes since the last question whether to stop.
    bytes: Cell<usize>,
    /// True if nobody waits for the result any more.
    is_stopped: &'s dyn Fn() -> bool,
}

impl SearchWork<'_> {
    /// Adds bytes to search. Returns false if the search is to stop.
    fn goes_on(&self, size: usize) -> bool {
        self.bytes.set(self.bytes.get() + size);
        if self.bytes.get() < BYTES_BETWEEN_STOPS {
            return true;
        }
        self.bytes.set(0);
        !(self.is_stopped)()
    }
}

/// The texts, paths and patterns that are sought.
#[derive(Debug, Default)]
pub(super) struct Needles {
    /// Texts, squeezed.
    pub(super) texts: Vec<String>,
    /// Paths, squeezed and shortened.
    pub(super) paths: Vec<String>,
    /// Lua patterns.
    pub(super) patterns: Vec<String>,
}

/// How much a text may grow when its letters become small ones, in bytes for each byte, rounded up.
const SMALL_LETTERS_FACTOR: usize = 2;

/// The result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SearchResult {
    Text,
    Path,
    Pattern,
    /// The pattern of this index takes too long.
    Slow(usize),
    /// A part of the request cannot be searched.
    Opaque,
}

/// The strings of a request.
#[derive(Default)]
struct Strings {
    /// Texts, one behind the other.
    joined: String,
    /// Names, ids and keys, one a line.
    names: String,
    /// The bytes of images, as text.
    images: Vec<String>,
    /// True if a document's data is neither text nor an image.
    has_opaque: bool,
}

impl Strings {
    fn collect(&mut self, value: &Value<'_>, is_name: bool) {
        match value {
            Value::String(text) if is_name => self.push_name(text),
            Value::String(text) => self.collect_text(text),
            Value::Array(items) => items.iter().for_each(|item| self.collect(item, is_name)),
            Value::Object(object) => self.collect_object(object),
            Value::BigInteger(digits) => self.push_name(digits),
            Value::Number(_) => self.push_name(&value.to_json()),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn push_name(&mut self, text: &str) {
        self.names.push_str(text);
        self.names.push('\n');
    }

    fn collect_text(&mut self, text: &str) {
        match DataUrl::read(text) {
            Some(DataUrl { label, data, is_base64: true }) if self.collect_data(&[label], data, true) => {
                self.push_name(label);
            }
            Some(DataUrl { label, data, is_base64: false }) => {
                self.collect_data(&[label], data, false);
                self.joined.push_str(text);
            }
            _ => self.joined.push_str(text),
        }
    }

    /// Judges the data of a document with its labels. Returns true for an image, whose bytes are kept: as a text, they would be
    /// decoded once more from each of their first four characters.
    fn collect_data(&mut self, labels: &[&str], data: &str, is_base64: bool) -> bool {
        let decoded = decode_base64(data);
        let is_hiding = |bytes: &[u8]| hides_words(bytes);
        self.has_opaque |= labels.iter().any(|label| is_hiding_label(label))
            || is_hiding(data.as_bytes())
            || decoded.as_deref().is_some_and(is_hiding);
        if labels.iter().any(|label| is_image_label(label)) {
            let image = decoded.filter(|bytes| is_image(bytes));
            self.has_opaque |= image.is_none();
            let has_image = image.is_some();
            self.images.extend(image.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
            return has_image;
        }
        self.has_opaque |= is_base64 && !decoded.is_some_and(|bytes| is_searchable("", &bytes));
        false
    }

    fn collect_object(&mut self, object: &Object<'_>) {
        // A name may stand there twice, and no one knows which one a server reads.
        let texts = |names: &'static [&'static str]| {
            let named = object.iter().filter(move |(key, _)| names.contains(key));
            named.filter_map(|(_, value)| value.as_str())
        };
        let labels: Vec<&str> = texts(&LABELS).collect();
        let is_base64 = texts(&["type"]).any(|kind| kind == "base64");
        let is_data = |key: &str| {
            key == "file_data" || (["data", "blob"].contains(&key) && (is_base64 || !labels.is_empty()))
        };
        // The data of a recording has no label beside it.
        let recordings = object.iter().filter(|(key, _)| *key == "input_audio");
        for data in recordings.filter_map(|(_, audio)| audio.get("data")?.as_str()) {
            self.collect_data(&[], data, true);
        }
        for (key, value) in object.iter() {
            self.push_name(key);
            let data = value.as_str().filter(|data| is_data(key) && DataUrl::read(data).is_none());
            if data.is_some_and(|data| self.collect_data(&labels, data, is_base64 || key == "file_data")) {
                continue;
            }
            // A tool's input may have any names, so a text there is a text.
            let is_name = NAMES.contains(&key) && value.as_str().is_some();
            if is_name && value.as_str().is_some_and(|text| text.len() > NAME_SIZE_MAX) {
                self.collect(value, false);
            }
            self.collect(value, is_name);
        }
    }
}

/// Members that say what the data beside them are: of the Messages API, of MCP, of other servers.
const LABELS: [&str; 3] = ["media_type", "mimeType", "mime_type"];

/// Members of a request that hold a recording, where a server takes one as JSON.
const RECORDINGS: [&str; 2] = ["file", "audio"];

/// A URL that holds data itself.
struct DataUrl<'u> {
    label: &'u str,
    data: &'u str,
    is_base64: bool,
}

impl<'u> DataUrl<'u> {
    /// Reads a URL with a label such as `image/png`. `None`: it is another text.
    fn read(text: &'u str) -> Option<Self> {
        let scheme = text.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:"))?;
        let (head, data) = text.get(scheme.len()..)?.split_once(',')?;
        let is_base64 =
            head.rsplit_once(';').is_some_and(|(_, last)| last.trim().eq_ignore_ascii_case("base64"));
        let label = head.split(';').next().unwrap_or_default();
        let is_label = label.contains('/') && !label.contains(|c: char| c.is_whitespace() || c == '"');
        (is_base64 || is_label).then_some(DataUrl { label, data, is_base64 })
    }
}

/// The longest name or id, in bytes; a longer text under such a key is a text as well.
const NAME_SIZE_MAX: usize = 64;

impl Needles {
    /// True if nothing is sought.
    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.paths.is_empty() && self.patterns.is_empty()
    }

    /// The size of the shortest text that can hold one of the texts and paths, in bytes.
    fn squeezed_size_min(&self) -> usize {
        let sizes = self.texts.iter().chain(&self.paths).map(String::len);
        sizes.min().unwrap_or(usize::MAX) / SMALL_LETTERS_FACTOR
    }

    /// The size of the shortest text in which something may be found, in bytes.
    fn size_min(&self) -> usize {
        let beginnings = self.patterns.iter().map(|pattern| literal_beginning(pattern.as_bytes()).len());
        beginnings.min().unwrap_or(usize::MAX).min(self.squeezed_size_min())
    }

    /// Searches a request, and texts that go with it. The work is linear in their size, except for patterns, which have a
    /// limit. A search that `is_stopped` ends has found a part that cannot be searched.
    pub(super) fn find_in(
        &self,
        request: &Value<'_>,
        beside: &[&str],
        is_stopped: &dyn Fn() -> bool,
    ) -> Option<SearchResult> {
        if self.is_empty() {
            return None;
        }
        let mut strings = Strings::default();
        let members = request.as_object().into_iter().flat_map(Object::iter);
        for data in members.filter(|(key, _)| RECORDINGS.contains(key)).filter_map(|(_, data)| data.as_str())
        {
            strings.collect_data(&[], data, true);
        }
        strings.collect(request, false);
        beside.iter().for_each(|text| strings.push_name(text));
        if strings.has_opaque {
            return Some(SearchResult::Opaque);
        }
        let work = &SearchWork { checks: Cell::new(0), bytes: Cell::new(0), is_stopped };
        let Strings { joined, names, images, .. } = strings;
        // Each string on its own first, because a pattern may ask for a border that the next string hides.
        self.find_by_patterns_in(request, work)
            .or_else(|| self.find_deep(&names, work, BASE64_LEVELS_MAX))
            .or_else(|| self.find_deep(&joined, work, BASE64_LEVELS_MAX))
            .or_else(|| images.iter().find_map(|image| self.find_deep(image, work, BASE64_LEVELS_MAX - 1)))
    }

    fn find_by_patterns_in(&self, value: &Value<'_>, work: &SearchWork<'_>) -> Option<SearchResult> {
        if self.patterns.is_empty() {
            return None;
        }
        match value {
            Value::String(text) => self.find_by_patterns(text, work),
            Value::Array(items) => items.iter().find_map(|item| self.find_by_patterns_in(item, work)),
            Value::Object(object) => {
                object.iter().find_map(|(_, value)| self.find_by_patterns_in(value, work))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInteger(_) => None,
        }
    }

    /// Searches a text as it is, and with its percent signs, its escapes and its base64 undone, one within the other.
    /// `base64_levels`: how often base64 in it is decoded.
    fn find_deep(&self, text: &str, work: &SearchWork<'_>, base64_levels: usize) -> Option<SearchResult> {
        let mut level = None::<String>;
        let (mut percents, mut escapes) = (0, 0);
        loop {
            let current = level.as_deref().unwrap_or(text);
            let found =
                self.find(current, work).or_else(|| self.find_in_base64(current, work, base64_levels));
            if found.is_some() {
                return found;
            }
            let undone = if percents < PERCENT_LEVELS_MAX { unpercent(current) } else { None };
            if undone.is_some() {
                percents += 1;
                level = undone;
                continue;
            }
            let undone = unescape(current)?;
            if escapes == ESCAPE_LEVELS_MAX {
                // More escapes within escapes than anything writes that has nothing to hide. Bytes that only look like base64
                // have any number of them.
                let is_whole = base64_levels == BASE64_LEVELS_MAX;
                return Some(SearchResult::Opaque).filter(|_| is_whole && undone.contains("\\\\"));
            }
            escapes += 1;
            level = Some(undone);
        }
    }

    fn find_in_base64(&self, text: &str, work: &SearchWork<'_>, levels: usize) -> Option<SearchResult> {
        let levels = levels.checked_sub(1)?;
        let mut found = None;
        decode_runs(text, self.size_min(), &mut |decoded| {
            found = match hides_words(decoded.as_bytes()) {
                true => Some(SearchResult::Opaque),
                false => self.find_deep(decoded, work, levels),
            };
            found.is_some()
        });
        found
    }

    fn find(&self, text: &str, work: &SearchWork<'_>) -> Option<SearchResult> {
        if !work.goes_on(text.len()) {
            return Some(SearchResult::Opaque);
        }
        // Most texts in base64 are words that only look like it, and these are short.
        if text.len() < self.squeezed_size_min() {
            return self.find_by_patterns(text, work);
        }
        // Of the two readings of a plus, a needle with one needs the first.
        let is_plus = |needles: &[String]| needles.iter().any(|needle| needle.contains('+'));
        let keeps_plus = is_plus(&self.texts) || is_plus(&self.paths);
        let with_plus = keeps_plus.then(|| self.find_squeezed(&squeeze(text, true)));
        with_plus
            .flatten()
            .or_else(|| self.find_squeezed(&squeeze(text, false)))
            .or_else(|| self.find_by_patterns(text, work))
    }

    fn find_squeezed(&self, squeezed: &str) -> Option<SearchResult> {
        let has = |text: &str, needle: &String| memmem::find(text.as_bytes(), needle.as_bytes()).is_some();
        if self.texts.iter().any(|needle| has(squeezed, needle)) {
            return Some(SearchResult::Text);
        }
        if self.paths.is_empty() {
            return None;
        }
        let shortened = shorten_paths(squeezed);
        self.paths.iter().any(|needle| has(&shortened, needle)).then_some(SearchResult::Path)
    }

    fn find_by_patterns(&self, text: &str, work: &SearchWork<'_>) -> Option<SearchResult> {
        let go_on = || {
            work.checks.set(work.checks.get() + 1);
            if work.checks.get() > PATTERN_CHECKS_MAX { Err("too much work".to_owned()) } else { Ok(()) }
        };
        self.patterns.iter().enumerate().find_map(|(index, pattern)| {
            let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
            memmem::find(text, literal_beginning(pattern))?;
            let search = PatternSearch { text, pattern, anchors: true, not_ending_at: None, go_on: &go_on };
            match search.run(0) {
                Ok(found) => found.map(|_| SearchResult::Pattern),
                Err(_) => Some(SearchResult::Slow(index)),
            }
        })
    }
}
