//! `check`: shows the upstreams, aliases and hooks of a configuration.

use std::fmt::Write as _;

use super::arguments::Check;
use super::output::{Failed, note, print, print_failure, print_json};
use super::serve::HALF_TLS;
use crate::app::{DEMO, Sources};
use crate::config::{self, Config, UpstreamAuth, UpstreamConfig, UpstreamProtocol};
use crate::hooks::Loaded;
use crate::json::Value;
use crate::litellm;
use crate::policy::NeverTo;
use crate::route::{Alias, AliasMember};
use crate::server::ServerTls;
use crate::shown::ShownText;
use crate::transport::{CallLimits, Endpoint};

/// A placeholder for the address of the demo upstream, which has an address only while it runs.
const DEMO_URL: &str = "http://127.0.0.1/v1";

/// `sparkgap check`. With `--json` a failure is an object on stdout, too.
pub(super) fn check(typed: Check) -> Result<(), Failed> {
    let json = typed.json;
    checked(typed).inspect_err(|failed| {
        if json {
            print_failure(failed);
        }
    })
}

fn checked(typed: Check) -> Result<(), Failed> {
    let url = |url: String| if url == DEMO { DEMO_URL.to_string() } else { url };
    let sources = Sources {
        upstreams: typed.upstream.into_iter().map(url).collect(),
        upstream_key_file: typed.upstream_key_file,
        hooks: typed.hooks,
        unsafe_hooks: typed.unsafe_hooks,
        litellm: typed.litellm,
    };
    match (typed.tls_cert, typed.tls_key) {
        (Some(certificate), Some(key)) => _ = ServerTls::load(certificate, key)?,
        (None, None) => {}
        _ => return Err(HALF_TLS.to_owned()),
    }
    let (loaded, summary) = sources.load_with_summary()?;
    for upstream in &loaded.config.upstreams {
        // Reads its file of authorities and checks its headers, as a start does.
        Endpoint::new(upstream, &CallLimits::default())?;
    }
    match typed.json {
        true => print_json(&as_json(&loaded)),
        false => print(&as_text(&loaded)),
    }
    // On stderr, so that the JSON on stdout stays whole.
    summary.iter().filter(|line| litellm::is_loss(line)).for_each(|line| note(&format!("{line}\n")));
    Ok(())
}

fn as_text(loaded: &Loaded) -> String {
    let mut text = String::from("upstreams\n");
    for (i, upstream) in loaded.config.upstreams.iter().enumerate() {
        let is_passed = upstream.protocol == UpstreamProtocol::Messages;
        let open = if is_passed { "the client's own names of models" } else { "its first model" };
        let model = ShownText::new(upstream.model.as_deref().unwrap_or(open));
        let key = match (upstream.auth, &upstream.api_key) {
            (UpstreamAuth::Client, _) => "each client's own key",
            (UpstreamAuth::Own, Some(_)) => "with a key",
            (UpstreamAuth::Own, None) => "no key",
        };
        let default = if i == 0 { ", the default" } else { "" };
        let name = ShownText::new(&upstream.name).to_string();
        let _ = writeln!(text, "  {name:16} {} ({model}, {key}{default})", upstream.url);
        let before = loaded.config.upstreams.iter().take(i).find(|other| other.url == upstream.url);
        if let Some(other) = before {
            let _ = writeln!(text, "  {:16} the address of {} as well", "", ShownText::new(&other.name));
        }
        if is_passed {
            let _ = writeln!(text, "  {:16} it speaks the Messages API: requests pass as they are", "");
        }
        for doubt in upstream.doubts() {
            let _ = writeln!(text, "  {:16} warning: {doubt}", "");
        }
        if let Some(target) = upstream.wake {
            let _ = writeln!(text, "  {:16} a magic packet to {target} wakes it", "");
        }
        if let Some(cluster) = upstream.cluster {
            let _ = writeln!(text, "  {:16} it is a cluster: {}", "", cluster.name());
        }
        add_connection(upstream, &mut text);
        for rules in loaded.config.never_to.iter().filter(|rules| rules.upstream == upstream.name) {
            let _ = writeln!(text, "  {:16} never_to: {}", "", rules_of(rules));
        }
        if let Some(host) = config::host_outside(&upstream.url) {
            let _ = writeln!(text, "  {:16} {}", "", config::leaves_the_lan(host));
        }
    }
    text.push_str("aliases, the first match wins\n");
    let config = &loaded.config;
    for alias in &config.aliases {
        let _ = writeln!(text, "  {:32} -> {}", alias.pattern, destinations(config, alias));
    }
    text.push_str("hooks\n");
    for place in loaded.hooks.places() {
        let line = place.line.map(|line| format!(":{line}")).unwrap_or_default();
        let policy = if place.closed { " (policy closed)" } else { "" };
        let _ = writeln!(text, "  {:20} {}{line}{policy}", place.hook.name(), place.file);
    }
    let unset = loaded.hooks.unset_variables();
    if !unset.is_empty() {
        let unset = unset.iter().map(|name| ShownText::new(name).to_string()).collect::<Vec<_>>().join(", ");
        let _ =
            writeln!(text, "environment variables that the Lua asks for and that are not set here: {unset}");
    }
    let _ = writeln!(text, "hash {}", loaded.hooks.hash());
    text
}

/// Adds lines on how the connections to an upstream are made, if that is not the usual way.
fn add_connection(upstream: &UpstreamConfig, text: &mut String) {
    let connection = &upstream.connection;
    let mut add = |line: String| _ = writeln!(text, "  {:16} {line}", "");
    if !connection.headers.is_empty() {
        let names: Vec<&str> = connection.headers.iter().map(|(name, _)| name.as_str()).collect();
        add(format!("it gets the headers {}", names.join(", ")));
    }
    if let Some(proxy) = &connection.http_proxy {
        add(format!("through the proxy {proxy}"));
    }
    let is_secure = upstream.url.starts_with("https://");
    match &connection.ca_file {
        _ if !is_secure => {}
        Some(file) if connection.verifies_tls => {
            add(format!("its certificate is checked against {}", file.display()));
        }
        Some(_) => {
            add("its certificate is not checked (tls_verify = false), so ca_file has no effect".into());
        }
        None if connection.verifies_tls => {}
        None => add("its certificate is not checked (tls_verify = false)".into()),
    }
    if !is_secure && (connection.ca_file.is_some() || !connection.verifies_tls) {
        add("ca_file and tls_verify have no effect: its URL begins with http://".into());
    }
}

/// The rules that keep requests from an upstream: `/srv/secret, "BEGIN PRIVATE KEY", pattern AKIA%u+, key intern-*, header
/// x-project: secret*`.
fn rules_of(rules: &NeverTo) -> String {
    let shown = |text: &str| ShownText::new(text).to_string();
    let paths = rules.paths.iter().map(|path| shown(path));
    let texts = rules.texts.iter().map(|text| format!("\"{}\"", shown(text)));
    let patterns = rules.patterns.iter().map(|pattern| format!("pattern {}", shown(pattern)));
    let keys = rules.keys.iter().map(|key| format!("key {}", shown(key)));
    let headers =
        rules.headers.iter().map(|(name, value)| format!("header {}: {}", shown(name), shown(value)));
    paths.chain(texts).chain(patterns).chain(keys).chain(headers).collect::<Vec<_>>().join(", ")
}

/// The upstreams of an alias with their models: `spark1 qwen3, spark2 qwen3; backup small qwen3:8b`.
fn destinations(config: &Config, alias: &Alias) -> String {
    let one = |upstream: &str, model: Option<&str>| {
        let passes =
            |own: &&UpstreamConfig| own.name == upstream && own.protocol == UpstreamProtocol::Messages;
        let own = match config.upstreams.iter().find(passes).map(|own| own.model.is_none()) {
            Some(true) => "the client's name of the model",
            _ => "its own model",
        };
        format!("{} {}", ShownText::new(upstream), ShownText::new(model.unwrap_or(own)))
    };
    let list = |members: &[AliasMember]| {
        let shown = members.iter().map(|member| one(&member.upstream, config.model_of(alias, member)));
        shown.collect::<Vec<_>>().join(", ")
    };
    let mut text = match alias.members.as_slice() {
        [] => one(config.upstream_of(alias).unwrap_or_default(), alias.model.as_deref()),
        members => list(members),
    };
    if alias.members.is_empty() && config.upstreams.len() > 1 {
        text.push_str("; all upstreams that list the model share its requests");
    }
    if !alias.backup.is_empty() {
        let _ = write!(text, "; backup {}", list(&alias.backup));
    }
    text
}

/// The word in the configuration for a value.
fn word<T: Copy + PartialEq>(value: T, names: &[(T, &'static str)]) -> Value<'static> {
    names.iter().find(|(known, _)| *known == value).map_or(Value::Null, |(_, name)| (*name).into())
}

fn as_json(loaded: &Loaded) -> Value<'_> {
    let text = |text: &Option<String>| text.clone().map_or(Value::Null, Value::from);
    let upstreams = loaded.config.upstreams.iter().map(|upstream| {
        Value::object([
            ("name", upstream.name.clone().into()),
            ("url", upstream.url.clone().into()),
            ("model", text(&upstream.model)),
            ("protocol", word(upstream.protocol, &UpstreamProtocol::NAMES)),
            ("auth", word(upstream.auth, &UpstreamAuth::NAMES)),
            ("has_key", upstream.api_key.is_some().into()),
            ("warnings", upstream.doubts().into_iter().map(Value::from).collect::<Vec<_>>().into()),
            ("wake", upstream.wake.map_or(Value::Null, |target| target.to_string().into())),
            ("cluster", upstream.cluster.map_or(Value::Null, |cluster| cluster.name().into())),
            ("leaves_the_lan", config::host_outside(&upstream.url).is_some().into()),
        ])
    });
    let aliases = loaded.config.aliases.iter().map(|alias| loaded.config.alias_value(alias));
    let list =
        |texts: &[String]| Value::from(texts.iter().map(|text| text.clone().into()).collect::<Vec<_>>());
    let never_to = loaded.config.never_to.iter().map(|rules| {
        let header = |(name, value): &(String, String)| Value::from(format!("{name}: {value}"));
        Value::object([
            ("upstream", rules.upstream.clone().into()),
            ("paths", list(&rules.paths)),
            ("match", list(&rules.texts)),
            ("patterns", list(&rules.patterns)),
            ("keys", list(&rules.keys)),
            ("header", rules.headers.iter().map(header).collect::<Vec<_>>().into()),
        ])
    });
    let hooks = loaded.hooks.places().into_iter().map(|place| {
        Value::object([
            ("hook", place.hook.name().into()),
            ("file", place.file.into()),
            ("line", place.line.map_or(Value::Null, |line| u64::from(line).into())),
            ("policy", if place.closed { "closed" } else { "open" }.into()),
        ])
    });
    Value::object([
        ("upstreams", upstreams.collect::<Vec<_>>().into()),
        ("aliases", aliases.collect::<Vec<_>>().into()),
        ("never_to", never_to.collect::<Vec<_>>().into()),
        ("hooks", hooks.collect::<Vec<_>>().into()),
        ("unset_variables", list(&loaded.hooks.unset_variables())),
        ("hash", loaded.hooks.hash().to_string().into()),
    ])
}
