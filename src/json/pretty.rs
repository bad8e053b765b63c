//! JSON with line breaks, for files that people read and change.

use super::{Value, write_str};

/// Appends the value, each entry on a line of its own, two blanks deeper than what it is in. `depth` is the depth of the
/// value itself.
pub(super) fn write(value: &Value<'_>, depth: usize, out: &mut Vec<u8>) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                begin_entry(i > 0, depth + 1, out);
                write(item, depth + 1, out);
            }
            break_line(depth, out);
            out.push(b']');
        }
        Value::Object(object) if !object.is_empty() => {
            out.push(b'{');
            for (i, (key, value)) in object.iter().enumerate() {
                begin_entry(i > 0, depth + 1, out);
                write_str(key, out);
                out.extend_from_slice(b": ");
                write(value, depth + 1, out);
            }
            break_line(depth, out);
            out.push(b'}');
        }
        _ => value.write(out),
    }
}

fn begin_entry(is_later: bool, depth: usize, out: &mut Vec<u8>) {
    if is_later {
        out.push(b',');
    }
    break_line(depth, out);
}

fn break_line(depth: usize, out: &mut Vec<u8>) {
    out.push(b'\n');
    out.resize(out.len() + 2 * depth, b' ');
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn entries_stand_on_lines_of_their_own() {
        let text =
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": null\n    }\n  ],\n  \"c\": {},\n  \"d\": []\n}";
        let mut bytes = text.as_bytes().to_vec();
        assert_eq!(parse(&mut bytes).unwrap().to_pretty_json(), text);
    }
}
