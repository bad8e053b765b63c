//! Calls `on_event` and `on_tool_call` for events between the translation and the client. A filter exists only if one
//! of them is defined.
//!
//! Every event that a client gets leaves through [`Filter::show`], whatever produced it: a piece from the upstream,
//! text that was held back, the end, or a message that `on_request` gave. Once a hook of policy closed has failed, that
//! function passes nothing on, so neither the event at which the hook failed nor a later one can reach the client. The
//! exception is [`Filter::fail`], which ends a broken answer: it calls no hook and sends no content.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::anthropic::{Delta, Event};
use crate::error::{Error, Kind, Retry};
use crate::hooks::{self, Hook};
use crate::json::{self, Value};
use crate::translate::{carried_reasoning, signature_carrying, signature_with};

use crate::fleet::Gateway;

/// `req`, the request as hooks see it, shared by all hooks of one request.
pub(super) type Shown = Rc<RefCell<hooks::HookRequest>>;

/// Runs the hooks that see the events of an answer.
pub(super) struct Filter {
    gateway: Arc<Gateway>,
    shown: Shown,
    has_tool_call: bool,
    /// The tool call that is being gathered for `on_tool_call`.
    call: Option<PassingCall>,
    /// The index of a text block whose start is held back until its first piece, because the hooks may refuse that
    /// piece.
    waiting_text: Option<u32>,
    /// The block that is open at the client.
    open: Option<PassingBlock>,
    /// The error of a hook of policy closed. Never reset: the answer is over.
    failed: Option<Error>,
}

#[derive(Default)]
struct PassingCall {
    id: String,
    name: String,
    input: String,
}

/// A block whose start was sent to the client, but not yet its end.
struct PassingBlock {
    index: u32,
    lacks: Lacks,
}

/// The delta that must still be sent before the end of a block that is broken off.
enum Lacks {
    Nothing,
    /// The signature of a thinking block.
    Signature,
    /// Some JSON for a tool use: clients read a tool use without JSON as the empty object, and run it.
    Json,
}

/// Passes an event on to the client.
type Pass<'p> = dyn FnMut(&Event<'_>) + 'p;

impl Filter {
    /// Creates a filter. `None`: neither hook is defined.
    pub(super) fn new(gateway: &Arc<Gateway>, shown: Option<&Shown>) -> Option<Filter> {
        let hooks = gateway.hooks();
        let has_tool_call = hooks.defines(Hook::ToolCall);
        let shown = shown.filter(|_| has_tool_call || hooks.defines(Hook::Event))?;
        Some(Filter {
            gateway: Arc::clone(gateway),
            shown: Rc::clone(shown),
            has_tool_call,
            call: None,
            waiting_text: None,
            open: None,
            failed: None,
        })
    }

    /// The error of a hook of policy closed, if one failed; after it no event is passed on.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Passes an event on unchanged or changed, or drops it, as the hooks decide.
    pub(super) fn event(&mut self, event: &Event<'_>, pass: &mut Pass<'_>) {
        if self.failed.is_some() {
            return;
        }
        let untold = self.without_refusal(event);
        let event = untold.as_ref().unwrap_or(event);
        match (event, &mut self.call) {
            (Event::ToolUseStart { id, name, .. }, _) if self.has_tool_call => {
                self.call =
                    Some(PassingCall { id: id.to_string(), name: name.to_string(), input: String::new() });
            }
            (Event::BlockDelta { delta: Delta::InputJson(json), .. }, Some(call)) => {
                call.input.push_str(json)
            }
            (Event::BlockStop { index }, Some(_)) => {
                let call = self.call.take().unwrap_or_default();
                self.tool_call(*index, call, pass);
            }
            (Event::BlockDelta { index, delta: Delta::Signature(signature) }, _) => {
                self.signature(*index, signature, pass);
            }
            _ => self.seen(event, pass),
        }
    }

    /// Ends an answer that broke off: closes the block that is open at the client and sends the error. A tool call that
    /// was being gathered is dropped, since it may be incomplete and the client has seen nothing of it.
    pub(super) fn fail(&mut self, error: &Error, request_id: &str, pass: &mut Pass<'_>) {
        self.call = None;
        self.waiting_text = None;
        if let Some(PassingBlock { index, lacks }) = self.open.take() {
            match lacks {
                Lacks::Nothing => {}
                Lacks::Signature => {
                    // The signature that the translation made may carry text that the hooks withheld, so send an empty
                    // one.
                    let signature = signature_carrying("");
                    pass(&Event::BlockDelta { index, delta: Delta::Signature(&signature) });
                }
                Lacks::Json => pass(&Event::BlockDelta { index, delta: Delta::InputJson("{") }),
            }
            pass(&Event::BlockStop { index });
        }
        pass(&Event::Error { error, request_id });
    }

    /// Passes an event on to the client, until a hook of policy closed fails. No other function does so until then.
    fn show(&mut self, event: &Event<'_>, pass: &mut Pass<'_>) {
        if self.failed.is_some() {
            return;
        }
        match event {
            // These belong to no block, so they may come at any time.
            Event::Ping | Event::Usage { .. } => return pass(event),
            Event::TextStart { index } => {
                self.waiting_text = Some(*index);
                return;
            }
            _ => {}
        }
        if let Some(index) = self.waiting_text.take() {
            self.open = Some(PassingBlock { index, lacks: Lacks::Nothing });
            pass(&Event::TextStart { index });
        }
        match event {
            Event::ThinkingStart { index } => {
                self.open = Some(PassingBlock { index: *index, lacks: Lacks::Signature });
            }
            Event::ToolUseStart { index, .. } | Event::ServerToolUseStart { index, .. } => {
                self.open = Some(PassingBlock { index: *index, lacks: Lacks::Json })
            }
            Event::BlockDelta { index, delta: Delta::Signature(_) | Delta::InputJson(_) } => {
                self.open = Some(PassingBlock { index: *index, lacks: Lacks::Nothing });
            }
            Event::ServerToolResult { index, .. } => {
                self.open = Some(PassingBlock { index: *index, lacks: Lacks::Nothing });
            }
            Event::BlockStop { .. } => self.open = None,
            _ => {}
        }
        pass(event);
    }

    /// The end of a refusal without the refusal's text, which the hooks may have changed or dropped. `None` for every
    /// other event, and if no hook sees text.
    fn without_refusal<'e>(&self, event: &Event<'e>) -> Option<Event<'e>> {
        let Event::MessageDelta { stop_reason, stop_sequence, refusal: Some(_), usage } = event else {
            return None;
        };
        let (stop_reason, stop_sequence, usage) = (*stop_reason, *stop_sequence, *usage);
        self.wants("text").then_some(Event::MessageDelta { stop_reason, stop_sequence, refusal: None, usage })
    }

    /// Calls `on_tool_call` for a gathered call, then `on_event` for its start.
    fn tool_call(&mut self, index: u32, call: PassingCall, pass: &mut Pass<'_>) {
        let mut bytes = if call.input.is_empty() { b"{}".to_vec() } else { call.input.clone().into_bytes() };
        let (mut name, mut input) = (call.name, call.input);
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
        } else if self.gateway.hooks().is_closed(Hook::ToolCall) {
            self.failed = Some(cut_call());
        }
        if self.failed.is_some() {
            return;
        }
        self.seen(&Event::ToolUseStart { index, id: &call.id, name: &name }, pass);
        if !input.is_empty() {
            self.show(&Event::BlockDelta { index, delta: Delta::InputJson(&input) }, pass);
        }
        self.show(&Event::BlockStop { index }, pass);
    }

    /// Passes a signature on. If the client asked to omit the reasoning's text, the signature carries it, so `on_event`
    /// sees that text as an event of type thinking.
    fn signature(&mut self, index: u32, signature: &str, pass: &mut Pass<'_>) {
        let carried = carried_reasoning(signature).filter(|text| !text.is_empty() && self.wants("thinking"));
        let Some(text) = carried else {
            return self.show(&Event::BlockDelta { index, delta: Delta::Signature(signature) }, pass);
        };
        let mut subject = piece("thinking", &text, index);
        let is_kept = self.ask(&mut subject);
        let kept = subject.get("text").and_then(Value::as_str).filter(|_| is_kept).unwrap_or_default();
        let signature = signature_with(signature, kept);
        self.show(&Event::BlockDelta { index, delta: Delta::Signature(&signature) }, pass);
    }

    /// Calls `on_event` for the events that carry content; the events around them pass unchanged.
    fn seen(&mut self, event: &Event<'_>, pass: &mut Pass<'_>) {
        let Some((kind, mut subject)) = as_subject(event) else { return self.show(event, pass) };
        if !self.wants(kind) {
            return self.show(event, pass);
        }
        if !self.ask(&mut subject) {
            return;
        }
        let text = subject.get("text").and_then(Value::as_str).unwrap_or_default();
        match event {
            // Drop an empty piece: it says nothing, and clients do not expect one.
            Event::BlockDelta { .. } if text.is_empty() => {}
            Event::BlockDelta { index, delta: Delta::Text(_) } => {
                self.show(&Event::BlockDelta { index: *index, delta: Delta::Text(text) }, pass);
            }
            Event::BlockDelta { index, delta: Delta::Thinking(_) } => {
                self.show(&Event::BlockDelta { index: *index, delta: Delta::Thinking(text) }, pass);
            }
            other => self.show(other, pass),
        }
    }

    /// True if `on_event` wants events of this type.
    fn wants(&self, kind: &str) -> bool {
        self.gateway.hooks().wants_event(kind)
    }

    /// Calls `on_event`. Returns false if the event must not be sent: the hook dropped it, or a hook of policy closed
    /// failed.
    fn ask(&mut self, subject: &mut Value<'_>) -> bool {
        let asked = self.gateway.hooks().on_event(subject, &mut self.shown.borrow_mut());
        asked.unwrap_or_else(|error| {
            self.failed = Some(error);
            false
        })
    }
}

/// The error for a tool call whose arguments are not complete JSON: `on_tool_call` cannot check them, so it cannot
/// allow the call.
fn cut_call() -> Error {
    let what = "refused: the arguments of a tool call are not complete, so that the hook on_tool_call cannot check \
        it, and its policy is closed; a larger max_tokens may help";
    Error::new(Kind::Permission, what).retry(Retry::Never)
}

/// A piece of text as a hook sees it.
fn piece<'e>(kind: &'static str, text: &'e str, index: u32) -> Value<'e> {
    Value::object([("type", kind.into()), ("text", text.into()), ("index", u64::from(index).into())])
}

/// The event as a hook sees it, with its type's name.
fn as_subject<'e>(event: &'e Event<'_>) -> Option<(&'static str, Value<'e>)> {
    let object = |kind: &'static str, members: [(&'static str, Value<'e>); 2]| {
        let [first, second] = members;
        (kind, Value::object([("type", kind.into()), first, second]))
    };
    match event {
        Event::BlockDelta { index, delta: Delta::Text(text) } => Some(("text", piece("text", text, *index))),
        Event::BlockDelta { index, delta: Delta::Thinking(text) } => {
            Some(("thinking", piece("thinking", text, *index)))
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
