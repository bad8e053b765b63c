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

/// The longest message of an error of Lua, with its traceback, in characters. A hook may raise a text of any length.
const MESSAGE_CHARS_MAX: usize = 4096;

/// The message of an error of Lua, without mlua's prefix for the kind of error; a long one is cut.
pub(super) fn message_of(error: &mlua::Error) -> String {
    let text = error.to_string();
    let message = text.strip_prefix("runtime error: ").unwrap_or(&text);
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", message.get(..end).unwrap_or_default()),
        None => message.to_owned(),
    }
}
