//! Computes the body that would be sent upstream for a request, without contacting any upstream: for `sparkgap hook`.

use std::net::Ipv4Addr;

use crate::anthropic::MessagesRequest;
use crate::error::Error;
use crate::hooks::HookRequest;
use crate::http::Request;
use crate::json::{self, Document, Value};
use crate::translate::ThinkingMaker;
use crate::transport::JSON;

use super::outgoing::check;
use super::passing::passed_body;
use super::prepare::{Hooked, Incoming, not_json};
use super::search::{find_search, searches_itself};
use super::stop::Stop;
use crate::activity::{Caller, Record};
use crate::fleet::{Gateway, Resolved};

/// The outcome of a request after the hooks.
#[derive(Debug)]
pub enum Preview {
    /// The request would go to an upstream.
    Sent {
        /// The upstream's name.
        upstream: String,
        /// The upstream's name of the model.
        model: String,
        /// The body that the upstream would get.
        body: Value<'static>,
    },
    /// The request would be refused.
    Refused(Error),
    /// A hook would answer the request with this message.
    Answered(Value<'static>),
    /// The request is a web search for this query: no model is asked.
    Searched(String),
}

/// Runs the stages up to the upstream on a saved body, with only what is already known of the upstreams.
pub fn preview(gateway: &Gateway, body: &[u8], headers: &[(String, String)]) -> Preview {
    preview_with_request(gateway, body, headers).0
}

/// The same, and the request as its hooks see it afterwards; `None` if no hook sees a request.
pub fn preview_with_request(
    gateway: &Gateway,
    body: &[u8],
    headers: &[(String, String)],
) -> (Preview, Option<HookRequest>) {
    let headers = headers.iter().map(|(name, value)| (name, value)).collect();
    let request =
        Request { method: "POST".into(), path: "/v1/messages".into(), query: None, authority: None, headers };
    let caller = Caller::new(Ipv4Addr::LOCALHOST.into());
    let incoming = Incoming { gateway, wait: None, room: None, request: &request, caller: &caller };
    let mut hooked = Hooked::default();
    let mut document = Document::from(body.to_vec());
    let sent = |resolved: &Resolved, body| Preview::Sent {
        upstream: resolved.served.name().to_string(),
        model: resolved.model.clone(),
        body,
    };
    let previewed = incoming.hooked(&mut document, &mut hooked).and_then(|body| {
        if let Some(search) = find_search(gateway, &body)
            && !searches_itself(&incoming, &body, &hooked)?
        {
            MessagesRequest::read(&body)?;
            return Ok(Preview::Searched(search.query));
        }
        let mut record = Record::new("preview", &caller);
        let (messages, routing) = incoming.routed(&body, &hooked, &mut record)?;
        let mut resolved = routing.resolve(None)?;
        if resolved.served.upstream().speaks_messages() {
            let unknown = |_, _: &str| ThinkingMaker::Unknown;
            let mut body = passed_body(&incoming, &mut resolved, &hooked, &mut record, &unknown)?.body;
            check(gateway, &resolved.served, (JSON, &body), None)?;
            let body = json::parse(&mut body).map(Value::into_owned);
            return Ok(sent(&resolved, body.map_err(|error| not_json(&error))?));
        }
        let messages = messages.map_or_else(|| MessagesRequest::read(&body), Ok)?;
        let body = incoming
            .translated(&messages, &resolved, &hooked, &mut record, |chat, _| chat.body.into_owned())?;
        check(gateway, &resolved.served, (JSON, body.to_json().as_bytes()), None)?;
        Ok(sent(&resolved, body))
    });
    let shown = hooked.shown.map(|shown| shown.borrow().clone());
    let outcome = match previewed {
        Ok(preview) => preview,
        Err(Stop::Respond(message)) => Preview::Answered(message),
        Err(Stop::Error(error) | Stop::Refused(error)) => Preview::Refused(error),
        Err(Stop::ClientGone) => Preview::Refused(Error::invalid("the client has left")),
        Err(Stop::Cut(error)) => Preview::Refused(error),
        Err(Stop::Client(error)) => Preview::Refused(Error::invalid(error.to_string())),
    };
    (outcome, shown)
}
