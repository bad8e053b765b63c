//! The limits of one client, as the operator set them.

use crate::lane::Lane;
use crate::route;

/// The limits of the clients whose key has this owner. `None`: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// The owner's name in the file of keys.
    pub name: String,
    /// The most requests at a time.
    pub max_in_flight: Option<u64>,
    /// The most requests in a minute.
    pub requests_per_minute: Option<u64>,
    /// The tokens of prompts and answers in a day by UTC.
    pub tokens_per_day: Option<u64>,
    /// Patterns of the models that may be asked for; empty: all.
    pub models: Vec<String>,
    /// The lane of requests for which no hook chose one.
    pub lane: Option<Lane>,
}

impl ClientLimits {
    /// True if this client may ask for a model of this name.
    pub fn allow(&self, model: &str) -> bool {
        let model = route::without_window_mark(model);
        self.models.is_empty() || self.models.iter().any(|pattern| route::matches(pattern, model))
    }
}
