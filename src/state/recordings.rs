//! The recordings of requests: their row, and how they are written and read. They have a limit of their own, in bytes.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::json::{self, Value};

/// A recorded request. Keys were taken out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordingRow {
    /// The id of the request, `req_…`.
    pub id: String,
    /// Claude Code's session; empty if the client named none.
    pub session: String,
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: u64,
    /// The head of the client's request as JSON.
    pub head: String,
    /// The steps, a line each.
    pub steps: String,
    /// The bytes of each place: the client's body, the same after hooks, the upstream's body, the upstream's bytes, and
    /// the client's bytes.
    pub places: [Vec<u8>; 5],
    /// True if a limit cut something.
    pub is_cut: bool,
}

impl RecordingRow {
    /// The number of bytes that it takes, about.
    pub fn size(&self) -> usize {
        let texts = [&self.id, &self.session, &self.head, &self.steps].map(String::len);
        texts.iter().sum::<usize>() + self.places.iter().map(Vec::len).sum::<usize>()
    }
}

/// Writes recordings, and deletes the oldest ones beyond `size_max` bytes.
pub(super) fn insert_recordings(
    change: &Connection,
    rows: &[(RecordingRow, u64)],
) -> Result<(), rusqlite::Error> {
    let mut insert = change.prepare(
        "INSERT OR REPLACE INTO recordings VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    for (row, _) in rows {
        let [client, hooked, sent, upstream, answer] = &row.places;
        let size = row.size() as u64;
        insert.execute(params![
            row.id,
            size,
            row.session,
            row.ended_ms,
            row.is_cut,
            row.head,
            row.steps,
            client,
            hooked,
            sent,
            upstream,
            answer,
        ])?;
    }
    let Some((_, size_max)) = rows.last() else { return Ok(()) };
    // The newest one always stays, however large it is.
    while recordings_size(change)? > *size_max {
        let deleted = change.execute(
            "DELETE FROM recordings WHERE number = (SELECT min(number) FROM recordings)
             AND number < (SELECT max(number) FROM recordings)",
            [],
        )?;
        if deleted == 0 {
            break;
        }
    }
    Ok(())
}

/// The bytes of all recordings.
pub(super) fn recordings_size(database: &Connection) -> Result<u64, rusqlite::Error> {
    database.query_row("SELECT coalesce(sum(size), 0) FROM recordings", [], |row| row.get(0))
}

const COLUMNS: &str =
    "SELECT id, session, ended, cut, head, steps, client, hooked, sent, upstream, answer FROM recordings";

/// The recording of a request; `last`: the newest one.
pub(super) fn read_recording(
    database: &Connection,
    id: &str,
) -> Result<Option<RecordingRow>, rusqlite::Error> {
    match id {
        "last" => {
            let question = format!("{COLUMNS} ORDER BY number DESC LIMIT 1");
            database.query_row(&question, [], read_row).optional()
        }
        id => database.query_row(&format!("{COLUMNS} WHERE id = ?1"), [id], read_row).optional(),
    }
}

/// The most requests of a session that are searched for the turn before. Between two turns of a person there may be those of
/// agents, and questions for titles.
const SEARCHED_MAX: usize = 200;

/// The recording of the turn before in the same conversation: a request of the same session, agent, lane and path.
pub(super) fn read_turn_before(
    database: &Connection,
    row: &RecordingRow,
) -> Result<Option<RecordingRow>, rusqlite::Error> {
    let wanted = conversation(&row.head);
    let mut earlier = database.prepare(
        "SELECT id, head FROM recordings
         WHERE session = ?1 AND number < (SELECT number FROM recordings WHERE id = ?2) ORDER BY number DESC",
    )?;
    let heads = earlier.query_map([&row.session, &row.id], |row| {
        Ok((row.get::<_, String>(0)?, conversation(&row.get::<_, String>(1)?)))
    })?;
    for found in heads.take(SEARCHED_MAX) {
        let (id, its_own) = found?;
        if its_own == wanted {
            return read_recording(database, &id);
        }
    }
    Ok(None)
}

/// The agent, the lane and the path of a recorded request, which tell the conversations of a session apart.
fn conversation(head: &str) -> [Value<'static>; 3] {
    let mut head = head.as_bytes().to_vec();
    let head = json::parse(&mut head).unwrap_or_default();
    [("record", "agent"), ("record", "lane"), ("request", "path")].map(|(part, key)| {
        let found = head.get(part).and_then(|part| part.get(key));
        found.map(|value| value.clone().into_owned()).unwrap_or_default()
    })
}

fn read_row(row: &Row<'_>) -> Result<RecordingRow, rusqlite::Error> {
    Ok(RecordingRow {
        id: row.get(0)?,
        session: row.get(1)?,
        ended_ms: row.get(2)?,
        is_cut: row.get(3)?,
        head: row.get(4)?,
        steps: row.get(5)?,
        places: [row.get(6)?, row.get(7)?, row.get(8)?, row.get(9)?, row.get(10)?],
    })
}
