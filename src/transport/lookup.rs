//! Resolves host names by the system's resolver, which has no time limit and cannot notice that a client leaves.
//!
//! So the resolver works in a thread of its own, and the call waits for the thread as for a socket. A look-up whose
//! call has ended goes on until the resolver gives up; the number of look-ups at a time is limited.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::failure::{Failure, WHILE_LOOKING_UP};
use super::wait::{Call, Direction, Limit};
use crate::threads;
use crate::wake::Wake;

/// The number of addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;

/// The most look-ups at a time. Each takes milliseconds, unless the name server is dead; then it takes 5 s and more.
const LOOKUPS_MAX: usize = 64;

static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// The addresses of a host. A host that is an address needs no look-up.
///
/// # Errors
/// The resolver's error, as [`Failure::Refused`]; the client has left; the time to connect has passed; or this process
/// can do no further look-up.
pub(super) fn addresses(call: &Call, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let host = host.to_owned();
    in_background(call, move || Ok((host.as_str(), port).to_socket_addrs()?.take(ADDRESSES_MAX).collect()))
}

/// One place among the look-ups, until it is dropped.
struct LookupSlot;

impl LookupSlot {
    fn take() -> Result<LookupSlot, Failure> {
        let slot = LookupSlot;
        match LOOKUPS.fetch_add(1, Ordering::Relaxed) {
            0..LOOKUPS_MAX => Ok(slot),
            _ => Err(Failure::Exhausted("too many host names are being looked up".into())),
        }
    }
}

impl Drop for LookupSlot {
    fn drop(&mut self) {
        LOOKUPS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `work` in a thread and waits for its result, as long as the call may wait and its client stays.
fn in_background<T: Send + 'static>(
    call: &Call,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let exhausted = |error: io::Error| Failure::Exhausted(error.to_string());
    let slot = LookupSlot::take()?;
    let told: Arc<(Wake, Mutex<Option<io::Result<T>>>)> =
        Arc::new((Wake::new().map_err(exhausted)?, Mutex::new(None)));
    let teller = Arc::clone(&told);
    let started = threads::background("lookup", move || {
        let _slot = slot;
        let found = work();
        *teller.1.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        teller.0.wake();
    });
    started.map_err(exhausted)?;
    let limit = Limit { what: WHILE_LOOKING_UP, ..call.limit(Direction::Receive) };
    call.until_ready(told.0.as_fd(), Direction::Receive, limit)?;
    let found = told.1.lock().unwrap_or_else(PoisonError::into_inner).take();
    let found = found.unwrap_or_else(|| Err(io::Error::other("the look-up has failed")));
    found.map_err(|error| Failure::of_connect(&error))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::transport::wait::{CallLimits, Wait, minded, nobody};

    fn connecting(wait: &Rc<dyn Wait>, connect_timeout: Duration) -> Call {
        let call = Call::new(wait, CallLimits { connect_timeout, ..CallLimits::default() });
        call.begin_connect();
        call
    }

    #[test]
    fn addresses_and_names() {
        let call = connecting(&nobody(), Duration::from_secs(60));
        assert_eq!(addresses(&call, "127.0.0.1", 80).unwrap(), ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(addresses(&call, "::1", 80).unwrap(), ["[::1]:80".parse().unwrap()]);
        let found = addresses(&call, "localhost", 80).unwrap();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        assert_eq!(
            in_background(&call, || Err::<(), _>(io::Error::other("no such host"))),
            Err(Failure::Refused("no such host".into()))
        );
    }

    #[test]
    fn a_client_that_leaves_ends_the_wait_for_a_dead_name_server() {
        let (wait, client) = minded();
        let call = connecting(&wait, Duration::from_secs(60));
        let (answer, answered) = channel::<()>();
        let (begun, has_begun) = channel();
        let leaving = std::thread::spawn(move || {
            has_begun.recv().unwrap();
            drop(client);
        });
        let error = in_background(&call, move || {
            begun.send(()).unwrap();
            let _ = answered.recv();
            Ok(())
        });
        assert_eq!(error, Err(Failure::ClientGone));
        leaving.join().unwrap();
        drop(answer);
    }

    #[test]
    fn the_time_to_connect_limits_a_look_up() {
        let call = connecting(&nobody(), Duration::ZERO);
        let (answer, answered) = channel::<()>();
        let error = in_background(&call, move || {
            let _ = answered.recv();
            Ok(())
        });
        assert_eq!(error, Err(Failure::Timeout(WHILE_LOOKING_UP)));
        drop(answer);
    }
}
