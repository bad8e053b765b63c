//! The state that all requests share.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::budget::Budget;
use super::homes::ResponseHomes;
use super::options::ProxyOptions;
use crate::access::{Access, Guesses, Keys};
use crate::activity::{Activity, FinishedRequest, Record};
use crate::fleet::Gateway;

/// Answers every request of every client.
#[derive(Debug)]
pub struct Proxy {
    gateway: RwLock<Arc<Gateway>>,
    pub(super) options: ProxyOptions,
    access: RwLock<Arc<Access>>,
    pub(super) guesses: Mutex<Guesses>,
    pub(super) activity: Activity,
    pub(super) budget: Budget,
    /// The upstreams that made the latest responses.
    pub(super) homes: Mutex<ResponseHomes>,
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
            options,
            access: RwLock::new(Arc::new(access)),
            guesses: Mutex::default(),
            activity,
            homes: Mutex::default(),
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

    /// Ends the record of a request to this gateway: see [`Activity::finish`].
    pub(super) fn finish(&self, gateway: &Gateway, record: Record) -> Arc<FinishedRequest> {
        let alias = gateway.alias(&record.details.client_model).map(|alias| alias.pattern.as_str());
        self.activity.finish(record, alias)
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
