//! Asks the servers of pools for the figures about their own work, in the background, one question at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::conversations::BoxId;
use super::load::{LoadPage, PAGE_SIZE_MAX, read_metrics, read_slots};
use super::memory::Availability;
use super::slot::Dispatcher;
use super::upstream::Upstream;
use crate::dialect::LoadFormat;
use crate::threads;
use crate::transport::{Path, QuestionLimits};

/// The time between two questions.
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// The time until a server without the page is asked again: it may be another server by then.
const ASKED_AGAIN: Duration = Duration::from_secs(60);

/// The time for one question. Later figures would be old.
const TIME_MAX: Duration = Duration::from_secs(2);

/// When one upstream is asked next.
#[derive(Debug, Default)]
pub(super) struct LoadWatch(Mutex<LoadTurn>);

#[derive(Debug, Default)]
struct LoadTurn {
    is_running: bool,
    next: Option<Instant>,
}

impl LoadTurn {
    /// True if a question is due, which then runs.
    fn begin(&mut self, now: Instant) -> bool {
        let is_due = !self.is_running && self.next.is_none_or(|next| now >= next);
        if is_due {
            (self.is_running, self.next) = (true, Some(now + ASKED_EVERY));
        }
        is_due
    }

    /// Ends the question. `has_page` is false if the server answered with something else.
    fn end(&mut self, has_page: bool, now: Instant) {
        self.is_running = false;
        if !has_page {
            self.next = Some(now + ASKED_AGAIN);
        }
    }
}

impl LoadWatch {
    fn turn(&self) -> MutexGuard<'_, LoadTurn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks in a thread of its own if that is due, and tells the dispatcher the answer. A server that cannot be reached is
    /// left to the questions for its models.
    pub(super) fn ask_if_due(self: &Arc<Self>, upstream: &Upstream, id: BoxId, dispatcher: &Arc<Dispatcher>) {
        if upstream.speaks_messages() {
            return; // it hears of nothing but the requests of clients
        }
        let Some(format) = upstream.kind().dialect().load_format else { return };
        if upstream.availability() != Availability::Up || !self.turn().begin(Instant::now()) {
            return;
        }
        let mut question = RunningLoadQuestion { watch: Arc::clone(self), has_page: true };
        let (upstream, dispatcher) = (upstream.clone(), Arc::clone(dispatcher));
        let name = upstream.name().to_owned();
        let started = threads::background("load", move || {
            // Moves the whole question into this thread, not only the field.
            let question = &mut question;
            match ask(&upstream, format) {
                Answered::Page(page) => {
                    dispatcher.loaded(id, &page, upstream.config().max_in_flight.is_none());
                }
                Answered::Other => question.has_page = false,
                Answered::Nothing => {}
            }
        });
        if let Err(error) = started {
            log::warn!("upstream {name}: no thread to ask for its load: {error}");
        }
    }
}

/// A question that runs. However its thread ends, the question ends with it.
struct RunningLoadQuestion {
    watch: Arc<LoadWatch>,
    has_page: bool,
}

impl Drop for RunningLoadQuestion {
    fn drop(&mut self) {
        self.watch.turn().end(self.has_page, Instant::now());
    }
}

/// The answer to a question.
enum Answered {
    /// The figures.
    Page(LoadPage),
    /// The server has no such page.
    Other,
    /// It did not answer.
    Nothing,
}

fn ask(upstream: &Upstream, format: LoadFormat) -> Answered {
    let limits = QuestionLimits { time: TIME_MAX, size: PAGE_SIZE_MAX };
    let path = match format {
        LoadFormat::Metrics => "/metrics",
        LoadFormat::Slots => "/slots",
    };
    let mut page = match upstream.endpoint().question(Path::Root(path), limits) {
        Ok(page) if page.status == 200 => page,
        Ok(_) => return Answered::Other,
        Err(failure) => {
            log::debug!("upstream {}: no answer to GET {path}: {failure}", upstream.name());
            return Answered::Nothing;
        }
    };
    let read = match format {
        LoadFormat::Metrics => read_metrics(&page.body),
        LoadFormat::Slots => read_slots(&mut page.body),
    };
    read.map_or(Answered::Other, Answered::Page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{UpstreamConfig, UpstreamProtocol};
    use crate::transport::CallLimits;

    #[test]
    fn an_api_is_not_asked_for_its_figures() {
        let config = UpstreamConfig::new("cloud", "http://127.0.0.1:9/v1");
        let config = UpstreamConfig { protocol: UpstreamProtocol::Messages, ..config };
        let upstream = Upstream::new(config, &CallLimits::default()).unwrap();
        assert_eq!(upstream.availability(), Availability::Up);
        let watch = Arc::new(LoadWatch::default());
        // Its facts may seem wrong after a lost connection.
        upstream.mark_stale();
        upstream.keep_current();
        watch.ask_if_due(&upstream, BoxId(1), &Arc::default());
        assert!(watch.turn().begin(Instant::now()), "a question is due, and none was asked");
        assert!(upstream.renew().is_none() && !upstream.is_stale());
    }

    #[test]
    fn one_question_at_a_time_and_a_long_pause_without_a_page() {
        let (mut turn, now) = (LoadTurn::default(), Instant::now());
        assert!(turn.begin(now));
        assert!(!turn.begin(now + ASKED_AGAIN), "one runs");
        turn.end(true, now + ASKED_EVERY / 2);
        assert!(!turn.begin(now + ASKED_EVERY / 2));
        let now = now + ASKED_EVERY;
        assert!(turn.begin(now));
        turn.end(false, now);
        assert!(!turn.begin(now + ASKED_AGAIN / 2) && turn.begin(now + ASKED_AGAIN));
    }
}
