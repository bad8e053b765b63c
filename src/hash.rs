//! FNV-1a, 64 bits: a fast hash of short texts, the same on every machine and in every version.
//!
//! It tells things apart and spreads them; it proves nothing, since whoever wants two texts of one hash finds them.
//!
//! Pure.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// A hash on its way: bytes are pushed, in as many pieces as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fnv(u64);

impl Fnv {
    /// The hash of nothing.
    pub const EMPTY: Fnv = Fnv(OFFSET);

    /// The hash after these bytes as well.
    #[must_use]
    pub fn push(self, bytes: &[u8]) -> Fnv {
        Fnv(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME)))
    }

    /// The plain FNV-1a value in 16 hexadecimal digits, to recognise a text.
    pub fn hex(self) -> String {
        format!("{:016x}", self.0)
    }

    /// The value with a final mix, to spread texts evenly.
    ///
    /// The last bytes of a text reach only the low bits of plain FNV-1a, so that the addresses of a LAN, which differ in
    /// their last digits, all fell on one of two boxes (30:0). The mix is the finaliser of MurmurHash3: every bit of the
    /// input changes each bit of the output about half of the time.
    pub fn mixed(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ hash >> 33
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fnv_1a() {
        // Test vectors of the draft that describes FNV.
        for (text, value) in
            [("", "cbf29ce484222325"), ("a", "af63dc4c8601ec8c"), ("foobar", "85944171f73967e8")]
        {
            assert_eq!(Fnv::EMPTY.push(text.as_bytes()).hex(), value, "{text}");
        }
        assert_eq!(Fnv::EMPTY.push(b"foo").push(b"bar"), Fnv::EMPTY.push(b"foobar"));
    }

    #[test]
    fn texts_that_differ_in_their_last_digits_are_spread_evenly() {
        for boxes in [2, 3, 5] {
            let mut counts = vec![0u32; boxes];
            for digit in 0..250 {
                let address = format!("192.168.68.{digit}");
                let hash = Fnv::EMPTY.push(address.as_bytes()).mixed();
                counts[(usize::try_from(hash >> 32).unwrap() * boxes) >> 32] += 1;
            }
            let fair = 250 / u32::try_from(boxes).unwrap();
            assert!(counts.iter().all(|count| count.abs_diff(fair) <= fair / 3), "{counts:?}");
        }
    }
}
