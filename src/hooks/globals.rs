//! The globals that a hook may use beside the standard library: `log`, `shared`, `json`, `env`, `hash`, `time`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use memchr::memmem;
use mlua::{Function, Lua, LuaString, MultiValue, Table, Value as LuaValue, Variadic};

use super::convert::{self, FromLua, no_view};
use super::guard::Guard;
use super::log_lines::HookLog;
use super::options::LoadOptions;
use super::outcome::message_of;
use super::shared::Shared;
use crate::hash::Fnv;
use crate::json::{self, Value};
use crate::lua_pattern::{Capture, PatternSearch, is_plain};
use crate::service;

/// The longest text that one call may log, in characters; the rest is cut.
const LOG_CHARS_MAX: usize = 4096;

/// The longest text that `json.decode` takes, in bytes. Its tree takes many times as much memory, outside the VM, and the
/// time limit cannot stop the parser.
const DECODE_BYTES_MAX: usize = 1024 * 1024;

/// The longest text that `string.rep` makes, in bytes.
const REPEATED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The field of a metatable that tells that it may not be replaced. Lua code cannot reach the metatable itself.
const PROTECTED: &str = "protected";

/// Installs the globals in a new VM.
pub(super) fn install(lua: &Lua, guard: &Arc<Guard>, options: &LoadOptions) -> mlua::Result<()> {
    let globals = lua.globals();
    let log = lua.create_table()?;
    for (name, level) in
        [("info", log::Level::Info), ("warn", log::Level::Warn), ("error", log::Level::Error)]
    {
        let lines = options.log.clone();
        log.set(name, lua.create_function(move |_, values| write_log(&lines, level, &values))?)?;
    }
    globals.set("print", log.get::<LuaValue>("info")?)?;
    globals.set("log", log)?;
    globals.set("json", json_table(lua, guard)?)?;
    globals.set("shared", shared_table(lua, guard, &options.shared)?)?;
    let (environment, unset) = (Arc::clone(&options.environment), options.unset.clone());
    let env = move |_: &Lua, name: String| {
        let own = environment.get(&name).map(|secret| secret.expose().to_owned());
        let value = own.or_else(|| service::variable(&name));
        if value.is_none() {
            unset.note(&name);
        }
        Ok(value)
    };
    globals.set("env", lua.create_function(env)?)?;
    // Only the upper half of the hash is returned, since Lua's integers are signed.
    let hash = |_: &Lua, text: LuaString| Ok(Fnv::EMPTY.push(&text.as_bytes()).mixed() >> 32);
    globals.set("hash", lua.create_function(hash)?)?;
    globals.set(
        "time",
        lua.create_function(|_, ()| {
            Ok(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64()))
        })?,
    )
}

fn write_log(lines: &HookLog, level: log::Level, values: &Variadic<LuaValue>) -> mlua::Result<()> {
    let mut text = String::new();
    for value in values.iter() {
        if text.len() > LOG_CHARS_MAX * char::MAX.len_utf8() {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        match value {
            // Only the beginning is copied: the whole may be as large as the VM.
            LuaValue::String(whole) => {
                let bytes = whole.as_bytes();
                let end = bytes.len().min(LOG_CHARS_MAX * char::MAX.len_utf8());
                text.push_str(&String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()));
            }
            other => text.push_str(&other.to_string()?),
        }
    }
    let text: String = text.chars().take(LOG_CHARS_MAX).collect();
    lines.log(level, &text);
    Ok(())
}

fn json_table(lua: &Lua, guard: &Arc<Guard>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.set("null", LuaValue::NULL)?;
    let marker = convert::array_marker(lua)?;
    table.set(
        "array",
        lua.create_function(move |lua, items: Option<Table>| {
            let items = items.map_or_else(|| lua.create_table(), Ok)?;
            items.set_metatable(Some(marker.clone()))?;
            Ok(items)
        })?,
    )?;
    let encode_guard = Arc::clone(guard);
    table.set(
        "encode",
        lua.create_function(move |lua, value: LuaValue| {
            convert::encode(&encode_guard, &plain(lua, &encode_guard, &value)?)
        })?,
    )?;
    let guard = Arc::clone(guard);
    table.set(
        "decode",
        lua.create_function(move |lua, text: LuaString| {
            let mut bytes = text.as_bytes().to_vec();
            if bytes.len() > DECODE_BYTES_MAX {
                let length = bytes.len();
                return Err(mlua::Error::runtime(format!(
                    "json.decode: a text of {length} bytes; {DECODE_BYTES_MAX} is the most"
                )));
            }
            let value = json::parse(&mut bytes)
                .map_err(|error| mlua::Error::runtime(format!("json.decode: {error}")))?;
            convert::to_lua(lua, &guard, &value)
        })?,
    )?;
    Ok(table)
}

fn shared_table(lua: &Lua, guard: &Arc<Guard>, shared: &Shared) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let dictionary = shared.clone();
    let get_guard = Arc::clone(guard);
    table.set(
        "get",
        lua.create_function(move |lua, key: String| match dictionary.get(&key, Instant::now()) {
            Some(value) => convert::to_lua(lua, &get_guard, &value),
            None => Ok(LuaValue::Nil),
        })?,
    )?;
    let dictionary = shared.clone();
    let guard = Arc::clone(guard);
    table.set(
        "set",
        lua.create_function(move |lua, (key, value, ttl): (String, LuaValue, Option<f64>)| {
            let value = if value.is_nil() { None } else { Some(plain(lua, &guard, &value)?) };
            dictionary.set(&key, value, lifetime(ttl)?, Instant::now()).map_err(mlua::Error::runtime)
        })?,
    )?;
    let dictionary = shared.clone();
    table.set(
        "incr",
        lua.create_function(move |_, (key, by, ttl): (String, Option<f64>, Option<f64>)| {
            let sum = dictionary
                .increment(&key, by.unwrap_or(1.0), lifetime(ttl)?, Instant::now())
                .map_err(mlua::Error::runtime)?;
            #[allow(clippy::cast_possible_truncation, reason = "checked: integral and small")]
            Ok(if sum.fract() == 0.0 && sum.abs() < 1e15 {
                LuaValue::Integer(sum as i64)
            } else {
                LuaValue::Number(sum)
            })
        })?,
    )?;
    Ok(table)
}

fn lifetime(seconds: Option<f64>) -> mlua::Result<Option<Duration>> {
    let Some(seconds) = seconds else { return Ok(None) };
    Duration::try_from_secs_f64(seconds)
        .map(Some)
        .map_err(|_| mlua::Error::runtime("shared: the time to live is a number of seconds"))
}

fn plain(lua: &Lua, guard: &Guard, value: &LuaValue) -> mlua::Result<Value<'static>> {
    FromLua { marker: convert::array_marker(lua)?, guard, view: &no_view }.value(value, 0)
}

/// The function behind all string patterns: `search(caller, text, pattern, init, anchors, not_ending_at)` returns the
/// first and the last position of the match, from 1, and the captures.
pub(super) fn search_function(lua: &Lua, guard: &Arc<Guard>) -> mlua::Result<Function> {
    type MatchArguments = (String, LuaString, LuaString, Option<i64>, bool, Option<i64>);
    let guard = Arc::clone(guard);
    lua.create_function(move |lua, (caller, text, pattern, init, anchors, last_end): MatchArguments| {
        let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
        if caller == "find" && is_plain(&pattern) {
            return Ok(position_of(&pattern, &text, init));
        }
        let search = PatternSearch {
            text: &text,
            pattern: &pattern,
            anchors,
            not_ending_at: last_end.and_then(|end| usize::try_from(end - 1).ok()),
            go_on: &|| guard.check().map_err(|error| message_of(&error)),
        };
        let Some(start) = start_of(init.unwrap_or(1), text.len()) else { return Ok(nothing()) };
        let found =
            search.run(start).map_err(|what| mlua::Error::runtime(format!("string.{caller}: {what}")))?;
        let Some(found) = found else { return Ok(nothing()) };
        let mut values = vec![place(found.start + 1), place(found.end)];
        for capture in found.captures {
            values.push(match capture {
                Capture::Position(at) | Capture::Open(at) => place(at + 1),
                Capture::Range(from, to) => {
                    LuaValue::String(lua.create_string(text.get(from..to).unwrap_or_default())?)
                }
            });
        }
        Ok(MultiValue::from_vec(values))
    })
}

fn nothing() -> MultiValue {
    MultiValue::from_vec(vec![LuaValue::Nil])
}

fn place(n: usize) -> LuaValue {
    LuaValue::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

/// Lua's `init`, from 1, or negative from the end, as an index from 0; `None` if it is beyond the text.
fn start_of(init: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let start = if init > 0 {
        init - 1
    } else if init == 0 {
        0
    } else {
        (length + init).max(0)
    };
    usize::try_from(start).ok().filter(|_| start <= length)
}

/// `expand(template, whole, captures…)`: fills in `%0` to `%9` of a replacement string of `gsub`.
pub(super) fn expand_function(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|lua, (template, values): (LuaString, Variadic<LuaString>)| {
        let mut out = Vec::new();
        let template = template.as_bytes();
        let mut bytes = template.iter();
        while let Some(byte) = bytes.next() {
            if *byte != b'%' {
                out.push(*byte);
                continue;
            }
            match bytes.next() {
                Some(b'%') => out.push(b'%'),
                Some(digit) if digit.is_ascii_digit() => {
                    // Without captures, `%1` stands for the whole match.
                    let index = usize::from(digit - b'0').min(if values.len() == 1 && *digit == b'1' {
                        0
                    } else {
                        9
                    });
                    let Some(value) = values.get(index) else {
                        let digit = char::from(*digit);
                        return Err(mlua::Error::runtime(format!(
                            "string.gsub: invalid capture index %{digit} in replacement string"
                        )));
                    };
                    out.extend_from_slice(&value.as_bytes());
                }
                _ => {
                    return Err(mlua::Error::runtime(
                        "string.gsub: invalid use of '%' in replacement string",
                    ));
                }
            }
        }
        lua.create_string(out)
    })
}

/// `find_plain(text, wanted, init)`: the first and the last position of `wanted` in `text`, from 1.
pub(super) fn find_plain_function(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|_, (text, wanted, init): (LuaString, LuaString, Option<i64>)| {
        Ok(position_of(&wanted.as_bytes(), &text.as_bytes(), init))
    })
}

/// The first and the last position of `wanted` in `text`, from 1. Takes time in proportion to the lengths; Lua's own
/// search, which compares at each place, takes their product.
fn position_of(wanted: &[u8], text: &[u8], init: Option<i64>) -> MultiValue {
    let found = start_of(init.unwrap_or(1), text.len())
        .and_then(|start| Some(start + memmem::find(text.get(start..)?, wanted)?));
    match found {
        Some(at) => MultiValue::from_vec(vec![place(at + 1), place(at + wanted.len())]),
        None => nothing(),
    }
}

/// `repeat(text, n, separator)`: `string.rep`. Lua's own copies one piece after the other, which takes long if they are
/// short, and never ends soon if they are empty.
pub(super) fn repeat_function(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|lua, (text, count, separator): (LuaString, i64, Option<LuaString>)| {
        let Some(others) = usize::try_from(count).ok().and_then(|count| count.checked_sub(1)) else {
            return lua.create_string("");
        };
        let mut piece = text.as_bytes().to_vec();
        piece
            .extend_from_slice(&separator.map(|separator| separator.as_bytes().to_vec()).unwrap_or_default());
        if piece.is_empty() {
            return lua.create_string("");
        }
        let length =
            piece.len().checked_mul(others).and_then(|length| length.checked_add(text.as_bytes().len()));
        if length.is_none_or(|length| length > REPEATED_BYTES_MAX) {
            return Err(mlua::Error::runtime(format!(
                "string.rep: resulting string too large: {} MiB is the most",
                REPEATED_BYTES_MAX >> 20
            )));
        }
        let mut whole = piece.repeat(others);
        whole.extend_from_slice(&text.as_bytes());
        lua.create_string(whole)
    })
}

/// `bytes_of(…)`: the bytes of all texts among the arguments together.
pub(super) fn bytes_function(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|_, values: MultiValue| {
        let lengths = values.iter().map(|value| match value {
            LuaValue::String(text) => text.as_bytes().len(),
            _ => 0,
        });
        Ok(lengths.fold(0, usize::saturating_add))
    })
}

/// `is_native(f)`: true if the function is not in Lua, so that the debug hook cannot stop it.
pub(super) fn is_native_function(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|_, function: Function| Ok(function.info().what != "Lua"))
}

/// `attach(table, metatable, is_protected)`: sets the metatable of a table, or removes it (nil). `metatable` is one that
/// only this table has, and that Lua code cannot reach.
pub(super) fn attach_function(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|_, (table, metatable, is_protected): (Table, Option<Table>, bool)| {
        if table.metatable().is_some_and(|old| old.raw_get::<bool>(PROTECTED).unwrap_or(false)) {
            return Err(mlua::Error::runtime("cannot change a protected metatable"));
        }
        if let Some(metatable) = metatable.as_ref().filter(|_| is_protected) {
            metatable.raw_set(PROTECTED, true)?;
        }
        table.set_metatable(metatable)
    })
}
