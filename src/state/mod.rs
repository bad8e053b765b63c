//! The state folder: the requests that have ended, the usage of each client, and the facts that a restart must not forget.
//!
//! | file | duty |
//! |---|---|
//! | `row` | [`RequestRow`], [`Fact`] and their limits |
//! | `recordings` | [`RecordingRow`]: the recorded requests, with a limit in bytes |
//! | `schema` | the tables, their migrations, and how a file is opened |
//! | `folder` | the lock, who may read the files, and a corrupt file that is set aside |
//! | `trouble` | the lines about a folder that cannot be written |
//! | `writer` | the thread that writes |
//! | `store` | [`Store`]: hands rows to that thread without waiting |
//! | `reader` | [`Reader`]: the questions of the commands |
//!
//! The only room that uses SQLite. It reads no wall clock: times come with the rows. Whoever serves requests never waits
//! for the disk, since rows go through a bounded channel, and a row that finds it full is counted and dropped.

mod folder;
mod reader;
mod recordings;
mod row;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod trouble;
mod writer;

pub use reader::{Reader, RequestFilter, UsageGroup, UsageRow};
pub use recordings::RecordingRow;
pub use row::{Fact, MICRO, RequestRow, day_of, moment};
pub use store::{LateState, SavedState, Store};
