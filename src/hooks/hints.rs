//! Hints for the errors of Lua that beginners meet: habits of other languages, and libraries that hooks do not have.

/// A part of Lua's message, and the advice that is put behind it. The first that fits counts.
const HINTS: [(&str, &str); 17] = [
    (
        "(global 'require')",
        "hooks have no modules: put the functions into the same file, or share data by `shared`",
    ),
    ("(global 'io')", "hooks have no files: use `log`, `shared` and `json`, or start with --unsafe-hooks"),
    ("(field 'getenv')", "use env \"NAME\""),
    ("(field 'execute')", "hooks start no programs; --unsafe-hooks allows it"),
    ("(field 'popen')", "hooks start no programs; --unsafe-hooks allows it"),
    ("(global 'load')", "hooks have no load; --unsafe-hooks allows it"),
    ("(global 'dofile')", "name each file with --hooks, or put them into one folder"),
    ("(global 'coroutine')", "hooks have no coroutines"),
    ("(global 'null')", "null is json.null"),
    ("near '!'", "Lua writes `~=` for `!=`, and `not` for `!`"),
    ("near '&'", "Lua writes `and` for `&&`"),
    ("near '|'", "Lua writes `or` for `||`"),
    ("near '+'", "Lua has neither `+=` nor `++`: write x = x + 1"),
    ("near 'if'", "Lua writes `elseif` in one word"),
    ("near '{'", "Lua writes `then … end` and `do … end` for braces"),
    ("index a function value", "a function must be called: req.tool_names()"),
    ("length of a function value", "a function must be called: #req.tool_names()"),
];

/// The message with a hint, if there is one for it. Only its first line is looked at: the traceback names other lines.
pub(super) fn with_hint(message: &str) -> Option<String> {
    let (first, rest) = message.split_once('\n').map_or((message, None), |(first, rest)| (first, Some(rest)));
    let (_, hint) = HINTS.iter().find(|(part, _)| first.contains(part))?;
    let rest = rest.map_or(String::new(), |rest| format!("\n{rest}"));
    Some(format!("{first}; {hint}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_stands_behind_the_first_line() {
        let message = "a.lua:1: attempt to call a nil value (global 'require')\nstack traceback:\n\tnear '!'";
        let hinted = with_hint(message).unwrap();
        let first = hinted.lines().next().unwrap();
        assert!(first.ends_with("(global 'require'); hooks have no modules: put the functions into the same file, or share data by `shared`"), "{hinted}");
        assert!(hinted.ends_with("\nstack traceback:\n\tnear '!'"), "{hinted}");
        assert_eq!(with_hint("a.lua:1: no\nnear '!'"), None);
    }
}
