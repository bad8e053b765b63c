//! Decides which requests of web pages are served.
//!
//! A browser lets every page of the web send requests to this machine. It sends the page's origin along and hides the
//! answer from the page, but by then the request has been served. And a page whose host name is changed to resolve to
//! this machine's address (DNS rebinding) has the same origin as this server, so it can even read the answers. So these
//! are refused:
//!
//! | header | refused with 403 |
//! |---|---|
//! | `Origin` | any other than this server's own and the listed ones |
//! | `Sec-Fetch-Site` | if no origin is listed: any other than `same-origin` and `none` (an address that a person typed), except for a link to the live page |
//! | `Host` | if no keys are configured: a name that is neither `localhost` nor listed, and an address that is neither loopback nor listed nor the one that the connection was made to |
//!
//! With keys, `Host` need not be checked, because a page does not have a key. A request without these headers does not
//! come from a browser. Bodies of the types that a page may send without a preflight are refused as well: see
//! [`check_content_type`].

use std::net::IpAddr;
use std::str::FromStr;

use super::address::parse_address;
use crate::error::{Error, Kind, Retry};
use crate::http::Request;

/// The most bytes of a header that an error repeats.
const SHOWN_MAX: usize = 100;

/// A host name or an address of this server, from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

impl FromStr for HostName {
    type Err = String;

    /// # Errors
    /// The text is not a name or an address, or has a port.
    fn from_str(text: &str) -> Result<Self, String> {
        let bracketed = || Authority::parse(&format!("[{text}]")).map(|_| HostName(format!("[{text}]")));
        match Authority::parse(text) {
            Some(Authority { port: None, .. }) => Ok(HostName(text.to_string())),
            Some(_) => Err(format!("'{text}' has a port: write the host alone, every port of it is served")),
            None => bracketed().ok_or_else(|| {
                format!("'{text}' is not a host name or an address, such as box.lan or 192.168.1.7")
            }),
        }
    }
}

/// An origin whose web pages may send requests, from the command line: `http://localhost:3000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// The origin as browsers write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = String;

    /// # Errors
    /// The text is not a scheme and a host, with or without a port.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is not the origin of a web page, such as https://chat.example or http://localhost:3000"
            )
        };
        let lower = text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
        let (scheme, rest) = lower.split_once("://").ok_or_else(wrong)?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        // Browser extensions and desktop programs have schemes of their own, followed by text of any form.
        let is_host =
            rest.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@' | '*' | ','));
        if !is_scheme || !is_host || rest.is_empty() {
            return Err(wrong());
        }
        let Some(default) = default_port(scheme) else { return Ok(Origin(lower)) };
        let authority = Authority::parse(rest).ok_or_else(wrong)?;
        let rest = if authority.port == Some(default) {
            rest.rsplit_once(':').map_or(rest, |(host, _)| host)
        } else {
            rest
        };
        Ok(Origin(format!("{scheme}://{rest}")))
    }
}

/// The default port of a scheme, which origins and hosts leave out.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[derive(Clone, Copy, Debug)]
enum Host<'t> {
    Address(IpAddr),
    /// The name, without the dot that may end a fully qualified one.
    Name(&'t str),
}

/// A host and a port, as in `Host` and in URLs.
#[derive(Clone, Copy, Debug)]
struct Authority<'t> {
    host: Host<'t>,
    port: Option<u16>,
}

impl<'t> Authority<'t> {
    /// Parses a host and a port. `None`: the text is something else, or not written as browsers write it.
    fn parse(text: &'t str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (Host::Address(parse_address(address).filter(|_| address.contains(':'))?), port)
            }
            None => {
                let (name, port) = text.split_at_checked(text.find(':').unwrap_or(text.len()))?;
                let name = name.strip_suffix('.').unwrap_or(name);
                let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
                if name.is_empty() || !name.chars().all(is_plain) {
                    return None;
                }
                (parse_address(name).map_or(Host::Name(name), Host::Address), port)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            _ => return None,
        };
        Some(Authority { host, port })
    }
}

impl Host<'_> {
    fn is(self, other: Host<'_>) -> bool {
        match (self, other) {
            (Host::Address(own), Host::Address(other)) => own == other,
            (Host::Name(own), Host::Name(other)) => own.eq_ignore_ascii_case(other),
            _ => false,
        }
    }

    /// True for a name that means the local machine on every machine, or for a loopback address.
    fn is_loopback(self) -> bool {
        match self {
            Host::Address(address) => address.is_loopback(),
            Host::Name(name) => {
                let last = name.rsplit('.').next().unwrap_or_default();
                last.eq_ignore_ascii_case("localhost")
            }
        }
    }
}

/// Refuses a request to a host that is not ours. `local` gives the address that the connection was made to; it is
/// called only if the answer depends on it. An address in `Host` is safe from DNS rebinding, since no name server is
/// involved.
///
/// # Errors
/// 403, with advice on what to do.
pub(super) fn check_host(
    request: &Request,
    listed: &[HostName],
    local: impl Fn() -> Option<IpAddr>,
) -> Result<(), Error> {
    let is_local = |address: IpAddr| local().is_some_and(|local| local.to_canonical() == address);
    let sent = request.headers.values("host").filter(|host| !host.is_empty());
    let hosts = request.authority.as_deref().map(str::as_bytes).into_iter().chain(sent);
    for bytes in hosts {
        let authority = std::str::from_utf8(bytes).ok().and_then(Authority::parse);
        let is_ours = authority.is_some_and(|Authority { host, .. }| {
            let listed = || listed.iter().filter_map(|HostName(name)| Authority::parse(name));
            host.is_loopback()
                || listed().any(|listed| listed.host.is(host))
                || matches!(host, Host::Address(address) if is_local(address))
        });
        if !is_ours {
            return Err(foreign_host(bytes));
        }
    }
    Ok(())
}

fn foreign_host(host: &[u8]) -> Error {
    let host = shown(host);
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host.as_str(),
    };
    refusal(format!(
        "host: '{host}' is not served without keys, as a web page could have chosen it; use a loopback address, or start sparkgap with --allow-host {name} or --api-key-file"
    ))
}

/// Refuses a request of a web page that may not send any. Returns the page's origin if it is listed. `is_page`: a link on
/// another site may lead here.
///
/// # Errors
/// 403, with advice on what to do.
pub(super) fn check_origin<'o>(
    request: &Request,
    listed: &'o [Origin],
    is_page: bool,
) -> Result<Option<&'o Origin>, Error> {
    let mut origins = request.headers.values("origin");
    if let Some(bytes) = origins.next() {
        let is_single = origins.next().is_none();
        let found = listed.iter().find(|origin| bytes.eq_ignore_ascii_case(origin.0.as_bytes()));
        match found {
            Some(origin) if is_single => return Ok(Some(origin)),
            _ if is_single && is_own(bytes, request.host()) => {}
            _ => {
                let origin = shown(bytes);
                return Err(refusal(format!(
                    "origin: web pages of '{origin}' are not served; start sparkgap with --allow-origin ORIGIN if they should be"
                )));
            }
        }
    }
    let is_own_site =
        |site: &[u8]| site.eq_ignore_ascii_case(b"same-origin") || site.eq_ignore_ascii_case(b"none");
    match request.headers.values("sec-fetch-site").find(|site| !is_own_site(site)) {
        None => Ok(None),
        Some(_) if is_page && is_navigation(request) => Ok(None),
        Some(site) => Err(refusal(format!(
            "sec-fetch-site: '{}': web pages of other sites are not served; start sparkgap with --allow-origin ORIGIN if they should be",
            shown(site)
        ))),
    }
}

/// True if a person's browser opens the answer as a page of its own: the site with the link gets nothing of it. A frame has
/// another destination, and a script cannot set these headers.
fn is_navigation(request: &Request) -> bool {
    let is = |name: &str, wanted: &[u8]| {
        let mut values = request.headers.values(name);
        values.next() == Some(wanted) && values.next().is_none()
    };
    matches!(request.method.as_str(), "GET" | "HEAD")
        && is("sec-fetch-mode", b"navigate")
        && is("sec-fetch-dest", b"document")
}

/// True if an origin is this server's own: the host and port that the request went to. Both schemes are accepted,
/// because a reverse proxy may have terminated TLS.
fn is_own(origin: &[u8], host: Option<&str>) -> bool {
    let Some((scheme, origin)) = std::str::from_utf8(origin).ok().and_then(|text| text.split_once("://"))
    else {
        return false;
    };
    let Some(default) = default_port(scheme) else { return false };
    let (Some(origin), Some(host)) = (Authority::parse(origin), host.and_then(Authority::parse)) else {
        return false;
    };
    origin.host.is(host.host) && origin.port.unwrap_or(default) == host.port.unwrap_or(default)
}

/// Refuses a body of a type that a page, or a form on it, may send without a preflight. A body without a type is
/// accepted: the origin has been checked, and simple clients send no type.
///
/// # Errors
/// 415, with the type to send.
pub fn check_content_type(request: &Request) -> Result<(), Error> {
    const FORMS: [&str; 3] = ["text/plain", "application/x-www-form-urlencoded", "multipart/"];
    for value in request.headers.values("content-type") {
        let kind = value.split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default().trim_ascii();
        let starts_with = |form: &str| {
            kind.get(..form.len()).is_some_and(|start| start.eq_ignore_ascii_case(form.as_bytes()))
        };
        let is = |form: &str| starts_with(form) && (form.ends_with('/') || kind.len() == form.len());
        if FORMS.into_iter().any(is) {
            let what = format!(
                "content-type: '{}' is not accepted; send application/json (with curl: -H 'content-type: application/json')",
                shown(kind)
            );
            return Err(Error::invalid(what).with_status(415).retry(Retry::Never));
        }
    }
    Ok(())
}

fn refusal(message: String) -> Error {
    Error::new(Kind::Permission, message).retry(Retry::Never)
}

/// A header as an error repeats it: escaped, and cut to [`SHOWN_MAX`] bytes.
fn shown(value: &[u8]) -> String {
    value.get(..SHOWN_MAX).unwrap_or(value).escape_ascii().to_string()
}

#[cfg(test)]
mod tests;
