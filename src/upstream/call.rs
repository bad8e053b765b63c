//! One upstream and the calls to it.
//!
//! Knows URLs, headers and connection reuse; what the bodies mean is the caller's.

use std::fmt;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{self, HeaderMap, HeaderName, HeaderValue, Uri, header};
use ureq::{Agent, AsSendBody, BodyReader};

use super::discovery::{Discovered, Memory};
use super::failure::Failure;
use super::tls;
use super::transport::{Later, plain, secure};
use super::wait::{Call, Options, Wait};
use crate::config;

/// Idle connections kept to one upstream: as many as a LAN box has busy clients.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// An idle connection is closed after this time. Servers close theirs earlier (uvicorn after 5 s), which is noticed.
const IDLE_AGE_MAX: Duration = Duration::from_secs(60);

/// A models listing over this is not read to its end.
const LISTING_SIZE_MAX: u64 = 4 * 1024 * 1024;

/// TLS has buffers of its own, which an idle connection keeps: one record each is enough.
const TLS_BUFFER_SIZE: usize = 16 * 1024;

/// How much of a response's body is read with its head: an event or two.
const BEGINNING_SIZE: usize = 2048;

/// Where on an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path<'a> {
    /// Below the base URL: `/chat/completions`.
    Api(&'a str),
    /// Beside the base URL's `/v1`: vLLM serves `/tokenize` there.
    Root(&'a str),
}

/// One upstream, for all threads.
pub struct Upstream {
    config: config::Upstream,
    options: Options,
    agent: Agent,
    /// The base URL without a slash at its end.
    base: String,
    /// The same without `/v1`.
    root: String,
    /// What every request carries; the key is among them, marked sensitive.
    headers: HeaderMap,
    memory: Memory,
}

impl Upstream {
    /// An upstream as configured; no connection is made yet.
    ///
    /// # Errors
    /// The URL or the key cannot be used; the text tells what was expected, and never the key.
    pub fn new(config: config::Upstream, options: &Options) -> Result<Self, String> {
        let base = base_url(&config.url).map_err(|why| format!("upstream '{}': {why}", config.name))?;
        let root = base.strip_suffix("/v1").unwrap_or(&base).to_owned();
        let mut headers = HeaderMap::new();
        if let Some(key) = &config.api_key {
            let value = sensitive(&format!("Bearer {}", key.expose()));
            let value = value.map_err(|why| format!("upstream '{}': {why}", config.name))?;
            headers.insert(header::AUTHORIZATION, value);
        }
        let memory = Memory::new(&config.settings);
        let agent = agent(base.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")));
        Ok(Upstream { config, options: *options, agent, base, root, headers, memory })
    }

    /// The same with one more header on every request. Its value is never shown.
    ///
    /// # Errors
    /// Name or value cannot stand in a header.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, String> {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("'{name}' is no header"))?;
        self.headers.insert(name, sensitive(value)?);
        Ok(self)
    }

    /// Its configured name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its configuration.
    pub fn config(&self) -> &config::Upstream {
        &self.config
    }

    /// Sends JSON and returns the response once its body has begun, whatever its status.
    ///
    /// # Errors
    /// There is no response, or none that can be read.
    pub fn post(&self, path: Path<'_>, body: &[u8], wait: &Rc<dyn Wait>) -> Result<Response, Failure> {
        self.post_within(self.options, path, body, wait)
    }

    /// The same for a question that needs no model: its answer is here soon, or not worth the wait.
    ///
    /// # Errors
    /// As [`Upstream::post`].
    pub fn ask(&self, path: Path<'_>, body: &[u8], wait: &Rc<dyn Wait>) -> Result<Response, Failure> {
        self.post_within(self.soon(), path, body, wait)
    }

    fn post_within(
        &self,
        options: Options,
        path: Path<'_>,
        body: &[u8],
        wait: &Rc<dyn Wait>,
    ) -> Result<Response, Failure> {
        let url = self.url(path);
        let request = || self.request(&http::Method::POST, &url, body);
        let result = self.exchange(request, body.len(), wait, options);
        if result.as_ref().is_err_and(Failure::is_connection_lost) {
            self.memory.mark_stale();
        }
        result
    }

    /// Gets something small, whatever its status.
    ///
    /// # Errors
    /// As [`Upstream::post`].
    pub fn get(&self, path: Path<'_>, wait: &Rc<dyn Wait>) -> Result<Response, Failure> {
        let url = self.url(path);
        self.exchange(|| self.request(&http::Method::GET, &url, ()), 0, wait, self.soon())
    }

    /// The time limits of what needs no model.
    fn soon(&self) -> Options {
        let timeout = self.options.discovery_timeout;
        Options { first_byte_timeout: timeout, idle_timeout: timeout, ..self.options }
    }

    /// What was last discovered; cheap.
    pub fn discovered(&self) -> Arc<Discovered> {
        self.memory.known()
    }

    /// Lets the next [`Upstream::discovered_fresh`] ask again: something hints at a restart, such as a 404 for a
    /// model that was listed.
    pub fn mark_stale(&self) {
        self.memory.mark_stale();
    }

    /// Whether what was discovered may be wrong by now: nobody has answered yet, or a call has failed since.
    pub fn is_stale(&self) -> bool {
        self.memory.is_stale()
    }

    /// What was last discovered, after asking again where a call has failed since, or none has ever succeeded. While
    /// one thread asks, the others get what is known; asking may fail, then it stays so.
    pub fn discovered_fresh(&self, wait: &Rc<dyn Wait>) -> Arc<Discovered> {
        self.memory.ask_if_due(self.options.discovery_interval, || {
            if let Err(failure) = self.discover(wait) {
                log::debug!("upstream {}: discovery failed: {failure}", self.name());
            }
        });
        self.memory.known()
    }

    /// Asks the upstream for its models, now.
    ///
    /// # Errors
    /// No answer, no 200, or no models listing.
    pub fn discover(&self, wait: &Rc<dyn Wait>) -> Result<Arc<Discovered>, Failure> {
        let result = self.list_models(wait).map(Arc::new);
        self.memory.answered(result.as_ref().ok());
        result
    }

    /// The model to ask for where neither alias nor client names one: the configured one, else the first listed.
    pub fn model(&self) -> Option<String> {
        let configured = self.config.model.clone();
        configured.or_else(|| self.discovered().models.first().map(|model| model.id.clone()))
    }

    fn list_models(&self, wait: &Rc<dyn Wait>) -> Result<Discovered, Failure> {
        let response = self.get(Path::Api("/models"), wait)?;
        if response.status != 200 {
            return Err(Failure::Status(response.status));
        }
        let server = response.server.clone();
        let mut body = Vec::new();
        let mut limited = response.take(LISTING_SIZE_MAX + 1);
        limited.read_to_end(&mut body).map_err(|error| Failure::of(&error))?;
        if body.len() as u64 > LISTING_SIZE_MAX {
            return Err(Failure::Protocol(format!("the models listing is over {LISTING_SIZE_MAX} bytes")));
        }
        Discovered::parse(&mut body, server.as_deref(), &self.config.settings).map_err(Failure::Protocol)
    }

    fn url(&self, path: Path<'_>) -> String {
        match path {
            Path::Api(path) => format!("{}{path}", self.base),
            Path::Root(path) => format!("{}{path}", self.root),
        }
    }

    fn request<B>(&self, method: &http::Method, url: &str, body: B) -> Result<http::Request<B>, Failure> {
        let mut request = http::Request::builder().method(method).uri(url);
        if *method == http::Method::POST {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(body).map_err(|error| Failure::Protocol(format!("no valid request: {error}")))
    }

    /// One request, and its repetition where a pooled connection had been closed by the server in the meantime: it
    /// cannot have been at work on a request if it did not take it.
    fn exchange<B: AsSendBody>(
        &self,
        request: impl Fn() -> Result<http::Request<B>, Failure>,
        body_size: usize,
        wait: &Rc<dyn Wait>,
        options: Options,
    ) -> Result<Response, Failure> {
        let call = Call::new(wait, options, body_size);
        match self.run(request()?, &call) {
            Err(Failure::Reset(why)) if call.is_reused() && !call.has_received() => {
                log::debug!("upstream {}: a pooled connection was stale: {why}", self.name());
                self.exchange_fresh(request()?, Call::new(wait, options, body_size))
            }
            result => Response::new(result?, call),
        }
    }

    /// The same on a fresh connection. Whatever closed the pooled one (a restart) may have closed all: an idle age of zero
    /// empties the pool.
    #[inline(never)] // rare, and a call takes much of the stack already
    fn exchange_fresh<B: AsSendBody>(
        &self,
        request: http::Request<B>,
        call: Rc<Call>,
    ) -> Result<Response, Failure> {
        let request = self.agent.configure_request(request).max_idle_age(Duration::ZERO).build();
        Response::new(self.run(request, &call)?, call)
    }

    fn run<B: AsSendBody>(
        &self,
        request: http::Request<B>,
        call: &Rc<Call>,
    ) -> Result<http::Response<ureq::Body>, Failure> {
        call.enter(|| self.agent.run(request).map_err(|error| Failure::of_call(error, call)))
    }
}

/// The key is not in it, nor the address: it may stand in a log line.
impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.config.name).finish_non_exhaustive()
    }
}

/// One agent to each upstream: its pool and its TLS settings are nobody else's. All time limits are ours.
fn agent(is_secure: bool) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .accept_encoding("identity")
        .user_agent(concat!("sparkgap/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections(IDLE_CONNECTIONS_MAX)
        .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
        .max_idle_age(IDLE_AGE_MAX)
        .input_buffer_size(TLS_BUFFER_SIZE)
        .output_buffer_size(TLS_BUFFER_SIZE)
        .tls_config(tls::config())
        .build();
    if is_secure {
        Agent::with_parts(config, secure(), Later)
    } else {
        Agent::with_parts(config, plain(), Later)
    }
}

/// The checked base URL, without a slash at its end.
fn base_url(url: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected a URL like http://192.168.1.20:8000/v1";
    if url.contains('@') {
        // Not repeated in the text: what stands before the @ is a password.
        return Err(format!(
            "no user name or password may stand in the URL: {EXPECTED}, and the key as `api_key`"
        ));
    }
    let uri: Uri = url.parse().map_err(|_| format!("'{url}' is no URL: {EXPECTED}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(format!("'{url}' is neither http:// nor https://: {EXPECTED}"));
    }
    if uri.host().unwrap_or_default().is_empty() {
        return Err(format!("'{url}' names no host: {EXPECTED}"));
    }
    if url.contains(['?', '#']) {
        return Err(format!("'{url}' has a query or a fragment, which cannot be kept: {EXPECTED}"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn sensitive(text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(text);
    let mut value =
        value.map_err(|_| "the key holds characters that no header takes (a line end?)".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// A response whose head is here, and the beginning of its body: vLLM sends the head at once, and the rest from its first
/// token on. The body is read from it, in the thread that asked.
///
/// Read to the end (a read that returns 0), the connection goes back to the pool. Dropped before, or after a failed
/// read, the connection is closed at once, which makes the server stop generating.
pub struct Response {
    /// The HTTP status; never a redirect's.
    pub status: u16,
    /// `content-type`, as sent.
    pub content_type: Option<String>,
    /// `retry-after`, where it is a number of seconds.
    pub retry_after: Option<u32>,
    /// `server`, as sent.
    pub server: Option<String>,
    /// What the first read of the body gave, as far as it was not read since.
    beginning: Vec<u8>,
    /// None after a failure.
    body: Option<BodyReader<'static>>,
    failure: Option<Failure>,
    call: Rc<Call>,
}

impl Response {
    fn new(response: http::Response<ureq::Body>, call: Rc<Call>) -> Result<Self, Failure> {
        let text =
            |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = response.status();
        if status.is_redirection() {
            let target = text(header::LOCATION).unwrap_or_default();
            return Err(Failure::Protocol(format!(
                "status {status} to '{target}'; redirects are never followed"
            )));
        }
        if let Some(encoding) = text(header::CONTENT_ENCODING).filter(|encoding| encoding != "identity") {
            return Err(Failure::Protocol(format!(
                "content-encoding '{encoding}', though only identity was asked for"
            )));
        }
        let response = Response {
            status: status.as_u16(),
            content_type: text(header::CONTENT_TYPE),
            retry_after: text(header::RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok()),
            server: text(header::SERVER),
            beginning: Vec::new(),
            body: Some(response.into_body().into_reader()),
            failure: None,
            call,
        };
        response.begun()
    }

    /// The same with the beginning of its body, if it has any.
    fn begun(mut self) -> Result<Self, Failure> {
        let mut beginning = vec![0; BEGINNING_SIZE];
        let count = self.read(&mut beginning).map_err(|error| Failure::of(&error))?;
        beginning.truncate(count);
        self.beginning = beginning;
        self.call.mark_begun();
        Ok(self)
    }

    /// The beginning of the body, before anything was read from it: the first event of a stream, as a rule.
    pub fn beginning(&self) -> &[u8] {
        &self.beginning
    }

    /// What is left of the body says nothing any more, and is read only so that the connection can serve again: that
    /// is worth no more than this time.
    pub fn limit_rest(&self, time: Duration) {
        self.call.limit_rest(time);
    }
}

impl Read for Response {
    /// Waits for the next bytes of the body. What an error means is told by [`Failure::of`], and every read after it
    /// fails alike: a body that broke off must not seem to end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.beginning.is_empty() {
            let count = self.beginning.as_slice().read(buffer)?;
            let rest = self.beginning.get(count..).unwrap_or_default().to_vec();
            self.beginning = rest; // usually nothing: the answer may take minutes, and needs no memory for this
            return Ok(count);
        }
        let Some(body) = &mut self.body else {
            return self.failure.clone().map_or(Ok(0), |failure| Err(failure.into()));
        };
        let result = self.call.enter(|| body.read(buffer));
        result.map_err(|error| {
            let failure = Failure::of_body(error, &self.call);
            self.body = None;
            self.failure = Some(failure.clone());
            failure.into()
        })
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::Settings;

    fn configured(url: &str) -> Result<Upstream, String> {
        let config = config::Upstream {
            name: "spark".into(),
            url: url.into(),
            api_key: None,
            model: None,
            max_in_flight: None,
            settings: Settings::default(),
        };
        Upstream::new(config, &Options::default())
    }

    #[test]
    fn one_upstream_serves_all_threads() {
        fn shared<T: Send + Sync>(_: &T) {}
        shared(&configured("http://h/v1").unwrap());
    }

    #[test]
    fn paths_are_below_or_beside_the_base() {
        for (base, api, root) in [
            ("http://h:1/v1", "http://h:1/v1/x", "http://h:1/x"),
            ("http://h:1/v1/", "http://h:1/v1/x", "http://h:1/x"),
            ("https://h/vllm/v1", "https://h/vllm/v1/x", "https://h/vllm/x"),
            ("http://h", "http://h/x", "http://h/x"),
            ("http://[::1]:8000/v1", "http://[::1]:8000/v1/x", "http://[::1]:8000/x"),
        ] {
            let upstream = configured(base).unwrap();
            assert_eq!(upstream.url(Path::Api("/x")), api);
            assert_eq!(upstream.url(Path::Root("/x")), root);
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
