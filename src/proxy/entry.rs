//! Admission: decides from the head of a request who sends it, for which resource, and whether it is admitted. Runs
//! before any of the body is read.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::access::{Access, INVALID_KEY, Origin, check_content_type};
use crate::activity::Caller;
use crate::admin::ui::UiPath;
use crate::config::UpstreamAuth;
use crate::error::{Error, Kind};
use crate::fleet::Served;
use crate::http::{LateRefusal, Request};
use crate::openai::is_form;
use crate::server::Client;
use crate::shown::ShownText;

use super::resource::Resource;
use super::state::Proxy;

/// Response headers that pages of a listed origin may read, in addition to those that browsers expose to every page.
const EXPOSED_HEADERS: &str = "request-id, retry-after, x-should-retry";

/// How long a browser may reuse the answer to a preflight, in seconds. Without this, each request costs another round
/// trip.
const PREFLIGHT_AGE_S: &str = "600";

/// Says how a client sends two keys.
const OWN_KEY_WORDS: &str = "send sparkgap's key as x-sparkgap-key, beside your own key or token";

/// The purpose of an admitted request.
pub(super) enum Admission<'p> {
    /// A resource, requested with one of its methods.
    Resource(Resource<'p>),
    /// A browser asks whether a page of a listed origin may send a request (a CORS preflight).
    Preflight,
}

impl Proxy {
    /// Checks, in this order: the web page, the path, the method, the key, the type of the body. The page comes first
    /// so that a foreign page is refused for every path and method, including those that need no key.
    ///
    /// # Errors
    /// 403, 404, 405, 401 or 415.
    pub(super) fn let_in<'p>(
        &self,
        client: &Client,
        request: &'p Request,
        caller: &mut Caller,
    ) -> Result<Admission<'p>, Error> {
        let access = self.access();
        let is_page = matches!(self.resource(request), Some(Resource::Ui(UiPath::Page)));
        let page = access.admit_page(request, || local_address(client), is_page)?;
        let is_told = tell_browser(client, &access, page);
        is_told.map_err(|error| Error::new(Kind::Api, "Internal server error").source(error))?;
        // A preflight is answered before the path is checked, because a page can read an error only if its preflight
        // succeeded. Preflights never carry a key.
        let is_preflight =
            request.method == "OPTIONS" && request.header("access-control-request-method").is_some();
        if page.is_some() && is_preflight {
            return Ok(Admission::Preflight);
        }
        let unknown = || {
            let path = request.path.strip_prefix(self.options.prefix.as_str()).unwrap_or_default();
            let is_other = ["/v1/messages/batches", "/v1/files"].iter().any(|other| path.starts_with(other));
            let more = if is_other {
                "; batches and files do not pass: send them to their server itself, or a single request to /v1/messages"
            } else {
                ""
            };
            let what = format!("Not found: {} {}{more}", request.method, ShownText::new(&request.path));
            Error::new(Kind::NotFound, what)
        };
        let resource = self.resource(request).ok_or_else(unknown)?;
        let methods = resource.methods();
        if !methods.contains(&request.method.as_str()) {
            let what = format!(
                "{} is not for {}; use {}",
                request.method,
                ShownText::new(&request.path),
                methods.join(" or ")
            );
            return Err(Error::new(Kind::MethodNotAllowed, what).allow(methods));
        }
        let is_open = resource.is_open() || (resource == Resource::Metrics && self.options.metrics_open);
        if !is_open {
            caller.user = access.keys.admit(request).map_err(|error| self.naming_own_key(error))?;
            client.borrow_mut().set_known();
        }
        if request.method == "POST" && !is_form_for(resource, request) {
            check_content_type(request)?;
        }
        Ok(Admission::Resource(resource))
    }

    /// Adds to the error for a wrong key where sparkgap's own key belongs, if clients also send a key for an upstream.
    fn naming_own_key(&self, error: Error) -> Error {
        let gateway = self.gateway();
        let takes = |served: &Arc<Served>| served.upstream().config().auth == UpstreamAuth::Client;
        match error.message == INVALID_KEY && gateway.upstreams().iter().any(takes) {
            true => Error::new(error.kind, format!("{INVALID_KEY}: {OWN_KEY_WORDS}")).retry(error.retry),
            false => error,
        }
    }

    /// The resource that a request names by its path.
    pub(super) fn resource<'p>(&self, request: &'p Request) -> Option<Resource<'p>> {
        request.path.strip_prefix(self.options.prefix.as_str()).and_then(Resource::find)
    }

    /// Refuses a wrong key, and lets the answer wait if its address sends many. Only this connection waits, and its place
    /// goes to others who need one. The address waits for its next answer even if the client leaves at once.
    pub(super) fn refuse_wrong_key(
        &self,
        client: &Client,
        address: IpAddr,
        error: Error,
        request_id: &str,
    ) -> io::Result<()> {
        let delay = {
            let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
            guesses.delay(address, Instant::now())
        };
        let client = &mut *client.borrow_mut();
        if delay.is_zero() {
            return client.respond_error(&error, request_id);
        }
        client.refuse_later(LateRefusal { delay, error, request_id: request_id.to_owned() });
        Ok(())
    }
}

/// True if the body is a form, and the resource takes forms. A web page could send one without a preflight; that is refused
/// by its origin.
fn is_form_for(resource: Resource<'_>, request: &Request) -> bool {
    let kind = request.header("content-type").unwrap_or_default();
    matches!(resource, Resource::Relayed(path) if path.takes_forms() && is_form(kind))
}

/// Adds the headers that let a browser show the answer to a page of a listed origin. As soon as an origin is listed,
/// answers differ by origin, so `vary` tells caches.
fn tell_browser(client: &Client, access: &Access, page: Option<&Origin>) -> io::Result<()> {
    if access.origins.is_empty() {
        return Ok(());
    }
    let mut client = client.borrow_mut();
    client.add_header("vary", "Origin")?;
    let Some(origin) = page else { return Ok(()) };
    client.add_header("access-control-allow-origin", origin.as_str())?;
    client.add_header("access-control-expose-headers", EXPOSED_HEADERS)
}

/// Answers a preflight. The origin is listed, so its pages may send any headers that they ask for. The key is checked
/// with the request that follows.
pub(super) fn answer_preflight(client: &Client, request: &Request, request_id: &str) -> io::Result<()> {
    let mut headers = vec![
        ("request-id", request_id),
        ("access-control-allow-methods", "GET, HEAD, POST"),
        ("access-control-max-age", PREFLIGHT_AGE_S),
    ];
    if let Some(names) = request.header("access-control-request-headers") {
        headers.push(("access-control-allow-headers", names));
    }
    // Chrome asks for this when a page from the internet sends a request to a machine of the local network.
    if request.header("access-control-request-private-network") == Some("true") {
        headers.push(("access-control-allow-private-network", "true"));
    }
    client.borrow_mut().respond(204, &headers, b"")
}

/// The server's own address on the client's connection.
fn local_address(client: &Client) -> Option<IpAddr> {
    client.borrow().stream().socket().stream().local_addr().ok().map(|address| address.ip())
}
