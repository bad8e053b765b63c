//! The live page: `GET /ui`, and the events that feed it.
//!
//! | file | duty |
//! |---|---|
//! | `page` | the paths, and the files that a browser gets |
//! | `rows` | boxes, requests in progress and finished requests as JSON |
//! | `events` | server-sent events: one update a second for each browser that looks |
//!
//! The files in `assets` are what a person edits. `assets/pack` compresses them into the `.gz` files that the program holds; a
//! test fails if the two differ.

mod events;
mod page;
mod rows;

pub use events::{LivePage, LiveSource, stream};
pub use page::{PAGE_HEADERS, UiPath};
