//! The state that all requests share.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use super::budget::Budget;
use super::client_slot::ClientSlot;
use super::homes::ResponseHomes;
use super::keep::{now, row_of};
use super::options::ProxyOptions;
use crate::access::{Access, Guesses, Keys, LimitCounts, PageSessions};
use crate::activity::{Activity, Caller, FinishedRequest, Record, Recorder};
use crate::admin::ui::{LivePage, RecordingReads};
use crate::error::Error;
use crate::fleet::{Gateway, ThinkingLedger};
use crate::server::Client;
use crate::shown::ShownText;
use crate::state::{RequestRow, Store};

/// Answers every request of every client.
#[derive(Debug)]
pub struct Proxy {
    gateway: RwLock<Arc<Gateway>>,
    pub(super) options: ProxyOptions,
    access: RwLock<Arc<Access>>,
    pub(super) guesses: Mutex<Guesses>,
    pub(super) activity: Activity,
    pub(super) recorder: Recorder,
    pub(super) budget: Budget,
    /// The upstreams that made the latest responses.
    pub(super) homes: Mutex<ResponseHomes>,
    pub(super) limits: Arc<Mutex<LimitCounts>>,
    /// The state folder, if there is one.
    pub(super) store: OnceLock<Arc<Store>>,
    /// The models that have made blocks of thinking.
    pub(super) thinking: ThinkingLedger,
    /// The browsers that have shown a key to the live page.
    pub(super) sessions: Mutex<PageSessions>,
    pub(super) live: LivePage,
    /// The recordings that browsers read now.
    pub(super) recording_reads: RecordingReads,
}

impl Proxy {
    /// A proxy that serves the clients that `access` admits from this gateway.
    pub fn new(gateway: Gateway, access: Access, options: ProxyOptions) -> Self {
        let activity = Activity::default();
        if options.metrics_by_client {
            activity.metrics().count_clients();
        }
        Proxy {
            gateway: RwLock::new(Arc::new(gateway)),
            budget: Budget::new(options.memory_max),
            recorder: Recorder::new(options.record),
            options,
            access: RwLock::new(Arc::new(access)),
            guesses: Mutex::default(),
            activity,
            homes: Mutex::default(),
            limits: Arc::default(),
            store: OnceLock::new(),
            thinking: ThinkingLedger::default(),
            sessions: Mutex::default(),
            live: LivePage::default(),
            recording_reads: RecordingReads::default(),
        }
    }

    /// Keeps the requests in this folder from now on. A second folder is ignored.
    pub fn keep_in(&self, store: Arc<Store>) {
        let _ = self.store.set(store);
    }

    /// Takes over the tokens that clients have used today, before this start.
    pub fn restore_tokens(&self, tokens_today: Vec<(String, u64)>) {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        for (client, tokens) in tokens_today {
            limits.restore(client, tokens, now().as_secs());
        }
    }

    /// Raises the tokens of today to sums that another process has added to, which has the requests of this one as well.
    pub fn raise_tokens(&self, tokens_today: Vec<(String, u64)>) {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        for (client, tokens) in tokens_today {
            limits.raise(client, tokens, now().as_secs());
        }
    }

    /// The requests in progress, and the numbers since the start.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// The current gateway. Requests in flight keep the one that they began with.
    pub fn gateway(&self) -> Arc<Gateway> {
        Arc::clone(&self.gateway.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place of a request among those of its client, if the client's key has limits.
    ///
    /// # Errors
    /// Those of [`ClientSlot::take`].
    pub(super) fn client_slot(
        &self,
        gateway: &Gateway,
        caller: &Caller,
        client: &Client,
    ) -> Result<Option<ClientSlot>, Error> {
        let limits = caller.user.as_deref().and_then(|user| gateway.limits_of(user));
        limits.map(|limits| ClientSlot::take(Arc::clone(&self.limits), limits, client)).transpose()
    }

    /// Ends the record of a request to this gateway: see [`Activity::finish`]. It is kept in the state folder as well.
    pub(super) fn finish(&self, gateway: &Gateway, record: Record) -> Arc<FinishedRequest> {
        let alias = gateway.alias(&record.details.client_model);
        let finished = self.activity.finish(record, alias.map(|alias| alias.pattern.as_str()));
        if let Some(store) = self.store.get() {
            store.add(row_of(&finished.record, alias.and_then(|alias| alias.price)));
        }
        finished
    }

    /// Keeps the row of a count of tokens that was recorded, so that it is listed. Usage does not count it.
    pub(super) fn keep_count(&self, record: &Record) {
        if let Some(store) = self.store.get() {
            store.add(RequestRow {
                is_unused: true,
                stop_reason: "count_tokens".to_owned(),
                ..row_of(record, None)
            });
        }
    }

    /// Warns of limits for owners who have no key: the name may be misspelt, and then the limits hold for nobody.
    pub fn warn_of_unknown_owners(&self) {
        let (gateway, access) = (self.gateway(), self.access());
        for name in gateway.limited_owners().filter(|name| !access.keys.has_owner(name)) {
            log::warn!(
                "keys: '{}' has limits, but no key: give a line of the file of keys (--api-key-file) this owner",
                ShownText::new(name)
            );
        }
    }

    /// The clients that are admitted now.
    pub(super) fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the clients' keys for requests to come. Requests that were admitted go on.
    pub fn replace_keys(&self, keys: Keys) {
        let access = Access { keys, ..self.access().as_ref().clone() };
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
    }

    /// Replaces the gateway for requests to come.
    pub fn replace(&self, gateway: Gateway) {
        *self.gateway.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(gateway);
    }
}
