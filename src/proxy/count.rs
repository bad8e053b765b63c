//! `POST /v1/messages/count_tokens`: the upstream's exact count if it can count, otherwise an estimate. A failure of
//! the upstream's count never reaches the client.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::anthropic::MessagesRequest;
use crate::error::RelayedAnswer;
use crate::http::Request;
use crate::json::Value;
use crate::server::Client;
use crate::transport::{ExtraHeaders, JSON, Wait};

use super::body::read_body;
use super::exchange::Exchange;
use super::identity;
use super::outgoing::Gate;
use super::passing::{self, PassedRequest};
use super::prepare::{Hooked, Incoming, settle_lane};
use super::recorded::{error_facts, keep_recording, note_error, note_head, note_hooked};
use super::recorded_way::{RecordedWay, note_refusal, note_sent, note_way};
use super::state::Proxy;
use super::stop::Stop;
use crate::activity::{ActiveRequest, CLIENT_GONE, Caller, Record, StepKind};
use crate::fleet::{Gateway, Resolved};
use crate::hooks::Hook;
use crate::protocol::messages::message_of;
use crate::protocol::tokenize::{CountStep, question};

/// The `max_tokens` to assume, since a request to count has none: larger than any thinking budget.
const MAX_TOKENS: u64 = 1 << 32;

/// The question for a count.
enum Question {
    /// For an upstream whose server kind counts in its own way: its body, and the estimate to answer if it does not.
    Own { resolved: Resolved, estimate: u64, body: Vec<u8> },
    /// For an upstream that speaks the Messages API itself.
    Passed { resolved: Resolved, body: Vec<u8>, headers: ExtraHeaders, passed: PassedRequest },
}

/// The answer to a count.
enum Counted {
    Tokens(u64),
    /// An upstream's own answer.
    Passed(RelayedAnswer),
}

/// Serves one request to count tokens.
///
/// # Errors
/// Errors of the client's connection.
#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
pub(super) fn serve(
    proxy: &Proxy,
    client: &Client,
    request: &Request,
    caller: &Caller,
    active: &Arc<ActiveRequest>,
) -> io::Result<()> {
    let request_id = active.request_id();
    let exchange = Exchange::new(proxy, client, active);
    let headers = [("content-type", "application/json"), ("request-id", request_id)];
    let tap = exchange.tap();
    proxy.recorder.begin(tap, active.began());
    note_head(tap, request);
    let mut record = Record::new(request_id, caller);
    record.began = active.began();
    identity::describe(request, &mut record.details);
    record.status = 200;
    let tell = |count: u64| {
        let body = Value::object([("input_tokens", count.into())]).to_json();
        tap.bytes(StepKind::Answer, body.as_bytes());
        client.borrow_mut().respond(200, &headers, body.as_bytes())
    };
    let counted = count(proxy, &exchange, (request, caller), &mut record);
    let result = match counted.map_err(|stop| exchange.end_of(stop)) {
        Ok(Counted::Passed(answer)) => {
            record.status = answer.status;
            record.error =
                (answer.status >= 400).then(|| format!("count_tokens: {}", message_of(&answer.body)));
            tap.bytes(StepKind::Answer, &answer.body);
            client.borrow_mut().respond_relayed(&answer, request_id)
        }
        Ok(Counted::Tokens(count)) => tell(count),
        Err(Stop::Error(error) | Stop::Refused(error) | Stop::Cut(error)) => {
            tap.note(StepKind::Failed, b"", || error_facts(&error, false));
            note_error(tap, &error, request_id);
            log_failure(proxy, active, &mut record, (error.status(), &error.to_string()));
            client.borrow_mut().respond_error(&error, request_id)
        }
        Err(stop @ (Stop::Client(_) | Stop::ClientGone)) => {
            log_failure(proxy, active, &mut record, (CLIENT_GONE, "the client has left"));
            Err(if let Stop::Client(error) = stop { error } else { io::ErrorKind::BrokenPipe.into() })
        }
        Err(Stop::Respond(_)) => tell(1),
    };
    record.end();
    active.hide_keys(&mut record);
    if keep_recording(proxy, tap, &record) {
        proxy.keep_count(&record);
    }
    result
}

/// Writes the line of a count that failed. A count that succeeds has none: Claude Code asks for many.
fn log_failure(proxy: &Proxy, active: &ActiveRequest, record: &mut Record, (status, error): (u16, &str)) {
    record.status = status;
    record.error = Some(format!("count_tokens: {error}"));
    active.hide_keys(record);
    proxy.activity.log(record);
}

fn count(
    proxy: &Proxy,
    exchange: &Rc<Exchange>,
    from: (&Request, &Caller),
    record: &mut Record,
) -> Result<Counted, Stop> {
    let gateway = proxy.gateway();
    let gate = Gate::new(&gateway, proxy.budget.trees());
    let (resolved, estimate, body) = match asked(proxy, (&gateway, exchange), from, record)? {
        Question::Own { resolved, estimate, body } => (resolved, estimate, body),
        Question::Passed { resolved, body, headers, mut passed } => {
            exchange.share().set(body.len());
            let wait: Rc<dyn Wait> = exchange.clone();
            let with = (&proxy.thinking, &gate, &wait, exchange.tap());
            let counted = passing::count_tokens(&resolved, (body, &headers), &mut passed, with)?;
            return Ok(Counted::Passed(counted));
        }
    };
    exchange.share().set(body.len());
    let wait: Rc<dyn Wait> = exchange.clone();
    let key = key(&body);
    let known = resolved.served.count(key);
    note_way(exchange.tap(), &resolved, RecordedWay::Count, Some(known.unwrap_or(estimate)));
    if let Some(count) = known {
        return Ok(Counted::Tokens(count));
    }
    let tap = exchange.tap();
    let counted = gate.ask_token_count(&resolved, &body, &wait, &|step| match step {
        CountStep::Asks(path) => note_sent(tap, path, (JSON, &body)),
        CountStep::Refused(status, retry_after, answer) => note_refusal(tap, status, retry_after, answer),
        CountStep::Answered(answer) => tap.bytes(StepKind::Whole, answer),
    });
    match counted {
        Some(count) => {
            resolved.learn_count(key, count);
            Ok(Counted::Tokens(count))
        }
        None => Ok(Counted::Tokens(estimate)),
    }
}

/// Prepares the body that asks the upstream to count, and the estimate to answer if it does not. The request's tree is
/// dropped on return, because the upstream may take long.
#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
fn asked(
    proxy: &Proxy,
    (gateway, exchange): (&Gateway, &Rc<Exchange>),
    (request, caller): (&Request, &Caller),
    record: &mut Record,
) -> Result<Question, Stop> {
    let mut document = read_body(proxy, exchange, request)?;
    exchange.tap().bytes(StepKind::Request, document.bytes());
    let room = Some(proxy.budget.trees());
    let incoming = Incoming { gateway, wait: Some(exchange.clone()), room, request, caller };
    let mut hooked = Hooked::default();
    hooked.client = Some(exchange.socket().clone());
    let mut body = incoming.hooked(&mut document, &mut hooked)?;
    if gateway.hooks().defines(Hook::Request) {
        let decision = (hooked.record, exchange.active().began());
        note_hooked(proxy, exchange.tap(), (request, &|| body.to_json().into_bytes()), decision);
    }
    if let Some(object) = body.as_object_mut().filter(|object| object.get("max_tokens").is_none()) {
        object.push("max_tokens", MAX_TOKENS);
    }
    settle_lane(&hooked, None, record);
    let (messages, routing) = incoming.routed(&body, &hooked, record)?;
    let mut resolved = routing.resolve_for_count(gateway.dispatcher())?;
    if resolved.served.upstream().speaks_messages() {
        let with = (&proxy.access().keys, &proxy.thinking);
        let to = (passing::COUNT_TOKENS, &mut resolved);
        let (body, headers, passed) = passing::prepare(&incoming, to, &hooked, record, with)?;
        exchange.active().describe(&record.details);
        return Ok(Question::Passed { resolved, body, headers, passed });
    }
    let messages = messages.map_or_else(|| MessagesRequest::read(&body), Ok)?;
    let (estimate, body) = incoming.translated(&messages, &resolved, &hooked, record, |chat, _| {
        (chat.plan.asked.prompt_tokens, question(resolved.flavour, chat.body))
    })?;
    exchange.active().describe(&record.details);
    Ok(Question::Own { resolved, estimate, body })
}

/// The key under which an upstream's count is remembered.
fn key(question: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    question.hash(&mut hasher);
    hasher.finish()
}
