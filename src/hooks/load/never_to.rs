//! Reads `never_to`: the rules that keep requests from upstreams.

use mlua::{Table, Value as LuaValue};

use super::super::table::{Mistakes, TableReader, describe, is_list, keys};
use crate::policy::NeverTo;
use crate::shown::ShownText;

/// The keys of the rules for one upstream.
pub(in crate::hooks) const NEVER_TO_KEYS: [&str; 4] = ["paths", "match", "keys", "header"];

/// The most rules for one upstream, and the most bytes of one: each request is searched for all of them.
const RULES_MAX: usize = 1000;
const RULE_SIZE_MAX: usize = 1000;

/// Reads the table `never_to = { cloud = { … } }`.
pub(super) fn read_never_to(table: &Table, mistakes: &mut Mistakes<'_>) -> Vec<NeverTo> {
    let mut rules = Vec::new();
    for key in keys(table) {
        let name = key.as_string().map(|name| name.to_string_lossy()).unwrap_or_default();
        match table.raw_get(key) {
            Ok(LuaValue::Table(entry)) if !name.is_empty() => rules.push(read_rules(&name, &entry, mistakes)),
            other => {
                let got = describe(&other.unwrap_or(LuaValue::Nil));
                let form =
                    "a table by the upstream's name, such as { cloud = { paths = { \"/srv/secret\" } } }";
                mistakes.add(&["never_to", &name], format!("never_to: expected {form}, got {got}"));
            }
        }
    }
    rules
}

fn read_rules(name: &str, table: &Table, mistakes: &mut Mistakes<'_>) -> NeverTo {
    let reader = TableReader::new(table, format!("never_to.{name}"), name);
    reader.check_keys(&NEVER_TO_KEYS, 0, mistakes);
    let mut rules = NeverTo { upstream: name.to_owned(), ..NeverTo::default() };
    for item in list(&reader, "paths", "a list of paths such as { \"/srv/secret\" }", mistakes) {
        let path = text(&reader, "paths", &item, mistakes);
        if let Some(path) = path.as_deref().filter(|path| path.contains('*')) {
            let hint = "a path has no wildcards and counts with all below it: name the folder, or use match = { { pattern = … } }";
            reader.wrong("paths", &format!("'{}': {hint}", ShownText::new(path)), mistakes);
        }
        rules.paths.extend(path);
    }
    for item in
        list(&reader, "match", "a list such as { \"PRIVATE KEY\", { pattern = \"AKIA%w+\" } }", mistakes)
    {
        match &item {
            LuaValue::Table(entry) => {
                let inside = TableReader::new(entry, format!("never_to.{name}.match"), "match");
                inside.check_keys(&["pattern"], 0, mistakes);
                let pattern = text(&reader, "match", &inside.value("pattern"), mistakes);
                let fault = pattern.as_deref().and_then(NeverTo::fault_of_pattern);
                if let (Some(pattern), Some(fault)) = (&pattern, &fault) {
                    let what = format!("the pattern '{}': {fault}", ShownText::new(pattern));
                    reader.wrong("match", &what, mistakes);
                }
                rules.patterns.extend(pattern.filter(|_| fault.is_none()));
            }
            item => rules.texts.extend(text(&reader, "match", item, mistakes)),
        }
    }
    for item in list(&reader, "keys", "a list of names of clients such as { \"intern-*\" }", mistakes) {
        rules.keys.extend(text(&reader, "keys", &item, mistakes));
    }
    let form = "a table such as { [\"x-project\"] = \"secret*\" }";
    if let Some(headers) = reader.table("header", form, mistakes) {
        for key in keys(&headers) {
            let header = key.as_string().map(|name| name.to_string_lossy().to_ascii_lowercase());
            if let Some(name) = header.as_deref().filter(|name| !is_header_name(name)) {
                let what = format!(
                    "'{}' is not a valid header name, so no request would have it",
                    ShownText::new(name)
                );
                reader.wrong("header", &what, mistakes);
            }
            let value = text(&reader, "header", &headers.raw_get(key).unwrap_or(LuaValue::Nil), mistakes);
            match (header, value) {
                (Some(header), Some(value)) => rules.headers.push((header, value)),
                (None, _) => reader.wrong("header", &format!("expected {form}"), mistakes),
                (Some(_), None) => {}
            }
        }
    }
    if rules.paths.len() + rules.texts.len() + rules.patterns.len() > RULES_MAX {
        reader.wrong("match", &format!("more than {RULES_MAX} paths, texts and patterns"), mistakes);
    }
    if rules == (NeverTo { upstream: name.to_owned(), ..NeverTo::default() }) {
        mistakes.add(&[name], format!("never_to.{name}: has no rule; give paths, match, keys or header"));
    }
    rules
}

/// True for the characters of a token (RFC 9110, section 5.6.2).
fn is_header_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// The items of a list.
fn list(reader: &TableReader<'_>, key: &str, form: &str, mistakes: &mut Mistakes<'_>) -> Vec<LuaValue> {
    let Some(table) = reader.table(key, form, mistakes) else { return Vec::new() };
    if !is_list(&table) {
        // A rule that env "NAME" left out must not go unnoticed.
        reader.wrong(key, &format!("expected {form}, without gaps and other keys"), mistakes);
    }
    table.sequence_values::<LuaValue>().filter_map(Result::ok).collect()
}

/// One text of a rule.
fn text(
    reader: &TableReader<'_>,
    key: &str,
    value: &LuaValue,
    mistakes: &mut Mistakes<'_>,
) -> Option<String> {
    let Some(text) = value.as_string().map(|text| text.to_string_lossy()) else {
        reader.wrong(key, &format!("expected a string, got {}", describe(value)), mistakes);
        return None;
    };
    let too_long = || (text.len() > RULE_SIZE_MAX).then(|| format!("longer than {RULE_SIZE_MAX} bytes"));
    let fault = NeverTo::fault_of(&text).map(str::to_owned).or_else(too_long);
    if let Some(fault) = fault {
        reader.wrong(key, &fault, mistakes);
        return None;
    }
    Some(text)
}
