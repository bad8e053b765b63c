//! The paths of OpenAI's protocol: one request is passed on byte for byte except for the name of its model, and so is its answer.
//!
//! Keys, aliases, the choice of an upstream, the queue, hooks, limits and the log are those of `POST /v1/messages`. Another
//! upstream is asked only while nothing of an answer has gone out.

use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::anthropic::{MODEL_LENGTH_MAX, StopReason, Usage};
use crate::cluster::ClusterKind;
use crate::error::{Error, Kind, Retry};
use crate::hooks::Hook;
use crate::http::Request;
use crate::json::{Document, Value, splice_member};
use crate::openai::{
    Counts, PassingAnswer, conversation_view, cut_form_files, form_field, in_openai_form, is_form,
    read_failure,
};
use crate::protocol::relay::{RelayedPath, says_no_such_path};
use crate::server::Client;
use crate::shown::ShownText;
use crate::translate::{Asked, failure_error};
use crate::transport::{ExtraHeaders, Failure, Path, Response, Wait, has_left};

use super::body::read_body;
use super::client_slot::ClientSlot;
use super::exchange::Exchange;
use super::identity::{self, Identity};
use super::outgoing::Gate;
use super::passage::Passage;
use super::prepare::{Hooked, Incoming, describe, model_of, settle_lane};
use super::recorded::{self, keep_recording, note_head};
use super::recorded_way::{RecordedWay, note_answer_head, note_refusal, note_sent, note_way};
use super::relay::{ANSWER_SIZE_MAX, REST_TIME, error_body, too_long};
use super::routing::{NextTry, Routing, give_back, note_grant, sign_of, sign_of_failure, wait_for_place};
use super::state::Proxy;
use super::stop::Stop;
use crate::activity::{ActiveRequest, Caller, Moment, Phase, Record, Recording, StepKind};
use crate::fleet::{BoxSlot, Destination, Gateway, Outage, Resolved, Sign, Spent, Ticket};

/// The room for one read of an answer, in bytes: it begins small, and doubles for an answer that fills it.
const READ_SIZE_MIN: usize = 2 * 1024;
const READ_SIZE_MAX: usize = 32 * 1024;

/// The body of a request as it came, until it is known which upstream gets it.
enum PassedBody {
    Json(Vec<u8>),
    /// A form, its type, and the place of its model.
    Form(Vec<u8>, String, Range<usize>),
}

/// A request on its way.
struct Order {
    body: PassedBody,
    routing: Routing,
    /// The ticket for a place, if the request needs one.
    ticket: Option<Ticket>,
    /// The further headers for the upstreams of each kind of cluster.
    headers: Vec<(Option<ClusterKind>, ExtraHeaders)>,
}

/// The parts of one request that all its stages share.
struct RelayedCourse<'s> {
    proxy: &'s Proxy,
    gateway: Arc<Gateway>,
    exchange: Rc<Exchange>,
    passage: Rc<Passage>,
    request: &'s Request,
    caller: &'s Caller,
    path: RelayedPath<'s>,
    hooked: Hooked,
    record: Record,
    /// The time that the request has spent without an upstream that takes it.
    outage: Outage,
    /// Its place among the requests of its client, if its key has limits.
    client_slot: Option<ClientSlot>,
}

/// The failure of one upstream, while nothing of an answer has gone out.
struct RelayedRefusal {
    sign: Sign,
    error: Error,
    /// The upstream's own words, if the client gets them as they are: status, type and `retry-after`, and body.
    words: Option<(u16, String, Option<u32>, Vec<u8>)>,
}

/// Serves one request, and logs one line however it ends.
///
/// # Errors
/// Errors of the client's connection.
pub(super) fn serve(
    proxy: &Proxy,
    client: &Client,
    request: &Request,
    caller: &Caller,
    (active, path): (&Arc<ActiveRequest>, RelayedPath<'_>),
) -> io::Result<()> {
    let exchange = Exchange::new(proxy, client, active);
    let passage = Passage::new(exchange.clone(), proxy.options.patience, path.is_responses());
    proxy.recorder.begin(exchange.tap(), active.began());
    note_head(exchange.tap(), request);
    let mut record = Record::new(active.request_id(), caller);
    record.began = active.began();
    identity::describe(request, &mut record.details);
    let mut course = RelayedCourse {
        proxy,
        gateway: proxy.gateway(),
        exchange,
        passage,
        request,
        caller,
        path,
        hooked: Hooked::default(),
        record,
        outage: Outage::new(Duration::ZERO),
        client_slot: None,
    };
    course.record.status = 200;
    let outcome = proxy.client_slot(&course.gateway, caller, client).map_err(Stop::from).and_then(|slot| {
        course.client_slot = slot;
        course.run()
    });
    // Free before the client has its error, since its next request may come at once.
    course.client_slot = None;
    let result = course.conclude(outcome);
    let RelayedCourse { gateway, hooked, mut record, exchange, .. } = course;
    record.times = active.times();
    record.times.first_word = record.times.first_byte;
    active.hide_keys(&mut record);
    let finished = proxy.finish(&gateway, record);
    keep_recording(proxy, exchange.tap(), &finished.record);
    hooked.log(gateway.hooks(), &finished.record);
    result
}

impl RelayedCourse<'_> {
    fn wait(&self) -> Rc<dyn Wait> {
        self.passage.clone()
    }

    /// Asks one upstream after the other, until one answers or none is left.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    fn run(&mut self) -> Result<(), Stop> {
        let mut order = self.first()?;
        loop {
            let slot = match order.ticket.take() {
                Some(ticket) => Some(self.place(ticket)?),
                None => None,
            };
            let asked_at = Instant::now();
            let asked = self.ask(&mut order, slot.as_ref())?;
            let (refusal, upstream) = match asked {
                Ok(response) => {
                    drop(order);
                    return self.pass(response, slot);
                }
                Err(refused) => refused,
            };
            let RelayedRefusal { sign, mut error, mut words } = refusal;
            if matches!(sign, Sign::Full(_) | Sign::Gone) {
                self.outage.spend(asked_at.elapsed());
            }
            let may_follow = order.routing.note_end(&upstream, sign, Some(&error));
            let ticket = slot.as_ref().filter(|_| may_follow).map(|slot| slot.ticket().clone());
            if let Some(slot) = slot {
                let end = (sign, Spent::default());
                let why = (Some(&error), self.exchange.active());
                give_back(&self.gateway, slot, upstream.served.name(), end, why);
            }
            if let Some(ticket) = ticket {
                self.outage.set_patience(self.patience());
                match order.routing.another(&ticket, self.outage.is_spent()) {
                    NextTry::With(ticket) => {
                        let (id, name) = (&self.record.request_id, upstream.served.name());
                        log::info!("{id}: {name} failed: {}", self.exchange.active().cleaned(&error));
                        self.proxy.activity.counters().add_failover();
                        order.ticket = Some(ticket);
                        continue;
                    }
                    NextTry::TooLate => {
                        error = self.gateway.dispatcher().unreachable(Some(&error));
                        words = None;
                    }
                    NextTry::Impossible => {}
                }
            }
            let Some((status, kind, retry_after, body)) = words.filter(|_| !self.passage.has_head()) else {
                return Err(error.into());
            };
            self.record.status = status;
            self.record.error = Some(error.to_string());
            return self.passage.refuse(status, (&kind, retry_after), &body).map_err(Stop::Client);
        }
    }

    /// Reads the body, runs `on_request`, and finds the upstreams that can answer. The tree of the body is dropped on return.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    fn first(&mut self) -> Result<Order, Stop> {
        let exchange = Rc::clone(&self.exchange);
        let came = read_body(self.proxy, &exchange, self.request)?;
        log::trace!("{} from the client: {}", self.record.request_id, String::from_utf8_lossy(came.bytes()));
        exchange.received();
        // The bytes and the copy that is parsed.
        exchange.claim(2 * came.bytes().len())?;
        let tap = exchange.tap();
        tap.with(|recording| self.note_body(recording, StepKind::Request, came.bytes()));
        let (form, mut document) = self.read(came)?;
        // These bytes pass, unless `on_request` changes the body.
        self.hooked.saved = Some(document.bytes().to_vec());
        let room = Some(self.proxy.budget.trees());
        let (request, caller) = (self.request, self.caller);
        let wait = Some(self.wait());
        let incoming = Incoming { gateway: &self.gateway, wait, room, request, caller };
        self.hooked.client = Some(exchange.socket().clone());
        let tree = incoming.hooked(&mut document, &mut self.hooked)?;
        if self.gateway.hooks().defines(Hook::Request) {
            self.note_hooked(form.as_ref());
        }
        describe(&tree, &mut self.record);
        self.passage.begin(self.record.details.is_streamed);
        let saved = self.hooked.saved.take().unwrap_or_default();
        let body = form.unwrap_or(PassedBody::Json(saved));
        go_home(self.proxy, &self.gateway, &mut self.hooked, &tree);
        let model = model_of(&tree);
        check_model(model)?;
        let mut key_lane = None;
        if let Some(client) = &mut self.client_slot {
            client.check(model, &tree)?;
            key_lane = client.limits().lane;
        }
        settle_lane(&self.hooked, key_lane, &mut self.record);
        let lane = self.record.details.lane;
        let (requested, mut destinations) = incoming.destinations(model, &self.hooked)?;
        remove_messages_upstreams(&mut destinations, model)?;
        let form = match &body {
            PassedBody::Form(bytes, kind, _) => Some((kind.as_str(), bytes.as_slice())),
            PassedBody::Json(_) => None,
        };
        // Hooks that see answers are about the words of a model, which these paths give.
        let has_words = self.path.gives_words();
        incoming.remove_forbidden(&mut destinations, (&tree, form), &|_| has_words)?;
        let view = conversation_view(&tree);
        let identity = Identity { request, caller, body: &view };
        let mut headers = Vec::new();
        for destination in &destinations {
            let cluster = destination.served.upstream().config().cluster;
            if headers.iter().all(|(known, _)| *known != cluster) {
                headers.push((cluster, identity.headers(cluster, lane)));
            }
        }
        let routing = Routing::new(requested, destinations);
        let ticket = routing.needs_place().then(|| routing.ticket(&identity, lane));
        exchange.active().describe(&self.record.details);
        Ok(Order { body, routing, ticket, headers })
    }

    /// The document that hooks and the route are for: the JSON that came, or the model of a form, which is returned too.
    fn read(&self, came: Document) -> Result<(Option<PassedBody>, Document), Stop> {
        let kind = self.request.header("content-type").unwrap_or_default();
        if !is_form(kind) {
            return Ok((None, came));
        }
        let bytes = came.bytes().to_vec();
        let place = form_field(&bytes, kind, "model").map_err(Error::invalid)?;
        let model = place.clone().and_then(|place| std::str::from_utf8(bytes.get(place)?).ok());
        let (Some(model), Some(place)) = (model, place) else { return Err(no_model().into()) };
        let document = Value::object([("model", model.into())]).to_json();
        Ok((Some(PassedBody::Form(bytes, kind.to_owned(), place)), Document::from(document.into_bytes())))
    }

    /// The body as it is recorded: the files of a form are cut to their size, unless images are kept.
    fn recordable<'b>(&self, body: &'b [u8]) -> Cow<'b, [u8]> {
        let kind = self.request.header("content-type").unwrap_or_default();
        let cut = match self.proxy.recorder.options().keeps_images || !is_form(kind) {
            true => None,
            false => cut_form_files(body, kind),
        };
        cut.map_or(Cow::Borrowed(body), Cow::Owned)
    }

    /// Notes a body that the request has at this place.
    fn note_body(&self, recording: &mut Recording, kind: StepKind, body: &[u8]) {
        recording.add(kind, &self.recordable(body), String::new());
    }

    /// Does what `on_request` said of the recording, and notes the body that it has left.
    fn note_hooked(&self, form: Option<&PassedBody>) {
        let tap = self.exchange.tap();
        let decision = (self.hooked.record, self.exchange.active().began());
        let body = || match form {
            Some(PassedBody::Form(bytes, ..)) => self.recordable(bytes).into_owned(),
            _ => self.hooked.saved.clone().unwrap_or_default(),
        };
        recorded::note_hooked(self.proxy, tap, (self.request, &body), decision);
    }

    /// Waits for a place with the client watched.
    fn place(&mut self, ticket: Ticket) -> Result<BoxSlot, Stop> {
        let (wait, patience) = (self.wait(), self.patience());
        let place = self.record.place.get_or_insert_default();
        let dispatcher = self.gateway.dispatcher();
        match dispatcher.take_at_once(ticket)? {
            Ok(slot) => {
                note_grant(&slot, place);
                Ok(slot)
            }
            Err(ticket) => {
                self.exchange.active().enter(Phase::Queue);
                self.outage.set_patience(patience);
                Ok(wait_for_place(dispatcher, ticket, &wait, &mut self.outage, place)?)
            }
        }
    }

    fn patience(&self) -> Duration {
        self.proxy.options.patience.for_upstreams(self.passage.is_streamed())
    }

    /// Sends the request to one upstream. Returns its response if that is successful.
    #[inline(never)] // keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    fn ask(
        &mut self,
        order: &mut Order,
        slot: Option<&BoxSlot>,
    ) -> Result<Result<Response, (RelayedRefusal, Resolved)>, Stop> {
        let resolved = order.routing.resolve(slot)?;
        let served = Arc::clone(&resolved.served);
        let details = &mut self.record.details;
        (details.upstream, details.upstream_model) = (served.name().to_owned(), resolved.model.clone());
        self.exchange.active().describe(details);
        let (kind, body) = self.body_for(&order.body, &resolved)?;
        log::trace!("{} to the upstream: {}", self.record.request_id, String::from_utf8_lossy(&body));
        let wait = self.wait();
        if has_left(wait.as_ref()) {
            return Err(Stop::ClientGone);
        }
        let tap = self.exchange.tap();
        note_way(tap, &resolved, RecordedWay::OpenAi, None);
        self.exchange.active().enter(Phase::Head);
        let cluster = served.upstream().config().cluster;
        let headers = order.headers.iter().find(|(kind, _)| *kind == cluster);
        let headers = headers.map_or_else(ExtraHeaders::default, |(_, headers)| headers.clone());
        let below = match &self.request.query {
            Some(query) => format!("{}?{query}", self.path.below_base()),
            None => self.path.below_base().to_owned(),
        };
        if tap.is_on() {
            note_sent(tap, Path::Api(&below), (&kind, &self.recordable(&body)));
        }
        let gate = Gate::new(&self.gateway, self.proxy.budget.trees());
        let sent = match gate.post(&served, (Path::Api(&below), &headers), (&kind, &body), &wait) {
            Ok(sent) => sent,
            Err(Stop::Error(error)) => {
                return Ok(Err((RelayedRefusal { sign: Sign::Unknown, error, words: None }, resolved)));
            }
            Err(stop) => return Err(stop),
        };
        let response = match sent {
            Ok(response) => response,
            Err(Failure::ClientGone) => return Err(Stop::ClientGone),
            Err(failure) => {
                let (sign, error) = (sign_of_failure(&failure), failure.to_error(served.name()));
                return Ok(Err((RelayedRefusal { sign, error, words: None }, resolved)));
            }
        };
        let is_missing = says_no_such_path(response.status, response.beginning());
        match response.status {
            // The whole answer was awaited until its first byte or its end.
            200..300 if response.beginning().is_empty() => {
                let failure = Failure::Reset("an answer without one byte".to_owned());
                let (sign, error) = (sign_of_failure(&failure), failure.to_error(served.name()));
                Ok(Err((RelayedRefusal { sign, error, words: None }, resolved)))
            }
            200..300 if !is_missing => {
                note_answer_head(tap, &response);
                Ok(Ok(response))
            }
            _ => Ok(Err((self.refusal(response, is_missing, &resolved), resolved))),
        }
    }

    /// The bytes for an upstream, with their type.
    fn body_for(&self, body: &PassedBody, resolved: &Resolved) -> Result<(String, Vec<u8>), Stop> {
        let bytes = match body {
            PassedBody::Form(bytes, kind, place) => {
                return Ok((kind.clone(), with_model(bytes, place, &resolved.model)));
            }
            PassedBody::Json(bytes) => splice_member(bytes, "model", &resolved.model),
        };
        let bytes = bytes.ok_or_else(no_model)?;
        let wait = Some(self.wait());
        let (gateway, request, caller) = (&self.gateway, self.request, self.caller);
        let incoming = Incoming { gateway, wait, room: None, request, caller };
        let changed = incoming.hooked_bytes(&bytes, &resolved.served, &self.hooked)?;
        Ok(("application/json".to_owned(), changed.unwrap_or(bytes)))
    }

    /// Reads an unsuccessful response.
    fn refusal(&self, response: Response, is_missing: bool, resolved: &Resolved) -> RelayedRefusal {
        let (status, retry_after) = (response.status, response.retry_after);
        let (upstream, tap) = (resolved.served.upstream(), self.exchange.tap());
        if is_missing {
            note_refusal(tap, status, retry_after, response.beginning());
            let what = format!("upstream {} does not serve /v1{}", upstream.name(), self.path.below_base());
            return RelayedRefusal {
                sign: Sign::Answered,
                error: Error::new(Kind::NotFound, what),
                words: None,
            };
        }
        if status == 404 {
            // Another model may be served there by now.
            upstream.mark_stale();
        }
        let kind = response.content_type().unwrap_or("text/plain").to_owned();
        let body = error_body(response);
        note_refusal(tap, status, retry_after, &body);
        let mut failure = read_failure(status, &mut body.clone(), retry_after);
        upstream.hide_keys(&mut failure);
        let asked = Asked { model: self.record.details.client_model.clone(), ..Asked::default() };
        let mut error = failure_error(failure, &asked);
        if status == 402 {
            // The account is sparkgap's, not the client's.
            let what = format!("upstream '{}' wants a payment from the account of its key", upstream.name());
            error = Error::new(Kind::BadGateway, what).source(error.message).retry(Retry::Never);
        }
        let body = String::from_utf8(body).map(|mut text| {
            upstream.endpoint().hide_keys(&mut text);
            text.into_bytes()
        });
        // An upstream that refuses sparkgap's key says nothing about the client's.
        let is_own = matches!(status, 401..=403 | 407);
        let words = body.ok().filter(|body| !is_own && !body.is_empty() && (400..600).contains(&status));
        let words = words.map(|body| (status, kind, retry_after, body));
        RelayedRefusal { sign: sign_of(&error), error, words }
    }

    /// Passes a successful response on as its bytes come.
    fn pass(&mut self, response: Response, slot: Option<BoxSlot>) -> Result<(), Stop> {
        // The answer may take minutes; nothing of the request is kept for it.
        self.exchange.share().set(0);
        let exchange = Rc::clone(&self.exchange);
        let active = exchange.active();
        let is_stream = is_event_stream(&response);
        active.enter(if is_stream { Phase::Stream } else { Phase::Whole });
        let _streaming = is_stream.then(|| active.begin_stream());
        let kind = response.content_type().map(str::to_owned);
        let mut answer = PassingAnswer::default();
        exchange.mark_head(response.sent());
        let passed = if is_stream || !self.passage.has_head() {
            self.copy(response, &mut answer, slot.as_ref())
        } else {
            let what = "the upstream was asked for a stream, and sent something else";
            Err(Error::new(Kind::BadGateway, what).into())
        };
        let counts = answer.counts().unwrap_or_default();
        if passed.is_ok() {
            self.note_end(&answer, counts);
        }
        let error = passed.as_ref().err().and_then(Stop::upstream_error);
        let sign = match error {
            Some(error) => sign_of(error),
            None if passed.is_ok() => Sign::Answered,
            None => Sign::Unknown,
        };
        let Counts { prompt, cached, completion, .. } = counts;
        if let Some(slot) = slot {
            let spent = Spent { prompt, cached, completion };
            let why = (error, self.exchange.active());
            give_back(&self.gateway, slot, &self.record.details.upstream, (sign, spent), why);
        }
        if let Some(client) = self.client_slot.take() {
            let has_content = active.times().first_byte.is_some();
            let used = match &passed {
                // An answer whose counts never came, since its client left, counts as much as it might have used.
                Err(stop) if stop.is_by_client() && has_content => client.reserved(),
                _ => self.record.prompt_tokens() + self.record.usage.output,
            };
            client.end(used);
        }
        // Only now: the client's next turn finds that its place is free, and where the conversation is.
        passed.and_then(|()| self.passage.finish(kind.as_deref()).map_err(Stop::Client))
    }

    /// Reads the answer and writes it, one write for each read; its end is not sent yet.
    fn copy(
        &self,
        mut response: Response,
        answer: &mut PassingAnswer,
        slot: Option<&BoxSlot>,
    ) -> Result<(), Stop> {
        let is_stream = is_event_stream(&response);
        let kind = response.content_type().map(str::to_owned);
        let (mark, needed) = self.path.content_mark();
        let (mut marks, mut size, mut has_content) = (0, 0_usize, false);
        // The client may go on from this response as soon as it has its end.
        let mut is_noted = !self.path.is_responses();
        let mut buffer = vec![0; READ_SIZE_MIN];
        if is_stream {
            response.await_content();
        }
        loop {
            let count = match response.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(Failure::ClientGone) => return Err(Stop::ClientGone),
                // The answer is whole, so nothing that happens to the connection can harm it.
                Err(_) if answer.is_done() => return Ok(()),
                Err(failure) => return Err(self.lost(&failure, answer, is_stream)),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            self.exchange.tap().bytes(StepKind::Piece, bytes);
            answer.see(bytes);
            is_noted = is_noted || self.note_home(answer);
            self.passage.write(kind.as_deref(), bytes).map_err(Stop::Client)?;
            size += count;
            if size > ANSWER_SIZE_MAX {
                return Err(Stop::Cut(too_long()));
            }
            if !has_content {
                marks += if is_stream { memchr::memmem::find_iter(bytes, mark).count() } else { needed };
                has_content = marks >= needed;
                if has_content {
                    self.exchange.active().mark(Moment::FirstByte, Instant::now());
                    response.mark_content();
                    slot.into_iter().for_each(BoxSlot::first_token);
                }
            }
            slot.into_iter().for_each(BoxSlot::hear);
            if is_stream && answer.is_done() {
                response.limit_rest(REST_TIME);
            }
            if count == buffer.len() && count < READ_SIZE_MAX {
                buffer.resize(2 * count, 0);
            }
        }
    }

    /// The end of an answer whose upstream was lost: between two events the client can still be told, otherwise its
    /// connection is cut, which it notices too.
    fn lost(&self, failure: &Failure, answer: &PassingAnswer, is_stream: bool) -> Stop {
        let name = &self.record.details.upstream;
        if let Some(served) = self.gateway.upstream(name) {
            served.upstream().mark_stale();
        }
        let error = failure.to_error(name);
        let can_be_told = !self.passage.has_answer() || (is_stream && answer.is_between_events());
        if can_be_told { Stop::Error(error) } else { Stop::Cut(error) }
    }

    /// Notes the counts and the reason of an answer that is complete.
    fn note_end(&mut self, answer: &PassingAnswer, counts: Counts) {
        let Counts { prompt, cached, completion, .. } = counts;
        let input = prompt.saturating_sub(cached);
        self.record.usage = Usage { input, cache_read: cached, output: completion, ..Usage::default() };
        let reasons = [
            ("length", StopReason::MaxTokens),
            ("incomplete", StopReason::MaxTokens),
            ("tool_calls", StopReason::ToolUse),
            ("content_filter", StopReason::Refusal),
        ];
        let reason = reasons.into_iter().find(|(name, _)| answer.ended_with(name));
        self.record.stop_reason = Some(reason.map_or(StopReason::EndTurn, |(_, reason)| reason));
    }

    /// Remembers which upstream makes this response. Returns false if its id has not come yet.
    fn note_home(&self, answer: &PassingAnswer) -> bool {
        let Some(id) = answer.id() else { return false };
        let mut homes = self.proxy.homes.lock().unwrap_or_else(PoisonError::into_inner);
        homes.note(id, &self.record.details.upstream);
        true
    }

    /// Sends the error, if the request ended with one, and fills in the record.
    fn conclude(&mut self, outcome: Result<(), Stop>) -> io::Result<()> {
        let error = match outcome.map_err(|stop| self.exchange.end_of(stop)) {
            Ok(()) => return Ok(()),
            Err(Stop::Error(error) | Stop::Refused(error)) => error,
            Err(Stop::Respond(_)) => Error::new(
                Kind::Api,
                "on_request answers with respond, which only /v1/messages has: use reject here, or look at req.path",
            ),
            Err(Stop::Cut(error)) => {
                self.record.error = Some(format!("cut off: {error}"));
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Err(Stop::Client(error)) => return self.left(error),
            Err(Stop::ClientGone) => return self.left(io::ErrorKind::BrokenPipe.into()),
        };
        self.record.error = Some(error.to_string());
        if !self.passage.has_head() {
            // The status of the client, which is not that of Anthropic's clients for a busy server.
            self.record.status = in_openai_form(error.clone()).status();
        }
        self.passage.fail(error).or_else(|error| self.left(error))
    }

    /// Notes that the client has left.
    fn left(&mut self, error: io::Error) -> io::Result<()> {
        let phase = self.exchange.note_left(&error, &mut self.record);
        self.proxy.activity.add_cancelled(phase);
        Err(error)
    }
}

/// Sends a request that goes on from a response to the upstream that made it, unless a hook has chosen one.
fn go_home(proxy: &Proxy, gateway: &Gateway, hooked: &mut Hooked, tree: &Value<'_>) {
    let Some(id) = tree.get("previous_response_id").and_then(Value::as_str) else { return };
    let homes = proxy.homes.lock().unwrap_or_else(PoisonError::into_inner);
    if hooked.upstreams.is_empty() {
        hooked.upstreams.extend(homes.find(id).filter(|name| gateway.upstream(name).is_some()));
    }
}

fn is_event_stream(response: &Response) -> bool {
    let kind = response.content_type().unwrap_or_default();
    kind.get(..EVENT_STREAM.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM))
}

const EVENT_STREAM: &str = "text/event-stream";

/// Removes the upstreams that do not speak OpenAI's protocol.
///
/// # Errors
/// 404: none is left.
fn remove_messages_upstreams(destinations: &mut Vec<Destination>, model: &str) -> Result<(), Error> {
    let removed = destinations.iter().find(|destination| destination.served.upstream().speaks_messages());
    let name = removed.map(|destination| destination.served.name().to_owned());
    destinations.retain(|destination| !destination.served.upstream().speaks_messages());
    match name {
        Some(name) if destinations.is_empty() => {
            let what = format!(
                "model {}: its upstream '{name}' has the Messages API only: ask for it at /v1/messages, or for another model here",
                ShownText::new(model)
            );
            Err(Error::new(Kind::NotFound, what).retry(Retry::Never))
        }
        _ => Ok(()),
    }
}

fn no_model() -> Error {
    Error::invalid("model: Field required: name a model, such as one of GET /v1/models")
}

fn check_model(model: &str) -> Result<(), Error> {
    if model.is_empty() {
        return Err(no_model());
    }
    if model.chars().nth(MODEL_LENGTH_MAX).is_some() {
        return Err(Error::invalid(format!(
            "model: String should have at most {MODEL_LENGTH_MAX} characters"
        )));
    }
    Ok(())
}

/// A form with another model. A name that could end the field, which only a configuration can have, is left out of it.
fn with_model(form: &[u8], place: &Range<usize>, model: &str) -> Vec<u8> {
    if model.contains(['\r', '\n']) {
        return form.to_vec();
    }
    let (before, after) = (form.get(..place.start), form.get(place.end..));
    [before.unwrap_or_default(), model.as_bytes(), after.unwrap_or_default()].concat()
}
