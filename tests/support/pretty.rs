//! JSON for files that people read: keeps the order of keys, and keeps short values on one line.

use sparkgap::json::{self, Value};

/// The longest line, in characters: a value that fits stays on one line.
const LINE_MAX: usize = 100;

/// The same JSON without insignificant space, keys in their order.
pub fn compact(text: &[u8]) -> String {
    let mut bytes = text.to_vec();
    match json::parse(&mut bytes) {
        Ok(value) => value.to_json(),
        Err(error) => panic!("{error}: {}", String::from_utf8_lossy(text)),
    }
}

/// The same JSON over several lines.
pub fn pretty(text: &[u8]) -> String {
    let mut bytes = text.to_vec();
    let value = json::parse(&mut bytes).unwrap_or_else(|error| panic!("{error}"));
    let mut out = String::new();
    write(&value, 0, &mut out);
    out.push('\n');
    out
}

fn write(value: &Value<'_>, indent: usize, out: &mut String) {
    let line = value.to_json();
    if indent > 0 && line.len() + indent <= LINE_MAX {
        return out.push_str(&line);
    }
    let inner = indent + 2;
    match value {
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ",\n" } else { "\n" });
                out.push_str(&" ".repeat(inner));
                write(item, inner, out);
            }
            out.push_str(&format!("\n{}]", " ".repeat(indent)));
        }
        Value::Object(object) if !object.is_empty() => {
            out.push('{');
            for (i, (key, value)) in object.iter().enumerate() {
                out.push_str(if i > 0 { ",\n" } else { "\n" });
                out.push_str(&" ".repeat(inner));
                out.push_str(&Value::from(key).to_json());
                out.push_str(": ");
                write(value, inner, out);
            }
            out.push_str(&format!("\n{}}}", " ".repeat(indent)));
        }
        _ => out.push_str(&line),
    }
}
