//! Addresses: those on this machine and in its own network, those outside, and those that belong to one client.
//!
//! Knows only texts and numbers: no name is looked up, so that `check` can say the same without a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Endings of names that public name servers never answer for.
const PRIVATE_ENDINGS: [&str; 5] = [".local", ".lan", ".internal", ".home.arpa", ".localhost"];

/// The host of a URL that lies outside this machine and its network, as it stands in the URL; `None` for a private one.
///
/// Private are loopback, RFC 1918, link-local, unique local and shared addresses (100.64.0.0/10: Tailscale), names without
/// a dot, and names that end in `.local`, `.lan`, `.internal`, `.home.arpa` or `.localhost`. Everything else counts as
/// outside, since a wrong warning does less harm than a missing one.
pub fn host_outside(url: &str) -> Option<&str> {
    let host = host(url);
    (!is_private(host)).then_some(host)
}

/// The warning about an upstream whose host lies outside.
pub fn leaves_the_lan(host: &str) -> String {
    format!("{host} is outside of this network: conversations that go there leave the LAN")
}

/// The host of a URL, with the brackets of an IPv6 address.
pub fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    }
}

/// The bits of an IPv6 address that name the network of one customer, whose machines choose the rest.
const V6_NETWORK_BITS: u32 = 64;

/// The part of a client's address that the client cannot choose: one client counts once by it, whatever addresses it uses.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let host_bits = u128::BITS - V6_NETWORK_BITS;
            Ipv6Addr::from_bits(address.to_bits() >> host_bits << host_bits).into()
        }
        address => address,
    }
}

fn is_private(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        // A zone (`%eth0`) names an interface of this machine.
        let address = address.split('%').next().unwrap_or(address);
        return address.parse().is_ok_and(is_private_v6);
    }
    if let Ok(address) = host.parse() {
        return match address {
            IpAddr::V4(address) => is_private_v4(address),
            IpAddr::V6(address) => is_private_v6(address),
        };
    }
    is_private_name(&host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase())
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    is_shared
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_unspecified()
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    match address.to_ipv4_mapped() {
        Some(address) => is_private_v4(address),
        None => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    }
}

fn is_private_name(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    // `127.1`, `0x7f000001`, `134744072`: the system reads these as addresses, in ways that are not worth repeating here.
    let is_number = last.starts_with(|c: char| c.is_ascii_digit())
        && last.trim_start_matches("0x").chars().all(|c| c.is_ascii_hexdigit());
    if name.is_empty() || is_number {
        return false;
    }
    !name.contains('.') || PRIVATE_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_this_machine_or_in_its_network() {
        for url in [
            "http://127.0.0.1:8000/v1",
            "http://127.9.9.9",
            "http://0.0.0.0:8000",
            "http://10.1.2.3/v1",
            "http://172.16.0.1",
            "http://172.31.255.255",
            "http://192.168.68.155:8888/v1",
            "http://169.254.1.1",
            "http://100.64.0.1",
            "http://100.127.255.254:8000/v1",
            "http://[::1]:8000/v1",
            "http://[::]:8000/v1",
            "http://[fe80::1%25eth0]:8000/v1",
            "http://[fd00::7]/v1",
            "http://[::ffff:192.168.1.2]/v1",
            "http://localhost:11434",
            "http://LOCALHOST.:11434",
            "http://spark",
            "http://box:8000/v1",
            "https://spark.local/v1",
            "https://spark.lan./v1",
            "http://vllm.svc.internal",
            "http://host.docker.internal:8000",
            "http://box.home.arpa:8000",
            "http://user:word@box:8000/v1",
            "http://cafe:8000/v1",
        ] {
            assert_eq!(host_outside(url), None, "{url}");
        }
    }

    #[test]
    fn what_lies_outside() {
        for (url, host) in [
            ("https://api.openai.com/v1", "api.openai.com"),
            ("https://api.openai.com.:443/v1", "api.openai.com."),
            ("http://8.8.8.8:8000/v1", "8.8.8.8"),
            ("http://172.32.0.1", "172.32.0.1"),
            ("http://172.15.0.1", "172.15.0.1"),
            ("http://192.169.0.1", "192.169.0.1"),
            ("http://100.63.0.1", "100.63.0.1"),
            ("http://100.128.0.1", "100.128.0.1"),
            ("http://11.0.0.1", "11.0.0.1"),
            ("http://[2001:db8::1]:8000/v1", "[2001:db8::1]"),
            ("http://[::ffff:8.8.8.8]/v1", "[::ffff:8.8.8.8]"),
            ("http://127.0.0.1@api.openai.com/v1", "api.openai.com"),
            ("http://10.0.0.1.nip.io/v1", "10.0.0.1.nip.io"),
            ("http://box.local.example.com", "box.local.example.com"),
            ("http://mylocal.com", "mylocal.com"),
            ("http://134744072/v1", "134744072"),
            ("http://010.0.0.1/v1", "010.0.0.1"),
            ("http://0x08080808/v1", "0x08080808"),
            ("http://127.1/v1", "127.1"),
        ] {
            assert_eq!(host_outside(url), Some(host), "{url}");
        }
    }
}
