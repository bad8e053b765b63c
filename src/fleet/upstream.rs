//! One upstream: its address, and the facts that its server reports.

use std::fmt;
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::details::{self, DetailPage, Details};
use super::discovery::Discovered;
use super::memory::{Availability, DiscoveryMemory, NextStep, QuestionEnd};
use crate::config::{self, UpstreamProtocol};
use crate::dialect::ServerKind;
use crate::openai::UpstreamError;
use crate::threads;
use crate::transport::{
    self, CallLimits, Endpoint, ExtraHeaders, Failure, Path, QuestionLimits, Response, Wait, Watcher,
    wait_for,
};
use crate::wake::Wake;

/// The most bytes of a models listing that are read.
const LISTING_SIZE_MAX: usize = 4 * 1024 * 1024;

/// How long a request waits for new facts if older ones are known. A server that runs lists its models within
/// milliseconds; a request with the wrong model's name is repaired.
const RENEWAL_MAX: Duration = Duration::from_secs(2);

/// The questions that one request waits for: one that was running already, and one that it began.
const QUESTIONS_AWAITED_MAX: usize = 2;

/// How long the further pages about models may take, all together: a server that has them answers within milliseconds.
const DETAILS_MAX: Duration = Duration::from_secs(2);

/// The most bytes of a further page that are read: Ollama's page about one model has its licence and its template.
const DETAIL_SIZE_MAX: usize = 1024 * 1024;

/// The most models whose definitions are asked for, once for each listing.
const DEFINITIONS_MAX: usize = 16;

/// The number of models that a log line names at most.
const NAMED_MAX: usize = 20;

/// One upstream, shared by all threads. A clone is the same upstream.
#[derive(Clone)]
pub struct Upstream {
    config: Arc<config::UpstreamConfig>,
    endpoint: Arc<Endpoint>,
    memory: Arc<SharedMemory>,
}

/// The memory, which the calls also keep up to date.
struct SharedMemory(Mutex<DiscoveryMemory>);

impl SharedMemory {
    /// Ignores that another thread panicked: no code can panic while it changes the memory.
    fn lock(&self) -> MutexGuard<'_, DiscoveryMemory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher for SharedMemory {
    fn answered(&self, is_reused: bool) {
        self.lock().notice_answer(is_reused);
    }

    fn refused(&self) {
        self.lock().notice_refused();
    }

    fn lost(&self) {
        self.lock().notice_lost();
    }

    fn closed(&self, idle_for: Duration) {
        self.lock().notice_closed(idle_for);
    }
}

impl Upstream {
    /// An upstream as configured; no connection is made yet.
    ///
    /// # Errors
    /// Those of [`Endpoint::new`].
    pub fn new(config: config::UpstreamConfig, options: &CallLimits) -> Result<Self, String> {
        let memory = Arc::new(SharedMemory(Mutex::new(DiscoveryMemory::new(&config.settings))));
        let watcher: Arc<dyn Watcher> = memory.clone();
        let endpoint = Arc::new(Endpoint::new(&config, options)?.watched_by(watcher));
        if config.protocol == UpstreamProtocol::Messages {
            // It is never asked for its models, so nothing ever waits for the answer.
            let unasked = Discovered::unasked(&config.settings);
            memory.lock().told(Ok(Arc::new(unasked)), Instant::now());
        }
        Ok(Upstream { config: Arc::new(config), endpoint, memory })
    }

    /// The same upstream, used in another way: see [`config::UpstreamConfig::has_same_server`].
    pub(super) fn with_config(&self, config: config::UpstreamConfig) -> Self {
        Upstream { config: Arc::new(config), ..self.clone() }
    }

    /// Its configured name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its configuration.
    pub fn config(&self) -> &config::UpstreamConfig {
        &self.config
    }

    /// True if it speaks the Messages API itself. Such an upstream is asked nothing but the requests of clients: it may be a
    /// server on the internet, which is not to hear from sparkgap before a client wants it.
    pub fn speaks_messages(&self) -> bool {
        self.config.protocol == UpstreamProtocol::Messages
    }

    /// Its address, for calls that show nothing about the state of the server.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends JSON by [`Endpoint::post`]. A lost connection may mean a restart, so the models are then asked for again.
    ///
    /// # Errors
    /// Those of [`Endpoint::post`].
    pub fn post(&self, path: Path<'_>, body: &[u8], wait: &Rc<dyn Wait>) -> Result<Response, Failure> {
        self.noted(self.endpoint.post(path, body, wait))
    }

    /// Sends a body by [`Endpoint::post_with`].
    ///
    /// # Errors
    /// Those of [`Endpoint::post`].
    pub fn post_with(
        &self,
        path: Path<'_>,
        extra: &ExtraHeaders,
        body: (&str, &[u8]),
        wait: &Rc<dyn Wait>,
    ) -> Result<Response, Failure> {
        self.noted(self.endpoint.post_with(path, extra, body, wait))
    }

    /// Sends a question that needs no model, by [`Endpoint::ask`].
    ///
    /// # Errors
    /// Those of [`Endpoint::post`].
    pub fn ask(&self, path: Path<'_>, body: &[u8], wait: &Rc<dyn Wait>) -> Result<Response, Failure> {
        self.noted(self.endpoint.ask(path, body, wait))
    }

    fn noted(&self, result: Result<Response, Failure>) -> Result<Response, Failure> {
        if result.as_ref().is_err_and(Failure::is_connection_lost) {
            self.mark_stale();
        }
        result
    }

    /// Hides the key of this upstream in an error that it has sent.
    pub fn hide_keys(&self, failure: &mut UpstreamError) {
        failure.edit_words(|words| self.endpoint.hide_keys(words));
    }

    /// The facts that were discovered last. This is cheap: nothing is asked.
    pub fn discovered(&self) -> Arc<Discovered> {
        Arc::clone(self.memory.lock().known())
    }

    /// The kind of its server: the owner's word, otherwise the discovered one.
    pub(super) fn kind(&self) -> ServerKind {
        self.config.settings.flavour.unwrap_or_else(|| self.discovered().flavour)
    }

    /// Has the facts asked for again, because something suggests that they may be wrong.
    pub fn mark_stale(&self) {
        self.memory.lock().mark_stale();
    }

    /// Has the facts asked for again at once, because the server has answered in a way that contradicts them: with a
    /// 404 for a model that it listed.
    pub fn contradict(&self) {
        self.memory.lock().contradict();
    }

    /// True if the discovered facts may be wrong by now: the server has never answered, or a call has failed since.
    pub fn is_stale(&self) -> bool {
        !self.speaks_messages() && self.memory.lock().is_stale()
    }

    /// The state of the server by the last question. The questions of [`Upstream::keep_current`] keep it current.
    pub fn availability(&self) -> Availability {
        self.memory.lock().availability()
    }

    /// The number of questions that have ended, and whether the last one reached the server.
    pub(super) fn last_question(&self) -> (u64, QuestionEnd) {
        self.memory.lock().last_question()
    }

    /// Has the facts asked for in the background if that is due without any request.
    pub(super) fn keep_current(&self) {
        if self.speaks_messages() {
            return;
        }
        let wake = || Wake::new().ok().map(Arc::new);
        // Not in the `if`, which would hold the lock while the thread is started.
        let end = self.memory.lock().watch(Instant::now(), wake);
        if let Some(end) = end {
            self.ask_in_background(&end);
        }
    }

    /// True if no question for the facts has ended yet.
    pub(super) fn is_unasked(&self) -> bool {
        self.memory.lock().is_unasked()
    }

    /// The failure of the last question, if it failed. A first question that has not ended yet counts as one that takes
    /// too long: its caller has waited for it.
    pub fn failure(&self) -> Option<Failure> {
        let memory = self.memory.lock();
        let is_late = memory.is_unasked().then_some(Failure::Timeout("before the end of the answer"));
        memory.failure().cloned().or(is_late)
    }

    /// The number of the server that runs now; it changes with a restart and with another listing. Facts about an
    /// earlier server do not hold for this one.
    pub fn generation(&self) -> u64 {
        self.memory.lock().generation()
    }

    /// Checks whether the server has closed the kept connections, which makes the facts stale.
    pub fn notice_closed(&self) {
        self.endpoint.notice_closed();
    }

    /// Has the facts asked for in the background if that is due. Returns the end of the question if a request should
    /// wait for it: nothing is known, or the facts may be wrong.
    pub(super) fn renew(&self) -> Option<Arc<Wake>> {
        if self.speaks_messages() {
            return None;
        }
        let interval = self.endpoint.limits().discovery_interval;
        let wake = || Wake::new().ok().map(Arc::new);
        // Not in the `match`, which would hold the lock while the thread is started.
        let step = self.memory.lock().next_step(Instant::now(), interval, wake);
        match step {
            NextStep::GoOn => None,
            NextStep::Await(end) => Some(end),
            NextStep::Ask { end, waits } => {
                self.ask_in_background(&end);
                waits.then_some(end)
            }
        }
    }

    /// Asks in a thread of its own, which ends with the question, after the question's time limit at the latest.
    fn ask_in_background(&self, end: &Arc<Wake>) {
        let question = RunningQuestion { upstream: self.clone(), end: Arc::clone(end) };
        // A thread that cannot be started drops the question, which ends it as failed.
        let started = threads::background("discovery", move || {
            let upstream = &question.upstream;
            let result = upstream.list_models().map(Arc::new);
            upstream.log(&result, upstream.told(result.clone()));
        });
        if let Err(error) = started {
            log::warn!("upstream {}: no thread to ask for its models: {error}", self.name());
        }
    }

    /// Waits, together with its client, until the facts are as good as they can be had in short time. `began` is the
    /// time when the wait began, also for other upstreams. If asking fails or takes too long, the known facts stay.
    ///
    /// # Errors
    /// [`Failure::ClientGone`]. The question goes on, for others.
    pub(super) fn await_facts(&self, wait: &Rc<dyn Wait>, began: Instant) -> Result<(), Failure> {
        for _ in 0..QUESTIONS_AWAITED_MAX {
            let Some(end) = self.renew() else { return Ok(()) };
            let most = if self.is_unasked() { self.question_timeout() } else { RENEWAL_MAX };
            let left = most.saturating_sub(began.elapsed());
            wait.on_connecting(true);
            let waited = wait_for(wait.as_ref(), end.as_fd(), left);
            // A client that has left is logged with the phase in which it did.
            if waited != Err(Failure::ClientGone) {
                wait.on_connecting(false);
            }
            match waited {
                Ok(true) => {}
                Err(Failure::ClientGone) => return Err(Failure::ClientGone),
                Ok(false) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Has the facts asked for if that is due, and waits for them if they may be wrong.
    ///
    /// # Errors
    /// [`Failure::ClientGone`].
    pub fn refresh(&self, wait: &Rc<dyn Wait>) -> Result<(), Failure> {
        self.await_facts(wait, Instant::now())
    }

    /// Asks the upstream for its models, now, and waits for the answer. No client is watched. An upstream that speaks the
    /// Messages API is not asked.
    ///
    /// # Errors
    /// The server does not answer, or its response has a status other than 200 or is not a models listing.
    pub fn discover(&self) -> Result<Arc<Discovered>, Failure> {
        if self.speaks_messages() {
            return Ok(self.discovered());
        }
        let result = self.list_models().map(Arc::new);
        self.told(result.clone());
        result
    }

    fn told(&self, result: Result<Arc<Discovered>, Failure>) -> bool {
        self.memory.lock().told(result, Instant::now())
    }

    /// Logs the result of a question in the background: news for the operator, the rest for a search for faults.
    fn log(&self, result: &Result<Arc<Discovered>, Failure>, is_news: bool) {
        let name = self.name();
        match result {
            Ok(found) if is_news => {
                log::info!("upstream {name}: {}", description(found));
                if let Some(choice) = self.choice(found) {
                    log::info!("upstream {name}: {choice}");
                }
            }
            Ok(_) => {}
            Err(failure) if is_news => {
                log::warn!(
                    "upstream {name} did not answer: {failure}; it is asked again, at least every 30 s"
                );
            }
            Err(failure) => log::debug!("upstream {name}: discovery failed: {failure}"),
        }
    }

    /// The choice of the model for requests that name none of the listed ones, for the log; `None` if there was none to
    /// choose.
    fn choice(&self, found: &Discovered) -> Option<String> {
        let chosen = found.default_model().filter(|_| self.config.model.is_none())?;
        let others: Vec<&str> =
            found.candidates().map(|model| model.id.as_str()).filter(|name| *name != chosen.id).collect();
        let count = others.len();
        let more = if count > NAMED_MAX { ", …" } else { "" };
        let named = others.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
        (count > 0).then(|| {
            format!(
                "a request for a name that it does not list gets {} (it also has {named}{more}); model = \"NAME\" for this upstream in a Lua file, or an alias, chooses another one",
                chosen.id
            )
        })
    }

    /// The model to request if neither alias nor client names one: the configured one, otherwise the listing's default.
    pub fn model(&self) -> Option<String> {
        let configured = self.config.model.clone();
        configured.or_else(|| self.discovered().default_model().map(|model| model.id.clone()))
    }

    fn question_timeout(&self) -> Duration {
        self.endpoint.limits().discovery_timeout
    }

    fn list_models(&self) -> Result<Discovered, Failure> {
        let limits = QuestionLimits { time: self.question_timeout(), size: LISTING_SIZE_MAX };
        let mut page = self.endpoint.question(Path::Api("/models"), limits)?;
        if page.status != 200 {
            return Err(Failure::Status(page.status));
        }
        let parsed = Discovered::parse(&mut page.body, page.server.as_deref(), &self.config.settings);
        let mut found = parsed.map_err(Failure::Protocol)?;
        if let Some(page) = found.page() {
            self.add_details(&mut found, page);
        }
        Ok(found)
    }

    /// Adds what a further page says about the listed models. A server without that page leaves the facts as they are.
    fn add_details(&self, found: &mut Discovered, page: &DetailPage) {
        let began = Instant::now();
        let before = self.discovered();
        found.keep_from(&before);
        let limits = QuestionLimits { time: DETAILS_MAX.min(self.question_timeout()), size: DETAIL_SIZE_MAX };
        let answer = self.endpoint.question(page.path, limits).ok().filter(|answer| answer.status == 200);
        let Some(read) = answer.and_then(|mut answer| page.read(&mut answer.body)) else {
            // A page that failed once does not make known windows unknown.
            if found.lists_the_same_as(&before) {
                *found = (*before).clone();
            }
            return;
        };
        if let Some(kind) = page.kind.filter(|_| self.config.settings.flavour.is_none()) {
            found.flavour = kind;
        }
        match read {
            Details::Window(window) => found.add_to_all(window),
            Details::Models(models, lists_loaded) => found.add(&models, lists_loaded),
        }
        // The definitions stay the same for as long as the listing does, so they are asked for once.
        if page.kind == Some(ServerKind::Ollama) && !found.lists_the_same_as(&before) {
            for model in found.undefined(DEFINITIONS_MAX) {
                if began.elapsed() > DETAILS_MAX {
                    break;
                }
                let question = details::definition_question(&model);
                let asked =
                    self.endpoint.ask(details::DEFINITION_PATH, question.as_bytes(), &transport::nobody());
                let body = asked.ok().filter(|answer| answer.status == 200);
                let body = body.and_then(|answer| answer.read_all(DETAIL_SIZE_MAX).ok());
                let detail = body.and_then(|mut body| details::read_definition(&model, &mut body));
                found.add(detail.as_slice(), false);
            }
        }
        found.settle();
    }
}

/// A question in the background. If its thread ends without a result, it has failed, so that nobody waits for it.
struct RunningQuestion {
    upstream: Upstream,
    end: Arc<Wake>,
}

impl Drop for RunningQuestion {
    fn drop(&mut self) {
        let mut memory = self.upstream.memory.lock();
        if memory.is_running(&self.end) {
            memory.told(Err(Failure::Protocol("the question broke off".into())), Instant::now());
        }
    }
}

/// The server's kind and its models, for the log.
fn description(found: &Discovered) -> String {
    let named = found.models.iter().take(NAMED_MAX).map(|model| match model.window {
        Some(window) => format!("{} ({window} tokens)", model.id),
        None => model.id.clone(),
    });
    let names = named.collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        return format!("{}, lists no model", found.flavour.name());
    }
    let more = match found.models.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}, serves {names}{more}", found.flavour.name())
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.config.name).finish_non_exhaustive()
    }
}
