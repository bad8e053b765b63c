//! `on_event` and `on_tool_call` between the translation and the client. Made only where one of them is defined.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::anthropic::{Delta, Event};
use crate::error::Error;
use crate::hooks::{self, Hook};
use crate::json::{self, Value};

use crate::fleet::Gateway;

/// `req`, shared by all hooks of one request.
pub(super) type Shown = Rc<RefCell<hooks::Request>>;

/// The hooks that see an answer's events.
pub(super) struct Filter {
    gateway: Arc<Gateway>,
    shown: Shown,
    has_tool_call: bool,
    /// The tool call that is being gathered for `on_tool_call`.
    call: Option<Call>,
    /// A hook of policy closed failed: the answer ends with this.
    failed: Option<Error>,
}

#[derive(Default)]
struct Call {
    id: String,
    name: String,
    input: String,
}

impl Filter {
    /// `None`: no such hook is defined.
    pub(super) fn new(gateway: &Arc<Gateway>, shown: Option<&Shown>) -> Option<Filter> {
        let hooks = gateway.hooks();
        let has_tool_call = hooks.defines(Hook::ToolCall);
        let shown = shown.filter(|_| has_tool_call || hooks.defines(Hook::Event))?;
        Some(Filter {
            gateway: Arc::clone(gateway),
            shown: Rc::clone(shown),
            has_tool_call,
            call: None,
            failed: None,
        })
    }

    /// What ended the answer, once.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failed.take()
    }

    /// Passes an event on, changed or not, or not at all.
    pub(super) fn event(&mut self, event: &Event<'_>, pass: &mut dyn FnMut(&Event<'_>)) {
        match (event, &mut self.call) {
            (Event::ToolUseStart { id, name, .. }, _) if self.has_tool_call => {
                self.call = Some(Call { id: id.to_string(), name: name.to_string(), input: String::new() });
            }
            (Event::BlockDelta { delta: Delta::InputJson(json), .. }, Some(call)) => {
                call.input.push_str(json)
            }
            (Event::BlockStop { index }, Some(_)) => {
                let call = self.call.take().unwrap_or_default();
                self.tool_call(*index, call, pass);
            }
            _ => self.seen(event, pass),
        }
    }

    fn tool_call(&mut self, index: u32, call: Call, pass: &mut dyn FnMut(&Event<'_>)) {
        let mut bytes = if call.input.is_empty() { b"{}".to_vec() } else { call.input.clone().into_bytes() };
        let (mut name, mut input) = (call.name, call.input);
        // A call that was cut at the token limit is not whole, and no hook's business.
        if let Ok(parsed) = json::parse(&mut bytes) {
            let mut subject = Value::object([
                ("id", call.id.as_str().into()),
                ("name", name.clone().into()),
                ("input", parsed),
            ]);
            match self.gateway.hooks().on_tool_call(&mut subject, &mut self.shown.borrow_mut()) {
                Ok(()) => {
                    if let Some(new) = subject.get("name").and_then(Value::as_str) {
                        name = new.to_string();
                    }
                    if let Some(new) = subject.get("input").filter(|input| input.as_object().is_some()) {
                        input = new.to_json();
                    }
                }
                Err(error) => self.failed = Some(error),
            }
        }
        self.seen(&Event::ToolUseStart { index, id: &call.id, name: &name }, pass);
        if !input.is_empty() {
            pass(&Event::BlockDelta { index, delta: Delta::InputJson(&input) });
        }
        pass(&Event::BlockStop { index });
    }

    /// `on_event` for the events that mean something; the frame around them passes untouched.
    fn seen(&mut self, event: &Event<'_>, pass: &mut dyn FnMut(&Event<'_>)) {
        let Some((kind, mut subject)) = as_subject(event) else { return pass(event) };
        let hooks = self.gateway.hooks();
        if self.failed.is_some() || !hooks.wants_event(kind) {
            return pass(event);
        }
        match hooks.on_event(&mut subject, &mut self.shown.borrow_mut()) {
            Ok(true) => {}
            // Only a piece of text can be left out: without its other events a stream is none.
            Ok(false) if matches!(event, Event::BlockDelta { .. }) => return,
            Ok(false) => return pass(event),
            Err(error) => {
                self.failed = Some(error);
                return pass(event);
            }
        }
        let text = subject.get("text").and_then(Value::as_str).unwrap_or_default();
        match event {
            Event::BlockDelta { index, delta: Delta::Text(_) } => {
                pass(&Event::BlockDelta { index: *index, delta: Delta::Text(text) });
            }
            Event::BlockDelta { index, delta: Delta::Thinking(_) } => {
                pass(&Event::BlockDelta { index: *index, delta: Delta::Thinking(text) });
            }
            other => pass(other),
        }
    }
}

/// The event as a hook sees it, with its type's name.
fn as_subject<'e>(event: &'e Event<'_>) -> Option<(&'static str, Value<'e>)> {
    let object = |kind: &'static str, members: [(&'static str, Value<'e>); 2]| {
        let [first, second] = members;
        (kind, Value::object([("type", kind.into()), first, second]))
    };
    match event {
        Event::BlockDelta { index, delta: Delta::Text(text) } => {
            Some(object("text", [("text", (*text).into()), ("index", u64::from(*index).into())]))
        }
        Event::BlockDelta { index, delta: Delta::Thinking(text) } => {
            Some(object("thinking", [("text", (*text).into()), ("index", u64::from(*index).into())]))
        }
        Event::ToolUseStart { id, name, .. } => {
            Some(object("tool_use", [("id", (*id).into()), ("name", (*name).into())]))
        }
        Event::MessageDelta { stop_reason, usage, .. } => Some(object(
            "end",
            [("stop_reason", stop_reason.name().into()), ("output_tokens", usage.output.into())],
        )),
        _ => None,
    }
}
