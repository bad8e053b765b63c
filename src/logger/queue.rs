//! Lines on their way to stderr, so that no thread waits for whoever reads them.
//!
//! One thread writes them. If stderr takes nothing, lines beyond a limit are dropped and counted.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most bytes of lines that wait. A healthy reader takes these in milliseconds.
const QUEUE_SIZE_MAX: usize = 1024 * 1024;

/// How many bytes are written at once. Linux writes that many to a pipe as one piece, so lines of several processes on
/// one pipe do not mix.
const PIECE_SIZE_MAX: usize = 4096;

/// How long a line waits for room before it is dropped: a reader that is only slow makes room by then. Once a wait was in
/// vain, lines are dropped without it until stderr takes something again.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the end of the program waits for the last lines.
const FLUSH_TIME: Duration = Duration::from_secs(2);

/// The lines that wait for the one thread that writes them.
pub(super) struct LineQueue {
    state: Mutex<PendingLines>,
    /// Lines came while the writer was idle.
    filled: Condvar,
    /// The writer has written something.
    emptied: Condvar,
    /// The number of lines dropped since the start.
    lost: AtomicU64,
    /// Makes the line that reports how many lines were dropped.
    notice: fn(u64) -> String,
}

#[derive(Default)]
struct PendingLines {
    bytes: VecDeque<u8>,
    /// Lines dropped since the last notice.
    unreported: u64,
    /// True while the writer waits for lines.
    is_idle: bool,
    /// True while the writer writes a piece that it has taken out of `bytes`.
    is_writing: bool,
    /// The number of threads that wait for the writer.
    waiting: usize,
    /// True if stderr took nothing for [`PATIENCE`].
    is_stuck: bool,
}

impl PendingLines {
    /// A line that is longer than the queue is taken if nothing else waits: at the level trace, lines are whole bodies.
    fn has_room(&self, size: usize) -> bool {
        self.bytes.is_empty() || self.bytes.len() + size <= QUEUE_SIZE_MAX
    }

    /// Takes the next piece: as many whole lines as fit, or a part of a line that is longer.
    fn take_piece(&mut self, piece: &mut Vec<u8>) {
        let whole_lines = self.bytes.iter().take(PIECE_SIZE_MAX).rposition(|byte| *byte == b'\n');
        let size = whole_lines.map_or(PIECE_SIZE_MAX.min(self.bytes.len()), |end| end + 1);
        piece.clear();
        piece.extend(self.bytes.drain(..size));
        if self.bytes.is_empty() && self.bytes.capacity() > QUEUE_SIZE_MAX {
            self.bytes = VecDeque::new();
        }
    }
}

impl LineQueue {
    /// An empty queue.
    pub(super) fn new(notice: fn(u64) -> String) -> Self {
        LineQueue {
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            lost: AtomicU64::new(0),
            notice,
        }
    }

    /// The number of lines dropped since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Adds a line, which has its line end.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if !state.has_room(line.len()) && !state.is_stuck {
            let (mut after, has_timed_out) =
                self.wait_while(state, PATIENCE, |state| !state.has_room(line.len()) && !state.is_stuck);
            after.is_stuck |= has_timed_out;
            state = after;
        }
        if !state.has_room(line.len()) {
            state.unreported += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.report(&mut state);
        state.bytes.extend(line);
        if std::mem::take(&mut state.is_idle) {
            self.filled.notify_one();
        }
    }

    /// Adds the notice about dropped lines, in their place between the lines before and after them.
    fn report(&self, state: &mut PendingLines) {
        let lost = std::mem::take(&mut state.unreported);
        if lost > 0 {
            state.bytes.extend((self.notice)(lost).as_bytes());
        }
    }

    /// Writes lines without an end; `write` writes a whole piece. A piece that cannot be written is dropped: its reader
    /// has left.
    pub(super) fn write_all(&self, write: impl Fn(&[u8]) -> io::Result<()>) {
        let mut piece = Vec::with_capacity(PIECE_SIZE_MAX);
        loop {
            let mut state = self.state();
            if state.bytes.is_empty() {
                self.report(&mut state);
            }
            while state.bytes.is_empty() {
                state.is_idle = true;
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.is_idle = false;
            state.take_piece(&mut piece);
            state.is_writing = true;
            drop(state);
            let _ = write(&piece);
            let mut state = self.state();
            state.is_writing = false;
            state.is_stuck = false;
            if state.waiting > 0 {
                self.emptied.notify_all();
            }
        }
    }

    /// Waits until all lines are written, but not for a reader that takes nothing.
    pub(super) fn flush(&self) {
        let is_unwritten =
            |state: &PendingLines| (!state.bytes.is_empty() || state.is_writing) && !state.is_stuck;
        drop(self.wait_while(self.state(), FLUSH_TIME, is_unwritten));
    }

    /// Waits while the condition is true, at most for `time`. Also returns whether that was too short.
    fn wait_while<'q>(
        &'q self,
        mut state: MutexGuard<'q, PendingLines>,
        time: Duration,
        condition: impl Fn(&PendingLines) -> bool,
    ) -> (MutexGuard<'q, PendingLines>, bool) {
        state.waiting += 1;
        let waited = self.emptied.wait_timeout_while(state, time, |state| condition(state));
        let (mut state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        (state, result.timed_out())
    }

    /// Locks the state. No code can panic while it is locked, so a poisoned state is as good as any.
    fn state(&self) -> MutexGuard<'_, PendingLines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    fn notice(lost: u64) -> String {
        format!("{lost} lost\n")
    }

    /// A queue whose writer hands each piece over, and takes the next one only then.
    fn started() -> (Arc<LineQueue>, mpsc::Receiver<Vec<u8>>) {
        let queue = Arc::new(LineQueue::new(notice));
        let (hand_over, pieces) = mpsc::sync_channel(0);
        let writer = Arc::clone(&queue);
        std::thread::spawn(move || {
            writer.write_all(|piece| hand_over.send(piece.to_vec()).map_err(io::Error::other));
        });
        (queue, pieces)
    }

    #[test]
    fn lines_come_out_in_order_and_whole() {
        let (queue, pieces) = started();
        let pusher = Arc::clone(&queue);
        let lines: Vec<String> = (0..2000).map(|i| format!("{i} {}\n", "x".repeat(i % 90))).collect();
        let expected = lines.concat();
        std::thread::spawn(move || lines.iter().for_each(|line| pusher.push(line.as_bytes())));
        let mut written = Vec::new();
        while written.len() < expected.len() {
            let piece = pieces.recv().unwrap();
            assert!(piece.len() <= PIECE_SIZE_MAX && piece.ends_with(b"\n"));
            written.extend(piece);
        }
        assert_eq!(String::from_utf8(written).unwrap(), expected);
        queue.flush();
        assert_eq!(queue.lost(), 0);
    }

    #[test]
    fn lines_beyond_the_limit_are_counted_where_they_would_have_stood() {
        let (queue, pieces) = started();
        queue.push(b"first\n");
        while !queue.state().is_writing {
            std::thread::yield_now();
        }
        // Nobody takes the first piece, so nothing leaves the queue. It is known to be stuck, so no line waits.
        queue.state().is_stuck = true;
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let full = QUEUE_SIZE_MAX / line.len();
        for _ in 0..full + 20 {
            queue.push(&line);
        }
        assert_eq!(queue.lost(), 20);
        queue.flush();
        let mut written = [pieces.recv().unwrap(), pieces.recv().unwrap()].concat();
        queue.push(b"last\n");
        while !written.ends_with(b"last\n") {
            written.extend(pieces.recv().unwrap());
        }
        let written = String::from_utf8(written).unwrap();
        assert!(written.starts_with("first\nx") && written.ends_with("x\n20 lost\nlast\n"));
        assert_eq!(written.lines().count(), 1 + full + 2);
        assert_eq!(queue.lost(), 20);
    }

    #[test]
    fn a_notice_does_not_wait_for_another_line() {
        let (queue, pieces) = started();
        queue.push(b"first\n");
        while !queue.state().is_writing {
            std::thread::yield_now();
        }
        queue.state().unreported = 3;
        assert_eq!([pieces.recv().unwrap(), pieces.recv().unwrap()].concat(), b"first\n3 lost\n");
    }

    #[test]
    fn a_line_longer_than_the_queue_is_whole() {
        let (queue, pieces) = started();
        let line = [&vec![b'x'; 2 * QUEUE_SIZE_MAX][..], b"\n"].concat();
        queue.push(&line);
        let mut written = Vec::new();
        while written.len() < line.len() {
            written.extend(pieces.recv().unwrap());
        }
        assert!(written == line);
        queue.flush();
    }
}
