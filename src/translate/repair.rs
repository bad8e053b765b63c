//! Changes a chat completion that its server refused, or will refuse.
//!
//! One function for each [`Repair`]; none of them needs to know why the server refuses. Each takes a time linear in the
//! size of the body, changes the same body in the same way every time, and changes a message only by what stands before
//! it, so that the upstream's prefix cache holds from turn to turn.
//!
//! | file | changes |
//! |---|---|
//! | this one | members of the body |
//! | `images` | images to lines of text |
//! | `order` | the order of messages, and what each may hold |
//! | `names` | ids of calls, and names of tools |
//! | `schemas` | schemas of tools and of the answer's format |

mod images;
mod names;
mod order;
mod schemas;

use crate::json::{Object, Value};
use crate::openai::{EFFORTS, Repair};

/// The members that switch thinking on, or limit it.
const THINKING_KEYS: [&str; 6] = [
    "reasoning_effort",
    "reasoning",
    "thinking",
    "enable_thinking",
    "thinking_token_budget",
    "thinking_budget_tokens",
];

/// The same members among the arguments of a chat template, where `enable_thinking` may stay: it switches off as well.
const TEMPLATE_THINKING_KEYS: [&str; 2] = ["reasoning_effort", "thinking_budget"];

/// The members that limit the answer's tokens.
pub(super) const LIMIT_KEYS: [&str; 2] = ["max_completion_tokens", "max_tokens"];

/// The repairs that are left to try, as they are made to this body and remembered. `is_tried` tells those that were made to
/// it already. Not all of them need to change the body.
pub fn possible_repairs(
    named: &[Repair],
    body: &Value<'_>,
    is_tried: &dyn Fn(&Repair) -> bool,
) -> Vec<Repair> {
    let possible = named.iter().filter_map(|repair| repair_for(repair, body, is_tried));
    possible.filter(|repair| !is_tried(repair)).collect()
}

/// The repair as it is made and remembered: some name a thing by its place, such as the newest image.
fn repair_for(repair: &Repair, body: &Value<'_>, is_tried: &dyn Fn(&Repair) -> bool) -> Option<Repair> {
    match repair {
        Repair::NewestImage => {
            let mut guesses = images::newest_first(body).map(|image| Repair::BrokenImages(vec![image]));
            guesses.find(|guess| !is_tried(guess))
        }
        Repair::PresentImages => Some(Repair::BrokenImages(images::newest_first(body).collect())),
        other => Some(other.clone()),
    }
}

/// Makes changes that a request is known to need, in the order in which none undoes another.
pub fn make_repairs<'r>(repairs: impl Iterator<Item = &'r Repair>, body: &mut Value<'_>) {
    let mut all: Vec<&Repair> = repairs.collect();
    all.sort_by_key(|repair| repair.rank());
    all.into_iter().for_each(|repair| _ = make_repair(repair, body));
}

/// Makes the change. Returns false if the body had nothing to change.
pub fn make_repair(repair: &Repair, body: &mut Value<'_>) -> bool {
    let Some(body) = body.as_object_mut() else { return false };
    match repair {
        Repair::NoThinking => no_thinking(body),
        Repair::Efforts(allowed) => efforts(body, allowed),
        Repair::Without(name) => without(body, name),
        Repair::NoImages => images::omit(body, images::Kept::None),
        Repair::ImagesMax(max) => images::omit(body, images::Kept::Newest(*max)),
        Repair::PlainImages => images::omit(body, images::Kept::Plain),
        Repair::BrokenImages(broken) => images::omit(body, images::Kept::AllBut(broken)),
        Repair::NewestImage | Repair::PresentImages => false,
        Repair::PlainSchemas => schemas::plain(body),
        Repair::PlainFormat => schemas::plain_format(body),
        Repair::OpenSchema(name) => schemas::open(body, Some(name)),
        Repair::OpenSchemas => schemas::open(body, None),
        Repair::LooseFormat => schemas::loose_format(body),
        Repair::FormatAsText => schemas::format_as_text(body),
        Repair::Alternation => order::alternate(body),
        Repair::SingleCalls => order::single_calls(body),
        Repair::CallsAlone => order::calls_alone(body),
        Repair::NoSystem => order::no_system(body),
        Repair::SystemRole(role) => order::system_role(body, role),
        Repair::NoNullContent => order::no_null_content(body),
        Repair::StringContent => images::omit(body, images::Kept::None) | order::string_content(body),
        Repair::ReasoningContent => order::reasoning_content(body),
        Repair::CallIds => names::call_ids(body),
        Repair::ToolNames => names::tool_names(body),
        Repair::NoNamedChoice => no_named_choice(body),
        Repair::NoChoice => no_choice(body),
        Repair::CallsAsText => calls_as_text(body),
        Repair::LimitName(name) => limit_name(body, name),
        Repair::OutputMax(max) | Repair::Room(max) => limit(body, *max),
    }
}

/// The messages, to be changed.
fn messages<'b, 'a>(body: &'b mut Object<'a>) -> Option<&'b mut Vec<Value<'a>>> {
    match body.get_mut("messages") {
        Some(Value::Array(messages)) => Some(messages.to_mut()),
        _ => None,
    }
}

fn no_thinking(body: &mut Object<'_>) -> bool {
    let mut is_changed = false;
    for key in THINKING_KEYS {
        is_changed |= body.remove(key).is_some();
    }
    if let Some(arguments) = body.get_mut("chat_template_kwargs").and_then(Value::as_object_mut) {
        for key in TEMPLATE_THINKING_KEYS {
            is_changed |= arguments.remove(key).is_some();
        }
        if arguments.get("enable_thinking").and_then(Value::as_bool) == Some(true) {
            arguments.set("enable_thinking", false);
            is_changed = true;
        }
    }
    is_changed
}

/// Replaces an effort that is not allowed by the nearest one; of two that are as near, by the higher one.
fn efforts(body: &mut Object<'_>, allowed: &[&'static str]) -> bool {
    let arguments = body.get("chat_template_kwargs").and_then(|arguments| arguments.get("reasoning_effort"));
    let nearest = |effort: Option<&Value<'_>>| {
        let effort = effort?.as_str()?;
        if allowed.contains(&effort) {
            return None;
        }
        let place = |effort: &str| EFFORTS.iter().position(|known| *known == effort);
        let wanted = place(effort).or_else(|| place("high"))?;
        // No thinking at all is near to no effort but itself.
        let others = allowed.iter().filter(|other| (**other == "none") == (effort == "none"));
        let distance = |other: &&&str| place(other).map(|place| (place.abs_diff(wanted), place < wanted));
        others.min_by_key(distance).copied()
    };
    let (own, argument) = (nearest(body.get("reasoning_effort")), nearest(arguments));
    if let Some(effort) = own {
        body.set("reasoning_effort", effort);
    }
    let arguments = body.get_mut("chat_template_kwargs").and_then(Value::as_object_mut);
    if let (Some(effort), Some(arguments)) = (argument, arguments) {
        arguments.set("reasoning_effort", effort);
    }
    own.is_some() || argument.is_some()
}

/// Leaves the member out of the body, of `stream_options`, of the template's arguments, of the messages and of the functions
/// of tools: a refusal does not always say in which of them it was.
fn without(body: &mut Object<'_>, name: &str) -> bool {
    // A view is copied only if it has the member.
    let remove = |value: &mut Value<'_>| {
        value.get(name).is_some() && value.as_object_mut().is_some_and(|object| object.remove(name).is_some())
    };
    let mut is_changed = body.get(name).is_some() && body.remove(name).is_some();
    for options in ["stream_options", "chat_template_kwargs"] {
        is_changed |= body.get_mut(options).is_some_and(remove);
    }
    for message in messages(body).into_iter().flatten() {
        is_changed |= remove(message);
    }
    if let Some(Value::Array(tools)) = body.get_mut("tools") {
        for tool in tools.to_mut() {
            let function = tool.as_object_mut().and_then(|tool| tool.get_mut("function"));
            is_changed |= function.is_some_and(remove);
        }
    }
    is_changed
}

/// The function that `tool_choice` names.
fn chosen(body: &Object<'_>) -> Option<String> {
    let function = body.get("tool_choice")?.get("function")?;
    function.get("name").and_then(Value::as_str).map(str::to_string)
}

/// Leaves only the named function among the tools: with a single tool, `required` means that tool.
fn keep_tool(body: &mut Object<'_>, name: &str) {
    if let Some(Value::Array(tools)) = body.get_mut("tools") {
        let is_named = |tool: &Value<'_>| {
            tool.get("function").and_then(|function| function.get("name")).and_then(Value::as_str)
                == Some(name)
        };
        tools.to_mut().retain(is_named);
    }
}

fn no_named_choice(body: &mut Object<'_>) -> bool {
    let Some(name) = chosen(body) else { return false };
    keep_tool(body, &name);
    body.set("tool_choice", "required");
    true
}

fn no_choice(body: &mut Object<'_>) -> bool {
    if let Some(name) = chosen(body) {
        keep_tool(body, &name);
    }
    let Some(choice) = body.remove("tool_choice") else { return false };
    if choice.as_str() == Some("none") {
        body.remove("tools"); // without tools the model cannot call any
    }
    true
}

fn calls_as_text(body: &mut Object<'_>) -> bool {
    let is_free = body.get("tool_choice").is_none_or(|choice| choice.as_str() == Some("auto"));
    let has_tools = body.get("tools").and_then(Value::as_array).is_some_and(|tools| !tools.is_empty());
    if is_free && has_tools {
        body.set("tool_choice", "none");
    }
    is_free && has_tools
}

fn limit_name(body: &mut Object<'_>, name: &'static str) -> bool {
    let is_named = |key: &&str| body.get(key).is_some();
    if LIMIT_KEYS.iter().filter(|key| **key != name).all(|key| !is_named(key)) {
        return false;
    }
    let limits = LIMIT_KEYS.map(|key| body.remove(key));
    if let Some(limit) = limits.into_iter().flatten().next() {
        body.push(name, limit);
    }
    true
}

fn limit(body: &mut Object<'_>, max: u64) -> bool {
    let mut is_changed = false;
    for key in LIMIT_KEYS {
        let longer = body.get_mut(key).filter(|limit| limit.as_u64().is_none_or(|limit| limit > max));
        if let Some(limit) = longer {
            *limit = max.into();
            is_changed = true;
        }
    }
    is_changed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body after the repair, and whether it was changed.
    pub(super) fn repaired(repair: &Repair, body: &str) -> (String, bool) {
        let mut bytes = body.as_bytes().to_vec();
        let mut body = crate::json::parse(&mut bytes).unwrap();
        let is_changed = make_repair(repair, &mut body);
        let once = body.to_json();
        assert!(
            !make_repair(repair, &mut body) || *repair == Repair::FormatAsText,
            "{repair:?} changes twice: {once}"
        );
        assert_eq!(body.to_json(), once, "{repair:?}");
        (once, is_changed)
    }

    #[track_caller]
    fn check(repair: &Repair, body: &str, expected: &str) {
        assert_eq!(repaired(repair, body), (expected.to_string(), body != expected), "{repair:?}");
    }

    #[test]
    fn members_are_left_out_where_they_are() {
        let without = |name: &str| Repair::Without(name.into());
        check(&without("top_k"), r#"{"top_k":1,"messages":[{"top_k":2}]}"#, r#"{"messages":[{}]}"#);
        check(
            &without("continuous_usage_stats"),
            r#"{"stream_options":{"include_usage":true,"continuous_usage_stats":true}}"#,
            r#"{"stream_options":{"include_usage":true}}"#,
        );
        check(
            &without("preserve_thinking"),
            r#"{"chat_template_kwargs":{"enable_thinking":true,"preserve_thinking":true}}"#,
            r#"{"chat_template_kwargs":{"enable_thinking":true}}"#,
        );
        check(
            &without("reasoning"),
            r#"{"messages":[{"role":"user"},{"role":"assistant","reasoning":"r"}]}"#,
            r#"{"messages":[{"role":"user"},{"role":"assistant"}]}"#,
        );
        check(
            &without("strict"),
            r#"{"tools":[{"function":{"name":"a","strict":true}},{"function":{"name":"b"}}]}"#,
            r#"{"tools":[{"function":{"name":"a"}},{"function":{"name":"b"}}]}"#,
        );
        check(&without("seed"), r#"{"a":1}"#, r#"{"a":1}"#);
    }

    #[test]
    fn efforts_become_the_nearest() {
        for (allowed, asked, expected) in [
            (&["low", "medium", "high"][..], "xhigh", "high"),
            (&["low", "medium", "high"], "minimal", "low"),
            (&["low", "medium", "high"], "max", "high"),
            (&["low", "medium", "high"], "ultra", "high"),
            (&["none", "high"], "low", "high"),
            (&["low", "high"], "medium", "high"),
            (&["low", "medium", "high"], "medium", "medium"),
            // There is nothing near to no thinking.
            (&["low", "high"], "none", "none"),
        ] {
            let body = |effort: &str| format!(r#"{{"reasoning_effort":"{effort}"}}"#);
            check(&Repair::Efforts(allowed.to_vec()), &body(asked), &body(expected));
        }
    }

    #[test]
    fn no_thinking_leaves_nothing_that_thinks() {
        check(
            &Repair::NoThinking,
            r#"{"reasoning_effort":"high","thinking_token_budget":5,"chat_template_kwargs":{"enable_thinking":true,"a":1}}"#,
            r#"{"chat_template_kwargs":{"enable_thinking":false,"a":1}}"#,
        );
    }

    #[test]
    fn choices_keep_their_nearest_meaning() {
        let tool = |name: &str| format!(r#"{{"type":"function","function":{{"name":"{name}"}}}}"#);
        let named = format!(r#"{{"tools":[{},{}],"tool_choice":{}}}"#, tool("a"), tool("b"), tool("b"));
        let required = format!(r#"{{"tools":[{}],"tool_choice":"required"}}"#, tool("b"));
        check(&Repair::NoNamedChoice, &named, &required);
        check(&Repair::NoNamedChoice, &required, &required);
        check(&Repair::NoChoice, &named, &format!(r#"{{"tools":[{}]}}"#, tool("b")));
        check(&Repair::NoChoice, r#"{"tools":[],"tool_choice":"none"}"#, "{}");
        let tools = format!(r#"{{"tools":[{}]"#, tool("a"));
        let as_text = format!(r#"{tools},"tool_choice":"none"}}"#);
        check(&Repair::CallsAsText, &format!("{tools}}}"), &as_text);
        check(&Repair::CallsAsText, &format!(r#"{tools},"tool_choice":"auto"}}"#), &as_text);
        for other in [
            r#"{"model":"m"}"#,
            r#"{"tools":[]}"#,
            &format!(r#"{tools},"tool_choice":"required"}}"#),
            &as_text,
        ] {
            check(&Repair::CallsAsText, other, other);
        }
    }

    #[test]
    fn limits_keep_one_name_and_shrink() {
        check(
            &Repair::LimitName("max_completion_tokens"),
            r#"{"max_tokens":5}"#,
            r#"{"max_completion_tokens":5}"#,
        );
        check(
            &Repair::LimitName("max_tokens"),
            r#"{"max_completion_tokens":5,"max_tokens":5}"#,
            r#"{"max_tokens":5}"#,
        );
        check(
            &Repair::OutputMax(4),
            r#"{"max_completion_tokens":5,"max_tokens":5}"#,
            r#"{"max_completion_tokens":4,"max_tokens":4}"#,
        );
        check(&Repair::Room(4), r#"{"max_tokens":3}"#, r#"{"max_tokens":3}"#);
    }
}
