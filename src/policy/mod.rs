//! Rules that keep a request from an upstream, whatever aliases and hooks say: `never_to` in the configuration.
//!
//! | file | duty |
//! |---|---|
//! | `decode` | undoes the usual ways to write a text in another text |
//! | `search` | finds a text, a path or a pattern in a request, wherever it stands |
//! | `rules` | [`NeverTo`]: the rules for one upstream, and their verdict on a request |
//!
//! A rule is closed: a request that cannot be checked is kept back.
//!
//! Pure.

mod decode;
mod rules;
mod search;

pub use rules::{Held, NeverTo, RequestFacts};
