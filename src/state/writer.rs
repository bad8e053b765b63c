//! The thread that writes: it alone waits for the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use rusqlite::{Connection, params};

use super::folder::{FolderLock, is_open_to_others, set_aside};
use super::recordings::{RecordingRow, insert_recordings, recordings_size};
use super::row::{Fact, RequestRow, day_of};
use super::schema::{Unusable, open};
use super::trouble::{Losses, PAUSE, WriteTrouble};

/// The most messages that one transaction takes.
const BATCH_MAX: usize = 256;

/// The time for which rows of requests are kept.
const AGE_MAX_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// The most rows of requests.
const REQUESTS_MAX: u64 = 1_000_000;

/// The most rows of usage: 400 days of 500 clients and models.
const USAGE_MAX: u64 = 200_000;

/// The most bytes of the file. Beyond it the oldest fifth of the requests goes.
const FILE_SIZE_MAX: u64 = 512 * 1024 * 1024;

/// The time for which usage is kept.
const USAGE_AGE_MAX_MS: u64 = 400 * 24 * 60 * 60 * 1000;

/// The number of rows after which those that are too old are deleted.
const PRUNE_EVERY: usize = 1000;

/// A message to the writer.
pub(super) enum ToWriter {
    /// A request has ended.
    Row(Box<RequestRow>),
    /// A recorded request, and the most bytes of all recordings. Its size is taken off [`Writer::waiting`] once it was
    /// written.
    Recording(Box<RecordingRow>, u64),
    /// The facts of these kinds replace those that are saved.
    Facts(Vec<&'static str>, Vec<Fact>),
    /// Everything before this message is to be written; a new process may then have the folder. The sender is dropped
    /// when that is done.
    HandOver(SyncSender<()>),
    /// The same, and the thread ends.
    Close(SyncSender<()>),
    /// The new process has ended, so the folder is this one's again.
    TakeBack,
    /// Try a folder again that could not be used. The time is in seconds since 1970. True: tell the tokens of today
    /// again, since another process adds to them.
    Look(u64, bool),
}

/// Something that the folder had after the start.
#[derive(Debug)]
pub enum LateState {
    /// The folder can be used only now. This was saved there.
    Taken(SavedState),
    /// The tokens of each client today, those of this process with them.
    Tokens(Vec<(String, u64)>),
}

/// Takes over what the folder had after the start. Called in the writer's thread.
pub(super) type TakeLate = Box<dyn Fn(LateState) + Send>;

/// The facts and the tokens of one day that the file has.
#[derive(Debug, Default)]
pub struct SavedState {
    /// The facts that were saved last.
    pub facts: Vec<Fact>,
    /// The prompt and output tokens of each client today.
    pub tokens_today: Vec<(String, u64)>,
}

/// Kinds of facts, and all facts of these kinds.
type SavedKinds = (Vec<&'static str>, Vec<Fact>);

/// The writer's side of the folder.
pub(super) struct Writer {
    folder: PathBuf,
    /// The day on which the process began, for the names of corrupt files until a row tells a later one.
    day: String,
    lock: Option<FolderLock>,
    database: Option<Connection>,
    /// When the folder was tried last, if that failed.
    tried: Option<Instant>,
    trouble: WriteTrouble,
    /// True once the log says that others can look into the folder.
    is_warned: bool,
    /// The rows since the last deletion.
    unpruned: usize,
    /// True once a new process has the folder: the file is then written without the lock.
    is_handed_over: bool,
    /// True once the folder was read. Before that nothing is written: it would replace what another process saved.
    is_loaded: Arc<AtomicBool>,
    /// The bytes of recordings that were sent and are not written yet.
    waiting: Arc<AtomicUsize>,
    take_late: TakeLate,
}

impl Writer {
    pub(super) fn new(
        folder: PathBuf,
        day: String,
        is_loaded: Arc<AtomicBool>,
        waiting: Arc<AtomicUsize>,
        take_late: TakeLate,
    ) -> Writer {
        Writer {
            folder,
            day,
            lock: None,
            database: None,
            tried: None,
            trouble: WriteTrouble::default(),
            is_warned: false,
            unpruned: PRUNE_EVERY,
            is_handed_over: false,
            is_loaded,
            waiting,
            take_late,
        }
    }

    /// Opens the folder, and reads what it has.
    pub(super) fn load(&mut self) -> SavedState {
        self.read().unwrap_or_default()
    }

    /// Gives what the folder has to those who began without it.
    pub(super) fn load_late(&self, saved: SavedState) {
        let folder = self.folder.display();
        log::info!("state folder {folder}: taken; what was saved there is loaded");
        (self.take_late)(LateState::Taken(saved));
    }

    /// Reads the folder for the first time. `None`: it cannot be used now; the log says why.
    fn read(&mut self) -> Option<SavedState> {
        let day = self.day.clone();
        match read_saved(self.database()?, &day) {
            Ok(saved) => {
                self.is_loaded.store(true, Ordering::Release);
                Some(saved)
            }
            Err(error) => {
                self.fail(error, Losses::default());
                None
            }
        }
    }

    /// Tries a folder again that could not be used, and tells the tokens of today if that is wanted.
    fn look(&mut self, now: u64, wants_tokens: bool) {
        self.day = day_of(now);
        if !self.is_loaded.load(Ordering::Acquire) {
            self.tried = None;
            if let Some(saved) = self.read() {
                self.load_late(saved);
                self.tell_works(true);
            }
        } else if let (true, Some(database)) = (wants_tokens, &self.database) {
            match read_tokens(database, &self.day) {
                Ok(tokens) => (self.take_late)(LateState::Tokens(tokens)),
                Err(error) => self.fail(error, Losses::default()),
            }
        }
    }

    /// Writes what comes, until it is closed or nobody can send any more.
    pub(super) fn run(mut self, messages: &Receiver<ToWriter>) {
        while let Ok(first) = messages.recv() {
            let (mut rows, mut recordings, mut facts, mut end) = (Vec::new(), Vec::new(), Vec::new(), None);
            let mut written = 0;
            let mut next = Some(first);
            while let Some(message) = next.take() {
                match message {
                    ToWriter::Row(row) => rows.push(*row),
                    ToWriter::Recording(row, size_max) => {
                        written += row.size();
                        recordings.push((*row, size_max));
                    }
                    ToWriter::Facts(kinds, saved) => facts.push((kinds, saved)),
                    ToWriter::TakeBack => (self.is_handed_over, self.database) = (false, None),
                    ToWriter::Look(now, wants_tokens) => self.look(now, wants_tokens),
                    ToWriter::HandOver(done) => end = Some((done, false)),
                    ToWriter::Close(done) => end = Some((done, true)),
                }
                if end.is_none() && rows.len() < BATCH_MAX {
                    next = messages.try_recv().ok();
                }
            }
            self.write(&rows, &recordings, &facts);
            drop(recordings);
            self.waiting.fetch_sub(written, Ordering::Relaxed);
            if let Some((done, is_last)) = end {
                self.lock = None;
                self.is_handed_over = true;
                if is_last {
                    self.database = None;
                    if let Some(lost) = self.trouble.end() {
                        log::error!("state folder {}: closed{lost}", self.folder.display());
                    }
                }
                // Its receiver waits for this.
                drop(done);
                if is_last {
                    return;
                }
            }
        }
    }

    /// Writes a batch. A file that turns out to be corrupt is replaced, and the batch goes to the new one.
    fn write(&mut self, rows: &[RequestRow], recordings: &[(RecordingRow, u64)], facts: &[SavedKinds]) {
        if rows.is_empty() && recordings.is_empty() && facts.is_empty() {
            return;
        }
        if let Some(row) = rows.last() {
            self.day = row.day();
        }
        self.unpruned += rows.len();
        let prunes = self.unpruned >= PRUNE_EVERY && !rows.is_empty();
        let (requests, recorded) = (rows.len() as u64, recordings.len() as u64);
        let all = Losses { requests, recordings: recorded };
        if !self.is_loaded.load(Ordering::Acquire) {
            match self.read() {
                Some(saved) => self.load_late(saved),
                None => {
                    self.trouble.lose(all);
                    return;
                }
            }
        }
        for _ in 0..2 {
            let Some(database) = self.database() else { break };
            let Err(error) = write_batch(database, rows, recordings, facts, prunes) else {
                if prunes {
                    self.unpruned = 0;
                }
                self.tell_works(false);
                return;
            };
            if matches!(error, Unusable::Corrupt(_)) {
                self.fail(error, Losses::default());
                continue;
            }
            // A full disk often has room for the rows, which are small.
            let saves_rows =
                recorded > 0 && requests > 0 && write_batch(database, rows, &[], facts, false).is_ok();
            self.fail(error, if saves_rows { Losses { requests: 0, ..all } } else { all });
            return;
        }
        self.trouble.lose(all);
    }

    /// The open file. `None`: it cannot be used now; the log says why.
    fn database(&mut self) -> Option<&mut Connection> {
        if self.database.is_none() && self.tried.is_none_or(|tried| tried.elapsed() >= PAUSE) {
            match self.open() {
                Ok(opened) => (self.database, self.tried) = (Some(opened), None),
                Err(Unusable::Corrupt(why)) => {
                    self.fail(Unusable::Corrupt(why), Losses::default());
                    match self.open() {
                        Ok(opened) => self.database = Some(opened),
                        Err(error) => self.fail(error, Losses::default()),
                    }
                }
                Err(error) => self.fail(error, Losses::default()),
            }
        }
        self.database.as_mut()
    }

    fn open(&mut self) -> Result<Connection, Unusable> {
        if self.lock.is_none() && !self.is_handed_over {
            let taken =
                FolderLock::take(&self.folder).map_err(|error| Unusable::Failed(error.to_string()))?;
            let used =
                || Unusable::Failed("another sparkgap uses it; give this one a folder of its own".to_owned());
            self.lock = Some(taken.ok_or_else(used)?);
            self.warn_of_others();
        }
        open(&self.folder)
    }

    /// Logs a failure, at most once a minute, and sets a corrupt file aside.
    fn fail(&mut self, error: Unusable, lost: Losses) {
        self.trouble.lose(lost);
        let folder = self.folder.display().to_string();
        let why = match error {
            Unusable::Corrupt(why) => {
                // Close it first, so that nothing is written to the file under its new name.
                self.database = None;
                match set_aside(&self.folder, &self.day) {
                    Ok(name) => {
                        log::error!(
                            "state folder {folder}: {why}; the file is kept as {name}, and a new one is begun"
                        );
                        return;
                    }
                    Err(error) => format!("{why}; it cannot be set aside: {error}"),
                }
            }
            Unusable::Failed(why) => why,
        };
        if self.database.is_none() {
            self.tried = Some(Instant::now());
        }
        if let Some(lost) = self.trouble.fail(Instant::now()) {
            log::error!("state folder {folder}: {why}{lost}; going on without history");
        }
    }

    /// Logs once after a failure that the folder works again, and what it lacks.
    fn tell_works(&mut self, is_reopened: bool) {
        if let Some(lost) = self.trouble.succeed(Instant::now(), is_reopened) {
            log::info!("state folder {}: works again{lost}", self.folder.display());
        }
    }

    /// Warns once of a folder that others can look into. The files in it are for the user alone.
    fn warn_of_others(&mut self) {
        if !self.is_warned && is_open_to_others(&self.folder) {
            self.is_warned = true;
            let folder = self.folder.display();
            log::warn!(
                "state folder {folder}: other users can look into it, though not into its files; close it with chmod 700 {folder}"
            );
        }
    }
}

fn read_saved(database: &Connection, day: &str) -> Result<SavedState, Unusable> {
    let mut facts = database.prepare("SELECT kind, key, value FROM learned")?;
    let facts =
        facts.query_map([], |row| Ok(Fact { kind: row.get(0)?, key: row.get(1)?, value: row.get(2)? }))?;
    let facts = facts.collect::<Result<Vec<_>, _>>()?;
    Ok(SavedState { facts, tokens_today: read_tokens(database, day)? })
}

/// The prompt and output tokens of each client on a day.
fn read_tokens(database: &Connection, day: &str) -> Result<Vec<(String, u64)>, Unusable> {
    let mut tokens =
        database.prepare("SELECT client, sum(prompt + output) FROM usage WHERE day = ?1 GROUP BY client")?;
    let tokens_today = tokens.query_map([day], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(tokens_today.collect::<Result<Vec<_>, _>>()?)
}

fn write_batch(
    database: &mut Connection,
    rows: &[RequestRow],
    recordings: &[(RecordingRow, u64)],
    facts: &[SavedKinds],
    prunes: bool,
) -> Result<(), Unusable> {
    let change = database.transaction()?;
    if !rows.is_empty() {
        insert(&change, rows)?;
    }
    if !recordings.is_empty() {
        insert_recordings(&change, recordings)?;
    }
    for (kinds, facts) in facts {
        for kind in kinds {
            change.execute("DELETE FROM learned WHERE kind = ?1", [kind])?;
        }
        let mut insert = change.prepare("INSERT OR REPLACE INTO learned VALUES (?1, ?2, ?3)")?;
        for fact in facts {
            insert.execute([&fact.kind, &fact.key, &fact.value])?;
        }
    }
    if let (true, Some(newest)) = (prunes, rows.last()) {
        prune(&change, newest.ended_ms)?;
    }
    change.commit()?;
    Ok(())
}

/// Adds requests, and counts them for their clients. One that reached no upstream is not counted: its model's name is the
/// client's invention.
fn insert(change: &Connection, rows: &[RequestRow]) -> Result<(), rusqlite::Error> {
    let mut requests = change.prepare(
        "INSERT INTO requests VALUES
         (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
    )?;
    let mut usage = change.prepare(
        "INSERT INTO usage VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET
         requests = requests + 1, prompt = prompt + ?4, cached = cached + ?5, output = output + ?6, cost = cost + ?7",
    )?;
    for row in rows {
        requests.execute(params![
            row.id,
            row.ended_ms,
            row.client,
            row.session,
            row.model,
            row.upstream,
            row.upstream_model,
            row.is_streamed,
            row.status,
            row.stop_reason,
            row.prompt,
            row.cached,
            row.output,
            row.cost,
            row.lane,
            row.queue_ms,
            row.first_byte_ms,
            row.total_ms,
            row.error,
        ])?;
        if !row.upstream.is_empty() && !row.is_unused {
            let (prompt, cached, output) = (row.prompt, row.cached, row.output);
            usage.execute(params![
                row.day(),
                row.client,
                row.upstream_model,
                prompt,
                cached,
                output,
                row.cost
            ])?;
        }
    }
    Ok(())
}

/// Deletes the rows that are too old or too many. `now` is the time of the newest row. A row of a clock that was ahead
/// goes with its number.
fn prune(change: &Connection, now: u64) -> Result<(), rusqlite::Error> {
    change.execute("DELETE FROM requests WHERE ended < ?1", [now.saturating_sub(AGE_MAX_MS)])?;
    change.execute(
        "DELETE FROM requests WHERE number <= (SELECT max(number) FROM requests) - ?1",
        [REQUESTS_MAX],
    )?;
    change.execute(
        "DELETE FROM usage WHERE day < (SELECT day FROM usage ORDER BY day DESC LIMIT 1 OFFSET ?1)",
        [USAGE_MAX],
    )?;
    change
        .execute("DELETE FROM usage WHERE day < ?1", [day_of(now.saturating_sub(USAGE_AGE_MAX_MS) / 1000)])?;
    let number = |question: &str| change.query_row(question, [], |row| row.get::<_, u64>(0));
    let pages = number("PRAGMA page_count")?.saturating_sub(number("PRAGMA freelist_count")?);
    // Recordings have a limit of their own.
    let size = pages.saturating_mul(number("PRAGMA page_size")?).saturating_sub(recordings_size(change)?);
    if size > FILE_SIZE_MAX {
        change.execute(
            "DELETE FROM requests WHERE number <=
             (SELECT min(number) + (max(number) - min(number)) / 5 FROM requests)",
            [],
        )?;
    }
    Ok(())
}
