//! The lines about a folder that cannot be written: one a minute at most, and each loss is told once.

use std::time::{Duration, Instant};

/// The time between two lines about failures, and the time without a failure after which the folder works again.
pub(super) const PAUSE: Duration = Duration::from_secs(60);

/// The requests and recordings that did not reach the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    pub(super) requests: u64,
    pub(super) recordings: u64,
}

impl Losses {
    pub(super) fn add(&mut self, more: Losses) {
        self.requests += more.requests;
        self.recordings += more.recordings;
    }

    fn is_empty(self) -> bool {
        self == Losses::default()
    }

    /// The end of a line: `; 3 requests and 1 recordings are missing in it`. Empty if nothing was lost.
    pub(super) fn told(self) -> String {
        let Losses { requests, recordings } = self;
        match (requests, recordings) {
            (0, 0) => String::new(),
            (requests, 0) => format!("; {requests} requests are missing in it"),
            (0, recordings) => format!("; {recordings} recordings are missing in it"),
            _ => format!("; {requests} requests and {recordings} recordings are missing in it"),
        }
    }
}

/// The failures of a folder, and what no line has told yet.
#[derive(Debug, Default)]
pub(super) struct WriteTrouble {
    losses: Losses,
    /// When a line about a failure was written last.
    told: Option<Instant>,
    /// When something failed last.
    failed: Option<Instant>,
    /// True once there is a line about a failure, and none yet that the folder works again.
    is_told: bool,
}

impl WriteTrouble {
    pub(super) fn lose(&mut self, more: Losses) {
        self.losses.add(more);
    }

    /// Notes a failure at `now`. Returns the end of its line, or `None` if there was a line less than a minute ago.
    pub(super) fn fail(&mut self, now: Instant) -> Option<String> {
        self.failed = Some(now);
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < PAUSE) {
            return None;
        }
        (self.told, self.is_told) = (Some(now), true);
        Some(self.take())
    }

    /// Notes a success at `now`. Returns the end of a line that the folder works again. On a full disk small rows may fit
    /// between recordings that do not, so one success proves nothing: a minute must have passed without a failure, unless
    /// the folder `is_reopened`.
    pub(super) fn succeed(&mut self, now: Instant, is_reopened: bool) -> Option<String> {
        let is_quiet = self.failed.is_none_or(|failed| now.saturating_duration_since(failed) >= PAUSE);
        if !(is_quiet || is_reopened) || (!self.is_told && self.losses.is_empty()) {
            return None;
        }
        // The next failure is told at once, with its own reason.
        (self.is_told, self.told, self.failed) = (false, None, None);
        Some(self.take())
    }

    /// The end of the last line, if it has something to tell.
    pub(super) fn end(&mut self) -> Option<String> {
        (!self.losses.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        std::mem::take(&mut self.losses).told()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_rows_between_large_failures_are_not_a_recovery() {
        let mut trouble = WriteTrouble::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let recording = Losses { requests: 0, recordings: 1 };
        assert_eq!(trouble.succeed(at(0), false), None, "nothing has failed");
        let (mut failures, mut recoveries) = (Vec::new(), Vec::new());
        for second in 0..100 {
            trouble.lose(recording);
            failures.extend(trouble.fail(at(second)));
            recoveries.extend(trouble.succeed(at(second), false));
        }
        let lost = |count| format!("; {count} recordings are missing in it");
        assert_eq!((failures, recoveries.len()), (vec![lost(1), lost(60)], 0));
        assert_eq!(trouble.succeed(at(158), false), None);
        assert_eq!(trouble.succeed(at(159), false), Some(lost(39)));
        assert_eq!((trouble.succeed(at(159), false), trouble.end()), (None, None));
        trouble.lose(Losses { requests: 2, recordings: 1 });
        let both = "; 2 requests and 1 recordings are missing in it";
        assert_eq!(trouble.fail(at(160)).as_deref(), Some(both), "a new failure is told at once");
    }

    #[test]
    fn a_folder_that_opens_works_at_once_and_the_end_tells_the_rest() {
        let mut trouble = WriteTrouble::default();
        let now = Instant::now();
        assert_eq!(trouble.fail(now).as_deref(), Some(""));
        trouble.lose(Losses { requests: 3, recordings: 0 });
        let lost = Some("; 3 requests are missing in it".to_owned());
        assert_eq!(trouble.succeed(now, true), lost);
        trouble.lose(Losses { requests: 3, recordings: 0 });
        assert_eq!((trouble.end(), trouble.end()), (lost, None));
    }
}
