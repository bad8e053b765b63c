//! llama-swap's `config.yaml` -> Lua: one upstream, llama-swap itself, and an alias for each of its names.
//!
//! llama-swap starts the models, and applies its filters and profiles to what it gets. So names are passed on as they
//! are, and the Lua repeats none of its settings.

use super::KeyVerdict::{BuiltIn, Ignored, Mapped, Unsupported};
use super::error::ImportError;
use super::import::Import;
use super::lua::quote;
use super::report::{Report, join};
use super::summary::key_words;
use super::yaml::{Content, Node};
use crate::config::Secret;
use crate::route;

/// The address at which llama-swap listens unless it is told otherwise.
const ADDRESS: &str = "http://127.0.0.1:8080/v1";

/// The variable with one of its keys.
const KEY: &str = "LLAMA_SWAP_KEY";

/// The most names, models and their other names together.
const NAMES_MAX: usize = 2000;

/// The most macros of one command that are looked at.
const MACROS_MAX: usize = 64;

const MODEL_ID: &str = "${MODEL_ID}";

/// True if the tree is a configuration of llama-swap.
pub(super) fn is_one(root: &Node) -> bool {
    let models = root.get("models").map(Node::entries).unwrap_or_default();
    let is_model = |model: &Node| ["cmd", "proxy"].iter().any(|key| model.get(key).is_some());
    root.get("model_list").is_none()
        && (root
            .get("models")
            .is_some_and(|models| models.entries().is_empty() && matches!(models.content, Content::Map(_)))
            || models.iter().any(|(_, model)| is_model(model))
            || root.get("peers").is_some())
}

/// Translates the file.
///
/// # Errors
/// It names no model, or more than 2,000.
pub(super) fn translate(root: &Node) -> Result<Import, ImportError> {
    let mut report = Report::default();
    for (section, _) in root.entries() {
        report.mark(section, BuiltIn, "llama-swap does it");
    }
    let macros = root.get("macros").map(Node::entries).unwrap_or_default();
    let (mut names, mut chat) = (Vec::new(), Vec::new());
    for (id, model) in root.get("models").map(Node::entries).unwrap_or_default() {
        let path = join("models", id);
        let first = names.len();
        add(id, &mut names);
        report.mark(&path, BuiltIn, "llama-swap does it");
        let aliases = model.get("aliases");
        items(aliases).for_each(|alias| add(alias, &mut names));
        let by_id = model.get("filters").and_then(|filters| filters.get("setParamsByID"));
        for (name, _) in by_id.map(Node::entries).unwrap_or_default() {
            add(&name.replace(MODEL_ID, id), &mut names);
        }
        for (i, alias) in items(aliases).enumerate() {
            let alias_path = format!("{}[{i}]", join(&path, "aliases"));
            match is_usable(alias) {
                true => report.mark(alias_path, Mapped, "a name of its own"),
                false => report.mark(alias_path, Unsupported, NO_NAME),
            }
        }
        report.mark(join(&path, "filters"), BuiltIn, "llama-swap applies them to what sparkgap sends");
        if is_chat(id, model, macros) {
            chat.extend(names.get(first).cloned());
        }
    }
    let peers = root.get("peers").map(Node::entries).unwrap_or_default().iter();
    peers.flat_map(|(_, peer)| items(peer.get("models"))).for_each(|name| add(name, &mut names));
    for (name, _) in root.get("selectors").map(Node::entries).unwrap_or_default() {
        add(name, &mut names);
    }
    let (Some(first), true) = (chat.first().or(names.first()).cloned(), names.len() <= NAMES_MAX) else {
        return Err(root.error(format!(
            "expected models, at most {NAMES_MAX} names with their aliases; got {}",
            names.len()
        )));
    };
    let key = items(root.get("apiKeys")).next();
    let environment = key.filter(|key| !key.contains("${")).map(|key| (KEY.to_owned(), Secret::new(key)));
    report.mark(
        "apiKeys",
        Ignored,
        "sparkgap sends the first one alone; keys for its own clients: --api-key-file FILE",
    );
    report.mark("apiKeys[0]", Mapped, format!("sparkgap sends the one in the variable {KEY}"));
    report.mark("macros", Ignored, "llama-swap fills them in");
    let with_key = key_words(key.map(|_| KEY), false);
    let summary = vec![
        format!("{} names of llama-swap; any other name goes to {first}", names.len()),
        format!("llama_swap: {ADDRESS}, {with_key}; write its address there, if that is another one"),
    ];
    let lua = write(&names, &first, key.is_some());
    Ok(Import::of_another(lua, report.lines(root), summary, environment.into_iter().collect()))
}

fn write(names: &[String], first: &str, has_key: bool) -> String {
    let api_key = if has_key { format!(", api_key = env {}", quote(KEY)) } else { String::new() };
    let mut lua = format!(
        "-- Made from a llama-swap configuration by `sparkgap import`. It is yours now: change it as you like.\n\
         -- llama-swap starts the models and applies its filters; a name is passed on as it is.\n\
         return {{\n  api = 1,\n\n  upstreams = {{\n    llama_swap = {{ url = {}{api_key} }},\n  }},\n\n  aliases = {{\n",
        quote(ADDRESS)
    );
    for name in names {
        let name = quote(name);
        lua.push_str(&format!("    {{ {name}, upstream = \"llama_swap\", model = {name} }},\n"));
    }
    let first = quote(first);
    lua.push_str(&format!(
        "    -- Claude Code's own names: one model for all of them avoids swaps.\n    {{ \"*\", upstream = \"llama_swap\", model = {first} }},\n  }},\n}}\n"
    ));
    lua
}

/// The note on an alias that cannot be a name here.
const NO_NAME: &str =
    "not a name here: it is empty, has a *, a macro or a blank at an end; add it to the aliases of the Lua";

fn is_usable(name: &str) -> bool {
    route::is_name(name) && !name.contains('*') && !name.contains("${")
}

/// Adds a name that clients can ask for, once. A `*` would be a pattern.
fn add(name: &str, names: &mut Vec<String>) {
    if is_usable(name) && names.len() <= NAMES_MAX && !names.iter().any(|other| other == name) {
        names.push(name.to_owned());
    }
}

/// The texts of a list.
fn items(list: Option<&Node>) -> impl Iterator<Item = &str> {
    let items = match list.map(|node| &node.content) {
        Some(Content::List(items)) => items.as_slice(),
        _ => &[],
    };
    items.iter().filter_map(Node::text)
}

/// False for a model that its settings or its name show to be for embeddings, rerank or audio.
/// Macros count where its command or another macro names them.
fn is_chat(id: &str, model: &Node, macros: &[(String, Node)]) -> bool {
    const FLAGS: [&str; 5] = ["--embedding", "--reranking", "--rerank", "whisper-server", "sd-server"];
    const NAMES: [&str; 4] = ["embed", "rerank", "whisper", "bge-"];
    let cmd = model.get("cmd").and_then(Node::text).unwrap_or_default();
    let id = id.to_ascii_lowercase();
    let own = model.get("macros").map(Node::entries).unwrap_or_default();
    let mut texts = vec![cmd];
    let mut used: Vec<&str> = Vec::new();
    while let Some(text) = texts.pop() {
        if FLAGS.iter().any(|flag| text.contains(flag)) {
            return false;
        }
        for name in text.split("${").skip(1).filter_map(|rest| rest.split('}').next()) {
            if used.contains(&name) || used.len() >= MACROS_MAX {
                continue;
            }
            used.push(name);
            let found = own.iter().chain(macros).find(|(other, _)| other == name);
            texts.extend(found.and_then(|(_, node)| node.text()));
        }
    }
    !NAMES.iter().any(|name| id.contains(name))
}
