//! Questions that no client waits for: small pages, by ureq.
//!
//! Each question has one deadline for everything, from the look-up of the host's name to the last byte, and a
//! connection of its own, so that it also shows whether the server accepts new connections. ARCHITECTURE.md says why
//! there are two HTTP clients.
//!
//! Both clients follow the same rules: the same authorities and provider for TLS, no proxy but the upstream's own, and no
//! redirect, so a key never goes to another host.

use std::io;
use std::time::Duration;

use ureq::{Error, Proxy, Timeout};

use super::call::{Endpoint, Path};
use super::failure::{Failure, WHILE_CONNECTING, WHILE_LOOKING_UP};
use crate::http::is_encoded;

/// The largest head of an answer, in bytes: as for calls.
const HEAD_SIZE_MAX: usize = 64 * 1024;

/// The redirects that are followed. Calls follow none, so facts from another place would not be about the server that
/// gets the calls; and a key is meant for one host.
const REDIRECTS_MAX: u32 = 0;

/// The limits of one question.
#[derive(Clone, Copy, Debug)]
pub struct QuestionLimits {
    /// For everything: name, connection, TLS, head and body.
    pub time: Duration,
    /// For the body, in bytes.
    pub size: usize,
}

/// A whole answer to a question.
#[derive(Debug)]
pub struct Page {
    /// The HTTP status; never that of a redirect.
    pub status: u16,
    /// `server`, as sent.
    pub server: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Endpoint {
    /// Asks for a page, and returns it whatever its status.
    ///
    /// # Errors
    /// The answer does not arrive within the limits, or cannot be read. Redirects and compressed bodies are not
    /// supported.
    pub fn question(&self, path: Path<'_>, limits: QuestionLimits) -> Result<Page, Failure> {
        let proxy = self.http_proxy().map(Proxy::new).transpose();
        let proxy = proxy.map_err(|error| Failure::Protocol(format!("http_proxy: {error}")))?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(REDIRECTS_MAX)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .tls_config(self.question_tls().cloned().unwrap_or_default())
            .timeout_global(Some(limits.time))
            .timeout_connect(Some(self.connect_timeout().min(limits.time)))
            .max_response_header_size(HEAD_SIZE_MAX)
            .max_idle_connections(0)
            .build()
            .new_agent();
        let mut request = agent.get(self.url(path));
        for (name, value) in self.headers() {
            request = request.header(name, value);
        }
        let fail = |error| failure(error, limits.size);
        let mut response = request.call().map_err(fail)?;
        let text = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let (status, server) = (response.status().as_u16(), text("server"));
        if (300..400).contains(&status) {
            let target = text("location").unwrap_or_default();
            return Err(self.without_keys(Failure::redirected(status, &target)));
        }
        if let Some(encoding) = text("content-encoding").filter(|encoding| is_encoded(encoding)) {
            return Err(self.without_keys(Failure::Encoded(encoding)));
        }
        let limit = u64::try_from(limits.size).unwrap_or(u64::MAX);
        let body = response.body_mut().with_config().limit(limit).read_to_vec().map_err(fail)?;
        Ok(Page { status, server, body })
    }
}

/// The same failure in the words of calls.
fn failure(error: Error, size_max: usize) -> Failure {
    match error {
        Error::Timeout(Timeout::Resolve) => Failure::Timeout(WHILE_LOOKING_UP),
        Error::Timeout(Timeout::Connect) => Failure::Timeout(WHILE_CONNECTING),
        Error::Timeout(_) => Failure::Timeout("before the end of the answer"),
        Error::ConnectProxyFailed(why) => {
            // It names the status twice: `proxy server responded 403/403`.
            let why = why.split('/').next().unwrap_or_default().replace("proxy server", "it");
            Failure::Refused(format!("the proxy does not connect to the server: {why}"))
        }
        Error::HostNotFound => Failure::Refused("the host name has no address".into()),
        Error::ConnectionFailed => Failure::Refused("the connection failed".into()),
        Error::BodyExceedsLimit(_) => Failure::TooLarge(size_max),
        Error::Rustls(error) => Failure::Tls(error.to_string()),
        Error::Tls(why) => Failure::Tls(why.to_owned()),
        Error::Io(error) => match (Failure::of_connect(&error), error.kind()) {
            (shortage @ Failure::Exhausted(_), _) => shortage,
            (
                refused,
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::AddrNotAvailable,
            ) => refused,
            // A look-up that fails has no kind of its own.
            (refused, _) if error.to_string().starts_with("failed to lookup address") => refused,
            // rustls wraps its errors in this kind.
            (_, io::ErrorKind::InvalidData) => Failure::Tls(error.to_string()),
            (_, _) => Failure::Reset(error.to_string()),
        },
        other => Failure::Protocol(other.to_string()),
    }
}
