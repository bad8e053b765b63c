//! The calls to one address: sends a request, retries once on a stale connection, and returns the response.
//!
//! Knows URLs, headers and the reuse of connections. Bodies are bytes; the callers know their meaning.

use std::fmt::{self, Write as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{HeaderName, HeaderValue};
use rustls::pki_types::ServerName;
use ureq::tls::TlsConfig;

use super::connection::UpstreamConnection;
use super::dial::ServerOrigin;
use super::extra::{ExtraHeaders, push_line};
use super::failure::Failure;
use super::idle::Idle;
use super::pulse::Pulse;
use super::response::{Response, send_request};
use super::tls::{TlsSettings, authorities_hash};
use super::wait::{Call, CallLimits, Wait};
use crate::config::{self, ConnectionSettings, Secret, ServerUrl, UpstreamProtocol};

/// Room for a request's head in bytes; enough for most.
const HEAD_SIZE: usize = 512;

/// A path at an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// Below the base URL: `/chat/completions`.
    Api(&'a str),
    /// Beside the base URL's `/v1`, such as vLLM's `/tokenize`.
    Root(&'a str),
}

/// Watches the calls to an [`Endpoint`], to find out whether another server answers there by now.
pub trait Watcher: Send + Sync {
    /// The server has answered, on a kept connection (`is_reused`) or on a new one.
    fn answered(&self, is_reused: bool);
    /// No connection could be made.
    fn refused(&self);
    /// A kept connection broke when it was used again.
    fn lost(&self);
    /// The server had closed a kept connection, which had been idle for this time.
    fn closed(&self, idle_for: Duration);
}

/// One address of a server, shared by all threads.
pub struct Endpoint {
    watcher: Option<Arc<dyn Watcher>>,
    name: String,
    options: CallLimits,
    origin: ServerOrigin,
    idle: Arc<Idle>,
    pulse: Arc<Pulse>,
    /// The TLS configuration of questions; `None`: no TLS.
    question_tls: Option<TlsConfig>,
    /// The hash of its own file of authorities.
    authorities: Option<u64>,
    /// The proxy of questions.
    http_proxy: Option<String>,
    /// The base URL's beginning: scheme, host and port.
    site: String,
    /// The base URL's path without a trailing slash.
    base: String,
    /// The headers of every request, the key among them, as they are sent.
    headers: String,
    /// The key, and the values of added headers, which may be keys.
    secrets: Vec<Secret>,
}

impl Endpoint {
    /// The address of a configured upstream; no connection is made yet.
    ///
    /// # Errors
    /// The URL or the key is invalid. The text says what is expected, and never contains the key.
    pub fn new(config: &config::UpstreamConfig, options: &CallLimits) -> Result<Self, String> {
        let fail = |why: String| format!("upstream '{}': {why}", config.name);
        let url = ServerUrl::parse(&config.url).map_err(|why| fail(format!("{why}: {EXPECTED}")))?;
        let mut headers = format!("host: {}\r\n{IDENTITY}", url.authority);
        let is_passed = config.protocol == UpstreamProtocol::Messages;
        if !is_passed {
            let own = &config.connection.headers;
            for (name, value) in HEADERS {
                if !own.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
                    push_line(&mut headers, name, value);
                }
            }
        }
        if let Some(key) = &config.api_key {
            let key = key.expose();
            if is_passed {
                push_header(&mut headers, "x-api-key", key).map_err(fail)?;
            }
            // Anthropic's API has its own header for keys; other servers, such as vLLM, read only the usual one.
            if !is_passed || !url.host.ends_with(ANTHROPIC) {
                push_header(&mut headers, "authorization", &format!("Bearer {key}")).map_err(fail)?;
            }
        }
        let name = config.name.clone();
        let base = url.path.clone();
        let site = format!("{}://{}", if url.is_secure { "https" } else { "http" }, url.authority);
        for (name, value) in &config.connection.headers {
            push_header(&mut headers, name, value.expose()).map_err(fail)?;
        }
        let (origin, question_tls) = origin(url, &config.connection).map_err(fail)?;
        let values = config.connection.headers.iter().map(|(_, value)| value);
        let secrets = config.api_key.iter().chain(values).cloned().collect();
        Ok(Endpoint {
            watcher: None,
            name,
            options: match config.timeout {
                Some(silence) => {
                    CallLimits { first_byte_timeout: silence, idle_timeout: silence, ..*options }
                }
                None => *options,
            },
            origin,
            question_tls,
            authorities: authorities_hash(&config.connection),
            http_proxy: config.connection.http_proxy.clone(),
            idle: Arc::default(),
            pulse: Arc::default(),
            site,
            base,
            headers,
            secrets,
        })
    }

    /// Adds a header to every request. Its value is never shown.
    ///
    /// # Errors
    /// The name or the value is not valid in a header.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, String> {
        push_header(&mut self.headers, name, value)?;
        self.secrets.push(Secret::new(value));
        Ok(self)
    }

    /// Hides the keys that this server gets in a text of it. A server may repeat them in an error, which goes to
    /// clients and into the log.
    pub fn hide_keys(&self, text: &mut String) {
        self.secrets.iter().for_each(|secret| secret.hide_in(text));
    }

    /// The same failure without the keys that the server may have repeated in it.
    pub(super) fn without_keys(&self, failure: Failure) -> Failure {
        failure.edit_words(|words| self.hide_keys(words))
    }

    /// Adds a watcher of the calls.
    pub fn watched_by(mut self, watcher: Arc<dyn Watcher>) -> Self {
        self.watcher = Some(watcher);
        self
    }

    /// Checks whether the server has closed the kept connections, and informs the watcher.
    pub fn notice_closed(&self) {
        if let Some(idle_for) = self.idle.notice_closed() {
            self.note(|watcher| watcher.closed(idle_for));
        }
    }

    fn note(&self, what: impl FnOnce(&dyn Watcher)) {
        if let Some(watcher) = &self.watcher {
            what(watcher.as_ref());
        }
    }

    /// Its configured name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The time limits of its calls.
    pub fn limits(&self) -> &CallLimits {
        &self.options
    }

    /// The time to connect.
    pub(super) fn connect_timeout(&self) -> Duration {
        self.options.connect_timeout
    }

    /// The TLS configuration of questions; `None`: no TLS.
    /// True if its own file of authorities, if it has one, still has the same content.
    pub fn has_current_authorities(&self, config: &config::UpstreamConfig) -> bool {
        self.authorities == authorities_hash(&config.connection)
    }

    pub(super) fn question_tls(&self) -> Option<&TlsConfig> {
        self.question_tls.as_ref()
    }

    /// The URL of the proxy that all connections go through.
    pub(super) fn http_proxy(&self) -> Option<&str> {
        self.http_proxy.as_deref()
    }

    /// The URL of a path.
    pub(super) fn url(&self, path: Path<'_>) -> String {
        let (base, path) = self.target(path);
        format!("{}{base}{path}", self.site)
    }

    /// The headers of every request except `host`, which belongs to the URL.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.headers.lines().filter_map(|line| line.split_once(": "));
        headers.filter(|(name, _)| *name != "host")
    }

    /// Sends JSON and returns the response once its body has begun, whatever its status.
    ///
    /// # Errors
    /// The response does not arrive, or cannot be read.
    pub fn post(&self, path: Path<'_>, body: &[u8], wait: &Rc<dyn Wait>) -> Result<Response, Failure> {
        self.post_with(path, &ExtraHeaders::default(), (JSON, body), wait)
    }

    /// Sends a body by [`Endpoint::post`], with further headers. `body` is its type, such as [`JSON`], and its bytes. A type that
    /// is not valid in a header is not sent.
    ///
    /// # Errors
    /// Those of [`Endpoint::post`].
    pub fn post_with(
        &self,
        path: Path<'_>,
        extra: &ExtraHeaders,
        body: (&str, &[u8]),
        wait: &Rc<dyn Wait>,
    ) -> Result<Response, Failure> {
        self.post_within(self.options, path, extra, body, wait)
    }

    /// Sends JSON with a question that needs no model. The time limits are short, since a late answer is worth nothing.
    ///
    /// # Errors
    /// Those of [`Endpoint::post`].
    pub fn ask(&self, path: Path<'_>, body: &[u8], wait: &Rc<dyn Wait>) -> Result<Response, Failure> {
        self.post_within(self.soon(), path, &ExtraHeaders::default(), (JSON, body), wait)
    }

    fn post_within(
        &self,
        options: CallLimits,
        path: Path<'_>,
        extra: &ExtraHeaders,
        (kind, body): (&str, &[u8]),
        wait: &Rc<dyn Wait>,
    ) -> Result<Response, Failure> {
        let mut head = self.head("POST", path);
        head.push_str(extra.lines());
        // Only a client's own type can be invalid.
        if HeaderValue::from_str(kind).is_ok() {
            // Writing to a String cannot fail.
            let _ = write!(head, "content-type: {kind}\r\n");
        }
        let _ = write!(head, "content-length: {}\r\n\r\n", body.len());
        self.exchange([head.as_bytes(), body], self.call(wait, options))
    }

    /// The time limits of calls that need no model.
    fn soon(&self) -> CallLimits {
        let timeout = self.options.discovery_timeout;
        CallLimits { first_byte_timeout: timeout, idle_timeout: timeout, ..self.options }
    }

    /// The two parts of a path, the base URL's and the rest.
    fn target<'p>(&'p self, path: Path<'p>) -> (&'p str, &'p str) {
        match path {
            Path::Api(path) => (&self.base, path),
            Path::Root(path) => (self.base.strip_suffix("/v1").unwrap_or(&self.base), path),
        }
    }

    /// A request's head, without the blank line and the headers that describe its body.
    fn head(&self, method: &str, path: Path<'_>) -> String {
        let (base, path) = self.target(path);
        let mut head = String::with_capacity(HEAD_SIZE);
        for part in [method, " ", base, path, " HTTP/1.1\r\n", &self.headers] {
            head.push_str(part);
        }
        head
    }

    fn call(&self, wait: &Rc<dyn Wait>, options: CallLimits) -> Call {
        Call::new(wait, options).watching(&self.pulse)
    }

    /// Ends all calls that wait for an answer now, because the server hangs. They fail within [`CallLimits::pulse_every`].
    pub fn give_up(&self) {
        self.pulse.give_up(Instant::now());
        self.idle.clear();
    }

    /// Notes that the server has stopped. The pooled connections to it are open and silent, so they are closed.
    fn note_stopped(&self, failure: &Failure) {
        if *failure == Failure::Stopped {
            self.idle.clear();
            self.note(|watcher| watcher.refused());
        }
    }

    /// Sends a request, and sends it again if the server had already closed the pooled connection.
    ///
    /// No other place sends a request again, and this one does so at most once. A connection that is lost at once was
    /// closed before the request arrived, so the server cannot have computed anything. A connection that is lost later,
    /// or that was opened for this request, may have been lost while the server worked on it.
    fn exchange(&self, request: [&[u8]; 2], call: Call) -> Result<Response, Failure> {
        let answered = self.exchange_once_or_again(request, call);
        answered
            .map_err(|failure| self.without_keys(failure))
            .inspect_err(|failure| self.note_stopped(failure))
    }

    fn exchange_once_or_again(&self, request: [&[u8]; 2], call: Call) -> Result<Response, Failure> {
        if let Some(connection) = self.idle.take(|idle_for| self.note(|watcher| watcher.closed(idle_for))) {
            match send_request(connection, request, &call) {
                Err(Failure::Reset(why)) if call.is_lost_at_once() => {
                    log::debug!("upstream {}: a pooled connection was stale: {why}", self.name());
                    // Its cause, such as a restart, may have closed all of them.
                    self.idle.clear();
                    self.note(|watcher| watcher.lost());
                }
                receiving => {
                    let receiving = receiving?;
                    self.note(|watcher| watcher.answered(true));
                    return Response::begin(receiving, call, &self.idle);
                }
            }
        }
        let connection = UpstreamConnection::open(&self.origin, &call).inspect_err(|failure| {
            if failure.is_refused() {
                self.note(|watcher| watcher.refused());
            }
        })?;
        let receiving = send_request(connection, request, &call)?;
        self.note(|watcher| watcher.answered(false));
        Response::begin(receiving, call, &self.idle)
    }
}

/// Shows neither the key nor the address, since it may appear in a log line.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The type of most bodies.
pub const JSON: &str = "application/json";

/// The end of the name of the host of Anthropic's API.
const ANTHROPIC: &str = "anthropic.com";

/// For every upstream. No compression, because it would delay events.
const IDENTITY: &str = "accept-encoding: identity\r\n";

/// Further headers for every upstream that does not get those of the client. One that is configured replaces its default.
const HEADERS: [(&str, &str); 2] =
    [("user-agent", concat!("sparkgap/", env!("CARGO_PKG_VERSION"))), ("accept", "*/*")];

/// The end of an error about a URL.
const EXPECTED: &str = "expected a URL like http://192.168.1.20:8000/v1";

fn origin(
    url: ServerUrl,
    settings: &ConnectionSettings,
) -> Result<(ServerOrigin, Option<TlsConfig>), String> {
    let ServerUrl { is_secure, host, port, .. } = url;
    let proxy = settings.http_proxy.as_deref().map(ConnectionSettings::proxy_address).transpose()?;
    if !is_secure {
        return Ok((ServerOrigin { host, port, proxy, tls: None }, None));
    }
    let name = ServerName::try_from(host.clone());
    let name = name.map_err(|_| format!("no certificate can be for a host of the name '{host}'"))?;
    let tls = TlsSettings::of(settings)?;
    Ok((ServerOrigin { host, port, proxy, tls: Some((tls.calls, name)) }, Some(tls.questions)))
}

/// Appends a header. The checks of the http crate reject line ends.
fn push_header(headers: &mut String, name: &str, value: &str) -> Result<(), String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("'{name}' is not a valid header name"))?;
    HeaderValue::from_str(value)
        .map_err(|_| "the key or a header holds characters that no header takes (a line end?)".to_owned())?;
    push_line(headers, name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(url: &str) -> Result<Endpoint, String> {
        Endpoint::new(&config::UpstreamConfig::new("spark", url), &CallLimits::default())
    }

    #[test]
    fn one_endpoint_serves_all_threads() {
        fn shared<T: Send + Sync>(_: &T) {}
        shared(&configured("http://h/v1").unwrap());
    }

    #[test]
    fn paths_are_below_or_beside_the_base() {
        for (base, api, root) in [
            ("http://h:1/v1", "/v1/x", "/x"),
            ("http://h:1/v1/", "/v1/x", "/x"),
            ("https://h/vllm/v1", "/vllm/v1/x", "/vllm/x"),
            ("http://h", "/x", "/x"),
            ("http://[::1]:8000/v1", "/v1/x", "/x"),
        ] {
            let upstream = configured(base).unwrap();
            for (path, target) in [(Path::Api("/x"), api), (Path::Root("/x"), root)] {
                let head = upstream.head("GET", path);
                assert!(head.starts_with(&format!("GET {target} HTTP/1.1\r\nhost: ")), "{head}");
            }
        }
    }

    #[test]
    fn a_configured_header_replaces_the_default_one() {
        let mut config = config::UpstreamConfig::new("spark", "http://h/v1");
        config.connection.headers =
            vec![("User-Agent".into(), Secret::new("me/1")), ("x-org".into(), Secret::new("a"))];
        let head = Endpoint::new(&config, &CallLimits::default()).unwrap().head("GET", Path::Api("/x"));
        assert_eq!(head.to_ascii_lowercase().matches("user-agent").count(), 1, "{head}");
        assert!(head.contains("User-Agent: me/1\r\n") && head.contains("accept: */*\r\n"), "{head}");
    }

    #[test]
    fn connections_go_where_the_url_says() {
        for (url, host, port, authority) in [
            ("http://h/v1", "h", 80, "h"),
            ("https://H.example/v1", "H.example", 443, "H.example"),
            ("HTTPS://h:8443", "h", 8443, "h:8443"),
            ("http://[::1]:8000/v1", "::1", 8000, "[::1]:8000"),
        ] {
            let upstream = configured(url).unwrap();
            assert_eq!((upstream.origin.host.as_str(), upstream.origin.port), (host, port));
            assert_eq!(upstream.origin.tls.is_some(), url.to_lowercase().starts_with("https"));
            assert!(upstream.headers.starts_with(&format!("host: {authority}\r\n")), "{}", upstream.headers);
        }
    }

    #[test]
    fn unusable_urls_are_refused_with_what_was_expected() {
        for url in [
            "",
            "h",
            "h:8000/v1",
            "/v1",
            "ftp://h/v1",
            "http://",
            "http:///v1",
            "http://h/v1?a=b",
            "http://h/#a",
            "http://h h/",
        ] {
            let error = configured(url).unwrap_err();
            assert!(error.contains("'spark'") && error.contains("expected a URL like"), "{url}: {error}");
        }
        let error = configured("http://me:hunter2@h/v1").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
