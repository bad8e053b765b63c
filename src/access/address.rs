//! Addresses: networks as an operator writes them, and the address of a client behind trusted proxies.
//!
//! An IPv4 address that was mapped into IPv6 (`::ffff:192.168.1.7`) is treated as the IPv4 address everywhere in this
//! module.

use std::net::IpAddr;
use std::str::FromStr;

use crate::http::Request;

/// One address, or all addresses with a common prefix: `192.168.1.7`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// The number of leading bits to compare.
    bits: u8,
}

/// The bits before the IPv4 address in an IPv6 address that maps it.
const MAPPED_BITS: u8 = 96;

impl FromStr for Network {
    type Err = String;

    /// # Errors
    /// The text is not an address, or its prefix is longer than an address.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not an address or a network, such as 192.168.1.7 or 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| wrong())?;
        let address = written.to_canonical();
        let bits = match bits {
            Some(bits) if written != address => Some(bits.checked_sub(MAPPED_BITS).ok_or_else(wrong)?),
            bits => bits,
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most { Err(wrong()) } else { Ok(Network { address, bits }) }
    }
}

impl Network {
    pub(super) fn contains(self, address: IpAddr) -> bool {
        let bits = u32::from(self.bits);
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// The address of the client whose request came over a connection from `peer`. Each trusted proxy appends the address
/// of its own peer to `X-Forwarded-For`. So, read from the end, the first address that is not a trusted proxy is the
/// client. Entries before it, or before an entry that is not an address, are unverified claims and are ignored.
pub(super) fn of_client(request: &Request, peer: IpAddr, proxies: &[Network]) -> IpAddr {
    let mut client = peer.to_canonical();
    if proxies.is_empty() {
        return client;
    }
    let lines: Vec<&[u8]> = request.headers.values("x-forwarded-for").collect();
    let entries = lines.into_iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
        if !proxies.iter().any(|proxy| proxy.contains(client)) {
            break;
        }
        match std::str::from_utf8(entry).ok().and_then(parse_entry) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// Parses an address with or without a port; an IPv6 address may have brackets.
fn parse_entry(text: &str) -> Option<IpAddr> {
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        // Several colons without brackets: an IPv6 address without a port.
        None => match text.find(':') {
            Some(at) if text.rfind(':') == Some(at) => text.split_at_checked(at)?,
            _ => (text, ""),
        },
    };
    let is_port = |port: &str| port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    if port.is_empty() || is_port(port) { parse_address(address) } else { None }
}

/// Parses an address without brackets. Ignores the zone of a link-local address (`fe80::1%eth0`).
pub(super) fn parse_address(text: &str) -> Option<IpAddr> {
    let address: IpAddr = match text.split_once('%') {
        Some((address, _)) => IpAddr::V6(address.parse().ok()?),
        None => text.parse().ok()?,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for (network, inside, outside) in [
            ("192.168.1.7", "192.168.1.7", "192.168.1.8"),
            ("192.168.1.7", "::ffff:192.168.1.7", "::1"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3/8", "10.0.0.0", "9.255.255.255"),
            ("::ffff:10.0.0.0/104", "10.1.1.1", "11.0.0.0"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "127.0.0.1"),
            ("10.0.0.1/32", "10.0.0.1", "10.0.0.0"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("::/0", "2001:db8::1", "8.8.8.8"),
        ] {
            let parsed: Network = network.parse().unwrap();
            let address = |text: &str| text.parse::<IpAddr>().unwrap().to_canonical();
            assert!(parsed.contains(address(inside)), "{network} {inside}");
            assert!(!parsed.contains(address(outside)), "{network} {outside}");
        }
        for text in
            ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "10.0.0.0/-1", "::ffff:10.0.0.0/8"]
        {
            assert!(text.parse::<Network>().unwrap_err().contains("is not an address"), "{text:?}");
        }
    }

    #[test]
    fn the_last_address_that_is_not_a_trusted_proxy_is_the_client() {
        for (proxies, peer, forwarded, expected) in [
            // Ignore the header if no proxy is trusted, since anybody can send it.
            (&[][..], "10.0.0.1", &["1.2.3.4"][..], "10.0.0.1"),
            (&["10.0.0.0/8"], "192.168.1.7", &["1.2.3.4"], "192.168.1.7"),
            (&["10.0.0.0/8"], "10.0.0.1", &[], "10.0.0.1"),
            (&["10.0.0.0/8"], "10.0.0.1", &["1.2.3.4"], "1.2.3.4"),
            (&["10.0.0.0/8"], "::ffff:10.0.0.1", &["::ffff:1.2.3.4"], "1.2.3.4"),
            // The client sent the first address; the proxy added the second.
            (&["10.0.0.0/8"], "10.0.0.1", &["9.9.9.9, 1.2.3.4"], "1.2.3.4"),
            (&["10.0.0.0/8"], "10.0.0.1", &["9.9.9.9", "1.2.3.4"], "1.2.3.4"),
            (&["10.0.0.0/8"], "10.0.0.1", &["9.9.9.9, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),
            (&["10.0.0.0/8"], "10.0.0.1", &["9.9.9.9, 1.2.3.4 ,, 10.0.0.2,"], "1.2.3.4"),
            // If all addresses are trusted, the client is the first.
            (&["10.0.0.0/8"], "10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            (&["10.0.0.1", "::1"], "::1", &["1.2.3.4, 10.0.0.1"], "1.2.3.4"),
            // Ignore everything before an entry that is not an address.
            (&["10.0.0.0/8"], "10.0.0.1", &["unknown"], "10.0.0.1"),
            (&["10.0.0.0/8"], "10.0.0.1", &["1.2.3.4, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["10.0.0.0/8"], "10.0.0.1", &["\u{fc}"], "10.0.0.1"),
            (&["10.0.0.0/8"], "10.0.0.1", &["1.2.3.4:567"], "1.2.3.4"),
            (&["10.0.0.0/8"], "10.0.0.1", &["[2001:db8::1]:567"], "2001:db8::1"),
            (&["10.0.0.0/8"], "10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            (&["10.0.0.0/8"], "10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            (&["10.0.0.0/8"], "10.0.0.1", &["fe80::1%eth0"], "fe80::1"),
            (&["10.0.0.0/8"], "10.0.0.1", &["1.2.3.4:99999"], "10.0.0.1"),
            (&["10.0.0.0/8"], "10.0.0.1", &["1.2.3.4%eth0"], "10.0.0.1"),
            (&["10.0.0.0/8"], "10.0.0.1", &["[1.2.3.4"], "10.0.0.1"),
        ] {
            let networks: Vec<Network> = proxies.iter().map(|text| text.parse().unwrap()).collect();
            let request = Request {
                method: "POST".into(),
                path: "/".into(),
                query: None,
                authority: None,
                headers: forwarded.iter().map(|value| ("X-Forwarded-For", *value)).collect(),
            };
            let found = of_client(&request, peer.parse().unwrap(), &networks);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{proxies:?} {peer} {forwarded:?}");
        }
    }
}
