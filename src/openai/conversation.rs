//! A request of OpenAI's protocol seen as a Messages request: system prompt, tools and messages, as far as they tell which
//! conversation it belongs to and how long its prompt is.
//!
//! So conversations of all protocols keep to their upstreams by the same rules. Nothing of this view is ever sent.

use std::borrow::Cow;

use crate::json::Value;
use crate::shown::cut;

/// The bytes of a bare prompt that tell its conversation. A prompt without messages grows at its end from turn to turn.
const PROMPT_HEAD_MAX: usize = 1024;

/// The view of a request's body. A body without any known member gives one without messages.
pub fn conversation_view<'b>(body: &'b Value<'b>) -> Value<'b> {
    let tools = body.get("tools").and_then(Value::as_array).unwrap_or_default();
    let tools: Vec<Value<'b>> = tools.iter().map(tool).collect();
    let mut system: Vec<Value<'b>> = body.get("instructions").map(Value::reborrow).into_iter().collect();
    let mut messages = Vec::new();
    // Clients that know their conversation name it so; Codex does.
    if let Some(key @ Value::String(_)) = body.get("prompt_cache_key") {
        messages.push(key.reborrow());
    }
    for list in ["messages", "input"].into_iter().filter_map(|key| body.get(key)) {
        let items = list.as_array().unwrap_or(std::slice::from_ref(list));
        let is_head = |item: &&Value<'_>| {
            matches!(item.get("role").and_then(Value::as_str), Some("system" | "developer"))
        };
        let head_size = items.iter().take_while(is_head).count();
        let (head, rest) = items.split_at_checked(head_size).unwrap_or((items, &[]));
        system.extend(head.iter().map(Value::reborrow));
        messages.extend(rest.iter().map(Value::reborrow));
    }
    if let Some(prompt) = body.get("prompt") {
        let (head, rest) = prompt.as_str().map_or(("", ""), split_prompt);
        let whole = if prompt.as_str().is_some() { rest.into() } else { prompt.reborrow() };
        messages.extend([head.into(), whole]);
    }
    // A request to rank documents, or to speak a text.
    messages.extend(["query", "documents"].into_iter().filter_map(|key| body.get(key)).map(Value::reborrow));
    Value::object([("tools", tools.into()), ("system", system.into()), ("messages", messages.into())])
}

/// A tool with its name at the top: chat completions have it inside of `function`.
fn tool<'b>(tool: &'b Value<'b>) -> Value<'b> {
    let name = tool.get("name").or_else(|| tool.get("function")?.get("name")).and_then(Value::as_str);
    let name = Value::String(Cow::Borrowed(name.unwrap_or_default()));
    Value::object([("name", name), ("tool", tool.reborrow())])
}

fn split_prompt(prompt: &str) -> (&str, &str) {
    prompt.split_at_checked(cut(prompt, PROMPT_HEAD_MAX).len()).unwrap_or((prompt, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn view(body: &str) -> String {
        let mut bytes = body.as_bytes().to_vec();
        conversation_view(&json::parse(&mut bytes).unwrap()).to_json()
    }

    #[test]
    fn the_system_prompt_is_no_message() {
        for (body, expected) in [
            (
                r#"{"messages":[{"role":"system","content":"s"},{"role":"developer","content":"d"},{"role":"user","content":"u"},{"role":"system","content":"late"}]}"#,
                r#"{"tools":[],"system":[{"role":"system","content":"s"},{"role":"developer","content":"d"}],"messages":[{"role":"user","content":"u"},{"role":"system","content":"late"}]}"#,
            ),
            (
                r#"{"instructions":"s","input":"u","tools":[{"type":"function","name":"f"}]}"#,
                r#"{"tools":[{"name":"f","tool":{"type":"function","name":"f"}}],"system":["s"],"messages":["u"]}"#,
            ),
            (
                r#"{"messages":[],"tools":[{"type":"function","function":{"name":"f"}},7]}"#,
                r#"{"tools":[{"name":"f","tool":{"type":"function","function":{"name":"f"}}},{"name":"","tool":7}],"system":[],"messages":[]}"#,
            ),
            (
                r#"{"prompt_cache_key":"k","input":[{"role":"user"}]}"#,
                r#"{"tools":[],"system":[],"messages":["k",{"role":"user"}]}"#,
            ),
            (
                r#"{"query":"q","documents":["a","b"]}"#,
                r#"{"tools":[],"system":[],"messages":["q",["a","b"]]}"#,
            ),
            (r#"{"prompt":[1,2]}"#, r#"{"tools":[],"system":[],"messages":["",[1,2]]}"#),
            ("[]", r#"{"tools":[],"system":[],"messages":[]}"#),
        ] {
            assert_eq!(view(body), expected, "{body}");
        }
    }

    #[test]
    fn a_bare_prompt_that_grows_stays_the_same_conversation() {
        let first = "é".repeat(600);
        let (short, long) = (format!("{first}a"), format!("{first}abc"));
        assert_eq!(split_prompt(&short).0, split_prompt(&long).0);
        assert_eq!(split_prompt("ab"), ("ab", ""));
    }
}
