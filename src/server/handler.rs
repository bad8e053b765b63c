//! The handler of requests and the limits of a server, which every connection's thread gets.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::stop::StopHandle;
use super::stream::ClientStream;
use super::tls::ServerTls;
use crate::http::{Connection, Request, RequestLimits};

/// A client's connection, shared within its one thread: the handler responds on it, and the code that waits for an
/// upstream watches it.
pub type Client = Rc<RefCell<Connection<ClientStream>>>;

/// Handles the requests of a server: reads each one's body and responds to it.
pub trait Handler: Send + Sync + 'static {
    /// Reads the request's body and responds, both on `connection`. If there is no response, the client gets a 500. If
    /// the response is unfinished, or after an error, the connection is closed, which shows the client that it was cut
    /// short.
    ///
    /// # Errors
    /// Those of the connection. They end it, with a 500 if no response has begun.
    fn handle(&self, connection: &Client, request: Request, client: SocketAddr) -> io::Result<()>;

    /// True if an address stands for many clients, such as that of a reverse proxy: then
    /// [`ServerLimits::connections_per_address_max`] does not apply to it. It never applies to loopback addresses.
    fn is_shared(&self, _address: IpAddr) -> bool {
        false
    }
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
    /// The most connections at the same time, including idle ones; each is a thread. One that waits for a request makes
    /// room for a new one; if none waits, the new one is refused with a 529.
    pub connections_max: usize,
    /// The most connections of one address at the same time (for IPv6, of one network of 64 bits), so that one client
    /// cannot take every place. Like `connections_max` in all else.
    pub connections_per_address_max: usize,
    /// The time for a whole head, from its first byte on.
    pub head_timeout: Duration,
    /// The time that a request's body may make no progress.
    pub body_timeout: Duration,
    /// The time for a whole body, from its head on. 32 MiB need 0.5 Mbit/s then.
    pub body_total_timeout: Duration,
    /// The time that a response may make no progress.
    pub write_timeout: Duration,
    /// The time that a connection may be without a request. It is generous, because a closed connection costs the
    /// client a new one, and an idle one costs sparkgap little. As long as no request was admitted on it, the time counts
    /// from its beginning, so that requests that need no key do not keep a place without limit.
    pub keep_alive: Duration,
    /// The time that requests in progress get after the stop.
    pub drain: Duration,
    /// The size limits of a request.
    pub limits: RequestLimits,
}

const CONNECTIONS_MAX: usize = 1024;

impl ServerLimits {
    /// The default of `connections_per_address_max` for a limit on all: a quarter, so that it takes at least four
    /// machines to fill the table.
    pub fn per_address_of(connections_max: usize) -> usize {
        (connections_max / 4).max(1)
    }
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: ServerLimits::per_address_of(CONNECTIONS_MAX),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            body_total_timeout: Duration::from_secs(600),
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
    /// The certificate, if the listener speaks TLS.
    pub(super) tls: Option<Arc<ServerTls>>,
}
