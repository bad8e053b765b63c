//! The questions of the live page and of the commands `usage`, `requests`, `show` and `replay`, which read the file while a server writes it.

use std::path::Path;

use rusqlite::{Connection, Row};

use super::recordings::{RecordingRow, read_recording, read_turn_before};
use super::row::RequestRow;
use super::schema::open_to_read;

/// The column that usage is summed up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageGroup {
    /// The owner of the key, or the address.
    Client,
    /// The upstream's model.
    Model,
    /// The day by UTC.
    Day,
}

impl UsageGroup {
    /// The values and their names on the command line.
    pub const NAMES: [(UsageGroup, &'static str); 3] =
        [(UsageGroup::Client, "client"), (UsageGroup::Model, "model"), (UsageGroup::Day, "day")];

    /// Its name on the command line, which is that of its column.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(group, _)| *group == self).map_or("client", |(_, name)| name)
    }
}

/// The usage of one client, one model or one day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRow {
    /// The client, the model or the day.
    pub name: String,
    /// The requests that reached an upstream.
    pub requests: u64,
    /// The tokens of prompts, cached ones included.
    pub prompt: u64,
    /// The tokens of prompts that a cache served.
    pub cached: u64,
    /// The tokens of answers.
    pub output: u64,
    /// The cost in [`super::MICRO`]s of a unit of money.
    pub cost: u64,
}

/// The requests that are wanted.
#[derive(Clone, Debug, Default)]
pub struct RequestFilter {
    /// The earliest end, in milliseconds since 1970.
    pub since_ms: u64,
    /// Only those that failed, or whose client left.
    pub failed: bool,
    /// Only those of this session.
    pub session: Option<String>,
    /// The most rows; the newest ones are returned.
    pub rows_max: u32,
}

/// The file of a state folder, open for reading.
#[derive(Debug)]
pub struct Reader(Connection);

impl Reader {
    /// Opens the file of this folder.
    ///
    /// # Errors
    /// There is none, or it cannot be read: text for the operator.
    pub fn open(folder: &Path) -> Result<Reader, String> {
        open_to_read(folder).map(Reader)
    }

    /// The usage since a day (`YYYY-MM-DD`), the most tokens first, or the days in order.
    ///
    /// # Errors
    /// The file cannot be read: text for the operator.
    pub fn usage(&self, by: UsageGroup, since: &str) -> Result<Vec<UsageRow>, String> {
        let order = if by == UsageGroup::Day { "1" } else { "sum(prompt + output) DESC, 1" };
        let question = format!(
            "SELECT {}, sum(requests), sum(prompt), sum(cached), sum(output), sum(cost)
             FROM usage WHERE day >= ?1 GROUP BY 1 ORDER BY {order}",
            by.name()
        );
        let read = |row: &Row<'_>| {
            Ok(UsageRow {
                name: row.get(0)?,
                requests: row.get(1)?,
                prompt: row.get(2)?,
                cached: row.get(3)?,
                output: row.get(4)?,
                cost: row.get(5)?,
            })
        };
        let run = || self.0.prepare(&question)?.query_map([since], read)?.collect();
        let found: Result<Vec<UsageRow>, rusqlite::Error> = run();
        found.map_err(|error| error.to_string())
    }

    /// The newest requests that meet the filter, the oldest of them first.
    ///
    /// # Errors
    /// The file cannot be read: text for the operator.
    pub fn requests(&self, filter: &RequestFilter) -> Result<Vec<RequestRow>, String> {
        // A file that an older version has written has no recordings.
        let tables = "SELECT count(*) FROM sqlite_master WHERE name = 'recordings'";
        let has_recordings = self.0.query_row(tables, [], |row| row.get::<_, u32>(0)).unwrap_or(0) > 0;
        let is_recorded = match has_recordings {
            true => "EXISTS (SELECT 1 FROM recordings WHERE recordings.id = requests.id)",
            false => "0",
        };
        let question = format!(
            "SELECT id, ended, client, session, model, upstream, upstream_model, streamed, status,
             stop_reason, prompt, cached, output, cost, lane, queue_ms, first_byte_ms, total_ms, error, {is_recorded}
             FROM requests WHERE ended >= ?1 AND (NOT ?2 OR status >= 400 OR error <> '')
             AND (?3 IS NULL OR session = ?3) ORDER BY number DESC LIMIT ?4"
        );
        let wanted = rusqlite::params![filter.since_ms, filter.failed, filter.session, filter.rows_max];
        let run = || self.0.prepare(&question)?.query_map(wanted, read_request)?.collect();
        let found: Result<Vec<RequestRow>, rusqlite::Error> = run();
        let mut found = found.map_err(|error| error.to_string())?;
        found.reverse();
        Ok(found)
    }

    /// The recording of a request; `last` stands for the newest one.
    ///
    /// # Errors
    /// There is none, or the file cannot be read: text for the operator.
    pub fn recording(&self, id: &str) -> Result<RecordingRow, String> {
        self.find_recording(id)?.ok_or_else(|| {
            "there is no recording of this request: `sparkgap requests` marks those that have one; serve --record errors, or all, makes them"
                .to_owned()
        })
    }

    /// The recording of a request, if there is one; `last` stands for the newest one.
    ///
    /// # Errors
    /// The file cannot be read: text for the operator.
    pub fn find_recording(&self, id: &str) -> Result<Option<RecordingRow>, String> {
        read_recording(&self.0, id).map_err(|error| error.to_string())
    }

    /// The recording of the turn before in the same conversation, if there is one: the last request before it of the same
    /// session, agent, lane and path.
    ///
    /// # Errors
    /// The file cannot be read: text for the operator.
    pub fn turn_before(&self, row: &RecordingRow) -> Result<Option<RecordingRow>, String> {
        if row.session.is_empty() {
            return Ok(None);
        }
        read_turn_before(&self.0, row).map_err(|error| error.to_string())
    }
}

fn read_request(row: &Row<'_>) -> Result<RequestRow, rusqlite::Error> {
    Ok(RequestRow {
        id: row.get(0)?,
        ended_ms: row.get(1)?,
        client: row.get(2)?,
        session: row.get(3)?,
        model: row.get(4)?,
        upstream: row.get(5)?,
        upstream_model: row.get(6)?,
        is_streamed: row.get(7)?,
        status: row.get(8)?,
        stop_reason: row.get(9)?,
        prompt: row.get(10)?,
        cached: row.get(11)?,
        output: row.get(12)?,
        cost: row.get(13)?,
        lane: row.get(14)?,
        queue_ms: row.get(15)?,
        first_byte_ms: row.get(16)?,
        total_ms: row.get(17)?,
        error: row.get(18)?,
        is_recorded: row.get(19)?,
        is_unused: false,
    })
}
