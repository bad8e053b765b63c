//! One function for each hook: builds its arguments, calls it, and checks the value that it returns.

use std::borrow::Cow;

use super::kind::{Defined, Hook};
use super::load::EVENT_TYPES;
use super::nearest;
use super::outcome::Returned;
use super::request::HookRequest;
use super::set::Hooks;
use crate::error::{Error, Kind, Retry};
use crate::json::{Object, Value};
use crate::lane::Lane;

/// The decision of `on_request`.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// No decision: the alias table routes the request.
    Continue,
    /// Send the request elsewhere. `model` is looked up in the alias table; `upstream` gets that model, or without one
    /// its own.
    Route {
        /// The model.
        model: Option<String>,
        /// The upstreams' names; the one that answers soonest gets the request.
        upstreams: Vec<String>,
        /// How urgent the request is, instead of what its headers say.
        lane: Option<Lane>,
        /// Whether the request is recorded, instead of what the operator set.
        record: Option<bool>,
    },
    /// The client gets this error.
    Reject(Error),
    /// The client gets this message, which has at least `content`; no upstream is asked.
    Respond(Value<'static>),
}

/// The decision of `on_error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorDecision {
    /// No decision: the client gets the error.
    Continue,
    /// Try any other upstream that could serve the request.
    RetryOther,
    /// Send the request elsewhere, as [`Decision::Route`] does. At least one of the two is there.
    Route {
        /// The model.
        model: Option<String>,
        /// The upstream's name.
        upstream: Option<String>,
    },
    /// The client gets this error instead.
    Replace(Error),
}

impl Hooks {
    /// Runs before routing. `body`, the Messages request, is `req.body`. `looked_up` turns a model's name into the form
    /// that the alias table looks up: each hook sees the client's name, and those that earlier hooks chose, in this
    /// form.
    ///
    /// # Errors
    /// A hook of policy closed failed: the request is refused.
    pub fn on_request(
        &self,
        request: &mut HookRequest,
        body: &mut Value<'_>,
        looked_up: &dyn Fn(&str) -> &str,
    ) -> Result<Decision, Error> {
        let model = request.model.clone();
        let decided = self.decide(request, body, looked_up);
        request.model = model;
        decided
    }

    /// Calls the hooks in order. `req.model` holds the name that the earlier hooks chose.
    fn decide(
        &self,
        request: &mut HookRequest,
        body: &mut Value<'_>,
        looked_up: &dyn Fn(&str) -> &str,
    ) -> Result<Decision, Error> {
        let model_of = |body: &Value<'_>| body.get("model").and_then(Value::as_str).map(str::to_string);
        let mut route = (None, Vec::new(), None, None);
        let mut named = model_of(body);
        for (index, defined) in self.of(Hook::Request) {
            let decision =
                self.call(index, defined, body, request, &|returned, _| self.read_decision(returned))?;
            match decision {
                None | Some(Decision::Continue) => {}
                Some(Decision::Route { model, upstreams, lane, record }) => {
                    let upstreams = if upstreams.is_empty() { route.1 } else { upstreams };
                    route = (model.or(route.0), upstreams, lane.or(route.2), record.or(route.3));
                }
                Some(last @ (Decision::Reject(_) | Decision::Respond(_))) => return Ok(last),
            }
            let edited = model_of(body);
            if let Some(model) = route.0.clone().or_else(|| edited.clone().filter(|_| edited != named)) {
                request.model = looked_up(&model).to_string();
            }
            named = edited;
        }
        Ok(routed(route))
    }

    /// Runs before the request is sent. `body` is the chat completions body.
    ///
    /// # Errors
    /// A hook of policy closed failed: the request is refused.
    pub fn on_upstream_request(&self, body: &mut Value<'_>, request: &mut HookRequest) -> Result<(), Error> {
        for (index, defined) in self.of(Hook::UpstreamRequest) {
            self.call(index, defined, body, request, &|returned, body| {
                replace(
                    returned,
                    body,
                    "on_upstream_request may return nothing or a table that replaces the body",
                )
            })?;
        }
        Ok(())
    }

    /// Runs for one event of the stream, a table with a `type`. Returns `false` if the event is dropped.
    ///
    /// # Errors
    /// A hook of policy closed failed: the stream ends with this error.
    pub fn on_event(&self, event: &mut Value<'_>, request: &mut HookRequest) -> Result<bool, Error> {
        let told = event.get("type").and_then(Value::as_str).unwrap_or_default();
        let Some(kind) = EVENT_TYPES.into_iter().find(|kind| *kind == told) else { return Ok(true) };
        // Hooks may look at other types of events, but not change them.
        let fixed = (!matches!(kind, "text" | "thinking")).then(|| event.clone());
        for (index, defined) in self.of(Hook::Event).filter(|(_, defined)| defined.wants_event(kind)) {
            let kept = self.call(index, defined, event, request, &|returned, event| {
                read_event(returned, event, kind, fixed.as_ref())
            })?;
            if kept == Some(false) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs for one complete tool call: `{ id, name, input }`.
    ///
    /// # Errors
    /// A hook of policy closed failed: the stream ends with this error.
    pub fn on_tool_call(&self, call: &mut Value<'_>, request: &mut HookRequest) -> Result<(), Error> {
        for (index, defined) in self.of(Hook::ToolCall) {
            self.call(index, defined, call, request, &read_tool_call)?;
        }
        Ok(())
    }

    /// Runs when the upstream failed before its first byte.
    ///
    /// # Errors
    /// A hook of policy closed failed: this error goes out.
    pub fn on_error(
        &self,
        error: &Error,
        upstream: &str,
        request: &mut HookRequest,
    ) -> Result<ErrorDecision, Error> {
        for (index, defined) in self.of(Hook::Error) {
            let mut subject = Value::object([
                ("status", u64::from(error.status()).into()),
                ("type", error.kind.name().into()),
                ("message", error.message.as_str().into()),
                ("upstream", upstream.into()),
            ]);
            let read = |returned: Returned<'_>, _: &mut Value<'_>| self.read_error_decision(returned, error);
            match self.call(index, defined, &mut subject, request, &read)? {
                None | Some(ErrorDecision::Continue) => {}
                Some(decision) => return Ok(decision),
            }
        }
        Ok(ErrorDecision::Continue)
    }

    /// Runs after the end. It cannot change the request any more, so policy closed has no effect here.
    /// Hooks see nil in the place of a null of the record, so that `if rec.error then` means what it says.
    pub fn on_log(&self, record: &mut Value<'_>, request: &mut HookRequest) {
        if let Some(object) = record.as_object_mut() {
            let nulls = object.iter().filter(|(_, value)| value.is_null());
            let nulls: Vec<String> = nulls.map(|(key, _)| key.to_owned()).collect();
            nulls.iter().for_each(|key| _ = object.remove(key));
        }
        for (index, defined) in self.of(Hook::Log) {
            // `call` has counted and logged a failure.
            let _ = self.call(index, defined, record, request, &|_, _| Ok(()));
        }
    }

    /// Runs when the state of an upstream has changed. No request waits for it, so policy closed has no effect here.
    pub fn on_upstream_state(&self, name: &str, state: &str, why: &str) {
        for (index, defined) in self.of(Hook::UpstreamState) {
            self.tell(index, defined, [name, state, why]);
        }
    }

    pub(super) fn of(&self, hook: Hook) -> impl Iterator<Item = (usize, &Defined)> {
        self.blueprint.defined.iter().enumerate().filter(move |(_, defined)| defined.hook == hook)
    }

    fn read_decision(&self, returned: Returned<'_>) -> Result<Decision, String> {
        const KEYS: [&str; 7] = ["model", "upstream", "lane", "record", "reject", "message", "respond"];
        let Some(mut object) = returned_table(returned, Hook::Request, &KEYS)? else {
            return Ok(Decision::Continue);
        };
        if let Some(status) = status(&object, "reject")? {
            let message = text(&object, "message")?.unwrap_or_else(|| "refused by a hook".to_owned());
            let retry = if status < 429 { Retry::Never } else { Retry::Unsaid };
            return Ok(Decision::Reject(Error::new(Kind::Api, message).with_status(status).retry(retry)));
        }
        if object.get("message").is_some() {
            return Err("on_request returned a message without reject = STATUS".to_owned());
        }
        if let Some(message) = object.remove("respond") {
            return read_respond(message).map(Decision::Respond);
        }
        let lane = match object.get("lane") {
            None => None,
            Some(number) => match number.as_u64().filter(|number| *number <= 2) {
                Some(number) => Some(Lane::numbered(number)),
                None => return Err("the returned lane must be 0, 1 or 2".to_owned()),
            },
        };
        let record = match object.get("record") {
            None => None,
            Some(told) => Some(told.as_bool().ok_or("the returned record must be true or false")?),
        };
        Ok(routed((text(&object, "model")?, self.upstreams(&object)?, lane, record)))
    }

    fn read_error_decision(&self, returned: Returned<'_>, error: &Error) -> Result<ErrorDecision, String> {
        const KEYS: [&str; 5] = ["retry", "model", "upstream", "status", "message"];
        let Some(object) = returned_table(returned, Hook::Error, &KEYS)? else {
            return Ok(ErrorDecision::Continue);
        };
        match text(&object, "retry")?.as_deref() {
            Some("other") => return Ok(ErrorDecision::RetryOther),
            Some(_) => return Err("the returned retry may be \"other\" only".to_owned()),
            None => {}
        }
        let (model, upstream) = (text(&object, "model")?, self.upstream(&object)?);
        if model.is_some() || upstream.is_some() {
            return Ok(ErrorDecision::Route { model, upstream });
        }
        let (status, message) = (status(&object, "status")?, text(&object, "message")?);
        if status.is_none() && message.is_none() {
            return Ok(ErrorDecision::Continue);
        }
        let mut changed = match status {
            Some(status) => error.clone().with_status(status),
            None => error.clone(),
        };
        if let Some(message) = message {
            changed.message = message;
        }
        Ok(ErrorDecision::Replace(changed))
    }

    /// The names under `upstream`: one name, or a list of names.
    fn upstreams(&self, object: &Object<'_>) -> Result<Vec<String>, String> {
        let form = || "the returned upstream must be a name, or a list of different names".to_owned();
        let Some(Value::Array(list)) = object.get("upstream") else {
            // An empty table of Lua is an object.
            if matches!(object.get("upstream"), Some(Value::Object(_))) {
                return Err(form());
            }
            return Ok(self.upstream(object)?.into_iter().collect());
        };
        if list.is_empty() || list.len() > self.blueprint.upstreams.len() {
            return Err(form());
        }
        list.iter()
            .map(|name| match name.as_str() {
                Some(name) => self.known_upstream(name),
                None => Err("the returned upstream must be a name, or a list of names".to_owned()),
            })
            .collect()
    }

    /// The name under `upstream`, which must be that of an existing upstream.
    fn upstream(&self, object: &Object<'_>) -> Result<Option<String>, String> {
        text(object, "upstream")?.map(|name| self.known_upstream(&name)).transpose()
    }

    fn known_upstream(&self, name: &str) -> Result<String, String> {
        let names: Vec<&str> = self.blueprint.upstreams.iter().map(String::as_str).collect();
        match names.contains(&name) {
            true => Ok(name.to_owned()),
            false => Err(nearest::unknown("the hook returned an unknown upstream", name, &names)),
        }
    }
}

/// The decision for a model, upstreams, a lane and a recording. Without any of them the alias table decides.
fn routed(
    (model, upstreams, lane, record): (Option<String>, Vec<String>, Option<Lane>, Option<bool>),
) -> Decision {
    match (model, lane, record) {
        (None, None, None) if upstreams.is_empty() => Decision::Continue,
        (model, lane, record) => Decision::Route { model, upstreams, lane, record },
    }
}

/// Takes an edit in place, or a table that replaces the subject.
fn replace<'a>(returned: Returned<'a>, subject: &mut Value<'a>, contract: &str) -> Result<(), String> {
    match returned {
        Returned::Nothing | Returned::Subject => Ok(()),
        Returned::Value(value @ Value::Object(_)) => {
            *subject = value;
            Ok(())
        }
        other => Err(format!("{contract}, got {}", other.describe())),
    }
}

/// Applies the result of `on_event` to the event; returns `false` if the event is dropped. `fixed` is the event as it
/// was before the hook, if hooks may only look at events of this type.
fn read_event<'a>(
    returned: Returned<'a>,
    event: &mut Value<'a>,
    kind: &'static str,
    fixed: Option<&Value<'a>>,
) -> Result<bool, String> {
    let mut replacement = match returned {
        Returned::Nothing | Returned::Subject => None,
        Returned::Value(value @ Value::Object(_)) => Some(value),
        Returned::False if fixed.is_none() => return Ok(false),
        Returned::False => return Err(format!("on_event cannot drop an event of type {kind}")),
        other => {
            return Err(format!("on_event may return nothing, an event or false, got {}", other.describe()));
        }
    };
    // Check everything before changing anything: a failed call must leave the event as it was.
    let new = replacement.as_ref().and_then(Value::as_object);
    if let Some((key, _)) = new.and_then(|new| new.iter().find(|(key, _)| event.get(key).is_none())) {
        let known: Vec<&str> =
            event.as_object().into_iter().flat_map(Object::iter).map(|(key, _)| key).collect();
        return Err(nearest::unknown("on_event returned the unknown key", key, &known));
    }
    let changed = replacement.as_mut().unwrap_or(event);
    let is_kind = |found: &Value<'_>| found.as_str() == Some(kind);
    if !changed.get("type").is_none_or(is_kind) {
        return Err(format!("on_event cannot change the type of an event from {kind}"));
    }
    if let Some(fixed) = fixed.and_then(Value::as_object) {
        let is_changed = |(key, old): &(&str, &Value<'_>)| {
            changed.get(key).is_some_and(|new| *key != "type" && new != *old)
        };
        if let Some((key, _)) = fixed.iter().find(is_changed) {
            return Err(format!("on_event cannot change the {key} of an event of type {kind}"));
        }
    } else if changed.get("text").and_then(Value::as_str).is_none() {
        return Err(format!("the text of an event of type {kind} must be a string"));
    }
    match (fixed, replacement) {
        (Some(fixed), _) => *event = fixed.clone(),
        (None, Some(replacement)) => *event = replacement,
        (None, None) => {}
    }
    // Set the type, which the hook's table may lack: the hooks of other files choose events by it.
    if let Some(object) = event.as_object_mut() {
        object.set("type", kind);
    }
    Ok(true)
}

impl Returned<'_> {
    fn describe(&self) -> String {
        match self {
            Returned::Nothing => "nothing".to_owned(),
            Returned::False => "false".to_owned(),
            Returned::Subject => "its argument".to_owned(),
            Returned::Value(Value::String(_)) => "a string".to_owned(),
            Returned::Value(Value::Array(_)) => "a list".to_owned(),
            Returned::Value(_) => "a table".to_owned(),
            Returned::Other(name) => format!("a {name}"),
        }
    }
}

/// The table that a hook returned; any key that is not in the list is an error.
pub(super) fn returned_table<'a>(
    returned: Returned<'a>,
    hook: Hook,
    known: &[&str],
) -> Result<Option<Object<'a>>, String> {
    match returned {
        Returned::Nothing => Ok(None),
        Returned::Value(Value::Object(object)) => {
            if let Some((key, _)) = object.iter().find(|(key, _)| !known.contains(key)) {
                return Err(nearest::unknown(
                    &format!("{} returned the unknown key", hook.name()),
                    key,
                    known,
                ));
            }
            Ok(Some(object))
        }
        other => Err(format!(
            "{} may return nothing or a table with {}, got {}",
            hook.name(),
            known.join(", "),
            other.describe()
        )),
    }
}

/// The string under `key`.
pub(super) fn text(object: &Object<'_>, key: &str) -> Result<Option<String>, String> {
    match object.get(key) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.to_string())),
        Some(_) => Err(format!("the returned {key} must be a string that is not empty")),
    }
}

/// The error status under `key`.
fn status(object: &Object<'_>, key: &str) -> Result<Option<u16>, String> {
    let Some(value) = object.get(key) else { return Ok(None) };
    match value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| (400..=599).contains(n)) {
        Some(status) => Ok(Some(status)),
        None => Err(format!("the returned {key} must be a status from 400 to 599")),
    }
}

/// A message, or a string that becomes one.
fn read_respond(message: Value<'_>) -> Result<Value<'static>, String> {
    let text_block = |text: Cow<'_, str>| {
        let block = Value::object([("type", "text".into()), ("text", Value::from(text.into_owned()))]);
        Value::from(vec![block])
    };
    match message {
        Value::String(text) => Ok(Value::object([("content", text_block(text))])),
        Value::Object(mut object) => match object.get_mut("content") {
            Some(Value::Array(blocks)) => match blocks.iter().find(|block| !is_respond_block(block)) {
                Some(block) => Err(format!(
                    "the returned respond has a content block that is neither text nor a tool_use with a name and an \
                     input: {}",
                    beginning_of(&block.to_json())
                )),
                None => Ok(Value::Object(object).into_owned()),
            },
            Some(content @ Value::String(_)) => {
                if let Value::String(text) = std::mem::take(content) {
                    *content = text_block(text);
                }
                Ok(Value::Object(object).into_owned())
            }
            _ => Err("the returned respond has no content (a string or a list of content blocks)".to_owned()),
        },
        _ => Err("the returned respond is neither a string nor a message".to_owned()),
    }
}

/// True if a block of a `respond` can be shown to a client: a string, a text block, or a whole tool call.
fn is_respond_block(block: &Value<'_>) -> bool {
    let text_of = |key: &str| block.get(key).and_then(Value::as_str);
    let has_input = block.get("input").is_none_or(|input| input.as_object().is_some());
    let is_call = text_of("type") == Some("tool_use")
        && text_of("name").is_some_and(|name| !name.is_empty())
        && has_input;
    block.as_str().is_some() || text_of("text").is_some() || is_call
}

/// The beginning of a text, short enough to be quoted in an error.
fn beginning_of(text: &str) -> &str {
    const QUOTED_MAX: usize = 100;
    text.char_indices().nth(QUOTED_MAX).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

fn read_tool_call<'a>(returned: Returned<'a>, call: &mut Value<'a>) -> Result<(), String> {
    let changed = match returned {
        Returned::Subject => None,
        other => returned_table(other, Hook::ToolCall, &["id", "name", "input"])?,
    };
    let changed = changed.unwrap_or_default();
    let object = call.as_object_mut().ok_or("the call must stay a table")?;
    let name_is_good = |value: &Value<'_>| value.as_str().is_some_and(|name| !name.is_empty());
    let input_is_good = |value: &Value<'_>| value.as_object().is_some();
    if !changed.get("name").or_else(|| object.get("name")).is_some_and(name_is_good) {
        return Err("a tool call's name is a string".to_owned());
    }
    if !changed.get("input").or_else(|| object.get("input")).is_some_and(input_is_good) {
        return Err("a tool call's input is a table with named keys".to_owned());
    }
    let mut changed = changed;
    for key in ["name", "input"] {
        if let Some(value) = changed.remove(key) {
            object.set(key, value);
        }
    }
    Ok(())
}
