//! A chunked body (RFC 9112, section 7.1): separates its data from its framing.
//!
//! Serves both sides: a client's request and an upstream's response. It decodes in place, so that a body is read
//! straight into the memory where it is used.

use std::fmt;

/// The longest size line or trailer, in bytes. Only the size is used; the rest is dropped.
const LINE_SIZE_MAX: u64 = 4 * 1024;

/// Framing may take this many bytes beyond [`OVERHEAD_FACTOR`] times the data. Framing is dropped, so that without a
/// limit a peer could send it without end.
const OVERHEAD_FREE: u64 = 64 * 1024;

/// The framing that a chunk of one byte may have, in bytes: a size line of 20 and two line ends.
const OVERHEAD_FACTOR: u64 = 24;

/// The state of decoding a chunked body.
#[derive(Debug, Default)]
pub struct Chunks {
    place: ChunkPlace,
    /// The bytes of the current chunk that have not come yet.
    left: u64,
    /// The bytes of the current line so far.
    line: u64,
    framing: u64,
    size: u64,
}

/// The kind of byte that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkPlace {
    /// The first digit of a chunk's size.
    #[default]
    Size,
    /// Another digit, or whatever follows the digits.
    Digits,
    /// White space after the digits, as some servers pad a size.
    Padding,
    /// A part of an extension; extensions are ignored.
    Extension,
    /// The line feed after the size.
    SizeEnd,
    Data,
    /// The line end after a chunk's data.
    DataEnd,
    DataLineFeed,
    /// The first byte of a trailer, or the line end that ends the body.
    Trailers,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
    Ended,
}

/// The result of [`Chunks::decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The number of bytes of data; they are at the front now.
    pub data: usize,
    /// The number of bytes that belonged to the body: all, unless it ended among them.
    pub used: usize,
}

/// The reason why bytes are not a valid chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed chunk: {}", self.0)
    }
}

impl Chunks {
    /// True if the last chunk and the trailers have come.
    pub fn is_ended(&self) -> bool {
        self.place == ChunkPlace::Ended
    }

    /// The number of bytes of data so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Moves the data among the next `bytes` to their front. Bytes behind the body's end stay in place.
    ///
    /// # Errors
    /// The bytes are not a valid chunked body, have a line over 4 KiB, or have more framing than data can need. A line
    /// must end with CR and LF: a byte sequence that two servers read differently can be used to smuggle a request.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, Malformed> {
        match self.decode_part(bytes) {
            (decoded, None) => Ok(decoded),
            (_, Some(malformed)) => Err(malformed),
        }
    }

    /// [`Chunks::decode`] up to the first fault, which it returns as well. Nothing can be decoded behind a fault.
    pub fn decode_part(&mut self, bytes: &mut [u8]) -> (Decoded, Option<Malformed>) {
        let (mut data, mut used) = (0, 0);
        while let Some(byte) = bytes.get(used).copied() {
            match self.place {
                ChunkPlace::Ended => break,
                ChunkPlace::Data => {
                    let count = fitting(self.left, bytes.len() - used);
                    bytes.copy_within(used..used + count, data);
                    data += count;
                    used += count;
                    self.size += count as u64;
                    self.left -= count as u64;
                    if self.left == 0 {
                        self.place = ChunkPlace::DataEnd;
                    }
                }
                _ => match self.frame(byte) {
                    Ok(()) => used += 1,
                    Err(malformed) => return (Decoded { data, used }, Some(malformed)),
                },
            }
        }
        (Decoded { data, used }, None)
    }

    fn frame(&mut self, byte: u8) -> Result<(), Malformed> {
        self.line += 1;
        self.framing += 1;
        if self.line > LINE_SIZE_MAX {
            return Err(Malformed("a line is too long"));
        }
        if self.framing > OVERHEAD_FREE + OVERHEAD_FACTOR.saturating_mul(self.size) {
            return Err(Malformed("too much framing for its data"));
        }
        self.place = match (self.place, byte) {
            (ChunkPlace::Size | ChunkPlace::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digit(byte)?
            }
            (ChunkPlace::Digits | ChunkPlace::Padding, b' ' | b'\t') => ChunkPlace::Padding,
            (ChunkPlace::Digits | ChunkPlace::Padding, b';') => ChunkPlace::Extension,
            (ChunkPlace::Digits | ChunkPlace::Padding | ChunkPlace::Extension, b'\r') => ChunkPlace::SizeEnd,
            (ChunkPlace::SizeEnd, b'\n') if self.left == 0 => self.next_line(ChunkPlace::Trailers),
            (ChunkPlace::SizeEnd, b'\n') => self.next_line(ChunkPlace::Data),
            (ChunkPlace::DataEnd, b'\r') => ChunkPlace::DataLineFeed,
            (ChunkPlace::DataLineFeed, b'\n') => self.next_line(ChunkPlace::Size),
            (ChunkPlace::Trailers, b'\r') => ChunkPlace::LastLineFeed,
            (ChunkPlace::LastLineFeed, b'\n') => ChunkPlace::Ended,
            (ChunkPlace::Trailer, b'\r') => ChunkPlace::TrailerLineFeed,
            (ChunkPlace::TrailerLineFeed, b'\n') => self.next_line(ChunkPlace::Trailers),
            (ChunkPlace::Extension, 1..) if byte != b'\n' => ChunkPlace::Extension,
            (ChunkPlace::Trailers | ChunkPlace::Trailer, 1..) if byte != b'\n' => ChunkPlace::Trailer,
            (ChunkPlace::Size | ChunkPlace::Digits | ChunkPlace::Padding, _) => {
                return Err(Malformed("its size is not a hexadecimal number"));
            }
            (ChunkPlace::DataEnd | ChunkPlace::DataLineFeed, _) => {
                return Err(Malformed("its data is longer than its size"));
            }
            _ => return Err(Malformed("a line does not end with CR and LF")),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<ChunkPlace, Malformed> {
        let digit = char::from(byte).to_digit(16).unwrap_or_default();
        let size = self.left.checked_mul(16).ok_or(Malformed("its size is too large"))?;
        self.left = size + u64::from(digit);
        Ok(ChunkPlace::Digits)
    }

    fn next_line(&mut self, place: ChunkPlace) -> ChunkPlace {
        self.line = 0;
        place
    }
}

/// The number of bytes to read next: of the `left` bytes of a body, as many as there is `room` for.
pub(crate) fn fitting(left: u64, room: usize) -> usize {
    usize::try_from(left).map_or(room, |left| left.min(room))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of a body that is decoded in pieces of this size, and the bytes behind it.
    fn decoded(body: &[u8], piece_size: usize) -> Result<(String, String), Malformed> {
        let mut chunks = Chunks::default();
        let (mut data, mut rest) = (Vec::new(), Vec::new());
        for piece in body.chunks(piece_size) {
            let mut piece = piece.to_vec();
            let decoded = chunks.decode(&mut piece)?;
            data.extend_from_slice(&piece[..decoded.data]);
            rest.extend_from_slice(&piece[decoded.used..]);
        }
        assert!(chunks.is_ended(), "{:?}", chunks.place);
        Ok((String::from_utf8(data).unwrap(), String::from_utf8(rest).unwrap()))
    }

    #[test]
    fn data_is_the_same_however_it_is_cut() {
        for (body, data, rest) in [
            ("0\r\n\r\n", "", ""),
            ("3\r\nabc\r\n0\r\n\r\n", "abc", ""),
            ("1\r\na\r\nB\r\n\r\n0\r\n1\r\n2\r\n\r\n000\r\n\r\nHTTP", "a\r\n0\r\n1\r\n2\r\n", "HTTP"),
            ("0003;a=\"b;c\"\r\nabc\r\n2 \t\r\nde\r\n0;x\r\na: b\r\nc: d\r\n\r\n\r\n", "abcde", "\r\n"),
        ] {
            for piece_size in 1..=body.len() {
                let expected = (data.to_owned(), rest.to_owned());
                assert_eq!(decoded(body.as_bytes(), piece_size), Ok(expected), "{body:?} {piece_size}");
            }
        }
    }

    #[test]
    fn the_data_before_a_fault_are_told() {
        let mut bytes = b"3\r\nabc\r\nx".to_vec();
        let (decoded, malformed) = Chunks::default().decode_part(&mut bytes);
        assert_eq!((bytes.get(..decoded.data), malformed.is_some()), (Some(&b"abc"[..]), true));
        assert!(Chunks::default().decode(&mut b"3\r\nabc\r\nx".to_vec()).is_err());
    }

    #[test]
    fn malformed_chunks_are_refused_however_they_are_cut() {
        for (body, why) in [
            ("\r\n", "not a hexadecimal"),
            ("g\r\n", "not a hexadecimal"),
            ("-1\r\n", "not a hexadecimal"),
            ("+1\r\n", "not a hexadecimal"),
            ("0x1\r\n", "not a hexadecimal"),
            (" 1\r\n", "not a hexadecimal"),
            ("1\na", "not a hexadecimal"),
            ("1 a\r\n", "not a hexadecimal"),
            ("1 2\r\n", "not a hexadecimal"),
            ("1\r\rabc", "CR and LF"),
            ("1;a\nb\r\n", "CR and LF"),
            ("1;\0\r\n", "CR and LF"),
            ("1\r\nab", "longer"),
            ("1\r\na\n", "longer"),
            ("1\r\na\r0", "longer"),
            ("0\r\n\n", "CR and LF"),
            ("0\r\n\ra", "CR and LF"),
            ("0\r\na: b\n\r\n", "CR and LF"),
            ("0\r\na: b\rc", "CR and LF"),
            ("10000000000000000\r\n", "too large"),
        ] {
            for piece_size in 1..=body.len() {
                let error = decoded(body.as_bytes(), piece_size).unwrap_err();
                assert!(error.to_string().contains(why), "{body:?} {piece_size}: {error}");
            }
        }
    }

    #[test]
    fn the_largest_size_is_accepted() {
        let mut chunks = Chunks::default();
        let mut bytes = *b"ffffffffffffffff\r\nabc";
        assert_eq!(chunks.decode(&mut bytes), Ok(Decoded { data: 3, used: 21 }));
        assert_eq!(chunks.left, u64::MAX - 3);
    }

    #[test]
    fn framing_has_limits() {
        let long_line = format!("1;{}\r\na", "x".repeat(5000));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(20_000));
        for (body, why) in [(long_line, "too long"), (trailers, "too much framing")] {
            let mut chunks = Chunks::default();
            let error = chunks.decode(&mut body.into_bytes()).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        let small = "1\r\na\r\n".repeat(100_000) + "0\r\n\r\n";
        assert_eq!(decoded(small.as_bytes(), 4096).unwrap().0.len(), 100_000);
    }
}
