//! Wakes a sleeping machine by a magic packet.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::config::WakeTarget;

/// Sends the magic packet. Nothing answers it, so nothing is waited for.
///
/// # Errors
/// The packet could not be sent: no route leads to the address, or the system does not allow broadcasts.
pub fn send_magic_packet(target: &WakeTarget) -> io::Result<()> {
    let socket = match target.to() {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    socket.set_nonblocking(true)?;
    socket.set_broadcast(true)?;
    socket.send_to(&target.packet(), target.to()).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_arrives() {
        let card = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = format!("aa:bb:cc:dd:ee:ff@{}", card.local_addr().unwrap());
        let target = WakeTarget::parse(&target).unwrap();
        send_magic_packet(&target).unwrap();
        let mut packet = [0; 200];
        let (size, _) = card.recv_from(&mut packet).unwrap();
        assert_eq!(packet[..size], target.packet());
    }

    #[test]
    fn an_address_that_cannot_be_reached_is_an_error() {
        // The port 0 stands for no port.
        let target = WakeTarget::parse("aa:bb:cc:dd:ee:ff@127.0.0.1:0").unwrap();
        assert!(send_magic_packet(&target).is_err());
    }
}
