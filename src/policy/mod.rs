//! Rules that keep a request from an upstream, whatever aliases and hooks say: `never_to` in the configuration.
//!
//! | file | duty |
//! |---|---|
//! | `decode` | undoes the usual ways to write a text in another text |
//! | `document` | tells files that can be searched from those that cannot, such as PDF files |
//! | `search` | finds a text, a path or a pattern in a request, wherever it stands |
//! | `rules` | [`NeverTo`]: the rules for one upstream, and their verdict on a request |
//!
//! A rule is closed: a request that cannot be checked is kept back.
//!
//! Pure.

mod decode;
mod document;
mod rules;
mod search;

pub use document::is_searchable;
pub use rules::{Held, NeverTo, RequestFacts};
