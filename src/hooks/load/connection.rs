//! Reads the keys of an upstream that say how its connections are made.

use std::path::PathBuf;

use mlua::Value as LuaValue;

use super::super::table::{Mistakes, TableReader, describe, keys};
use crate::config::{ConnectionSettings, HEADER_SIZE_MAX, HEADERS_MAX, Secret};

/// Reads them. `has_key`: the upstream has an `api_key`.
pub(super) fn read_connection(
    reader: &TableReader<'_>,
    has_key: bool,
    mistakes: &mut Mistakes<'_>,
) -> ConnectionSettings {
    let http_proxy = reader.text("http_proxy", "a string such as \"http://10.0.0.1:3128\"", mistakes);
    if let Some(Err(why)) = http_proxy.as_deref().map(ConnectionSettings::proxy_address) {
        reader.wrong("http_proxy", &why, mistakes);
    }
    let ca_file = reader.text("ca_file", "the name of a PEM file as a string", mistakes);
    ConnectionSettings {
        headers: read_headers(reader, has_key, mistakes),
        http_proxy,
        ca_file: ca_file.map(PathBuf::from),
        verifies_tls: reader.boolean("tls_verify", mistakes).unwrap_or(true),
    }
}

fn read_headers(
    reader: &TableReader<'_>,
    has_key: bool,
    mistakes: &mut Mistakes<'_>,
) -> Vec<(String, Secret)> {
    let form = "a table such as { [\"x-team\"] = \"blue\" }";
    let Some(table) = reader.table("headers", form, mistakes) else { return Vec::new() };
    let mut headers = Vec::new();
    for key in keys(&table) {
        let value: LuaValue = table.raw_get(key.clone()).unwrap_or(LuaValue::Nil);
        let (LuaValue::String(name), LuaValue::String(text)) = (&key, &value) else {
            let got = if key.is_string() { describe(&value) } else { describe(&key) };
            reader.wrong("headers", &format!("expected {form}, got {got}"), mistakes);
            continue;
        };
        let (name, text) = (name.to_string_lossy(), text.to_string_lossy());
        let checked = match ConnectionSettings::check_header(&name, has_key) {
            Ok(()) if text.len() > HEADER_SIZE_MAX => {
                Err(format!("its value has {} bytes; {HEADER_SIZE_MAX} is the most", text.len()))
            }
            Ok(()) if headers.iter().any(|(other, _): &(String, _)| other.eq_ignore_ascii_case(&name)) => {
                Err("it stands twice, as capitals make no difference; keep one of the two".into())
            }
            Ok(()) if headers.len() >= HEADERS_MAX => Err(format!("{HEADERS_MAX} headers are the most")),
            checked => checked,
        };
        match checked {
            Ok(()) => headers.push((name, Secret::new(text))),
            Err(why) => reader.wrong("headers", &format!("\"{name}\": {why}"), mistakes),
        }
    }
    headers
}
