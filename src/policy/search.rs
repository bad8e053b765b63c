//! Finds a text, a path or a pattern in a request, wherever it stands: in any string and any key, in a string that holds
//! JSON, in base64, with its letters percent-encoded, or split over neighbouring blocks.

use std::cell::Cell;

use memchr::memmem;

use super::decode::{decode_runs, shorten_paths, squeeze, unescape, unpercent};
use crate::base64_text::decode_base64;
use crate::json::{Object, Value};
use crate::lua_pattern::PatternSearch;

/// How often escapes within escapes are undone. A tool's result that holds a log of JSON requests has three.
const ESCAPE_LEVELS_MAX: usize = 4;

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

/// The result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SearchResult {
    Text,
    Path,
    Pattern,
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

/// The beginning of a URL that holds data itself.
const DATA_URL: &str = "data:";

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
        let url = text.strip_prefix(DATA_URL).and_then(|rest| rest.split_once(";base64,"));
        match url {
            Some((kind, data)) if self.collect_data(kind, data) => self.push_name(kind),
            _ => self.joined.push_str(text),
        }
    }

    /// Decodes data in base64. Returns true for an image that is not text: as a text, it would be decoded once more from each
    /// of its first four characters.
    fn collect_data(&mut self, kind: &str, data: &str) -> bool {
        let bytes = decode_base64(data);
        let is_image = kind.starts_with("image/");
        let is_text = bytes.as_ref().is_some_and(|bytes| std::str::from_utf8(bytes).is_ok());
        self.has_opaque |= !is_image && !is_text;
        let image = bytes.filter(|_| is_image && !is_text);
        let has_image = image.is_some();
        self.images.extend(image.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
        has_image
    }

    fn collect_object(&mut self, object: &Object<'_>) {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        // A document of the Messages API; a recording or a file of OpenAI's protocol.
        let data = text("data").filter(|_| text("type") == Some("base64"));
        let recording = || object.get("input_audio").and_then(|audio| audio.get("data")?.as_str());
        let file = || text("file_data").filter(|data| !data.starts_with(DATA_URL));
        let data = data.or_else(recording).or_else(file);
        let kind = text("media_type").unwrap_or_default();
        let has_image = data.is_some_and(|data| self.collect_data(kind, data));
        for (key, value) in object.iter() {
            self.push_name(key);
            if has_image && key == "data" {
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

/// The longest name or id, in bytes; a longer text under such a key is a text as well.
const NAME_SIZE_MAX: usize = 64;

impl Needles {
    /// True if nothing is sought.
    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.paths.is_empty() && self.patterns.is_empty()
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

    /// Searches a text as it is, and with its escapes, its percent signs and its base64 undone. `base64_levels`: how often
    /// base64 in it is decoded.
    fn find_deep(&self, text: &str, work: &SearchWork<'_>, base64_levels: usize) -> Option<SearchResult> {
        let mut level = None::<String>;
        for _ in 0..=ESCAPE_LEVELS_MAX {
            let current = level.as_deref().unwrap_or(text);
            let found = self
                .find(current, work)
                .or_else(|| self.find(&unpercent(current)?, work))
                .or_else(|| self.find_in_base64(current, work, base64_levels));
            if found.is_some() {
                return found;
            }
            level = Some(unescape(current)?);
        }
        // More escapes within escapes than anything writes that has nothing to hide. Bytes that only look like base64 have
        // any number of them.
        let is_whole = base64_levels == BASE64_LEVELS_MAX;
        Some(SearchResult::Opaque).filter(|_| is_whole && level.is_some_and(|level| level.contains("\\\\")))
    }

    fn find_in_base64(&self, text: &str, work: &SearchWork<'_>, levels: usize) -> Option<SearchResult> {
        let levels = levels.checked_sub(1)?;
        let mut found = None;
        decode_runs(text, &mut |decoded| {
            found = self.find_deep(decoded, work, levels);
            found.is_some()
        });
        found
    }

    fn find(&self, text: &str, work: &SearchWork<'_>) -> Option<SearchResult> {
        if !work.goes_on(text.len()) {
            return Some(SearchResult::Opaque);
        }
        let squeezed = squeeze(text);
        let has = |text: &str, needle: &String| memmem::find(text.as_bytes(), needle.as_bytes()).is_some();
        if self.texts.iter().any(|needle| has(&squeezed, needle)) {
            return Some(SearchResult::Text);
        }
        if !self.paths.is_empty() {
            let shortened = shorten_paths(&squeezed);
            if self.paths.iter().any(|needle| has(&shortened, needle)) {
                return Some(SearchResult::Path);
            }
        }
        self.find_by_patterns(text, work)
    }

    fn find_by_patterns(&self, text: &str, work: &SearchWork<'_>) -> Option<SearchResult> {
        let go_on = || {
            work.checks.set(work.checks.get() + 1);
            if work.checks.get() > PATTERN_CHECKS_MAX { Err("too much work".to_owned()) } else { Ok(()) }
        };
        self.patterns.iter().find_map(|pattern| {
            let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
            let search = PatternSearch { text, pattern, anchors: true, not_ending_at: None, go_on: &go_on };
            match search.run(0) {
                Ok(found) => found.map(|_| SearchResult::Pattern),
                Err(_) => Some(SearchResult::Opaque),
            }
        })
    }
}
