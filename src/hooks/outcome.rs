//! The result of one call into Lua: the value that a hook returned, or the message of its error.

use std::borrow::Cow;

use super::hints::with_hint;
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

/// The name of the prelude's chunk, as Lua's messages and tracebacks begin with it.
pub(super) const PRELUDE: &str = "sparkgap";

/// The message of an error of Lua, without mlua's prefix for the kind of error; a long one is cut.
pub(super) fn message_of(error: &mlua::Error) -> String {
    let text = error.to_string();
    let message = text.strip_prefix("runtime error: ").unwrap_or(&text);
    let message = at_the_caller(message).map_or(Cow::Borrowed(message), Cow::Owned);
    let message = with_hint(&message).map_or(message, Cow::Owned);
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", message.get(..end).unwrap_or_default()),
        None => message.into_owned(),
    }
}

/// An error that was raised in one of the prelude's functions, with its traceback: begins with the owner's line and the
/// function that the line calls, in place of a line of the prelude. `None` for other errors. A tail call (`return f()`)
/// leaves no line of the owner's, so then only the function is named.
fn at_the_caller(message: &str) -> Option<String> {
    let (head, traceback) = message.split_once("\nstack traceback:\n")?;
    let (line, text) = head.strip_prefix(PRELUDE)?.strip_prefix(':')?.split_once(": ")?;
    line.parse::<u32>().ok()?;
    let lines = || traceback.lines().map(str::trim_start);
    let is_inside = |line: &str| line.strip_prefix(PRELUDE).is_some_and(|rest| rest.starts_with(':'));
    let called = lines().filter(|line| is_inside(line)).find_map(|line| line.split_once(" in function '"));
    let called = called.and_then(|(_, name)| name.strip_suffix('\''));
    let called = called.map_or(String::new(), |name| format!("{name}: "));
    let place = lines()
        .filter(|line| !is_inside(line) && !line.starts_with(['[', '(']))
        .find_map(|line| line.split_once(": in "))
        .map_or(String::new(), |(place, _)| format!("{place}: "));
    // Lua names the wrapped function by the variable that holds it.
    let text = text.replace(" to 'original'", "");
    Some(format!("{place}{called}{text}\nstack traceback:\n{traceback}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_inside_the_prelude_is_told_at_the_callers_line() {
        let told = |text: &str| {
            let message = message_of(&mlua::Error::runtime(text));
            message.split('\n').next().unwrap_or_default().to_owned()
        };
        let in_prelude = "sparkgap:245: bad argument #1 to 'original' (string expected, got table)";
        let traceback =
            "\nstack traceback:\n\t[C]: in upvalue 'original'\n\tsparkgap:245: in function 'string.lower'\n";
        let own = "\t10-a.lua:7: in local 'f'\n\t10-a.lua:9: in function <10-a.lua:8>";
        let short = "bad argument #1 (string expected, got table)";
        assert_eq!(
            told(&format!("{in_prelude}{traceback}{own}")),
            format!("10-a.lua:7: string.lower: {short}")
        );
        assert_eq!(
            told(&format!("{in_prelude}{traceback}\t(...tail calls...)")),
            format!("string.lower: {short}")
        );
        for other in
            ["10-a.lua:7: sparkgap:1: mine", "sparkgap: mine", "sparkgap:x: mine", "sparkgap.lua:7: mine"]
        {
            assert_eq!(told(&format!("{other}{traceback}{own}")), other);
        }
        assert_eq!(told("sparkgap:245: no traceback"), "sparkgap:245: no traceback");
    }
}
