//! The changes that were made to one request and its answer because of how the model behaves: calls found in text, loops,
//! and web searches.

use std::fmt;

use crate::json::Value;

/// The changes to one request and its answer. Empty by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BehaviorChanges {
    /// The number of tool calls that were found in text.
    pub rescued: usize,
    /// The name of the form of those calls; empty without any.
    pub rescued_form: &'static str,
    /// The number of times that the last call of the history was made in a row, with the same result; 0 if it is not told
    /// as a loop.
    pub loop_length: usize,
    /// True if calls were forbidden for this turn, or the text was ended, because of a loop.
    pub is_loop_broken: bool,
    /// The number of web searches that were made for the answer.
    pub searches: usize,
}

impl BehaviorChanges {
    /// The members for `on_log`.
    pub(super) fn members(&self) -> [(&'static str, Value<'static>); 5] {
        let form = if self.rescued_form.is_empty() { Value::Null } else { self.rescued_form.into() };
        [
            ("rescued_calls", (self.rescued as u64).into()),
            ("rescued_form", form),
            ("loop_length", (self.loop_length as u64).into()),
            ("loop_broken", self.is_loop_broken.into()),
            ("searches", (self.searches as u64).into()),
        ]
    }
}

/// The part of the log line, with a blank before each word; empty if nothing was changed.
impl fmt::Display for BehaviorChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rescued > 0 {
            write!(f, " rescued {} {}", self.rescued, self.rescued_form)?;
        }
        if self.loop_length > 0 {
            write!(f, " loop {}", self.loop_length)?;
        }
        if self.is_loop_broken {
            f.write_str(" loop-broken")?;
        }
        if self.searches > 0 {
            write!(f, " searches {}", self.searches)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_told() {
        assert_eq!(BehaviorChanges::default().to_string(), "");
        let changes = BehaviorChanges {
            rescued: 2,
            rescued_form: "hermes",
            loop_length: 6,
            is_loop_broken: true,
            searches: 3,
        };
        assert_eq!(changes.to_string(), " rescued 2 hermes loop 6 loop-broken searches 3");
    }
}
