//! The handler of every request: finds the resource by its path, and answers at once if no upstream's message is
//! needed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use super::entry::{Admission, answer_preflight};
use super::exchange::Exchange;
use super::recorded::keys_of;
use super::resource::Resource;
use super::state::Proxy;
use super::{count, messages, relayed};
use crate::activity::{ActiveRequest, Caller, Record, RequestKeys};
use crate::admin;
use crate::admin::environment::ClientEnvironment;
use crate::admin::forms::is_for_openai;
use crate::config::Secret;
use crate::error::{Error, Kind};
use crate::http::Request;
use crate::ids;
use crate::openai::in_openai_form;
use crate::server::{Client, Handler};
use crate::shell::{CLAUDE_ADDRESS, EnvForm, OPENAI_ADDRESS};
use crate::shown::ShownText;
use crate::transport::Wait;

impl Proxy {
    /// The environment for the client of this request.
    fn environment(
        &self,
        client: &Client,
        request: &Request,
        wait: &Rc<dyn Wait>,
    ) -> Result<ClientEnvironment, Error> {
        admin::environment::of_client(&self.gateway(), request, self.way(client), wait)
    }

    /// Whether a client's connection is HTTPS, and the prefix of every path.
    fn way(&self, client: &Client) -> (bool, &str) {
        (client.borrow().stream().is_secure(), &self.options.prefix)
    }

    /// The form that the client of this request evaluates, if it does.
    fn form_of(&self, request: &Request) -> Option<EnvForm> {
        match self.resource(request) {
            Some(Resource::EnvironmentIn(form)) => Some(form),
            _ => None,
        }
    }

    /// True if a browser shows the answer to this request as a page.
    fn is_page(&self, request: &Request) -> bool {
        let path = request.path.strip_prefix(self.options.prefix.as_str());
        path.is_some_and(|path| path.trim_end_matches('/').is_empty()) && admin::page::is_wanted_by(request)
    }

    /// Answers a request that is not about a message: a short text.
    // `inline(never)`: keep this large frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory
    // budget).
    #[inline(never)]
    fn tell(
        &self,
        resource: Resource<'_>,
        client: &Client,
        request: &Request,
        (active, caller): (&Arc<ActiveRequest>, &Caller),
    ) -> Result<(u16, Vec<u8>), Error> {
        let wait: Rc<dyn Wait> = Exchange::new(self, client, active);
        let body = match resource {
            Resource::Models => admin::models::list(&self.gateway(), request, &wait)?.to_json().into_bytes(),
            Resource::Model(id) => {
                admin::models::find(&self.gateway(), id, request, &wait)?.to_json().into_bytes()
            }
            Resource::Environment => {
                self.environment(client, request, &wait)?.into_value().to_json().into_bytes()
            }
            Resource::EnvironmentIn(form) => {
                let access = self.access();
                let key = access.keys.secret_of(request).map(Secret::expose);
                if is_for_openai(request.query.as_deref()) {
                    let address = admin::environment::address(request, self.way(client))?;
                    return Ok((200, admin::forms::write_openai(&address, form, key).into_bytes()));
                }
                admin::forms::write(self.environment(client, request, &wait)?, form, key)?.into_bytes()
            }
            Resource::Hello if self.is_page(request) => {
                let address = admin::environment::address(request, self.way(client))?;
                admin::page::write(&address, !self.access().keys.is_empty()).into_bytes()
            }
            Resource::Health => admin::health::health(&self.gateway(), &self.activity),
            Resource::Hello
            | Resource::Messages
            | Resource::CountTokens
            | Resource::Relayed(_)
            | Resource::Ui(_) => br#"{"name":"sparkgap"}"#.to_vec(),
            Resource::Metrics => {
                let connections = client.borrow().open_connections();
                admin::metrics::metrics(&self.gateway(), &self.activity, connections)
            }
            Resource::Activity => {
                let query = request.query.as_deref();
                admin::activity::activity(&self.gateway(), &self.activity, query, caller)
            }
            Resource::Ready => {
                let is_draining = client.borrow().is_draining();
                return Ok(admin::health::ready(&self.gateway(), is_draining));
            }
        };
        Ok((200, body))
    }
}

impl Handler for Proxy {
    fn is_shared(&self, address: IpAddr) -> bool {
        self.access().is_proxy(address)
    }

    fn handle(&self, client: &Client, request: Request, address: SocketAddr) -> io::Result<()> {
        let mut caller = Caller::new(self.access().client_address(&request, address.ip()));
        let slot = self.activity.begin(ids::request_id(), caller.clone());
        let active = slot.request();
        active.note_keys(RequestKeys::new(keys_of(&request)));
        let request_id = active.request_id();
        let admission = self.let_in(client, &request, &mut caller);
        if !matches!(admission, Ok(Admission::Resource(resource)) if resource.is_probe()) {
            self.activity.add_request();
        }
        let told = match admission {
            Ok(Admission::Resource(Resource::Messages)) => {
                let clean = self.access().keys.without_keys(&request);
                return messages::serve(self, client, clean.unwrap_or(request), &caller, active);
            }
            Ok(Admission::Resource(Resource::CountTokens)) => {
                let clean = self.access().keys.without_keys(&request);
                return count::serve(self, client, clean.as_ref().unwrap_or(&request), &caller, active);
            }
            Ok(Admission::Resource(Resource::Relayed(path))) => {
                let clean = self.access().keys.without_keys(&request);
                let request = clean.as_ref().unwrap_or(&request);
                return relayed::serve(self, client, request, &caller, (active, path));
            }
            Ok(Admission::Resource(Resource::Ui(path))) => {
                let id = request_id.to_owned();
                // A browser that looks is not one of the requests that it looks at.
                drop(slot);
                return self.serve_page(client, &request, (path, &id), &caller);
            }
            Ok(Admission::Resource(resource)) => self.tell(resource, client, &request, (active, &caller)),
            Ok(Admission::Preflight) => return answer_preflight(client, &request, request_id),
            Err(error) => Err(error),
        };
        let form = self.form_of(&request);
        match told {
            Ok((status, body)) => {
                let is_metrics = self.resource(&request) == Some(Resource::Metrics);
                let usual = if is_metrics { admin::metrics::CONTENT_TYPE } else { "application/json" };
                let content_type = form.map_or(usual, EnvForm::content_type);
                let mut headers = match self.is_page(&request) {
                    true => admin::page::PAGE_HEADERS.to_vec(),
                    false => vec![("content-type", content_type)],
                };
                // The text for a shell holds the client's key, which no cache may keep.
                headers.extend(form.map(|_| ("cache-control", "no-store")));
                if self.resource(&request) == Some(Resource::Activity) {
                    headers.extend([("cache-control", "no-store"), ("x-content-type-options", "nosniff")]);
                }
                headers.push(("request-id", request_id));
                client.borrow_mut().respond(status, &headers, &body)
            }
            Err(error) => {
                let is_openai = matches!(self.resource(&request), Some(Resource::Relayed(_)));
                let error = match form {
                    Some(form) => in_form(error, form, request.query.as_deref()),
                    None if is_openai => in_openai_form(error),
                    None => error,
                };
                // Path, method and origin are the client's own words, which may hold its key.
                let (method, path) = (&request.method, ShownText::new(&request.path));
                let words = active.cleaned(format_args!("{error} [{method} {path}]"));
                let line = format_args!("{request_id} {caller} {words}");
                self.activity.refusals().log(&refused(active, &caller, &error), line);
                if error.kind == Kind::Authentication {
                    return self.refuse_wrong_key(client, caller.address, error, request_id);
                }
                client.borrow_mut().respond_error(&error, request_id)
            }
        }
    }
}

/// The record of a request that was refused before it was one to a model.
fn refused(active: &ActiveRequest, caller: &Caller, error: &Error) -> Record {
    let mut record = Record::new(active.request_id(), caller);
    record.began = active.began();
    record.status = error.status();
    record.error = Some(error.to_string());
    active.hide_keys(&mut record);
    record.end();
    record
}

/// The error for a client that evaluates whatever it gets.
fn in_form(error: Error, form: EnvForm, query: Option<&str>) -> Error {
    let reason = match error.kind {
        Kind::Authentication => {
            "the key is missing or wrong: send yours, as in curl -fsS -H 'x-api-key: sk-...'"
        }
        _ => &error.message,
    };
    let addresses: &[_] = if is_for_openai(query) { &OPENAI_ADDRESS } else { &CLAUDE_ADDRESS };
    let body = form.failure(reason, addresses);
    error.with_body(form.content_type(), body)
}
