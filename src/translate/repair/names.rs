//! Ids of calls and names of tools in the shape that a server demands.
//!
//! The same id or name always becomes the same one, without any state, so a conversation keeps them through all turns. A
//! server's own ids have its shape already, go to the client as they are, and come back as they were.

use std::borrow::Cow;

use crate::hash::Fnv;
use crate::json::{Object, Value};

use super::super::tools::strict_name;

/// The length of an id that Mistral's models take.
const ID_SIZE: usize = 9;

/// The digits of an id.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The id itself if it has the shape, else nine digits of its hash: 53 bits.
fn short_id(id: &str) -> Option<String> {
    if id.len() == ID_SIZE && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let mut left = Fnv::EMPTY.push(id.as_bytes()).mixed();
    let mut digit = || {
        let digit = usize::try_from(left % 62).unwrap_or_default();
        left /= 62;
        DIGITS.get(digit).map_or('0', |digit| char::from(*digit))
    };
    Some((0..ID_SIZE).map(|_| digit()).collect())
}

/// Gives calls and results ids of nine letters and digits.
pub(super) fn call_ids(body: &mut Object<'_>) -> bool {
    let mut is_changed = false;
    let mut shorten = |object: &mut Object<'_>, key: &'static str| {
        if let Some(short) = object.get(key).and_then(Value::as_str).and_then(short_id) {
            object.set(key, short);
            is_changed = true;
        }
    };
    for message in super::messages(body).into_iter().flatten() {
        let Some(message) = message.as_object_mut() else { continue };
        shorten(message, "tool_call_id");
        each_call(message, |call| shorten(call, "id"));
    }
    is_changed
}

/// Gives tools, choices and calls names of at most 64 letters and digits.
pub(super) fn tool_names(body: &mut Object<'_>) -> bool {
    let mut is_changed = false;
    let mut shorten = |function: Option<&mut Value<'_>>| {
        let Some(function) = function.and_then(Value::as_object_mut) else { return };
        let name = function.get("name").and_then(Value::as_str);
        let short = name.and_then(|name| match strict_name(name) {
            Cow::Owned(short) => Some(short),
            Cow::Borrowed(_) => None,
        });
        if let Some(short) = short {
            function.set("name", short);
            is_changed = true;
        }
    };
    if let Some(Value::Array(tools)) = body.get_mut("tools") {
        for tool in tools.to_mut() {
            shorten(tool.as_object_mut().and_then(|tool| tool.get_mut("function")));
        }
    }
    let choice = body.get_mut("tool_choice").and_then(Value::as_object_mut);
    shorten(choice.and_then(|choice| choice.get_mut("function")));
    for message in super::messages(body).into_iter().flatten() {
        if let Some(message) = message.as_object_mut() {
            each_call(message, |call| shorten(call.get_mut("function")));
        }
    }
    is_changed
}

fn each_call<'a>(message: &mut Object<'a>, mut change: impl FnMut(&mut Object<'a>)) {
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        calls.to_mut().iter_mut().filter_map(Value::as_object_mut).for_each(&mut change);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::openai::Repair;

    use super::super::tests::repaired;
    use super::*;

    #[test]
    fn ids_have_nine_letters_and_digits_and_stay_the_same() {
        let mut seen = HashSet::new();
        for id in (0..20_000).map(|i| format!("call_{i}")) {
            let short = short_id(&id).unwrap();
            assert!(short.len() == 9 && short.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{short}");
            assert_eq!(short_id(&short), None);
            assert!(seen.insert(short), "{id}");
        }
        assert_eq!(short_id("aB3dE6gH9"), None);
        assert_eq!(short_id("toolu_01AbCdEfGhIjKlMnOpQrStUv"), short_id("toolu_01AbCdEfGhIjKlMnOpQrStUv"));
    }

    #[test]
    fn a_call_and_its_result_keep_one_id() {
        let body = r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"toolu_1"}]},{"role":"tool","tool_call_id":"toolu_1"}]}"#;
        let (told, _) = repaired(&Repair::CallIds, body);
        assert_eq!(told.matches(&short_id("toolu_1").unwrap()).count(), 2, "{told}");
    }

    #[test]
    fn a_tool_and_its_calls_keep_one_name() {
        let long = "mcp__".repeat(20);
        let function = format!(r#"{{"function":{{"name":"{long}"}}}}"#);
        let body = format!(
            r#"{{"tools":[{function}],"tool_choice":{function},"messages":[{{"tool_calls":[{function}]}}]}}"#
        );
        let (told, _) = repaired(&Repair::ToolNames, &body);
        assert_eq!(told.matches(&*strict_name(&long)).count(), 3, "{told}");
        assert!(!told.contains(&long));
    }
}
