//! The live page: who may look at it, and its answers.

use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use super::state::Proxy;
use crate::access::PageSessions;
use crate::activity::Caller;
use crate::admin::environment::address;
use crate::admin::ui::{LiveSource, PAGE_HEADERS, RecordingSource, UiPath, read_recorded, stream};
use crate::config::Secret;
use crate::error::{Error, Kind, Retry};
use crate::http::{Request, RequestFailure};
use crate::ids::client_key;
use crate::json;
use crate::server::Client;

/// The most bytes of a key that is sent to the live page. Keys of `sparkgap key new` have 27.
const KEY_SIZE_MAX: usize = 1024;

impl Proxy {
    /// Answers a request of the live page.
    pub(super) fn serve_page(
        &self,
        client: &Client,
        request: &Request,
        (path, request_id): (UiPath<'_>, &str),
        caller: &Caller,
    ) -> io::Result<()> {
        if let Some((content_type, bytes)) = path.file() {
            if request.path.ends_with('/') {
                // Links of the page are relative to its folder, so it has one address.
                return client.borrow_mut().respond(
                    308,
                    &[("location", "../ui"), ("request-id", request_id)],
                    b"",
                );
            }
            let mut headers = PAGE_HEADERS.to_vec();
            headers.extend([("content-type", content_type), ("request-id", request_id)]);
            return client.borrow_mut().respond(200, &headers, bytes);
        }
        let answered = match path {
            UiPath::Login => self.log_in(client, request_id),
            UiPath::Logout => {
                self.sessions().close(request);
                self.answer_with_cookie(client, "", request_id)
            }
            UiPath::Recording(id) => self.show_recording(client, request, (id, request_id), caller),
            _ => self.show_events(client, request, request_id),
        };
        match answered {
            Ok(done) => done,
            Err(error) if error.kind == Kind::Authentication => {
                self.refuse_wrong_key(client, caller.address, error, request_id)
            }
            Err(error) => client.borrow_mut().respond_error(&error, request_id),
        }
    }

    /// Opens a session for a browser that sends a valid key: `{"key": "sk-..."}`.
    fn log_in(&self, client: &Client, request_id: &str) -> Result<io::Result<()>, Error> {
        let mut body = Vec::new();
        let too_large =
            || Error::invalid(format!("key: it has more than {KEY_SIZE_MAX} bytes; send one key"));
        let read = client.borrow_mut().read_body_with(&mut body, |size| {
            if size <= KEY_SIZE_MAX { Ok(()) } else { Err(RequestFailure::Reject(too_large())) }
        });
        match read {
            Ok(()) if body.len() > KEY_SIZE_MAX => return Err(too_large()),
            Ok(()) => {}
            Err(RequestFailure::Reject(error)) => return Err(error),
            Err(other) => return Ok(Err(other.into())),
        }
        let sent = json::parse(&mut body).ok();
        let key = sent.as_ref().and_then(|sent| sent.get("key")?.as_str());
        let key = key.map(Secret::new).ok_or_else(|| Error::invalid("key: send {\"key\": \"sk-...\"}"))?;
        self.access().keys.admit_key(&key)?;
        let failed = |error: io::Error| Error::new(Kind::Api, "Internal server error").source(error);
        let id = client_key().map_err(failed)?.split_off("sk-".len());
        self.sessions().open(Secret::new(&*id), key, Instant::now());
        self.answer_with_cookie(client, &id, request_id)
    }

    /// Gives a browser a session, or takes it away if `id` is empty.
    fn answer_with_cookie(
        &self,
        client: &Client,
        id: &str,
        request_id: &str,
    ) -> Result<io::Result<()>, Error> {
        let is_secure = client.borrow().stream().is_secure();
        let cookie = PageSessions::set_cookie(id, &self.options.prefix, is_secure);
        let headers = [
            ("content-type", "application/json"),
            ("set-cookie", cookie.as_str()),
            ("cache-control", "no-store"),
            ("request-id", request_id),
        ];
        Ok(client.borrow_mut().respond(200, &headers, b"{}"))
    }

    /// Streams the events for a browser that may look.
    fn show_events(
        &self,
        client: &Client,
        request: &Request,
        request_id: &str,
    ) -> Result<io::Result<()>, Error> {
        self.admit_browser(request)?;
        client.borrow_mut().set_known();
        if request.method == "HEAD" {
            return Ok(client.borrow_mut().respond(200, &[("content-type", "text/event-stream")], b""));
        }
        let is_secure = client.borrow().stream().is_secure();
        let source = LiveSource {
            activity: &self.activity,
            gateway: &|| self.gateway(),
            is_admitted: &|| self.admit_browser(request).is_ok(),
            address: address(request, (is_secure, &self.options.prefix))?,
            needs_key: !self.access().keys.is_empty(),
        };
        Ok(stream(&self.live, client, &source, (request_id, request.query.as_deref())))
    }

    /// Answers with a part of the recording of request `id`.
    fn show_recording(
        &self,
        client: &Client,
        request: &Request,
        (id, request_id): (&str, &str),
        caller: &Caller,
    ) -> Result<io::Result<()>, Error> {
        let user = self.admit_browser(request)?;
        client.borrow_mut().set_known();
        let source = RecordingSource {
            activity: &self.activity,
            store: self.store.get(),
            mode: self.recorder.options().mode,
            caller: Caller { user, ..caller.clone() },
        };
        let answer = read_recorded(&self.recording_reads, &source, (id, request.query.as_deref()))?;
        let headers = [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("request-id", request_id),
        ];
        Ok(client.borrow_mut().respond(200, &headers, &answer.body))
    }

    /// Admits a browser by its session, or any client by its key. Returns the key's owner, if it has one.
    fn admit_browser(&self, request: &Request) -> Result<Option<Arc<str>>, Error> {
        let access = self.access();
        if let Ok(user) = access.keys.admit(request) {
            return Ok(user);
        }
        let key = self.sessions().key_of(request, Instant::now());
        let needed = || Error::new(Kind::Authentication, "enter your key").retry(Retry::Never);
        access.keys.admit_key(&key.ok_or_else(needed)?)
    }

    fn sessions(&self) -> MutexGuard<'_, PageSessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
