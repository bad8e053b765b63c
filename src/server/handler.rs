//! The handler of requests, and the limits of a server: what a connection's thread is given.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::stop::Stop;
use crate::http::{Connection, Limits, Request, Socket};

/// A client's connection, shared in its one thread: the handler responds on it, and so does whoever waits for an
/// upstream on the handler's behalf.
pub type Client = Rc<RefCell<Connection<Socket>>>;

/// What is done with a request.
pub trait Handler: Send + Sync + 'static {
    /// Reads the request's body and responds, both on `connection`. Without a response the client gets a 500; with
    /// one that is not finished, or after an error, the connection is closed, which tells the client that it is cut short.
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
pub struct Options {
    /// Connections at the same time, idle ones among them; each is a thread. More are refused with a 529.
    pub connections_max: usize,
    /// For a whole head, from its first byte on.
    pub head_timeout: Duration,
    /// For a request's body without a byte of progress.
    pub body_timeout: Duration,
    /// For a response without a byte of progress.
    pub write_timeout: Duration,
    /// For a connection without a request. Generous: it costs a client its connection, and an idle one costs us little.
    pub idle_timeout: Duration,
    /// For requests in progress, once the server is to stop.
    pub drain: Duration,
    /// The size limits of a request.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            connections_max: 1024,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            drain: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) options: Options,
    pub(super) stop: Stop,
}
