//! The types that a tool's schema gives its top-level properties, and the coercion of values to them.
//!
//! Small models write `"5"` for 5 and 5 for `"5"`. Only plain statements of the schema are used: a property with
//! `anyOf`, `$ref` or no `type` allows everything. This module knows JSON texts only, nothing of streams.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::json::{self, Number, Object, Value};

use super::is_legal_value;
use super::number::{self, NumberState};

/// A set of JSON types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Types(u8);

impl Default for Types {
    fn default() -> Self {
        Types::ALL
    }
}

impl Types {
    const NULL: Types = Types(1);
    const BOOLEAN: Types = Types(2);
    const INTEGER: Types = Types(4);
    /// Every number, integers included.
    const NUMBER: Types = Types(4 | 8);
    const ARRAY: Types = Types(16);
    const OBJECT: Types = Types(32);
    const STRING: Types = Types(64);
    /// Every type: the schema says nothing about the value.
    pub(super) const ALL: Types = Types(127);
    /// A mark in the table beside the types: the property must be there.
    const REQUIRED: u8 = 128;

    fn from_name(name: &str) -> Types {
        match name {
            "null" => Types::NULL,
            "boolean" => Types::BOOLEAN,
            "integer" => Types::INTEGER,
            "number" => Types::NUMBER,
            "array" => Types::ARRAY,
            "object" => Types::OBJECT,
            "string" => Types::STRING,
            _ => Types::ALL,
        }
    }

    fn contains(self, other: Types) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if a value fits.
    fn admit(self, value: &Value<'_>) -> bool {
        self.contains(match value {
            Value::Null => Types::NULL,
            Value::Bool(_) => Types::BOOLEAN,
            Value::Number(Number::Float(number)) if number.fract() != 0.0 => Types(8),
            Value::Number(_) | Value::BigInteger(_) => Types::INTEGER,
            Value::String(_) => Types::STRING,
            Value::Array(_) => Types::ARRAY,
            Value::Object(_) => Types::OBJECT,
        })
    }

    /// True if a string fits.
    pub(super) fn admit_string(self) -> bool {
        self.contains(Types::STRING)
    }

    /// True if only a string fits.
    pub(super) fn admit_only_string(self) -> bool {
        self == Types::STRING
    }

    /// The JSON value that is written in the content of a string, if the types do not allow a string but allow that
    /// value.
    pub(super) fn value_in(self, text: &str) -> Option<&str> {
        let text = text.trim_matches(super::SPACES);
        let (json, kind) = match text {
            "true" | "True" => ("true", Types::BOOLEAN),
            "false" | "False" => ("false", Types::BOOLEAN),
            "null" | "None" => ("null", Types::NULL),
            _ if text.starts_with('[') => (text, Types::ARRAY),
            _ if text.starts_with('{') => (text, Types::OBJECT),
            _ => match NumberState::of(text) {
                Some(number) if number.is_integer() => (text, Types::INTEGER),
                Some(number) if number.is_whole() => (text, Types::NUMBER),
                _ => return None,
            },
        };
        let is_legal = match kind {
            Types::ARRAY | Types::OBJECT => is_legal_value(text),
            Types::INTEGER | Types::NUMBER => number::is_finite(text),
            _ => true,
        };
        (self.contains(kind) && is_legal).then_some(json)
    }
}

/// The types of a tool's top-level properties. Copies share one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema(Arc<Table>);

/// Properties sorted by name. All names are slices of one text, since a request declares hundreds. The table is small
/// because a running stream keeps it: 8 bytes for each property, plus its name.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    names: Box<str>,
    /// For each property, where its name ends in `names`, and the types that it allows, with the mark of one that is
    /// required.
    properties: Box<[(u32, Types)]>,
    /// True if no other properties are allowed. Then the table has all of them.
    is_closed: bool,
}

impl Table {
    fn name(&self, index: usize) -> &str {
        let end_of = |index: usize| self.properties.get(index).map(|(end, _)| *end as usize);
        let start = index.checked_sub(1).and_then(end_of).unwrap_or(0);
        self.names.get(start..end_of(index).unwrap_or(start)).unwrap_or_default()
    }

    /// The types that the property of this name allows, if the property is known.
    fn find(&self, name: &str) -> Option<Types> {
        let (mut low, mut high) = (0, self.properties.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle).cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return self.properties.get(middle).map(|(_, types)| *types),
                Ordering::Greater => high = middle,
            }
        }
        None
    }
}

impl Schema {
    /// Reads `properties.*.type` of a tool's `input_schema`. `None` if no property has a type that can be used.
    pub fn from_json(schema: &Value) -> Option<Schema> {
        Schema::within(schema, usize::MAX).unwrap_or_default()
    }

    /// Reads a schema as [`Schema::from_json`] does, but allocates nothing if the result would take more than
    /// `size_max` bytes.
    ///
    /// # Errors
    /// The result would be larger than `size_max`.
    pub(crate) fn within(schema: &Value, size_max: usize) -> Result<Option<Schema>, TooLarge> {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Ok(None) };
        let required = schema.get("required").and_then(Value::as_array).unwrap_or_default();
        // A long list would be searched for each of many properties.
        let required = required.get(..REQUIRED_MAX).unwrap_or(required);
        let is_closed = schema.get("additionalProperties").and_then(Value::as_bool) == Some(false);
        let known = || {
            let marked = properties.iter().map(|(name, property)| {
                let is_required = required.iter().any(|required| required.as_str() == Some(name));
                let mark = if is_required { Types::REQUIRED } else { 0 };
                (name, Types(types_of(property).0 | mark))
            });
            marked.filter(|(_, types)| *types != Types::ALL || is_closed)
        };
        let count = known().count();
        let names_size = known().map(|(name, _)| name.len()).sum::<usize>();
        if count == 0 {
            return Ok(None);
        }
        let size = size_of::<Table>() + count * size_of::<(u32, Types)>() + names_size;
        if size > size_max || u32::try_from(names_size).is_err() {
            return Err(TooLarge);
        }
        let mut sorted: Vec<(&str, Types)> = Vec::with_capacity(count);
        sorted.extend(known());
        sorted.sort_unstable_by_key(|(name, _)| *name);
        let mut names = String::with_capacity(names_size);
        let mut table = Vec::with_capacity(count);
        for (name, types) in sorted {
            names.push_str(name);
            table.push((u32::try_from(names.len()).unwrap_or(u32::MAX), types));
        }
        Ok(Some(Schema(Table { names: names.into(), properties: table.into(), is_closed }.into())))
    }

    /// The memory that the table takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        let Schema(table) = self;
        size_of::<Table>() + table.properties.len() * size_of::<(u32, Types)>() + table.names.len()
    }

    /// The types that a property allows. `key` is the property's name as the inside of a JSON string, still escaped.
    pub(super) fn types(&self, key: &str) -> Types {
        self.types_of_name(&unescape(key))
    }

    /// The types that the property of this name allows.
    pub(super) fn types_of_name(&self, name: &str) -> Types {
        self.0.find(name).map_or(Types::ALL, |types| Types(types.0 & !Types::REQUIRED))
    }

    /// True if an object has all required properties, no others than the schema allows, and values of their types. Only
    /// what the table has is checked: the top level, without formats and enumerations.
    pub(super) fn admits(&self, object: &Object<'_>) -> bool {
        let Schema(table) = self;
        let is_allowed = |name: &str| !table.is_closed || table.find(name).is_some();
        let mut members = object.iter();
        if !members.all(|(name, value)| is_allowed(name) && self.types_of_name(name).admit(value)) {
            return false;
        }
        let required = table.properties.iter().enumerate();
        let mut required = required.filter(|(_, (_, types))| types.0 & Types::REQUIRED != 0);
        required.all(|(index, _)| object.get(table.name(index)).is_some())
    }
}

/// The most entries of `required` that are read.
const REQUIRED_MAX: usize = 64;

/// The schema's table would be larger than the memory that it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

fn types_of(property: &Value) -> Types {
    let Some(property) = property.as_object() else { return Types::ALL };
    let mut kind = None;
    for (keyword, value) in property.iter() {
        match keyword {
            "type" => kind = Some(value),
            // With one of these keywords the property's types depend on more than `type`.
            "anyOf" | "oneOf" | "allOf" | "not" | "if" | "$ref" | "$dynamicRef" => return Types::ALL,
            _ => {}
        }
    }
    let name = |value: &Value| value.as_str().map_or(Types::ALL, Types::from_name);
    match kind {
        Some(Value::Array(names)) if !names.is_empty() => {
            names.iter().map(name).fold(Types(0), |types, one| Types(types.0 | one.0))
        }
        Some(one) => name(one),
        None => Types::ALL,
    }
}

/// The text that the inside of a valid JSON string encodes.
pub(super) fn unescape(inside: &str) -> Cow<'_, str> {
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    Cow::Owned(decode(&format!("\"{inside}\"")).unwrap_or_else(|| inside.to_string()))
}

/// The text of a JSON string with its quotes; `None` if it is not a JSON string.
pub(super) fn decode(string: &str) -> Option<String> {
    match json::parse(&mut string.as_bytes().to_vec()) {
        Ok(Value::String(text)) => Some(text.into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(text: &str) -> Option<Schema> {
        Schema::from_json(&json::parse(&mut text.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn plain_types_are_read() {
        let schema = schema(
            r##"{"type":"object","properties":{"s":{"type":"string"},"n":{"type":["integer","null"]},
            "e":{"enum":[1]},"a":{"type":"integer","anyOf":[{}]},"r":{"$ref":"#/x"},"u":{"type":"date"},
            "t":true,"l":{"type":[]},"é":{"type":"boolean"}}}"##,
        )
        .unwrap();
        assert_eq!(schema.types("s"), Types::STRING);
        assert_eq!(schema.types("n"), Types(Types::INTEGER.0 | Types::NULL.0));
        assert_eq!(schema.types("\\u00e9"), Types::BOOLEAN);
        for key in ["e", "a", "r", "u", "t", "l", "other"] {
            assert_eq!(schema.types(key), Types::ALL, "{key}");
        }
    }

    #[test]
    fn a_schema_without_types_is_not_kept() {
        for text in
            ["{}", "null", "{\"properties\":{}}", "{\"properties\":{\"a\":{}}}", "{\"properties\":[]}"]
        {
            assert_eq!(schema(text), None, "{text}");
        }
    }

    #[test]
    fn a_string_becomes_only_the_wanted_type() {
        for (wanted, text, expected) in [
            (Types::BOOLEAN, "true", Some("true")),
            (Types::BOOLEAN, " False ", Some("false")),
            (Types::BOOLEAN, "yes", None),
            (Types::BOOLEAN, "1", None),
            (Types::INTEGER, "-5", Some("-5")),
            (Types::INTEGER, "5.5", None),
            (Types::INTEGER, "05", None),
            (Types::INTEGER, "true", None),
            (Types::NUMBER, "5", Some("5")),
            (Types::NUMBER, "5.5e1", Some("5.5e1")),
            (Types::NUMBER, "1e999", None),
            (Types::NUMBER, "", None),
            (Types::NULL, "None", Some("null")),
            (Types::ARRAY, "[1,[2]]", Some("[1,[2]]")),
            (Types::ARRAY, "[1],[2]", None),
            (Types::ARRAY, "[1", None),
            (Types::ARRAY, "[1,]", None),
            (Types::ARRAY, "{}", None),
            (Types::OBJECT, "{\"a\":{}}", Some("{\"a\":{}}")),
            (Types::OBJECT, "{}", Some("{}")),
            (Types::OBJECT, "{}{}", None),
            (Types::OBJECT, "{a:1}", None),
        ] {
            assert_eq!(wanted.value_in(text), expected, "{wanted:?} {text}");
        }
    }
}
