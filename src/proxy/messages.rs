//! `POST /v1/messages`, stage by stage: body, hooks, route, translation, upstream, answer, log.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::Error;
use crate::hooks::{ErrorDecision, Hook};
use crate::http::Request;
use crate::ids;
use crate::json::{Document, Value};
use crate::server::Client;
use crate::translate::{Asked, Plan};
use crate::transport::{Response, Wait, has_left};

use super::attempt::Attempt;
use super::body::read_body;
use super::exchange::Exchange;
use super::filter::Filter;
use super::prepare::{Hooked, Incoming};
use super::relay::Relay;
use super::state::Proxy;
use super::stop::Stop;
use crate::activity::{ActiveRequest, CLIENT_GONE, Caller, Phase, Record};
use crate::fleet::{Gateway, Resolved};

/// How many times one request may ask an upstream, counting those that `on_error` names. Stops a hook that names the same
/// one without end.
const ROUNDS_MAX: usize = 32;

/// A request that is ready for its upstream.
struct Prepared {
    resolved: Resolved,
    body: Vec<u8>,
    plan: Plan,
}

/// Serves one request, and logs one line however it ends.
///
/// # Errors
/// Errors of the client's connection.
pub(super) fn serve(
    proxy: &Proxy,
    client: &Client,
    request: Request,
    caller: &Caller,
    active: &Arc<ActiveRequest>,
) -> io::Result<()> {
    let exchange = Exchange::new(proxy, client, active);
    let mut record = Record::new(active.request_id(), caller);
    let gateway = proxy.gateway();
    let mut hooked = Hooked::default();
    let outcome = answer(proxy, &gateway, &exchange, request, caller, &mut hooked, &mut record);
    let (summary, _) = exchange.summary();
    (record.coercions, record.repairs) = summary.changes;
    record.first_byte = summary.first.map(|first| first.duration_since(record.began));
    if let Some((reason, usage)) = summary.end {
        record.stop_reason = Some(reason);
        record.usage = usage;
    }
    let (result, left) = conclude(&exchange, outcome, &mut record);
    if let Some(phase) = left {
        proxy.activity.add_cancelled(phase);
    }
    proxy.activity.log(&record);
    if let (true, Some(shown)) = (gateway.hooks().defines(Hook::Log), &hooked.shown) {
        gateway.hooks().on_log(&mut record.to_value(), &mut shown.borrow_mut());
    }
    result
}

/// Sends the last bytes of the answer, or the error. Also returns the phase of the request if the client had left.
#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
fn conclude(
    exchange: &Exchange,
    outcome: Result<(), Stop>,
    record: &mut Record,
) -> (io::Result<()>, Option<Phase>) {
    record.status = 200;
    let said = match outcome {
        Ok(()) => exchange.finish(),
        Err(Stop::Respond(message)) => match exchange.respond(&message) {
            Ok(()) => exchange.finish(),
            Err(error) => tell_error(exchange, &error, exchange.has_written(), record),
        },
        Err(Stop::ClientGone) => Err(io::ErrorKind::BrokenPipe.into()),
        Err(Stop::Client(error)) => Err(error),
        Err(Stop::Error(error)) => tell_error(exchange, &error, exchange.started(), record),
        // Translated text that was not written yet is withheld: the client gets an error status instead.
        Err(Stop::Refused(error)) => tell_error(exchange, &error, exchange.has_written(), record),
    };
    let left = said.as_ref().err().map(|error| {
        use io::ErrorKind::{TimedOut, WouldBlock};
        let is_stuck = matches!(error.kind(), TimedOut | WouldBlock);
        let phase = if is_stuck { Phase::Unread } else { exchange.active().phase() };
        record.status = CLIENT_GONE;
        record.error = Some(match is_stuck {
            true => "the client took nothing of its answer for too long".to_string(),
            false => format!("the client has left ({})", phase.name()),
        });
        phase
    });
    (said, left)
}

/// Ends an answer with an error: an event if the client already has a part of the answer, otherwise a status.
fn tell_error(exchange: &Exchange, error: &Error, is_event: bool, record: &mut Record) -> io::Result<()> {
    record.error = Some(error.to_string());
    if is_event {
        exchange.fail(error);
        return exchange.finish();
    }
    record.status = error.status();
    exchange.client().borrow_mut().respond_error(error, exchange.request_id())
}

#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
fn answer(
    proxy: &Proxy,
    gateway: &Arc<Gateway>,
    exchange: &Rc<Exchange>,
    request: Request,
    caller: &Caller,
    hooked: &mut Hooked,
    record: &mut Record,
) -> Result<(), Stop> {
    let wait: Rc<dyn Wait> = exchange.clone();
    let prepared = first(proxy, exchange, (gateway, &request, caller), hooked, record);
    if let Err(Stop::Respond(_)) = &prepared {
        // The hooks that see answers also see one that a hook gave.
        exchange.expect(plan_of(hooked), ids::message_id(), Filter::new(gateway, hooked.shown.as_ref()));
    }
    let mut prepared = prepared?;
    let mut request = Some(request);
    let mut tried = Vec::new();
    loop {
        let Prepared { resolved, body, plan } = prepared;
        log::trace!("{} to the upstream: {}", record.request_id, String::from_utf8_lossy(&body));
        let asked = plan.asked.clone();
        let saved_size = hooked.saved.as_ref().map_or(0, Vec::len);
        exchange.share().set(body.len() + saved_size + plan.kept_size());
        let kept_size = saved_size + plan.kept_size();
        exchange.expect(plan, ids::message_id(), Filter::new(gateway, hooked.shown.as_ref()));
        let served = Arc::clone(&resolved.served);
        let mut attempt = Attempt::new(resolved, asked, body);
        // Check for a client that left: nobody watched it while hooks ran or a large body was translated. It may also
        // have left while an upstream worked in vain.
        let unwatched = hooked.shown.is_some() || hooked.is_watched || !tried.is_empty();
        if unwatched && has_left(wait.as_ref()) {
            return Err(Stop::ClientGone);
        }
        exchange.active().describe(&record.details);
        exchange.active().enter(Phase::Queue);
        let slot = served.slot(&wait).map_err(Stop::from);
        let answered = slot.and_then(|_slot| {
            let opened = attempt.open(exchange, &wait);
            record.details.upstream_model.clone_from(&attempt.resolved.model);
            let response = opened?;
            if attempt.renewals > 0 {
                exchange.set_limits(&attempt.asked);
                exchange.active().describe(&record.details);
            }
            // The answer may take minutes, so drop the request, unless `on_error` may send it again.
            attempt.body = Vec::new();
            exchange.share().set(kept_size);
            if hooked.saved.is_none() {
                request = None;
            }
            exchange.active().enter(if exchange.streams() { Phase::Stream } else { Phase::Whole });
            let _streaming = exchange.streams().then(|| exchange.active().begin_stream());
            finish(exchange, &attempt.resolved, response, &attempt.asked, kept_size)
        });
        let error = match answered {
            // This includes an error that the answer begins with.
            Err(Stop::Error(error)) if !exchange.started() => error,
            other => return other,
        };
        let Some(request) = &request else { return Err(error.into()) };
        tried.push(served.name().to_string());
        let room = Some(proxy.budget.trees());
        let incoming = Incoming { gateway, wait: Some(Rc::clone(&wait)), room, request, caller };
        prepared = elsewhere(&incoming, error, &tried, hooked, record)?;
    }
}

/// Does everything before an upstream is asked. The request's tree is dropped on return, because an answer may take
/// minutes.
#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
fn first(
    proxy: &Proxy,
    exchange: &Rc<Exchange>,
    (gateway, request, caller): (&Gateway, &Request, &Caller),
    hooked: &mut Hooked,
    record: &mut Record,
) -> Result<Prepared, Stop> {
    let mut document = read_body(proxy, exchange, request)?;
    log::trace!("{} from the client: {}", record.request_id, String::from_utf8_lossy(document.bytes()));
    exchange.received();
    let room = Some(proxy.budget.trees());
    let incoming = Incoming { gateway, wait: Some(exchange.clone()), room, request, caller };
    hooked.client = Some(exchange.socket().clone());
    let body = incoming.hooked(&mut document, hooked);
    // The log names the model even if a hook refuses or answers the request.
    if let Some(shown) = hooked.shown.as_ref().map(|shown| shown.borrow()) {
        record.details.client_model.clone_from(&hooked.client_model);
        record.details.is_streamed = shown.stream;
    }
    ready(&incoming, &body?, hooked, record)
}

/// The second stage: translates the request to the body for the upstream.
fn ready(
    incoming: &Incoming<'_>,
    body: &Value<'_>,
    hooked: &mut Hooked,
    record: &mut Record,
) -> Result<Prepared, Stop> {
    let (resolved, (body, plan)) = incoming.translated(body, hooked, record, |_, chat| {
        let mut body = Vec::new();
        chat.body.write(&mut body);
        (body, chat.plan)
    })?;
    Ok(Prepared { resolved, body, plan })
}

/// Handles the failure of an upstream before anything went to the client: `on_error` may name another upstream, or
/// another error.
#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
fn elsewhere(
    incoming: &Incoming<'_>,
    error: Error,
    tried: &[String],
    hooked: &mut Hooked,
    record: &mut Record,
) -> Result<Prepared, Stop> {
    let hooks = incoming.gateway.hooks();
    let (Some(shown), Some(saved)) = (&hooked.shown, &hooked.saved) else { return Err(error.into()) };
    let failed = tried.last().map_or("", String::as_str);
    let untried = || {
        let names = incoming.gateway.upstreams().iter().map(|served| served.name());
        names.filter(|name| !tried.iter().any(|tried| tried == name)).map(str::to_string).next()
    };
    let next = match hooks.on_error(&error, failed, &mut shown.borrow_mut())? {
        ErrorDecision::Replace(other) => return Err(other.into()),
        _ if tried.len() >= ROUNDS_MAX => None,
        ErrorDecision::Continue => None,
        ErrorDecision::RetryOther => untried(),
        // This may be the same upstream again, with another of its models.
        ErrorDecision::Upstream(name) => Some(name),
    };
    let Some(next) = next else { return Err(error.into()) };
    log::info!("{}: {failed} failed, trying {next}: {error}", record.request_id);
    hooked.upstream = Some(next);
    let mut document = Document::from(saved.clone());
    ready(incoming, &incoming.parse(&mut document)?, hooked, record)
}

#[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
fn finish(
    exchange: &Exchange,
    resolved: &Resolved,
    response: Response,
    asked: &Asked,
    kept_size: usize,
) -> Result<(), Stop> {
    let sent = response.sent();
    let relayed = Relay { exchange, resolved, asked, kept_size }.run(response);
    let (summary, counts) = exchange.summary();
    let prompt_time = summary.first.zip(sent).map(|(first, sent)| first.saturating_duration_since(sent));
    resolved.learn_answer(counts, asked, prompt_time);
    relayed
}

/// The plan for a message that a hook gave.
fn plan_of(hooked: &Hooked) -> Plan {
    let shown = hooked.shown.as_ref().map(|shown| shown.borrow());
    let shown = shown.as_deref();
    Plan {
        asked: Asked {
            model: hooked.client_model.clone(),
            prompt_tokens: shown.map_or(1, |shown| shown.tokens_est.max(1)),
            ..Asked::default()
        },
        stream: shown.is_some_and(|shown| shown.stream),
        ..Plan::default()
    }
}
