//! A request's document: its bytes and its tree, in memory that is kept for the next document.

use std::fmt;

use bumpalo::Bump;

use super::integers::LongIntegers;
use super::parser::{PADDING, TreeSource};
use super::spares::{SIZE_MAX, Spares};
use super::{ParseError, SpareParser, Value};

/// The most bytes that a value takes in a tree, for each node of the tape. A member is two nodes, its key and its
/// value.
const BYTES_PER_NODE: usize = size_of::<Value<'_>>();

static SPARES: Spares<Memory> = Spares::new();

#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    arena: Bump,
}

/// A document and the memory for its tree.
pub struct Document(Memory);

impl Document {
    /// An empty document.
    pub fn new() -> Self {
        Document(SPARES.take())
    }

    /// The bytes. After parsing they are no longer valid JSON.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// The bytes, to be written to.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0.bytes
    }

    /// Parses the bytes and returns the tree. Call it only once.
    ///
    /// # Errors
    /// Those of [`super::Parser::read`].
    pub fn parse(&mut self) -> Result<Value<'_>, ParseError> {
        let Memory { bytes, arena } = &mut self.0;
        let size = bytes.len();
        let integers = LongIntegers::collect(bytes);
        bytes.reserve_exact(PADDING);
        bytes.resize(size + PADDING, b' ');
        SpareParser::take().fill_padded(bytes, size, |tape| {
            let size = tape.0.len() * BYTES_PER_NODE;
            if arena.chunk_capacity() < size {
                *arena = Bump::with_capacity(size);
            }
            Value::read(tape.as_value(), &mut TreeSource { arena: Some(arena), integers })
        })
    }
}

impl Default for Document {
    fn default() -> Self {
        Document::new()
    }
}

impl From<Vec<u8>> for Document {
    fn from(bytes: Vec<u8>) -> Self {
        let mut document = Document::new();
        document.0.bytes = bytes;
        document
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.0);
        if memory.bytes.capacity().max(memory.arena.allocated_bytes()) <= SIZE_MAX {
            memory.bytes.clear();
            memory.arena.reset();
            SPARES.give(memory);
        }
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("size", &self.0.bytes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) -> String {
        Document::from(text.as_bytes().to_vec()).parse().unwrap().to_json()
    }

    #[test]
    fn kept_memory_holds_nothing_of_the_document_before() {
        let long = format!("[{}]", vec![r#"{"a":"b"}"#; 1000].join(","));
        for text in [&long, "[1]", "{}", &long, r#"{"c":[2,{"d":3}]}"#] {
            assert_eq!(round_trip(text), text);
            assert!(Document::from(text.as_bytes()[1..].to_vec()).parse().is_err());
            assert!(Document::new().bytes().is_empty());
        }
    }

    #[test]
    fn a_tape_far_larger_than_its_document_is_not_kept() {
        let zeros = format!("[{}0]", "0,".repeat(SIZE_MAX / 4));
        assert!(Document::from(zeros.into_bytes()).parse().is_ok());
        let spares: Vec<SpareParser> = (0..9).map(|_| SpareParser::take()).collect();
        assert!(spares.iter().all(|parser| parser.tape_capacity() <= SIZE_MAX / 8));
    }

    #[test]
    fn large_memory_is_not_kept() {
        drop(Document::from(vec![b' '; SIZE_MAX + 1]));
        let kept: Vec<Document> = (0..9).map(|_| Document::new()).collect();
        assert!(kept.iter().all(|document| document.0.bytes.capacity() <= SIZE_MAX));
    }
}
