//! The result of one call into Lua: the value that a hook returned, or the message of its error.

use crate::json::Value;

/// The value that a hook returned.
pub(super) enum Returned<'a> {
    /// Nothing, or nil.
    Nothing,
    /// `false`.
    False,
    /// Its own first argument, changed or not.
    Subject,
    /// A table or a string.
    Value(Value<'a>),
    /// Anything else: the name of its type.
    Other(&'static str),
}

/// The message of an error of Lua, without mlua's prefix for the kind of error.
pub(super) fn message_of(error: &mlua::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("runtime error: ") {
        Some(message) => message.to_owned(),
        None => text,
    }
}
