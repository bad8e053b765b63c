//! Log lines of which each source may write a limited number a second; the others are counted, and the number is logged.
//!
//! For lines that strangers or loops can cause without limit, and that must not fill the log.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

use crate::threads;

/// The time that a number of lines is counted for.
const PERIOD: Duration = Duration::from_secs(1);

/// The most sources whose lines are counted apart. Beyond it all others of that second share one count.
const SOURCES_MAX: usize = 1024;

/// Writes the lines of many sources, or counts them. Clones share the counts.
#[derive(Clone, Debug)]
pub struct LimitedLines<S> {
    counts: Arc<Mutex<LineCounts<S>>>,
    /// Logs the number of lines of a source that were left out; `None` stands for the sources that share one count.
    log_left_out: fn(Option<S>, u64),
}

/// The lines of the last second by source. Decides only; the clock is an argument.
#[derive(Debug)]
struct LineCounts<S> {
    lines_max: u32,
    sources: HashMap<Option<S>, LineCount>,
    /// True if a thread will write the numbers of the lines that were left out.
    is_reported: bool,
}

#[derive(Clone, Copy, Debug)]
struct LineCount {
    began: Instant,
    written: u32,
    left_out: u64,
}

impl<S: Copy + Eq + Hash + Ord> LineCounts<S> {
    fn new(lines_max: u32) -> Self {
        LineCounts { lines_max, sources: HashMap::new(), is_reported: false }
    }

    /// Counts a line, and returns true if it is written.
    fn is_written(&mut self, source: S, now: Instant) -> bool {
        let mut source = Some(source);
        let is_over = |count: &LineCount| count.left_out == 0 && now.duration_since(count.began) >= PERIOD;
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            self.sources.retain(|_, count| !is_over(count));
            if self.sources.len() >= SOURCES_MAX {
                source = None;
            }
        }
        let new = LineCount { began: now, written: 0, left_out: 0 };
        let count = self.sources.entry(source).or_insert(new);
        if is_over(count) {
            *count = new;
        }
        let is_written = count.written < self.lines_max;
        count.written += u32::from(is_written);
        count.left_out += u64::from(!is_written);
        is_written
    }

    /// Takes the numbers of lines that were left out.
    fn take_left_out(&mut self) -> Vec<(Option<S>, u64)> {
        let left_out = |count: &LineCount| count.left_out > 0;
        let found = self.sources.iter().filter(|(_, count)| left_out(count));
        let mut found: Vec<(Option<S>, u64)> =
            found.map(|(source, count)| (*source, count.left_out)).collect();
        found.sort_unstable();
        self.sources.retain(|_, count| !left_out(count));
        found
    }
}

impl<S: Copy + Eq + Hash + Ord + Send + 'static> LimitedLines<S> {
    /// Each source may write `lines_max` lines a second. `log_left_out` logs the number of the others.
    pub fn new(lines_max: u32, log_left_out: fn(Option<S>, u64)) -> Self {
        LimitedLines { counts: Arc::new(Mutex::new(LineCounts::new(lines_max))), log_left_out }
    }

    /// Logs a line of this source, or counts it if the source had too many.
    pub fn log(&self, source: S, level: Level, line: fmt::Arguments<'_>) {
        if self.admits(source, level) {
            log::log!(level, "{line}");
        }
    }

    /// True if a line of this source may be logged now. If not, it is counted.
    pub fn admits(&self, source: S, level: Level) -> bool {
        if !log::log_enabled!(level) {
            return false;
        }
        let (is_written, begins_report) = {
            let mut counts = self.counts();
            let is_written = counts.is_written(source, Instant::now());
            (is_written, !is_written && !std::mem::replace(&mut counts.is_reported, true))
        };
        if begins_report {
            let later = self.clone();
            let work = move || {
                std::thread::sleep(PERIOD);
                later.report();
            };
            // Without the thread, the next line that is left out tries again.
            if threads::background("left-out", work).is_err() {
                self.counts().is_reported = false;
            }
        }
        is_written
    }

    /// Logs the numbers of lines that were left out, if there are any.
    pub fn report(&self) {
        let left_out = {
            let mut counts = self.counts();
            counts.is_reported = false;
            counts.take_left_out()
        };
        for (source, count) in left_out {
            (self.log_left_out)(source, count);
        }
    }

    /// Locks the counts. No code can panic while they are locked, so poisoned ones are as good as any.
    fn counts(&self) -> MutexGuard<'_, LineCounts<S>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_so_many_lines_a_second_and_then_a_count() {
        let (mut counts, now) = (LineCounts::new(20), Instant::now());
        let written = |counts: &mut LineCounts<u32>, source, now, lines: u32| {
            (0..lines).filter(|_| counts.is_written(source, now)).count()
        };
        assert_eq!(written(&mut counts, 1, now, 19), 19);
        assert_eq!(written(&mut counts, 1, now, 100), 1);
        assert_eq!(written(&mut counts, 2, now, 20), 20);
        // A second later, the source is new only once its count was told.
        assert_eq!(written(&mut counts, 1, now + PERIOD, 1), 0);
        assert_eq!(written(&mut counts, 2, now + PERIOD, 30), 20);
        assert_eq!(counts.take_left_out(), [(Some(1), 100), (Some(2), 10)]);
        assert_eq!(written(&mut counts, 1, now + PERIOD, 30), 20);
        assert_eq!(counts.take_left_out(), [(Some(1), 10)]);
        assert_eq!(counts.take_left_out(), []);
    }

    #[test]
    fn many_sources_share_one_count() {
        let (mut counts, now) = (LineCounts::new(20), Instant::now());
        let written = (0..2 * SOURCES_MAX).filter(|source| counts.is_written(*source, now)).count();
        assert_eq!(written, SOURCES_MAX + 20);
        assert_eq!(counts.take_left_out(), [(None, SOURCES_MAX as u64 - 20)]);
        // A second later there is room for others.
        assert!((SOURCES_MAX..2 * SOURCES_MAX).all(|source| counts.is_written(source, now + PERIOD)));
    }
}
