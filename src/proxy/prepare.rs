//! From a client's bytes to a chat completion: parse, `on_request`, check, route, translate, `on_upstream_request`.
//!
//! The tree of a request lives only here; what comes out owns what it needs.

use std::cell::RefCell;
use std::rc::Rc;

use crate::anthropic::MessagesRequest;
use crate::error::Error;
use crate::hooks::{self, Decision, Hook, Hooks};
use crate::http::{Request, SECRET_HEADERS};
use crate::json::{Document, ParseError, Value};
use crate::translate::{self, ChatRequest, Target, chat_request};
use crate::transport::Wait;

use super::budget::check_values;
use super::filter::Shown;
use super::stop::Stop;
use crate::activity::{Caller, Record};
use crate::fleet::{Gateway, Resolved};

/// The beta of clients that know the stop reason `model_context_window_exceeded`.
const CONTEXT_WINDOW_BETA: &str = "model-context-window-exceeded-2025-08-26";

/// What a request is prepared with.
pub(super) struct Incoming<'p> {
    pub(super) gateway: &'p Gateway,
    /// `None`: no upstream is asked for anything.
    pub(super) wait: Option<Rc<dyn Wait>>,
    pub(super) request: &'p Request,
    pub(super) caller: &'p Caller,
}

/// What the hooks of one request know and have decided.
#[derive(Default)]
pub(super) struct Hooked {
    /// `req`, where any hook is defined that sees it.
    pub(super) shown: Option<Shown>,
    /// The model as the client named it; empty where no hook is shown the request.
    pub(super) client_model: String,
    /// The model that `on_request` put in the client's place.
    model: Option<String>,
    /// The upstream that `on_request` or `on_error` chose.
    pub(super) upstream: Option<String>,
    /// The body as `on_request` left it, where `on_error` may send it elsewhere.
    pub(super) saved: Option<Vec<u8>>,
}

impl Incoming<'_> {
    /// The first stage: the body as JSON, and `on_request`.
    pub(super) fn hooked<'b>(
        &self,
        document: &'b mut Document,
        hooked: &mut Hooked,
    ) -> Result<Value<'b>, Stop> {
        let mut body = parse(document)?;
        let hooks = self.gateway.hooks();
        if sees_request(hooks) {
            hooked.client_model = model_of(&body).to_string();
            hooked.shown = Some(Rc::new(RefCell::new(self.shown(&body))));
        }
        if let (true, Some(shown)) = (hooks.defines(Hook::Request), &hooked.shown) {
            let decision = hooks.on_request(&mut shown.borrow_mut(), &mut body)?;
            match decision {
                Decision::Continue => {}
                Decision::Route { model, upstream } => (hooked.model, hooked.upstream) = (model, upstream),
                Decision::Reject(error) => return Err(error.into()),
                Decision::Respond(message) => return Err(Stop::Respond(message)),
            }
        }
        if hooks.defines(Hook::Error) {
            hooked.saved = Some(body.to_json().into_bytes());
        }
        Ok(body)
    }

    /// The second stage: check, route, translate, `on_upstream_request`. `finish` takes what it needs of the result.
    pub(super) fn translated<T>(
        &self,
        body: &Value<'_>,
        hooked: &mut Hooked,
        record: &mut Record,
        finish: impl FnOnce(&Resolved, ChatRequest<'_>) -> T,
    ) -> Result<(Resolved, T), Stop> {
        let messages = MessagesRequest::read(body)?;
        record.client_model = messages.model.to_string();
        record.is_streamed = messages.stream;
        let requested = hooked.model.as_deref().unwrap_or(messages.model);
        let own_model = hooked.model.as_deref().filter(|_| hooked.upstream.is_some());
        let resolved =
            self.gateway.resolve(requested, hooked.upstream.as_deref(), own_model, self.wait.as_ref())?;
        resolved.served.name().clone_into(&mut record.upstream);
        record.upstream_model.clone_from(&resolved.model);
        let mut chat = chat_request(&messages, &resolved.target())?;
        let hooks = self.gateway.hooks();
        if let (true, Some(shown)) = (hooks.defines(Hook::UpstreamRequest), &hooked.shown) {
            let shown = &mut *shown.borrow_mut();
            shown.upstream = Some(resolved.served.name().to_string());
            hooks.on_upstream_request(&mut chat.body, shown)?;
        }
        for dropped in &chat.dropped {
            self.gateway.warn_once(dropped);
        }
        chat.plan.context_window_beta = self
            .request
            .header("anthropic-beta")
            .is_some_and(|betas| betas.split(',').any(|beta| beta.trim() == CONTEXT_WINDOW_BETA));
        let finished = finish(&resolved, chat);
        Ok((resolved, finished))
    }

    /// The request as hooks see it.
    fn shown(&self, body: &Value<'_>) -> hooks::Request {
        let request = self.request;
        let text = |name: &str| request.header(name).map(str::to_string);
        let tools = body.get("tools").and_then(Value::as_array).unwrap_or_default();
        let tool_names = tools.iter().filter_map(|tool| Some(tool.get("name")?.as_str()?.to_string()));
        let thinking = body.get("thinking").and_then(|thinking| thinking.get("type")).and_then(Value::as_str);
        hooks::Request {
            model: self.gateway.requested(model_of(body)).to_string(),
            stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
            max_tokens: body.get("max_tokens").and_then(Value::as_u64),
            path: request.path.clone(),
            method: request.method.clone(),
            headers: request
                .headers
                .iter()
                .filter(|(name, _)| !SECRET_HEADERS.contains(name))
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            client_ip: self.caller.address.to_string(),
            user: self.caller.user.as_deref().map(str::to_string),
            session: text("x-claude-code-session-id"),
            agent: text("x-claude-code-agent-id"),
            tokens_est: translate::estimate::prompt_tokens(body),
            has_tools: !tools.is_empty(),
            has_images: has_images(body.get("messages").unwrap_or(&Value::Null)),
            thinking: thinking.is_some_and(|kind| kind != "disabled"),
            tool_names: tool_names.collect(),
            ..hooks::Request::default()
        }
    }
}

impl Resolved {
    /// What the translation must know of it.
    pub(super) fn target(&self) -> Target<'_> {
        Target {
            model: &self.model,
            flavour: self.flavour,
            window: self.window,
            tokens_ratio: self.served.tokens_ratio(&self.model),
            settings: &self.settings,
        }
    }
}

/// Parses a body.
pub(super) fn parse(document: &mut Document) -> Result<Value<'_>, Error> {
    let not_json = |error: ParseError| Error::invalid(format!("The request body is not valid JSON: {error}"));
    check_values(document.bytes())?;
    document.parse().map_err(not_json)
}

/// The model that the client named; empty where it named none.
fn model_of<'b>(body: &'b Value<'_>) -> &'b str {
    body.get("model").and_then(Value::as_str).unwrap_or_default()
}

/// Whether any hook is defined that gets `req`.
fn sees_request(hooks: &Hooks) -> bool {
    Hook::ALL.iter().any(|hook| *hook != Hook::Load && hooks.defines(*hook))
}

/// Whether a block of type `image` stands anywhere in messages, contents or tool results.
fn has_images(value: &Value<'_>) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_images),
        Value::Object(object) => {
            object.get("type").and_then(Value::as_str) == Some("image")
                || object.get("content").is_some_and(has_images)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
