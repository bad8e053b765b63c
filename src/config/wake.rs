//! The network card of a sleeping machine, and the address by which a magic packet reaches it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

/// The port of magic packets ("discard"), which nothing listens on: the network card itself reads the packet.
const PORT: u16 = 9;

/// A machine that a magic packet wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeTarget {
    card: [u8; 6],
    to: SocketAddr,
}

impl WakeTarget {
    /// The expected form, for errors.
    pub const FORM: &str = "the hardware address of its network card, such as \"aa:bb:cc:dd:ee:ff\", or with the address \
                            that the packet goes to: \"aa:bb:cc:dd:ee:ff@192.168.68.255:9\"";

    /// Reads `aa:bb:cc:dd:ee:ff` or `aa:bb:cc:dd:ee:ff@ADDRESS:PORT`. Without an address the packet goes to all machines of
    /// the local network, since one that sleeps answers no question for its address.
    pub fn parse(text: &str) -> Option<WakeTarget> {
        let everybody = SocketAddr::from((Ipv4Addr::BROADCAST, PORT));
        let (card, to) = match text.split_once('@') {
            Some((card, to)) => (card, to.parse().ok()?),
            None => (text, everybody),
        };
        let mut parts = card.split([':', '-']);
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+'))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        // Zeros stand for a missing address, and ones for all cards.
        let is_card = bytes != [0; 6] && bytes != [0xff; 6];
        (parts.next().is_none() && is_card).then_some(WakeTarget { card: bytes, to })
    }

    /// The address that the packet goes to.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// The magic packet: six bytes of ones, then the hardware address sixteen times.
    pub fn packet(&self) -> [u8; 102] {
        let mut packet = [0xff; 102];
        let (_, places) = packet.split_at_mut(self.card.len());
        places.chunks_exact_mut(self.card.len()).for_each(|place| place.copy_from_slice(&self.card));
        packet
    }
}

impl fmt::Display for WakeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.card;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x} by {}", self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused() {
        for (text, shown) in [
            ("aa:bb:cc:dd:ee:0f", "aa:bb:cc:dd:ee:0f by 255.255.255.255:9"),
            ("AA-BB-CC-DD-EE-0F", "aa:bb:cc:dd:ee:0f by 255.255.255.255:9"),
            ("aa:bb:cc:dd:ee:0f@192.168.68.255:7", "aa:bb:cc:dd:ee:0f by 192.168.68.255:7"),
            ("aa:bb:cc:dd:ee:0f@[ff02::1]:9", "aa:bb:cc:dd:ee:0f by [ff02::1]:9"),
        ] {
            assert_eq!(WakeTarget::parse(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "aa:bb:cc:dd:ee",
            "aa:bb:cc:dd:ee:ff:00",
            "aa:bb:cc:dd:ee:fg",
            "aabbccddeeff",
            "a:b:c:d:e:f",
            "+a:bb:cc:dd:ee:ff",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "aa:bb:cc:dd:ee:ff@192.168.68.255",
            "aa:bb:cc:dd:ee:ff@spark.local:9",
            "aa:bb:cc:dd:ee:ff@",
            "192.168.68.155",
        ] {
            assert_eq!(WakeTarget::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_packet_repeats_the_address() {
        let packet = WakeTarget::parse("aa:bb:cc:dd:ee:0f").unwrap().packet();
        assert_eq!(packet[..6], [0xff; 6]);
        let card = [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0x0f];
        assert!(packet[6..].chunks(6).all(|part| part == card));
    }
}
