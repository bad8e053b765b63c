//! The state that all requests share.

use std::sync::{Arc, PoisonError, RwLock};

use super::budget::Budget;
use super::options::ProxyOptions;
use crate::access::Access;
use crate::activity::Activity;
use crate::fleet::Gateway;

/// Answers every request of every client.
#[derive(Debug)]
pub struct Proxy {
    gateway: RwLock<Arc<Gateway>>,
    pub(super) options: ProxyOptions,
    pub(super) access: Access,
    pub(super) activity: Activity,
    pub(super) budget: Budget,
}

impl Proxy {
    /// A proxy that serves the clients that `access` admits from this gateway.
    pub fn new(gateway: Gateway, access: Access, options: ProxyOptions) -> Self {
        Proxy {
            gateway: RwLock::new(Arc::new(gateway)),
            budget: Budget::new(options.memory_max),
            options,
            access,
            activity: Activity::default(),
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

    /// Replaces the gateway for requests to come.
    pub fn replace(&self, gateway: Gateway) {
        *self.gateway.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(gateway);
    }
}
