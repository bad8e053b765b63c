//! `GET /models` -> the server kind, its models and their context windows.
//!
//! Parses the models listings of the OpenAI-compatible servers; knows nothing of sockets. `call` decides when to ask.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::dialect::ServerKind;
use crate::json::{self, Value};
use crate::settings::Settings;
use crate::transport::Watcher;

/// After this long without any answer, another server may run at the address, and no lost connection need have shown
/// it. So the server is asked for its models before the next request.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The shortest time for which servers keep an idle connection, less a margin for clocks: uvicorn (vLLM, SGLang) and
/// llama.cpp close theirs after 5 s. A connection that closes earlier was closed because the server ended.
const KEEP_ALIVE_MIN: Duration = Duration::from_millis(4_500);

/// The facts that are known about an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// The server kind; the owner's setting overrides the one that the server reports.
    pub flavour: ServerKind,
    /// Its models in the order of its listing; empty until the listing was fetched.
    pub models: Vec<Model>,
    /// The context window that the owner set; it also holds for models that are not listed.
    window: Option<u64>,
    /// A hash of everything in the listing that stays the same while the server runs. A different hash means another
    /// server, other models, or another configuration of them.
    identity: u64,
}

/// One model that an upstream serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name that requests use for it.
    pub id: String,
    /// Its context window in tokens; `None` if neither the owner set it nor the server reports it.
    pub window: Option<u64>,
}

impl Discovered {
    /// The facts that are known before the listing was fetched.
    pub(super) fn unasked(settings: &Settings) -> Self {
        Discovered {
            flavour: settings.flavour.unwrap_or_default(),
            models: Vec::new(),
            window: settings.window,
            identity: 0,
        }
    }

    /// Parses the models listing. `server` is the response's `server` header.
    pub(super) fn parse(body: &mut [u8], server: Option<&str>, settings: &Settings) -> Result<Self, String> {
        let listing =
            json::parse(body).map_err(|error| format!("the models listing is not valid JSON: {error}"))?;
        let data = listing.get("data").and_then(Value::as_array);
        let data = data.ok_or("the models listing has no array `data`")?;
        let models = data.iter().filter_map(|entry| {
            let id = entry.get("id")?.as_str()?.to_owned();
            Some(Model { id, window: settings.window.or_else(|| window(entry)) })
        });
        Ok(Discovered {
            flavour: settings.flavour.unwrap_or_else(|| flavour(data, server)),
            models: models.collect(),
            window: settings.window,
            identity: identity(&listing, data, server),
        })
    }

    /// The context window of `model` in tokens, if it is known. An upstream with a single model (llama.cpp) answers
    /// with that model whatever name is requested, so the window of that model applies.
    pub fn window(&self, model: &str) -> Option<u64> {
        let listed = self.models.iter().find(|listed| listed.id == model);
        match (listed, self.models.as_slice()) {
            (Some(listed), _) => listed.window,
            (None, [only]) => only.window,
            (None, _) => self.window,
        }
    }
}

/// `max_model_len` (vLLM, SGLang) or `meta.n_ctx` (llama.cpp, per slot). Ollama and LM Studio do not report it.
fn window(entry: &Value<'_>) -> Option<u64> {
    let told = entry.get("max_model_len").or_else(|| entry.get("meta")?.get("n_ctx"));
    told.and_then(Value::as_u64).filter(|&tokens| tokens > 0)
}

/// The members of a listed model that stay the same while the server runs. `created` is not among them: vLLM and
/// llama.cpp set it to the time of the request; only Ollama's is the time of the model. vLLM's `permission` has a new
/// id each time.
const LASTING_KEYS: [&str; 6] = ["id", "owned_by", "root", "parent", "max_model_len", "meta"];

/// The hash of the lasting parts of a listing. llama.cpp also lists the abilities of its models, in `models` beside
/// `data`.
fn identity(listing: &Value<'_>, data: &[Value<'_>], server: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    server.hash(&mut hasher);
    let mut add = |value: Option<&Value<'_>>| value.map(Value::to_json).hash(&mut hasher);
    for entry in data {
        LASTING_KEYS.iter().for_each(|key| add(entry.get(key)));
        let kind = entry.get("owned_by").and_then(Value::as_str).map(ServerKind::from_owned_by);
        if kind.is_some_and(|kind| kind.dialect().lists_creation) {
            add(entry.get("created"));
        }
    }
    for model in listing.get("models").and_then(Value::as_array).unwrap_or_default() {
        add(model.get("name"));
        add(model.get("capabilities"));
    }
    hasher.finish()
}

fn flavour(data: &[Value<'_>], server: Option<&str>) -> ServerKind {
    let owners = data.iter().filter_map(|entry| entry.get("owned_by")?.as_str());
    match owners.map(ServerKind::from_owned_by).find(|&flavour| flavour != ServerKind::Unknown) {
        Some(flavour) => flavour,
        None => server.map_or(ServerKind::Unknown, ServerKind::from_server_header),
    }
}

/// The last known [`Discovered`] and whether to ask again; shared by all threads.
#[derive(Debug)]
pub(super) struct DiscoveryMemory {
    state: Mutex<DiscoveryState>,
    /// Held by the one thread that asks the server.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct DiscoveryState {
    known: Arc<Discovered>,
    stale: bool,
    asked: Option<Instant>,
    /// The time of the server's last answer of any kind.
    heard: Option<Instant>,
    /// True once the server has answered two requests on one connection.
    keeps_alive: bool,
    /// The number of times that another server was noticed.
    generation: u64,
}

impl Watcher for DiscoveryMemory {
    fn answered(&self, is_reused: bool) {
        self.heard(is_reused);
    }

    fn refused(&self) {
        self.mark_restarted();
    }

    fn lost(&self) {
        self.mark_stale();
    }

    fn closed(&self, idle_for: Duration) {
        self.notice_closed(idle_for);
    }
}

impl DiscoveryMemory {
    /// The memory before the first request to the server.
    pub(super) fn new(settings: &Settings) -> Self {
        let known = Arc::new(Discovered::unasked(settings));
        let state = DiscoveryState {
            known,
            stale: true,
            asked: None,
            heard: None,
            keeps_alive: false,
            generation: 0,
        };
        DiscoveryMemory { state: Mutex::new(state), turn: Mutex::new(()) }
    }

    /// The facts that were discovered last.
    pub(super) fn known(&self) -> Arc<Discovered> {
        Arc::clone(&self.state().known)
    }

    /// True if these facts may be wrong by now.
    pub(super) fn is_stale(&self) -> bool {
        self.state().stale
    }

    /// Marks these facts as possibly wrong.
    pub(super) fn mark_stale(&self) {
        self.state().stale = true;
    }

    /// The number of the server that runs now; a restart or another listing raises it.
    pub(super) fn generation(&self) -> u64 {
        self.state().generation
    }

    /// Notes that the server has answered, on a connection that it had kept (`is_reused`) or on a new one.
    fn heard(&self, is_reused: bool) {
        let mut state = self.state();
        state.heard = Some(Instant::now());
        state.keeps_alive |= is_reused;
    }

    /// Notes that no connection could be made: whatever server answers next was started anew.
    fn mark_restarted(&self) {
        let mut state = self.state();
        state.stale = true;
        state.generation += 1;
        state.keeps_alive = false;
    }

    /// Notes that the server closed a connection that had been idle for this time. The server may have been restarted,
    /// so it is asked again at once. It certainly was restarted if it keeps connections, but did not keep this one for
    /// the usual time.
    pub(super) fn notice_closed(&self, idle_for: Duration) {
        let mut state = self.state();
        state.stale = true;
        state.asked = None;
        if state.keeps_alive && idle_for < KEEP_ALIVE_MIN {
            state.generation += 1;
            state.keeps_alive = false;
        }
    }

    /// Notes that the server was asked, and the facts that it reported; `None`: it failed to report them.
    pub(super) fn told(&self, discovered: Option<&Arc<Discovered>>) {
        let mut state = self.state();
        state.asked = Some(Instant::now());
        state.stale = discovered.is_none();
        if let Some(discovered) = discovered {
            if state.known.identity != discovered.identity && state.known.identity != 0 {
                state.generation += 1;
            }
            state.known = Arc::clone(discovered);
        }
    }

    /// Calls `ask` if it is due and the last attempt is at least `interval` ago. If nothing is known, a tenth of
    /// `interval` is enough, because until the server has answered, requests may name a wrong model. While another
    /// thread asks, this thread goes on with the known facts; if there are none, it waits for the other thread's
    /// answer.
    pub(super) fn ask_if_due(&self, interval: Duration, ask: impl FnOnce()) {
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) if self.knows_nothing() => {
                self.turn.lock().unwrap_or_else(PoisonError::into_inner)
            }
            Err(TryLockError::WouldBlock) => return,
        };
        let due = {
            let state = self.state();
            let interval = if state.known.models.is_empty() { interval / 10 } else { interval };
            let is_unheard = state.heard.is_some_and(|at| at.elapsed() >= SILENCE_MAX);
            (state.stale || is_unheard) && state.asked.is_none_or(|at| at.elapsed() >= interval)
        };
        if due {
            ask();
        }
    }

    fn knows_nothing(&self) -> bool {
        let state = self.state();
        state.stale && state.known.models.is_empty()
    }

    /// Ignores that another thread panicked: every change is one assignment, so the state cannot be half written.
    fn state(&self) -> MutexGuard<'_, DiscoveryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, server: Option<&str>, settings: &Settings) -> Result<Discovered, String> {
        Discovered::parse(&mut text.as_bytes().to_vec(), server, settings)
    }

    #[test]
    fn flavours_are_told_apart() {
        for (owner, server, expected) in [
            ("vllm", None, ServerKind::Vllm),
            ("sglang", None, ServerKind::Sglang),
            ("llamacpp", None, ServerKind::LlamaCpp),
            ("library", None, ServerKind::Ollama),
            ("organization_owner", None, ServerKind::LmStudio),
            ("me", Some("llama.cpp"), ServerKind::LlamaCpp),
            ("vllm", Some("llama.cpp"), ServerKind::Vllm),
            ("me", Some("uvicorn"), ServerKind::Unknown),
        ] {
            let text = format!(r#"{{"data":[{{"id":"m","owned_by":"{owner}"}}]}}"#);
            assert_eq!(parse(&text, server, &Settings::default()).unwrap().flavour, expected, "{owner}");
        }
    }

    #[test]
    fn windows_come_from_the_server_or_the_owner() {
        let text = r#"{"data":[{"id":"a","max_model_len":8192},{"id":"b","meta":{"n_ctx":4096}},{"id":"c"},
            {"id":"d","max_model_len":0},{"id":"e","meta":null}]}"#;
        let told = parse(text, None, &Settings::default()).unwrap();
        let windows: Vec<_> = told.models.iter().map(|model| model.window).collect();
        assert_eq!(windows, [Some(8192), Some(4096), None, None, None]);
        assert_eq!(told.window("b"), Some(4096));
        assert_eq!(told.window("other"), None);

        let settings =
            Settings { window: Some(1000), flavour: Some(ServerKind::Ollama), ..Settings::default() };
        let set = parse(text, None, &settings).unwrap();
        assert_eq!(
            (set.window("a"), set.window("other"), set.flavour),
            (Some(1000), Some(1000), ServerKind::Ollama)
        );
        assert_eq!(Discovered::unasked(&settings).window("a"), Some(1000));
    }

    #[test]
    fn a_single_model_answers_to_every_name() {
        let text = r#"{"data":[{"id":"a","max_model_len":8192}]}"#;
        assert_eq!(parse(text, None, &Settings::default()).unwrap().window("b"), Some(8192));
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        for text in ["", "{}", "[]", "<html>", r#"{"data":{}}"#, r#"{"models":[]}"#] {
            assert!(parse(text, None, &Settings::default()).is_err(), "{text}");
        }
        let odd = parse(r#"{"data":[1,{},{"id":2},{"id":"x"}]}"#, None, &Settings::default()).unwrap();
        assert_eq!(odd.models.len(), 1);
    }

    fn known() -> Arc<Discovered> {
        Arc::new(parse(r#"{"data":[{"id":"a"}]}"#, None, &Settings::default()).unwrap())
    }

    #[test]
    fn asked_once_per_interval_and_by_one_thread() {
        let memory = DiscoveryMemory::new(&Settings::default());
        let mut asked = 0;
        memory.ask_if_due(Duration::MAX, || {
            asked += 1;
            memory.told(None);
        });
        memory.ask_if_due(Duration::MAX, || panic!("too soon"));
        memory.ask_if_due(Duration::ZERO, || {
            asked += 1;
            memory.told(Some(&known()));
        });
        memory.ask_if_due(Duration::ZERO, || panic!("not stale"));
        memory.mark_stale();
        memory.ask_if_due(Duration::ZERO, || {
            asked += 1;
            memory.ask_if_due(Duration::ZERO, || panic!("one is at it"));
        });
        assert_eq!(asked, 3);
    }

    #[test]
    fn another_listing_is_another_generation() {
        let listing = |entry: &str, rest: &str| {
            Arc::new(parse(&format!(r#"{{"data":[{entry}]{rest}}}"#), None, &Settings::default()).unwrap())
        };
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
            let memory = DiscoveryMemory::new(&Settings::default());
            memory.told(Some(&listing(&before, "")));
            assert_eq!(memory.generation(), 0, "the first listing is nothing new");
            memory.told(None);
            memory.told(Some(&listing(&after, "")));
            assert_eq!(memory.generation(), u64::from(is_other), "{before} {after}");
        }
        let seeing = r#","models":[{"name":"m","capabilities":["completion","multimodal"]}]"#;
        let memory = DiscoveryMemory::new(&Settings::default());
        memory.told(Some(&listing(vllm, "")));
        memory.told(Some(&listing(vllm, seeing)));
        assert_eq!(memory.generation(), 1);
    }

    #[test]
    fn a_restart_is_noticed_by_a_refused_connection_or_one_that_was_closed_early() {
        let memory = DiscoveryMemory::new(&Settings::default());
        memory.mark_restarted();
        assert_eq!(memory.generation(), 1);
        // Before a connection was reused, this proves nothing: perhaps the server closes every connection early.
        memory.notice_closed(Duration::ZERO);
        assert_eq!(memory.generation(), 1);
        memory.heard(true);
        // The usual time has passed, so this was not early.
        memory.notice_closed(KEEP_ALIVE_MIN);
        assert_eq!(memory.generation(), 1);
        memory.notice_closed(Duration::ZERO);
        assert_eq!(memory.generation(), 2);
        assert!(memory.is_stale());
    }

    #[test]
    fn where_nothing_is_known_others_wait_for_the_answer() {
        let memory = DiscoveryMemory::new(&Settings::default());
        let (began, has_begun) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let memory = &memory;
            scope.spawn(move || {
                memory.ask_if_due(Duration::MAX, || {
                    began.send(()).unwrap();
                    // Gives the other thread time to arrive at the lock.
                    std::thread::yield_now();
                    memory.told(Some(&known()));
                });
            });
            has_begun.recv().unwrap();
            memory.ask_if_due(Duration::MAX, || panic!("asked twice"));
            assert_eq!(memory.known().models.len(), 1);
        });
    }
}
