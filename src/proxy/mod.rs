//! The life of a request, from its path to its line in the log. The only module that knows every stage.
//!
//! | file | duty |
//! |---|---|
//! | `mod` | [`Proxy`]: which path is what, who is answered what at once |
//! | `gateway` | [`Gateway`]: the upstreams, aliases and hooks in force, swapped as one |
//! | `entry` | who asks for what, and whether that is let in |
//! | `prepare` | a client's bytes to a chat completion: hooks, checks, route, translation |
//! | `learned` | what answers and refusals told of an upstream's models, and for how long that is believed |
//! | `messages` | `POST /v1/messages`, stage by stage |
//! | `attempt` | one upstream asked: mended and repeated where that helps |
//! | `budget` | how much memory the bodies of requests may take, all together |
//! | `count` | `POST /v1/messages/count_tokens` |
//! | `counters` | what has happened since the start, in numbers |
//! | `models` | `GET /v1/models` |
//! | `environment` | `GET /env` |
//! | `exchange` | the client's side of one request: events or a whole message out, signs of life in silence |
//! | `footprint` | how much memory one request takes, told before it is taken |
//! | `filter` | `on_event` and `on_tool_call` between translation and client |
//! | `preview` | what would be sent, for `sparkgap hook` |
//! | `queue` | how many requests an upstream gets at a time |
//! | `relay` | the upstream's bytes through decoder and translation to the client |
//! | `record` | what is logged of a request |

mod attempt;
mod budget;
mod count;
mod counters;
mod entry;
mod environment;
mod exchange;
mod filter;
mod footprint;
mod gateway;
mod learned;
mod messages;
mod models;
mod prepare;
mod preview;
mod queue;
mod record;
mod relay;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub use environment::VARIABLES;
pub use gateway::Gateway;
pub use preview::{Preview, preview};

use crate::access::Access;
use crate::error::Error;
use crate::hooks::Hook;
use crate::http::{self, Request};
use crate::ids;
use crate::json::{Object, Value};
use crate::server::{Client, Handler};
use crate::upstream::Wait;
use budget::Budget;
use counters::Counters;
use entry::{Entry, answer_preflight};
use exchange::Exchange;
use record::Caller;

/// How the proxy behaves towards its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A prefix of every path, such as `/llm`; empty: none.
    pub prefix: String,
    /// A streaming client is answered with the beginning of a message after this much silence of the upstream. Until then
    /// an upstream's error is still an HTTP status.
    pub open_after: Duration,
    /// What all requests may take of the memory together, in bytes; `None`: half of what the process may take.
    pub memory_max: Option<usize>,
    /// A body that brings too little in this time is given up.
    pub body_timeout: Duration,
    /// And with a ping each time this much has passed without an event.
    pub ping_every: Duration,
    /// Instead of a ping with the usage so far, once there were only pings for this long. Claude Code 2.1.328 gives a
    /// stream up that has had nothing but pings for 600 s, and other versions may count pings for nothing: 300 s.
    pub usage_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            prefix: String::new(),
            open_after: Duration::from_secs(8),
            memory_max: None,
            body_timeout: Duration::from_secs(60),
            ping_every: Duration::from_secs(10),
            usage_every: Duration::from_secs(120),
        }
    }
}

/// Answers every request of every client.
#[derive(Debug)]
pub struct Proxy {
    gateway: RwLock<Arc<Gateway>>,
    options: Options,
    access: Access,
    counters: Counters,
    budget: Budget,
}

/// How a request ends that is not answered by an upstream's message.
#[derive(Debug)]
enum Stop {
    /// With an error for the client.
    Error(Error),
    /// With the failure of a hook of policy closed that saw the answer. No other upstream is asked: its answer would be
    /// for the same hook.
    Refused(Error),
    /// With nothing: the client has left.
    ClientGone,
    /// With its connection: it cannot be written to.
    Client(io::Error),
    /// With the message that a hook gave.
    Respond(Value<'static>),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

impl From<http::Failure> for Stop {
    fn from(failure: http::Failure) -> Self {
        match failure {
            http::Failure::Reject(error) => Stop::Error(error),
            http::Failure::Closed => Stop::ClientGone,
            http::Failure::Io(error) => Stop::Client(error),
        }
    }
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource<'p> {
    Messages,
    CountTokens,
    Models,
    Model(&'p str),
    /// For `sparkgap env --remote`.
    Environment,
    /// Says only that somebody is there. Claude Code warms its connection with `HEAD /api/hello`.
    Hello,
    Health,
}

impl<'p> Resource<'p> {
    fn find(path: &'p str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        match path {
            "/v1/messages" => Some(Resource::Messages),
            "/v1/messages/count_tokens" => Some(Resource::CountTokens),
            "/v1/models" => Some(Resource::Models),
            "" | "/api/hello" => Some(Resource::Hello),
            "/health" => Some(Resource::Health),
            "/env" => Some(Resource::Environment),
            _ => path.strip_prefix("/v1/models/").map(Resource::Model),
        }
    }

    /// Whether it is told to everybody: it says nothing of what is served here.
    fn is_open(self) -> bool {
        matches!(self, Resource::Hello | Resource::Health)
    }

    fn methods(self) -> &'static [&'static str] {
        match self {
            Resource::Messages | Resource::CountTokens => &["POST"],
            Resource::Models
            | Resource::Model(_)
            | Resource::Environment
            | Resource::Hello
            | Resource::Health => &["GET", "HEAD"],
        }
    }
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

    fn health(&self) -> Vec<u8> {
        let gateway = self.gateway();
        let names: Vec<Value<'_>> = gateway.upstreams().iter().map(|served| served.name().into()).collect();
        let failures: u64 = Hook::ALL.iter().map(|hook| gateway.hooks().failures(*hook)).sum();
        let mut health = Object::new();
        health.push("status", "ok");
        health.push("version", env!("CARGO_PKG_VERSION"));
        health.push("hooks", gateway.hooks().hash());
        health.push("upstreams", names);
        self.counters.tell(&mut health);
        // Since the last load: another set of hooks has not failed yet.
        health.push("hook_failures", failures);
        Value::from(health).to_json().into_bytes()
    }
}

impl Proxy {
    /// Whatever is not a message: a short JSON text.
    #[inline(never)] // its part of the stack is not to lie below every message
    fn tell(
        &self,
        resource: Resource<'_>,
        client: &Client,
        request: &Request,
        request_id: &str,
    ) -> Result<Vec<u8>, Error> {
        let wait: Rc<dyn Wait> = Exchange::new(self, client, request_id);
        Ok(match resource {
            Resource::Models => models::list(&self.gateway(), request, &wait)?.to_json().into_bytes(),
            Resource::Model(id) => models::find(&self.gateway(), id, request, &wait)?.to_json().into_bytes(),
            Resource::Environment => {
                let gateway = self.gateway();
                for served in gateway.upstreams() {
                    served.upstream().discovered_fresh(&wait);
                }
                environment::tell(&gateway, request, &self.options.prefix, &wait)?.to_json().into_bytes()
            }
            Resource::Health => self.health(),
            Resource::Hello | Resource::Messages | Resource::CountTokens => {
                br#"{"name":"sparkgap"}"#.to_vec()
            }
        })
    }
}

impl Handler for Proxy {
    fn handle(&self, client: &Client, request: Request, address: SocketAddr) -> io::Result<()> {
        let request_id = ids::request_id();
        self.counters.request();
        let mut caller = Caller::new(self.access.client_address(&request, address.ip()));
        let told = match self.let_in(client, &request, &mut caller) {
            Ok(Entry::Resource(Resource::Messages)) => {
                return messages::serve(self, client, request, &caller, &request_id);
            }
            Ok(Entry::Resource(Resource::CountTokens)) => {
                return count::serve(self, client, &request, &caller, &request_id);
            }
            Ok(Entry::Resource(resource)) => self.tell(resource, client, &request, &request_id),
            Ok(Entry::Preflight) => return answer_preflight(client, &request, &request_id),
            Err(error) => Err(error),
        };
        match told {
            Ok(body) => {
                let headers = [("content-type", "application/json"), ("request-id", request_id.as_str())];
                client.borrow_mut().respond(200, &headers, &body)
            }
            Err(error) => {
                log::info!("{request_id} {caller} {error}");
                client.borrow_mut().respond_error(&error, &request_id)
            }
        }
    }
}
