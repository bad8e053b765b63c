//! The state folder of a running server: opened at its start, saved every minute, closed at its end.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::fleet::SaveTime;
use crate::hooks::Shared;
use crate::proxy::Proxy;
use crate::state::{Fact, LateState, SavedState, Store};
use crate::{service, threads};

/// The time between two saves of what was learned.
const SAVE_PERIOD: Duration = Duration::from_secs(60);

/// The kind of the facts that hooks keep in `shared`.
const SHARED: &str = "shared";

/// The kind of the facts about the speed of upstreams.
const SPEED: &str = "speed";

/// The kind of the facts that answers and refusals of upstreams have shown.
const LEARNED: &str = "learned";

/// The folder, and the facts that are saved there.
pub(super) struct KeptState {
    store: Arc<Store>,
    proxy: Arc<Proxy>,
    shared: Shared,
    /// The facts that were saved last: the same ones are not written again.
    last: Mutex<Vec<Fact>>,
}

impl KeptState {
    /// Opens the folder of the option, otherwise that of the service manager, and gives what it has to those that it
    /// belongs to. Returns `None` if neither names one.
    ///
    /// # Errors
    /// A thread cannot be started. A folder that cannot be used is logged, and the server goes on without it.
    pub(super) fn open(
        folder: Option<PathBuf>,
        proxy: &Arc<Proxy>,
        shared: Shared,
    ) -> io::Result<Option<Arc<KeptState>>> {
        let Some(folder) = folder.or_else(service::state_folder) else { return Ok(None) };
        let (late_proxy, late_shared) = (Arc::clone(proxy), shared.clone());
        let take_late = move |late| match late {
            LateState::Taken(saved) => restore(saved, &late_proxy, &late_shared),
            LateState::Tokens(tokens) => late_proxy.raise_tokens(tokens),
        };
        let (store, saved) = Store::open(folder, seconds(), take_late)?;
        let store = Arc::new(store);
        restore(saved, proxy, &shared);
        proxy.keep_in(Arc::clone(&store));
        let kept = Arc::new(KeptState { store, proxy: Arc::clone(proxy), shared, last: Mutex::default() });
        let saved = Arc::clone(&kept);
        // The process before this one adds the requests that it still finishes.
        let wants_tokens = service::is_successor();
        threads::every("save", SAVE_PERIOD, move || {
            saved.store.look(seconds(), wants_tokens);
            saved.save();
        })?;
        Ok(Some(kept))
    }

    /// Saves the facts of now.
    fn save(&self) {
        let time = SaveTime { seconds: seconds(), now: Instant::now() };
        let gateway = self.proxy.gateway();
        let fact = |kind: &str| {
            let kind = kind.to_owned();
            move |(key, value)| Fact { kind: kind.clone(), key, value }
        };
        let shared = self.shared.saved(time.seconds, time.now).into_iter().map(fact(SHARED));
        let speeds = gateway.speeds().into_iter().map(fact(SPEED));
        let learned = gateway.learned(time).into_iter().map(fact(LEARNED));
        let mut facts: Vec<Fact> = shared.chain(speeds).chain(learned).collect();
        facts.sort_unstable_by(|a, b| (&a.kind, &a.key).cmp(&(&b.kind, &b.key)));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != facts && self.store.save(vec![SHARED, SPEED, LEARNED], facts.clone()) {
            *last = facts;
        }
    }

    /// Saves the facts, and lets a new process have the folder.
    pub(super) fn hand_over(&self) {
        self.save();
        self.store.hand_over();
    }

    /// Takes the folder back from a new process that has ended.
    pub(super) fn take_back(&self) {
        self.store.take_back();
    }

    /// Saves the facts, and closes the folder.
    pub(super) fn close(&self) {
        self.save();
        self.store.close();
    }
}

/// Gives what was saved to those that it belongs to. A value of `shared` that hooks have set since the start is replaced.
fn restore(saved: SavedState, proxy: &Proxy, shared: &Shared) {
    proxy.restore_tokens(saved.tokens_today);
    let (time, gateway) = (SaveTime { seconds: seconds(), now: Instant::now() }, proxy.gateway());
    for Fact { kind, key, value } in saved.facts {
        match kind.as_str() {
            SHARED => shared.restore(&key, &value, time.seconds, time.now),
            SPEED => gateway.restore_speed(&key, &value),
            LEARNED => gateway.restore_learned(&key, &value, time),
            // A newer version may have saved others.
            _ => {}
        }
    }
}

/// The seconds since 1970 by the system's clock; 0 if the clock is before that.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
