//! A descriptor by which one thread wakes another that waits in `poll`: for a slot in a queue, or a look-up's answer.
//!
//! Knows nothing of what is waited for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// Readable from its first [`Wake::wake`] on.
#[derive(Debug)]
pub struct Wake(OwnedFd);

impl Wake {
    /// A descriptor that nobody has woken yet.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new() -> io::Result<Self> {
        Ok(Wake(eventfd(0, EventfdFlags::CLOEXEC)?))
    }

    /// Wakes whoever waits for it, now or later.
    pub fn wake(&self) {
        // An eventfd refuses a write only where its count would overflow, and then it is readable anyhow.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
