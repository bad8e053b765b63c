//! Makes the ids that the Messages API gives to requests, messages and tool uses, and the keys of clients.
//!
//! The only source of randomness; the pure modules get their ids as arguments.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The number of 64-bit words in an id. Each gives eight base62 digits: 24 digits as in Anthropic's ids, 142 bits.
const WORDS: u64 = 3;
const DIGITS_PER_WORD: usize = 8;

/// The length of an id with the longest prefix, in bytes.
const ID_SIZE_MAX: usize = "srvtoolu_".len() + 24;

/// An id for one request: `req_` and 24 characters.
pub fn request_id() -> String {
    id("req_")
}

/// An id for one message: `msg_` and 24 characters.
pub fn message_id() -> String {
    id("msg_")
}

/// An id for one tool use: `toolu_` and 24 characters.
pub fn tool_use_id() -> String {
    id("toolu_")
}

/// An id for one use of a server's tool: `srvtoolu_` and 24 characters.
pub fn server_tool_use_id() -> String {
    id("srvtoolu_")
}

/// A new key for a client: `sk-` and 24 characters, 142 bits from the operating system's source for secrets.
///
/// # Errors
/// The operating system gives no random bytes.
pub fn client_key() -> io::Result<String> {
    let mut key = String::from("sk-");
    for _ in 0..WORDS {
        let mut word = [0; size_of::<u64>()];
        fill_with_secrets(&mut word)?;
        push_base62(u64::from_ne_bytes(word), &mut key);
    }
    Ok(key)
}

/// Fills the bytes from the operating system's source for secrets.
#[cfg(target_os = "linux")]
fn fill_with_secrets(bytes: &mut [u8]) -> io::Result<()> {
    use rustix::rand::{GetRandomFlags, getrandom};

    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += getrandom(rest, GetRandomFlags::empty())?;
    }
    Ok(())
}

/// Elsewhere the source is a file.
#[cfg(not(target_os = "linux"))]
fn fill_with_secrets(bytes: &mut [u8]) -> io::Result<()> {
    use std::io::Read as _;

    std::fs::File::open("/dev/urandom")?.read_exact(bytes)
}

/// A counter, run through SipHash under a key that the operating system draws once per process. The counter makes
/// parallel ids differ, the key those of different runs.
fn id(prefix: &str) -> String {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let key = KEY.get_or_init(RandomState::new);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut text = String::with_capacity(ID_SIZE_MAX);
    text.push_str(prefix);
    for word in 0..WORDS {
        push_base62(key.hash_one((count, word)), &mut text);
    }
    text
}

fn push_base62(mut word: u64, text: &mut String) {
    for _ in 0..DIGITS_PER_WORD {
        let digit = usize::try_from(word % 62).ok().and_then(|index| ALPHABET.get(index));
        text.push(char::from(*digit.unwrap_or(&b'0')));
        word /= 62;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_have_their_prefix_and_24_base62_characters() {
        let key = client_key().unwrap();
        assert_ne!(key, client_key().unwrap());
        for (id, prefix) in
            [(request_id(), "req_"), (message_id(), "msg_"), (tool_use_id(), "toolu_"), (key, "sk-")]
        {
            let rest = id.strip_prefix(prefix).unwrap();
            assert_eq!(rest.len(), 24, "{id}");
            assert!(rest.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
        }
    }

    #[test]
    fn parallel_calls_never_get_the_same_id() {
        let threads: Vec<_> = (0..8)
            .map(|_| std::thread::spawn(|| (0..1000).map(|_| tool_use_id()).collect::<Vec<_>>()))
            .collect();
        let ids: HashSet<String> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ids.len(), 8000);
    }
}
