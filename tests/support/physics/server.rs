//! A box behind a real socket: an OpenAI-compatible server as vLLM is one, on a clock that may run fast.
//!
//! One thread lets the box work, one accepts connections, and each connection has a thread that waits for its tokens.
//! Faults are switched by methods, at any time:
//!
//! | fault | how |
//! |---|---|
//! | refuses connections | `refuse`, `accept_again` |
//! | is killed: connections end, memory is lost | `kill` |
//! | starts again with an empty memory | `restart` |
//! | 503 while it loads, resets in a phase of an answer | `set_fault` for all requests, `fail_next` for one |
//! | hangs while `/v1/models` and `/metrics` answer, or works slowly | `set_speed` with 0 or 0.1 |
//! | tells wrong numbers of cached tokens | `set_cached_claim` |

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::connection;
use super::engine::{Engine, EventKind, Job, Profile, Totals};

/// The name of its model.
pub const MODEL: &str = "spark";
/// The number of tokens that a prompt and its answer may have.
pub const WINDOW: u64 = 200_000;

/// The box works at least this often while it has requests. So times are exact to this, times the pace.
const TICK: Duration = Duration::from_millis(2);
/// A waiting connection looks this often whether its client has left.
pub(super) const GLANCE: Duration = Duration::from_millis(20);

/// A part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the response's head.
    Head,
    /// After the head, before the first token.
    Prefill,
    /// After the first token of thinking.
    Thinking,
    /// After the first token of text.
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Everything is answered with 503, as llama.cpp does while it loads a model.
    Loading,
    /// The connection is reset in this phase.
    Reset(Phase),
}

/// The number of cached tokens that it reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachedClaim {
    Truth,
    Nothing,
    Everything,
    /// Its usage has no such field.
    Missing,
}

/// The length of an answer, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub thinking: u64,
    pub text: u64,
}

/// Decides about an answer by the request's body.
pub type Script = Box<dyn Fn(&Value) -> Answer + Send>;

/// The progress of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) produced: u64,
    pub(super) cached: u64,
    pub(super) is_done: bool,
}

struct State {
    engine: Engine,
    progress: HashMap<u64, Progress>,
    /// Counts restarts, so that a connection from before one notices.
    life: u64,
}

struct Switches {
    fault: Option<Fault>,
    next_fault: Option<Fault>,
    claim: CachedClaim,
    script: Script,
}

pub(super) struct Shared {
    profile: Profile,
    pace: f64,
    began: Instant,
    state: Mutex<State>,
    arrived: Condvar,
    worked: Condvar,
    switches: Mutex<Switches>,
    /// The open connections, by number.
    connections: Mutex<(u64, HashMap<u64, TcpStream>)>,
}

/// A number for a request that no other request of this server has.
pub(super) type Ticket = (u64, u64);

impl Shared {
    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * self.pace
    }

    /// Lets the box work until now, then does something with it.
    fn with_engine<T>(&self, act: impl FnOnce(&mut Engine, f64) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let now = self.now();
        state.work(now);
        let result = act(&mut state.engine, now);
        drop(state);
        self.arrived.notify_all();
        self.worked.notify_all();
        result
    }

    pub(super) fn arrive(&self, job: Job) -> Ticket {
        let mut state = self.state.lock().unwrap();
        let now = self.now();
        state.work(now);
        let id = state.engine.arrive(now, job);
        state.progress.insert(id, Progress::default());
        self.arrived.notify_all();
        (state.life, id)
    }

    /// Waits for news of a request. `None`: the box was restarted, and knows nothing of it.
    pub(super) fn wait(&self, (life, id): Ticket, since: u64) -> Option<Progress> {
        let state = self.state.lock().unwrap();
        let has_news = |state: &State| {
            state.life != life
                || state.progress.get(&id).is_none_or(|now| now.is_done || now.produced > since)
        };
        let (state, _) = self.worked.wait_timeout_while(state, GLANCE, |state| !has_news(state)).unwrap();
        (state.life == life).then(|| state.progress.get(&id).copied()).flatten()
    }

    /// Forgets a request, whether it has ended or its client has left.
    pub(super) fn forget(&self, (life, id): Ticket) {
        let mut state = self.state.lock().unwrap();
        if state.life == life {
            state.work(self.now());
            state.engine.abort(id);
            state.progress.remove(&id);
        }
    }

    /// The fault of a request that begins now.
    pub(super) fn take_fault(&self) -> Option<Fault> {
        let mut switches = self.switches.lock().unwrap();
        switches.next_fault.take().or(switches.fault)
    }

    /// The fault of all requests.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.switches.lock().unwrap().fault
    }

    pub(super) fn claim(&self) -> CachedClaim {
        self.switches.lock().unwrap().claim
    }

    pub(super) fn answer(&self, chat: &Value) -> Answer {
        (self.switches.lock().unwrap().script)(chat)
    }

    pub(super) fn metrics(&self) -> String {
        let state = self.state.lock().unwrap();
        let totals = state.engine.totals();
        let lines = [
            ("gauge", "num_requests_running", state.engine.running() as f64),
            ("gauge", "num_requests_waiting", state.engine.waiting() as f64),
            ("gauge", "kv_cache_usage_perc", state.engine.kv_usage()),
            ("counter", "prompt_tokens_total", totals.prompt as f64),
            ("counter", "generation_tokens_total", totals.generated as f64),
            ("counter", "prefix_cache_queries_total", totals.prompt as f64),
            ("counter", "prefix_cache_hits_total", totals.cached as f64),
            ("counter", "request_success_total", totals.done as f64),
        ];
        let line = |(kind, name, value): (&str, &str, f64)| {
            format!(
                "# TYPE vllm:{name} {kind}\nvllm:{name}{{engine=\"0\",model_name=\"{MODEL}\"}} {value:?}\n"
            )
        };
        lines.into_iter().map(line).collect()
    }

    fn drive(&self) {
        let mut state = self.state.lock().unwrap();
        loop {
            state.work(self.now());
            self.worked.notify_all();
            let wait = if state.engine.next_event().is_some() { TICK } else { Duration::from_secs(3600) };
            state = self.arrived.wait_timeout(state, wait).unwrap().0;
        }
    }

    fn accept(self: &Arc<Shared>, listener: &TcpListener, is_open: &AtomicBool) {
        for stream in listener.incoming() {
            let (stream, shared) = (stream.unwrap(), Arc::clone(self));
            let number = {
                let (next, open) = &mut *self.connections.lock().unwrap();
                *next += 1;
                open.insert(*next, stream.try_clone().unwrap());
                *next
            };
            thread::spawn(move || {
                connection::converse(stream, &shared);
                shared.connections.lock().unwrap().1.remove(&number);
            });
            if !is_open.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Loses all requests and the memory.
    fn lose_everything(&self) {
        let mut state = self.state.lock().unwrap();
        let life = state.life + 1;
        *state = State { engine: Engine::new(self.profile.clone()), progress: HashMap::new(), life };
        self.worked.notify_all();
    }
}

impl State {
    fn work(&mut self, now: f64) {
        for event in self.engine.advance(now) {
            if let Some(progress) = self.progress.get_mut(&event.id) {
                progress.cached = event.cached;
                progress.is_done = event.kind == EventKind::Done;
            }
        }
        for (id, progress) in &mut self.progress {
            progress.produced = self.engine.produced(*id).unwrap_or(progress.produced);
        }
    }
}

/// The thread that accepts connections.
struct Door {
    is_open: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// A running server. It lives as long as the process; `kill` ends its work.
pub struct ModelServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// `None`: it accepts no connections.
    door: Mutex<Option<Door>>,
}

impl ModelServer {
    /// Starts a server whose clock runs `pace` times as fast as the real one.
    pub fn start(profile: Profile, pace: f64) -> ModelServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { engine: Engine::new(profile.clone()), progress: HashMap::new(), life: 0 };
        let switches =
            Switches { fault: None, next_fault: None, claim: CachedClaim::Truth, script: by_max_tokens() };
        let shared = Arc::new(Shared {
            profile,
            pace,
            began: Instant::now(),
            state: Mutex::new(state),
            arrived: Condvar::new(),
            worked: Condvar::new(),
            switches: Mutex::new(switches),
            connections: Mutex::default(),
        });
        let driver = Arc::clone(&shared);
        thread::spawn(move || driver.drive());
        let server = ModelServer { address, shared, door: Mutex::new(None) };
        server.open(listener);
        server
    }

    fn open(&self, listener: TcpListener) {
        let is_open = Arc::new(AtomicBool::new(true));
        let (shared, watched) = (Arc::clone(&self.shared), Arc::clone(&is_open));
        let thread = thread::spawn(move || shared.accept(&listener, &watched));
        *self.door.lock().unwrap() = Some(Door { is_open, thread });
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of its API.
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Closes the listener. Open connections go on.
    pub fn refuse(&self) {
        if let Some(Door { is_open, thread }) = self.door.lock().unwrap().take() {
            is_open.store(false, Ordering::SeqCst);
            // A last connection wakes the thread that accepts.
            drop(TcpStream::connect(self.address));
            thread.join().unwrap();
        }
    }

    /// Listens again, at the same address.
    pub fn accept_again(&self) {
        if self.door.lock().unwrap().is_none() {
            self.open(TcpListener::bind(self.address).unwrap());
        }
    }

    /// Ends as a killed process does: no listener, no connection, no memory.
    pub fn kill(&self) {
        self.refuse();
        for stream in self.shared.connections.lock().unwrap().1.values() {
            // One that has ended already is fine.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.lose_everything();
    }

    /// Starts anew with an empty memory.
    pub fn restart(&self) {
        self.kill();
        self.accept_again();
    }

    /// From now on it works at this speed: 0.1 is a tenth, 0 hangs.
    pub fn set_speed(&self, speed: f64) {
        self.shared.with_engine(|engine, now| engine.set_speed(now, speed));
    }

    /// From now on all requests have this fault, those that run included.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.shared.switches.lock().unwrap().fault = fault;
    }

    /// The next chat completion has this fault.
    pub fn fail_next(&self, fault: Fault) {
        self.shared.switches.lock().unwrap().next_fault = Some(fault);
    }

    pub fn set_cached_claim(&self, claim: CachedClaim) {
        self.shared.switches.lock().unwrap().claim = claim;
    }

    /// From now on answers have the length that the script says, at most the request's `max_tokens`.
    pub fn set_script(&self, script: impl Fn(&Value) -> Answer + Send + 'static) {
        self.shared.switches.lock().unwrap().script = Box::new(script);
    }

    /// The sums since its last start.
    pub fn totals(&self) -> Totals {
        self.shared.with_engine(|engine, _| engine.totals())
    }

    /// The numbers of requests that run and that wait.
    pub fn load(&self) -> (usize, usize) {
        self.shared.with_engine(|engine, _| (engine.running(), engine.waiting()))
    }
}

/// Answers of text, as long as the request allows, at most 200 tokens.
fn by_max_tokens() -> Script {
    Box::new(|chat| Answer { thinking: 0, text: connection::max_tokens(chat).unwrap_or(200).min(200) })
}
