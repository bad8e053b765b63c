//! Schemas that a server can compile: fewer keywords, or any object.

use crate::json::{Object, Value};

/// The keywords of a schema that grammars of few servers know. Without them a schema allows more, never less.
const RARE: [&str; 26] = [
    "pattern",
    "format",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minItems",
    "maxItems",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "minProperties",
    "maxProperties",
    "patternProperties",
    "propertyNames",
    "unevaluatedProperties",
    "unevaluatedItems",
    "dependentRequired",
    "dependentSchemas",
    "not",
    "if",
    "$schema",
];

/// The keywords that only mean something beside `if`.
const BESIDE_IF: [&str; 2] = ["then", "else"];

/// The keywords whose members are names of the owner's, not keywords.
const OF_NAMES: [&str; 3] = ["properties", "$defs", "definitions"];

/// The keywords whose value is data.
const OF_DATA: [&str; 5] = ["enum", "const", "default", "examples", "required"];

/// Leaves the rare keywords out of the schemas of all tools.
pub(super) fn plain(body: &mut Object<'_>) -> bool {
    let mut is_changed = false;
    each_tool(body, |_, schema| is_changed |= without_rare(schema));
    is_changed
}

/// Leaves the rare keywords out of the schema of the wanted format.
pub(super) fn plain_format(body: &mut Object<'_>) -> bool {
    json_schema(body).and_then(|format| format.get_mut("schema")).is_some_and(without_rare)
}

/// Allows any object as the input of the tool of this name, or of every tool.
pub(super) fn open(body: &mut Object<'_>, name: Option<&str>) -> bool {
    let mut is_changed = false;
    each_tool(body, |tool, schema| {
        let is_meant = name.is_none_or(|name| name == tool);
        if is_meant && schema.as_object().is_none_or(|schema| schema.len() > 1) {
            *schema = Value::object([("type", "object".into())]);
            is_changed = true;
        }
    });
    is_changed
}

/// Sends the wanted format without `strict`, with which a server refuses properties that are not required.
pub(super) fn loose_format(body: &mut Object<'_>) -> bool {
    let strict = json_schema(body).and_then(|format| format.get_mut("strict"));
    strict.is_some_and(|strict| std::mem::replace(strict, false.into()).as_bool() == Some(true))
}

/// Puts the wanted format into an instruction at the end of the last message.
pub(super) fn format_as_text(body: &mut Object<'_>) -> bool {
    let Some(format) = body.remove("response_format") else { return false };
    let schema = format.get("json_schema").and_then(|format| format.get("schema"));
    let text = match schema {
        Some(schema) => format!("Answer only with JSON that fits this schema: {}", schema.to_json()),
        None => "Answer only with JSON.".to_string(),
    };
    if let Some(messages) = super::messages(body) {
        match messages.last_mut().and_then(Value::as_object_mut) {
            Some(last) if last.get("role").and_then(Value::as_str) == Some("user") => {
                super::order::append_text(last, text);
            }
            _ => messages.push(Value::object([("role", "user".into()), ("content", text.into())])),
        }
    }
    true
}

/// The wanted format, if it is a schema.
fn json_schema<'b, 'a>(body: &'b mut Object<'a>) -> Option<&'b mut Object<'a>> {
    body.get_mut("response_format")?.as_object_mut()?.get_mut("json_schema")?.as_object_mut()
}

/// Calls `change` with each tool's name and schema.
fn each_tool<'a>(body: &mut Object<'a>, mut change: impl FnMut(&str, &mut Value<'a>)) {
    if let Some(Value::Array(tools)) = body.get_mut("tools") {
        for tool in tools.to_mut() {
            let function = tool.as_object_mut().and_then(|tool| tool.get_mut("function"));
            let Some(function) = function.and_then(Value::as_object_mut) else { continue };
            let name = function.get("name").and_then(Value::as_str).unwrap_or_default().to_string();
            if let Some(schema) = function.get_mut("parameters") {
                change(&name, schema);
            }
        }
    }
}

/// Leaves the rare keywords out of a schema and of those in it. The parser limits how deep a body nests.
fn without_rare(schema: &mut Value<'_>) -> bool {
    let mut is_changed = false;
    match schema {
        Value::Object(object) => {
            if object.get("if").is_some() {
                for key in BESIDE_IF {
                    object.remove(key);
                }
            }
            for key in RARE {
                is_changed |= object.remove(key).is_some();
            }
            for (key, value) in object.iter_mut() {
                if OF_NAMES.contains(&key) {
                    let named = value.as_object_mut();
                    for (_, schema) in named.into_iter().flat_map(Object::iter_mut) {
                        is_changed |= without_rare(schema);
                    }
                } else if !OF_DATA.contains(&key) {
                    is_changed |= without_rare(value);
                }
            }
        }
        Value::Array(items) => {
            for item in items.to_mut() {
                is_changed |= without_rare(item);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInteger(_) | Value::String(_) => {}
    }
    is_changed
}

#[cfg(test)]
mod tests {
    use crate::openai::Repair;

    use super::super::tests::repaired;

    fn tools(schema: &str) -> String {
        format!(r#"{{"tools":[{{"type":"function","function":{{"name":"Send","parameters":{schema}}}}}]}}"#)
    }

    #[test]
    fn rare_keywords_go_and_properties_of_their_names_stay() {
        let schema = r#"{"type":"object","properties":{"pattern":{"type":"string","pattern":"\\d+","format":"uri"},"list":{"type":"array","minItems":1,"items":{"anyOf":[{"type":"string","maxLength":3},{"type":"null"}]}},"kind":{"enum":["format"],"default":{"format":1}}},"required":["pattern"]}"#;
        let plain = r#"{"type":"object","properties":{"pattern":{"type":"string"},"list":{"type":"array","items":{"anyOf":[{"type":"string"},{"type":"null"}]}},"kind":{"enum":["format"],"default":{"format":1}}},"required":["pattern"]}"#;
        assert_eq!(repaired(&Repair::PlainSchemas, &tools(schema)), (tools(plain), true));
        assert!(!repaired(&Repair::PlainSchemas, &tools(plain)).1);
    }

    #[test]
    fn a_plain_format_leaves_tools_alone_and_plain_tools_leave_the_format_alone() {
        let body = |of_tool: &str, of_format: &str| {
            let format = format!(r#""response_format":{{"json_schema":{{"schema":{of_format}}}}}"#);
            tools(of_tool).replacen('{', &format!("{{{format},"), 1)
        };
        let (rare, plain) = (r#"{"type":"string","pattern":"a"}"#, r#"{"type":"string"}"#);
        assert_eq!(repaired(&Repair::PlainFormat, &body(rare, rare)), (body(rare, plain), true));
        assert_eq!(repaired(&Repair::PlainSchemas, &body(rare, rare)), (body(plain, rare), true));
        assert!(!repaired(&Repair::PlainFormat, &tools(rare)).1);
    }

    #[test]
    fn a_tool_stays_when_its_schema_is_opened() {
        let schema = r##"{"type":"object","properties":{"a":{"$ref":"#"}}}"##;
        let open = tools(r#"{"type":"object"}"#);
        assert_eq!(repaired(&Repair::OpenSchema("Send".into()), &tools(schema)), (open.clone(), true));
        assert_eq!(repaired(&Repair::OpenSchemas, &tools(schema)), (open, true));
        assert!(!repaired(&Repair::OpenSchema("Other".into()), &tools(schema)).1);
    }

    #[test]
    fn a_format_becomes_loose_and_then_an_instruction() {
        let body = r#"{"messages":[{"role":"user","content":"Who?"}],"response_format":{"type":"json_schema","json_schema":{"name":"output","schema":{"type":"object"},"strict":true}}}"#;
        let (loose, is_changed) = repaired(&Repair::LooseFormat, body);
        assert_eq!((loose, is_changed), (body.replace("true", "false"), true));
        let (text, _) = repaired(&Repair::FormatAsText, body);
        assert_eq!(
            text,
            r#"{"messages":[{"role":"user","content":"Who?\n\nAnswer only with JSON that fits this schema: {\"type\":\"object\"}"}]}"#
        );
    }
}
