//! The arguments of a call that was found in a text: gives them the types that the schema wants, and decides whether they
//! fit it.

use crate::json;
use crate::rescue::{FoundArguments, FoundText};

use super::schema::{Schema, Types};
use super::{Arguments, Ending, Outcome, is_legal_value};

/// The arguments as one JSON object. `None` if they do not fit the schema: then the text is not taken for a call. Without
/// `is_coercing`, values that the model wrote as JSON keep their types; texts, which have none, always get the schema's.
pub(in crate::translate) fn fit(
    found: &FoundArguments,
    schema: Option<&Schema>,
    is_coercing: bool,
) -> Option<String> {
    let object = match found {
        FoundArguments::Json(text) => coerce(text, schema.filter(|_| is_coercing))?,
        FoundArguments::Texts(texts) => {
            let mut object = Vec::with_capacity(2 + texts.len());
            object.push(b'{');
            for (index, (key, text)) in texts.iter().enumerate() {
                // The second of two values would hide the first one.
                if texts.get(..index)?.iter().any(|(earlier, _)| earlier == key) {
                    return None;
                }
                if index > 0 {
                    object.push(b',');
                }
                json::write_str(key, &mut object);
                object.push(b':');
                let types = schema.map_or(Types::ALL, |schema| schema.types_of_name(key));
                push_value(text, types, &mut object)?;
            }
            object.push(b'}');
            String::from_utf8(object).ok()?
        }
    };
    let mut bytes = object.as_bytes().to_vec();
    let value = json::parse(&mut bytes).ok()?;
    schema
        .is_none_or(|schema| value.as_object().is_some_and(|object| schema.admits(object)))
        .then_some(object)
}

/// Reads a JSON object as the arguments of a streamed call are read, with the same repairs.
fn coerce(text: &str, schema: Option<&Schema>) -> Option<String> {
    let mut arguments = Arguments::new(schema.cloned());
    let mut object = String::with_capacity(text.len());
    arguments.push(text, &mut object);
    if arguments.ending(false, &mut object) != Ending::Whole {
        return None;
    }
    match arguments.finish(false, &mut object) {
        Outcome::Complete | Outcome::Repaired => Some(object),
        Outcome::Empty => Some("{}".to_owned()),
        Outcome::Raw | Outcome::Truncated => None,
    }
}

/// Writes the value of one argument. A text is a string where the schema allows one; where it says nothing, only an
/// array or an object is taken for JSON.
fn push_value(text: &FoundText, types: Types, object: &mut Vec<u8>) -> Option<()> {
    match text {
        FoundText::Json(json) => object.extend_from_slice(json.as_bytes()),
        FoundText::Exact(text) => json::write_str(text, object),
        FoundText::Typed(text) if types == Types::ALL => {
            let trimmed = text.trim();
            if trimmed.starts_with(['{', '[']) && is_legal_value(trimmed) {
                object.extend_from_slice(trimmed.as_bytes());
            } else {
                json::write_str(text, object);
            }
        }
        FoundText::Typed(text) if types.admit_string() => json::write_str(text, object),
        FoundText::Typed(text) => object.extend_from_slice(types.value_in(text)?.as_bytes()),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Option<Schema> {
        let mut text = br#"{"type":"object","required":["path"],"additionalProperties":false,"properties":{
            "path":{"type":"string"},"line":{"type":"integer"},"ratio":{"type":"number"},"all":{"type":"boolean"},
            "list":{"type":"array"},"any":{}}}"#
            .to_vec();
        Schema::from_json(&json::parse(&mut text).unwrap())
    }

    fn texts(texts: &[(&str, &str)]) -> FoundArguments {
        let typed = |text: &str| FoundText::Typed(text.to_owned());
        FoundArguments::Texts(texts.iter().map(|(key, text)| (key.to_string(), typed(text))).collect())
    }

    #[test]
    fn texts_get_the_types_of_the_schema() {
        for (given, expected) in [
            (&[("path", "5"), ("line", "5")][..], Some(r#"{"path":"5","line":5}"#)),
            (&[("path", "a\n\"b\""), ("all", "True")], Some(r#"{"path":"a\n\"b\"","all":true}"#)),
            (&[("path", ""), ("list", "[1, {\"a\": 2}]")], Some(r#"{"path":"","list":[1, {"a": 2}]}"#)),
            (&[("path", ""), ("any", "[1]")], Some(r#"{"path":"","any":[1]}"#)),
            (&[("path", ""), ("any", "1")], Some(r#"{"path":"","any":"1"}"#)),
            (&[("path", ""), ("line", "five")], None),
            (&[("path", ""), ("line", "1.5")], None),
            (&[("path", ""), ("list", "[1")], None),
            (&[("line", "5")], None),
            (&[("path", "a"), ("path", "b")], None),
            (&[("path", "a"), ("other", "b")], None),
        ] {
            assert_eq!(fit(&texts(given), schema().as_ref(), true).as_deref(), expected, "{given:?}");
        }
    }

    #[test]
    fn objects_are_coerced_and_checked() {
        for (given, expected) in [
            (r#"{"path": "a", "line": "5"}"#, Some(r#"{"path": "a", "line": 5}"#)),
            (r#"{"path": 5}"#, Some(r#"{"path": "5"}"#)),
            (r#"{"path":"a","ratio":5,"line":2.0}"#, Some(r#"{"path":"a","ratio":5,"line":2.0}"#)),
            (r#"{"path":"a","line":[]}"#, None),
            (r#"{"path":"a","x":1}"#, None),
            (r#"{"line":1}"#, None),
            ("{}", None),
            ("[1]", None),
            (r#"{"path":"a""#, None),
        ] {
            let found = FoundArguments::Json(given.to_owned());
            assert_eq!(fit(&found, schema().as_ref(), true).as_deref(), expected, "{given}");
        }
        let text = FoundArguments::Json(r#"{"path":"a","line":"5"}"#.to_owned());
        assert_eq!(fit(&text, schema().as_ref(), false), None);
        let whole = FoundArguments::Json(r#"{"path":"a","line":5}"#.to_owned());
        assert_eq!(fit(&whole, schema().as_ref(), false).as_deref(), Some(r#"{"path":"a","line":5}"#));
        let empty = FoundArguments::Json("{}".to_owned());
        assert_eq!(fit(&empty, None, true).as_deref(), Some("{}"));
        assert_eq!(fit(&texts(&[]), None, true).as_deref(), Some("{}"));
    }
}
