//! Listens, and gives each connection a thread: the limits on both, and the orderly end.
//!
//! The only module that names threads. Knows nothing of what a request means: that is the [`Handler`]'s.
//!
//! A connection waits at four places, each with its own limit:
//!
//! | waits for | limit | then |
//! |---|---|---|
//! | a request's first byte | `idle_timeout`, or the stop | closed |
//! | the rest of its head | `head_timeout` for the whole head | 408, closed |
//! | more of its body | `body_timeout` without a byte | 408, closed |
//! | the client to take more of the response | `write_timeout` without a byte | closed |
//!
//! What the handler waits for is its own affair, but for the end: see [`Stop`].

mod client;
mod refused;
mod stop;

pub use stop::Stop;

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::http::{Connection, Limits, Request, Socket};
use refused::Refused;
use stop::Place;

/// A connection's stack. Measured need: 32 KiB for a plain request, 48 KiB with TLS to the upstream; the rest is for
/// nested JSON (128 levels deep), for hooks, and for builds that are not optimised. Only touched pages take memory.
const STACK_SIZE: usize = 256 * 1024;

/// How long to leave the listener alone after it failed for want of descriptors or memory: it stays readable, and
/// would be asked again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
struct Shared {
    handler: Arc<dyn Handler>,
    options: Options,
    stop: Stop,
}

/// What the accepting thread remembers.
#[derive(Default)]
struct Door {
    refused: Refused,
    /// Whether the last attempt failed. The log is told of the first failure only, not ten times a second.
    is_failing: bool,
}

/// Serves until it is told to stop; see [`Stop`] for how that goes.
///
/// # Errors
/// A listener that cannot be waited for. What fails for one connection ends that one alone.
pub fn run(listener: TcpListener, handler: Arc<dyn Handler>, options: Options, stop: Stop) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let shared = Arc::new(Shared { handler, options, stop });
    let mut door = Door::default();
    while !shared.stop.is_triggered() {
        stop::wait_readable(&listener, &shared.stop, door.refused.next_release())?;
        door.refused.release(Instant::now());
        accept(&listener, &shared, &mut door);
    }
    // From here on clients that connect are told by their own system that nobody listens.
    drop(listener);
    let left = shared.stop.drain(options.drain);
    if left > 0 {
        log::warn!("stopped with {left} connections still busy");
    }
    Ok(())
}

/// [`run`] in a thread of its own.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    name: &str,
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    options: Options,
    stop: Stop,
) -> io::Result<()> {
    background(name, move || {
        if let Err(error) = run(listener, handler, options, stop) {
            log::error!("a listener has failed: {error}");
        }
    })
}

/// Runs `work` in a thread of its own, which ends with it.
///
/// # Errors
/// The thread cannot be started.
pub fn background(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_string()).spawn(work).map(|_| ())
}

/// Runs `work` again and again, after a pause each, in a thread of its own that ends with the program.
///
/// # Errors
/// The thread cannot be started.
pub fn every(name: &str, pause: Duration, mut work: impl FnMut() + Send + 'static) -> io::Result<()> {
    background(name, move || {
        loop {
            std::thread::sleep(pause);
            work();
        }
    })
}

/// Takes the next connection, if there is one.
fn accept(listener: &TcpListener, shared: &Arc<Shared>, door: &mut Door) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    match listener.accept() {
        Ok((stream, client)) => {
            door.is_failing = false;
            // A socket on [::] takes IPv4 too, and calls 192.168.1.7 ::ffff:192.168.1.7: one machine has one address.
            let client = SocketAddr::new(client.ip().to_canonical(), client.port());
            if let Err(stream) = admit(stream, client, shared) {
                door.refused.refuse(stream, client);
            }
        }
        Err(error)
            if matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted | ConnectionReset) => {}
        Err(error) => {
            if !std::mem::replace(&mut door.is_failing, true) {
                log::error!("cannot accept connections: {error}");
            }
            shared.stop.pause(ACCEPT_PAUSE);
        }
    }
}

/// Gives the connection its thread, or gives it back where there is no place or no thread for it.
fn admit(stream: TcpStream, client: SocketAddr, shared: &Arc<Shared>) -> Result<(), TcpStream> {
    let Some(place) = Place::take(&shared.stop, shared.options.connections_max) else {
        return Err(stream);
    };
    let shared = Arc::clone(shared);
    // The stream follows once the thread is there: a thread that cannot start would take it to its grave.
    let (hand_over, handed_over) = mpsc::sync_channel(1);
    let spawned = std::thread::Builder::new().name("client".into()).stack_size(STACK_SIZE).spawn(move || {
        let _place = place;
        if let Ok(stream) = handed_over.recv() {
            client::converse(stream, client, &shared);
        }
    });
    match spawned {
        Ok(_) => hand_over.send(stream).map_err(|unsent| unsent.0),
        Err(error) => {
            log::error!("cannot start a thread for a connection: {error}");
            Err(stream)
        }
    }
}

#[cfg(test)]
mod tests;
