//! Reads the limits of clients and the prices of aliases.

use mlua::{Table, Value as LuaValue};

use super::super::table::{Mistakes, TableReader, describe, is_list, keys};
use crate::config::ClientLimits;
use crate::lane::Lane;
use crate::route::Price;

/// The keys of a client's limits.
pub(in crate::hooks) const LIMIT_KEYS: [&str; 5] =
    ["max_in_flight", "requests_per_minute", "tokens_per_day", "models", "lane"];

/// The largest limit.
const LIMIT_MAX: u64 = 1_000_000_000_000;

/// The highest price of a million tokens. Higher ones are mistakes, and their products might overflow.
const PRICE_MAX: f64 = 1_000_000.0;

/// Reads `keys = { anna = { max_in_flight = 3 } }`.
pub(super) fn read_limits(table: &Table, mistakes: &mut Mistakes<'_>) -> Vec<ClientLimits> {
    const FORM: &str = "the name of a key's owner with a table such as anna = { max_in_flight = 3 }";
    let mut all = Vec::new();
    for key in keys(table) {
        let name = key.as_string().map(|name| name.to_string_lossy());
        let (Some(name), Ok(LuaValue::Table(entry))) = (name, table.raw_get(&key)) else {
            mistakes.add(&["keys"], format!("keys: expected {FORM}, got the key {}", describe(&key)));
            continue;
        };
        let reader = TableReader::new(&entry, format!("keys.{name}"), name.as_str());
        reader.check_keys(&LIMIT_KEYS, 0, mistakes);
        let lanes = [(Lane::Person, 0), (Lane::Agent, 1), (Lane::Background, 2)];
        let lane = match reader.value("lane") {
            LuaValue::Nil => None,
            value => {
                let found = lanes.iter().find(|(_, number)| value.as_integer() == Some(*number));
                if found.is_none() {
                    reader.wrong("lane", &format!("expected 0, 1 or 2, got {}", describe(&value)), mistakes);
                }
                found.map(|(lane, _)| *lane)
            }
        };
        all.push(ClientLimits {
            max_in_flight: reader.count("max_in_flight", LIMIT_MAX, mistakes),
            requests_per_minute: reader.count("requests_per_minute", LIMIT_MAX, mistakes),
            tokens_per_day: reader.count("tokens_per_day", LIMIT_MAX, mistakes),
            models: read_models(&reader, mistakes),
            lane,
            name,
        });
    }
    all
}

fn read_models(reader: &TableReader<'_>, mistakes: &mut Mistakes<'_>) -> Vec<String> {
    const FORM: &str = "a list of patterns such as { \"claude-*\" }";
    let Some(list) = reader.table("models", FORM, mistakes) else { return Vec::new() };
    let patterns: Vec<String> = list
        .sequence_values::<mlua::LuaString>()
        .map_while(Result::ok)
        .map(|text| text.to_string_lossy())
        .collect();
    // An empty list would allow every model, which is the contrary of what it looks like.
    if !is_list(&list) || patterns.len() < list.raw_len() {
        reader.wrong("models", &format!("expected {FORM}"), mistakes);
    }
    patterns
}

/// Reads `price = { input = 0.5, cached = 0.05, output = 2 }`: money for a million tokens. Without `cached` a cached token
/// costs as much as another one.
pub(super) fn read_price(reader: &TableReader<'_>, mistakes: &mut Mistakes<'_>) -> Option<Price> {
    let entry = reader.table("price", "a table such as { input = 0.5, output = 2 }", mistakes)?;
    let inside = TableReader::new(&entry, "price", "price");
    inside.check_keys(&["input", "cached", "output"], 0, mistakes);
    let mut number = |key: &str| {
        let value = inside.value(key);
        #[allow(clippy::cast_precision_loss, reason = "prices are small numbers")]
        let number = value.as_number().or_else(|| value.as_integer().map(|whole| whole as f64));
        let number = number.filter(|number| (0.0..=PRICE_MAX).contains(number));
        if number.is_none() && !value.is_nil() {
            let what = format!("expected a number from 0 to {PRICE_MAX}, got {}", describe(&value));
            inside.wrong(key, &what, mistakes);
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in the range above")]
        number.map(|number| (number * 1e6).round() as u64)
    };
    let input = number("input").unwrap_or(0);
    Some(Price { input, cached: number("cached").unwrap_or(input), output: number("output").unwrap_or(0) })
}
