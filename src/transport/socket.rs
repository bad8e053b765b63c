//! A socket for a new connection, which does not block and which programs that are started do not inherit.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// A TCP socket for this peer's kind of address.
///
/// # Errors
/// No descriptors are left, or the system does not speak this kind of address.
pub(super) fn tcp_socket(peer: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    prepared(family)
}

#[cfg(target_os = "linux")]
fn prepared(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
}

/// Not every system takes both wishes with the call that makes the socket (macOS does not).
#[cfg(not(target_os = "linux"))]
fn prepared(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::empty(), None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}
