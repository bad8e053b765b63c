//! The calls that were found in a text.

use crate::json::{self, Parser, Value};

use super::readers::{CallKey, call_key, python_to_json};

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCall {
    /// The tool's name as the model wrote it: it may have a namespace or control tokens.
    pub name: String,
    /// The arguments.
    pub arguments: FoundArguments,
}

/// The arguments of a call in the form in which the model wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundArguments {
    /// A JSON object.
    Json(String),
    /// One text for each argument, in the order of the model.
    Texts(Vec<(String, FoundText)>),
}

/// The text of one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundText {
    /// The schema says which type it has.
    Typed(String),
    /// It is a string.
    Exact(String),
    /// It is JSON.
    Json(String),
}

impl FoundCall {
    /// A call whose arguments are still to come. Without any it is a call without arguments.
    pub(super) fn new(name: &str) -> Self {
        FoundCall { name: name.trim().to_owned(), arguments: FoundArguments::Texts(Vec::new()) }
    }

    /// Adds an argument.
    pub(super) fn push(&mut self, key: &str, text: FoundText) {
        if let FoundArguments::Texts(texts) = &mut self.arguments {
            texts.push((key.trim().to_owned(), text));
        }
    }

    /// Sets all arguments.
    pub(super) fn set_json(&mut self, object: &str) {
        self.arguments = FoundArguments::Json(object.to_owned());
    }

    /// Adds an argument in Python. Returns false if it has no JSON form.
    pub(super) fn push_python(&mut self, key: &str, value: &str) -> bool {
        let json = python_to_json(value.trim());
        json.map(|json| self.push(key, FoundText::Json(json))).is_some()
    }
}

/// Adds the calls of a JSON object, or of an array of such objects. `None` if one of them is not a call.
pub(super) fn push_calls(text: &str, calls: &mut Vec<FoundCall>) -> Option<()> {
    let value = parse(text)?;
    let list = value.as_array().unwrap_or(std::slice::from_ref(&value));
    if list.is_empty() {
        return None;
    }
    for value in list {
        calls.push(read_call(value)?);
    }
    Some(())
}

fn read_call(value: &Value<'_>) -> Option<FoundCall> {
    let (mut name, mut arguments) = (None, None);
    for (key, value) in value.as_object()?.iter() {
        match (call_key(key)?, value) {
            (CallKey::Name | CallKey::Function, Value::String(text)) if name.is_none() => {
                name = Some(text.as_ref());
            }
            // OpenAI's form has the call inside.
            (CallKey::Function, Value::Object(_)) if name.is_none() => return read_inner_call(value),
            (CallKey::Arguments, value) if arguments.is_none() => arguments = Some(value),
            (CallKey::Other, _) => {}
            _ => return None,
        }
    }
    call(name?, arguments?)
}

fn read_inner_call(value: &Value<'_>) -> Option<FoundCall> {
    call(value.get("name")?.as_str()?, value.get("arguments").or_else(|| value.get("parameters"))?)
}

fn call(name: &str, arguments: &Value<'_>) -> Option<FoundCall> {
    let arguments = match arguments {
        Value::Object(_) => arguments.to_json(),
        Value::Null => "{}".to_owned(),
        // OpenAI's form has the object as a string.
        Value::String(text) => parse(text).filter(|inner| inner.as_object().is_some())?.to_json(),
        _ => return None,
    };
    Some(FoundCall { name: name.trim().to_owned(), arguments: FoundArguments::Json(arguments) })
}

/// Parses JSON that may have raw control characters in its strings.
fn parse(text: &str) -> Option<Value<'static>> {
    if let Ok(value) = json::parse(&mut text.as_bytes().to_vec()) {
        return Some(value.into_owned());
    }
    let mut bytes = text.as_bytes().to_vec();
    Parser::default().read_lenient(&mut bytes, |tape, _| Value::from_tape(tape).into_owned()).ok()
}
