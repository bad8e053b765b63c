//! A descriptor by which one thread wakes another that waits in `poll`: for a slot in a queue, or a look-up's answer.
//!
//! Knows nothing of what is waited for. On Linux it is an eventfd, elsewhere a pair of sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

#[cfg(not(target_os = "linux"))]
use self::portable as system;

/// Readable from its first [`Wake::wake`] on.
#[derive(Debug)]
pub struct Wake(system::Signal);

impl Wake {
    /// A descriptor that nobody has woken yet.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Self> {
        system::Signal::new().map(Wake)
    }

    /// Wakes whoever waits for it, now or later.
    pub fn wake(&self) {
        self.0.set();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

    use rustix::event::{EventfdFlags, eventfd};

    #[derive(Debug)]
    pub(super) struct Signal(OwnedFd);

    impl Signal {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Signal(eventfd(0, EventfdFlags::CLOEXEC)?))
        }

        pub(super) fn set(&self) {
            // An eventfd refuses a write only where its count would overflow, and then it is readable anyhow.
            let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }

        pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

#[cfg(any(test, not(target_os = "linux")))]
mod portable {
    use std::io::{self, Write as _};
    use std::os::fd::{AsFd as _, BorrowedFd};
    use std::os::unix::net::UnixStream;

    #[derive(Debug)]
    pub(super) struct SocketSignal {
        readable: UnixStream,
        sender: UnixStream,
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) use SocketSignal as Signal;

    impl SocketSignal {
        pub(super) fn new() -> io::Result<Self> {
            let (readable, sender) = UnixStream::pair()?;
            sender.set_nonblocking(true)?;
            Ok(SocketSignal { readable, sender })
        }

        pub(super) fn set(&self) {
            // It refuses a byte only where its buffer is full, and then it is readable anyhow.
            let _ = (&self.sender).write(&[1]);
        }

        pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
            self.readable.as_fd()
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
        let mut sockets = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
        poll(&mut sockets, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn it_is_readable_once_it_was_woken_however_often() {
        let wake = Wake::new().unwrap();
        let portable = portable::SocketSignal::new().unwrap();
        assert!(!is_readable(wake.as_fd()) && !is_readable(portable.as_fd()));
        // More often than a socket's buffer has room for.
        for _ in 0..1_000_000 {
            portable.set();
        }
        wake.wake();
        wake.wake();
        assert!(is_readable(wake.as_fd()) && is_readable(portable.as_fd()));
    }
}
