//! A verdict on one point of a server's set-up, and the facts about the server that it is based on.

use crate::dialect::ServerKind;

/// How good a point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The point is as it should be.
    Fine,
    /// It works but could be better, or the examination could not find out.
    Doubtful,
    /// Claude Code does not work well with it.
    Wrong,
}

impl Level {
    /// The level's name, in text and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Level::Fine => "ok",
            Level::Doubtful => "warn",
            Level::Wrong => "fail",
        }
    }
}

/// The finding on one point.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The name of the point.
    pub check: &'static str,
    /// How good it is.
    pub level: Level,
    /// The finding, in plain language.
    pub text: String,
    /// The change that repairs it, if it needs one.
    pub fix: Option<String>,
}

/// The facts about the server that a verdict is based on.
#[derive(Clone, Debug)]
pub(super) struct ServerFacts {
    pub(super) flavour: ServerKind,
    pub(super) model: String,
}

/// The progress of an examination.
#[derive(Debug)]
pub enum Step<'s> {
    /// This check begins.
    Begin(&'static str),
    /// A check has ended with this verdict.
    End(&'s Verdict),
}
