//! The state that all requests share.

use std::sync::{Arc, PoisonError, RwLock};

use super::budget::Budget;
use super::options::Options;
use crate::access::Access;
use crate::activity::Counters;
use crate::fleet::Gateway;

/// Answers every request of every client.
#[derive(Debug)]
pub struct Proxy {
    gateway: RwLock<Arc<Gateway>>,
    pub(super) options: Options,
    pub(super) access: Access,
    pub(super) counters: Counters,
    pub(super) budget: Budget,
}

impl Proxy {
    /// A proxy in front of this gateway, for clients that have access.
    pub fn new(gateway: Gateway, access: Access, options: Options) -> Self {
        Proxy {
            gateway: RwLock::new(Arc::new(gateway)),
            budget: Budget::new(options.memory_max),
            options,
            access,
            counters: Counters::default(),
        }
    }

    /// What is in force now. Requests in flight keep what they began with.
    pub fn gateway(&self) -> Arc<Gateway> {
        Arc::clone(&self.gateway.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another gateway in force for the requests to come.
    pub fn replace(&self, gateway: Gateway) {
        *self.gateway.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(gateway);
    }
}
