//! A hash that tells two texts apart: four lanes of Fletcher sums over words of 64 bits, mixed at the end.
//!
//! Two additions a word are all that a large request may pay for: its translation takes 13 instructions a byte, and this
//! 0.3, and 160 for each part (benches/README.md says what else was considered). A text of which one word is another one
//! always has another hash; several changes that cancel out hardly happen by chance. Whoever makes two texts of the same hash
//! gets a wrong word about the cache of his own conversation, and nothing else.

/// The words that are added side by side.
const LANES: usize = 4;

/// The hash of these bytes.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    let (blocks, _) = words.as_chunks::<LANES>();
    let (mut sums, mut places) = ([0u64; LANES], [0u64; LANES]);
    let mut add = |block: &[[u8; 8]; LANES]| {
        for ((sum, place), word) in sums.iter_mut().zip(&mut places).zip(block) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*word));
            *place = place.wrapping_add(*sum);
        }
    };
    blocks.iter().for_each(&mut add);
    let rest = bytes.get(blocks.len() * LANES * 8..).unwrap_or_default();
    let mut last = [[0; 8]; LANES];
    last.as_flattened_mut().iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    add(&last);
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    sums.iter().chain(&places).fold(length, |hash, sum| mix(hash, *sum))
}

/// Adds a value to a hash. The order counts.
pub(super) fn mix(hash: u64, value: u64) -> u64 {
    let mut mixed = (hash.rotate_left(5) ^ value).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^= mixed >> 33;
    mixed.wrapping_mul(0xc4ce_b9fe_1a85_ec53)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_changed_byte_changes_the_hash() {
        let text: Vec<u8> = (0..100u8).collect();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[at] ^= 1 << bit;
                assert_ne!(hash(&changed), hash(&text), "byte {at}, bit {bit}");
            }
            assert_ne!(hash(&text[..at]), hash(&text), "cut at {at}");
            assert_ne!(hash(&[&text[..at], &text[at + 1..]].concat()), hash(&text), "without byte {at}");
        }
    }

    #[test]
    fn the_order_counts() {
        let text: Vec<u8> = (0..=255).collect();
        for first in 0..32 {
            for second in 0..first {
                let mut words = text.as_chunks::<8>().0.to_vec();
                words.swap(first, second);
                assert_ne!(hash(words.as_flattened()), hash(&text), "{first} and {second}");
            }
        }
        for at in 1..256 {
            let mut changed = text.clone();
            changed.swap(at - 1, at);
            assert_ne!(hash(&changed), hash(&text), "{at}");
        }
        assert_ne!(hash(b""), hash(&[0]), "a zero at the end counts");
        assert_ne!(mix(mix(0, 1), 2), mix(mix(0, 2), 1));
    }
}
