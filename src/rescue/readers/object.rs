//! Calls as JSON objects: `{"name":…,"arguments":{…}}`, alone or in an array.

use super::steps::{END, Keep, Step};

/// One object.
pub(in super::super) static OBJECT: [Step; 1] = [Step::Json(Keep::Calls, b"{", END)];

/// An array of objects, or one object.
pub(in super::super) static ARRAY: [Step; 1] = [Step::Json(Keep::Calls, b"[{", END)];

/// The meaning of a member of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum CallKey {
    /// The tool's name.
    Name,
    /// The tool's name, or an object with the name and the arguments (OpenAI's form).
    Function,
    /// The arguments.
    Arguments,
    /// A member that says nothing about the call itself: an id, or `"type": "function"`.
    Other,
}

/// The meaning of a member of this name; `None` if a call has no such member, so that the object is something else.
pub(in super::super) fn call_key(key: &str) -> Option<CallKey> {
    Some(match key {
        "name" | "tool_name" | "tool" => CallKey::Name,
        "function" => CallKey::Function,
        "arguments" | "parameters" | "args" | "input" => CallKey::Arguments,
        "id" | "type" | "call_id" | "tool_call_id" => CallKey::Other,
        _ => return None,
    })
}
