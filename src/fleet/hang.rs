//! Whether an upstream hangs: its engine stands still, though it still accepts connections and lists its models.
//!
//! | its own figures | it hangs if |
//! |---|---|
//! | say that requests run, and three of them in a row are the same | all of its streams are silent for too long |
//! | are missing, or say that nothing runs | all of its streams are silent for too long, and there are two or more, or it does not answer the question for its models |
//! | change | never |
//!
//! "Too long" is three times the predicted prefill of the prompts that it has, and at least the operator's limit.
//!
//! Reads no clock: `now` is an argument.

use std::time::{Duration, Instant};

use super::load::LoadPage;
use super::memory::QuestionEnd;

/// The equal pages in a row that show that an engine stands still.
const PAGES_MIN: u32 = 3;

/// The multiple of the predicted time from which on silence is odd.
const PREDICTED_FACTOR: u32 = 3;

/// The fewest streams whose silence alone shows that an upstream hangs.
const STREAMS_MIN: usize = 2;

/// The silence of one upstream.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// The number of pieces of answers that had come when it was last looked at.
    heard: u64,
    /// The begin of the silence; `None`: it has no request.
    since: Option<Instant>,
    page: Option<LoadPage>,
    /// The equal pages in a row, in this silence.
    equal_pages: u32,
    /// True if it did not answer the last question for its models: a machine that stands still breaks no connection.
    is_mute: bool,
}

impl Silence {
    /// Takes in a page of the server. Returns true if its engine has worked since the last one.
    pub(super) fn take(&mut self, page: &LoadPage) -> bool {
        let before = self.page.replace(*page);
        let is_same =
            |before: LoadPage| (before.tokens, before.load.cache_use) == (page.tokens, page.load.cache_use);
        self.equal_pages = if before.is_some_and(is_same) { self.equal_pages.saturating_add(1) } else { 0 };
        before.is_some_and(|before| before.tokens != page.tokens)
    }

    /// Takes in how the background's question for its models ended.
    pub(super) fn note_question(&mut self, end: QuestionEnd) {
        self.is_mute = end != QuestionEnd::Answered;
    }

    /// Looks at an upstream with this number of requests, of whose answers `heard` pieces have come so far. `is_fresh`: its
    /// last page counts. Returns the time of its silence if it hangs; the next silence begins then.
    pub(super) fn look(
        &mut self,
        (heard, requests): (u64, usize),
        predicted: Duration,
        limit: Duration,
        is_fresh: bool,
        now: Instant,
    ) -> Option<Duration> {
        if requests == 0 || heard != self.heard || self.since.is_none() {
            self.heard = heard;
            self.since = (requests > 0).then_some(now);
            self.equal_pages = 0;
            return None;
        }
        let silent = now.saturating_duration_since(self.since?);
        if silent <= limit.max(predicted.saturating_mul(PREDICTED_FACTOR)) {
            return None;
        }
        let page = self.page.filter(|_| is_fresh);
        let hangs = match page {
            Some(_) if self.equal_pages < PAGES_MIN => false,
            Some(page) if page.load.running > 0 => true,
            _ => requests >= STREAMS_MIN || self.is_mute,
        };
        hangs.then(|| {
            (self.since, self.equal_pages) = (Some(now), 0);
            silent
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::load::Load;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMIT: Duration = Duration::from_secs(60);

    fn page(running: u32, tokens: u64) -> LoadPage {
        LoadPage { load: Load { running, waiting: 0, cache_use: Some(0.5) }, tokens, slots: None }
    }

    /// The seconds after which an upstream with these requests counts as hanging. `pages` says what it tells in a second.
    fn noticed(requests: usize, predicted: u64, pages: impl Fn(u64) -> Option<LoadPage>) -> Option<u64> {
        let (mut silence, begun) = (Silence::default(), Instant::now());
        (0..400).find(|second| {
            let told = pages(*second);
            told.inspect(|page| _ = silence.take(page));
            let now = begun + SECOND * u32::try_from(*second).unwrap();
            silence
                .look((7, requests), SECOND * u32::try_from(predicted).unwrap(), LIMIT, told.is_some(), now)
                .is_some()
        })
    }

    #[test]
    fn frozen_figures_and_silence() {
        assert_eq!(noticed(1, 0, |_| Some(page(1, 5))), Some(61));
        assert_eq!(noticed(1, 40, |_| Some(page(1, 5))), Some(121));
        assert_eq!(noticed(1, 0, |second| Some(page(1, second))), None, "it works for others");
        assert_eq!(noticed(2, 0, |second| Some(page(1, second))), None);
        assert_eq!(noticed(0, 0, |_| Some(page(1, 5))), None);
        assert_eq!(noticed(1, 0, |second| Some(page(1, second.min(100)))), Some(103), "three equal pages");
    }

    #[test]
    fn without_figures_two_streams_must_be_silent() {
        assert_eq!(noticed(1, 0, |_| None), None);
        assert_eq!(noticed(2, 0, |_| None), Some(61));
        // An engine that hung while it was idle still says that nothing runs.
        assert_eq!(noticed(1, 0, |_| Some(page(0, 5))), None);
        assert_eq!(noticed(2, 0, |_| Some(page(0, 5))), Some(61));
    }

    #[test]
    fn one_silent_stream_is_enough_if_the_question_for_the_models_is_not_answered() {
        let (mut silence, begun) = (Silence::default(), Instant::now());
        silence.take(&page(1, 5));
        let mut look = |end, second, is_fresh| {
            silence.note_question(end);
            silence.look((7, 1), SECOND, LIMIT, is_fresh, begun + second * SECOND).is_some()
        };
        let (mute, answered) = (QuestionEnd::Mute, QuestionEnd::Answered);
        assert!(!look(mute, 0, false) && !look(mute, 60, false), "not silent for long");
        assert!(!look(answered, 61, false), "it lists its models");
        assert!(!look(mute, 61, true), "its figures are fresh, and have not been the same for long");
        assert!(look(mute, 61, false));
    }

    #[test]
    fn any_piece_of_any_answer_ends_the_silence() {
        let (mut silence, begun) = (Silence::default(), Instant::now());
        for second in 0..300 {
            let look =
                silence.look((u64::from(second) / 59, 5), SECOND, LIMIT, false, begun + SECOND * second);
            assert_eq!(look, None);
        }
        assert_eq!(
            silence.look((5, 5), SECOND, LIMIT, false, begun + 400 * SECOND),
            Some(400 * SECOND - 295 * SECOND)
        );
        assert_eq!(silence.look((5, 5), SECOND, LIMIT, false, begun + 401 * SECOND), None, "once");
    }
}
