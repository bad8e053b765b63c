//! Meanings from one API to the other: Messages requests -> chat completions, chat completions -> Messages.
pub mod arguments;
