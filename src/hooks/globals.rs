//! What a hook may call beside the standard library: `log`, `shared`, `json`, `env`, `time`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mlua::{Lua, Table, Value as LuaValue, Variadic};

use super::convert::{self, FromLua, no_view};
use super::guard::Guard;
use super::shared::Shared;
use crate::json::{self, Value};
use crate::service;

/// How much of one log line is kept.
const LOG_CHARS_MAX: usize = 4096;

/// Gives a new VM its globals.
pub(super) fn install(lua: &Lua, guard: &Arc<Guard>, shared: &Shared) -> mlua::Result<()> {
    let globals = lua.globals();
    let log = lua.create_table()?;
    for (name, level) in
        [("info", log::Level::Info), ("warn", log::Level::Warn), ("error", log::Level::Error)]
    {
        log.set(name, lua.create_function(move |_, values| write_log(level, &values))?)?;
    }
    globals.set("print", log.get::<LuaValue>("info")?)?;
    globals.set("log", log)?;
    globals.set("json", json_table(lua, guard)?)?;
    globals.set("shared", shared_table(lua, guard, shared)?)?;
    globals.set("env", lua.create_function(|_, name: String| Ok(service::variable(&name)))?)?;
    globals.set(
        "time",
        lua.create_function(|_, ()| {
            Ok(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64()))
        })?,
    )
}

fn write_log(level: log::Level, values: &Variadic<LuaValue>) -> mlua::Result<()> {
    let words = values.iter().map(LuaValue::to_string).collect::<mlua::Result<Vec<_>>>()?;
    let text: String = words.join(" ").chars().take(LOG_CHARS_MAX).collect();
    log::log!(level, "hook: {text}");
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
        lua.create_function(move |lua, value: LuaValue| Ok(plain(lua, &encode_guard, &value)?.to_json()))?,
    )?;
    table.set(
        "decode",
        lua.create_function(|lua, text: String| {
            let mut bytes = text.into_bytes();
            let value = json::parse(&mut bytes)
                .map_err(|error| mlua::Error::runtime(format!("json.decode: {error}")))?;
            convert::to_lua(lua, &value)
        })?,
    )?;
    Ok(table)
}

fn shared_table(lua: &Lua, guard: &Arc<Guard>, shared: &Shared) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let dictionary = shared.clone();
    table.set(
        "get",
        lua.create_function(move |lua, key: String| match dictionary.get(&key, Instant::now()) {
            Some(value) => convert::to_lua(lua, &value),
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
