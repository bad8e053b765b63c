//! The life of a request, from its path to its line in the log. The only module that knows every stage.
//!
//! | file | duty |
//! |---|---|
//! | `mod` | [`Proxy`]: which path is what, who is answered what at once |
//! | `gateway` | [`Gateway`]: the upstreams, aliases and hooks in force, swapped as one |
//! | `messages` | `POST /v1/messages`, stage by stage |
//! | `exchange` | the client's side of one request: events or a whole message out, pings in silence |
//! | `relay` | the upstream's bytes through decoder and translation to the client |
//! | `record` | what is logged of a request |

mod exchange;
mod gateway;
mod messages;
mod record;
mod relay;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub use gateway::Gateway;

use crate::error::{Error, Kind};
use crate::http::Request;
use crate::ids;
use crate::json::Value;
use crate::server::{Client, Handler};

/// How the proxy behaves towards its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A prefix of every path, such as `/llm`; empty: none.
    pub prefix: String,
    /// A streaming client is answered with the beginning of a message after this much silence of the upstream. Until then
    /// an upstream's error is still an HTTP status.
    pub open_after: Duration,
    /// And with a ping each time this much has passed without an event.
    pub ping_every: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            prefix: String::new(),
            open_after: Duration::from_secs(8),
            ping_every: Duration::from_secs(10),
        }
    }
}

/// Answers every request of every client.
#[derive(Debug)]
pub struct Proxy {
    gateway: RwLock<Arc<Gateway>>,
    options: Options,
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Messages,
    /// Says only that somebody is there. Claude Code warms its connection with `HEAD /api/hello`.
    Hello,
    Health,
}

impl Resource {
    fn find(path: &str) -> Option<Resource> {
        match path.trim_end_matches('/') {
            "/v1/messages" => Some(Resource::Messages),
            "" | "/api/hello" => Some(Resource::Hello),
            "/health" => Some(Resource::Health),
            _ => None,
        }
    }

    fn methods(self) -> &'static [&'static str] {
        match self {
            Resource::Messages => &["POST"],
            Resource::Hello | Resource::Health => &["GET", "HEAD"],
        }
    }
}

impl Proxy {
    /// A proxy in front of this gateway.
    pub fn new(gateway: Gateway, options: Options) -> Self {
        Proxy { gateway: RwLock::new(Arc::new(gateway)), options }
    }

    /// What is in force now. Requests in flight keep what they began with.
    pub fn gateway(&self) -> Arc<Gateway> {
        Arc::clone(&self.gateway.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another gateway in force for the requests to come.
    pub fn replace(&self, gateway: Gateway) {
        *self.gateway.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(gateway);
    }

    /// Which resource the request is for.
    fn resource(&self, request: &Request) -> Result<Resource, Error> {
        let path = request.path.strip_prefix(self.options.prefix.as_str());
        let found = path.and_then(Resource::find);
        let unknown =
            || Error::new(Kind::NotFound, format!("Not found: {} {}", request.method, request.path));
        let resource = found.ok_or_else(unknown)?;
        if resource.methods().contains(&request.method.as_str()) {
            return Ok(resource);
        }
        let what = format!(
            "{} is not for {}; use {}",
            request.method,
            request.path,
            resource.methods().join(" or ")
        );
        Err(Error::new(Kind::MethodNotAllowed, what))
    }

    fn health(&self) -> Vec<u8> {
        let gateway = self.gateway();
        let names: Vec<Value<'_>> = gateway.upstreams().iter().map(|served| served.name().into()).collect();
        let health = Value::object([
            ("status", "ok".into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("hooks", gateway.hooks().hash().into()),
            ("upstreams", names.into()),
        ]);
        health.to_json().into_bytes()
    }
}

impl Handler for Proxy {
    fn handle(&self, client: &Client, request: Request, address: SocketAddr) -> io::Result<()> {
        let request_id = ids::request_id();
        let headers = [("content-type", "application/json"), ("request-id", request_id.as_str())];
        match self.resource(&request) {
            Ok(Resource::Messages) => messages::serve(self, client, request, address, &request_id),
            Ok(Resource::Hello) => client.borrow_mut().respond(200, &headers, br#"{"name":"sparkgap"}"#),
            Ok(Resource::Health) => client.borrow_mut().respond(200, &headers, &self.health()),
            Err(error) => {
                log::info!("{request_id} {address} {error}");
                client.borrow_mut().respond_error(&error, &request_id)
            }
        }
    }
}
