//! The live page: `GET /ui`, and the events that feed it.
//!
//! | file | duty |
//! |---|---|
//! | `page` | the paths, and the files that a browser gets |
//! | `rows` | boxes, requests in progress and finished requests as JSON |
//! | `parts` | the parts of a recording as texts, each with a limit |
//! | `recording` | reads a recording beside the requests, for a browser that may see it |
//! | `events` | server-sent events: one update a second for each browser that looks |
//!
//! The files in `assets` are what a person edits. `assets/pack` compresses them into the `.gz` files that the program holds; a
//! test fails if the two differ.

mod events;
mod page;
mod parts;
mod recording;
mod rows;

pub use events::{LivePage, LiveSource, stream};
pub use page::{PAGE_HEADERS, UiPath};
pub use recording::{RecordingReads, RecordingSource, read_recorded};
