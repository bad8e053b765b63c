//! Lua's syntax for names, strings, patterns and plain values.

use crate::litellm::sources::REFERENCE;
use crate::litellm::yaml::{Content, Node, Scalar};

const RESERVED: [&str; 22] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !RESERVED.contains(&text)
}

/// A string literal.
pub(in crate::litellm) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A key in a table constructor.
pub(in crate::litellm) fn key(name: &str) -> String {
    if is_name(name) { name.to_owned() } else { format!("[{}]", quote(name)) }
}

/// `table.name`, or `table["name"]` if the name needs it.
pub(super) fn index(table: &str, name: &str) -> String {
    if is_name(name) { format!("{table}.{name}") } else { format!("{table}[{}]", quote(name)) }
}

/// A name with `*` as a Lua pattern.
pub(super) fn pattern(name: &str) -> String {
    let mut out = String::from("^");
    for c in name.chars() {
        match c {
            '*' => out.push_str(".*"),
            c if c.is_ascii_punctuation() => {
                out.push('%');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push('$');
    out
}

/// A value of the YAML as a Lua expression.
pub(super) fn value(node: &Node) -> String {
    match &node.content {
        Content::List(items) if items.is_empty() => "json.array()".to_owned(),
        Content::List(items) => {
            let written: Vec<String> = items.iter().map(value).collect();
            match items.iter().any(is_reference) {
                true => format!("list({})", written.join(", ")),
                false => format!("{{ {} }}", written.join(", ")),
            }
        }
        Content::Map(entries) if entries.is_empty() => "{}".to_owned(),
        Content::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(name, node)| format!("{} = {}", key(name), value(node))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Content::Scalar { text, .. } => match node.scalar() {
            Some(Scalar::Bool(b)) => b.to_string(),
            Some(Scalar::Int(n)) => n.to_string(),
            Some(Scalar::Float(n)) => format!("{n:?}"),
            Some(Scalar::Null) => "json.null".to_owned(),
            Some(Scalar::Text(_)) | None => match text.strip_prefix(REFERENCE) {
                Some(name) => format!("env {}", quote(name)),
                None => quote(text),
            },
        },
    }
}

/// True for a reference to an environment variable.
pub(super) fn is_reference(node: &Node) -> bool {
    matches!(node.scalar(), Some(Scalar::Text(text)) if text.starts_with(REFERENCE))
}

/// True if the value has a list with references.
pub(super) fn needs_list(node: &Node) -> bool {
    match &node.content {
        Content::List(items) => items.iter().any(|item| is_reference(item) || needs_list(item)),
        Content::Map(entries) => entries.iter().any(|(_, item)| needs_list(item)),
        Content::Scalar { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_names() {
        assert_eq!(quote("a\"b\\c\nd\u{1}é"), "\"a\\\"b\\\\c\\nd\\u{1}é\"");
        assert_eq!(key("spark"), "spark");
        assert_eq!(key("end"), "[\"end\"]");
        assert_eq!(key("1a"), "[\"1a\"]");
        assert_eq!(index("body", "top-k"), "body[\"top-k\"]");
        assert_eq!(pattern("claude-*.x"), "^claude%-.*%.x$");
    }
}
