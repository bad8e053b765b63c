//! A thin wrapper of epoll that knows sockets by numbers.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{Timespec, epoll};

/// One epoll instance.
pub(crate) struct Epoll(OwnedFd);

/// Interest in bytes and in the other side's end; with `writes` also in room to write.
pub(crate) fn interest(writes: bool) -> epoll::EventFlags {
    let reads = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
    if writes { reads | epoll::EventFlags::OUT } else { reads }
}

impl Epoll {
    pub(crate) fn new() -> Epoll {
        Epoll(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap())
    }

    pub(crate) fn add(&self, socket: impl AsFd, number: usize, flags: epoll::EventFlags) {
        epoll::add(&self.0, socket, epoll::EventData::new_u64(u64::try_from(number).unwrap()), flags)
            .unwrap();
    }

    pub(crate) fn change(&self, socket: impl AsFd, number: usize, flags: epoll::EventFlags) {
        epoll::modify(&self.0, socket, epoll::EventData::new_u64(u64::try_from(number).unwrap()), flags)
            .unwrap();
    }

    /// Waits, and appends the events that happened to `events`.
    pub(crate) fn wait(&self, events: &mut Vec<epoll::Event>, timeout: Option<&Timespec>) {
        let mut room = [MaybeUninit::uninit(); 512];
        match epoll::wait(&self.0, &mut room, timeout) {
            Ok((happened, _)) => events.extend_from_slice(happened),
            Err(rustix::io::Errno::INTR) => {}
            error @ Err(_) => _ = error.unwrap(),
        }
    }
}
