//! The framing of a chunked body, of a client or an upstream: the same data and the same end, whole and cut.
//!
//! Input: one byte for the size of the pieces; the rest is the body, and whatever follows it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sparkgap::http::Chunks;

/// The data, the number of bytes that belonged to the body, and how it ended.
type Body = (Vec<u8>, usize, String);

fuzz_target!(|input: &[u8]| {
    let Some((size, bytes)) = input.split_first() else { return };
    let whole = decoded(bytes, bytes.len().max(1));
    assert_eq!(whole, decoded(bytes, usize::from(*size) + 1), "in pieces");
    assert_eq!(whole, decoded(bytes, 1), "byte by byte");
});

fn decoded(bytes: &[u8], size: usize) -> Body {
    let mut chunks = Chunks::default();
    let (mut data, mut used) = (Vec::new(), 0);
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        match chunks.decode(&mut piece) {
            Ok(found) => {
                assert!(found.data <= found.used && found.used <= piece.len());
                data.extend_from_slice(&piece[..found.data]);
                used += found.used;
            }
            // The data before the mistake was decoded or not, by the cut: only the refusal is the same.
            Err(error) => return (Vec::new(), 0, error.to_string()),
        }
        if chunks.is_ended() {
            break;
        }
    }
    assert_eq!(chunks.size(), data.len() as u64);
    (data, used, format!("ended: {}", chunks.is_ended()))
}
