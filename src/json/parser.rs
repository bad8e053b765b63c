//! Bytes -> [`Value`], or a tape to read from. Uses simd-json, whose buffers are kept for the next document.
//!
//! The tree of a [`super::Document`] is the fastest: its nodes lie in one piece of memory, where a request of Claude
//! Code would otherwise need hundreds of lists.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, DerefMut};

use bumpalo::Bump;
use simd_json::Buffers;
use simd_json::prelude::{ValueAsScalar as _, ValueIntoString as _};

use super::integers::LongIntegers;
use super::spares::{SIZE_MAX, Spares};
use super::strict::strict;
use super::{DEPTH_MAX, List, Number, Value, surrogates};

/// The first size of a parser's buffers in bytes: a chunk of an answer. They grow with the documents.
const BUFFER_SIZE: usize = 512;

/// The number of bytes that must follow a document for [`Parser::fill_padded`].
pub(super) const PADDING: usize = simd_json::INPUT_PADDING;

/// The largest tape that is kept for the next document, in entries of 24 bytes. One entry is reserved for each mark
/// (`{`, `,`, `:` and so on): a request of Claude Code of 1 MB has about 30,000.
const TAPE_KEPT_MAX: usize = 64 * 1024;

/// A value of a document that is read in place, without an allocation.
pub type Tape<'t, 'a> = simd_json::tape::Value<'t, 'a>;

/// The document is not valid JSON, or is nested too deep. The text names the byte offset if it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError(String);

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseError {}

impl From<simd_json::Error> for ParseError {
    fn from(error: simd_json::Error) -> Self {
        use simd_json::ErrorType;
        let what = match error.error() {
            ErrorType::DepthLimitExceeded => {
                return ParseError(format!("nested deeper than {DEPTH_MAX} levels"));
            }
            ErrorType::InvalidUtf8 => "invalid UTF-8",
            ErrorType::InvalidUnicodeCodepoint | ErrorType::InvalidUnicodeEscape => {
                "a string with a broken \\u escape"
            }
            ErrorType::Eof | ErrorType::Syntax => "the document is cut short or malformed",
            ErrorType::TrailingData => "text after the end of the document",
            ErrorType::InvalidNumber | ErrorType::Overflow => "a malformed number",
            ErrorType::UnterminatedString => "a string without its closing quote",
            _ => "malformed",
        };
        // The parser does not always report a position.
        match error.index() {
            0 => ParseError(what.to_string()),
            at => ParseError(format!("{what} near byte {at}")),
        }
    }
}

static SPARES: Spares<Parser> = Spares::new();

/// A JSON parser that keeps its buffers from one document to the next.
pub struct Parser {
    /// The largest document so far, in bytes.
    size: usize,
    /// `None` until the first document, so that a parser that only takes the place of another one costs nothing.
    buffers: Option<Buffers>,
    tape: simd_json::Tape<'static>,
    /// The document of [`Parser::read_lenient`] as it came, since parsing changes it.
    copy: Vec<u8>,
}

/// The longest document that [`Parser::read_lenient`] mends, in bytes. The events of a stream are far shorter, and the copy
/// that is made of each document stays small.
const MENDED_SIZE_MAX: usize = 64 * 1024;

impl Default for Parser {
    fn default() -> Self {
        Parser { size: 0, buffers: None, tape: simd_json::Tape(Vec::new()), copy: Vec::new() }
    }
}

impl fmt::Debug for Parser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parser")
    }
}

impl Parser {
    /// Parses one document and passes it to `read`. Nothing is allocated once the buffers have grown. The bytes are
    /// unescaped in place, so they are not valid JSON afterwards. The escape of half a surrogate pair is read as
    /// U+FFFD.
    ///
    /// # Errors
    /// The document is not valid JSON, not UTF-8, or nested deeper than [`DEPTH_MAX`].
    pub fn read<'a, T>(
        &mut self,
        bytes: &'a mut [u8],
        read: impl FnOnce(Tape<'_, 'a>) -> T,
    ) -> Result<T, ParseError> {
        self.fill(bytes, |tape| read(tape.as_value()))
    }

    /// [`Parser::read`], which takes JSON with the faults of some servers as well: bytes that are not UTF-8, `NaN` and
    /// `Infinity`, raw control characters in strings. `read` gets true if such a document was mended, and a character of
    /// a string may be lost.
    ///
    /// # Errors
    /// Those of [`Parser::read`], if the document has other faults or more than 64 KiB.
    pub fn read_lenient<T>(
        &mut self,
        bytes: &mut [u8],
        read: impl FnOnce(Tape<'_, '_>, bool) -> T,
    ) -> Result<T, ParseError> {
        let is_short = bytes.len() <= MENDED_SIZE_MAX;
        let mut copy = std::mem::take(&mut self.copy);
        copy.clear();
        copy.extend_from_slice(if is_short { &*bytes } else { &[] });
        let mut read = Some(read);
        let mut take = |tape: Tape<'_, '_>, is_mended| read.take().map(|read| read(tape, is_mended));
        let mut result = self.read(bytes, |tape| take(tape, false));
        if is_short && result.is_err() {
            let mut mended = strict(&copy);
            result = self.read(&mut mended, |tape| take(tape, true)).or(result);
        }
        self.copy = copy;
        // `take` was called exactly once where the result is good.
        result.and_then(|taken| taken.ok_or_else(|| ParseError("malformed".into())))
    }

    /// The number of entries for which the tape has memory.
    #[cfg(test)]
    pub(super) fn tape_capacity(&self) -> usize {
        self.tape.0.capacity()
    }

    /// Parses one document and passes the whole tape to `read`.
    fn fill<'a, T>(
        &mut self,
        bytes: &'a mut [u8],
        read: impl FnOnce(&simd_json::Tape<'a>) -> T,
    ) -> Result<T, ParseError> {
        let size = bytes.len();
        surrogates::replace_lone(bytes);
        self.run(size, |buffers, tape| simd_json::fill_tape(bytes, buffers, tape), read)
    }

    /// Parses the first `size` of the bytes. At least [`PADDING`] more bytes of any value must follow them, which saves
    /// the parser from copying the document. `read` gets the whole tape.
    ///
    /// # Errors
    /// Those of [`Parser::read`].
    pub(super) fn fill_padded<'a, T>(
        &mut self,
        bytes: &'a mut [u8],
        size: usize,
        read: impl FnOnce(&simd_json::Tape<'a>) -> T,
    ) -> Result<T, ParseError> {
        surrogates::replace_lone(bytes.get_mut(..size).unwrap_or_default());
        self.run(size, |buffers, tape| simd_json::fill_tape_padded(bytes, size, buffers, tape), read)
    }

    fn run<'a, T>(
        &mut self,
        size: usize,
        fill: impl FnOnce(&mut Buffers, &mut simd_json::Tape<'a>) -> Result<(), simd_json::Error>,
        read: impl FnOnce(&simd_json::Tape<'a>) -> T,
    ) -> Result<T, ParseError> {
        let mut tape: simd_json::Tape<'a> =
            std::mem::replace(&mut self.tape, simd_json::Tape(Vec::new())).reset();
        let buffers = self.buffers.get_or_insert_with(|| Buffers::with_max_depth(BUFFER_SIZE, DEPTH_MAX));
        self.size = self.size.max(size);
        let filled = fill(buffers, &mut tape);
        if size > SIZE_MAX {
            // The tree of a large document needs the memory of these buffers: 4 bytes for each of its marks, and its
            // strings once more. They would not be kept in any case.
            self.buffers = None;
        }
        let result = match filled {
            Ok(()) => Ok(read(&tape)),
            Err(error) => Err(ParseError::from(error)),
        };
        self.tape = tape.reset();
        result
    }
}

/// A parser for a short use, with buffers that earlier users left and later users get. It is for code that parses only
/// once, and for code that waits for a long time after parsing while many others do the same.
#[derive(Debug)]
pub struct SpareParser(Parser);

impl SpareParser {
    /// Takes a parser whose buffers have grown already, if one is kept.
    pub fn take() -> Self {
        SpareParser(SPARES.take())
    }
}

impl Deref for SpareParser {
    type Target = Parser;

    fn deref(&self) -> &Parser {
        &self.0
    }
}

impl DerefMut for SpareParser {
    fn deref_mut(&mut self) -> &mut Parser {
        &mut self.0
    }
}

impl Drop for SpareParser {
    fn drop(&mut self) {
        // A tape may be 24 times as large as its document, such as `[0,0,0]`.
        if self.0.size <= SIZE_MAX && self.0.tape.0.capacity() <= TAPE_KEPT_MAX {
            SPARES.give(std::mem::take(&mut self.0));
        }
    }
}

/// Parses a document that belongs to the caller. It is for the few places in which the cost of the tree does not
/// matter.
///
/// # Errors
/// Those of [`Parser::read`].
pub fn parse(bytes: &mut [u8]) -> Result<Value<'_>, ParseError> {
    let integers = LongIntegers::collect(bytes);
    Parser::default().read(bytes, |tape| Value::read(tape, &mut TreeSource { arena: None, integers }))
}

impl<'a> Value<'a> {
    /// Makes the tree of a value on a tape. An integer beyond 64 bits becomes a float.
    pub fn from_tape(tape: Tape<'_, 'a>) -> Self {
        Value::read(tape, &mut TreeSource::default())
    }

    /// Makes the tree of a value on a tape.
    pub(super) fn read(tape: Tape<'_, 'a>, source: &mut TreeSource<'a>) -> Self {
        if let Some(text) = tape.into_string() {
            Value::String(Cow::Borrowed(text))
        } else if let Some(items) = tape.as_array() {
            let mut list = Filling::new(items.len(), source.arena);
            for item in items.iter() {
                list.push(Value::read(item, source));
            }
            Value::Array(list.full())
        } else if let Some(object) = tape.as_object() {
            let mut list = Filling::new(object.len(), source.arena);
            for (key, value) in object.iter() {
                list.push((Cow::Borrowed(key), Value::read(value, source)));
            }
            Value::Object(list.full().into())
        } else {
            let integer = tape.as_u64().map(Number::Uint).or(tape.as_i64().map(Number::Int));
            let number = integer.map(Value::Number).or_else(|| Some(source.float(tape.as_f64()?)));
            number.or(tape.as_bool().map(Value::Bool)).unwrap_or_default()
        }
    }
}

/// The things that a tree is made from, beside its tape.
#[derive(Default)]
pub(super) struct TreeSource<'a> {
    /// The memory for the lists, if they are not to own their items.
    pub(super) arena: Option<&'a Bump>,
    pub(super) integers: LongIntegers,
}

impl<'a> TreeSource<'a> {
    /// The next number that is a float on the tape.
    fn float(&mut self, number: f64) -> Value<'a> {
        match self.integers.next(self.arena) {
            Some(digits) => Value::BigInteger(digits),
            None => Value::Number(Number::Float(number)),
        }
    }
}

/// A list of known length that is being filled. Trees are read recursively, so it must take little of the stack.
enum Filling<'a, T> {
    Owned(Vec<T>),
    /// A list in an arena: its memory, and the number of items that are filled.
    Shared(&'a mut [T], usize),
}

impl<'a, T: Default> Filling<'a, T> {
    fn new(length: usize, arena: Option<&'a Bump>) -> Self {
        match arena {
            Some(arena) => Filling::Shared(arena.alloc_slice_fill_default(length), 0),
            None => Filling::Owned(Vec::with_capacity(length)),
        }
    }

    fn push(&mut self, item: T) {
        match self {
            Filling::Owned(items) => items.push(item),
            Filling::Shared(places, filled) => {
                if let Some(place) = places.get_mut(*filled) {
                    *place = item;
                }
                *filled += 1;
            }
        }
    }

    fn full(self) -> List<'a, T> {
        match self {
            Filling::Owned(items) => List::Owned(items),
            Filling::Shared(places, _) => List::Shared(places),
        }
    }
}
