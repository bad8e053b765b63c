//! The parts of an error's text that repeat the request, or list all that the server knows. They are cut before the text is
//! read: a conversation may speak of schemas, images and context windows, too.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex_lite::Regex;

use super::overflow::compile;

/// The beginnings of such parts: Fireworks; validators in Python, as text and as JSON; serde; Jackson; llama.cpp.
const BEGINNINGS: &str = r#", value: |['"]input['"]: ?|input_value=|unknown field [`'"][^`'"]{1,64}[`'"], expected (?:one of )?|known properties: |; messages = "#;

static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| compile(BEGINNINGS));

/// The text without what follows each of the beginnings, of which a field's name is kept. Takes linear time.
pub(super) fn without_echo(text: &str) -> Cow<'_, str> {
    let Some(pattern) = PATTERN.as_ref() else { return Cow::Borrowed(text) };
    let mut kept = String::new();
    let mut rest = text;
    while let Some(found) = pattern.find(rest) {
        kept.push_str(rest.get(..found.end()).unwrap_or_default());
        let echo = rest.get(found.end()..).unwrap_or_default();
        let is_list = found.as_str().ends_with("properties: ");
        let len = if is_list { echo.find(']').unwrap_or(echo.len()) } else { echo_len(echo) };
        rest = echo.get(len..).unwrap_or_default();
        kept.push('…');
    }
    if kept.is_empty() {
        return Cow::Borrowed(text);
    }
    kept.push_str(rest);
    Cow::Owned(kept)
}

/// The length of a quoted text, of a list or an object, of serde's list of names, or of a word.
fn echo_len(echo: &str) -> usize {
    let find = |c: char| echo.find(c).unwrap_or(echo.len());
    match echo.chars().next() {
        Some('`') => echo.find(" at line").unwrap_or_else(|| find('\n')),
        Some(quote @ ('\'' | '"')) => quoted_len(echo, quote),
        Some('[' | '{' | '(') => nested_len(echo),
        _ => echo.find([',', ';', ']', '}', ')', '\n']).unwrap_or(echo.len()),
    }
}

/// The length with both quotes. Some servers escape no quotes, so one counts only if the text cannot go on behind it.
fn quoted_len(echo: &str, quote: char) -> usize {
    let mut is_escaped = false;
    let mut characters = echo.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        if c == quote
            && !is_escaped
            && next.is_none_or(|next| matches!(next, ',' | ';' | ')' | ']' | '}' | '\n'))
        {
            return at + c.len_utf8();
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    echo.len()
}

/// The length up to the bracket that closes the first one. Brackets in quotes do not count.
fn nested_len(echo: &str) -> usize {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut is_escaped = false;
    for (at, c) in echo.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open && !is_escaped => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[' | '{' | '(') => depth += 1,
            (None, ']' | '}' | ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if quote.is_none() && depth == 0 {
            return at + c.len_utf8();
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    echo.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_are_cut_and_reasons_are_kept() {
        for (text, left) in [
            ("boom", "boom"),
            (
                "Invalid value: 'xhigh'. Supported values are: 'low'",
                "Invalid value: 'xhigh'. Supported values are: 'low'",
            ),
            (
                "no field: 'a', value: 'it's null'; no field: 'b', value: True",
                "no field: 'a', value: …; no field: 'b', value: …",
            ),
            ("[{'msg': 'no', 'input': {'a': ['}', \"]\"]}, 'x': 1}]", "[{'msg': 'no', 'input': …, 'x': 1}]"),
            (r#"{"input":"a \", b","x":1}"#, r#"{"input":…,"x":1}"#),
            ("[type=x, input_value='max', input_type=str]", "[type=x, input_value=…, input_type=str]"),
            (
                "unknown field `a`, expected one of `b`, `c` at line 1",
                "unknown field `a`, expected one of … at line 1",
            ),
            (
                "unknown variant `a`, expected one of `b`, `c`",
                "unknown variant `a`, expected one of `b`, `c`",
            ),
            ("(2 known properties: \"a\", \"b\"])", "(2 known properties: …])"),
            ("no; messages = [{\"a\":\"b\"", "no; messages = …"),
            ("no 'input': é", "no 'input': …"),
        ] {
            assert_eq!(without_echo(text), left);
        }
    }
}
