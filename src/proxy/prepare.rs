//! Turns a client's bytes into a chat completion: parse, `on_request`, check, route, translate, `on_upstream_request`.
//!
//! The tree of a request exists only here; the results own all that they need.

use std::cell::RefCell;
use std::rc::Rc;

use crate::anthropic::{MODEL_LENGTH_MAX, MessagesRequest, Thinking, WEB_SEARCH};
use crate::error::{Error, Kind, Retry};
use crate::hooks::{self, Decision, Hook, Hooks};
use crate::http::{Request, SECRET_HEADERS, Socket};
use crate::json::{self, Document, ParseError, Value};
use crate::lane::Lane;
use crate::policy::RequestFacts;
use crate::prefix::{Chain, ChainBuilder};
use crate::protocol::messages::texts_beside;
use crate::translate::{self, ChatRequest, chat_request};
use crate::transport::{Wait, has_left};

use super::budget::MemoryShare;
use super::filter::Shown;
use super::footprint;
use super::outgoing::{FormTexts, keep_back};
use super::routing::Routing;
use super::stop::Stop;
use crate::activity::{Caller, Record};
use crate::fleet::{Destination, Gateway, Resolved, Served};

/// The beta of clients that know the stop reason `model_context_window_exceeded`.
const CONTEXT_WINDOW_BETA: &str = "model-context-window-exceeded-2025-08-26";

/// The size in bytes from which on the client is watched between the stages of its request. Each stage takes some
/// tenths of a second for a body of 32 MiB; for a smaller one, all are over before a client could have left.
const WATCHED_SIZE_MIN: usize = 1024 * 1024;

/// The most bytes of `req.tool_names`, which is kept until the request ends. Claude Code's take 2 KB.
const TOOL_NAMES_SIZE_MAX: usize = 64 * 1024;

/// The inputs of a request's preparation.
pub(super) struct Incoming<'p> {
    pub(super) gateway: &'p Gateway,
    /// Waits for upstreams. `None`: no upstream may be asked for anything.
    pub(super) wait: Option<Rc<dyn Wait>>,
    /// The memory for trees that the request holds. `None`: it is not counted (`sparkgap hook`).
    pub(super) room: Option<MemoryShare>,
    pub(super) request: &'p Request,
    pub(super) caller: &'p Caller,
}

/// The data that the hooks of one request share, and their decisions.
#[derive(Default)]
pub(super) struct Hooked {
    /// `req`, if any hook that sees it is defined.
    pub(super) shown: Option<Shown>,
    /// The model as the client named it; empty if no hook is shown the request.
    pub(super) client_model: String,
    /// The model that `on_request` chose instead of the client's.
    model: Option<String>,
    /// The upstreams that `on_request` or `on_error` chose; empty if neither did.
    pub(super) upstreams: Vec<String>,
    /// The lane that `on_request` chose.
    pub(super) lane: Option<Lane>,
    /// Whether `on_request` wants the request recorded; `None`: it does not say.
    pub(super) record: Option<bool>,
    /// The body after `on_request`, kept only if it passes as bytes, if the request may be sent to another upstream, or
    /// if it waits for one.
    pub(super) saved: Option<Vec<u8>>,
    /// True if the body is so large that the client may leave before all stages are done. Then it is watched between
    /// them.
    pub(super) is_watched: bool,
    /// The client's socket, which a hook watches while it waits for a VM.
    pub(super) client: Option<Socket>,
}

impl Hooked {
    /// Keeps the body, if it is not kept already.
    pub(super) fn save(&mut self, body: &Value<'_>) {
        self.saved.get_or_insert_with(|| body.to_json().into_bytes());
    }

    /// Runs `on_log` for a request that has ended.
    pub(super) fn log(&self, hooks: &Hooks, record: &Record) {
        if let (true, Some(shown)) = (hooks.defines(Hook::Log), &self.shown) {
            hooks.on_log(&mut record.to_value(), &mut shown.borrow_mut());
        }
    }

    /// Sends the request elsewhere. Without a model the one that a hook chose before still counts.
    pub(super) fn reroute(&mut self, model: Option<String>, upstream: Option<String>) {
        self.model = model.or(self.model.take());
        self.upstreams = upstream.into_iter().collect();
    }
}

impl Incoming<'_> {
    /// The first stage: parses the body and runs `on_request`.
    pub(super) fn hooked<'b>(
        &self,
        document: &'b mut Document,
        hooked: &mut Hooked,
    ) -> Result<Value<'b>, Stop> {
        hooked.is_watched = document.bytes().len() >= WATCHED_SIZE_MIN;
        self.check_client(hooked)?;
        if self.gateway.speaks_messages() {
            // An upstream may get the client's own bytes, which do not survive the parser.
            hooked.saved.get_or_insert_with(|| document.bytes().to_vec());
        }
        let mut body = self.parse(document)?;
        self.check_client(hooked)?;
        let hooks = self.gateway.hooks();
        if sees_request(hooks) {
            hooked.client_model = model_of(&body).to_string();
            hooked.shown = Some(Rc::new(RefCell::new(self.shown(&body, hooked.client.as_ref()))));
        }
        if let (true, Some(shown)) = (hooks.defines(Hook::Request), &hooked.shown) {
            let looked_up: &dyn Fn(&str) -> &str = &|model| self.gateway.requested(model);
            let before = hooked.saved.is_some().then(|| body.to_json());
            let decision = hooks.on_request(&mut shown.borrow_mut(), &mut body, looked_up)?;
            // A hook that changed nothing changes no byte.
            if let Some(after) = before.map(|before| (before, body.to_json())).filter(|(a, b)| a != b) {
                hooked.saved = Some(after.1.into_bytes());
            }
            match decision {
                Decision::Continue => {}
                Decision::Route { model, upstreams, lane, record } => {
                    (hooked.model, hooked.upstreams, hooked.lane) = (model, upstreams, lane);
                    hooked.record = record;
                }
                Decision::Reject(error) => return Err(error.into()),
                Decision::Respond(message) => return Err(Stop::Respond(message)),
            }
        }
        if hooks.defines(Hook::Error) {
            hooked.save(&body);
        }
        Ok(body)
    }

    /// Waits until there is memory for a body's tree and its translation, and parses the body.
    ///
    /// # Errors
    /// 400 if the body is not JSON or would take far more memory than it has bytes. 413 and 529, see [`MemoryShare::claim`].
    pub(super) fn parse<'d>(&self, document: &'d mut Document) -> Result<Value<'d>, Stop> {
        let body = footprint::BodyFootprint::read(document.bytes())?;
        if let (Some(room), Some(wait)) = (&self.room, &self.wait) {
            room.claim(body.tree(), wait.as_ref())?;
        }
        let tree = document.parse().map_err(|error| not_json(&error))?;
        let size = body.translated(&tree)?;
        if let Some(room) = &self.room {
            room.set(size);
        }
        Ok(tree)
    }

    /// The second stage: check, and the upstreams that can answer. The request is `None` if only an upstream that speaks the
    /// Messages API itself can judge it: it may know more than sparkgap.
    pub(super) fn routed<'b>(
        &self,
        body: &'b Value<'b>,
        hooked: &Hooked,
        record: &mut Record,
    ) -> Result<(Option<MessagesRequest<'b>>, Routing), Stop> {
        describe(body, record);
        let read = MessagesRequest::read(body);
        let model = model_of(body);
        let may_pass = self.gateway.speaks_messages() && (1..=MODEL_LENGTH_MAX).contains(&model.len());
        let messages = match read {
            Err(error) if !may_pass => return Err(error.into()),
            read => read,
        };
        let (requested, mut destinations) = self.destinations(model, hooked)?;
        let passes = |served: &Served| served.upstream().speaks_messages();
        self.remove_forbidden(&mut destinations, (body, None), &passes)?;
        if let Err(error) = &messages {
            destinations.retain(|destination| destination.served.upstream().speaks_messages());
            if destinations.is_empty() {
                return Err(error.clone().into());
            }
        }
        let routing = Routing::new(requested, destinations);
        Ok((messages.ok(), routing))
    }

    /// The upstreams that can answer a request for `model`, and the model that it is to have: a hook may have chosen both.
    pub(super) fn destinations<'m>(
        &self,
        model: &'m str,
        hooked: &'m Hooked,
    ) -> Result<(&'m str, Vec<Destination>), Stop> {
        let requested = hooked.model.as_deref().unwrap_or(model);
        let chosen = hooked.upstreams.as_slice();
        let own_model = hooked.model.as_deref().filter(|_| !chosen.is_empty());
        if let Some(wait) = &self.wait {
            self.gateway.refresh(requested, chosen, wait).map_err(|_| Stop::ClientGone)?;
        }
        Ok((requested, self.gateway.destinations(requested, chosen, own_model)?))
    }

    /// Removes the upstreams that must not get this request: by `never_to`, or because a hook of policy closed could not see
    /// their answers. `form`: the content type and the bytes of a form, for which `body` only stands. `passes`: whether the answers of an
    /// upstream pass as they are.
    ///
    /// # Errors
    /// 403: none of them may get it. The client has left during the search.
    pub(super) fn remove_forbidden(
        &self,
        destinations: &mut Vec<Destination>,
        (body, form): (&Value<'_>, Option<(&str, &[u8])>),
        passes: &dyn Fn(&Served) -> bool,
    ) -> Result<(), Stop> {
        let mut why = None;
        destinations.retain(|destination| {
            let served = &destination.served;
            let allowed = self.check_never_to(served, (body, form)).and_then(|()| match passes(served) {
                true => self.check_hooks(served),
                false => Ok(()),
            });
            why = allowed.as_ref().err().cloned().or(why.take());
            allowed.is_ok()
        });
        match why {
            Some(_) if self.has_left() => Err(Stop::ClientGone),
            Some(error) if destinations.is_empty() => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn has_left(&self) -> bool {
        self.wait.as_ref().is_some_and(|wait| has_left(wait.as_ref()))
    }

    /// Checks the client's request by the rules that keep requests from an upstream.
    ///
    /// # Errors
    /// 403: a rule keeps this request back.
    fn check_never_to(
        &self,
        served: &Served,
        (body, form): (&Value<'_>, Option<(&str, &[u8])>),
    ) -> Result<(), Error> {
        if self.gateway.never_to(served.name()).next().is_none() {
            return Ok(());
        }
        let mut beside = texts_beside(self.request);
        let form = form.map(|(kind, form)| FormTexts::read(kind, form));
        beside.extend(form.iter().flat_map(FormTexts::texts));
        let header = |name: &str| {
            let values = self.request.headers.values(name);
            values.map(|value| String::from_utf8_lossy(value).into_owned()).collect()
        };
        let user = self.caller.user.as_deref();
        let (is_opaque, is_stopped) = (form.as_ref().is_some_and(|form| form.is_opaque), &|| self.has_left());
        let facts = RequestFacts { body, beside: &beside, user, is_opaque, header: &header, is_stopped };
        keep_back(self.gateway, served, &facts)
    }

    /// Checks that no hook of policy closed would have to see the answer of an upstream whose answers pass as they are.
    fn check_hooks(&self, served: &Served) -> Result<(), Error> {
        for hook in [Hook::Event, Hook::ToolCall] {
            let name = hook.name();
            if self.gateway.hooks().is_closed(hook) {
                let what = format!(
                    "the hook {name} has policy closed and cannot see the answers of '{}', which pass as they are",
                    served.name()
                );
                return Err(Error::new(Kind::Permission, what).retry(Retry::Never));
            }
            if self.gateway.hooks().defines(hook) {
                self.gateway.warn_once("not called for answers that pass as they are", name);
            }
        }
        Ok(())
    }

    /// The third stage: translate, `on_upstream_request`. `finish` extracts the parts of the result to keep.
    pub(super) fn translated<T>(
        &self,
        messages: &MessagesRequest<'_>,
        resolved: &Resolved,
        hooked: &Hooked,
        record: &mut Record,
        finish: impl FnOnce(ChatRequest<'_>, Option<Chain>) -> T,
    ) -> Result<T, Stop> {
        resolved.served.name().clone_into(&mut record.details.upstream);
        record.details.upstream_model.clone_from(&resolved.model);
        self.check_client(hooked)?;
        let target = resolved.target();
        let mut chat = chat_request(messages, &target)?;
        self.check_client(hooked)?;
        // A server without priority scheduling refuses it once; the repair of that refusal leaves it out from then on.
        let lane = record.place.map_or(0, |_| record.details.lane.number());
        let lane_key = resolved.flavour.dialect().lane_key.filter(|_| lane > 0);
        if let (Some(key), Some(body)) = (lane_key, chat.body.as_object_mut()) {
            body.push(key, u64::from(lane));
        }
        let hooks = self.gateway.hooks();
        let mut is_changed = false;
        let mut own = None;
        if let (true, Some(shown)) = (hooks.defines(Hook::UpstreamRequest), &hooked.shown) {
            let shown = &mut *shown.borrow_mut();
            shown.upstream = Some(resolved.served.name().to_string());
            // So that a change by the hook can be told from one by the client.
            own = Some(ChainBuilder::write(&chat.body, &mut Vec::new()));
            hooks.on_upstream_request(&mut chat.body, shown)?;
            is_changed = true;
        }
        // Behind the hook, which may put in again what the server refuses.
        for repair in &resolved.repairs {
            is_changed |= translate::make_repair(repair, &mut chat.body);
        }
        if is_changed {
            chat.plan.measure(&chat.body, &target.lessons.tokens);
        }
        for dropped in &chat.dropped {
            self.gateway.warn_once("dropped, since OpenAI-compatible servers do not support it", dropped);
        }
        for name in &chat.not_allowed {
            self.gateway.warn_once("dropped, since allow_extra of the upstream does not name it", name);
        }
        if chat.has_search_clash {
            let what = "a web search is not offered to the model, since a tool of the client has its name";
            self.gateway.warn_once(what, WEB_SEARCH);
        }
        if chat.is_coercion_cut {
            let what = "the tools of a request are too large to be kept while its answer runs";
            self.gateway.warn_once(what, "arguments of some are not coerced to their schemas");
        }
        record.details.prompt_estimate = chat.plan.asked.prompt_tokens;
        chat.plan.context_window_beta = self.request.headers.lists("anthropic-beta", CONTEXT_WINDOW_BETA);
        Ok(finish(chat, own))
    }

    /// Runs `on_upstream_request` on a body that passes as bytes. Returns the changed body; `None`: it passes as it is.
    ///
    /// # Errors
    /// A hook of policy closed failed.
    pub(super) fn hooked_bytes(
        &self,
        bytes: &[u8],
        served: &Served,
        hooked: &Hooked,
    ) -> Result<Option<Vec<u8>>, Stop> {
        let hooks = self.gateway.hooks();
        let (true, Some(shown)) = (hooks.defines(Hook::UpstreamRequest), &hooked.shown) else {
            return Ok(None);
        };
        let mut copy = bytes.to_vec();
        let mut body = json::parse(&mut copy).map_err(|error| not_json(&error))?;
        let before = body.to_json();
        let shown = &mut *shown.borrow_mut();
        shown.upstream = Some(served.name().to_owned());
        hooks.on_upstream_request(&mut body, shown)?;
        let after = body.to_json();
        // A hook that changed nothing changes no byte.
        if after == before {
            return Ok(None);
        }
        Ok(Some(after.into_bytes()))
    }

    /// Stops the request if its client has left. Called between stages. Within a stage nothing checks, since the
    /// translation has no access to sockets; a stage's time is linear in the body's size.
    ///
    /// # Errors
    /// [`Stop::ClientGone`].
    fn check_client(&self, hooked: &Hooked) -> Result<(), Stop> {
        match &self.wait {
            Some(wait) if hooked.is_watched && has_left(wait.as_ref()) => Err(Stop::ClientGone),
            _ => Ok(()),
        }
    }

    /// The request as hooks see it.
    fn shown(&self, body: &Value<'_>, client: Option<&Socket>) -> hooks::HookRequest {
        let request = self.request;
        let text = |name: &str| request.header(name).map(str::to_string);
        let tools = body.get("tools").and_then(Value::as_array).unwrap_or_default();
        let mut left = TOOL_NAMES_SIZE_MAX;
        // Tools of chat completions have their names inside of `function`.
        let name = |tool: &Value<'_>| {
            let name = tool.get("name").or_else(|| tool.get("function")?.get("name"))?;
            Some(name.as_str()?.to_string())
        };
        let tool_names = tools.iter().filter_map(name);
        let tool_names = tool_names.take_while(|name| {
            left = left.saturating_sub(name.len() + size_of::<String>());
            left > 0
        });
        let thinking = body.get("thinking").and_then(|thinking| thinking.get("type")).and_then(Value::as_str);
        hooks::HookRequest {
            model: self.gateway.requested(model_of(body)).to_string(),
            stream: is_streamed(body),
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
            has_images: ["messages", "input"].iter().filter_map(|key| body.get(key)).any(has_images),
            thinking: thinking.is_some_and(Thinking::is_asked_by),
            tool_names: tool_names.collect(),
            client: client.cloned(),
            ..hooks::HookRequest::default()
        }
    }
}

/// Settles how urgent a request is, before it asks for a place: a hook's word goes before that of its key's limits, and both
/// before its headers, which were noted first.
pub(super) fn settle_lane(hooked: &Hooked, of_key: Option<Lane>, record: &mut Record) {
    if let Some(lane) = hooked.lane.or(of_key) {
        record.details.lane = lane;
    }
}

/// Notes what the body says of itself. Called before the body is checked, so that the log line of a request that is
/// refused names its model too.
pub(super) fn describe(body: &Value<'_>, record: &mut Record) {
    record.details.client_model = model_of(body).chars().take(MODEL_LENGTH_MAX).collect();
    record.details.is_streamed = is_streamed(body);
}

/// The error for a body that cannot be parsed.
pub(super) fn not_json(error: &ParseError) -> Error {
    Error::invalid(format!("The request body is not valid JSON: {error}"))
}

fn is_streamed(body: &Value<'_>) -> bool {
    body.get("stream").and_then(Value::as_bool).unwrap_or(false)
}

/// The model that the client named, or an empty string.
pub(super) fn model_of<'b>(body: &'b Value<'_>) -> &'b str {
    body.get("model").and_then(Value::as_str).unwrap_or_default()
}

/// True if any hook that gets `req` is defined.
fn sees_request(hooks: &Hooks) -> bool {
    Hook::ALL.iter().any(|hook| hook.sees_requests() && hooks.defines(*hook))
}

/// True if messages, contents or tool results contain a block that is an image: `image`, or OpenAI's `image_url` and
/// `input_image`.
fn has_images(value: &Value<'_>) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_images),
        Value::Object(object) => {
            let kind = object.get("type").and_then(Value::as_str);
            matches!(kind, Some("image" | "image_url" | "input_image"))
                || object.get("content").is_some_and(has_images)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInteger(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::LoadOptions;
    use crate::{config, transport};

    fn gateway() -> Gateway {
        let upstream = config::UpstreamConfig {
            model: Some("m".into()),
            ..config::UpstreamConfig::new("default", "http://127.0.0.1:9/v1")
        };
        let loaded = Hooks::load(&[], vec![upstream], LoadOptions::default()).unwrap();
        Gateway::new(loaded, &transport::CallLimits::default()).unwrap()
    }

    #[test]
    fn a_large_request_goes_no_further_once_its_client_has_left() {
        let (wait, client) = transport::minded();
        let gateway = gateway();
        let request = Request {
            method: "POST".into(),
            path: "/v1/messages".into(),
            query: None,
            authority: None,
            headers: std::iter::empty::<(&str, &str)>().collect(),
        };
        let caller = Caller::new(client.peer_addr().unwrap().ip());
        let incoming = Incoming {
            gateway: &gateway,
            wait: Some(Rc::clone(&wait)),
            room: None,
            request: &request,
            caller: &caller,
        };
        let body = |size: usize| Document::from(format!(r#"{{"k":"{}"}}"#, "x".repeat(size)).into_bytes());
        let (mut large, mut small) = (body(WATCHED_SIZE_MIN), body(9));
        let mut hooked = Hooked::default();
        assert!(incoming.hooked(&mut large, &mut hooked).is_ok());
        assert!(incoming.check_client(&hooked).is_ok());
        drop(client);
        // The hang-up is already on its way within this machine, so wait for it to arrive, not for a fixed time.
        let arriving = wait.client().unwrap();
        let mut socket = [rustix::event::PollFd::new(&arriving, crate::hang_up::events(arriving))];
        rustix::event::poll(&mut socket, None).unwrap();
        assert!(matches!(incoming.check_client(&hooked), Err(Stop::ClientGone)));
        let mut large = body(WATCHED_SIZE_MIN);
        assert!(matches!(incoming.hooked(&mut large, &mut hooked), Err(Stop::ClientGone)));
        assert!(incoming.hooked(&mut small, &mut hooked).is_ok(), "a small one is as good as done");
    }
}
