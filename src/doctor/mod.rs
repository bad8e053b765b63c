//! Checks whether an upstream is set up for Claude Code: a verdict on each point, in plain language, and what to
//! change.
//!
//! | file | duty |
//! |---|---|
//! | `examine` | [`examine`]: the checks in order, each with its question to the server |
//! | `reach` | from the models listing, or its failure, to a verdict: pure |
//! | `questioner` | asks, and repairs what the server refuses, as requests do |
//! | `questions` | the bodies of the questions |
//! | `calls` | the same for tool calls: whether the server recognizes them, and whether sparkgap finds the others |
//! | `judge` | from an answer to a verdict: pure, a function for each check |
//! | `verdict` | the verdict on a point |
//! | `fixes` | the flags that repair each kind of server |

mod calls;
mod examine;
mod fixes;
mod judge;
mod questioner;
mod questions;
mod reach;
mod verdict;

pub use examine::{Patient, examine};
pub use verdict::{Level, Step, Verdict};
