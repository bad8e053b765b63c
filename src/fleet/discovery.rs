//! `GET /models` -> which server it is, what it serves and how much context each model has.
//!
//! Knows the models listings of the OpenAI-compatible servers; knows no socket. When to ask is `call`'s.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::dialect::ServerKind as Flavour;
use crate::json::{self, Value};
use crate::settings::Settings;
use crate::transport::Watcher;

/// A server that has answered nothing for this time may be another one by now, without any connection to notice it by: it
/// is asked what it serves before the next request.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The shortest time for which servers keep an idle connection, with something for clocks: uvicorn (vLLM, SGLang) and
/// llama.cpp close theirs after 5 s. One that is closed earlier was closed by the server's end.
const KEEP_ALIVE_MIN: Duration = Duration::from_millis(4_500);

/// What is known of an upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Which server it is; the owner's setting goes before what the server tells.
    pub flavour: Flavour,
    /// Its models in the order it lists them; empty until it was asked.
    pub models: Vec<Model>,
    /// The context window that the owner set, for models that are not listed as well.
    window: Option<u64>,
    /// A hash of all that the listing tells and that stays the same while the server runs: another one is another server,
    /// another set of models, or another configuration of them.
    identity: u64,
}

/// One model that an upstream serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name to ask for it by.
    pub id: String,
    /// Its context window in tokens, where the owner set or the server tells it.
    pub window: Option<u64>,
}

impl Discovered {
    /// What is known before the upstream was asked.
    pub(super) fn unasked(settings: &Settings) -> Self {
        Discovered {
            flavour: settings.flavour.unwrap_or_default(),
            models: Vec::new(),
            window: settings.window,
            identity: 0,
        }
    }

    /// What the server tells. `server` is the response's header.
    pub(super) fn parse(body: &mut [u8], server: Option<&str>, settings: &Settings) -> Result<Self, String> {
        let listing = json::parse(body).map_err(|error| format!("the models listing is no JSON: {error}"))?;
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

    /// The context window of `model` in tokens, where it is known. Where the upstream serves a single model it
    /// answers with that one whatever the name (llama.cpp), so its window holds.
    pub fn window(&self, model: &str) -> Option<u64> {
        let listed = self.models.iter().find(|listed| listed.id == model);
        match (listed, self.models.as_slice()) {
            (Some(listed), _) => listed.window,
            (None, [only]) => only.window,
            (None, _) => self.window,
        }
    }
}

/// `max_model_len` (vLLM, SGLang) or `meta.n_ctx` (llama.cpp, per slot). Ollama and LM Studio do not tell.
fn window(entry: &Value<'_>) -> Option<u64> {
    let told = entry.get("max_model_len").or_else(|| entry.get("meta")?.get("n_ctx"));
    told.and_then(Value::as_u64).filter(|&tokens| tokens > 0)
}

/// What a server tells of a model that stays the same while the server runs. `created` is the time of the question at vLLM
/// and llama.cpp, and vLLM's `permission` has a new id each time; only Ollama's `created` is the model's.
const LASTING_KEYS: [&str; 6] = ["id", "owned_by", "root", "parent", "max_model_len", "meta"];

/// The hash of what lasts in a listing. llama.cpp tells beside `data` what its models can do (`models`).
fn identity(listing: &Value<'_>, data: &[Value<'_>], server: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    server.hash(&mut hasher);
    let mut add = |value: Option<&Value<'_>>| value.map(Value::to_json).hash(&mut hasher);
    for entry in data {
        LASTING_KEYS.iter().for_each(|key| add(entry.get(key)));
        if entry.get("owned_by").and_then(Value::as_str).map(Flavour::from_owned_by) == Some(Flavour::Ollama)
        {
            add(entry.get("created"));
        }
    }
    for model in listing.get("models").and_then(Value::as_array).unwrap_or_default() {
        add(model.get("name"));
        add(model.get("capabilities"));
    }
    hasher.finish()
}

fn flavour(data: &[Value<'_>], server: Option<&str>) -> Flavour {
    let owners = data.iter().filter_map(|entry| entry.get("owned_by")?.as_str());
    match owners.map(Flavour::from_owned_by).find(|&flavour| flavour != Flavour::Unknown) {
        Some(flavour) => flavour,
        None => server.map_or(Flavour::Unknown, Flavour::from_server_header),
    }
}

/// The last known [`Discovered`] and whether to ask again; shared by all threads.
#[derive(Debug)]
pub(super) struct Memory {
    state: Mutex<State>,
    /// Held by the one thread that asks.
    turn: Mutex<()>,
}

#[derive(Debug)]
struct State {
    known: Arc<Discovered>,
    stale: bool,
    asked: Option<Instant>,
    /// When the server last answered anything.
    heard: Option<Instant>,
    /// Whether it has ever served two requests on one connection.
    keeps_alive: bool,
    /// How often another server was noticed.
    generation: u64,
}

impl Watcher for Memory {
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

impl Memory {
    /// Nothing was asked yet.
    pub(super) fn new(settings: &Settings) -> Self {
        let known = Arc::new(Discovered::unasked(settings));
        let state = State { known, stale: true, asked: None, heard: None, keeps_alive: false, generation: 0 };
        Memory { state: Mutex::new(state), turn: Mutex::new(()) }
    }

    /// The last known.
    pub(super) fn known(&self) -> Arc<Discovered> {
        Arc::clone(&self.state().known)
    }

    /// Whether it may be wrong by now.
    pub(super) fn is_stale(&self) -> bool {
        self.state().stale
    }

    /// It may be wrong by now.
    pub(super) fn mark_stale(&self) {
        self.state().stale = true;
    }

    /// Which server is there.
    pub(super) fn generation(&self) -> u64 {
        self.state().generation
    }

    /// The server has answered something, on a connection that it had kept (`is_reused`) or on a new one.
    fn heard(&self, is_reused: bool) {
        let mut state = self.state();
        state.heard = Some(Instant::now());
        state.keeps_alive |= is_reused;
    }

    /// The server was not there: when it is there again, it was started anew.
    fn mark_restarted(&self) {
        let mut state = self.state();
        state.stale = true;
        state.generation += 1;
        state.keeps_alive = false;
    }

    /// A connection that had been idle for this time was closed by the server. It may have been started anew, so that it
    /// is asked again, at once. It was, if it keeps connections and did not keep this one for the usual time.
    pub(super) fn notice_closed(&self, idle_for: Duration) {
        let mut state = self.state();
        state.stale = true;
        state.asked = None;
        if state.keeps_alive && idle_for < KEEP_ALIVE_MIN {
            state.generation += 1;
            state.keeps_alive = false;
        }
    }

    /// The upstream was asked: what it told, or none.
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

    /// Does `ask` if it is due and the last attempt is `interval` ago, or a tenth of it where nothing is known: as soon as
    /// the upstream is there it must be asked, as a guess would ask for a wrong model. While another thread is at it, this one goes on
    /// with what is known; where that is nothing, it waits for the other's answer, as a guess would ask for a wrong model.
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

    /// A panic elsewhere cannot leave the state half written: every change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
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
            ("vllm", None, Flavour::Vllm),
            ("sglang", None, Flavour::Sglang),
            ("llamacpp", None, Flavour::LlamaCpp),
            ("library", None, Flavour::Ollama),
            ("organization_owner", None, Flavour::LmStudio),
            ("me", Some("llama.cpp"), Flavour::LlamaCpp),
            ("vllm", Some("llama.cpp"), Flavour::Vllm),
            ("me", Some("uvicorn"), Flavour::Unknown),
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

        let settings = Settings { window: Some(1000), flavour: Some(Flavour::Ollama), ..Settings::default() };
        let set = parse(text, None, &settings).unwrap();
        assert_eq!(
            (set.window("a"), set.window("other"), set.flavour),
            (Some(1000), Some(1000), Flavour::Ollama)
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
        let memory = Memory::new(&Settings::default());
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
            let memory = Memory::new(&Settings::default());
            memory.told(Some(&listing(&before, "")));
            assert_eq!(memory.generation(), 0, "the first listing is nothing new");
            memory.told(None);
            memory.told(Some(&listing(&after, "")));
            assert_eq!(memory.generation(), u64::from(is_other), "{before} {after}");
        }
        let seeing = r#","models":[{"name":"m","capabilities":["completion","multimodal"]}]"#;
        let memory = Memory::new(&Settings::default());
        memory.told(Some(&listing(vllm, "")));
        memory.told(Some(&listing(vllm, seeing)));
        assert_eq!(memory.generation(), 1);
    }

    #[test]
    fn a_restart_is_noticed_by_a_refused_connection_or_one_that_was_closed_early() {
        let memory = Memory::new(&Settings::default());
        memory.mark_restarted();
        assert_eq!(memory.generation(), 1);
        // Perhaps it closes every connection early.
        memory.notice_closed(Duration::ZERO);
        assert_eq!(memory.generation(), 1);
        memory.heard(true);
        // The usual time has passed.
        memory.notice_closed(KEEP_ALIVE_MIN);
        assert_eq!(memory.generation(), 1);
        memory.notice_closed(Duration::ZERO);
        assert_eq!(memory.generation(), 2);
        assert!(memory.is_stale());
    }

    #[test]
    fn where_nothing_is_known_others_wait_for_the_answer() {
        let memory = Memory::new(&Settings::default());
        let (began, has_begun) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let memory = &memory;
            scope.spawn(move || {
                memory.ask_if_due(Duration::MAX, || {
                    began.send(()).unwrap();
                    // The other one is on its way here by now, or soon.
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
