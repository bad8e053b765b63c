//! Server-sent events: decodes bytes into events, and frames an event's data.
//!
//! Knows the `text/event-stream` format (WHATWG HTML, section 9.2) and nothing about the content of the data.
//!
//! The decoder owns one buffer: the upstream is read straight into it, and the data of each event are handed out as
//! a mutable slice of it, for a JSON parser that works in place. Nothing is copied unless an event has several
//! `data:` lines.

use std::fmt;
use std::ops::Range;

/// The longest accepted event, in bytes. A tool call of a megabyte fits many times over, and a server that sends one
/// endless line does not fill the memory.
pub const EVENT_SIZE_MAX: usize = 16 * 1024 * 1024;

/// The room offered to a read at first, in bytes: a few events. It is doubled each time that a read has nearly filled
/// it, so that a slow stream costs little memory and a fast one few reads.
const READ_SIZE: usize = 2 * 1024;

/// The most room offered to a read, in bytes.
const READ_SIZE_MAX: usize = 32 * 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub struct SseEvent<'b> {
    /// True if the event's name is `error`, as in LM Studio's errors. Other names are not kept: no server uses them.
    pub is_error: bool,
    /// The data, never empty.
    pub data: &'b mut [u8],
}

/// An event that is longer than the decoder's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event is longer than the limit")
    }
}

/// An incremental decoder. It accepts LF, CRLF and CR, a byte order mark, comments, `id:` and `retry:` lines, several
/// `data:` lines in an event, `data:` without a space, and any split of the bytes.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes before this index were used and can be dropped.
    start: usize,
    /// Bytes before this index belong to lines that were decoded, or hold no line end.
    scanned: usize,
    /// The index where the current, unfinished line begins.
    line: usize,
    filled: usize,
    /// The room that the next read is offered, in bytes.
    read_size: usize,
    data: Option<Range<usize>>,
    is_error: bool,
    skip_line_feed: bool,
    at_beginning: bool,
    size_max: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(EVENT_SIZE_MAX)
    }
}

impl Decoder {
    /// A decoder that refuses events of more than `size_max` bytes.
    pub fn new(size_max: usize) -> Self {
        Decoder {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            line: 0,
            filled: 0,
            read_size: READ_SIZE,
            data: None,
            is_error: false,
            skip_line_feed: false,
            at_beginning: true,
            size_max,
        }
    }

    /// The room to read into. Call [`Decoder::advance`] after the read.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.filled {
            self.rebase();
        } else if self.buffer.len() - self.filled < self.read_size && self.start > 0 {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.rebase();
        }
        if self.buffer.len() - self.filled < self.read_size {
            // Doubling keeps the cost of an event of n bytes linear in n.
            let size = (self.buffer.len() * 2).max(self.filled + self.read_size);
            self.buffer.resize(size, 0);
        }
        self.buffer.get_mut(self.filled..).unwrap_or_default()
    }

    fn rebase(&mut self) {
        let by = self.start;
        self.start = 0;
        self.scanned -= by;
        self.line -= by;
        self.filled -= by;
        if let Some(data) = &mut self.data {
            *data = data.start - by..data.end - by;
        }
    }

    /// Takes over the `count` bytes that were read into the last [`Decoder::space`].
    pub fn advance(&mut self, count: usize) {
        let room = self.buffer.len() - self.filled;
        self.filled += count.min(room);
        // A read counts as full at three quarters of the room: the HTTP chunk framing took the rest.
        if count > room / 4 * 3 {
            self.read_size = (self.read_size * 2).min(READ_SIZE_MAX);
        }
    }

    /// Says that no bytes follow: an event that lacks only its blank line is complete then.
    pub fn end(&mut self) {
        for _ in 0..2 {
            if let Some(byte) = self.space().first_mut() {
                *byte = b'\n';
            }
            self.advance(1);
        }
    }

    /// Appends `bytes`; for tests, and for text that is in memory already.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let space = self.space();
            let count = space.len().min(bytes.len());
            let (now, later) = bytes.split_at(count);
            if let Some(room) = space.get_mut(..count) {
                room.copy_from_slice(now);
            }
            self.advance(count);
            bytes = later;
        }
    }

    /// The next complete event, if there is one.
    ///
    /// # Errors
    /// [`TooLong`]: the stream cannot be decoded any further.
    pub fn next_event(&mut self) -> Result<Option<SseEvent<'_>>, TooLong> {
        if self.at_beginning && !self.skip_byte_order_mark() {
            return Ok(None);
        }
        while let Some(line) = self.next_line() {
            if line.is_empty() {
                self.start = self.line;
                let is_error = std::mem::take(&mut self.is_error);
                if let Some(data) = self.data.take().filter(|data| !data.is_empty()) {
                    let data = self.buffer.get_mut(data).unwrap_or_default();
                    return Ok(Some(SseEvent { is_error, data }));
                }
            } else {
                self.field(line);
            }
        }
        if self.data.is_none() {
            self.start = self.line;
        }
        if self.filled - self.start > self.size_max { Err(TooLong) } else { Ok(None) }
    }

    /// True once enough bytes have arrived to decide about the mark, and it was skipped if it was there.
    fn skip_byte_order_mark(&mut self) -> bool {
        let head = self.buffer.get(self.line..self.filled).unwrap_or_default();
        if head.len() < BOM.len() && BOM.starts_with(head) {
            return false;
        }
        if head.starts_with(BOM) {
            self.line += BOM.len();
            self.scanned = self.line;
        }
        self.at_beginning = false;
        true
    }

    fn next_line(&mut self) -> Option<Range<usize>> {
        if self.skip_line_feed && self.scanned < self.filled {
            self.skip_line_feed = false;
            if self.buffer.get(self.scanned) == Some(&b'\n') {
                self.scanned += 1;
                self.line = self.scanned;
            }
        }
        let unseen = self.buffer.get(self.scanned..self.filled)?;
        let Some(at) = memchr::memchr2(b'\n', b'\r', unseen) else {
            self.scanned = self.filled;
            return None;
        };
        let end = self.scanned + at;
        self.skip_line_feed = unseen.get(at) == Some(&b'\r');
        let line = self.line..end;
        self.scanned = end + 1;
        self.line = end + 1;
        Some(line)
    }

    fn field(&mut self, line: Range<usize>) {
        let bytes = self.buffer.get(line.clone()).unwrap_or_default();
        let (name, value) = match memchr::memchr(b':', bytes) {
            Some(0) => return, // a comment
            Some(colon) => {
                let after = line.start + colon + 1;
                let space = usize::from(self.buffer.get(after) == Some(&b' ') && after < line.end);
                (bytes.get(..colon).unwrap_or_default(), after + space..line.end)
            }
            None => (bytes, line.end..line.end),
        };
        match name {
            b"data" => self.append(value),
            // The lines of old llama.cpp, which names no event.
            b"error" => {
                self.is_error = true;
                self.append(value);
            }
            b"event" => self.is_error = self.buffer.get(value) == Some(b"error"),
            _ => {}
        }
    }

    fn append(&mut self, value: Range<usize>) {
        let Some(data) = &mut self.data else {
            self.data = Some(value);
            return;
        };
        // A line feed joins the data of several lines, in place: the field's name stood there, so there is room for it.
        if let Some(byte) = self.buffer.get_mut(data.end) {
            *byte = b'\n';
        }
        let end = data.end + 1 + value.len();
        self.buffer.copy_within(value, data.end + 1);
        data.end = end;
    }
}

/// Appends one event: its name, and the data that `write_data` appends. The data must hold no line end.
pub fn encode(name: &str, out: &mut Vec<u8>, write_data: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    write_data(out);
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(decoder: &mut Decoder, into: &mut Vec<(bool, String)>) {
        while let Some(event) = decoder.next_event().expect("short events") {
            into.push((event.is_error, String::from_utf8(event.data.to_vec()).expect("UTF-8")));
        }
    }

    fn events(pieces: &[&[u8]]) -> Vec<(bool, String)> {
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for piece in pieces {
            decoder.feed(piece);
            drain(&mut decoder, &mut found);
        }
        decoder.end();
        drain(&mut decoder, &mut found);
        found
    }

    fn data(text: &str) -> (bool, String) {
        (false, text.to_string())
    }

    const CASES: &[(&str, &[&str])] = &[
        ("data: a\n\ndata: b\n\n", &["a", "b"]),
        ("data:a\r\n\r\ndata:  b\r\r", &["a", " b"]),
        ("\u{feff}data: a\n\n", &["a"]),
        (": ping\n:\n\ndata: a\n: x\n\n\n\n", &["a"]),
        ("errors: x\n\ndata: a\n\n", &["a"]),
        ("id: 1\nevent: x\nretry: 5\ndata: a\ndata: b\ndata:\ndata: é\n\n", &["a\nb\n\né"]),
        ("data\n\ndata:\n\ndata: \n\ndata: a\n\n", &["a"]),
        ("data: cut", &["cut"]),
        ("data: cut\r\n", &["cut"]),
        ("data: a\r\n\r\ndata: b\n\r\n", &["a", "b"]),
        ("dat: a\nxdata: b\n\n", &[]),
        ("", &[]),
        ("\u{feff}", &[]),
    ];

    #[test]
    fn events_are_the_same_whole_and_cut_everywhere() {
        for (text, expected) in CASES {
            let expected: Vec<_> = expected.iter().map(|e| data(e)).collect();
            let bytes = text.as_bytes();
            assert_eq!(events(&[bytes]), expected, "{text:?} whole");
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(events(&single), expected, "{text:?} byte by byte");
            for cut in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                assert_eq!(events(&[head, tail]), expected, "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn the_name_error_counts_for_its_own_event_only() {
        let found = events(&[b"event: error\ndata: a\n\ndata: b\n\nevent: errors\ndata: c\n\nerror: d\n\n"]);
        assert_eq!(found, [(true, "a".into()), data("b"), data("c"), (true, "d".into())]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        for piece in
            ["data: xxxxxxxxxxxxxxxxxxxx", "data: xxxxxxxxxxxxx\ndata: xxxxxx\n", "xxxxxxxxxxxxxxxxxxxxxxxx"]
        {
            let mut decoder = Decoder::new(20);
            decoder.feed(piece.as_bytes());
            assert_eq!(decoder.next_event().map(|_| ()), Err(TooLong), "{piece}");
        }
    }

    #[test]
    fn comments_without_end_need_no_memory() {
        let mut decoder = Decoder::new(100);
        for _ in 0..10_000 {
            decoder.feed(b": keep-alive\n");
            assert_eq!(decoder.next_event(), Ok(None));
        }
        assert!(decoder.buffer.len() <= 2 * READ_SIZE);
    }

    #[test]
    fn an_encoded_event_decodes_to_itself() {
        let mut out = Vec::new();
        encode("ping", &mut out, |out| out.extend_from_slice(b"{}"));
        assert_eq!(out, b"event: ping\ndata: {}\n\n");
        assert_eq!(events(&[&out]), [data("{}")]);
    }
}
