//! The listening side: accepts connections and gives each a thread.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handler::{Handler, ServerLimits, ServerShared};
use super::heartbeat::Heartbeat;
use super::refused::RefusedClients;
use super::stop::{ConnectionSlot, StopHandle};
use super::table::{Full, TableLimits};
use super::tls::ServerTls;
use super::{client, stop};
use crate::http::Socket;
use crate::threads;

/// The size of a connection's stack, in bytes. A plain request needs 32 KiB, and 48 KiB with TLS to the upstream
/// (measured); the rest is for nested JSON (128 levels deep), hooks, and unoptimised builds. Only touched pages take
/// memory.
const STACK_SIZE: usize = 256 * 1024;

/// The pause after the listener failed because descriptors or memory ran out. It stays readable, so without a pause it
/// would be asked again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TOO_MANY: &str = "too many connections";

/// The state of the accepting thread.
#[derive(Default)]
struct Door {
    refused: RefusedClients,
    /// True if the last attempt failed. Only the first failure is logged, not ten a second.
    is_failing: bool,
}

/// A socket to accept connections on, with or without TLS.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// The certificate for TLS. `None`: plain HTTP.
    pub tls: Option<Arc<ServerTls>>,
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Listener { socket, tls: None }
    }
}

/// Serves until `stop` is triggered; see [`StopHandle`] for the order of the end.
///
/// # Errors
/// The listener cannot be waited for. A failure of one connection ends only that connection.
pub fn run(
    listener: impl Into<Listener>,
    handler: Arc<dyn Handler>,
    options: ServerLimits,
    stop: StopHandle,
    heartbeat: &Heartbeat,
) -> io::Result<()> {
    let Listener { socket: listener, tls } = listener.into();
    listener.set_nonblocking(true)?;
    let shared = Arc::new(ServerShared { handler, options, stop, tls });
    let mut door = Door::default();
    while !shared.stop.is_ending() {
        let turn = [heartbeat.beat(), door.refused.next_release()].into_iter().flatten().min();
        stop::wait_readable(&listener, &shared.stop, turn)?;
        door.refused.release(Instant::now());
        accept(&listener, &shared, &mut door);
    }
    // From here on the system refuses new connections, unless another process has this socket too.
    drop(listener);
    let left = shared.stop.drain(options.drain);
    if left > 0 {
        log::warn!("stopped with {left} connections still busy; their clients were told to try again");
        shared.stop.cut();
    }
    Ok(())
}

/// Calls [`run`] in a thread of its own.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    name: &str,
    listener: impl Into<Listener>,
    handler: Arc<dyn Handler>,
    options: ServerLimits,
    stop: StopHandle,
    heartbeat: Heartbeat,
) -> io::Result<()> {
    let listener = listener.into();
    threads::background(name, move || {
        if let Err(error) = run(listener, handler, options, stop, &heartbeat) {
            log::error!("a listener has failed: {error}");
        }
    })
}

/// Takes the next connection, if there is one.
fn accept(listener: &TcpListener, shared: &Arc<ServerShared>, door: &mut Door) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    match listener.accept() {
        Ok((stream, client)) => {
            door.is_failing = false;
            // A socket on [::] takes IPv4 too, and calls 192.168.1.7 ::ffff:192.168.1.7: one machine has one address.
            let client = SocketAddr::new(client.ip().to_canonical(), client.port());
            let socket = Socket::new(stream);
            if let Err(reason) = admit(&socket, client, shared) {
                door.refused.refuse(socket, client, (reason, shared.tls.is_some()));
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

/// Starts the connection's thread.
///
/// # Errors
/// The reason for a refusal: a limit is reached, or no thread can be started.
fn admit(socket: &Socket, client: SocketAddr, shared: &Arc<ServerShared>) -> Result<(), &'static str> {
    let ServerLimits { connections_max, connections_per_address_max, .. } = shared.options;
    // A reverse proxy on this machine brings all clients from one address.
    let is_shared = client.ip().is_loopback() || shared.handler.is_shared(client.ip());
    let per_address = (!is_shared).then_some(connections_per_address_max);
    let limits = TableLimits { all: connections_max, per_address };
    let slot =
        ConnectionSlot::take(&shared.stop, socket, client.ip(), limits).map_err(|full| match full {
            Full::Table => TOO_MANY,
            Full::Address => "too many connections from this address",
        })?;
    let (socket, shared) = (socket.clone(), Arc::clone(shared));
    let builder = std::thread::Builder::new().name("client".into()).stack_size(STACK_SIZE);
    let spawned = builder.spawn(move || client::converse(socket, client, &shared, &slot));
    spawned.map(|_| ()).map_err(|error| {
        log::error!("cannot start a thread for a connection: {error}");
        TOO_MANY
    })
}
