//! JSON numbers, byte by byte, as in RFC 8259, section 6.
//!
//! This module knows the grammar only. The caller decides where a number ends.

/// The state of a number: one for each place in `-12.5e+3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberState {
    /// `-`
    Minus,
    /// `0`, after which no digit may follow.
    Zero,
    /// `12`
    Integer,
    /// `12.`
    Point,
    /// `12.5`
    Fraction,
    /// `12e`
    Exponent,
    /// `12e+`
    Sign,
    /// `12e+3`
    Power,
}

impl NumberState {
    /// The state after the first byte; `None` if a number cannot start with it.
    pub(super) fn start(byte: u8) -> Option<NumberState> {
        match byte {
            b'-' => Some(NumberState::Minus),
            b'0' => Some(NumberState::Zero),
            b'1'..=b'9' => Some(NumberState::Integer),
            _ => None,
        }
    }

    /// The state after one more byte; `None` if the number cannot go on with it.
    pub(super) fn next(self, byte: u8) -> Option<NumberState> {
        match (self, byte) {
            (NumberState::Minus, _) if byte != b'-' => NumberState::start(byte),
            (NumberState::Integer, b'0'..=b'9') => Some(NumberState::Integer),
            (NumberState::Zero | NumberState::Integer, b'.') => Some(NumberState::Point),
            (NumberState::Point | NumberState::Fraction, b'0'..=b'9') => Some(NumberState::Fraction),
            (NumberState::Zero | NumberState::Integer | NumberState::Fraction, b'e' | b'E') => {
                Some(NumberState::Exponent)
            }
            (NumberState::Exponent, b'+' | b'-') => Some(NumberState::Sign),
            (NumberState::Exponent | NumberState::Sign | NumberState::Power, b'0'..=b'9') => {
                Some(NumberState::Power)
            }
            _ => None,
        }
    }

    /// True if the number may end here.
    pub(super) fn is_whole(self) -> bool {
        self.is_integer() || matches!(self, NumberState::Fraction | NumberState::Power)
    }

    /// True if the number may end here and has neither fraction nor exponent.
    pub(super) fn is_integer(self) -> bool {
        matches!(self, NumberState::Zero | NumberState::Integer)
    }

    /// The state at the end of `text`; `None` if the text is not the beginning of a number.
    pub(super) fn of(text: &str) -> Option<NumberState> {
        let (first, rest) = text.as_bytes().split_first()?;
        rest.iter().try_fold(NumberState::start(*first)?, |number, byte| number.next(*byte))
    }
}

/// True if the value of a valid number fits a 64-bit float. `1e999` is valid JSON, but clients read it as infinity, and
/// the parser here refuses it.
pub(super) fn is_finite(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(f64::is_finite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_grammar() {
        for text in ["0", "-0", "7", "120", "-1.5", "0.0", "1e5", "1E+05", "0e-0", "1.25e-3"] {
            assert!(NumberState::of(text).is_some_and(NumberState::is_whole), "{text}");
        }
        for text in
            ["", "-", "+1", "01", "00", ".5", "1.", "1.e5", "--1", "1e", "1e+", "1e5.5", "1_0", "0x1", " 1"]
        {
            assert!(!NumberState::of(text).is_some_and(NumberState::is_whole), "{text}");
        }
        assert!(NumberState::of("-12").is_some_and(NumberState::is_integer));
        assert!(!NumberState::of("12.0").is_some_and(NumberState::is_integer));
    }

    #[test]
    fn infinities_are_not_finite() {
        assert!(is_finite("1e308") && is_finite("-0"));
        assert!(!is_finite("1e999"));
    }
}
