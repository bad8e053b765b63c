//! A verdict on one point of a server's set-up, and what is known of the server when it is made.

use crate::dialect::ServerKind as Flavour;

/// How good a point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Fine,
    /// It works, but could be better, or it could not be told.
    Doubtful,
    /// Claude Code does not work well so.
    Wrong,
}

impl Level {
    /// Its name, in text and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Level::Fine => "ok",
            Level::Doubtful => "warn",
            Level::Wrong => "fail",
        }
    }
}

/// What was found on one point.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The point.
    pub check: &'static str,
    /// How good it is.
    pub level: Level,
    /// What was found, in plain language.
    pub text: String,
    /// What to change.
    pub fix: Option<String>,
}

/// What is known of the server when a verdict is made.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) flavour: Flavour,
    pub(super) model: String,
}

/// How far an examination has come.
#[derive(Debug)]
pub enum Step<'s> {
    /// This check begins.
    Begin(&'static str),
    /// This is its verdict.
    End(&'s Verdict),
}
