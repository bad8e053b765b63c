//! Reads what a log and a pool need from an answer that is passed on byte for byte: the id at its beginning, and the counts
//! and the reason at its end. Nothing is allocated between its first bytes and its end.

use memchr::memmem;

use super::chunk::Counts;
use crate::json::{Parser, spans};

/// The bytes at the beginning in which an id is looked for.
const HEAD_SIZE: usize = 512;

/// The bytes that are kept of the end. The last events, and the end of a whole answer, are shorter.
const TAIL_SIZE: usize = 4096;

/// The longest id of a response that is remembered, in bytes.
const ID_SIZE_MAX: usize = 128;

/// The beginning and the end of an answer that passes.
#[derive(Debug, Default)]
pub struct PassingAnswer {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl PassingAnswer {
    /// Takes in the next bytes.
    pub fn see(&mut self, bytes: &[u8]) {
        if self.tail.capacity() == 0 {
            self.head.reserve_exact(HEAD_SIZE);
            self.tail.reserve_exact(2 * TAIL_SIZE);
        }
        let room = HEAD_SIZE.saturating_sub(self.head.len());
        self.head.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let bytes = bytes.get(bytes.len().saturating_sub(TAIL_SIZE)..).unwrap_or_default();
        if self.tail.len() + bytes.len() > 2 * TAIL_SIZE {
            let surplus = self.tail.len().saturating_sub(TAIL_SIZE);
            self.tail.drain(..surplus);
        }
        self.tail.extend_from_slice(bytes);
    }

    /// True if the bytes so far end behind a whole event, so that another one may follow.
    pub fn is_between_events(&self) -> bool {
        [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"].iter().any(|end| self.tail.ends_with(end))
    }

    /// True if the mark that ends a stream was the last event.
    pub fn is_done(&self) -> bool {
        self.tail.trim_ascii_end().ends_with(b"data: [DONE]")
    }

    /// The id that the answer begins with, if it is short and plain.
    pub fn id(&self) -> Option<&str> {
        let after = after_key(&self.head, b"\"id\"", false)?.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', after)?;
        let id = std::str::from_utf8(after.get(..end)?).ok()?;
        (id.len() <= ID_SIZE_MAX && id.bytes().all(|byte| byte.is_ascii_graphic())).then_some(id)
    }

    /// The counts that the server gave last.
    pub fn counts(&self) -> Option<Counts> {
        let mut tail = self.tail.as_slice();
        let usage = loop {
            let at = memmem::rfind(tail, b"\"usage\"")?;
            let after = after_key(tail.get(at..)?, b"\"usage\"", false)?;
            if after.starts_with(b"{") {
                break after;
            }
            // The events before the last one say `"usage":null`.
            tail = tail.get(..at)?;
        };
        let mut object = usage.get(spans::whole(usage))?.to_vec();
        Parser::default().read(&mut object, Counts::read).ok()?
    }

    /// True if the answer says that it ended for this reason: `stop`, `length`, `tool_calls`, or `incomplete` for a response.
    pub fn ended_with(&self, reason: &str) -> bool {
        let is_it = |key: &[u8]| {
            let after = after_key(&self.tail, key, true).and_then(|after| after.strip_prefix(b"\""));
            after
                .and_then(|after| after.strip_prefix(reason.as_bytes()))
                .is_some_and(|rest| rest.starts_with(b"\""))
        };
        is_it(b"\"finish_reason\"") || is_it(b"\"status\"")
    }
}

/// The bytes of a key's value: of its first occurrence, or of its last one that is not null (`is_last`).
fn after_key<'b>(bytes: &'b [u8], key: &[u8], is_last: bool) -> Option<&'b [u8]> {
    let mut bytes = bytes;
    loop {
        let at = if is_last { memmem::rfind(bytes, key) } else { memmem::find(bytes, key) }?;
        let value =
            bytes.get(at + key.len()..)?.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        match value {
            Some(value) if !is_last || !value.starts_with(b"null") => return Some(value),
            _ if is_last => bytes = bytes.get(..at)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str, piece: usize) -> PassingAnswer {
        let mut answer = PassingAnswer::default();
        text.as_bytes().chunks(piece).for_each(|bytes| answer.see(bytes));
        answer
    }

    fn counts(prompt: u64, cached: u64, completion: u64) -> Counts {
        Counts { prompt, cached, completion, is_cache_told: true, ..Counts::default() }
    }

    #[test]
    fn counts_and_reasons_are_read_however_the_answer_is_cut() {
        let noise = r#"data: {"id":"other","choices":[{"delta":{"content":"\"usage\":{\"prompt_tokens\":9}"},"finish_reason":null}],"usage":null}"#;
        let chat = format!(
            "data: {{\"id\": \"chatcmpl-1\"}}\n\n{}data: {{\"choices\":[{{\"finish_reason\":\"length\"}}],\"usage\":null}}\n\ndata: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":20,\"total_tokens\":25,\"completion_tokens\":5,\"prompt_tokens_details\":{{\"cached_tokens\":16}}}}}}\n\ndata: [DONE]\n\n",
            format!("{noise}\n\n").repeat(200)
        );
        for piece in [1, 7, 1000, 5000, 1 << 20] {
            let answer = seen(&chat, piece);
            let counts = counts(20, 16, 5);
            assert_eq!((answer.counts(), answer.id()), (Some(counts), Some("chatcmpl-1")), "{piece}");
            assert!(answer.ended_with("length") && !answer.ended_with("stop"));
            assert!(answer.is_done() && answer.is_between_events());
            assert!(answer.tail.capacity() <= 2 * TAIL_SIZE && answer.head.len() <= HEAD_SIZE);
        }
        let response = r#"{"id": "resp_1", "output": [], "status": "incomplete", "usage": {"input_tokens": 3, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 4}}"#;
        let answer = seen(response, 10);
        assert_eq!(answer.counts(), Some(counts(3, 1, 4)));
        assert!(answer.ended_with("incomplete") && !answer.is_done() && !answer.is_between_events());
    }

    #[test]
    fn an_answer_that_says_nothing_gives_nothing() {
        for text in [
            "",
            "\0\u{1}",
            r#"{"usage"#,
            r#"{"usage":"#,
            r#"{"id":7,"usage":[],"finish_reason":null}"#,
            r#"{"id":""#,
        ] {
            let answer = seen(text, 3);
            assert_eq!(
                (answer.counts(), answer.id(), answer.ended_with("stop")),
                (None, None, false),
                "{text}"
            );
        }
        assert_eq!(seen(&format!(r#"{{"id":"{}"}}"#, "x".repeat(129)), 64).id(), None);
        assert_eq!(
            seen(r#"{"usage":{"prompt_tokens":99999999999999999999}}"#, 64).counts(),
            Some(Counts::default())
        );
    }
}
