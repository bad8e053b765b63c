//! The order of messages, and the forms of their contents.
//!
//! | a strict template refuses | what is sent instead |
//! |---|---|
//! | two users, two answers without calls in between | one message with both contents |
//! | a user behind a tool | the text in the tool's message if it is only a reminder, else a short answer between the two |
//! | an answer before any user | a short message of the user before it |
//! | a second system message at the beginning | one message with both texts |
//! | a system message further below | a reminder in a message of the user |

use crate::json::{Object, Value};

/// The answer that stands between a tool's result and a user's message.
const BRIDGE: &str = "OK.";
/// The user's message before an answer that has none.
const BEGINNING: &str = "(the conversation continues)";
/// The marks around a text that the client adds for the model, not for the user.
const REMINDER: (&str, &str) = ("<system-reminder>", "</system-reminder>");

fn role<'m>(message: &'m Value<'_>) -> &'m str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

fn has_calls(message: &Value<'_>) -> bool {
    message.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty())
}

/// Brings the messages into the order that strict templates demand. Returns false if they were in it.
pub(super) fn alternate(body: &mut Object<'_>) -> bool {
    let Some(messages) = super::messages(body) else { return false };
    let mut is_changed = false;
    let mut ordered: Vec<Value<'_>> = Vec::with_capacity(messages.len());
    for mut message in messages.drain(..) {
        let is_system = matches!(role(&message), "system" | "developer");
        if is_system && ordered.iter().any(|before| !matches!(role(before), "system" | "developer")) {
            remind(&mut message);
            is_changed = true;
        }
        is_changed |= append(&mut ordered, message);
    }
    *messages = ordered;
    is_changed
}

/// Appends a message in the order that strict templates demand. Returns false if nothing was in the way.
fn append<'a>(ordered: &mut Vec<Value<'a>>, message: Value<'a>) -> bool {
    let said = |role: &'static str, text: &'static str| {
        Value::object([("role", role.into()), ("content", text.into())])
    };
    let last = ordered.last_mut();
    let last_role = last.as_ref().map_or("", |last| role(last));
    match (last_role, role(&message)) {
        ("system" | "developer", "system" | "developer") | ("user", "user") => merge(last, message),
        ("assistant", "assistant") if last.as_ref().is_some_and(|last| !has_calls(last)) => {
            merge(last, message)
        }
        ("tool", "user") if is_reminder(&message) => merge(last, message),
        ("tool", "user") => {
            ordered.push(said("assistant", BRIDGE));
            ordered.push(message);
        }
        ("" | "system" | "developer", "assistant") => {
            ordered.push(said("user", BEGINNING));
            ordered.push(message);
        }
        _ => {
            ordered.push(message);
            return false;
        }
    }
    true
}

/// True if the content is nothing but texts that the client adds for the model.
fn is_reminder(message: &Value<'_>) -> bool {
    let text = message.get("content").and_then(Value::as_str).unwrap_or_default().trim();
    text.starts_with(REMINDER.0) && text.ends_with(REMINDER.1)
}

/// Makes a system message one of the user.
fn remind(message: &mut Value<'_>) {
    let is_marked = is_reminder(message);
    let Some(message) = message.as_object_mut() else { return };
    message.set("role", "user");
    join_texts_of(message);
    if let (false, Some(Value::String(text))) = (is_marked, message.get_mut("content")) {
        *text = format!("{}\n{text}\n{}", REMINDER.0, REMINDER.1).into();
    }
}

/// Appends the content, the reasoning and the calls of a message to those of the one before it.
fn merge<'a>(before: Option<&mut Value<'a>>, message: Value<'a>) {
    let (Some(before), Value::Object(mut message)) = (before.and_then(Value::as_object_mut), message) else {
        return;
    };
    let content = message.remove("content").unwrap_or_default();
    match before.get_mut("content") {
        Some(own) => join(own, content),
        None => before.set("content", content),
    }
    for key in ["reasoning", "reasoning_content"] {
        if let (Some(reasoning), Some(own)) = (message.remove(key), before.get_mut(key)) {
            join(own, reasoning);
        }
    }
    if let Some(calls) = message.remove("tool_calls") {
        before.set("tool_calls", calls);
    }
}

/// Joins two contents: texts to one text, else the parts of both to one list.
fn join<'a>(own: &mut Value<'a>, other: Value<'a>) {
    let is_empty = |content: &Value<'_>| content.is_null() || content.as_str() == Some("");
    if is_empty(&other) {
        return;
    }
    if is_empty(own) {
        *own = other;
        return;
    }
    if let (Value::String(own), Value::String(other)) = (&mut *own, &other) {
        let own = own.to_mut();
        own.push_str("\n\n");
        own.push_str(other);
        return;
    }
    let parts = |content: Value<'a>| match content {
        Value::Array(parts) => parts.into_vec(),
        text => vec![Value::object([("type", "text".into()), ("text", text)])],
    };
    let mut joined = parts(std::mem::take(own));
    joined.extend(parts(other));
    *own = joined.into();
}

/// Appends a paragraph to the content of a message.
pub(super) fn append_text(message: &mut Object<'_>, text: String) {
    match message.get_mut("content") {
        Some(content) => join(content, text.into()),
        None => message.set("content", text),
    }
}

/// Makes a content that is a list of texts one text. Returns false if it is something else.
pub(super) fn join_texts(content: &mut Value<'_>) -> bool {
    let Some(parts) = content.as_array() else { return false };
    let text = |part: &Value<'_>| part.get("text").and_then(Value::as_str).map(str::to_string);
    let Some(texts) = parts.iter().map(text).collect::<Option<Vec<_>>>() else { return false };
    *content = texts.join("\n\n").into();
    true
}

fn join_texts_of(message: &mut Object<'_>) -> bool {
    message.get_mut("content").is_some_and(join_texts)
}

/// Makes every content that is a list of texts one text.
pub(super) fn string_content(body: &mut Object<'_>) -> bool {
    let mut is_changed = false;
    for message in super::messages(body).into_iter().flatten() {
        if message.get("content").and_then(Value::as_array).is_some() {
            is_changed |= message.as_object_mut().is_some_and(join_texts_of);
        }
    }
    is_changed
}

/// Makes every content that is null an empty text.
pub(super) fn no_null_content(body: &mut Object<'_>) -> bool {
    let mut is_changed = false;
    for message in super::messages(body).into_iter().flatten() {
        if message.get("content").is_none_or(Value::is_null)
            && let Some(message) = message.as_object_mut()
        {
            message.set("content", "");
            is_changed = true;
        }
    }
    is_changed
}

/// Gives each answer with calls its reasoning as `reasoning_content`: servers that demand it refuse an empty one.
pub(super) fn reasoning_content(body: &mut Object<'_>) -> bool {
    let mut is_changed = false;
    for message in super::messages(body).into_iter().flatten() {
        let told = message.get("reasoning_content").and_then(Value::as_str).unwrap_or_default();
        if role(message) == "assistant"
            && has_calls(message)
            && told.is_empty()
            && let Some(message) = message.as_object_mut()
        {
            let own =
                message.remove("reasoning").filter(|own| own.as_str().is_some_and(|own| !own.is_empty()));
            message.set("reasoning_content", own.unwrap_or_else(|| " ".into()));
            is_changed = true;
        }
    }
    is_changed
}

/// Puts the system message before the text of the first user message.
pub(super) fn no_system(body: &mut Object<'_>) -> bool {
    let Some(messages) = super::messages(body) else { return false };
    if !messages.first().is_some_and(|first| matches!(role(first), "system" | "developer")) {
        return false;
    }
    let mut system = messages.remove(0);
    if let Some(system) = system.as_object_mut() {
        system.set("role", "user");
    }
    if messages.first().is_some_and(|first| role(first) == "user") {
        merge(Some(&mut system), messages.remove(0));
    }
    messages.insert(0, system);
    true
}

/// Gives the system message this role.
pub(super) fn system_role(body: &mut Object<'_>, wanted: &'static str) -> bool {
    let mut is_changed = false;
    for message in super::messages(body).into_iter().flatten() {
        let is_other = matches!(role(message), "system" | "developer") && role(message) != wanted;
        if let (true, Some(message)) = (is_other, message.as_object_mut()) {
            message.set("role", wanted);
            is_changed = true;
        }
    }
    is_changed
}

/// Splits an answer with several calls into answers with one call each, and puts each result behind its call.
pub(super) fn single_calls(body: &mut Object<'_>) -> bool {
    let Some(messages) = super::messages(body) else { return false };
    let mut is_changed = false;
    let mut single = Vec::with_capacity(messages.len());
    let mut rest = messages.drain(..).peekable();
    while let Some(mut message) = rest.next() {
        let count = message.get("tool_calls").and_then(Value::as_array).map_or(0, <[Value<'_>]>::len);
        if count < 2 {
            single.push(message);
            continue;
        }
        is_changed = true;
        let calls = message.as_object_mut().and_then(|message| message.remove("tool_calls"));
        let Some(Value::Array(calls)) = calls else { continue };
        let mut first = Some(message);
        for call in calls.into_vec() {
            let mut answer = first
                .take()
                .unwrap_or_else(|| Value::object([("role", "assistant".into()), ("content", "".into())]));
            if let Some(answer) = answer.as_object_mut() {
                answer.push("tool_calls", vec![call]);
            }
            single.push(answer);
            // Results stand behind their calls, in the same order (docs/translation.md, B).
            single.extend(rest.next_if(|next| role(next) == "tool"));
        }
    }
    drop(rest);
    *messages = single;
    is_changed
}

/// Puts the text of an answer with calls into an answer of its own, before the calls.
pub(super) fn calls_alone(body: &mut Object<'_>) -> bool {
    let Some(messages) = super::messages(body) else { return false };
    let mut is_changed = false;
    let mut alone = Vec::with_capacity(messages.len());
    for mut message in messages.drain(..) {
        let has_text = message.get("content").and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        if has_text
            && has_calls(&message)
            && let Some(calls) = message.as_object_mut()
        {
            let text = std::mem::replace(calls.get_mut("content").unwrap_or(&mut Value::Null), "".into());
            alone.push(Value::object([("role", "assistant".into()), ("content", text)]));
            is_changed = true;
        }
        alone.push(message);
    }
    *messages = alone;
    is_changed
}

#[cfg(test)]
mod tests {
    use crate::openai::Repair;

    use super::super::tests::repaired;
    use super::*;

    const CALL: &str = r#"{"id":"a","type":"function","function":{"name":"Run","arguments":"{}"}}"#;

    /// Messages of these roles and contents; `calls` is an answer with one call.
    fn chat(messages: &[(&str, &str)]) -> String {
        let message = |(role, text): &(&str, &str)| match *role {
            "calls" => format!(r#"{{"role":"assistant","content":"{text}","tool_calls":[{CALL}]}}"#),
            "tool" => format!(r#"{{"role":"tool","tool_call_id":"a","content":"{text}"}}"#),
            role => format!(r#"{{"role":"{role}","content":"{text}"}}"#),
        };
        format!(r#"{{"messages":[{}]}}"#, messages.iter().map(message).collect::<Vec<_>>().join(","))
    }

    #[track_caller]
    fn check(repair: &Repair, before: &[(&str, &str)], after: &[(&str, &str)]) {
        assert_eq!(repaired(repair, &chat(before)), (chat(after), before != after));
    }

    #[test]
    fn answers_with_calls_get_reasoning() {
        let body = |reasoning: [&str; 3]| {
            let [own, blank, kept] = reasoning;
            let calls = format!(r#""tool_calls":[{CALL}]"#);
            format!(
                r#"{{"messages":[{{"role":"user"}},{{"role":"assistant","content":"a"}},{{"role":"assistant",{calls}{own}}},{{"role":"assistant",{calls}{blank}}},{{"role":"assistant",{calls}{kept}}}]}}"#
            )
        };
        let kept = r#","reasoning_content":"k""#;
        let before = body([r#","reasoning":"r""#, "", kept]);
        let after = body([r#","reasoning_content":"r""#, r#","reasoning_content":" ""#, kept]);
        assert_eq!(repaired(&Repair::ReasoningContent, &before), (after, true));
    }

    #[test]
    fn a_user_behind_a_tool_is_answered_first() {
        let begin = [("system", "s"), ("user", "u"), ("calls", ""), ("tool", "r")];
        let with = |more: &[(&'static str, &'static str)]| [&begin[..], more].concat();
        check(&Repair::Alternation, &with(&[]), &with(&[]));
        check(
            &Repair::Alternation,
            &with(&[("user", "stop")]),
            &with(&[("assistant", BRIDGE), ("user", "stop")]),
        );
        check(
            &Repair::Alternation,
            &with(&[("calls", ""), ("tool", "r")]),
            &with(&[("calls", ""), ("tool", "r")]),
        );
    }

    #[test]
    fn a_reminder_behind_a_tool_belongs_to_the_result() {
        let reminder = "<system-reminder>be brief</system-reminder>";
        let result = format!("r\\n\\n{reminder}");
        check(
            &Repair::Alternation,
            &[("user", "u"), ("calls", ""), ("tool", "r"), ("user", reminder), ("assistant", "a")],
            &[("user", "u"), ("calls", ""), ("tool", &result), ("assistant", "a")],
        );
    }

    #[test]
    fn neighbours_of_one_role_are_one_message() {
        check(
            &Repair::Alternation,
            &[
                ("system", "s"),
                ("system", "t"),
                ("user", "u"),
                ("user", "v"),
                ("assistant", "a"),
                ("calls", "b"),
            ],
            &[("system", "s\\n\\nt"), ("user", "u\\n\\nv"), ("calls", "a\\n\\nb")],
        );
        check(
            &Repair::Alternation,
            &[("assistant", "a"), ("system", "s"), ("user", "u")],
            &[
                ("user", BEGINNING),
                ("assistant", "a"),
                ("user", "<system-reminder>\\ns\\n</system-reminder>\\n\\nu"),
            ],
        );
    }

    #[test]
    fn images_stay_when_messages_are_merged() {
        let image = r#"{"type":"image_url","image_url":{"url":"data:,"}}"#;
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":"a"}},{{"role":"user","content":[{image}]}}]}}"#
        );
        let expected =
            format!(r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"a"}},{image}]}}]}}"#);
        assert_eq!(repaired(&Repair::Alternation, &body), (expected, true));
    }

    #[test]
    fn a_system_message_becomes_the_users_or_the_developers() {
        check(&Repair::NoSystem, &[("system", "s"), ("user", "u")], &[("user", "s\\n\\nu")]);
        check(&Repair::NoSystem, &[("user", "u")], &[("user", "u")]);
        check(
            &Repair::SystemRole("developer"),
            &[("system", "s"), ("user", "u")],
            &[("developer", "s"), ("user", "u")],
        );
    }

    #[test]
    fn calls_stand_alone() {
        check(
            &Repair::CallsAlone,
            &[("calls", "text"), ("tool", "r")],
            &[("assistant", "text"), ("calls", ""), ("tool", "r")],
        );
        let two = chat(&[("calls", "x"), ("tool", "1"), ("tool", "2"), ("user", "u")])
            .replace(CALL, &format!("{CALL},{CALL}"));
        let one = chat(&[("calls", "x"), ("tool", "1"), ("calls", ""), ("tool", "2"), ("user", "u")]);
        assert_eq!(repaired(&Repair::SingleCalls, &two), (one, true));
    }

    #[test]
    fn contents_are_strings() {
        let (null, text) = (r#"{"messages":[{"content":null}]}"#, r#"{"messages":[{"content":""}]}"#);
        assert_eq!(repaired(&Repair::NoNullContent, null), (text.to_string(), true));
        let parts = r#"{"messages":[{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#;
        assert_eq!(
            repaired(&Repair::StringContent, parts),
            (r#"{"messages":[{"content":"a\n\nb"}]}"#.to_string(), true)
        );
    }
}
