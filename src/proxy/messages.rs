//! `POST /v1/messages`, stage by stage: body, hooks, route, translation, upstream, answer, log.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::anthropic::MessagesRequest;
use crate::error::{Error, Kind, Retry};
use crate::hooks::{self, Decision, Hook};
use crate::http::{self, Request};
use crate::ids;
use crate::json::{self, Parser, Value};
use crate::openai::{Failure, read_failure};
use crate::server::Client;
use crate::translate::{self, Plan, Target, chat_request, overflow_error};
use crate::upstream::{self, Path, Wait};

use super::Proxy;
use super::exchange::Exchange;
use super::gateway::{Gateway, Route, Served};
use super::record::{CLIENT_GONE, Record};
use super::relay::{Broken, error_body, relay};

/// How a request that was not answered by a message ends.
enum Stop {
    /// With an error for the client.
    Error(Error),
    /// With nothing: the client has left.
    ClientGone,
    /// With its connection: it cannot be written to.
    Client(io::Error),
    /// With the message that a hook gave.
    Respond(Value<'static>),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Error(error)
    }
}

/// A request that is ready for its upstream.
struct Prepared {
    served: Arc<Served>,
    model: String,
    window: Option<u64>,
    body: Vec<u8>,
    plan: Plan,
}

/// Serves one request. Every end is logged in one line.
///
/// # Errors
/// Those of the client's connection.
pub(super) fn serve(
    proxy: &Proxy,
    client: &Client,
    request: Request,
    address: SocketAddr,
    request_id: &str,
) -> io::Result<()> {
    let exchange = Rc::new(Exchange::new(client, request_id, &proxy.options));
    let mut record = Record::new(request_id);
    let gateway = proxy.gateway();
    let outcome = answer(&gateway, &exchange, request, address, &mut record);
    let (summary, ..) = exchange.summary();
    if let Some((reason, usage)) = summary.end {
        record.stop_reason = Some(reason);
        record.usage = usage;
    }
    let result = conclude(&exchange, outcome, &mut record);
    log::info!("{record}");
    result
}

fn conclude(exchange: &Exchange, outcome: Result<(), Stop>, record: &mut Record) -> io::Result<()> {
    record.status = 200;
    match outcome {
        Ok(()) => exchange.finish(),
        Err(Stop::Respond(message)) => {
            let headers = [("content-type", "application/json"), ("request-id", exchange.request_id())];
            exchange.client().borrow_mut().respond(200, &headers, message.to_json().as_bytes())
        }
        Err(Stop::ClientGone) => {
            record.status = CLIENT_GONE;
            Err(io::ErrorKind::BrokenPipe.into())
        }
        Err(Stop::Client(error)) => {
            record.status = CLIENT_GONE;
            record.error = Some(error.to_string());
            Err(error)
        }
        Err(Stop::Error(error)) => {
            record.error = Some(error.to_string());
            if exchange.started() {
                exchange.fail(&error);
                return exchange.finish();
            }
            record.status = error.kind.status();
            exchange.client().borrow_mut().respond_error(&error, exchange.request_id())
        }
    }
}

fn answer(
    gateway: &Gateway,
    exchange: &Rc<Exchange>,
    request: Request,
    address: SocketAddr,
    record: &mut Record,
) -> Result<(), Stop> {
    let wait: Rc<dyn Wait> = exchange.clone();
    let mut bytes = read_body(exchange, &request)?;
    let prepared = prepare(gateway, &wait, &mut bytes, &request, address, record)?;
    drop(bytes); // the answer may take minutes; the request's memory is not kept for it
    drop(request);
    let Prepared { served, model, window, body, plan } = prepared;
    let estimate = plan.prompt_tokens;
    exchange.expect(plan, ids::message_id());
    let mut attempt = Attempt { served: &served, window, estimate, body, mended: false };
    let response = attempt.open(&wait)?;
    record.first_byte = Some(record.began.elapsed());
    drop(attempt);
    let relayed = relay(exchange, response);
    let (_, counts, estimate) = exchange.summary();
    served.learn(&model, counts, estimate);
    relayed.map_err(|broken| match broken {
        Broken::Said(failure) => Stop::Error(to_error(failure, window, estimate)),
        Broken::Lost(upstream::Failure::ClientGone) => Stop::ClientGone,
        Broken::Lost(failure) => {
            served.upstream().mark_stale();
            Stop::Error(failure.to_error(served.name()))
        }
        Broken::Client(error) => Stop::Client(error),
    })
}

fn read_body(exchange: &Exchange, request: &Request) -> Result<Vec<u8>, Stop> {
    let encoding = request.header("content-encoding").unwrap_or("identity");
    if !encoding.eq_ignore_ascii_case("identity") {
        let what = format!("content-encoding: '{encoding}' is not supported; send the body as it is");
        return Err(Error::invalid(what).code("request_body_encoding_unsupported").into());
    }
    let mut bytes = Vec::new();
    let read = exchange.client().borrow_mut().read_body(&mut bytes);
    read.map_err(|failure| match failure {
        http::Failure::Reject(error) => Stop::Error(error),
        http::Failure::Closed => Stop::ClientGone,
        http::Failure::Io(error) => Stop::Client(error),
    })?;
    Ok(bytes)
}

/// Everything up to the upstream: the tree of the request lives only here.
fn prepare(
    gateway: &Gateway,
    wait: &Rc<dyn Wait>,
    bytes: &mut [u8],
    request: &Request,
    address: SocketAddr,
    record: &mut Record,
) -> Result<Prepared, Stop> {
    let mut body = Parser::default().parse(bytes).map_err(not_json)?;
    let hooks = gateway.hooks();
    let mut shown = needs_request(hooks).then(|| shown_request(request, address, &body));
    let mut chosen = Chosen::default();
    if let (true, Some(shown)) = (hooks.defines(Hook::Request), &mut shown) {
        chosen.decide(hooks.on_request(shown, &mut body)?)?;
    }
    let messages = MessagesRequest::read(&body)?;
    record.client_model = messages.model.to_string();
    record.is_streamed = messages.stream;
    let model = chosen.model.as_deref().unwrap_or(messages.model);
    let Route { served, model: alias_model } = gateway.route(model, chosen.upstream.as_deref())?;
    record.upstream = served.name().to_string();
    let upstream = served.upstream();
    let discovered = upstream.discovered_fresh(wait);
    // A hook that names an upstream and a model means that upstream's model.
    let own = chosen.model.clone().filter(|_| chosen.upstream.is_some());
    let model = alias_model.or(own).or_else(|| upstream.model()).unwrap_or_else(|| model.to_string());
    record.upstream_model.clone_from(&model);
    let settings = &upstream.config().settings;
    let window = settings.window.or_else(|| discovered.window(&model));
    let target = Target {
        model: &model,
        flavour: settings.flavour.unwrap_or(discovered.flavour),
        window,
        tokens_ratio: served.tokens_ratio(&model),
        settings,
    };
    let mut chat = chat_request(&messages, &target)?;
    if let (true, Some(shown)) = (hooks.defines(Hook::UpstreamRequest), &mut shown) {
        shown.upstream = Some(served.name().to_string());
        hooks.on_upstream_request(&mut chat.body, shown)?;
    }
    for dropped in &chat.dropped {
        log::debug!("{}: left out: {dropped}", record.request_id);
    }
    let mut body = Vec::new();
    chat.body.write(&mut body);
    let plan = chat.plan;
    Ok(Prepared { served, model, window, body, plan })
}

#[allow(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn not_json(error: json::ParseError) -> Error {
    Error::invalid(format!("The request body is not valid JSON: {error}"))
}

/// What `on_request` chose.
#[derive(Default)]
struct Chosen {
    model: Option<String>,
    upstream: Option<String>,
}

impl Chosen {
    fn decide(&mut self, decision: Decision) -> Result<(), Stop> {
        match decision {
            Decision::Continue => {}
            Decision::Route { model, upstream } => (self.model, self.upstream) = (model, upstream),
            Decision::Reject(error) => return Err(error.into()),
            Decision::Respond(message) => return Err(Stop::Respond(message)),
        }
        Ok(())
    }
}

fn needs_request(hooks: &hooks::Hooks) -> bool {
    hooks.defines(Hook::Request) || hooks.defines(Hook::UpstreamRequest)
}

/// The request as hooks see it.
fn shown_request(request: &Request, address: SocketAddr, body: &Value<'_>) -> hooks::Request {
    let text = |name: &str| request.header(name).map(str::to_string);
    let headers = request
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_string())));
    let tools = body.get("tools").and_then(Value::as_array).unwrap_or_default();
    let tool_names = tools.iter().filter_map(|tool| Some(tool.get("name")?.as_str()?.to_string()));
    let thinking = body.get("thinking").and_then(|thinking| thinking.get("type")).and_then(Value::as_str);
    hooks::Request {
        model: body.get("model").and_then(Value::as_str).unwrap_or_default().to_string(),
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
        max_tokens: body.get("max_tokens").and_then(Value::as_u64),
        path: request.path.clone(),
        method: request.method.clone(),
        headers: headers.collect(),
        client_ip: address.ip().to_string(),
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

/// Whether a block of type `image` stands anywhere in messages, contents or tool results.
fn has_images(value: &Value<'_>) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_images),
        Value::Object(object) => {
            object.get("type").and_then(Value::as_str) == Some("image")
                || object.get("content").is_some_and(has_images)
        }
        _ => false,
    }
}

/// Asking an upstream, with the one mended second try that some of its errors allow.
struct Attempt<'a> {
    served: &'a Served,
    window: Option<u64>,
    estimate: u64,
    body: Vec<u8>,
    mended: bool,
}

impl Attempt<'_> {
    fn open(&mut self, wait: &Rc<dyn Wait>) -> Result<upstream::Response, Stop> {
        loop {
            let path = Path::Api("/chat/completions");
            let sent = self.served.upstream().post(path, &self.body, wait);
            let response = sent.map_err(|failure| match failure {
                upstream::Failure::ClientGone => Stop::ClientGone,
                failure => Stop::Error(failure.to_error(self.served.name())),
            })?;
            if (200..300).contains(&response.status) {
                return Ok(response);
            }
            let (status, retry_after) = (response.status, response.retry_after);
            let failure = read_failure(status, &mut error_body(response), retry_after);
            if !self.mend(&failure) {
                return Err(to_error(failure, self.window, self.estimate).into());
            }
        }
    }

    /// Changes the body so that the same error will not come again, once; whether that was possible.
    fn mend(&mut self, failure: &Failure) -> bool {
        if std::mem::replace(&mut self.mended, true) {
            return false;
        }
        let max_tokens = match failure {
            Failure::OutputTooLarge { window } => {
                self.served.upstream().mark_stale();
                Some(window.saturating_sub(self.estimate).max(window / 4))
            }
            Failure::Overflow { prompt: Some(prompt), window: Some(window), output: Some(_), .. }
                if prompt + 1 < *window =>
            {
                Some(window - prompt - 1)
            }
            Failure::NoThinkingBudget => None,
            Failure::Overflow { .. } | Failure::Other(_) => return false,
        };
        let mut bytes = std::mem::take(&mut self.body);
        let Ok(mut body) = json::parse(&mut bytes) else { return false };
        let Some(object) = body.as_object_mut() else { return false };
        match max_tokens {
            Some(max_tokens) => {
                for key in ["max_completion_tokens", "max_tokens"] {
                    if object.get(key).is_some() {
                        object.set(key, max_tokens);
                    }
                }
            }
            None => _ = object.remove("thinking_token_budget"),
        }
        let mut mended = Vec::new();
        body.write(&mut mended);
        self.body = mended;
        true
    }
}

/// The client's error for what the upstream said.
fn to_error(failure: Failure, window: Option<u64>, estimate: u64) -> Error {
    match failure {
        Failure::Other(error) => error,
        Failure::Overflow { prompt, prompt_is_least, window: told, output } => {
            let window = told.or(window).unwrap_or(estimate.saturating_sub(1));
            let prompt = match prompt {
                Some(prompt) if prompt_is_least => prompt.max(estimate),
                Some(prompt) => prompt,
                None => estimate,
            };
            overflow_error(prompt, window, output)
        }
        Failure::OutputTooLarge { window } => overflow_error(estimate.min(window), window, Some(window)),
        Failure::NoThinkingBudget => {
            let what = "the upstream takes no thinking budget; set thinking_budget = false for it";
            Error::new(Kind::InvalidRequest, what).retry(Retry::Never)
        }
    }
}
