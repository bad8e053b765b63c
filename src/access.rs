//! Access control: the clients' keys, the web pages that may send requests, and the address of a request's client.
//!
//! This module knows the headers that carry these; its caller supplies the keys and lists. No other module reads a key
//! from a request, so that hooks and the log name the owner of exactly the key that admitted it.

mod address;
mod guesses;
mod keys;
mod limits;
mod page;
mod sessions;

pub use address::Network;
pub use guesses::Guesses;
pub use keys::{INVALID_KEY, Keys, OWN_KEY_HEADER, bearer};
pub use limits::LimitCounts;
pub use page::{HostName, Origin, check_content_type};
pub use sessions::PageSessions;

use std::net::IpAddr;

use crate::error::Error;
use crate::http::Request;

/// The settings that decide which requests are admitted.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The keys of clients.
    pub keys: Keys,
    /// Host names and addresses that are served without keys, in addition to loopback addresses and our own.
    pub hosts: Vec<HostName>,
    /// Origins whose web pages may send requests.
    pub origins: Vec<Origin>,
    /// Proxies whose `X-Forwarded-For` is trusted.
    pub proxies: Vec<Network>,
}

impl Access {
    /// Refuses requests from web pages that may not send any. `local` gives the address that the connection was made
    /// to. If the page's origin is listed, returns that origin: the browser must be told of it. `is_page`: the request is
    /// for a page that a person may reach by a link on another site.
    ///
    /// # Errors
    /// 403 for a foreign `Origin` or `Sec-Fetch-Site`, or, if no keys are configured, a foreign `Host`.
    pub fn admit_page(
        &self,
        request: &Request,
        local: impl Fn() -> Option<IpAddr>,
        is_page: bool,
    ) -> Result<Option<&Origin>, Error> {
        if self.keys.is_empty() {
            page::check_host(request, &self.hosts, local)?;
        }
        page::check_origin(request, &self.origins, is_page)
    }

    /// True if this is the address of a trusted proxy, which brings many clients.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.proxies.iter().any(|proxy| proxy.contains(peer))
    }

    /// The client's address. It is `peer`, the other end of the connection, unless `peer` is a trusted proxy.
    pub fn client_address(&self, request: &Request, peer: IpAddr) -> IpAddr {
        address::of_client(request, peer, &self.proxies)
    }
}
