//! An upstream that speaks the Messages API itself: the path, the headers each way, the client's own key, and the meaning of
//! its answers. Bodies pass in their own bytes.
//!
//! | header of the client | goes to the upstream |
//! |---|---|
//! | `anthropic-*`, `x-claude-*`, `x-stainless-*`, `x-app`, `user-agent`, `accept` | as it came |
//! | `x-api-key`, `authorization` | only with `auth = "client"`, and never a key of sparkgap |
//! | any other | never |
//!
//! | header of the upstream | goes to the client |
//! |---|---|
//! | `request-id`, `anthropic-*`, `retry-after`, `retry-after-ms`, `x-should-retry`, `content-type` | as it came |
//! | any other | never |

use crate::access::{Keys, bearer};
use crate::anthropic::{StopReason, Usage};
use crate::config::{Secret, UpstreamAuth, UpstreamConfig};
use crate::error::{Error, Kind, RelayedAnswer, Retry};
use crate::http::{Headers, Request};
use crate::json::{Parser, Value, parse, spans};
use crate::shown::cut;
use crate::transport::ExtraHeaders;

/// The version of the API for a client that names none: the API refuses a request without one.
const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

/// The most bytes of headers that a request passes on.
const HEADERS_SIZE_MAX: usize = 32 * 1024;

/// The most headers that an answer passes back, and the longest value of one, in bytes.
const ANSWER_HEADERS_MAX: usize = 64;
const ANSWER_HEADER_SIZE_MAX: usize = 4096;

/// The longest message of an error that is kept for the log, in bytes.
const MESSAGE_SIZE_MAX: usize = 2000;

/// The headers for one request to an upstream, and the client's keys among them.
#[derive(Debug, Default)]
pub struct PassedHeaders {
    /// The headers.
    pub headers: ExtraHeaders,
    /// The client's own keys, which must stand in no log line.
    pub secrets: Vec<Secret>,
}

/// Collects the headers that go to the upstream.
///
/// # Errors
/// 401: the upstream gets its clients' own keys, and this client has sent none. 431: the headers are too large.
pub fn pass_headers(request: &Request, config: &UpstreamConfig, keys: &Keys) -> Result<PassedHeaders, Error> {
    let mut passed = PassedHeaders::default();
    let mut size = 0;
    let mut has_version = false;
    for (name, value) in request.headers.iter().filter(|(name, _)| is_passed(name)) {
        size += name.len() + value.len();
        has_version |= name == VERSION.0;
        if size > HEADERS_SIZE_MAX || !passed.headers.pass(name, value) {
            return Err(Error::new(
                Kind::HeadersTooLarge,
                format!("{name}: the headers are too large to be passed on"),
            ));
        }
    }
    if !has_version {
        passed.headers.pass(VERSION.0, VERSION.1);
    }
    if config.auth == UpstreamAuth::Client {
        pass_keys(request, keys, &mut passed);
        if passed.secrets.is_empty() {
            let what = "no key for this model's server: send your own Anthropic key or token as x-api-key or \
                        authorization, and a key of sparkgap, if it needs one, as x-sparkgap-key";
            return Err(Error::new(Kind::Authentication, what).retry(Retry::Never));
        }
    }
    Ok(passed)
}

/// The texts of a request that go to an upstream beside its body.
pub fn texts_beside(request: &Request) -> Vec<&str> {
    let headers = request.headers.iter().filter(|(name, _)| is_passed(name));
    request.query.as_deref().into_iter().chain(headers.map(|(_, value)| value)).collect()
}

fn is_passed(name: &str) -> bool {
    ["anthropic-", "x-claude-", "x-stainless-"].iter().any(|beginning| name.starts_with(beginning))
        || ["x-app", "user-agent", "accept"].contains(&name)
}

/// Adds the client's own keys, except for those of sparkgap.
fn pass_keys(request: &Request, keys: &Keys, passed: &mut PassedHeaders) {
    for (name, value) in request.headers.iter() {
        let key = match name {
            "x-api-key" => value.as_bytes(),
            "authorization" => bearer(value.as_bytes()).unwrap_or(value.as_bytes()),
            _ => continue,
        };
        let is_own = keys.are_in(value.as_bytes());
        if !key.is_empty() && !is_own && passed.headers.pass(name, value) {
            passed.secrets.push(Secret::new(String::from_utf8_lossy(key)));
        }
    }
}

/// The path below the base URL, with the client's query.
pub fn path(resource: &str, request: &Request) -> String {
    match &request.query {
        Some(query) => format!("{resource}?{query}"),
        None => resource.to_owned(),
    }
}

/// The headers of an answer that go back to the client.
pub fn answer_headers(headers: &Headers) -> Vec<(String, String)> {
    let goes_back = |name: &str| {
        name.starts_with("anthropic-")
            || ["request-id", "retry-after", "retry-after-ms", "x-should-retry", "content-type"]
                .contains(&name)
    };
    let fits = |(name, value): &(&str, &str)| goes_back(name) && value.len() <= ANSWER_HEADER_SIZE_MAX;
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    headers.iter().filter(fits).take(ANSWER_HEADERS_MAX).map(owned).collect()
}

/// The error for a client whose request the upstream has refused: its own answer, byte for byte. `hide` removes keys from
/// the words for the log.
pub fn refusal(
    answer: RelayedAnswer,
    retry_after: Option<u32>,
    name: &str,
    hide: &dyn Fn(&mut String),
) -> Error {
    let mut message = message_of(&answer.body);
    if message.is_empty() {
        message = format!("upstream {name}: status {}", answer.status);
    }
    hide(&mut message);
    let mut error = Error::new(Kind::Api, message).with_status(answer.status);
    if let Some(seconds) = retry_after {
        error = error.retry(Retry::After(seconds));
    }
    error.relayed(answer)
}

/// The words of the API's error. Empty if the body is not in the API's form.
pub fn message_of(body: &[u8]) -> String {
    let mut bytes = body.to_vec();
    let parsed = parse(&mut bytes);
    let message = parsed.as_ref().ok().and_then(|body| body.get("error")?.get("message")?.as_str());
    cut(message.unwrap_or_default(), MESSAGE_SIZE_MAX).to_owned()
}

/// The facts in one event of an answer, or in a whole one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerFacts {
    /// True for content: text, thinking or a tool's input.
    pub is_content: bool,
    /// True for a piece of text or of a tool's input.
    pub is_word: bool,
    /// The stop reason, if it is one that sparkgap knows, and true if any came.
    pub stop: Option<Option<StopReason>>,
    /// A piece of a thinking block's signature, or the whole of a redacted block's data.
    pub signature: Option<String>,
    /// True for the end of a block.
    pub is_block_end: bool,
}

/// Reads an event's data. Only the events that matter are parsed: for a piece of text nothing is allocated.
pub fn read_event(parser: &mut Parser, data: &mut [u8], usage: &mut Usage) -> AnswerFacts {
    let has = |data: &[u8], mark: &[u8]| memchr::memmem::find(data, mark).is_some();
    let is_piece = has(data, b"\"content_block_delta\"");
    let is_content = is_piece || has(data, b"\"content_block_start\"");
    let mut facts = AnswerFacts {
        is_content,
        is_word: is_piece && (has(data, b"\"text_delta\"") || has(data, b"\"input_json_delta\"")),
        is_block_end: !is_piece && has(data, b"\"content_block_stop\""),
        ..AnswerFacts::default()
    };
    let matters = match is_content {
        true => has(data, b"signature_delta") || has(data, b"redacted_thinking"),
        false => has(data, b"\"usage\""),
    };
    if matters {
        // Data that are not JSON pass to the client as they are.
        let _ = parser.read(data, |tape| read_facts(&Value::from_tape(tape), usage, &mut facts));
    }
    facts
}

fn read_facts(event: &Value<'_>, usage: &mut Usage, facts: &mut AnswerFacts) {
    let text = |value: Option<&Value<'_>>, key: &str| {
        value.and_then(|value| value.get(key)?.as_str()).map(str::to_owned)
    };
    match event.get("type").and_then(Value::as_str) {
        Some("message_start") => {
            if let Some(counted) = event.get("message").and_then(|message| message.get("usage")) {
                add_usage(counted, usage);
            }
        }
        Some("message_delta") => {
            if let Some(counted) = event.get("usage") {
                add_usage(counted, usage);
            }
            facts.stop = text(event.get("delta"), "stop_reason").map(|name| stop_reason(&name));
        }
        Some("content_block_delta") => facts.signature = text(event.get("delta"), "signature"),
        Some("content_block_start") => facts.signature = text(event.get("content_block"), "data"),
        _ => {}
    }
}

/// The facts in a whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WholeFacts {
    /// False if the body is something else than a message, such as a page.
    pub is_message: bool,
    /// The stop reason, if it is one that sparkgap knows.
    pub stop: Option<StopReason>,
    /// The signatures of its thinking.
    pub signatures: Vec<String>,
}

/// Reads a whole answer. Only the parts that matter are parsed, so that an odd number elsewhere hides nothing.
pub fn read_whole(body: &[u8], usage: &mut Usage) -> WholeFacts {
    let root = spans::members(body, spans::whole(body));
    let place = |name: &str| spans::last(body, &root, name).map(|member| member.value.clone());
    let Some(content) = place("content") else { return WholeFacts::default() };
    let mut counts = place("usage").and_then(|place| body.get(place)).unwrap_or_default().to_vec();
    if let Ok(counted) = parse(&mut counts) {
        add_usage(&counted, usage);
    }
    let stop = place("stop_reason").and_then(|place| spans::text(body, place));
    let stop = stop.and_then(|name| stop_reason(&name));
    let signature = |block| {
        let members = spans::members(body, block);
        let text = |name: &str| spans::text(body, spans::last(body, &members, name)?.value.clone());
        let name = match &*text("type")? {
            "thinking" => "signature",
            "redacted_thinking" => "data",
            _ => return None,
        };
        text(name).map(std::borrow::Cow::into_owned)
    };
    let signatures = spans::items(body, content).into_iter().filter_map(signature).collect();
    WholeFacts { is_message: true, stop, signatures }
}

/// The type and the words of an event of a stream that is an error, for the log; `None`: it is not one. `is_error`: it has the
/// name of one.
pub fn error_of_event(data: &[u8], is_error: bool) -> Option<String> {
    if !is_error && memchr::memmem::find(data, b"\"error\"").is_none() {
        return None;
    }
    let mut bytes = data.to_vec();
    let parsed = parse(&mut bytes);
    let event = parsed.as_ref().ok();
    let kind = event.and_then(|event| event.get("type")?.as_str());
    if !is_error && kind != Some("error") {
        return None;
    }
    let error = event.and_then(|event| event.get("error"));
    let text = |key: &str| error.and_then(|error| error.get(key)?.as_str()).unwrap_or_default();
    Some(
        cut(format!("{}: {}", text("type"), text("message")).trim_matches([':', ' ']), MESSAGE_SIZE_MAX)
            .to_owned(),
    )
}

/// Takes over the counts that stand in a `usage`; those that are left out stay.
fn add_usage(counted: &Value<'_>, usage: &mut Usage) {
    let set = |to: &mut u64, key: &str| {
        if let Some(count) = counted.get(key).and_then(Value::as_u64) {
            *to = count;
        }
    };
    set(&mut usage.input, "input_tokens");
    set(&mut usage.cache_read, "cache_read_input_tokens");
    set(&mut usage.cache_creation, "cache_creation_input_tokens");
    set(&mut usage.output, "output_tokens");
}

fn stop_reason(name: &str) -> Option<StopReason> {
    StopReason::ALL.into_iter().find(|reason| reason.name() == name)
}
