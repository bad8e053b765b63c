//! A request's document: its bytes and its tree, in memory that is kept for the next one.
//!
//! Freed and made anew for each request, memory of this size is what the allocator gives back to the system and has to
//! fault in again: 114 pages for a request of 300 KB, which took longer than the parser (glibc 2.36).

use std::fmt;
use std::sync::{Mutex, PoisonError};

use bumpalo::Bump;

use super::{ParseError, Parser, Value};

/// What a value takes at most in a tree, for each node of the tape: a member is two nodes, its key and its value.
const BYTES_PER_NODE: usize = size_of::<Value<'_>>();

/// Memories that are kept. A request has one for a fraction of a millisecond, so there are seldom more of them than cores.
const SPARE_MAX: usize = 4;

/// The bytes of a document, and those of a tree, beyond which a memory is not kept. Claude Code sends 100 KB to 1 MB.
const SPARE_SIZE_MAX: usize = 1024 * 1024;

static SPARE: Mutex<Vec<Memory>> = Mutex::new(Vec::new());

#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    parser: Parser,
    arena: Bump,
}

/// A document and the memory for its tree.
pub struct Document(Memory);

impl Document {
    /// An empty one, to be filled.
    pub fn new() -> Self {
        Document(SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default())
    }

    /// Its bytes; no JSON any more once it is parsed.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Its bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0.bytes
    }

    /// Its tree. To be called once.
    ///
    /// # Errors
    /// As [`Parser::read`].
    pub fn parse(&mut self) -> Result<Value<'_>, ParseError> {
        let Memory { bytes, parser, arena } = &mut self.0;
        parser.fill(bytes, |tape| {
            let size = tape.0.len() * BYTES_PER_NODE;
            if arena.chunk_capacity() < size {
                *arena = Bump::with_capacity(size);
            }
            Value::read(tape.as_value(), Some(arena))
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
        if memory.bytes.capacity().max(memory.arena.allocated_bytes()) > SPARE_SIZE_MAX {
            return;
        }
        memory.bytes.clear();
        memory.arena.reset();
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(memory);
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
    fn kept_memory_shows_nothing_of_the_document_before() {
        let long = format!("[{}]", vec![r#"{"a":"b"}"#; 1000].join(","));
        for text in [&long, "[1]", "{}", &long, r#"{"c":[2,{"d":3}]}"#] {
            assert_eq!(round_trip(text), text);
            assert!(Document::from(text.as_bytes()[1..].to_vec()).parse().is_err());
            assert!(Document::new().bytes().is_empty());
        }
    }

    #[test]
    fn large_memory_is_not_kept() {
        drop(Document::from(vec![b' '; SPARE_SIZE_MAX + 1]));
        let spare = SPARE.lock().unwrap();
        assert!(spare.len() <= SPARE_MAX);
        assert!(spare.iter().all(|memory| memory.bytes.capacity() <= SPARE_SIZE_MAX));
    }
}
