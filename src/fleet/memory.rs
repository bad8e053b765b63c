//! The facts last discovered about an upstream, and the decision when to ask for them again.
//!
//! A question is asked in the background, one at a time. Requests use the known facts meanwhile. They wait for a
//! question only while the facts are *stale*: nothing is known yet, or something has shown that another server may run
//! at the address by now.
//!
//! | the facts are | a question begins with the next request, if the last one ended | requests wait for it |
//! |---|---|---|
//! | never asked for, or a sign of another server came since | at any time | yes |
//! | stale, and the last question found no server | a tenth of `discovery_interval` ago | yes |
//! | stale for another reason | `discovery_interval` ago | yes |
//! | not to be had: the server answers, but with no listing | [`AGE_MAX`] ago | no |
//! | older than [`AGE_MAX`] | `discovery_interval` ago | no |
//!
//! Besides, each upstream is asked without any request, so that its state can be told: every [`WATCHED_EVERY`] while it
//! answers, and after a failure at growing pauses from [`DOWN_PAUSE_MIN`] to [`DOWN_PAUSE_MAX`].
//!
//! Reads no clock: `now` is an argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::discovery::Discovered;
use crate::settings::Settings;
use crate::transport::Failure;
use crate::wake::Wake;

/// The age of a listing from which on the next request has it fetched again, though nothing suggests a change: the
/// server may have loaded another model, or may be another one behind a connection that did not break. The question
/// costs the server about a millisecond.
const AGE_MAX: Duration = Duration::from_secs(30);

/// The shortest time for which servers keep an idle connection, less a margin for clocks: uvicorn (vLLM, SGLang) and
/// llama.cpp close theirs after 5 s. A connection that closes earlier was closed because the server ended.
const KEEP_ALIVE_MIN: Duration = Duration::from_millis(4_500);

/// The time between two questions without a request while the server answers them. One costs it about a millisecond.
const WATCHED_EVERY: Duration = Duration::from_secs(10);

/// The pause after the first question that failed, and the longest one; each failure doubles it.
const DOWN_PAUSE_MIN: Duration = Duration::from_secs(1);
const DOWN_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The state of an upstream by the last question for its facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// No question has ended yet.
    Unasked,
    /// It answers. It may have answered that it has no listing.
    Up,
    /// It cannot be reached.
    Down,
}

impl Availability {
    /// Its name for readers of `/ready` and of the status line.
    pub fn name(self) -> &'static str {
        match self {
            Availability::Unasked => "not asked yet",
            Availability::Up => "up",
            Availability::Down => "down",
        }
    }
}

/// The end of a question to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuestionEnd {
    /// It answered, with a listing or not.
    Answered,
    /// It took the connection, and said nothing in time: it is busy, or its machine stands still.
    Mute,
    /// It could not be reached.
    Unreached,
}

/// The facts, and the state of the questions for them.
#[derive(Debug)]
pub(super) struct DiscoveryMemory {
    known: Arc<Discovered>,
    /// True if the known facts may be wrong, or nothing is known.
    stale: bool,
    /// The time of the last listing.
    listed: Option<Instant>,
    /// The end of the last question; `None`: the next one may begin at once.
    asked: Option<Instant>,
    /// The failure of the last question.
    failure: Option<Failure>,
    /// The number of questions that have failed since the last one that did not.
    failures: u32,
    /// The number of questions that have ended.
    ended: u64,
    /// True if the server answers questions, but not with a listing or not in time: to wait for the next one would be in
    /// vain.
    is_in_vain: bool,
    /// The running question, which wakes those who wait for it.
    running: Option<Arc<Wake>>,
    /// True if a sign of another server came while a question was running, so that its answer may be the old one's.
    is_overtaken: bool,
    /// True once the server has answered two requests on one connection.
    keeps_alive: bool,
    /// The number of times that another server was noticed.
    generation: u64,
}

/// A request's next step towards the facts.
#[derive(Clone, Debug)]
pub(super) enum NextStep {
    /// It goes on with the known facts.
    GoOn,
    /// It begins a question, and waits for it if `waits`.
    Ask {
        /// Wakes those who wait, at the question's end.
        end: Arc<Wake>,
        /// Whether the request waits.
        waits: bool,
    },
    /// It waits for the running question.
    Await(Arc<Wake>),
}

impl DiscoveryMemory {
    /// The memory before the first question.
    pub(super) fn new(settings: &Settings) -> Self {
        DiscoveryMemory {
            known: Arc::new(Discovered::unasked(settings)),
            stale: true,
            listed: None,
            asked: None,
            failure: None,
            failures: 0,
            ended: 0,
            is_in_vain: false,
            running: None,
            is_overtaken: false,
            keeps_alive: false,
            generation: 0,
        }
    }

    /// The facts that were discovered last.
    pub(super) fn known(&self) -> &Arc<Discovered> {
        &self.known
    }

    /// True if these facts may be wrong by now, or nothing is known.
    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// True if no question has ended yet.
    pub(super) fn is_unasked(&self) -> bool {
        self.listed.is_none() && self.failure.is_none()
    }

    /// The failure of the last question, if it failed.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The state of the server by the last question.
    pub(super) fn availability(&self) -> Availability {
        match (self.is_unasked(), self.failure.is_some() && !self.is_in_vain) {
            (true, _) => Availability::Unasked,
            (false, true) => Availability::Down,
            (false, false) => Availability::Up,
        }
    }

    /// The number of questions that have ended, and how the last one ended.
    pub(super) fn last_question(&self) -> (u64, QuestionEnd) {
        let end = match (self.availability(), &self.failure) {
            (Availability::Up, Some(Failure::Timeout(_))) => QuestionEnd::Mute,
            (Availability::Up, _) => QuestionEnd::Answered,
            _ => QuestionEnd::Unreached,
        };
        (self.ended, end)
    }

    /// The number of the server that runs now; a restart or another listing raises it.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Marks the facts as possibly wrong.
    pub(super) fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// Notes that the server itself has shown, by an answer, that the facts are wrong. The next question begins at
    /// once; one that is running will do.
    pub(super) fn contradict(&mut self) {
        self.stale = true;
        self.asked = None;
        self.is_in_vain = false;
    }

    /// Notes a sign that another server may run now.
    fn suspect(&mut self) {
        self.stale = true;
        self.asked = None;
        self.is_overtaken = true;
    }

    /// Notes that another server runs now, or will run next.
    fn restarted(&mut self) {
        self.suspect();
        self.generation += 1;
        self.keeps_alive = false;
        // The next server may list its models, even if this one did not.
        self.is_in_vain = false;
    }

    /// Notes that the server has answered, on a connection that it had kept (`is_reused`) or on a new one.
    pub(super) fn notice_answer(&mut self, is_reused: bool) {
        self.keeps_alive |= is_reused;
    }

    /// Notes that no connection could be made: whatever server answers next was started anew.
    pub(super) fn notice_refused(&mut self) {
        self.restarted();
    }

    /// Notes that a kept connection broke when it was used.
    pub(super) fn notice_lost(&mut self) {
        self.suspect();
    }

    /// Notes that the server closed a connection that had been idle for this time. The server may have been restarted.
    /// It certainly was if it keeps connections, but did not keep this one for the usual time.
    pub(super) fn notice_closed(&mut self, idle_for: Duration) {
        if self.keeps_alive && idle_for < KEEP_ALIVE_MIN {
            self.restarted();
        } else {
            self.suspect();
        }
    }

    /// Decides what a request does about the facts. `wake` makes the descriptor of a new question; without one, the
    /// request goes on.
    pub(super) fn next_step(
        &mut self,
        now: Instant,
        interval: Duration,
        wake: impl FnOnce() -> Option<Arc<Wake>>,
    ) -> NextStep {
        let waits = self.stale && !self.is_in_vain;
        if let Some(end) = self.running.as_ref().filter(|_| waits) {
            return NextStep::Await(Arc::clone(end));
        }
        if self.running.is_some() || !self.is_due(now, interval) {
            return NextStep::GoOn;
        }
        match self.begin(wake) {
            Some(end) => NextStep::Ask { end, waits },
            None => NextStep::GoOn,
        }
    }

    /// Begins a question without a request, if that is due. Returns its end; `wake` makes the descriptor for it.
    pub(super) fn watch(
        &mut self,
        now: Instant,
        wake: impl FnOnce() -> Option<Arc<Wake>>,
    ) -> Option<Arc<Wake>> {
        let pause = match self.failures {
            0 => WATCHED_EVERY,
            failed => DOWN_PAUSE_MIN.saturating_mul(2u32.saturating_pow(failed - 1)).min(DOWN_PAUSE_MAX),
        };
        let is_due = self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= pause);
        if self.running.is_some() || !is_due { None } else { self.begin(wake) }
    }

    /// Begins a question. `None`: no descriptor is left for it.
    fn begin(&mut self, wake: impl FnOnce() -> Option<Arc<Wake>>) -> Option<Arc<Wake>> {
        let end = wake()?;
        self.running = Some(Arc::clone(&end));
        self.is_overtaken = false;
        Some(end)
    }

    fn is_due(&self, now: Instant, interval: Duration) -> bool {
        let is_past = |at: Option<Instant>, time: Duration| {
            at.is_none_or(|at| now.saturating_duration_since(at) >= time)
        };
        let pause = match (self.is_in_vain, self.failure.is_some()) {
            (true, _) => AGE_MAX,
            // A refused connection is found out at once, and a server that is being started answers soon.
            (false, true) => interval / 10,
            (false, false) => interval,
        };
        (self.stale || is_past(self.listed, AGE_MAX)) && is_past(self.asked, pause)
    }

    /// Notes the end of a question, and wakes those who wait. Returns true if its result is news: another listing, or
    /// another failure after a success.
    pub(super) fn told(&mut self, result: Result<Arc<Discovered>, Failure>, now: Instant) -> bool {
        let was_overtaken = std::mem::take(&mut self.is_overtaken);
        self.asked = Some(now).filter(|_| !was_overtaken);
        self.ended += 1;
        let is_news = match result {
            Ok(found) => {
                let is_other = self.known.identity() != found.identity();
                if is_other && self.known.identity() != 0 {
                    self.generation += 1;
                }
                // The same listing stays the same value, so that nobody takes it for another one.
                if self.known != found {
                    self.known = found;
                }
                self.listed = Some(now);
                self.stale = was_overtaken;
                self.is_in_vain = false;
                self.failures = 0;
                self.failure.take().is_some() || is_other
            }
            Err(failure) => {
                self.stale = true;
                self.failures = self.failures.saturating_add(1);
                // A shortage of this process says nothing about the server.
                let is_unreached = failure.is_connection_lost() || matches!(failure, Failure::Exhausted(_));
                self.is_in_vain = !is_unreached;
                if failure.is_refused() {
                    // Whatever server answers next was started anew.
                    self.generation += 1;
                    self.keeps_alive = false;
                }
                self.failure.replace(failure).is_none()
            }
        };
        if let Some(end) = self.running.take() {
            end.wake();
        }
        is_news
    }

    /// True if the question that wakes by `end` is still running.
    pub(super) fn is_running(&self, end: &Arc<Wake>) -> bool {
        self.running.as_ref().is_some_and(|running| Arc::ptr_eq(running, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(3);

    fn listing(entry: &str, rest: &str) -> Arc<Discovered> {
        let text = format!(r#"{{"data":[{entry}]{rest}}}"#);
        Arc::new(Discovered::parse(&mut text.into_bytes(), None, &Settings::default()).unwrap())
    }

    fn known() -> Arc<Discovered> {
        listing(r#"{"id":"a"}"#, "")
    }

    /// One word for the next step: `ask` and `wait` wait for the question, `later` does not.
    fn step(memory: &mut DiscoveryMemory, now: Instant) -> &'static str {
        match memory.next_step(now, INTERVAL, || Wake::new().ok().map(Arc::new)) {
            NextStep::GoOn => "go on",
            NextStep::Ask { waits: true, .. } => "ask",
            NextStep::Ask { waits: false, .. } => "later",
            NextStep::Await(_) => "wait",
        }
    }

    /// A memory that was told a listing at `now`.
    fn fresh(now: Instant) -> DiscoveryMemory {
        let mut memory = DiscoveryMemory::new(&Settings::default());
        assert_eq!(step(&mut memory, now), "ask");
        assert!(memory.told(Ok(known()), now));
        memory
    }

    #[test]
    fn only_the_first_requests_wait_and_one_question_is_asked() {
        let now = Instant::now();
        let mut memory = DiscoveryMemory::new(&Settings::default());
        assert_eq!([step(&mut memory, now), step(&mut memory, now)], ["ask", "wait"]);
        memory.told(Ok(known()), now);
        assert_eq!(step(&mut memory, now), "go on");
        assert_eq!(step(&mut memory, now + AGE_MAX - Duration::from_secs(1)), "go on");
        assert_eq!([(); 2].map(|()| step(&mut memory, now + AGE_MAX)), ["later", "go on"]);
        assert!(!memory.told(Ok(known()), now + AGE_MAX), "the same listing again changes nothing");
        assert_eq!(step(&mut memory, now + AGE_MAX), "go on");
    }

    #[test]
    fn a_sign_of_another_server_makes_requests_wait_again() {
        let signs: [fn(&mut DiscoveryMemory); 4] = [
            DiscoveryMemory::contradict,
            DiscoveryMemory::notice_refused,
            DiscoveryMemory::notice_lost,
            |memory| memory.notice_closed(Duration::from_secs(60)),
        ];
        for sign in signs {
            let now = Instant::now();
            let mut memory = fresh(now);
            sign(&mut memory);
            assert_eq!([step(&mut memory, now), step(&mut memory, now)], ["ask", "wait"]);
            memory.told(Ok(known()), now);
            assert_eq!(step(&mut memory, now), "go on");
        }
        let now = Instant::now();
        let mut memory = fresh(now);
        memory.mark_stale();
        assert_eq!([step(&mut memory, now), step(&mut memory, now + INTERVAL)], ["go on", "ask"]);
    }

    #[test]
    fn an_answer_that_a_restart_has_overtaken_is_asked_for_again() {
        let now = Instant::now();
        let mut memory = DiscoveryMemory::new(&Settings::default());
        step(&mut memory, now);
        memory.notice_lost();
        memory.told(Ok(known()), now);
        assert!(memory.is_stale());
        assert_eq!(step(&mut memory, now), "ask");
        memory.contradict();
        memory.told(Ok(known()), now);
        assert_eq!(step(&mut memory, now), "go on", "the answer that contradicted came from the same server");
    }

    #[test]
    fn a_server_that_is_down_is_asked_again_soon_and_one_without_a_listing_late() {
        let now = Instant::now();
        let mut memory = fresh(now);
        memory.mark_stale();
        step(&mut memory, now + INTERVAL);
        let now = now + INTERVAL;
        assert!(memory.told(Err(Failure::Refused(String::new())), now));
        assert_eq!(memory.known(), &known(), "a failure keeps the known facts");
        assert_eq!([step(&mut memory, now), step(&mut memory, now + INTERVAL / 10)], ["go on", "ask"]);
        assert!(!memory.told(Err(Failure::Status(404)), now), "only the first failure is reported");
        assert_eq!([step(&mut memory, now + INTERVAL), step(&mut memory, now + AGE_MAX)], ["go on", "later"]);
        assert_eq!(step(&mut memory, now + AGE_MAX), "go on", "nobody waits for it");
        memory.told(Err(Failure::Status(404)), now + AGE_MAX);
        for sign in [DiscoveryMemory::notice_refused, DiscoveryMemory::contradict] {
            memory.told(Err(Failure::Status(404)), now + AGE_MAX);
            assert_eq!(step(&mut memory, now + AGE_MAX), "go on");
            sign(&mut memory);
            assert_eq!(step(&mut memory, now + AGE_MAX), "ask", "the server may have one now");
        }
    }

    #[test]
    fn another_listing_is_another_generation() {
        let vllm = r#"{"id":"m","owned_by":"vllm","root":"/models/a","max_model_len":8192,"created":1,"permission":[{"id":"x"}]}"#;
        for (before, after, is_other) in [
            (
                vllm.to_owned(),
                vllm.replace("\"created\":1", "\"created\":2").replace("\"x\"", "\"y\""),
                false,
            ),
            (vllm.to_owned(), vllm.replace("8192", "16384"), true),
            (vllm.to_owned(), vllm.replace("/models/a", "/models/b"), true),
            (vllm.to_owned(), vllm.replace("vllm", "sglang"), true),
            (vllm.to_owned(), format!(r#"{vllm},{{"id":"n"}}"#), true),
            (
                r#"{"id":"m","owned_by":"library","created":1}"#.into(),
                r#"{"id":"m","owned_by":"library","created":2}"#.into(),
                true,
            ),
        ] {
            let now = Instant::now();
            let mut memory = DiscoveryMemory::new(&Settings::default());
            memory.told(Ok(listing(&before, "")), now);
            assert_eq!(memory.generation(), 0, "the first listing is nothing new");
            memory.told(Err(Failure::Status(500)), now);
            memory.told(Ok(listing(&after, "")), now);
            assert_eq!(memory.generation(), u64::from(is_other), "{before} {after}");
        }
        let seeing = r#","models":[{"name":"m","capabilities":["completion","multimodal"]}]"#;
        let mut memory = DiscoveryMemory::new(&Settings::default());
        memory.told(Ok(listing(vllm, "")), Instant::now());
        memory.told(Ok(listing(vllm, seeing)), Instant::now());
        assert_eq!(memory.generation(), 1);
    }

    #[test]
    fn a_restart_is_noticed_by_a_refused_connection_or_one_that_was_closed_early() {
        let mut memory = DiscoveryMemory::new(&Settings::default());
        memory.notice_refused();
        assert_eq!(memory.generation(), 1);
        // Before a connection was reused, this proves nothing: perhaps the server closes every connection early.
        memory.notice_closed(Duration::ZERO);
        assert_eq!(memory.generation(), 1);
        memory.notice_answer(true);
        // The usual time has passed, so this was not early.
        memory.notice_closed(KEEP_ALIVE_MIN);
        assert_eq!(memory.generation(), 1);
        memory.notice_closed(Duration::ZERO);
        assert_eq!(memory.generation(), 2);
        assert!(memory.is_stale());
    }

    #[test]
    fn an_upstream_is_watched_without_requests() {
        let wake = || Wake::new().ok().map(Arc::new);
        let mut now = Instant::now();
        let mut memory = DiscoveryMemory::new(&Settings::default());
        assert_eq!(memory.availability(), Availability::Unasked);
        assert!(memory.watch(now, wake).is_some());
        assert!(memory.watch(now, wake).is_none(), "one question at a time");
        memory.told(Ok(known()), now);
        assert_eq!(memory.availability(), Availability::Up);
        assert!(memory.watch(now + WATCHED_EVERY / 2, wake).is_none());
        now += WATCHED_EVERY;
        assert!(memory.watch(now, wake).is_some());
        for pause_s in [1, 2, 4, 8, 16, 30, 30] {
            memory.told(Err(Failure::Refused(String::new())), now);
            assert_eq!(memory.availability(), Availability::Down);
            let pause = Duration::from_secs(pause_s);
            assert!(memory.watch(now + pause - Duration::from_millis(1), wake).is_none(), "{pause_s}");
            now += pause;
            assert!(memory.watch(now, wake).is_some(), "{pause_s}");
        }
        memory.told(Err(Failure::Status(404)), now);
        assert_eq!(memory.availability(), Availability::Up, "it answers, though not with a listing");
        assert_eq!(memory.last_question().1, QuestionEnd::Answered);
        memory.told(Err(Failure::Timeout("before the first byte")), now);
        assert_eq!(memory.availability(), Availability::Up, "it may be busy");
        assert_eq!(memory.last_question().1, QuestionEnd::Mute);
        memory.told(Err(Failure::Status(404)), now);
        memory.notice_refused();
        assert_eq!(memory.availability(), Availability::Down);
        assert!(memory.watch(now, wake).is_some(), "a sign of another server is followed at once");
        memory.told(Ok(known()), now);
        assert_eq!(memory.availability(), Availability::Up);
        assert!(memory.watch(now + WATCHED_EVERY / 2, wake).is_none());
    }
}
