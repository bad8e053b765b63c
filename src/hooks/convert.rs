//! Copies JSON values to Lua values and back: for small values, and for everything that a hook writes.
//!
//! A table that is a sequence 1..n becomes an array. Any other table becomes an object with sorted keys, because Lua's
//! own order changes from run to run and the upstream's prefix cache compares bytes. The empty table becomes an object,
//! unless it came from `json.array` or was an array before: those carry a marker as metatable.

use std::borrow::Cow;

use mlua::{AnyUserData, Lua, LuaString, Table, Value as LuaValue};

use super::guard::Guard;
use crate::json::{DEPTH_MAX, Number, Object, Value};

/// The marker's name in Lua's registry.
const ARRAY_MARKER: &str = "sparkgap.array";

/// The bytes that each element counts in the budget, in addition to its text.
const ELEMENT_BYTES: usize = 64;

/// The bytes that escapes may add to one text of `json.encode`, in bytes: about 50 ms. A control character takes six
/// bytes.
const ESCAPE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Makes the marker of arrays for a new VM.
pub(super) fn create_array_marker(lua: &Lua) -> mlua::Result<Table> {
    let marker = lua.create_table()?;
    marker.raw_set("__name", "json.array")?;
    marker.raw_set("__metatable", "json.array")?;
    lua.set_named_registry_value(ARRAY_MARKER, &marker)?;
    Ok(marker)
}

/// The marker of arrays of this VM.
pub(super) fn array_marker(lua: &Lua) -> mlua::Result<Table> {
    lua.named_registry_value(ARRAY_MARKER)
}

/// A deep copy as a Lua value. `null` becomes `json.null`. Fails if the time of the call is over.
pub(super) fn to_lua(lua: &Lua, guard: &Guard, value: &Value<'_>) -> mlua::Result<LuaValue> {
    copy_to_lua(lua, guard, value, &array_marker(lua)?)
}

fn copy_to_lua(lua: &Lua, guard: &Guard, value: &Value<'_>, marker: &Table) -> mlua::Result<LuaValue> {
    guard.step()?;
    match value {
        Value::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (i, item) in items.iter().enumerate() {
                table.raw_set(i + 1, copy_to_lua(lua, guard, item, marker)?)?;
            }
            table.set_metatable(Some(marker.clone()))?;
            Ok(LuaValue::Table(table))
        }
        Value::Object(object) => {
            let table = lua.create_table_with_capacity(0, object.len())?;
            for (key, item) in object.iter() {
                table.raw_set(key, copy_to_lua(lua, guard, item, marker)?)?;
            }
            Ok(LuaValue::Table(table))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInteger(_) | Value::String(_) => {
            scalar_to_lua(lua, value)
        }
    }
}

/// Converts a value that is neither array nor object to a Lua value.
pub(super) fn scalar_to_lua(lua: &Lua, value: &Value<'_>) -> mlua::Result<LuaValue> {
    Ok(match value {
        Value::Bool(b) => LuaValue::Boolean(*b),
        Value::Number(Number::Int(n)) => LuaValue::Integer(*n),
        Value::Number(number @ Number::Uint(n)) => match i64::try_from(*n) {
            Ok(n) => LuaValue::Integer(n),
            Err(_) => LuaValue::Number(number.as_f64()),
        },
        Value::Number(Number::Float(n)) => LuaValue::Number(*n),
        // Lua has no such integers.
        Value::BigInteger(_) => LuaValue::Number(value.as_f64().unwrap_or_default()),
        Value::String(text) => LuaValue::String(lua.create_string(text.as_bytes())?),
        Value::Null | Value::Array(_) | Value::Object(_) => LuaValue::NULL,
    })
}

/// The JSON text of a value. It is made outside the VM, so its length is found first, and counts as written.
pub(super) fn encode(guard: &Guard, value: &Value<'_>) -> mlua::Result<String> {
    let escapes = count_texts(guard, value)?;
    if escapes > ESCAPE_BYTES_MAX {
        return Err(mlua::Error::runtime(format!(
            "json.encode: more than {} MiB of escapes",
            ESCAPE_BYTES_MAX >> 20
        )));
    }
    Ok(value.to_json())
}

/// Spends the bytes that the texts of a value take as JSON, and returns those of them that escapes add.
fn count_texts(guard: &Guard, value: &Value<'_>) -> mlua::Result<usize> {
    guard.step()?;
    let count = |text: &str| {
        let added = escape_bytes(text);
        guard.spend(text.len().saturating_add(added)).map(|()| added)
    };
    let mut sum: usize = 0;
    match value {
        Value::String(text) => sum = count(text)?,
        Value::Array(items) => {
            for item in items.iter() {
                sum = sum.saturating_add(count_texts(guard, item)?);
            }
        }
        Value::Object(object) => {
            for (key, item) in object.iter() {
                sum = sum.saturating_add(count(key)?).saturating_add(count_texts(guard, item)?);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInteger(_) => {}
    }
    Ok(sum)
}

/// The bytes that escapes add to a text, at the most: JSON has two-byte forms of a few control characters.
fn escape_bytes(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' => 1,
            0..=0x1f => 5,
            _ => 0,
        })
        .sum()
}

/// The context of a conversion from Lua.
pub(super) struct FromLua<'c, 'a> {
    /// The marker of arrays.
    pub(super) marker: Table,
    /// The limits of the VM.
    pub(super) guard: &'c Guard,
    /// Finds the value that a view stands for.
    pub(super) view: &'c dyn Fn(&AnyUserData) -> mlua::Result<Value<'a>>,
}

/// The `view` of a conversion without a request, where every view is an error.
pub(super) fn no_view(_: &AnyUserData) -> mlua::Result<Value<'static>> {
    Err(mlua::Error::runtime("expected plain data, got a view of a request"))
}

impl<'a> FromLua<'_, 'a> {
    /// A deep copy as a JSON value that will be placed `depth` levels below the root of its document.
    pub(super) fn value(&self, value: &LuaValue, depth: usize) -> mlua::Result<Value<'a>> {
        self.guard.spend(ELEMENT_BYTES)?;
        match value {
            LuaValue::Boolean(b) => Ok(Value::Bool(*b)),
            LuaValue::Integer(n) => Ok(match u64::try_from(*n) {
                Ok(n) => Value::from(n),
                Err(_) => Value::from(*n),
            }),
            LuaValue::Number(n) if n.is_finite() => Ok(Value::from(*n)),
            LuaValue::Number(n) => Err(mlua::Error::runtime(format!("{n} has no JSON form"))),
            LuaValue::String(text) => self.text(text).map(Value::String),
            LuaValue::Table(table) => {
                self.guard.check_stack()?;
                if depth >= DEPTH_MAX {
                    return Err(mlua::Error::runtime(format!(
                        "tables nested deeper than {DEPTH_MAX} levels"
                    )));
                }
                self.table(table, depth + 1)
            }
            LuaValue::UserData(view) => (self.view)(view),
            null if null.is_null() => Ok(Value::Null),
            other => Err(mlua::Error::runtime(format!("a {} has no JSON form", other.type_name()))),
        }
    }

    fn text(&self, text: &LuaString) -> mlua::Result<Cow<'a, str>> {
        let Ok(text) = std::str::from_utf8(&text.as_bytes()).map(str::to_owned) else {
            return Err(mlua::Error::runtime("a string that is not UTF-8 has no JSON form"));
        };
        self.guard.spend(text.len())?;
        Ok(Cow::Owned(text))
    }

    fn table(&self, table: &Table, depth: usize) -> mlua::Result<Value<'a>> {
        let length = table.raw_len();
        if length > 0 || table.metatable().is_some_and(|m| m == self.marker) {
            return self.array(table, length, depth);
        }
        let mut entries = Vec::new();
        for pair in table.pairs::<LuaValue, LuaValue>() {
            let (key, item) = pair?;
            let LuaValue::String(key) = key else {
                let what = key.type_name();
                return Err(mlua::Error::runtime(format!(
                    "a table for JSON has string keys or is a list 1..n; this one has a key of type {what}"
                )));
            };
            entries.push((self.text(&key)?, self.value(&item, depth)?));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Value::Object(entries.into_iter().collect::<Object<'a>>()))
    }

    fn array(&self, table: &Table, length: usize, depth: usize) -> mlua::Result<Value<'a>> {
        let mut items = Vec::new();
        for i in 1..=length {
            items.push(self.value(&table.raw_get(i)?, depth).map_err(|error| match error {
                mlua::Error::RuntimeError(text) if text.starts_with("a nil ") => {
                    mlua::Error::runtime(format!("a list for JSON has no holes; element {i} is nil"))
                }
                other => other,
            })?);
        }
        // `next` visits the sequence first only by accident, so the entries are counted instead.
        let mut entries = 0;
        for pair in table.pairs::<LuaValue, LuaValue>().take(length.saturating_add(1)) {
            pair?;
            entries += 1;
        }
        if entries != length {
            return Err(mlua::Error::runtime("a table for JSON is a list 1..n or has named keys, not both"));
        }
        Ok(items.into())
    }
}
