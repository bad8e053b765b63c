//! One upstream: its address, and what it told of itself.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::discovery::{Discovered, Memory};
use crate::config;
use crate::transport::{CallLimits, Endpoint, Failure, Path, Response, Wait, Watcher};

/// A models listing over this is not read to its end.
const LISTING_SIZE_MAX: usize = 4 * 1024 * 1024;

/// One upstream, for all threads.
pub struct Upstream {
    config: config::Upstream,
    endpoint: Endpoint,
    memory: Arc<Memory>,
}

impl Upstream {
    /// An upstream as configured; no connection is made yet.
    ///
    /// # Errors
    /// As [`Endpoint::new`].
    pub fn new(config: config::Upstream, options: &CallLimits) -> Result<Self, String> {
        let memory = Arc::new(Memory::new(&config.settings));
        let watcher: Arc<dyn Watcher> = memory.clone();
        let endpoint = Endpoint::new(&config, options)?.watched_by(watcher);
        Ok(Upstream { config, endpoint, memory })
    }

    /// Its configured name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its configuration.
    pub fn config(&self) -> &config::Upstream {
        &self.config
    }

    /// Its address, for calls that say nothing about the state of the server.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends JSON, as [`Endpoint::post`]. A connection that is lost hints at a restart: the models are asked for again.
    ///
    /// # Errors
    /// As [`Endpoint::post`].
    pub fn post(&self, path: Path<'_>, body: &[u8], wait: &Rc<dyn Wait>) -> Result<Response, Failure> {
        self.noted(self.endpoint.post(path, body, wait))
    }

    /// Asks a question that needs no model, as [`Endpoint::ask`].
    ///
    /// # Errors
    /// As [`Endpoint::post`].
    pub fn ask(&self, path: Path<'_>, body: &[u8], wait: &Rc<dyn Wait>) -> Result<Response, Failure> {
        self.noted(self.endpoint.ask(path, body, wait))
    }

    fn noted(&self, result: Result<Response, Failure>) -> Result<Response, Failure> {
        if result.as_ref().is_err_and(Failure::is_connection_lost) {
            self.memory.mark_stale();
        }
        result
    }

    /// What was last discovered; cheap.
    pub fn discovered(&self) -> Arc<Discovered> {
        self.memory.known()
    }

    /// Lets the next [`Upstream::discovered_fresh`] ask again: something hints at a restart, such as a 404 for a
    /// model that was listed.
    pub fn mark_stale(&self) {
        self.memory.mark_stale();
    }

    /// Whether what was discovered may be wrong by now: nobody has answered yet, or a call has failed since.
    pub fn is_stale(&self) -> bool {
        self.memory.is_stale()
    }

    /// The number of the server that is there: another one after it was started anew, or when its listing is another one.
    /// What was learned of the server before that does not hold any more.
    pub fn generation(&self) -> u64 {
        self.memory.generation()
    }

    /// What was last discovered, after asking again where a call has failed since, none has ever succeeded, or the server
    /// may have been started anew while nobody asked it. While one thread asks, the others get what is known; asking may
    /// fail, then it stays so.
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
    /// No answer, no 200, or no models listing.
    pub fn discover(&self, wait: &Rc<dyn Wait>) -> Result<Arc<Discovered>, Failure> {
        let result = self.list_models(wait).map(Arc::new);
        self.memory.told(result.as_ref().ok());
        result
    }

    /// The model to ask for where neither alias nor client names one: the configured one, else the first listed.
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
