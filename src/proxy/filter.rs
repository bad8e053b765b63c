//! `on_event` and `on_tool_call` between the translation and the client. Made only where one of them is defined.
//!
//! Every event that a client gets leaves through [`Filter::show`], whatever made it: a piece from the upstream, text that
//! was held back, the end, or a message that `on_request` gave. Once a hook of policy closed has failed that function
//! shows nothing any more, so neither the event at which it failed nor a later one can reach the client. Only
//! [`Filter::fail`], which ends a broken answer, goes past it; it asks no hook and shows no content.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::anthropic::{Delta, Event};
use crate::error::{Error, Kind, Retry};
use crate::hooks::{self, Hook};
use crate::json::{self, Value};
use crate::translate::{carried_reasoning, signature_carrying};

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
    /// The index of a text block whose start waits for its first piece: the hooks may refuse that.
    waiting_text: Option<u32>,
    /// The block that is open at the client.
    open: Option<Open>,
    /// A hook of policy closed failed with this. Never reset: the answer is over.
    failed: Option<Error>,
}

#[derive(Default)]
struct Call {
    id: String,
    name: String,
    input: String,
}

/// A block that the client has seen the start of, and not yet the end.
struct Open {
    index: u32,
    lacks: Lacks,
}

/// What has to come before the end of a block that is broken off.
enum Lacks {
    Nothing,
    /// The signature of a thinking block.
    Signature,
    /// Any JSON of a tool use: clients read one without JSON as the empty object, and run it.
    Json,
}

/// Where events go on their way to the client.
type Pass<'p> = dyn FnMut(&Event<'_>) + 'p;

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
            waiting_text: None,
            open: None,
            failed: None,
        })
    }

    /// The failure of a hook of policy closed, from which on nothing is shown.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Passes an event on, changed or not, or not at all.
    pub(super) fn event(&mut self, event: &Event<'_>, pass: &mut Pass<'_>) {
        if self.failed.is_some() {
            return;
        }
        let untold = self.without_refusal(event);
        let event = untold.as_ref().unwrap_or(event);
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
            (Event::BlockDelta { index, delta: Delta::Signature(signature) }, _) => {
                self.signature(*index, signature, pass);
            }
            _ => self.seen(event, pass),
        }
    }

    /// Ends an answer that broke off: closes what is open at the client and shows the error. A tool call that was being
    /// gathered is dropped, since nothing says that it is complete, and nothing of it was shown.
    pub(super) fn fail(&mut self, error: &Error, request_id: &str, pass: &mut Pass<'_>) {
        self.call = None;
        self.waiting_text = None;
        if let Some(Open { index, lacks }) = self.open.take() {
            match lacks {
                Lacks::Nothing => {}
                Lacks::Signature => {
                    // The translation's own signature stands for text that no hook may have let pass.
                    let signature = signature_carrying("");
                    pass(&Event::BlockDelta { index, delta: Delta::Signature(&signature) });
                }
                Lacks::Json => pass(&Event::BlockDelta { index, delta: Delta::InputJson("{") }),
            }
            pass(&Event::BlockStop { index });
        }
        pass(&Event::Error { error, request_id });
    }

    /// The only way to the client, up to the failure of a hook of policy closed.
    fn show(&mut self, event: &Event<'_>, pass: &mut Pass<'_>) {
        if self.failed.is_some() {
            return;
        }
        match event {
            // These stand between blocks, wherever they come.
            Event::Ping | Event::Usage { .. } => return pass(event),
            Event::TextStart { index } => {
                self.waiting_text = Some(*index);
                return;
            }
            _ => {}
        }
        if let Some(index) = self.waiting_text.take() {
            self.open = Some(Open { index, lacks: Lacks::Nothing });
            pass(&Event::TextStart { index });
        }
        match event {
            Event::ThinkingStart { index } => {
                self.open = Some(Open { index: *index, lacks: Lacks::Signature });
            }
            Event::ToolUseStart { index, .. } => self.open = Some(Open { index: *index, lacks: Lacks::Json }),
            Event::BlockDelta { index, delta: Delta::Signature(_) | Delta::InputJson(_) } => {
                self.open = Some(Open { index: *index, lacks: Lacks::Nothing });
            }
            Event::BlockStop { .. } => self.open = None,
            _ => {}
        }
        pass(event);
    }

    /// The end of a refusal without the text that it repeats: the hooks may have changed or dropped that. `None` for every
    /// other event, and where no hook sees text.
    fn without_refusal<'e>(&self, event: &Event<'e>) -> Option<Event<'e>> {
        let Event::MessageDelta { stop_reason, stop_sequence, refusal: Some(_), usage } = event else {
            return None;
        };
        let (stop_reason, stop_sequence, usage) = (*stop_reason, *stop_sequence, *usage);
        self.wants("text").then_some(Event::MessageDelta { stop_reason, stop_sequence, refusal: None, usage })
    }

    /// Asks `on_tool_call` about a call, and `on_event` about its start.
    fn tool_call(&mut self, index: u32, call: Call, pass: &mut Pass<'_>) {
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

    /// Reasoning whose text the client asked to omit travels in the signature: it is an event of type thinking, too.
    fn signature(&mut self, index: u32, signature: &str, pass: &mut Pass<'_>) {
        let carried = carried_reasoning(signature).filter(|text| !text.is_empty() && self.wants("thinking"));
        let Some(text) = carried else {
            return self.show(&Event::BlockDelta { index, delta: Delta::Signature(signature) }, pass);
        };
        let mut subject = piece("thinking", &text, index);
        let is_kept = self.ask(&mut subject);
        let kept = subject.get("text").and_then(Value::as_str).filter(|_| is_kept).unwrap_or_default();
        let signature = signature_carrying(kept);
        self.show(&Event::BlockDelta { index, delta: Delta::Signature(&signature) }, pass);
    }

    /// `on_event` for the events that mean something; the frame around them passes untouched.
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
            // A piece without any text says nothing, and clients expect none.
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

    /// Whether `on_event` is to see events of this type.
    fn wants(&self, kind: &str) -> bool {
        self.gateway.hooks().wants_event(kind)
    }

    /// Asks `on_event`; `false`: the event is not shown, because it was dropped or a hook of policy closed failed.
    fn ask(&mut self, subject: &mut Value<'_>) -> bool {
        let asked = self.gateway.hooks().on_event(subject, &mut self.shown.borrow_mut());
        asked.unwrap_or_else(|error| {
            self.failed = Some(error);
            false
        })
    }
}

/// A call whose arguments are not complete JSON cannot be shown to `on_tool_call`, and so cannot be allowed by it.
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
