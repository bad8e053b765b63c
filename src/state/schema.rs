//! The tables and their migrations.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::folder::{FILE, close_files};

/// How long a statement waits for another process that writes: a predecessor that finishes its streams.
const BUSY_TIME: Duration = Duration::from_secs(5);

/// The changes that lead from an empty file to the tables of today. The number of those that were made stands in the file
/// (`user_version`). A change that was released is never edited; the next one is added behind it.
const MIGRATIONS: [&str; 2] = [
    "
CREATE TABLE requests (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    ended INTEGER NOT NULL,
    client TEXT NOT NULL,
    session TEXT NOT NULL,
    model TEXT NOT NULL,
    upstream TEXT NOT NULL,
    upstream_model TEXT NOT NULL,
    streamed INTEGER NOT NULL,
    status INTEGER NOT NULL,
    stop_reason TEXT NOT NULL,
    prompt INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    lane INTEGER,
    queue_ms INTEGER,
    first_byte_ms INTEGER,
    total_ms INTEGER NOT NULL,
    error TEXT NOT NULL
) STRICT;
CREATE INDEX requests_by_time ON requests (ended);
CREATE TABLE usage (
    day TEXT NOT NULL,
    client TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    prompt INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    output INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    PRIMARY KEY (day, client, model)
) STRICT, WITHOUT ROWID;
CREATE TABLE learned (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
",
    "
CREATE TABLE recordings (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    session TEXT NOT NULL,
    ended INTEGER NOT NULL,
    cut INTEGER NOT NULL,
    head TEXT NOT NULL,
    steps TEXT NOT NULL,
    client BLOB NOT NULL,
    hooked BLOB NOT NULL,
    sent BLOB NOT NULL,
    upstream BLOB NOT NULL,
    answer BLOB NOT NULL
) STRICT;
CREATE INDEX recordings_by_session ON recordings (session);
CREATE INDEX recordings_by_size ON recordings (size);
",
];

/// The reason why a file cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Its content is not a database, or a broken one.
    Corrupt(String),
    /// Anything else: text for the operator.
    Failed(String),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        let is_strange = match &error {
            // SQLite has no code of its own for a header with impossible numbers.
            rusqlite::Error::SqliteFailure(_, Some(why)) => why == "unsupported file format",
            _ => false,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Unusable::Corrupt(error.to_string())
            }
            _ if is_strange => Unusable::Corrupt(error.to_string()),
            _ => Unusable::Failed(error.to_string()),
        }
    }
}

/// Opens the file of a folder for writing, and brings its tables up to date.
///
/// # Errors
/// The file is corrupt, of a newer version, or cannot be written.
pub(super) fn open(folder: &Path) -> Result<Connection, Unusable> {
    close_files(folder).map_err(|error| Unusable::Failed(error.to_string()))?;
    let mut database = Connection::open(folder.join(FILE))?;
    database.busy_timeout(BUSY_TIME)?;
    // A small cache: the writer adds rows at the end, and its memory is the server's. Without the mode `WAL` a command that
    // reads would make the writer wait.
    database.execute_batch(
        "PRAGMA cache_size = -256; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
         PRAGMA journal_size_limit = 4194304; PRAGMA wal_autocheckpoint = 250;",
    )?;
    let change = database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let made: usize = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if made > MIGRATIONS.len() {
        return Err(Unusable::Failed(format!(
            "a newer sparkgap has written it (version {made}; this one knows {}): use that one, or another folder",
            MIGRATIONS.len()
        )));
    }
    for migration in MIGRATIONS.iter().skip(made) {
        change.execute_batch(migration)?;
    }
    if made < MIGRATIONS.len() {
        change.execute_batch(&format!("PRAGMA user_version = {}", MIGRATIONS.len()))?;
    }
    change.commit()?;
    Ok(database)
}

/// Opens the file of a folder for reading.
///
/// # Errors
/// There is no file, or it cannot be read: text for the operator.
pub(super) fn open_to_read(folder: &Path) -> Result<Connection, String> {
    let path = folder.join(FILE);
    if let Err(error) = std::fs::metadata(&path) {
        return Err(format!(
            "{}: {error}; name the folder that serve --state has, with --state DIR",
            path.display()
        ));
    }
    let opened = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let opened = opened.and_then(|database| database.busy_timeout(BUSY_TIME).map(|()| database));
    opened.map_err(|error| format!("{}: {error}", path.display()))
}
