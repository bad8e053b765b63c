//! The resources, with their paths and methods.

use crate::admin::ui::UiPath;
use crate::protocol::relay::RelayedPath;
use crate::shell::EnvForm;

/// A resource, identified by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource<'p> {
    Messages,
    CountTokens,
    /// A path of OpenAI's protocol.
    Relayed(RelayedPath<'p>),
    Models,
    Model(&'p str),
    /// For `sparkgap env --remote`.
    Environment,
    /// The same for a machine that has no sparkgap.
    EnvironmentIn(EnvForm),
    /// Says only that a server is running. Claude Code warms its connection with `HEAD /api/hello`.
    Hello,
    Health,
    /// Whether a request could be answered now, for load balancers.
    Ready,
    /// The numbers for Prometheus.
    Metrics,
    /// The live page.
    Ui(UiPath<'p>),
    /// The requests in progress, and the last ones.
    Activity,
}

impl<'p> Resource<'p> {
    pub(super) fn find(path: &'p str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        match path {
            "/v1/messages" => Some(Resource::Messages),
            "/v1/messages/count_tokens" => Some(Resource::CountTokens),
            "/v1/models" => Some(Resource::Models),
            "" | "/api/hello" => Some(Resource::Hello),
            "/health" => Some(Resource::Health),
            "/ready" => Some(Resource::Ready),
            "/metrics" => Some(Resource::Metrics),
            "/activity" => Some(Resource::Activity),
            "/env" => Some(Resource::Environment),
            _ => match path.strip_prefix("/env.") {
                Some(ending) => EnvForm::of_ending(ending).map(Resource::EnvironmentIn),
                None => (path.strip_prefix("/v1/models/").map(Resource::Model))
                    .or_else(|| RelayedPath::find(path).map(Resource::Relayed))
                    .or_else(|| UiPath::find(path).map(Resource::Ui)),
            },
        }
    }

    /// True if no key is needed: the answer reveals nothing about the models. The live page asks for one itself, since its
    /// browser may have a session instead.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Resource::Hello | Resource::Health | Resource::Ready | Resource::Ui(_))
    }

    /// True for what probes and scrapers ask for again and again: it does not count as a request.
    pub(super) fn is_probe(self) -> bool {
        self.is_open() || matches!(self, Resource::Metrics | Resource::Activity)
    }

    pub(super) fn methods(self) -> &'static [&'static str] {
        match self {
            Resource::Messages | Resource::CountTokens | Resource::Relayed(_) => &["POST"],
            Resource::Ui(path) => path.methods(),
            Resource::Models
            | Resource::Model(_)
            | Resource::Environment
            | Resource::EnvironmentIn(_)
            | Resource::Hello
            | Resource::Health
            | Resource::Ready
            | Resource::Metrics
            | Resource::Activity => &["GET", "HEAD"],
        }
    }
}
