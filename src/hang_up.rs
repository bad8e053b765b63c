//! The hang-up of the other end of a socket, as `poll` reports it: the end has closed at least its sending side.
//!
//! Bytes that wait to be read are not a hang-up: a client may send its next request while it waits for an answer.
//! Linux reports a hang-up by an event of its own; the others only report that a read returns at once, and a look at what
//! it would return tells the two apart.

use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;

#[cfg(not(target_os = "linux"))]
use self::portable as system;

/// The events to ask `poll` for on this socket.
#[inline]
pub fn events(socket: BorrowedFd<'_>) -> PollFlags {
    system::events(socket)
}

/// True if these events of `poll` show that the other end has hung up.
#[inline]
pub fn is_shown(socket: BorrowedFd<'_>, seen: PollFlags) -> bool {
    system::is_shown(socket, seen)
}

#[cfg(target_os = "linux")]
mod system {
    use std::os::fd::BorrowedFd;

    use rustix::event::PollFlags;

    pub(super) fn events(_: BorrowedFd<'_>) -> PollFlags {
        PollFlags::RDHUP
    }

    pub(super) fn is_shown(_: BorrowedFd<'_>, seen: PollFlags) -> bool {
        // Nothing but hang-ups and errors was asked for.
        !seen.is_empty()
    }
}

#[cfg(any(test, not(target_os = "linux")))]
mod portable {
    use std::mem::MaybeUninit;
    use std::os::fd::BorrowedFd;

    use rustix::event::PollFlags;
    use rustix::io::Errno;
    use rustix::net::RecvFlags;

    pub(super) fn events(socket: BorrowedFd<'_>) -> PollFlags {
        // `poll` would return at once for as long as bytes wait, so a hang-up behind them is not watched for: the next
        // write to this client notices it.
        if matches!(peek(socket), Ok(1..)) { PollFlags::empty() } else { PollFlags::IN }
    }

    pub(super) fn is_shown(socket: BorrowedFd<'_>, seen: PollFlags) -> bool {
        if seen.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return true;
        }
        seen.contains(PollFlags::IN) && !matches!(peek(socket), Ok(1..) | Err(Errno::AGAIN | Errno::INTR))
    }

    /// The number of bytes that a read would return, at most one; 0 after a hang-up.
    fn peek(socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        let mut byte = [MaybeUninit::uninit()];
        let (_, length) = rustix::net::recv(socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    use rustix::event::{PollFd, Timespec, poll};

    use super::*;

    type Events = fn(BorrowedFd<'_>) -> PollFlags;
    type IsShown = fn(BorrowedFd<'_>, PollFlags) -> bool;

    const WAYS: [(Events, IsShown); 2] = [(events, is_shown), (portable::events, portable::is_shown)];

    /// Both ends of a connection.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    /// Asks `poll` once; waits for an event if `is_coming`.
    fn has_hung_up((events, is_shown): (Events, IsShown), server: &TcpStream, is_coming: bool) -> bool {
        let socket = server.as_fd();
        let mut sockets = [PollFd::from_borrowed_fd(socket, events(socket))];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut sockets, (!is_coming).then_some(&now)).unwrap();
        is_shown(socket, sockets[0].revents())
    }

    #[test]
    fn a_client_that_closes_or_ends_its_side_has_hung_up() {
        for way in WAYS {
            let (server, client) = pair();
            assert!(!has_hung_up(way, &server, false));
            client.shutdown(Shutdown::Write).unwrap();
            assert!(has_hung_up(way, &server, true));
            let (server, client) = pair();
            drop(client);
            assert!(has_hung_up(way, &server, true));
        }
    }

    #[test]
    fn a_client_that_sends_its_next_request_has_not() {
        for way in WAYS {
            let (server, mut client) = pair();
            client.write_all(b"GET").unwrap();
            // The bytes are there once a look at them returns.
            assert_eq!(server.peek(&mut [0]).unwrap(), 1);
            assert!(!has_hung_up(way, &server, false));
        }
        // A request that arrives during the wait ends a wait for readable bytes, and is not a hang-up either.
        let (server, mut client) = pair();
        client.write_all(b"GET").unwrap();
        assert_eq!(server.peek(&mut [0]).unwrap(), 1);
        assert!(!portable::is_shown(server.as_fd(), PollFlags::IN));
        assert!(portable::events(server.as_fd()).is_empty(), "it would return at once, again and again");
    }
}
