//! The lane of a request: how urgent it is, by the class that Claude Code names in two headers.
//!
//! Pure.

/// How urgent a request is. A smaller lane goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// A person waits for the answer, or the client does not say.
    #[default]
    Person,
    /// An agent works for a person.
    Agent,
    /// Nobody waits: titles, summaries, and the like.
    Background,
}

impl Lane {
    /// The lane of the classes in the headers `x-claude-code-request-class` and `x-claude-1p-request-class`, which Claude
    /// Code sends with `CLAUDE_CODE_GATEWAY_HINT_HEADERS=1`.
    pub fn of(class: Option<&str>, second: Option<&str>) -> Lane {
        match (class, second) {
            (Some("subagent" | "workflow"), _) => Lane::Agent,
            (Some("auxiliary"), Some("main")) => Lane::Person,
            (Some("auxiliary"), _) => Lane::Background,
            (Some(_), _) => Lane::Person,
            (None, Some("blocking-subagent")) => Lane::Agent,
            (None, Some("background-task" | "summary-extraction" | "followup-generation")) => {
                Lane::Background
            }
            (None, _) => Lane::Person,
        }
    }

    /// The lane with this number, which hooks and the log use; larger numbers are the last lane.
    pub fn numbered(number: u64) -> Lane {
        match number {
            0 => Lane::Person,
            1 => Lane::Agent,
            _ => Lane::Background,
        }
    }

    /// Its number, from 0.
    pub fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_lanes() {
        for (class, second, lane) in [
            (None, None, Lane::Person),
            (Some("main"), Some("main"), Lane::Person),
            (Some("compaction"), None, Lane::Person),
            (Some("side_reply"), None, Lane::Person),
            (Some("auxiliary"), Some("main"), Lane::Person),
            (Some("auxiliary"), Some("summary-extraction"), Lane::Background),
            (Some("auxiliary"), None, Lane::Background),
            (Some("subagent"), Some("blocking-subagent"), Lane::Agent),
            (Some("workflow"), None, Lane::Agent),
            (Some("a class of next year"), None, Lane::Person),
            (None, Some("followup-generation"), Lane::Background),
        ] {
            assert_eq!(Lane::of(class, second), lane, "{class:?} {second:?}");
        }
        for number in 0..3 {
            assert_eq!(u64::from(Lane::numbered(number).number()), number);
        }
        assert_eq!(Lane::numbered(9), Lane::Background);
    }
}
