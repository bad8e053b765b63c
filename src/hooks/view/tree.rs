//! Paths in a JSON tree as Lua walks it: reads and writes the value at a path, and undoes a write.
//!
//! Knows Lua's keys, which count from 1. Does not know views or hooks.

use std::sync::Arc;

use mlua::Value as LuaValue;

use crate::json::{Object, Value};

/// The members of a request's body that hold a list in both formats.
const LISTS: [&str; 4] = ["messages", "tools", "stop", "stop_sequences"];

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathStep {
    Key(Arc<str>),
    /// The index of an element, from 0.
    Index(usize),
}

/// The inverse of one write.
pub(super) enum Undo<'a> {
    /// Put this value back at the path.
    Replace(Vec<PathStep>, Value<'a>),
    /// Remove the last entry or element again.
    Pop(Vec<PathStep>, PathStep),
    /// Put this entry back at its place.
    InsertKey(Vec<PathStep>, usize, Arc<str>, Value<'a>),
    /// Put this element back at the end.
    Push(Vec<PathStep>, Value<'a>),
}

/// The text of a key; `None` if the key is not text.
pub(super) fn key_text(key: &LuaValue) -> Option<String> {
    key.as_string().map(|text| text.to_string_lossy())
}

/// A Lua number as an index from 0; `None` if it is not a whole number of at least 1.
fn key_index(key: &LuaValue) -> Option<usize> {
    let number = match key {
        LuaValue::Integer(n) => *n,
        #[allow(clippy::cast_possible_truncation, reason = "checked: integral and small")]
        LuaValue::Number(n) if n.fract() == 0.0 && n.abs() < 1e15 => *n as i64,
        _ => return None,
    };
    usize::try_from(number).ok()?.checked_sub(1)
}

fn gone() -> mlua::Error {
    mlua::Error::runtime("what this view stood for is not there any more")
}

/// The node at a path.
pub(super) fn resolve<'v, 'a>(root: &'v Value<'a>, path: &[PathStep]) -> mlua::Result<&'v Value<'a>> {
    path.iter().try_fold(root, |node, step| match (node, step) {
        (Value::Object(object), PathStep::Key(key)) => object.get(key).ok_or_else(gone),
        (Value::Array(items), PathStep::Index(index)) => items.get(*index).ok_or_else(gone),
        _ => Err(gone()),
    })
}

/// The node at a path, to be changed.
pub(super) fn resolve_mut<'v, 'a>(
    root: &'v mut Value<'a>,
    path: &[PathStep],
) -> mlua::Result<&'v mut Value<'a>> {
    path.iter().try_fold(root, |node, step| match (node, step) {
        (Value::Object(object), PathStep::Key(key)) => object.get_mut(key).ok_or_else(gone),
        (Value::Array(items), PathStep::Index(index)) => items.to_mut().get_mut(*index).ok_or_else(gone),
        _ => Err(gone()),
    })
}

/// The value in a node under a key, and the step to it.
pub(super) fn child_of<'v, 'a>(node: &'v Value<'a>, key: &LuaValue) -> Option<(PathStep, &'v Value<'a>)> {
    match node {
        Value::Object(object) => {
            let name = key_text(key)?;
            let child = object.get(&name)?;
            Some((PathStep::Key(name.into()), child))
        }
        Value::Array(items) => {
            let index = key_index(key)?;
            Some((PathStep::Index(index), items.get(index)?))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInteger(_) | Value::String(_) => None,
    }
}

/// Writes one entry or element (`None` removes it) and returns the inverse.
pub(super) fn write<'a>(
    node: &mut Value<'a>,
    path: &[PathStep],
    key: &LuaValue,
    value: Option<Value<'a>>,
) -> mlua::Result<Option<Undo<'a>>> {
    match node {
        Value::Object(object) => {
            let Some(name) = key_text(key) else {
                return Err(mlua::Error::runtime(format!(
                    "an object's key is a string, got a {}",
                    key.type_name()
                )));
            };
            Ok(write_entry(object, path, name.into(), value))
        }
        Value::Array(items) => {
            let Some(index) = key_index(key) else {
                return Err(mlua::Error::runtime("an array's index is a whole number from 1 on"));
            };
            write_element(items.to_mut(), path, index, value)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInteger(_) | Value::String(_) => {
            Err(gone())
        }
    }
}

fn write_entry<'a>(
    object: &mut Object<'a>,
    path: &[PathStep],
    key: Arc<str>,
    value: Option<Value<'a>>,
) -> Option<Undo<'a>> {
    let Some(value) = value else {
        let place = object.iter().position(|(k, _)| *k == *key)?;
        let old = object.remove(&key)?;
        return Some(Undo::InsertKey(path.to_vec(), place, key, old));
    };
    let is_list = |old: Option<&Value<'_>>| match old {
        Some(old) => old.as_array().is_some() || (&*key == "content" && old.as_str().is_some()),
        None => path.is_empty() && LISTS.contains(&&*key),
    };
    // Lua's empty table is a list and an object at once. Where a list stood or belongs, it is a list.
    let is_empty = value.as_object().is_some_and(Object::is_empty);
    let value = if is_empty && is_list(object.get(&key)) { Value::Array(Vec::new().into()) } else { value };
    if let Some(slot) = object.get_mut(&key) {
        let old = std::mem::replace(slot, value);
        return Some(Undo::Replace(joined(path, PathStep::Key(key)), old));
    }
    object.set(key.to_string(), value);
    Some(Undo::Pop(path.to_vec(), PathStep::Key(key)))
}

fn write_element<'a>(
    items: &mut Vec<Value<'a>>,
    path: &[PathStep],
    index: usize,
    value: Option<Value<'a>>,
) -> mlua::Result<Option<Undo<'a>>> {
    let length = items.len();
    match (value, items.get_mut(index)) {
        (Some(value), Some(slot)) => {
            let old = std::mem::replace(slot, value);
            Ok(Some(Undo::Replace(joined(path, PathStep::Index(index)), old)))
        }
        (Some(value), None) if index == length => {
            items.push(value);
            Ok(Some(Undo::Pop(path.to_vec(), PathStep::Index(index))))
        }
        (Some(_), None) => Err(mlua::Error::runtime(format!(
            "an array has no holes: it has {length} elements and the next one is {}, got {}",
            length + 1,
            index + 1
        ))),
        (None, Some(_)) if index + 1 == length => Ok(items.pop().map(|old| Undo::Push(path.to_vec(), old))),
        (None, Some(_)) => Err(mlua::Error::runtime(format!(
            "an array has no holes: remove an element with table.remove(array, {})",
            index + 1
        ))),
        (None, None) => Ok(None),
    }
}

fn joined(path: &[PathStep], step: PathStep) -> Vec<PathStep> {
    path.iter().cloned().chain(std::iter::once(step)).collect()
}

impl<'a> Undo<'a> {
    /// Undoes the write. Writes are undone from the last to the first, so that every path is as it was when it was
    /// noted. Takes no longer than the write itself, so the limit of the hook's time bounds both.
    pub(super) fn apply(self, root: &mut Value<'a>) {
        match self {
            Undo::Replace(path, old) => {
                if let Ok(slot) = resolve_mut(root, &path) {
                    *slot = old;
                }
            }
            Undo::Pop(path, step) => match (resolve_mut(root, &path), step) {
                (Ok(Value::Object(object)), PathStep::Key(key)) => {
                    object.remove(&key);
                }
                (Ok(Value::Array(items)), PathStep::Index(_)) => {
                    items.to_mut().pop();
                }
                _ => {}
            },
            Undo::Push(path, old) => {
                if let Ok(Value::Array(items)) = resolve_mut(root, &path) {
                    items.to_mut().push(old);
                }
            }
            Undo::InsertKey(path, place, key, old) => {
                if let Ok(Value::Object(object)) = resolve_mut(root, &path) {
                    object.insert(place, key.to_string(), old);
                }
            }
        }
    }
}
