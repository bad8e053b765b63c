//! Reads the table of one file: its upstreams, aliases and hooks.
//!
//! Reading goes on after a mistake. Each file is read without the others; `load` combines them.

use std::time::Duration;

use mlua::{Function, Table, Value as LuaValue};

use super::super::kind::{Defined, Hook};
use super::super::nearest;
use super::super::table::{Mistakes, TableReader, describe, is_list, keys};
use super::connection::read_connection;
use super::limits::{read_limits, read_price};
use super::never_to::read_never_to;
use super::search::read_search;
use crate::cluster::ClusterKind;
use crate::config::{
    self, ClientLimits, SearchConfig, Secret, UpstreamAuth, UpstreamConfig, UpstreamProtocol, WakeTarget,
};
use crate::dialect::ServerKind;
use crate::policy::NeverTo;
use crate::route::{self, AliasMember, Price};
use crate::settings::{LateTools, LoopMode, Settings, SystemMessages, ThinkingMode};
use crate::shown::ShownText;

/// The version of the hook API.
const API_VERSION: i64 = 1;

/// The contents of one file.
#[derive(Default)]
pub(super) struct FileTable {
    pub(super) upstreams: Vec<UpstreamConfig>,
    pub(super) aliases: Vec<FileAlias>,
    pub(super) limits: Vec<ClientLimits>,
    pub(super) never_to: Vec<NeverTo>,
    pub(super) search: Option<SearchConfig>,
    pub(super) defined: Vec<(Defined, Function)>,
}

/// An alias whose upstream has not been looked up yet.
pub(super) struct FileAlias {
    pub(super) pattern: String,
    pub(super) members: Vec<AliasMember>,
    pub(super) backup: Vec<AliasMember>,
    pub(super) model: Option<String>,
    pub(super) price: Option<Price>,
    /// Its place in the file's list, from 1.
    pub(super) position: usize,
}

/// The keys of a file's table beside the hooks.
pub(in crate::hooks) const FILE_KEYS: [&str; 8] =
    ["api", "upstreams", "aliases", "keys", "never_to", "search", "policy", "on_event_types"];

/// Reads the table that a file has returned; `index` is the file's place among the files.
pub(super) fn read_table(table: &Table, index: usize, mistakes: &mut Mistakes<'_>) -> FileTable {
    let reader = TableReader::new(table, "", "");
    let known: Vec<&str> = FILE_KEYS.into_iter().chain(Hook::ALL.map(Hook::name)).collect();
    reader.check_keys(&known, 0, mistakes);
    match reader.value("api") {
        LuaValue::Nil | LuaValue::Integer(API_VERSION) => {}
        other => reader.wrong(
            "api",
            &format!("this version of sparkgap has hook API {API_VERSION}, got {}", describe(&other)),
            mistakes,
        ),
    }
    let mut file = FileTable::default();
    let example = "a table of upstreams such as { spark = { url = \"http://…\" } }";
    if let Some(upstreams) = reader.table("upstreams", example, mistakes) {
        file.upstreams = read_upstreams(&upstreams, mistakes);
    }
    let example = "a list of aliases such as { { \"claude-*\", upstream = \"spark\" } }";
    if let Some(aliases) = reader.table("aliases", example, mistakes) {
        file.aliases = read_aliases(&aliases, mistakes);
    }
    let example = "a table by the owners of keys such as { anna = { max_in_flight = 3 } }";
    if let Some(limits) = reader.table("keys", example, mistakes) {
        file.limits = read_limits(&limits, mistakes);
    }
    let example = "a table by upstream such as { cloud = { paths = { \"/srv/secret\" } } }";
    if let Some(rules) = reader.table("never_to", example, mistakes) {
        file.never_to = read_never_to(&rules, mistakes);
    }
    let example = "a table such as { searxng = \"http://box:8888\" }";
    file.search = reader.table("search", example, mistakes).and_then(|table| read_search(&table, mistakes));
    file.defined = read_hooks(&reader, index, mistakes);
    file
}

fn read_upstreams(table: &Table, mistakes: &mut Mistakes<'_>) -> Vec<UpstreamConfig> {
    let mut upstreams = Vec::new();
    for key in keys(table) {
        let LuaValue::String(name) = &key else {
            mistakes
                .add(&["upstreams"], "upstreams: each one has a name: { spark = { url = \"http://…\" } }");
            continue;
        };
        let name = name.to_string_lossy();
        match table.raw_get(key) {
            Ok(LuaValue::Table(entry)) => upstreams.extend(read_upstream(&name, &entry, mistakes)),
            other => {
                let got = describe(&other.unwrap_or(LuaValue::Nil));
                mistakes.add(
                    &[&name],
                    format!("upstreams.{name}: expected a table such as {{ url = \"http://…\" }}, got {got}"),
                );
            }
        }
    }
    upstreams
}

/// The keys of an upstream.
pub(in crate::hooks) const UPSTREAM_KEYS: [&str; 33] = [
    "url",
    "protocol",
    "auth",
    "api_key",
    "model",
    "headers",
    "http_proxy",
    "ca_file",
    "tls_verify",
    "timeout",
    "max_tokens",
    "window",
    "flavour",
    "thinking",
    "vision",
    "system_messages",
    "preserve_thinking",
    "thinking_budget",
    "coerce_arguments",
    "rescue_tool_calls",
    "loops",
    "think_tags",
    "thinking_in_text",
    "never_empty",
    "late_tools",
    "user_id",
    "max_in_flight",
    "drain",
    "wake",
    "cluster",
    "allow_extra",
    "image_schemes",
    "auto_mode",
];

/// The longest time limit of an upstream, in seconds: a day. An answer that takes longer has no reader.
const TIMEOUT_MAX_S: u64 = 86_400;

fn read_upstream(name: &str, table: &Table, mistakes: &mut Mistakes<'_>) -> Option<UpstreamConfig> {
    let reader = TableReader::new(table, format!("upstreams.{name}"), name);
    reader.check_keys(&UPSTREAM_KEYS, 0, mistakes);
    let timeout = reader.count("timeout", TIMEOUT_MAX_S, mistakes);
    let api_key = reader.text("api_key", "a string such as env \"SPARK_KEY\", or \"none\"", mistakes);
    let api_key = api_key.filter(|key| !key.is_empty() && key != "none");
    let model = reader.text("model", "a model's name as a string", mistakes);
    let max_in_flight = reader.count("max_in_flight", u64::from(u32::MAX), mistakes);
    let auto_mode = reader.boolean("auto_mode", mistakes);
    let drain = reader.boolean("drain", mistakes).unwrap_or(false);
    let wake = read_wake(&reader, mistakes);
    let cluster = reader.choice("cluster", &ClusterKind::NAMES, mistakes);
    let settings = read_settings(&reader, mistakes);
    let protocol = reader.choice("protocol", &UpstreamProtocol::NAMES, mistakes).unwrap_or_default();
    let auth = reader.choice("auth", &UpstreamAuth::NAMES, mistakes).unwrap_or_default();
    let connection = read_connection(&reader, api_key.is_some(), mistakes);
    let before = mistakes.list.len();
    let url = reader.text("url", "a string such as \"http://192.168.68.155:8888/v1\"", mistakes);
    let Some(url) = url else {
        if mistakes.list.len() == before {
            reader.wrong("url", "is missing; for example url = \"http://192.168.68.155:8888/v1\"; env \"NAME\" gives nothing where that variable is not set", mistakes);
        }
        return None;
    };
    let url = match protocol {
        UpstreamProtocol::Messages => config::messages_url(&url),
        UpstreamProtocol::Chat => config::base_url(&url),
    };
    let url = url.map_err(|what| reader.wrong("url", &what, mistakes)).ok()?;
    check_auth(&reader, (protocol, auth), (&url, api_key.is_some()), mistakes);
    Some(UpstreamConfig {
        name: name.to_owned(),
        url,
        protocol,
        auth,
        api_key: api_key.map(Secret::new),
        model,
        max_in_flight: max_in_flight.and_then(|n| u32::try_from(n).ok()),
        auto_mode,
        timeout: timeout.map(Duration::from_secs),
        drain,
        wake,
        cluster,
        connection,
        settings,
    })
}

/// Checks whose key an upstream gets.
fn check_auth(
    reader: &TableReader<'_>,
    (protocol, auth): (UpstreamProtocol, UpstreamAuth),
    (url, has_key): (&str, bool),
    mistakes: &mut Mistakes<'_>,
) {
    if auth == UpstreamAuth::Own {
        return;
    }
    if protocol != UpstreamProtocol::Messages {
        reader.wrong("auth", "\"client\" needs protocol = \"messages\"", mistakes);
    }
    if has_key {
        reader.wrong("auth", "\"client\" and api_key exclude each other; remove one of them", mistakes);
    }
    if let Some(fault) = UpstreamAuth::fault_of(url) {
        reader.wrong("auth", &fault, mistakes);
    }
}

/// Reads the network card that a magic packet wakes.
fn read_wake(reader: &TableReader<'_>, mistakes: &mut Mistakes<'_>) -> Option<WakeTarget> {
    let text = reader.text("wake", WakeTarget::FORM, mistakes)?;
    let target = WakeTarget::parse(&text);
    if target.is_none() {
        let got = ShownText::new(&text);
        reader.wrong("wake", &format!("expected {}, got \"{got}\"", WakeTarget::FORM), mistakes);
    }
    target
}

fn read_settings(reader: &TableReader<'_>, mistakes: &mut Mistakes<'_>) -> Settings {
    const TOKENS_MAX: u64 = 1_000_000_000;
    let thinking = [(ThinkingMode::Off, "off"), (ThinkingMode::On, "on"), (ThinkingMode::Auto, "auto")];
    let system_messages = [(SystemMessages::Fold, "fold"), (SystemMessages::Keep, "keep")];
    let loops = [(LoopMode::Off, "off"), (LoopMode::Warn, "warn"), (LoopMode::Break, "break")];
    let late_tools = [(LateTools::Declare, "declare"), (LateTools::Text, "text")];
    let default = Settings::default();
    Settings {
        flavour: reader.choice("flavour", &ServerKind::NAMES, mistakes),
        window: reader.count("window", TOKENS_MAX, mistakes),
        max_tokens: reader.count("max_tokens", TOKENS_MAX, mistakes),
        thinking: reader.choice("thinking", &thinking, mistakes).unwrap_or(default.thinking),
        vision: reader.boolean("vision", mistakes).unwrap_or(default.vision),
        system_messages: reader
            .choice("system_messages", &system_messages, mistakes)
            .unwrap_or(default.system_messages),
        preserve_thinking: reader.boolean("preserve_thinking", mistakes).unwrap_or(default.preserve_thinking),
        thinking_budget: reader.boolean("thinking_budget", mistakes),
        coerce_arguments: reader.boolean("coerce_arguments", mistakes).unwrap_or(default.coerce_arguments),
        rescue_tool_calls: reader.boolean("rescue_tool_calls", mistakes).unwrap_or(default.rescue_tool_calls),
        thinking_in_text: reader.boolean("thinking_in_text", mistakes).unwrap_or(default.thinking_in_text),
        foreign_thinking: default.foreign_thinking,
        think_tags: reader.boolean("think_tags", mistakes).unwrap_or(default.think_tags),
        never_empty: reader.boolean("never_empty", mistakes).unwrap_or(default.never_empty),
        loops: reader.choice("loops", &loops, mistakes).unwrap_or(default.loops),
        late_tools: reader.choice("late_tools", &late_tools, mistakes).unwrap_or(default.late_tools),
        user_id: reader.boolean("user_id", mistakes).unwrap_or(default.user_id),
        allow_extra: reader
            .words("allow_extra", "a list of names such as { \"priority\" }", mistakes)
            .unwrap_or(default.allow_extra),
        image_schemes: reader
            .words("image_schemes", "a list of words such as { \"https\", \"data\" }", mistakes)
            .unwrap_or(default.image_schemes),
        web_search: default.web_search,
    }
}

fn read_aliases(table: &Table, mistakes: &mut Mistakes<'_>) -> Vec<FileAlias> {
    let mut aliases = Vec::new();
    for (i, key) in keys(table).into_iter().enumerate() {
        let position = i + 1;
        if key.as_usize() != Some(position) {
            mistakes.add(
                &["aliases"],
                format!(
                    "aliases: expected a list of {{ \"pattern\", upstream = \"…\" }}, got the key {}",
                    describe(&key)
                ),
            );
            continue;
        }
        match table.raw_get(key) {
            Ok(LuaValue::Table(entry)) => aliases.extend(read_alias(position, &entry, mistakes)),
            other => {
                let got = describe(&other.unwrap_or(LuaValue::Nil));
                mistakes.add(
                    &["aliases"],
                    format!("alias {position}: expected {{ \"pattern\", upstream = \"…\" }}, got {got}"),
                );
            }
        }
    }
    aliases
}

fn read_alias(position: usize, table: &Table, mistakes: &mut Mistakes<'_>) -> Option<FileAlias> {
    let first: LuaValue = table.raw_get(1).unwrap_or(LuaValue::Nil);
    let landmark = first.as_string().map(|text| text.to_string_lossy()).unwrap_or_default();
    let reader = TableReader::new(table, format!("alias {position}"), landmark.as_str());
    reader.check_keys(&["upstream", "backup", "model", "price"], 1, mistakes);
    let members = read_members(&reader, "upstream", mistakes);
    let backup = read_members(&reader, "backup", mistakes);
    if let Some(again) = backup.iter().find(|it| members.iter().any(|other| other.upstream == it.upstream)) {
        let again =
            format!("names the upstream '{}', which `upstream` names already; name it once", again.upstream);
        reader.wrong("backup", &again, mistakes);
    }
    let model = reader.text("model", "a model's name as a string", mistakes);
    let price = read_price(&reader, mistakes);
    if !first.is_string() {
        let got = describe(&first);
        mistakes.add(
            &["aliases"],
            format!(
                "alias {position}: its first item is the pattern, a string such as \"claude-*\"; got {got}"
            ),
        );
        return None;
    }
    if !route::is_name(&landmark) {
        mistakes.add(
            &["aliases"],
            format!("alias {position}: the pattern \"{}\" can match no model name", landmark.escape_debug()),
        );
        return None;
    }
    if let Some(plain) = route::plain_pattern(&landmark) {
        mistakes.add(
            &[&landmark, "aliases"],
            format!(
                "alias {position}: the pattern \"{landmark}\" is a regular expression, which no name matches; here * alone matches any run of characters: \"{plain}\""
            ),
        );
        return None;
    }
    Some(FileAlias { pattern: landmark, members, backup, model, price, position })
}

/// The form of the upstreams of an alias.
const MEMBERS_FORM: &str =
    "the name of an upstream, or a list such as { \"spark1\", { \"small\", model = \"qwen3:8b\" } }";

/// Reads the upstreams of an alias: one name, or a list of names and of tables `{ "name", model = "…" }`.
fn read_members(reader: &TableReader<'_>, key: &str, mistakes: &mut Mistakes<'_>) -> Vec<AliasMember> {
    let list = match reader.value(key) {
        LuaValue::Nil => return Vec::new(),
        LuaValue::String(name) => return vec![AliasMember::new(name.to_string_lossy())],
        LuaValue::Table(list) => list,
        other => {
            reader.wrong(key, &format!("expected {MEMBERS_FORM}, got {}", describe(&other)), mistakes);
            return Vec::new();
        }
    };
    let mut members: Vec<AliasMember> = Vec::new();
    if !is_list(&list) {
        reader.wrong(key, &format!("expected {MEMBERS_FORM}"), mistakes);
        return members;
    }
    for item in list.sequence_values::<LuaValue>() {
        let member = match item {
            Ok(LuaValue::String(name)) => AliasMember::new(name.to_string_lossy()),
            Ok(LuaValue::Table(entry)) => match read_member(reader, key, &entry, mistakes) {
                Some(member) => member,
                None => continue,
            },
            other => {
                let got = describe(&other.unwrap_or(LuaValue::Nil));
                reader.wrong(key, &format!("expected {MEMBERS_FORM}, got {got} in the list"), mistakes);
                continue;
            }
        };
        if members.iter().any(|other| other.upstream == member.upstream) {
            let twice = format!("names the upstream '{}' twice; name it once", member.upstream);
            reader.wrong(key, &twice, mistakes);
        } else {
            members.push(member);
        }
    }
    members
}

/// Reads `{ "name", model = "…" }`.
fn read_member(
    reader: &TableReader<'_>,
    key: &str,
    entry: &Table,
    mistakes: &mut Mistakes<'_>,
) -> Option<AliasMember> {
    let inside = TableReader::new(entry, format!("an item of {key}"), key);
    inside.check_keys(&["model"], 1, mistakes);
    let model = inside.text("model", "a model's name as a string", mistakes);
    let Ok(LuaValue::String(name)) = entry.raw_get(1) else {
        reader.wrong(
            key,
            "each table in the list begins with an upstream's name: { \"small\", model = \"qwen3:8b\" }",
            mistakes,
        );
        return None;
    };
    Some(AliasMember { upstream: name.to_string_lossy(), model })
}

fn read_hooks(
    reader: &TableReader<'_>,
    file: usize,
    mistakes: &mut Mistakes<'_>,
) -> Vec<(Defined, Function)> {
    let policies = [(false, "open"), (true, "closed")];
    let file_is_closed = reader.choice("policy", &policies, mistakes).unwrap_or(false);
    let event_types = read_event_types(reader, mistakes);
    let mut found = Vec::new();
    for hook in Hook::ALL {
        let (function, closed) = match reader.value(hook.name()) {
            LuaValue::Nil => continue,
            LuaValue::Function(function) => (function, file_is_closed),
            LuaValue::Table(table) => {
                let reader = TableReader::new(&table, hook.name(), hook.name());
                reader.check_keys(&["policy", "run"], 0, mistakes);
                let closed = reader.choice("policy", &policies, mistakes).unwrap_or(file_is_closed);
                let LuaValue::Function(function) = reader.value("run") else {
                    reader.wrong(
                        "run",
                        &format!("expected a function, got {}", describe(&reader.value("run"))),
                        mistakes,
                    );
                    continue;
                };
                (function, closed)
            }
            other => {
                let form = "a function, or { policy = \"closed\", run = function … end }";
                reader.wrong(hook.name(), &format!("expected {form}, got {}", describe(&other)), mistakes);
                continue;
            }
        };
        let line = function.info().line_defined.and_then(|line| u32::try_from(line).ok());
        let event_types = if hook == Hook::Event { event_types.clone() } else { None };
        found.push((Defined { hook, file, line, closed, event_types }, function));
    }
    found
}

/// The types of events that `on_event` sees.
pub(in crate::hooks) const EVENT_TYPES: [&str; 4] = ["text", "thinking", "tool_use", "end"];

fn read_event_types(reader: &TableReader<'_>, mistakes: &mut Mistakes<'_>) -> Option<Vec<String>> {
    let table = reader.table("on_event_types", "a list such as { \"text\" }", mistakes)?;
    let types: Result<Vec<String>, _> = table
        .sequence_values::<LuaValue>()
        .map(|item| match item {
            Ok(LuaValue::String(text)) => Ok(text.to_string_lossy()),
            other => Err(describe(&other.unwrap_or(LuaValue::Nil))),
        })
        .collect();
    match types {
        Ok(types) if types.len() == keys(&table).len() => {
            if let Some(unknown) = types.iter().find(|name| !EVENT_TYPES.contains(&name.as_str())) {
                let what = nearest::unknown("there is no event type", unknown, &EVENT_TYPES);
                reader.wrong("on_event_types", &what, mistakes);
            }
            Some(types)
        }
        Ok(_) => {
            reader.wrong("on_event_types", "expected a list such as { \"text\" }", mistakes);
            None
        }
        Err(got) => {
            reader.wrong("on_event_types", &format!("expected strings, got {got}"), mistakes);
            None
        }
    }
}
