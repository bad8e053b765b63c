//! Estimates how much memory one request will take, before that memory is allocated.
//!
//! The limit for one request is [`BODY_FACTOR`] times its body plus [`SLACK_SIZE`], and never more than [`SIZE_MAX`].
//! The estimates assume the worst that a body of so many bytes and values can cause, by measurement
//! (`tests/memory.rs`). A request that would exceed the limit is refused before it is parsed, or before it is
//! translated.

use crate::error::Error;
use crate::json::{DEPTH_MAX, Value};
use crate::translate;

/// Bodies below this size stay within the limit whatever they contain.
const SCANNED_SIZE_MIN: usize = 16 * 1024;

/// The memory that one request may take, as a multiple of its body's size.
const BODY_FACTOR: usize = 12;

/// The memory that a request may take in addition, in bytes. The rest of the promised megabyte is for its connection
/// and its answer. It must not be smaller, so that a conversation of 2,000 short messages or tool calls (60 to 200 KB)
/// is within the bound.
const SLACK_SIZE: usize = 896 * 1024;

/// The most memory that one request may take, in bytes.
const SIZE_MAX: usize = 400 * 1024 * 1024;

/// The bytes that a value takes while a tree is made, by measurement: 24 on the parser's tape, and 32 in the tree (56
/// for a member of an object, which counts as two values here). Then there are the marks by which the parser found the
/// value: 4 bytes each, and twice that while their list grows. The marks are free by then, but not yet reused.
const PARSED_VALUE_SIZE: usize = 80;

/// The bytes that a value takes while the tree is translated: its place in the tree, and half of what parsing took.
/// That memory is free by then, but not all of it is reused.
const VALUE_SIZE: usize = 48;

/// How many copies of a body's texts exist while they are translated: as they came, in another order, and as JSON for
/// the upstream, which may be moved once while it grows.
const TEXT_FACTOR: usize = 4;

/// A body of this size or more may have at most [`VALUES_MAX`] values.
const LARGE_SIZE_MIN: usize = 1024 * 1024;

/// The most values in a large body. A session of a million tokens has less than a hundredth of that.
const VALUES_MAX: usize = 2_000_000;

/// The properties of a body from which its memory is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyFootprint {
    size: usize,
    /// An upper bound on the number of JSON values.
    values: usize,
}

impl BodyFootprint {
    /// Scans a body, and refuses one whose tree would take far more memory than the body has bytes.
    ///
    /// # Errors
    /// 400 if it has more values than any real request of its size.
    pub(super) fn read(body: &[u8]) -> Result<Self, Error> {
        let size = body.len();
        if size < SCANNED_SIZE_MIN {
            return Ok(BodyFootprint { size, values: 0 });
        }
        // This count includes marks inside strings. If even so it is low enough, the exact count is not needed.
        let loose = BodyFootprint { size, values: marks(body) };
        if loose.is_within() {
            return Ok(loose);
        }
        let exact = BodyFootprint { size, values: separators(body) };
        if size >= LARGE_SIZE_MIN && exact.values > VALUES_MAX {
            return Err(Error::invalid(format!("The request body has more than {VALUES_MAX} JSON values")));
        }
        if !exact.is_within() && nests_too_deep(body) {
            // The parser would refuse this body at once; use the same message.
            let what = format!("The request body is not valid JSON: nested deeper than {DEPTH_MAX} levels");
            return Err(Error::invalid(what));
        }
        if !exact.is_within() {
            return Err(Error::invalid(format!(
                "The request body has too many JSON values for its size: {} in {size} bytes. Send fewer of them, or long \
                 lists as text in one string",
                exact.values
            )));
        }
        Ok(exact)
    }

    fn is_within(self) -> bool {
        self.parsing() <= self.size_max() && self.values <= VALUES_MAX
    }

    /// The bytes that the request may take.
    fn size_max(self) -> usize {
        (self.size.saturating_mul(BODY_FACTOR) + SLACK_SIZE).min(SIZE_MAX)
    }

    /// The bytes that the request takes while its tree is made.
    fn parsing(self) -> usize {
        self.size + self.values * PARSED_VALUE_SIZE
    }

    /// The most that the request takes up to the end of its translation, in addition to its body, estimated before it
    /// is parsed.
    pub(super) fn tree(self) -> usize {
        self.parsing().max(self.translation(0)).saturating_sub(self.size)
    }

    fn translation(self, parts: usize) -> usize {
        // The more values a body has, the less of it is text: each value has a mark or a quote beside it.
        let texts = self.size.saturating_sub(2 * self.values);
        self.size.saturating_sub(texts) + texts * TEXT_FACTOR + self.values * VALUE_SIZE + parts
    }

    /// The bytes that the request takes up to the end of its translation, in addition to its body, estimated from its
    /// tree.
    ///
    /// # Errors
    /// 400 if its many small parts would take more than a request of its size may.
    pub(super) fn translated(self, tree: &Value<'_>) -> Result<usize, Error> {
        if self.size < SCANNED_SIZE_MIN {
            return Ok(self.tree());
        }
        let size = self.translation(translate::parts_size(tree)).max(self.parsing());
        if size > self.size_max() {
            return Err(Error::invalid(
                "The request has too many small messages, content blocks or tools for its size. Send fewer of them, or \
                 put neighbours together",
            ));
        }
        Ok(size.saturating_sub(self.size))
    }
}

/// The number of values in a JSON document, or one less.
pub(super) fn values(json: &[u8]) -> usize {
    separators(json)
}

/// Counts the bytes that can precede or separate values, including those inside strings. Works on 255 bytes at a time,
/// whose count fits into a byte, so that the compiler can vectorize it.
fn marks(json: &[u8]) -> usize {
    let count = |bytes: &[u8]| bytes.iter().map(|byte| u8::from(is_mark(*byte))).sum::<u8>();
    json.chunks(255).map(|bytes| usize::from(count(bytes))).sum()
}

fn is_mark(byte: u8) -> bool {
    matches!(byte, b',' | b':' | b'[' | b'{')
}

/// Counts the bytes outside of strings that precede or separate values. There is at most one more value than that.
fn separators(json: &[u8]) -> usize {
    let mut count = 0;
    outside_strings(json, |bytes| count += marks(bytes));
    count
}

/// True if lists and objects nest deeper than the parser accepts.
fn nests_too_deep(json: &[u8]) -> bool {
    let (mut depth, mut deepest) = (0_usize, 0);
    outside_strings(json, |bytes| {
        for byte in bytes {
            match byte {
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
    });
    deepest > DEPTH_MAX
}

fn outside_strings(json: &[u8], mut see: impl FnMut(&[u8])) {
    let mut rest = json;
    while let Some(quote) = memchr::memchr(b'"', rest) {
        see(rest.get(..quote).unwrap_or_default());
        rest = after_string(rest.get(quote + 1..).unwrap_or_default());
    }
    see(rest);
}

/// The bytes after the quote that ends a string.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        let is_quote = rest.get(at) == Some(&b'"');
        rest = rest.get(at + if is_quote { 1 } else { 2 }..).unwrap_or_default();
        if is_quote {
            return rest;
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_strings_do_not_count() {
        for (json, count) in [
            ("", 0),
            ("1", 0),
            ("[]", 1),
            (r#"{"a,b":[1,2,"x:[{,\",,"],"c\\":{}}"#, 8),
            (r#""cut,,,"#, 0),
            (r#"["\"#, 1),
        ] {
            assert_eq!(separators(json.as_bytes()), count, "{json}");
        }
    }

    #[test]
    fn too_many_values_for_the_size_are_refused() {
        let zeros = |size: usize| format!("[{}0]", "0,".repeat(size / 2)).into_bytes();
        assert!(BodyFootprint::read(&zeros(SCANNED_SIZE_MIN - 100)).is_ok());
        assert!(BodyFootprint::read(&zeros(17 * 1024)).is_ok());
        let error = BodyFootprint::read(&zeros(LARGE_SIZE_MIN / 2)).unwrap_err();
        assert!(
            error.message.starts_with("The request body has too many JSON values for its size: 262145 in")
        );
        let error = BodyFootprint::read(&zeros(2 * VALUES_MAX + 10)).unwrap_err();
        assert_eq!(error.message, "The request body has more than 2000000 JSON values");
    }

    #[test]
    fn a_text_full_of_marks_is_a_text() {
        let text = format!("[\"{}\"]", "a,[{".repeat(LARGE_SIZE_MIN));
        assert_eq!(BodyFootprint::read(text.as_bytes()).unwrap().values, 1);
    }

    #[test]
    fn schemas_of_many_properties_are_taken() {
        let schema =
            format!("{{{}\"a\":1}}", r#""path":{"type":"string","description":"Where"},"#.repeat(200_000));
        assert!(BodyFootprint::read(schema.as_bytes()).is_ok());
    }
}
