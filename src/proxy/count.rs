//! `POST /v1/messages/count_tokens`: exact where the upstream counts, else estimated, never a failure of the upstream's.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read};
use std::rc::Rc;

use crate::http::Request;
use crate::json::{Object, Value};
use crate::openai::Flavour;
use crate::server::Client;
use crate::upstream::{Path, Response, Wait};

use super::exchange::Exchange;
use super::gateway::Resolved;
use super::messages::read_body;
use super::prepare::{Hooked, Incoming};
use super::record::{CLIENT_GONE, Caller, Record};
use super::{Proxy, Stop};

/// vLLM's answer begins with the count, and goes on with every token: the rest is not read.
const ANSWER_SIZE_MAX: usize = 4096;

/// The limit that stands in for the missing `max_tokens`: larger than any thinking budget.
const MAX_TOKENS: u64 = 1 << 32;

/// The members of a chat completion that shape its prompt, as `/tokenize` takes them. How to generate has no place in a
/// question: the same prompt is the same question, and is remembered.
const PROMPT_KEYS: [&str; 5] =
    ["model", "messages", "tools", "chat_template_kwargs", "continue_final_message"];

/// The same, for a server that takes a chat completion as it is.
const COMPLETION_KEYS: [&str; 8] = [
    "model",
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "chat_template_kwargs",
    "reasoning_effort",
    "response_format",
];

/// Serves one request.
///
/// # Errors
/// Those of the client's connection.
#[inline(never)] // its part of the stack is not to lie below every message
pub(super) fn serve(
    proxy: &Proxy,
    client: &Client,
    request: &Request,
    caller: &Caller,
    request_id: &str,
) -> io::Result<()> {
    let exchange = Exchange::new(proxy, client, request_id);
    let headers = [("content-type", "application/json"), ("request-id", request_id)];
    match count(proxy, &exchange, request, caller) {
        Ok(count) => {
            let body = Value::object([("input_tokens", count.into())]).to_json();
            client.borrow_mut().respond(200, &headers, body.as_bytes())
        }
        Err(Stop::Error(error) | Stop::Refused(error)) => {
            log::info!("{request_id} {caller} count_tokens {error}");
            client.borrow_mut().respond_error(&error, request_id)
        }
        Err(stop @ (Stop::Client(_) | Stop::ClientGone)) => {
            log::info!("{request_id} {caller} count_tokens {CLIENT_GONE}: the client has left");
            Err(if let Stop::Client(error) = stop { error } else { io::ErrorKind::BrokenPipe.into() })
        }
        Err(Stop::Respond(_)) => {
            let body = Value::object([("input_tokens", 1u64.into())]).to_json();
            client.borrow_mut().respond(200, &headers, body.as_bytes())
        }
    }
}

fn count(proxy: &Proxy, exchange: &Rc<Exchange>, request: &Request, caller: &Caller) -> Result<u64, Stop> {
    let (resolved, estimate, body) = asked(proxy, exchange, request, caller)?;
    exchange.share().set(body.len());
    let wait: Rc<dyn Wait> = exchange.clone();
    let key = key(&body);
    if let Some(count) = resolved.served.count(key) {
        return Ok(count);
    }
    match counted(&resolved, &body, &wait) {
        Some(count) => {
            resolved.learn_count(key, count);
            Ok(count)
        }
        None => Ok(estimate),
    }
}

/// The question for the upstream, and the estimate that stands in for its answer. The request's tree lives only here: the
/// upstream may take its time.
#[inline(never)]
fn asked(
    proxy: &Proxy,
    exchange: &Rc<Exchange>,
    request: &Request,
    caller: &Caller,
) -> Result<(Resolved, u64, Vec<u8>), Stop> {
    let gateway = proxy.gateway();
    let mut document = read_body(proxy, exchange, request)?;
    let room = Some(proxy.budget.trees());
    let incoming = Incoming { gateway: &gateway, wait: Some(exchange.clone()), room, request, caller };
    let mut hooked = Hooked::default();
    let mut body = incoming.hooked(&mut document, &mut hooked)?;
    if let Some(object) = body.as_object_mut().filter(|object| object.get("max_tokens").is_none()) {
        object.push("max_tokens", MAX_TOKENS);
    }
    let mut record = Record::new(exchange.request_id(), caller);
    let (resolved, (estimate, body)) =
        incoming.translated(&body, &mut hooked, &mut record, |resolved, chat| {
            (chat.plan.prompt_tokens, question(resolved.flavour, chat.body))
        })?;
    Ok((resolved, estimate, body))
}

/// What a count is remembered by, at its upstream.
fn key(question: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    question.hash(&mut hasher);
    hasher.finish()
}

/// Whether the flavour's server counts a prompt with `/tokenize`.
fn has_tokenize(flavour: Flavour) -> bool {
    matches!(flavour, Flavour::Vllm | Flavour::Sglang)
}

/// The question how many tokens the prompt of a chat completion has, in the words of the upstream's flavour.
pub(super) fn question(flavour: Flavour, mut body: Value<'_>) -> Vec<u8> {
    let mut question = Object::new();
    let keys = if has_tokenize(flavour) { &PROMPT_KEYS[..] } else { &COMPLETION_KEYS };
    for key in keys {
        if let Some(value) = body.as_object_mut().and_then(|object| object.remove(key)) {
            question.push(key, value);
        }
    }
    if has_tokenize(flavour) {
        let effort = body.as_object_mut().and_then(|object| object.remove("reasoning_effort"));
        let arguments = question.get_mut("chat_template_kwargs").and_then(Value::as_object_mut);
        if let (Some(effort), Some(arguments)) = (effort, arguments) {
            arguments.set("reasoning_effort", effort);
        }
        question.push("add_generation_prompt", question.get("continue_final_message").is_none());
        question.push("add_special_tokens", false);
    }
    let mut bytes = Vec::new();
    Value::from(question).write(&mut bytes);
    bytes
}

/// The upstream's answer to a [`question`]. `None`: it cannot count, or did not in time.
pub(super) fn counted(resolved: &Resolved, question: &[u8], wait: &Rc<dyn Wait>) -> Option<u64> {
    let (paths, key): (&[_], _) = match resolved.flavour {
        Flavour::Vllm => (&[Path::Root("/tokenize")], "\"count\""),
        // Which of the two it has depends on its version.
        Flavour::Sglang => (&[Path::Api("/tokenize"), Path::Root("/tokenize")], "\"count\""),
        Flavour::LlamaCpp => (&[Path::Api("/chat/completions/input_tokens")], "\"input_tokens\""),
        Flavour::Ollama | Flavour::LmStudio | Flavour::Unknown | Flavour::OpenAi => return None,
    };
    let name = resolved.served.name();
    for path in paths {
        match resolved.served.upstream().ask(*path, question, wait) {
            Ok(response) if response.status == 200 => {
                return number_after(response, key).filter(|count| *count > 0);
            }
            Ok(response) => log::debug!("upstream {name} counts no tokens: status {}", response.status),
            Err(failure) => {
                log::debug!("upstream {name} counts no tokens: {failure}");
                return None;
            }
        }
    }
    None
}

/// The number of the first member of that name, from the beginning of a JSON answer.
fn number_after(mut response: Response, key: &str) -> Option<u64> {
    let mut seen = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let read = response.read(&mut chunk).ok()?;
        seen.extend_from_slice(chunk.get(..read)?);
        let text = String::from_utf8_lossy(&seen);
        if let Some((_, after)) = text.split_once(key) {
            let after = after.trim_start_matches([' ', ':']);
            let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            // The number is whole once something follows it.
            if digits > 0 && digits < after.len() {
                return after.get(..digits)?.parse().ok();
            }
        }
        if read == 0 || seen.len() > ANSWER_SIZE_MAX {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(flavour: Flavour, body: &str) -> String {
        let mut bytes = body.as_bytes().to_vec();
        String::from_utf8(question(flavour, crate::json::parse(&mut bytes).unwrap())).unwrap()
    }

    #[test]
    fn a_question_is_the_prompt_and_nothing_else() {
        let body = r#"{"model":"m","messages":[],"tools":[],"tool_choice":"required","max_tokens":5,
            "temperature":1,"chat_template_kwargs":{"enable_thinking":true},"reasoning_effort":"high",
            "stream":true,"return_progress":true,"stream_options":{"include_usage":true}}"#;
        let prompt = r#"{"model":"m","messages":[],"tools":[],"#;
        // /tokenize knows no effort; the template does.
        assert_eq!(
            asked(Flavour::Vllm, body),
            format!(
                "{prompt}{}",
                r#""chat_template_kwargs":{"enable_thinking":true,"reasoning_effort":"high"},"add_generation_prompt":true,"add_special_tokens":false}"#
            )
        );
        assert_eq!(
            asked(Flavour::LlamaCpp, body),
            format!(
                "{prompt}{}",
                r#""tool_choice":"required","chat_template_kwargs":{"enable_thinking":true},"reasoning_effort":"high"}"#
            )
        );
    }

    #[test]
    fn the_beginning_of_an_answer_is_counted_without_another_one() {
        let asked = asked(Flavour::Sglang, r#"{"messages":[],"continue_final_message":true}"#);
        assert!(asked.contains(r#""continue_final_message":true,"add_generation_prompt":false"#), "{asked}");
    }
}
