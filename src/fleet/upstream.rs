//! One upstream: its address, and the facts that its server reports.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::discovery::{Discovered, DiscoveryMemory};
use crate::config;
use crate::openai::UpstreamError;
use crate::transport::{CallLimits, Endpoint, Failure, Path, Response, Wait, Watcher};

/// The most bytes of a models listing that are read.
const LISTING_SIZE_MAX: usize = 4 * 1024 * 1024;

/// One upstream, shared by all threads.
pub struct Upstream {
    config: config::UpstreamConfig,
    endpoint: Endpoint,
    memory: Arc<DiscoveryMemory>,
}

impl Upstream {
    /// An upstream as configured; no connection is made yet.
    ///
    /// # Errors
    /// Those of [`Endpoint::new`].
    pub fn new(config: config::UpstreamConfig, options: &CallLimits) -> Result<Self, String> {
        let memory = Arc::new(DiscoveryMemory::new(&config.settings));
        let watcher: Arc<dyn Watcher> = memory.clone();
        let endpoint = Endpoint::new(&config, options)?.watched_by(watcher);
        Ok(Upstream { config, endpoint, memory })
    }

    /// Its configured name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its configuration.
    pub fn config(&self) -> &config::UpstreamConfig {
        &self.config
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

    /// Sends a question that needs no model, by [`Endpoint::ask`].
    ///
    /// # Errors
    /// Those of [`Endpoint::post`].
    pub fn ask(&self, path: Path<'_>, body: &[u8], wait: &Rc<dyn Wait>) -> Result<Response, Failure> {
        self.noted(self.endpoint.ask(path, body, wait))
    }

    fn noted(&self, result: Result<Response, Failure>) -> Result<Response, Failure> {
        if result.as_ref().is_err_and(Failure::is_connection_lost) {
            self.memory.mark_stale();
        }
        result
    }

    /// Hides the key of this upstream in an error that it has sent.
    pub fn hide_keys(&self, failure: &mut UpstreamError) {
        failure.edit_words(|words| self.endpoint.hide_keys(words));
    }

    /// The facts that were discovered last. This is cheap: nothing is asked.
    pub fn discovered(&self) -> Arc<Discovered> {
        self.memory.known()
    }

    /// Lets the next [`Upstream::discovered_fresh`] ask again, because something suggests a restart, such as a 404 for
    /// a model that was listed.
    pub fn mark_stale(&self) {
        self.memory.mark_stale();
    }

    /// True if the discovered facts may be wrong by now: the server has never answered, or a call has failed since.
    pub fn is_stale(&self) -> bool {
        self.memory.is_stale()
    }

    /// The number of the server that runs now; it changes with a restart and with another listing. Facts about an
    /// earlier server do not hold for this one.
    pub fn generation(&self) -> u64 {
        self.memory.generation()
    }

    /// The discovered facts. The server is asked for them first if a call has failed since, if it has never answered,
    /// or if it may have been restarted while it was idle. While one thread asks, the others get the known facts. If
    /// asking fails, the known facts stay.
    pub fn discovered_fresh(&self, wait: &Rc<dyn Wait>) -> Arc<Discovered> {
        self.endpoint.notice_closed();
        self.memory.ask_if_due(self.endpoint.discovery_interval(), || {
            if let Err(failure) = self.discover(wait) {
                log::debug!("upstream {}: discovery failed: {failure}", self.name());
            }
        });
        self.memory.known()
    }

    /// Asks the upstream for its models, now.
    ///
    /// # Errors
    /// The server does not answer, or its response has a status other than 200 or is not a models listing.
    pub fn discover(&self, wait: &Rc<dyn Wait>) -> Result<Arc<Discovered>, Failure> {
        let result = self.list_models(wait).map(Arc::new);
        self.memory.told(result.as_ref().ok());
        result
    }

    /// The model to request if neither alias nor client names one: the configured one, otherwise the first listed.
    pub fn model(&self) -> Option<String> {
        let configured = self.config.model.clone();
        configured.or_else(|| self.discovered().models.first().map(|model| model.id.clone()))
    }

    fn list_models(&self, wait: &Rc<dyn Wait>) -> Result<Discovered, Failure> {
        let response = self.endpoint.get(Path::Api("/models"), wait)?;
        if response.status != 200 {
            return Err(Failure::Status(response.status));
        }
        let server = response.server.clone();
        let mut body = response.read_all(LISTING_SIZE_MAX)?;
        Discovered::parse(&mut body, server.as_deref(), &self.config.settings).map_err(Failure::Protocol)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.config.name).finish_non_exhaustive()
    }
}
