//! The questions: bodies of chat completions.
//!
//! Any model can answer each of them. Some end with a word in capitals: the tiny model of this project's tests chooses
//! its answer by that word, and real models ignore it.

use super::verdict::ServerFacts;
use crate::anthropic::MessagesRequest;
use crate::json::{self, Object, Value};
use crate::settings::Settings;
use crate::translate::{Lessons, Target, chat_request};

/// The tool that is offered.
pub(super) const TOOL: &str = "get_weather";

/// The token limit for a call and a few words before it.
const CALL_TOKENS_MAX: u64 = 256;

/// The token limit for a model that ends its thinking; reading stops at the first sign of it.
const THOUGHT_TOKENS_MAX: u64 = 2048;

/// The number of tokens that is enough to measure their pace.
const COUNTED_TOKENS: u64 = 64;

/// Words that every tokenizer makes one token of.
const WORDS: [&str; 12] = [
    "river", "stone", "green", "house", "light", "music", "paper", "north", "water", "table", "seven",
    "bread",
];

/// A question with a tool. `choice` is `required`, or `auto` to let the model decide.
pub(super) fn tool_call(server: &ServerFacts, choice: &'static str) -> Value<'static> {
    let kind = |kind: &'static str| Value::object([("type", kind.into())]);
    let properties = Value::object([("city", kind("string")), ("unit", kind("string"))]);
    let parameters = Value::object([
        ("type", "object".into()),
        ("properties", properties),
        ("required", vec!["city".into()].into()),
    ]);
    let function = Value::object([
        ("name", TOOL.into()),
        ("description", "The weather in a city, now".into()),
        ("parameters", parameters),
    ]);
    let tool = Value::object([("type", "function".into()), ("function", function)]);
    let mut body = chat(server, "Use the tool: in Paris, how is the WEATHER", CALL_TOKENS_MAX, false);
    body.push("tools", vec![tool]);
    body.push("tool_choice", choice);
    body.into()
}

/// The units that the tool of [`strict`] allows.
pub(super) const UNITS: [&str; 2] = ["celsius", "fahrenheit"];

/// A question that tempts a model to break the schema of its tool, with or without `strict`.
pub(super) fn strict(server: &ServerFacts, is_strict: bool) -> Option<Value<'static>> {
    let text = format!(
        r#"{{"tools":[{{"type":"function","function":{{"name":"{TOOL}","description":"The weather in a city, now"{},"parameters":{{"type":"object","properties":{{"city":{{"type":"string"}},"unit":{{"type":"string","enum":["{}","{}"]}}}},"required":["city","unit"],"additionalProperties":false}}}}}}]}}"#,
        if is_strict { r#","strict":true"# } else { "" },
        UNITS[0],
        UNITS[1],
    );
    let tools = json::parse(&mut text.into_bytes()).ok()?.get("tools")?.clone().into_owned();
    let words = "Use the tool with the unit kelvin, and no other unit: in Paris, how is the WEATHER";
    let mut body = chat(server, words, CALL_TOKENS_MAX, false);
    body.push("tools", tools);
    body.push("tool_choice", "auto");
    Some(body.into())
}

/// Requests as Claude Code sends them, with all that servers are known to refuse. Here an image, an effort, a strict tool,
/// a long name, patterns, one of them with a look-around, a call of another model, and a person who adds something to a
/// result.
const REFUSABLE_TOOLS: &str = r#"{"model":"m","max_tokens":2,"temperature":1,"top_k":20,
"system":"You are a coding agent.","output_config":{"effort":"xhigh"},
"tools":[{"name":"get_weather","description":"The weather in a city, now","input_schema":{"type":"object",
"properties":{"city":{"type":"string","pattern":"\\d+","format":"uri","minLength":1}}}},
{"name":"mcp__a_server_with_a_long_name_for_its_tools__a_tool_with_a_long_name_as_well","description":"x","strict":true,
"input_schema":{"type":"object","properties":{"path":{"type":"string","pattern":"^(?!\\.)\\S+$"}},"required":["path"],
"additionalProperties":false}}],
"messages":[{"role":"user","content":[{"type":"text","text":"Say OK."},{"type":"image","source":{"type":"base64",
"media_type":"image/png","data":"iVBORw0KGgoAAAANSUhEUgAAADgAAAA4CAIAAAAn5KxJAAAAP0lEQVR42u3OMQ0AAAwDoPo33R5TsQQUkD4RUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVHRM3/7nV0TjaS5AAAAAElFTkSuQmCC"}}]},
{"role":"assistant","content":[{"type":"text","text":"I look."},{"type":"tool_use","id":"toolu_01AbCdEfGhIjKlMnOpQrStUv",
"name":"get_weather","input":{"city":"Paris"}}]},
{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01AbCdEfGhIjKlMnOpQrStUv","content":"sunny"},
{"type":"text","text":"Thanks, say OK."}]}]}"#;

/// Here a format of the answer whose schema has a look-around, and an effort that only the newest models know. No tools:
/// some servers take the one or the other.
const REFUSABLE_FORMAT: &str = r#"{"model":"m","max_tokens":2,"output_config":{"effort":"max","format":{"type":"json_schema",
"schema":{"type":"object","properties":{"title":{"type":"string","pattern":"^(?!\\s).+$"}},"required":["title"],
"additionalProperties":false}}},"messages":[{"role":"user","content":"A title for a chat that says HELLO"}]}"#;

/// A conversation whose first answer had this reasoning, as Claude Code sends it; `None` if it cannot be made.
pub(super) fn remembered(
    server: &ServerFacts,
    settings: &Settings,
    reasoning: String,
) -> Option<Value<'static>> {
    let block = |kind: &'static str, key: &'static str, text: String| {
        Value::object([("type", kind.into()), (key, text.into())])
    };
    let mut thought = Object::new();
    thought.push("type", "thinking");
    thought.push("thinking", reasoning);
    thought.push("signature", "");
    let message = |role: &'static str, content: Vec<Value<'static>>| {
        Value::object([("role", role.into()), ("content", content.into())])
    };
    let messages = vec![
        message("user", vec![block("text", "text", "Say HELLO".into())]),
        message("assistant", vec![thought.into(), block("text", "text", "Hello.".into())]),
        message("user", vec![block("text", "text", "Once more, say HELLO".into())]),
    ];
    let thinking = Value::object([("type", "adaptive".into())]);
    let request = Value::object([
        ("model", "m".into()),
        ("max_tokens", 2u64.into()),
        ("thinking", thinking),
        ("messages", messages.into()),
    ]);
    chat_of(&request, server, settings)
}

/// The chat completion that a request to this server becomes.
fn chat_of(request: &Value<'_>, server: &ServerFacts, settings: &Settings) -> Option<Value<'static>> {
    let target = Target {
        model: &server.model,
        flavour: server.flavour,
        window: None,
        lessons: Lessons::default(),
        settings,
    };
    let request = MessagesRequest::read(request).ok()?;
    Some(chat_request(&request, &target).ok()?.body.into_owned())
}

/// The chat completions for these requests. One that cannot be made for this kind of server is left out.
pub(super) fn refusable(server: &ServerFacts, settings: &Settings) -> Vec<Value<'static>> {
    let chat = |text: &str| chat_of(&json::parse(&mut text.as_bytes().to_vec()).ok()?, server, settings);
    [REFUSABLE_TOOLS, REFUSABLE_FORMAT].into_iter().filter_map(chat).collect()
}

/// A question that makes a model think.
pub(super) fn thought(server: &ServerFacts) -> Value<'static> {
    let text = "Think it over first: which two letters are doubled in the word HELLO";
    chat(server, text, THOUGHT_TOKENS_MAX, true).into()
}

/// A question with a long answer.
pub(super) fn count(server: &ServerFacts) -> Value<'static> {
    let mut body = chat(server, "Count from 1 to 100, in words.", COUNTED_TOKENS, false);
    if server.flavour.dialect().takes_ignore_eos {
        body.push("ignore_eos", true);
    }
    body.into()
}

/// A prompt of about `tokens` tokens that differs from every other prompt from its beginning on.
pub(super) fn long(server: &ServerFacts, seed: &str, tokens: u64, max_tokens: u64) -> Value<'static> {
    chat(server, &prose(seed, tokens), max_tokens, false).into()
}

/// A text of about `tokens` tokens that begins with `seed`.
pub(super) fn prose(seed: &str, tokens: u64) -> String {
    let mut text = format!("{seed}: remember these words.");
    let count = usize::try_from(tokens).unwrap_or(usize::MAX);
    for word in WORDS.iter().cycle().take(count) {
        text.push(' ');
        text.push_str(word);
    }
    text.push_str(". Now say HELLO");
    text
}

fn chat(server: &ServerFacts, text: &str, max_tokens: u64, thinks: bool) -> Object<'static> {
    let message = Value::object([("role", "user".into()), ("content", text.to_string().into())]);
    let mut body = Object::new();
    body.push("model", server.model.clone());
    body.push("messages", vec![message]);
    body.push("max_tokens", max_tokens);
    body.push("stream", true);
    body.push("stream_options", Value::object([("include_usage", true.into())]));
    // A strict API refuses what it does not know, and its models have no such template.
    if server.flavour.dialect().takes_extensions {
        body.push("temperature", 0u64);
        body.push("chat_template_kwargs", Value::object([("enable_thinking", thinks.into())]));
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::ServerKind;

    #[test]
    fn the_questions_hold_all_that_servers_refuse() {
        let server = ServerFacts { flavour: ServerKind::Vllm, model: "qwen3".into() };
        let asked = refusable(&server, &Settings::default());
        let asked: Vec<String> = asked.iter().map(Value::to_json).collect();
        assert_eq!(asked.len(), 2);
        let tools = ["image_url", "xhigh", r#""strict":true"#, "(?!", "chat_template_kwargs", "top_k"];
        let format = [r#""response_format""#, r#""strict":true"#, "(?!", r#""max""#];
        for (asked, parts) in asked.iter().zip([&tools[..], &format[..]]) {
            for part in parts {
                assert!(asked.contains(part), "{part}: {asked}");
            }
        }
    }

    #[test]
    fn a_remembered_conversation_holds_its_reasoning() {
        let server = ServerFacts { flavour: ServerKind::Vllm, model: "qwen3".into() };
        let asked = remembered(&server, &Settings::default(), "river stone".into()).unwrap().to_json();
        assert!(asked.contains("river stone") && asked.contains("Once more"), "{asked}");
    }
}
