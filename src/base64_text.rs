//! Base64 as clients send it: with or without `=` at its end, in lines, also cut.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes of a text in base64. White space does not count, since some encoders break their lines, as in a mail. `None`:
/// it is not base64.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    decode_base64_run(&text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<_>>())
}

/// The bytes of a run of base64 without white space. `None`: it is not base64.
pub fn decode_base64_run(run: &[u8]) -> Option<Vec<u8>> {
    LENIENT.decode(run).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_and_line_ends_may_be_missing_or_there() {
        for text in ["aGVsbG8=", "aGVsbG8", " aGVs\r\nbG8=\n", "aGVsbG9="] {
            assert_eq!(decode_base64(text).as_deref(), Some(&b"hello"[..]), "{text}");
        }
        for text in ["a", "aGVs!bG8", "aGVs-_8="] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
        assert_eq!(decode_base64_run(b"aGVs bG8"), None);
    }
}
