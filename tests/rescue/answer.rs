//! One answer of an upstream through the translation.

use sparkgap::anthropic::MessagesRequest;
use sparkgap::dialect::ServerKind;
use sparkgap::json::{self, Parser, Value};
use sparkgap::settings::Settings;
use sparkgap::translate::{Lessons, MessageFold, MessageStream, Plan, Target, chat_request};

/// The tools of the request: their names, and their schemas.
const TOOLS: [(&str, &str); 8] = [
    (
        "Bash",
        r#"{"type":"object","properties":{"command":{"type":"string"},"timeout":{"type":"number"},"run_in_background":{"type":"boolean"}},"required":["command"],"additionalProperties":false}"#,
    ),
    (
        "Read",
        r#"{"type":"object","properties":{"file_path":{"type":"string"},"offset":{"type":"integer"},"limit":{"type":"integer"}},"required":["file_path"],"additionalProperties":false}"#,
    ),
    (
        "Edit",
        r#"{"type":"object","properties":{"file_path":{"type":"string"},"old_string":{"type":"string"},"new_string":{"type":"string"},"replace_all":{"type":"boolean"}},"required":["file_path","old_string","new_string"]}"#,
    ),
    (
        "Write",
        r#"{"type":"object","properties":{"file_path":{"type":"string"},"content":{"type":"string"}},"required":["file_path","content"]}"#,
    ),
    (
        "TodoWrite",
        r#"{"type":"object","properties":{"todos":{"type":"array","items":{"type":"object"}}},"required":["todos"]}"#,
    ),
    (
        "mcp__forge__create_issue",
        r#"{"type":"object","properties":{"title":{"type":"string"},"labels":{"type":"array"},"meta":{"type":"object"}},"required":["title"]}"#,
    ),
    ("Ping", r#"{"type":"object","properties":{}}"#),
    ("Grep", r#"{"type":"object","properties":{"pattern":{"type":"string"}},"required":["pattern"]}"#),
];

/// The plan of a request with all tools, and these further members.
pub(crate) fn plan(more: &str, settings: &Settings) -> Plan {
    let tools: Vec<String> = TOOLS
        .iter()
        .map(|(name, schema)| format!(r#"{{"name":"{name}","input_schema":{schema}}}"#))
        .collect();
    let body = format!(
        r#"{{"model":"m","max_tokens":999,"stream":true,"messages":[{{"role":"user","content":"Hi"}}],"tools":[{}]{more}}}"#,
        tools.join(",")
    );
    let mut bytes = body.into_bytes();
    let value = json::parse(&mut bytes).unwrap();
    let request = MessagesRequest::read(&value).unwrap();
    let target =
        Target { model: "m", flavour: ServerKind::Vllm, window: None, lessons: Lessons::default(), settings };
    chat_request(&request, &target).unwrap().plan
}

/// The client's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) thinking: String,
    pub(crate) text: String,
    /// Name and arguments.
    pub(crate) calls: Vec<(String, String)>,
    pub(crate) stop_reason: String,
    pub(crate) rescued: usize,
    pub(crate) family: Option<&'static str>,
    /// The text that was shown before the end of the answer was known.
    pub(crate) early: usize,
}

/// The answer to `plan` that comes in these deltas, each an object, and ends for this reason.
pub(crate) fn answer(plan: &Plan, deltas: impl Iterator<Item = String>, finish: &str) -> Told {
    let mut stream = MessageStream::new(plan.clone(), "msg_0123456789abcdefghijklmn".to_owned());
    let (mut parser, mut fold) = (Parser::default(), MessageFold::default());
    let mut early = 0;
    let mut emit = |event: &sparkgap::anthropic::Event<'_>, early: &mut usize| {
        if let sparkgap::anthropic::Event::BlockDelta {
            delta: sparkgap::anthropic::Delta::Text(text), ..
        } = event
        {
            *early += text.len();
        }
        fold.event(event);
    };
    let ending = format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{finish}"}}]}}"#);
    let chunks = deltas.map(|delta| format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#));
    for chunk in chunks {
        stream
            .data(&mut parser, &mut chunk.into_bytes(), false, &mut |event| emit(event, &mut early))
            .unwrap();
    }
    let before_end = early;
    let mut ending = ending.into_bytes();
    stream.data(&mut parser, &mut ending, false, &mut |event| emit(event, &mut early)).unwrap();
    stream.end(&mut |event| emit(event, &mut early)).unwrap();
    let (rescued, family) = stream.rescued();
    let mut bytes = Vec::new();
    fold.finish(&mut bytes);
    let message = json::parse(&mut bytes).unwrap();
    let mut told = Told {
        stop_reason: message.get("stop_reason").unwrap().as_str().unwrap().to_owned(),
        rescued,
        family: family.map(|family| family.name),
        early: before_end,
        ..Told::default()
    };
    for block in message.get("content").unwrap().as_array().unwrap() {
        let field = |key: &str| block.get(key).and_then(Value::as_str).unwrap_or_default();
        match field("type") {
            "thinking" => told.thinking.push_str(field("thinking")),
            "text" => told.text.push_str(field("text")),
            _ => told.calls.push((field("name").to_owned(), block.get("input").unwrap().to_json())),
        }
    }
    told
}

/// A delta with this text, as content or as reasoning.
pub(crate) fn delta(key: &str, text: &str) -> String {
    format!("{{\"{key}\":{}}}", Value::from(text).to_json())
}

/// The answer that is this text in pieces.
pub(crate) fn told(plan: &Plan, key: &str, pieces: &[&str], finish: &str) -> Told {
    answer(plan, pieces.iter().map(|piece| delta(key, piece)), finish)
}

/// The text in pieces of this many characters.
pub(crate) fn pieces(text: &str, size: usize) -> Vec<&str> {
    let mut places: Vec<usize> = text.char_indices().map(|(at, _)| at).step_by(size).collect();
    places.push(text.len());
    places.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}
