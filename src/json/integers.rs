//! Integers beyond 64 bits, which the parser reads as floats: finds their digits, so that they come out as they came in.
//!
//! A tool may take such an integer (an id, an amount of a currency), and its call stays in the conversation. The digits are
//! collected before the parser changes the document, in its order, and each float of the tree then takes its own.

use std::borrow::Cow;

use bumpalo::Bump;

/// The least digits of an integer that has no place in 64 bits.
const DIGITS_MIN: usize = 19;

/// The places of a block that are looked at: one in every [`DIGITS_MIN`] bytes.
const PLACES: usize = 16;

/// A run of so many digits covers one of the places of a block.
const BLOCK_SIZE: usize = PLACES * DIGITS_MIN;

/// 1 for each digit: with a table a place costs two instructions, and a request has many places.
static IS_DIGIT: [u8; 256] = {
    let mut table = [0; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        #[allow(
            clippy::indexing_slicing,
            reason = "a byte is always inside of the table; it is made while compiling"
        )]
        {
            table[digit as usize] = 1;
        }
        digit += 1;
    }
    table
};

/// The numbers of a document that the parser reads as floats.
#[derive(Debug, Default)]
pub(super) struct LongIntegers {
    /// The digits of each integer, and nothing for each other float, with a comma behind each. Empty for nearly all
    /// documents.
    literals: String,
    /// The beginning of the next number.
    at: usize,
}

impl LongIntegers {
    /// Collects the numbers of a document that was not parsed yet. Takes a document without integers of this size for
    /// what it is in a fraction of the time that parsing takes.
    pub(super) fn collect(json: &[u8]) -> Self {
        let mut found = LongIntegers::default();
        if has_long_run(json) {
            found.read(json);
        }
        found
    }

    /// The digits of the next float, if it is an integer in the document. Call it once for each float.
    pub(super) fn next<'a>(&mut self, arena: Option<&'a Bump>) -> Option<Cow<'a, str>> {
        let rest = self.literals.get(self.at..).filter(|rest| !rest.is_empty())?;
        let (digits, _) = rest.split_once(',')?;
        self.at += digits.len() + 1;
        let digits = Some(digits).filter(|digits| !digits.is_empty())?;
        Some(match arena {
            Some(arena) => Cow::Borrowed(arena.alloc_str(digits)),
            None => Cow::Owned(digits.to_string()),
        })
    }

    /// Reads all numbers outside of strings. A document that is not valid is read to its end as well: the parser refuses
    /// it.
    fn read(&mut self, json: &[u8]) {
        let mut rest = json;
        while let Some((&byte, after)) = rest.split_first() {
            rest = match byte {
                b'"' => after_string(after),
                b'-' | b'0'..=b'9' => {
                    let size = rest.iter().take_while(|byte| is_of_number(**byte)).count();
                    let (number, after) = rest.split_at_checked(size).unwrap_or((rest, &[]));
                    self.push(number);
                    after
                }
                _ => after,
            };
        }
    }

    fn push(&mut self, number: &[u8]) {
        let Ok(text) = str::from_utf8(number) else { return };
        let is_integer = text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
        if is_integer && (text.parse::<u64>().is_ok() || text.parse::<i64>().is_ok()) {
            return;
        }
        self.literals.push_str(if is_integer { text } else { "" });
        self.literals.push(',');
    }
}

/// The bytes behind the closing quote of a string.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        let is_end = rest.get(at) == Some(&b'"');
        rest = rest.get(at + if is_end { 1 } else { 2 }..).unwrap_or_default();
        if is_end {
            return rest;
        }
    }
    &[]
}

fn is_of_number(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

/// True if the document has a run of digits that is long enough and stands where a number may stand. Strings may have such
/// a run, too.
fn has_long_run(json: &[u8]) -> bool {
    let (blocks, rest) = json.as_chunks::<BLOCK_SIZE>();
    let mut start = 0;
    for block in blocks {
        let places = block.iter().skip(DIGITS_MIN - 1).step_by(DIGITS_MIN);
        let digits = places.fold(0, |digits, byte| digits | IS_DIGIT.get(usize::from(*byte)).unwrap_or(&0));
        if digits != 0 && has_run_at_places(json, start, BLOCK_SIZE) {
            return true;
        }
        start += BLOCK_SIZE;
    }
    has_run_at_places(json, start, rest.len())
}

/// The same for the places of one block.
#[inline(never)] // keeps the loop over all blocks short
fn has_run_at_places(json: &[u8], start: usize, size: usize) -> bool {
    let block = json.get(start..start + size).unwrap_or_default();
    let places = block.iter().enumerate().skip(DIGITS_MIN - 1).step_by(DIGITS_MIN);
    // Most digits stand alone, and a look at their neighbours is cheaper than one at the run.
    let has_neighbour = |at: usize| {
        let is_digit = |at: usize| block.get(at).is_none_or(u8::is_ascii_digit);
        is_digit(at - 1) && is_digit(at - 2) || is_digit(at + 1) && is_digit(at + 2)
    };
    places
        .filter(|(at, byte)| byte.is_ascii_digit() && has_neighbour(*at))
        .any(|(at, _)| is_number_at(json, start + at))
}

/// True if a long run has its first place here. Of a run of any length only the bytes around that place are read.
fn is_number_at(json: &[u8], place: usize) -> bool {
    let (before, behind) = json.split_at_checked(place).unwrap_or((json, &[]));
    let is_digit = |byte: &&u8| byte.is_ascii_digit();
    let digits_before = before.iter().rev().take(DIGITS_MIN).take_while(is_digit).count();
    let digits_behind = behind.iter().take(DIGITS_MIN).take_while(is_digit).count();
    let begins = |byte: &u8| matches!(byte, b'-' | b':' | b',' | b'[') || byte.is_ascii_whitespace();
    digits_behind > 0
        && digits_before < DIGITS_MIN
        && digits_before + digits_behind >= DIGITS_MIN
        && before.iter().rev().nth(digits_before).is_none_or(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(json: &str) -> Vec<String> {
        let mut found = LongIntegers::collect(json.as_bytes());
        let mut all = Vec::new();
        while found.at < found.literals.len() {
            all.push(found.next(None).unwrap_or_default().into_owned());
        }
        all
    }

    #[test]
    fn integers_are_found_in_their_order_with_places_for_other_floats() {
        for (json, expected) in [
            ("18446744073709551616", &["18446744073709551616"][..]),
            (
                "[-9223372036854775809 ,1.5,1e30,-0,7,123456789012345678901]",
                &["-9223372036854775809", "", "", "123456789012345678901"],
            ),
            (r#"{"a\"":1.0,"b":"1\\","c":{"d":99999999999999999999}}"#, &["", "99999999999999999999"]),
            // Integers of 64 bits, and digits in strings.
            ("[18446744073709551615,-9223372036854775808,9223372036854775808]", &[]),
            (r#"["99999999999999999999", " 99999999999999999999 ", "a\"99999999999999999999"]"#, &[]),
            ("", &[]),
            (r#"{"a":99999999999999999999,"never ends"#, &["99999999999999999999"]),
            (r#"{"a":99999999999999999999,"b":"\"#, &["99999999999999999999"]),
        ] {
            assert_eq!(collected(json), expected, "{json}");
        }
    }

    #[test]
    fn a_document_of_digits_takes_linear_time() {
        let digits = "7".repeat(16 << 20);
        assert!(!has_long_run(format!("\"{digits}\"").as_bytes()));
        assert!(has_long_run(digits.as_bytes()));
    }

    #[test]
    fn a_run_is_found_wherever_it_stands() {
        for size in 0..3 * BLOCK_SIZE {
            let json = format!("{{\"{}\":-9223372036854775809}}", "x".repeat(size));
            assert_eq!(collected(&json), ["-9223372036854775809"], "{size}");
        }
    }
}
