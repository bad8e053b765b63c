//! The size of an image, read from its first bytes. Used for estimates only.
//!
//! Reads the headers of PNG, JPEG and GIF. Does not decode pixels.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How much of an image is searched, in bytes of base64. A JPEG's size comes after its preview picture, which may have
/// 64 KB.
const HEAD_SIZE_MAX: usize = 96 * 1024;

/// The width and height in pixels of an image in base64; `None` if its format is not supported.
pub(super) fn size(base64: &str) -> Option<(u64, u64)> {
    let len = base64.len().min(HEAD_SIZE_MAX) / 4 * 4;
    let head = STANDARD.decode(base64.get(..len)?).ok()?;
    png(&head).or_else(|| gif(&head)).or_else(|| jpeg(&head))
}

fn png(head: &[u8]) -> Option<(u64, u64)> {
    let rest = head.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    // The first chunk: its length, `IHDR`, then width and height of four bytes each.
    Some((big_endian(rest.get(8..12)?), big_endian(rest.get(12..16)?)))
}

fn gif(head: &[u8]) -> Option<(u64, u64)> {
    let rest = head.strip_prefix(b"GIF8")?;
    let little_endian = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
    Some((little_endian(rest.get(2..4)?), little_endian(rest.get(4..6)?)))
}

/// Walks the segments to the start-of-frame segment, which holds height and width.
fn jpeg(head: &[u8]) -> Option<(u64, u64)> {
    let mut rest = head.strip_prefix(b"\xff\xd8")?;
    loop {
        let [0xff, marker, segment @ ..] = rest else { return None };
        match marker {
            0xff => rest = rest.get(1..)?, // fill bytes
            // C4, C8 and CC are tables, not frames.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return Some((big_endian(segment.get(5..7)?), big_endian(segment.get(3..5)?)));
            }
            _ => {
                let len = usize::try_from(big_endian(segment.get(..2)?)).ok()?;
                rest = segment.get(len..)?;
            }
        }
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Option<(u64, u64)> {
        size(&STANDARD.encode(bytes))
    }

    #[test]
    fn sizes_of_the_known_formats() {
        assert_eq!(of(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x04\0\0\0\x03\0\x08\x06"), Some((1024, 768)));
        assert_eq!(of(b"GIF89a\x40\x01\xf0\x00\0\0\0"), Some((320, 240)));
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc4\0\x03x\xff\xc2\0\x11\x08\x02\x58\x03\x20\x03";
        assert_eq!(of(jpeg), Some((800, 600)));
    }

    #[test]
    fn cut_and_unknown_images_have_none() {
        for bytes in
            [&b"\x89PNG\r\n\x1a\n\0\0"[..], b"\xff\xd8\xff\xe0\xff\xff", b"\xff\xd8\xff\xc0\0", b"RIFF", b""]
        {
            assert_eq!(of(bytes), None, "{bytes:?}");
        }
        assert_eq!(size("!!!!"), None);
    }
}
