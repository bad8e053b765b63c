//! The listening side: accepts connections and gives each a thread.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::handler::{Handler, ServerLimits, ServerShared};
use super::refused::RefusedClients;
use super::stop::{ConnectionSlot, StopHandle};
use super::{client, stop};
use crate::threads;

/// The size of a connection's stack, in bytes. A plain request needs 32 KiB, and 48 KiB with TLS to the upstream
/// (measured); the rest is for nested JSON (128 levels deep), hooks, and unoptimised builds. Only touched pages take
/// memory.
const STACK_SIZE: usize = 256 * 1024;

/// The pause after the listener failed because descriptors or memory ran out. It stays readable, so without a pause it
/// would be asked again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The state of the accepting thread.
#[derive(Default)]
struct Door {
    refused: RefusedClients,
    /// True if the last attempt failed. Only the first failure is logged, not ten a second.
    is_failing: bool,
}

/// Serves until `stop` is triggered; see [`StopHandle`] for the order of the end.
///
/// # Errors
/// The listener cannot be waited for. A failure of one connection ends only that connection.
pub fn run(
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    options: ServerLimits,
    stop: StopHandle,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let shared = Arc::new(ServerShared { handler, options, stop });
    let mut door = Door::default();
    while !shared.stop.is_triggered() {
        stop::wait_readable(&listener, &shared.stop, door.refused.next_release())?;
        door.refused.release(Instant::now());
        accept(&listener, &shared, &mut door);
    }
    // From here on the system refuses new connections: nobody listens.
    drop(listener);
    let left = shared.stop.drain(options.drain);
    if left > 0 {
        log::warn!("stopped with {left} connections still busy");
    }
    Ok(())
}

/// Calls [`run`] in a thread of its own.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn(
    name: &str,
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    options: ServerLimits,
    stop: StopHandle,
) -> io::Result<()> {
    threads::background(name, move || {
        if let Err(error) = run(listener, handler, options, stop) {
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

/// Starts the connection's thread. Returns the stream if the limit is reached or no thread can be started.
fn admit(stream: TcpStream, client: SocketAddr, shared: &Arc<ServerShared>) -> Result<(), TcpStream> {
    let Some(place) = ConnectionSlot::take(&shared.stop, shared.options.connections_max) else {
        return Err(stream);
    };
    let shared = Arc::clone(shared);
    // The stream is handed over once the thread runs: a thread that cannot start would drop the stream.
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
