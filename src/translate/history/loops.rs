//! Calls that a model makes again and again: the same tool, the same arguments, the same result.
//!
//! The history alone is read, so that it works behind several gateways, and a result that once got a line keeps it: the
//! upstream's prefix cache holds.

use std::borrow::Cow;

use crate::json::Value;

/// From this many equal calls in a row on, each of their results gets a line.
pub(in super::super) const TOLD_FROM: usize = 3;

/// After this many equal calls in a row, and each further time as many, calls are forbidden for one turn.
pub(in super::super) const BROKEN_EVERY: usize = 6;

/// Counts equal calls in a row.
#[derive(Debug, Default)]
pub(super) struct CallLoop<'r> {
    /// The last call: its tool, its arguments and its result.
    last: Option<(&'r str, Option<&'r Value<'r>>, Cow<'r, str>)>,
    length: usize,
}

impl<'r> CallLoop<'r> {
    /// The number of equal calls at the end of the history.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Forgets the calls so far: the user has said something.
    pub(super) fn reset(&mut self) {
        *self = CallLoop::default();
    }

    /// Takes a call with its result, and adds a line to a result that is one of many equal ones.
    pub(super) fn add(&mut self, name: &'r str, input: Option<&'r Value<'r>>, result: &mut Cow<'r, str>) {
        let is_same = self.last.as_ref().is_some_and(|(last_name, last_input, last_result)| {
            // Results differ most often, and are the cheapest to compare.
            *last_name == name && last_result == result && is_same_input(*last_input, input)
        });
        if !is_same {
            self.last = Some((name, input, result.clone()));
            self.length = 1;
            return;
        }
        self.length += 1;
        if self.length >= TOLD_FROM {
            let line = format!(
                "\n[This is call {} in a row of the same tool with the same arguments and the same result. Calling it again \
                 will not change the result: try something else, or tell the user what is missing.]",
                self.length
            );
            result.to_mut().push_str(&line);
        }
    }
}

/// True if two inputs have the same members in whatever order.
fn is_same_input(a: Option<&Value<'_>>, b: Option<&Value<'_>>) -> bool {
    match (a.and_then(Value::as_object), b.and_then(Value::as_object)) {
        (Some(first), Some(second)) if first.len() != second.len() => false,
        (Some(first), Some(second)) if first != second => {
            let mut sorted = [first, second].map(|object| object.iter().collect::<Vec<_>>());
            sorted.iter_mut().for_each(|members| members.sort_by_key(|(key, _)| *key));
            let [first, second] = sorted;
            first == second
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_calls_in_a_row_are_told() {
        let (first, second) = (Value::from("a"), Value::from("b"));
        let mut calls = CallLoop::default();
        let mut add = |name, input, result: &'static str| {
            let mut told = Cow::Borrowed(result);
            calls.add(name, Some(input), &mut told);
            (calls.length(), told.len() > result.len())
        };
        for (name, input, result, expected) in [
            ("f", &first, "x", (1, false)),
            ("f", &first, "x", (2, false)),
            ("f", &first, "y", (1, false)),
            ("f", &second, "y", (1, false)),
            ("g", &second, "y", (1, false)),
            ("g", &second, "y", (2, false)),
            ("g", &second, "y", (3, true)),
            ("g", &second, "y", (4, true)),
            ("g", &second, "z", (1, false)),
        ] {
            assert_eq!(add(name, input, result), expected, "{name} {result}");
        }
        let pair = |a, b| Value::object([(a, 1u64.into()), (b, 1u64.into())]);
        assert!(is_same_input(Some(&pair("a", "b")), Some(&pair("b", "a"))));
        assert!(!is_same_input(Some(&pair("a", "b")), Some(&pair("b", "c"))));
        calls.reset();
        assert_eq!(calls.length(), 0);
    }
}
