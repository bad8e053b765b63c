//! The handle of the state folder for those who serve requests: it never waits for the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::reader::Reader;
use super::recordings::RecordingRow;
use super::row::{Fact, RequestRow, day_of};
use super::trouble::Losses;
use super::writer::{ToWriter, Writer};
use crate::threads;

pub use super::writer::{LateState, SavedState};

/// The most rows that wait for the disk: about 2 MB with the longest texts.
const WAITING_MAX: usize = 1024;

/// The most bytes of recordings that wait for the disk.
const RECORDINGS_WAITING_MAX: usize = 64 * 1024 * 1024;

/// How long a start waits for the folder, and an end for the last rows. A disk that hangs must not keep a server from
/// either.
const PATIENCE: Duration = Duration::from_secs(2);

/// The time between two lines about rows that were dropped.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The state folder of a running server.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    messages: SyncSender<ToWriter>,
    dropped: Mutex<DroppedRows>,
    /// The bytes of recordings that wait for the disk.
    waiting: Arc<AtomicUsize>,
    /// True once a new process has the folder. Its facts are newer than those of this one.
    is_handed_over: AtomicBool,
    /// True once the folder was read. Before that, facts would replace those that are saved there.
    is_loaded: Arc<AtomicBool>,
}

/// The rows and recordings that found the channel full.
#[derive(Debug, Default)]
struct DroppedRows {
    untold: Losses,
    told: Option<Instant>,
}

impl Store {
    /// Opens a folder in a thread of its own, and returns what it has. `now` is in seconds since 1970. A folder that
    /// cannot be used is only logged, and tried again with [`Store::look`]. Everything that it has then goes to
    /// `take_late`, in that thread.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn open(
        folder: PathBuf,
        now: u64,
        take_late: impl Fn(LateState) + Send + 'static,
    ) -> std::io::Result<(Store, SavedState)> {
        let (messages, received) = sync_channel(WAITING_MAX);
        // Without room, so that a send fails if the start has waited for too long.
        let (loaded, saved) = sync_channel(0);
        let (is_loaded, waiting) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut writer = Writer::new(
            folder.clone(),
            day_of(now),
            Arc::clone(&is_loaded),
            Arc::clone(&waiting),
            Box::new(take_late),
        );
        threads::background("state", move || {
            let first = writer.load();
            if let Err(SendError(late)) = loaded.send(first) {
                writer.load_late(late);
            }
            writer.run(&received);
        })?;
        let saved = match saved.recv_timeout(PATIENCE) {
            Ok(saved) => saved,
            Err(_) => {
                log::error!(
                    "state folder {}: the disk does not answer; going on without what was saved there",
                    folder.display()
                );
                SavedState::default()
            }
        };
        Ok((
            Store {
                folder,
                messages,
                dropped: Mutex::default(),
                waiting,
                is_handed_over: AtomicBool::default(),
                is_loaded,
            },
            saved,
        ))
    }

    /// Adds a request that has ended. Drops it if too many wait for the disk.
    pub fn add(&self, row: RequestRow) {
        if let Err(TrySendError::Full(_)) = self.messages.try_send(ToWriter::Row(Box::new(row.bounded()))) {
            self.tell_dropped(Losses { requests: 1, recordings: 0 });
        }
    }

    /// Adds a recorded request; the oldest ones beyond `size_max` bytes are deleted. Drops it if too many wait for the disk.
    pub fn add_recording(&self, row: RecordingRow, size_max: u64) {
        let size = row.size();
        let before = self.waiting.fetch_add(size, Ordering::Relaxed);
        let message = ToWriter::Recording(Box::new(row), size_max);
        let is_full = before > 0 && before.saturating_add(size) > RECORDINGS_WAITING_MAX;
        if is_full || self.messages.try_send(message).is_err() {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            self.tell_dropped(Losses { requests: 0, recordings: 1 });
        }
    }

    /// Opens the file for reading. It waits for the disk, and so does each question, but the thread that writes does not.
    ///
    /// # Errors
    /// There is no file, or it cannot be read: text for the operator.
    pub fn reader(&self) -> Result<Reader, String> {
        Reader::open(&self.folder)
    }

    /// Tries a folder again that could not be used until now. `wants_tokens`: tells the tokens of today once more if it
    /// can be used, since another process adds to them. `now` is in seconds since 1970.
    pub fn look(&self, now: u64, wants_tokens: bool) {
        if wants_tokens || !self.is_loaded.load(Ordering::Acquire) {
            let _ = self.messages.try_send(ToWriter::Look(now, wants_tokens));
        }
    }

    /// Saves facts in place of all saved ones of these kinds. Returns false if the disk is behind, a new process has the
    /// folder, or the folder could not be read yet.
    pub fn save(&self, kinds: Vec<&'static str>, facts: Vec<Fact>) -> bool {
        !self.is_handed_over.load(Ordering::Relaxed)
            && self.is_loaded.load(Ordering::Acquire)
            && self.messages.try_send(ToWriter::Facts(kinds, facts)).is_ok()
    }

    /// Writes everything, and lets a new process have the folder. This process goes on to write the requests that it
    /// finishes.
    pub fn hand_over(&self) {
        self.is_handed_over.store(true, Ordering::Relaxed);
        self.await_end(ToWriter::HandOver);
    }

    /// Takes the folder back: the new process has ended.
    pub fn take_back(&self) {
        self.is_handed_over.store(false, Ordering::Relaxed);
        let _ = self.messages.try_send(ToWriter::TakeBack);
    }

    /// Writes everything and closes the file.
    pub fn close(&self) {
        self.await_end(ToWriter::Close);
        self.tell_untold(&mut self.dropped.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Sends a last message and waits until the writer has dropped its sender, but not for a disk that hangs.
    fn await_end(&self, message: impl FnOnce(SyncSender<()>) -> ToWriter) {
        let (sender, done): (_, Receiver<()>) = sync_channel(1);
        let is_sent = self.messages.try_send(message(sender)).is_ok();
        if !is_sent || done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            log::error!(
                "state folder {}: the disk is too slow; the last requests are missing in it",
                self.folder.display()
            );
        }
    }

    /// Counts what was dropped, and logs the numbers at most once a minute.
    fn tell_dropped(&self, more: Losses) {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        dropped.untold.add(more);
        if dropped.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            dropped.told = Some(Instant::now());
            self.tell_untold(&mut dropped);
        }
    }

    /// Logs the losses that no line has told yet.
    fn tell_untold(&self, dropped: &mut DroppedRows) {
        let lost = std::mem::take(&mut dropped.untold).told();
        if !lost.is_empty() {
            log::error!("state folder {}: the disk is too slow{lost}", self.folder.display());
        }
    }
}
