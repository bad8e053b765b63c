//! Names for upstreams, from their addresses.

use std::collections::BTreeSet;

use super::upstream::{ImportedUpstream, SettingText};

/// Names each upstream after its host. The port is added if the host is an IP address or has several ports, and a
/// number if the names are still not unique.
pub(super) fn name_upstreams(upstreams: &mut [ImportedUpstream]) {
    let wished: Vec<(String, String)> =
        upstreams.iter().map(|upstream| host_and_authority(&upstream.url)).collect();
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for (upstream, (host, authority)) in upstreams.iter_mut().zip(&wished) {
        let is_address = host.starts_with('[') || host.chars().all(|c| c.is_ascii_digit() || c == '.');
        let alone = wished.iter().all(|(h, a)| h != host || a == authority);
        let base = if alone && !is_address { host } else { authority };
        let name = (1..)
            .map(|n| if n == 1 { base.clone() } else { format!("{base}-{n}") })
            .find(|name| !taken.contains(name.as_str()))
            .unwrap_or(base.clone());
        taken.insert(name.clone());
        upstream.name = name;
    }
}

fn host_and_authority(url: &SettingText) -> (String, String) {
    match url {
        SettingText::Environment(name) => {
            let name = name.to_ascii_lowercase();
            (name.clone(), name)
        }
        SettingText::Literal(url) => {
            let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
            let authority = rest.split('/').next().unwrap_or(rest);
            let authority = authority.rsplit('@').next().unwrap_or(authority);
            let host = match authority.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => host,
                _ => authority,
            };
            (host.to_owned(), authority.to_owned())
        }
    }
}
