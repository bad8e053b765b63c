//! The demo upstream: a small OpenAI-compatible server without a model, for trying things out.
//!
//! It speaks vLLM's dialect over a real socket, so that a demo uses the same code as any upstream. It sends reasoning
//! unless the request turns that off, calls one offered tool (for Claude Code `Bash` with a harmless `echo`), and
//! reports the result.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use super::pace::PacedBox;
use crate::http::{self, Request};
use crate::json::{self, Object, Value};
use crate::server::{self, Client, Handler, Heartbeat, ServerLimits, StopHandle};

/// The name of the demo's model.
pub const MODEL: &str = "demo";

const WINDOW: u64 = 131_072;

/// The most tokens of a paced answer, and those of one of its chunks.
const PACED_TOKENS_MAX: u64 = 400;
const PACED_STEP: u32 = 4;

/// The number of characters of a tool's result that are shown at most.
const RESULT_CHARS_MAX: usize = 200;

/// Starts the demo upstream on a free loopback port and returns its base URL. It runs as long as the process.
///
/// # Errors
/// No free port, or no thread, is available.
pub fn start() -> io::Result<String> {
    listen(DemoHandler(None))
}

/// Starts a demo upstream that takes the time of a real box, `times` as long as one DGX Spark: see [`start`].
///
/// # Errors
/// Those of [`start`].
pub fn start_box(times: f64) -> io::Result<String> {
    listen(DemoHandler(Some(PacedBox::new(times))))
}

fn listen(handler: DemoHandler) -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (limits, heartbeat) = (ServerLimits::default(), Heartbeat::new(None));
    server::spawn("demo", listener, Arc::new(handler), limits, StopHandle::new()?, heartbeat)?;
    Ok(format!("http://{address}/v1"))
}

/// Answers as the demo. With a pace it takes the time of a real box.
struct DemoHandler(Option<PacedBox>);

impl Handler for DemoHandler {
    fn handle(&self, client: &Client, request: Request, _: SocketAddr) -> io::Result<()> {
        let mut bytes = Vec::new();
        let read = client.borrow_mut().read_body(&mut bytes);
        if let Err(failure) = read {
            return match failure {
                http::RequestFailure::Reject(error) => client.borrow_mut().respond_error(&error, "req_demo"),
                other => Err(other.into()),
            };
        }
        let kind = [("content-type", "application/json")];
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/models") => client.borrow_mut().respond(200, &kind, models().to_json().as_bytes()),
            ("GET", "/metrics") if self.0.is_some() => {
                let page = self.0.as_ref().map(PacedBox::metrics).unwrap_or_default();
                client.borrow_mut().respond(200, &[("content-type", "text/plain")], page.as_bytes())
            }
            ("POST", "/v1/chat/completions") => match json::parse(&mut bytes) {
                Ok(chat) if chat.get("stream").and_then(Value::as_bool) == Some(true) => match &self.0 {
                    None => stream(client, &chat),
                    Some(paced) => stream_paced(client, &chat, paced),
                },
                Ok(chat) => client.borrow_mut().respond(200, &kind, whole(&chat).to_json().as_bytes()),
                Err(error) => client.borrow_mut().respond(400, &kind, failure(&error.to_string()).as_bytes()),
            },
            _ => client.borrow_mut().respond(404, &kind, failure("Not Found").as_bytes()),
        }
    }
}

fn models() -> Value<'static> {
    let model = Value::object([
        ("id", MODEL.into()),
        ("object", "model".into()),
        ("owned_by", "vllm".into()),
        ("max_model_len", WINDOW.into()),
    ]);
    Value::object([("object", "list".into()), ("data", vec![model].into())])
}

fn failure(message: &str) -> String {
    let error = Value::object([("message", message.into()), ("code", 400u64.into())]);
    Value::object([("error", error)]).to_json()
}

/// The demo's answer: its reasoning, its text, and perhaps a tool call.
struct DemoAnswer {
    reasoning: String,
    text: String,
    call: Option<(String, String)>,
}

/// The answer to a client that does not stream.
fn whole(chat: &Value<'_>) -> Value<'static> {
    let DemoAnswer { reasoning, text, call } = answer(chat);
    let usage = usage(chat, &reasoning, &text);
    let finish = if call.is_some() { "tool_calls" } else { "stop" };
    let mut message = Object::new();
    message.push("role", "assistant");
    message.push("content", text);
    if !reasoning.is_empty() {
        message.push("reasoning", reasoning);
    }
    if let Some((name, arguments)) = call {
        let function = Value::object([("name", name.into()), ("arguments", arguments.into())]);
        let id = crate::ids::tool_use_id().into();
        let call = Value::object([("id", id), ("type", "function".into()), ("function", function)]);
        message.push("tool_calls", vec![call]);
    }
    let choice = [("index", 0u64.into()), ("message", message.into()), ("finish_reason", finish.into())];
    Value::object([
        ("object", "chat.completion".into()),
        ("model", MODEL.into()),
        ("choices", vec![Value::object(choice)].into()),
        ("usage", usage),
    ])
}

/// The token counts of an answer.
fn usage(chat: &Value<'_>, reasoning: &str, text: &str) -> Value<'static> {
    let output = u64::try_from(text.len() + reasoning.len()).unwrap_or(0) / 4 + 1;
    let prompt = crate::translate::estimate::prompt_tokens(chat);
    Value::object([("prompt_tokens", prompt.into()), ("completion_tokens", output.into())])
}

fn stream(client: &Client, chat: &Value<'_>) -> io::Result<()> {
    let answer = answer(chat);
    let mut client = client.borrow_mut();
    client.start_stream(200, &[("content-type", "text/event-stream")])?;
    let mut send = |delta: Value<'_>, finish: Value<'_>| {
        let choice = Value::object([("index", 0u64.into()), ("delta", delta), ("finish_reason", finish)]);
        let chunk = [("object", "chat.completion.chunk".into()), ("choices", vec![choice].into())];
        client.write(format!("data: {}\n\n", Value::object(chunk).to_json()).as_bytes())
    };
    send(Value::object([("role", "assistant".into()), ("content", "".into())]), Value::Null)?;
    for word in answer.reasoning.split_inclusive(' ') {
        send(Value::object([("reasoning", word.into())]), Value::Null)?;
    }
    for word in answer.text.split_inclusive(' ') {
        send(Value::object([("content", word.into())]), Value::Null)?;
    }
    let mut finish = "stop";
    if let Some((name, arguments)) = &answer.call {
        finish = "tool_calls";
        let id = crate::ids::tool_use_id();
        let function =
            Value::object([("name", name.as_str().into()), ("arguments", arguments.as_str().into())]);
        let call =
            [("index", 0u64.into()), ("id", id.into()), ("type", "function".into()), ("function", function)];
        send(Value::object([("tool_calls", vec![Value::object(call)].into())]), Value::Null)?;
    }
    send(Object::new().into(), finish.into())?;
    let counts = usage(chat, &answer.reasoning, &answer.text);
    let usage = Value::object([("choices", Vec::new().into()), ("usage", counts)]);
    client.write(format!("data: {}\n\ndata: [DONE]\n\n", usage.to_json()).as_bytes())?;
    client.finish()
}

/// Answers with words, as many as the request allows, at the pace of a real box.
fn stream_paced(client: &Client, chat: &Value<'_>, paced: &PacedBox) -> io::Result<()> {
    let number = |name: &str| chat.get(name).and_then(Value::as_u64);
    let output = number("max_completion_tokens").or_else(|| number("max_tokens")).unwrap_or(PACED_TOKENS_MAX);
    let prompt = chat.get("messages").map(Value::to_json).unwrap_or_default();
    let read = paced.read(prompt.as_bytes());
    let mut client = client.borrow_mut();
    client.start_stream(200, &[("content-type", "text/event-stream")])?;
    let mut written = 0;
    while written < output.min(PACED_TOKENS_MAX) {
        let choice = Value::object([
            ("index", 0u64.into()),
            ("delta", Value::object([("content", "made-up words ".into())])),
            ("finish_reason", Value::Null),
        ]);
        client.write(
            format!("data: {}\n\n", Value::object([("choices", vec![choice].into())]).to_json()).as_bytes(),
        )?;
        paced.write(PACED_STEP);
        written += u64::from(PACED_STEP);
    }
    let end = Value::object([
        ("index", 0u64.into()),
        ("delta", Object::new().into()),
        ("finish_reason", "stop".into()),
    ]);
    let cached = Value::object([("cached_tokens", read.cached.into())]);
    let counts = [
        ("prompt_tokens", read.tokens.into()),
        ("completion_tokens", written.into()),
        ("prompt_tokens_details", cached),
    ];
    let last = Value::object([("choices", vec![end].into()), ("usage", Value::object(counts))]);
    client.write(format!("data: {}\n\ndata: [DONE]\n\n", last.to_json()).as_bytes())?;
    client.finish()
}

fn answer(chat: &Value<'_>) -> DemoAnswer {
    let kwargs = chat.get("chat_template_kwargs");
    let thinks =
        kwargs.and_then(|kwargs| kwargs.get("enable_thinking")).and_then(Value::as_bool).unwrap_or(true);
    let reasoning = |text: &str| if thinks { text.to_string() } else { String::new() };
    if let Some(schema) =
        chat.get("response_format").and_then(|format| format.get("json_schema")?.get("schema"))
    {
        return DemoAnswer { reasoning: String::new(), text: sample("", schema).to_json(), call: None };
    }
    if let Some(result) = tool_result(chat) {
        // The reminder that sparkgap folded into the message is for the model, not for its user.
        let result = result.split("\n\n<system-reminder>").next().unwrap_or(result);
        let shown: String = result.chars().take(RESULT_CHARS_MAX).collect();
        let text = format!(
            "The tool answered: {shown}\nThat is all this demo can do. Point sparkgap at a real model next."
        );
        return DemoAnswer { reasoning: reasoning("The tool has answered. "), text, call: None };
    }
    let call = offered_tool(chat);
    let text = match &call {
        Some(_) => "This is sparkgap's demo. Let me try a tool.",
        None => "This is sparkgap's demo: the connection works from end to end.",
    };
    DemoAnswer { reasoning: reasoning("A demo has little to think about. "), text: text.to_string(), call }
}

/// The result of a tool that came after the last answer.
fn tool_result<'c>(chat: &'c Value<'c>) -> Option<&'c str> {
    let messages = chat.get("messages")?.as_array()?;
    let role = |message: &Value<'_>, role: &str| message.get("role").and_then(Value::as_str) == Some(role);
    let since = messages.iter().rev().take_while(|message| !role(message, "assistant"));
    since.filter(|message| role(message, "tool")).find_map(|message| message.get("content")?.as_str())
}

/// The tool that the demo calls, with sample arguments: `Bash` if it is offered, otherwise the first one.
fn offered_tool(chat: &Value<'_>) -> Option<(String, String)> {
    if chat.get("tool_choice").and_then(Value::as_str) == Some("none") {
        return None;
    }
    let functions: Vec<&Value<'_>> =
        chat.get("tools")?.as_array()?.iter().filter_map(|tool| tool.get("function")).collect();
    let name =
        |function: &Value<'_>| function.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
    let function = functions.iter().find(|function| name(function) == "Bash").or(functions.first())?;
    let arguments =
        function.get("parameters").map_or_else(|| "{}".to_string(), |schema| sample("", schema).to_json());
    Some((name(function), arguments))
}

/// A sample value that fits a schema well enough for a demo: it has the required members only.
fn sample<'s>(name: &str, schema: &'s Value<'s>) -> Value<'s> {
    if let Some(first) = schema.get("enum").and_then(Value::as_array).and_then(<[Value<'_>]>::first) {
        return first.reborrow();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => {
            let required = schema.get("required").and_then(Value::as_array).unwrap_or_default();
            let member = |key: &'s Value<'s>| {
                let key = key.as_str()?;
                let schema = schema.get("properties")?.get(key)?;
                Some((key.into(), sample(key, schema)))
            };
            Value::Object(required.iter().filter_map(member).collect())
        }
        Some("array") => Vec::new().into(),
        Some("integer" | "number") => 1u64.into(),
        Some("boolean") => true.into(),
        _ if name == "command" => "echo 'Hello from sparkgap'".into(),
        _ => "demo".into(),
    }
}
