//! Ids of tool calls: translates the upstream's ids to the client's and back.
//!
//! The API allows fewer characters than some models use (Kimi: `functions.read:0`), and a client needs ids that differ
//! through the whole conversation: Claude Code drops a call and its result if their id comes again in a later turn.
//! Some servers number their calls from zero in every answer (`call_0`, `Bash:0`). An id that cannot be shown as it is
//! goes out in base64 and is decoded to the same bytes when it comes back, because the model's template may write it
//! into the prompt.
//!
//! | the upstream's id | the client's |
//! |---|---|
//! | allowed and new | the same |
//! | other characters, or one that looks like ours | `toolu_sg1_`, base64 |
//! | known to the client from earlier turns | `toolu_sg2_`, a tag of 15 letters and digits, base64 |

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher as _};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::anthropic::{Block, Message};

/// The longest id of an upstream that is shown to the client, in bytes. A call with a longer id gets an id of our own.
pub(super) const SIZE_MAX: usize = 256;

/// How many ids of the history a stream remembers, in 8 bytes each. If there are more, every id counts as taken.
const TAKEN_MAX: usize = 1024;

/// The beginning of every encoded id.
const OURS: &str = "toolu_sg";
/// The beginning of an encoded id without a tag.
const PREFIX: &str = "toolu_sg1_";
/// The beginning of an encoded id that a tag made unique; the tag follows.
const UNIQUE_PREFIX: &str = "toolu_sg2_";

/// How many bytes of the message's id a tag contains: 71 random bits.
const TAG_MESSAGE_SIZE: usize = 12;
/// The length of a tag: the part of the message's id, and the call's number in the answer in three digits.
const TAG_SIZE: usize = TAG_MESSAGE_SIZE + 3;

/// The ids that the client knows from the request's history. Only their hashes are kept: if a new id happens to have
/// the hash of a known one, it is made unique needlessly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenIds {
    /// Sorted, so that they can be searched.
    hashes: Box<[u64]>,
    /// True if there were more than [`TAKEN_MAX`].
    is_full: bool,
}

impl TakenIds {
    /// The ids of all tool calls and results of a conversation.
    pub(super) fn of(messages: &[Message<'_>]) -> TakenIds {
        let ids = messages.iter().flat_map(|message| &message.content).filter_map(|block| match block {
            Block::ToolUse { id, .. } => Some(id.as_ref()),
            Block::ToolResult(result) => Some(result.id.as_ref()),
            _ => None,
        });
        // A call and its result have the same id.
        let mut hashes: Vec<u64> = ids.take(2 * TAKEN_MAX + 1).map(hash).collect();
        let is_full = hashes.len() > 2 * TAKEN_MAX;
        hashes.sort_unstable();
        hashes.dedup();
        let is_full = is_full || hashes.len() > TAKEN_MAX;
        TakenIds { hashes: if is_full { Box::default() } else { hashes.into() }, is_full }
    }

    /// The bytes that it keeps beside its own size.
    pub(super) fn size(&self) -> usize {
        size_of_val(&*self.hashes)
    }

    /// Whether the client may know this id.
    pub(super) fn contains(&self, shown: &str) -> bool {
        self.is_full || (!self.hashes.is_empty() && self.hashes.binary_search(&hash(shown)).is_ok())
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(id.as_bytes());
    hasher.finish()
}

/// The id for the client, if it is not taken.
pub(super) fn shown(id: &str) -> Cow<'_, str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if id.bytes().all(allowed) && !id.starts_with(OURS) {
        return Cow::Borrowed(id);
    }
    Cow::Owned(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(id)))
}

/// The id for the client if the plain one is taken. `message` is the message's id without its prefix, `number` the
/// call's number in the answer.
pub(super) fn unique(id: &str, message: &str, number: usize) -> String {
    let digits = message.bytes().rev().filter(u8::is_ascii_alphanumeric).map(char::from);
    let tag: String = digits.chain(std::iter::repeat('0')).take(TAG_MESSAGE_SIZE).collect();
    format!("{UNIQUE_PREFIX}{tag}{:03}{}", number % 1000, URL_SAFE_NO_PAD.encode(id))
}

/// The id that the upstream gave, decoded from one that a client sends back.
pub(super) fn given(shown: &str) -> Cow<'_, str> {
    let unique = || shown.strip_prefix(UNIQUE_PREFIX)?.split_at_checked(TAG_SIZE).map(|(_, code)| code);
    let code = shown.strip_prefix(PREFIX).or_else(unique);
    let decoded = code.and_then(|code| URL_SAFE_NO_PAD.decode(code).ok());
    match decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(id) if !id.is_empty() => Cow::Owned(id),
        _ => Cow::Borrowed(shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "0123456789abcdefghijklmn";

    fn is_allowed(id: &str) -> bool {
        !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    }

    #[test]
    fn ids_come_back_as_they_were() {
        let looks_like_ours = unique("call_0", MESSAGE, 1);
        for id in [
            "functions.read:0",
            "a b",
            "é",
            "functions.read:00",
            "toolu_sg1_",
            "toolu_sg1_Y2FsbF8w",
            "toolu_sg2_",
            &looks_like_ours,
            "toolu_sg3_x",
        ] {
            let shown = shown(id);
            assert!(is_allowed(&shown) && shown != id, "{shown}");
            assert_eq!(given(&shown), id);
        }
    }

    #[test]
    fn what_the_api_allows_stays_as_it_is() {
        for id in ["toolu_01AbC-x", "call_1", "", "toolu_sg1_", "toolu_sg1_?", "toolu_sg1_a", "toolu_sg2_abc"]
        {
            assert_eq!(given(id), id);
        }
        for id in ["call_1-A", "toolu_01AbC-x", "chatcmpl-tool-0123456789abcdef"] {
            assert_eq!(shown(id), id);
        }
    }

    #[test]
    fn unique_ids_differ_and_come_back_as_they_were() {
        for id in
            ["call_0", "Bash:0", "functions.read:0", "é", "toolu_sg1_Y2FsbF8w", "-", &"x".repeat(SIZE_MAX)]
        {
            let ids = [
                unique(id, MESSAGE, 0),
                unique(id, MESSAGE, 255),
                unique(id, "0123456789abcdefghijklmo", 0),
                shown(id).into_owned(),
            ];
            for (at, one) in ids.iter().enumerate() {
                assert!(is_allowed(one), "{one}");
                assert_eq!(given(one), id);
                assert!(ids.iter().skip(at + 1).all(|other| other != one), "{one}");
            }
        }
        // A message id of another form still gives a tag of the usual length.
        for message in ["", "é", "a", "a-b_c"] {
            assert_eq!(given(&unique("call_0", message, 7)), "call_0");
        }
        assert_eq!(unique("functions.read:0", MESSAGE, 7).len(), 47);
    }

    #[test]
    fn taken_ids_are_remembered_up_to_a_limit() {
        let ids: Vec<String> = (0..=TAKEN_MAX).map(|number| format!("call_{number}")).collect();
        let call = |id: &'static str| Block::ToolUse { id: id.into(), name: "f", input: None };
        let message = |content| Message {
            role: crate::anthropic::Role::Assistant,
            content,
            until_next_user: false,
            effort: None,
        };
        let few = TakenIds::of(&[message(vec![call("call_0"), Block::Text("call_1"), call("call_0")])]);
        assert!(few.contains("call_0") && !few.contains("call_1") && !few.contains(""));
        assert!(!TakenIds::default().contains("call_0") && !TakenIds::of(&[]).contains(""));
        let calls = |count: usize| -> Vec<Block<'_>> {
            ids.iter()
                .take(count)
                .map(|id| Block::ToolUse { id: id.into(), name: "f", input: None })
                .collect()
        };
        let most = TakenIds::of(&[message(calls(TAKEN_MAX)), message(calls(TAKEN_MAX))]);
        assert!(most.contains("call_1023") && !most.contains("call_1024"));
        assert!(TakenIds::of(&[message(calls(TAKEN_MAX + 1))]).contains("unheard-of"));
        let more = TakenIds::of(&[message(calls(TAKEN_MAX)), message(calls(TAKEN_MAX)), message(calls(1))]);
        assert!(more.contains("unheard-of") && more.hashes.is_empty());
    }
}
