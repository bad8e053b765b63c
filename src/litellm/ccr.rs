//! claude-code-router's `config.json` -> Lua: its providers become upstreams, and its router the rules of
//! `hooks/examples/ccr.lua`, whose code is written below them.
//!
//! The file is JSON with comments. It is read as YAML, of which JSON is a part.

use super::KeyVerdict::{BuiltIn, Ignored, Mapped, Unsupported};
use super::error::ImportError;
use super::import::Import;
use super::lua::{key, quote};
use super::providers::NO_KEY;
use super::report::{Report, join};
use super::sources::Variable;
use super::summary::{OUTSIDE, key_words};
use super::yaml::{Content, Node, Scalar};
use crate::config::{self, Secret};

/// The rules of the router. The importer writes the two tables before them.
const EXAMPLE: &str = include_str!("../../hooks/examples/ccr.lua");

/// The first words of the line at which the rules begin.
const RULES: &str = "-- The rules,";

/// The most providers: each name is compared with the others.
const PROVIDERS_MAX: usize = 200;

/// The routes that have the same meaning in the example.
const ROUTES: [&str; 5] = ["default", "background", "think", "longContext", "image"];

/// Transformers that adapt a request to a server, as sparkgap does by itself.
const BUILT_IN: [&str; 12] = [
    "openrouter",
    "deepseek",
    "groq",
    "openai",
    "tooluse",
    "enhancetool",
    "reasoning",
    "cleancache",
    "sampling",
    "streamoptions",
    "openai-response",
    "extrathinktag",
];

/// The keys that always get the same verdict.
const KEYS: [(&str, super::KeyVerdict, &str); 13] = [
    ("HOST", Ignored, "start sparkgap serve with --listen HOST:PORT"),
    ("PORT", Ignored, "start sparkgap serve with --listen HOST:PORT"),
    (
        "APIKEY",
        Unsupported,
        "write it to a file of its own and start sparkgap serve with --api-key-file FILE",
    ),
    ("LOG", Ignored, "the log has one line per request; for more see sparkgap serve --help"),
    ("LOG_LEVEL", Ignored, "the log has one line per request; for more see sparkgap serve --help"),
    (
        "API_TIMEOUT_MS",
        Ignored,
        "not taken over: --first-byte-timeout (1800 s) and --idle-timeout (300 s) of sparkgap serve",
    ),
    (
        "PROXY_URL",
        Unsupported,
        "write http_proxy = \"http://HOST:PORT\" on each upstream that is reached through it",
    ),
    ("NON_INTERACTIVE_MODE", Ignored, "sparkgap starts no client"),
    ("CLAUDE_PATH", Ignored, "sparkgap claude finds Claude Code by itself"),
    ("CUSTOM_ROUTER_PATH", Unsupported, "write its rules into on_request of the Lua"),
    ("transformers", Unsupported, "code of your own becomes a hook (hooks/README.md)"),
    ("StatusLine", Ignored, "no status line"),
    ("fallback", Unsupported, "for each model write backup = on an alias, see docs/pool.md"),
];

/// True if the tree is a configuration of claude-code-router.
pub(super) fn is_one(root: &Node) -> bool {
    ["Providers", "Router"].iter().any(|name| field(root, name).is_some()) && root.get("model_list").is_none()
}

/// The value of a key that may be written in lower case, too, with its name.
fn field<'n>(root: &'n Node, name: &str) -> Option<(&'n str, &'n Node)> {
    root.entries()
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(key, node)| (key.as_str(), node))
}

/// One provider.
struct CcrProvider {
    name: String,
    lua: String,
    models: Vec<String>,
    /// The variable that holds its key.
    key: Option<String>,
    /// For the summary.
    line: String,
}

/// Translates the file.
///
/// # Errors
/// No provider can be served.
pub(super) fn translate(root: &Node, variable: Variable<'_>) -> Result<Import, ImportError> {
    let mut report = Report::default();
    KEYS.iter().for_each(|(key, verdict, note)| report.mark(*key, *verdict, *note));
    let mut environment = Vec::new();
    let mut providers = read_providers(root, &mut environment, &mut report)?;
    for CcrProvider { key, line, .. } in &mut providers {
        let is_unset = |name: &&String| {
            !environment.iter().any(|(known, _)| known == *name)
                && variable(name).is_none_or(|value| value.is_empty())
        };
        if let Some(name) = key.as_ref().filter(is_unset) {
            let words = key_words(Some(name), false);
            *line = line.replacen(&words, &format!("{words} (not set here)"), 1);
        }
    }
    let (routes, default) = read_router(root, &providers, &mut report)?;
    let mut lua = String::from(
        "-- Made from a claude-code-router configuration by `sparkgap import`. It is yours now: change it as you like.\nlocal upstreams = {\n",
    );
    providers.iter().for_each(|provider| lua.push_str(&provider.lua));
    lua.push_str("}\nlocal router = {\n");
    lua.push_str(&routes);
    lua.push_str("}\n");
    lua.push_str(EXAMPLE.find(RULES).and_then(|start| EXAMPLE.get(start..)).unwrap_or_default());
    let s = if providers.len() == 1 { "" } else { "s" };
    let mut summary = vec![format!("{} provider{s}; the default is {default}", providers.len())];
    summary.extend(providers.iter().take(8).map(|provider| provider.line.clone()));
    Ok(Import::of_another(lua, report.lines(root), summary, environment))
}

fn read_providers(
    root: &Node,
    environment: &mut Vec<(String, Secret)>,
    report: &mut Report,
) -> Result<Vec<CcrProvider>, ImportError> {
    let (name, list) = field(root, "Providers").ok_or_else(|| {
        root.error(
            "no Providers; expected claude-code-router's \"Providers\": [{\"name\": …, \"api_base_url\": …}]",
        )
    })?;
    let Content::List(items) = &list.content else { return Err(list.error("Providers must be a list")) };
    if items.len() > PROVIDERS_MAX {
        return Err(list.error(format!("{} providers; the limit is {PROVIDERS_MAX}", items.len())));
    }
    let mut providers: Vec<CcrProvider> = Vec::new();
    let mut reasons = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = format!("{name}[{i}]");
        match read_provider(&path, item, &providers, environment, report) {
            Ok(provider) => providers.push(provider),
            Err(why) => {
                report.mark(&path, Unsupported, format!("the provider is left out: {why}"));
                for (below, _) in item.entries() {
                    report.mark(join(&path, below), Unsupported, format!("the provider is left out: {why}"));
                }
                reasons.push(format!("{path}: {why}"));
            }
        }
    }
    if providers.is_empty() {
        return Err(list.error(match reasons.is_empty() {
            true => {
                "no provider can be served: Providers is empty; expected {\"name\": …, \"api_base_url\": …}"
                    .to_owned()
            }
            false => format!("no provider can be served; {}", reasons.join("; ")),
        }));
    }
    Ok(providers)
}

fn read_provider(
    path: &str,
    item: &Node,
    others: &[CcrProvider],
    environment: &mut Vec<(String, Secret)>,
    report: &mut Report,
) -> Result<CcrProvider, String> {
    let text = |key: &str| item.get(key).and_then(Node::text).map(str::trim).filter(|text| !text.is_empty());
    let name = text("name").ok_or("it has no name")?.to_owned();
    if name.contains(|c: char| c.is_control() || matches!(c, ',' | '/')) {
        return Err("its name has a comma, a slash or a control character; rename it".to_owned());
    }
    if others.iter().any(|other| other.name.eq_ignore_ascii_case(&name)) {
        return Err(format!("another provider is called {name}, too; claude-code-router takes the first"));
    }
    let mut uses = Vec::new();
    if let Some(transformer) = item.get("transformer") {
        read_transformers(&join(path, "transformer"), transformer, &mut uses, report);
    }
    let speaks_messages = uses.iter().any(|(name, _)| name.eq_ignore_ascii_case("anthropic"));
    let address =
        text("api_base_url").ok_or("it has no api_base_url; write http://HOST:PORT/v1/chat/completions")?;
    let (url, is_outside) = match variable(address) {
        Some(variable) => (format!("env {}", quote(variable)), false),
        None => {
            let url = base_url(address, speaks_messages)?;
            (quote(&url), config::host_outside(&url).is_some())
        }
    };
    report.mark(join(path, "name"), Mapped, format!("the upstream {name}"));
    report.mark(join(path, "api_base_url"), Mapped, format!("url = {url}"));
    report.mark(join(path, "models"), BuiltIn, "the server is asked for its models");
    let mut lua = format!("  {} = {{ url = {url}", key(&name));
    let key = read_key(path, text("api_key"), &name, environment, report);
    if let Some(variable) = &key {
        lua.push_str(&format!(", api_key = env {}", quote(variable)));
    }
    let was_literal = environment.iter().any(|(name, _)| key.as_ref() == Some(name));
    let words = key_words(key.as_deref(), was_literal);
    let mut line = format!("{name}: {}, {words}", url.trim_matches('"'));
    if speaks_messages {
        lua.push_str(", protocol = \"messages\"");
    }
    if let Some(max) = uses.iter().find_map(|(_, max)| *max) {
        lua.push_str(&format!(", max_tokens = {max}"));
    }
    lua.push_str(" },\n");
    if is_outside {
        line.push_str(&format!(": {OUTSIDE}"));
    }
    let models = match item.get("models").map(|node| &node.content) {
        Some(Content::List(models)) => models.iter().filter_map(Node::text).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    Ok(CcrProvider { name, lua, models, key, line })
}

/// The base URL of an upstream.
fn base_url(address: &str, speaks_messages: bool) -> Result<String, String> {
    const GEMINI: &str = "https://generativelanguage.googleapis.com/v1beta/models";
    const GEMINI_CHAT: &str = "https://generativelanguage.googleapis.com/v1beta/openai";
    let url = address.trim_end_matches('/').trim_end_matches("/chat/completions");
    match url {
        _ if speaks_messages => {
            config::messages_url(url.trim_end_matches("/messages").trim_end_matches("/v1"))
        }
        // Gemini's own API has chat completions beside it.
        GEMINI => config::base_url(GEMINI_CHAT),
        url => config::base_url(url),
    }
}

/// The variable that `$NAME` or `${NAME}` stands for.
fn variable(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let name = name.strip_prefix('{').map_or(Some(name), |name| name.strip_suffix('}'))?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then_some(name)
}

/// The variable with the provider's key.
fn read_key(
    path: &str,
    key: Option<&str>,
    name: &str,
    environment: &mut Vec<(String, Secret)>,
    report: &mut Report,
) -> Option<String> {
    let path = join(path, "api_key");
    let text = key.unwrap_or_default();
    if NO_KEY.contains(&text.to_ascii_lowercase().as_str()) {
        report.mark(path, Mapped, "no key is sent");
        return None;
    }
    if let Some(variable) = variable(text) {
        report.mark(path, Mapped, format!("env \"{variable}\""));
        return Some(variable.to_owned());
    }
    let word: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    let base = if word.starts_with(|c: char| c.is_ascii_digit()) {
        format!("KEY_{word}")
    } else {
        format!("{word}_KEY")
    };
    let is_taken = |name: &String| environment.iter().any(|(other, _)| other == name);
    let names = (1..).map(|n| if n == 1 { base.clone() } else { format!("{base}_{n}") });
    let variable = names.into_iter().find(|name| !is_taken(name)).unwrap_or_default();
    let note = format!(
        "keys do not belong in files that get shared: set {variable} in the service's environment, the Lua asks for it"
    );
    report.mark(path, Mapped, note);
    environment.push((variable.clone(), Secret::new(text)));
    Some(variable)
}

/// Collects the transformers under `use`, each with the cap on tokens that `maxtoken` has, and reports them.
fn read_transformers(path: &str, node: &Node, uses: &mut Vec<(String, Option<i64>)>, report: &mut Report) {
    for (key, value) in node.entries() {
        let path = join(path, key);
        let Content::List(items) = &value.content else {
            report.mark(&path, Unsupported, "transformers of single models are not taken over; write a hook");
            continue;
        };
        for (i, item) in items.iter().enumerate() {
            let path = format!("{path}[{i}]");
            let (name, settings) = match &item.content {
                Content::List(parts) => (parts.first().and_then(Node::text), parts.get(1)),
                _ => (item.text(), None),
            };
            let name = name.unwrap_or_default();
            let max = settings.and_then(|settings| settings.get("max_tokens")).and_then(Node::scalar);
            let max = match max {
                Some(Scalar::Int(max)) if name == "maxtoken" && max > 0 => Some(max),
                _ => None,
            };
            let (verdict, note) = match name {
                "maxtoken" if max.is_some() => (Mapped, "max_tokens of the upstream"),
                name if BUILT_IN.contains(&name) => {
                    (BuiltIn, "requests and answers are adapted to the server")
                }
                "gemini" => (Mapped, "asked by the chat completions beside that API"),
                name if name.eq_ignore_ascii_case("anthropic") => (Mapped, "the server has the Messages API"),
                _ => (Unsupported, "not known here; write a hook that does the same (hooks/README.md)"),
            };
            report.mark(path, verdict, note);
            uses.push((name.to_owned(), max));
        }
    }
}

/// The lines of the table `router`, and the default in words.
fn read_router(
    root: &Node,
    providers: &[CcrProvider],
    report: &mut Report,
) -> Result<(String, String), ImportError> {
    let (section, router) = field(root, "Router").ok_or_else(|| {
        root.error("no Router; expected claude-code-router's \"Router\": {\"default\": \"PROVIDER,MODEL\"}")
    })?;
    let mut lua = String::new();
    let mut default = None;
    for route in ROUTES {
        let Some(node) = router.get(route).filter(|node| !node.is_null()) else { continue };
        let path = join(section, route);
        let Some(text) = node.text().filter(|text| !text.trim().is_empty()) else {
            report.mark(path, Ignored, "empty");
            continue;
        };
        let (provider, model) = text.split_once(',').unwrap_or((text, ""));
        let (provider, model) = (provider.trim(), model.trim());
        let found = providers.iter().find(|other| other.name.eq_ignore_ascii_case(provider));
        let Some(found) = found.filter(|_| !model.is_empty()) else {
            report.mark(
                path,
                Unsupported,
                "expected \"PROVIDER,MODEL\" with a provider of this file that is served",
            );
            continue;
        };
        report.mark(path, Mapped, format!("the model {model} of {}", found.name));
        lua.push_str(&format!("  {route} = {{ {}, {} }},\n", quote(&found.name), quote(model)));
        if route == "default" {
            default = Some(format!("{model} of {}", found.name));
        }
    }
    if router.get("webSearch").is_some_and(|node| !matches!(node.text().map(str::trim), None | Some(""))) {
        let note = "no model is asked for a web search: set search = { searxng = \"http://HOST:PORT\" } in the Lua (docs/search.md)";
        report.mark(join(section, "webSearch"), Unsupported, note);
    } else {
        report.mark(join(section, "webSearch"), Ignored, "empty");
    }
    let threshold = router.get("longContextThreshold").and_then(Node::text);
    if let Some(tokens) = threshold.and_then(|text| text.trim().parse::<u32>().ok()) {
        report.mark(join(section, "longContextThreshold"), Mapped, "in tokens, which sparkgap estimates");
        lua.push_str(&format!("  longContextThreshold = {tokens},\n"));
    }
    if let Some(default) = default {
        return Ok((lua, default));
    }
    let first = providers.iter().find_map(|provider| Some((provider, provider.models.first()?)));
    let (provider, model) = first.ok_or_else(|| {
        router.error(
            "no default that can be served, and no provider with models; write default: \"PROVIDER,MODEL\"",
        )
    })?;
    lua.push_str(&format!("  default = {{ {}, {} }},\n", quote(&provider.name), quote(model)));
    Ok((lua, format!("{model} of {}, since the Router names none that can be served", provider.name)))
}

/// JSON with comments as plain JSON: comments and tabs outside of strings become blanks, and lines keep their numbers.
pub(super) fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let (mut in_string, mut escaped) = (false, false);
    while let Some(c) = chars.next() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            out.push(c);
        } else if c == '/' && chars.peek() == Some(&'/') {
            while chars.peek().is_some_and(|next| *next != '\n') {
                chars.next();
            }
        } else if c == '/' && chars.peek() == Some(&'*') {
            let mut before = ' ';
            for next in chars.by_ref() {
                if next == '\n' {
                    out.push('\n');
                }
                if before == '*' && next == '/' {
                    break;
                }
                before = next;
            }
        } else {
            in_string = c == '"';
            out.push(if c == '\t' { ' ' } else { c });
        }
    }
    out
}
