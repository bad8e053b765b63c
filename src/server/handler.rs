//! The handler of requests and the limits of a server, which every connection's thread gets.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::stop::StopHandle;
use crate::http::{Connection, Request, RequestLimits, Socket};

/// A client's connection, shared within its one thread: the handler responds on it, and the code that waits for an
/// upstream watches it.
pub type Client = Rc<RefCell<Connection<Socket>>>;

/// Handles the requests of a server: reads each one's body and responds to it.
pub trait Handler: Send + Sync + 'static {
    /// Reads the request's body and responds, both on `connection`. If there is no response, the client gets a 500. If
    /// the response is unfinished, or after an error, the connection is closed, which shows the client that it was cut
    /// short.
    ///
    /// # Errors
    /// Those of the connection. They end it, with a 500 if no response has begun.
    fn handle(&self, connection: &Client, request: Request, client: SocketAddr) -> io::Result<()>;
}

impl<F> Handler for F
where
    F: Fn(&Client, Request, SocketAddr) -> io::Result<()> + Send + Sync + 'static,
{
    fn handle(&self, connection: &Client, request: Request, client: SocketAddr) -> io::Result<()> {
        self(connection, request, client)
    }
}

/// The limits of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// The most connections at the same time, including idle ones; each is a thread. More are refused with a 529.
    pub connections_max: usize,
    /// The time for a whole head, from its first byte on.
    pub head_timeout: Duration,
    /// The time that a request's body may make no progress.
    pub body_timeout: Duration,
    /// The time that a response may make no progress.
    pub write_timeout: Duration,
    /// The time that a connection may be without a request. It is generous, because a closed connection costs the
    /// client a new one, and an idle one costs sparkgap little.
    pub keep_alive: Duration,
    /// The time that requests in progress get after the stop.
    pub drain: Duration,
    /// The size limits of a request.
    pub limits: RequestLimits,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            connections_max: 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(300),
            drain: Duration::from_secs(30),
            limits: RequestLimits::default(),
        }
    }
}

/// The state that all connections share.
pub(super) struct ServerShared {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) options: ServerLimits,
    pub(super) stop: StopHandle,
}
