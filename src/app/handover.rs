//! The running process's side of a reload by a new process: it hands its listening sockets over, and finishes what it has
//! begun.

use std::net::TcpListener;
use std::sync::Arc;

use super::kept::KeptState;
use super::status::Status;
use crate::server::StopHandle;
use crate::service::ControlSocket;
use crate::threads;

/// Listens for successors in a thread of its own, if the service manager has made a folder for the control socket. The
/// sockets are further descriptors of those that the server listens on.
///
/// # Errors
/// The thread cannot be started, or the control socket cannot be made.
pub(super) fn listen_for_successors(
    sockets: Vec<TcpListener>,
    status: Arc<Status>,
    stop: StopHandle,
    kept: Option<Arc<KeptState>>,
) -> std::io::Result<()> {
    let Some(control) = ControlSocket::listen()? else { return Ok(()) };
    threads::background("handover", move || {
        loop {
            match control.next_successor(&sockets) {
                Ok(Some(successor)) => {
                    // Before the word, since the new process opens the folder at it.
                    if let Some(kept) = &kept {
                        kept.hand_over();
                    }
                    match successor.let_serve() {
                        Ok(()) => break,
                        Err(error) => log::error!("the new process has ended: {error}; this one goes on"),
                    }
                    if let Some(kept) = &kept {
                        kept.take_back();
                    }
                }
                Ok(None) => log::error!("reload failed: the new process did not start; this one goes on"),
                Err(error) => return log::error!("reloads by a new process are not possible: {error}"),
            }
        }
        status.end();
        stop.retire();
        log::info!("a new process serves now; this one finishes {}", status.requests());
    })
}
