//! The listening side: accepts connections and gives each a thread.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::handler::{Handler, Options, Shared};
use super::refused::Refused;
use super::stop::{ConnectionSlot, Stop};
use super::{client, stop};
use crate::threads;

/// A connection's stack. Measured need: 32 KiB for a plain request, 48 KiB with TLS to the upstream; the rest is for
/// nested JSON (128 levels deep), for hooks, and for builds that are not optimised. Only touched pages take memory.
const STACK_SIZE: usize = 256 * 1024;

/// How long to leave the listener alone after it failed for want of descriptors or memory: it stays readable, and
/// would be asked again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    threads::background(name, move || {
        if let Err(error) = run(listener, handler, options, stop) {
            log::error!("a listener has failed: {error}");
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
    let Some(place) = ConnectionSlot::take(&shared.stop, shared.options.connections_max) else {
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
