//! The summary of an import: about ten lines with the most important of the report.

use std::collections::BTreeMap;

use super::KeyVerdict::Unsupported;
use super::facts::ModelKind;
use super::models::Models;
use super::pools::ImportedAlias;
use super::report::Line;
use super::sources::{UNSET_VALUE, Variable};
use super::target::WITHOUT_KEY;
use super::upstream::{ImportedUpstream, SettingText};
use crate::config;

/// The most servers inside this network, and the most kinds of losses, that get a line.
const SERVERS_MAX: usize = 6;
const LOSSES_MAX: usize = 5;

/// The most values of variables that are not set that get a line each.
const UNSET_MAX: usize = 8;

/// The most losses of another program's file that get a line.
const LOST_MAX: usize = 6;

/// Beginnings of the keys with which claude-code-router chooses a model.
const RULES: [&str; 3] = ["Router", "router", "CUSTOM_ROUTER_PATH"];

/// Beginnings of notes, by importance: a loss with an earlier one comes first. All others follow, by their number.
const IMPORTANCE: [&str; 5] =
    ["the entry is left out", "no entry of model_list", "not taken over", "no virtual keys", "no limits"];

/// True for a line of a summary on something that is lost or that leaves this network.
pub fn is_loss(line: &str) -> bool {
    line.starts_with("lost: ") || line.starts_with("left out: ") || line.ends_with(OUTSIDE)
}

/// The end of a line on a server outside of this network.
pub(super) const OUTSIDE: &str = "OUTSIDE OF THIS NETWORK";

/// Writes the lines.
pub(super) fn write(
    models: &Models,
    aliases: &[ImportedAlias],
    report: &[Line],
    variable: Variable<'_>,
) -> Vec<String> {
    let mut lines = vec![names(models, aliases)];
    lines.extend(servers(models, variable));
    lines.extend(losses(models, report));
    lines
}

/// The count of names, of those that several upstreams share, and of models that are not for chat.
fn names(models: &Models, aliases: &[ImportedAlias]) -> String {
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let mut text = count(aliases.len(), "name");
    let pools = aliases.iter().filter(|alias| alias.members.len() > 1).count();
    let backed = aliases.iter().filter(|alias| !alias.backup.is_empty()).count();
    if pools > 0 {
        text.push_str(&format!(", {pools} of them shared by several upstreams"));
    }
    if backed > 0 {
        text.push_str(&format!(", {backed} with backups"));
    }
    let entries = || models.groups.iter().filter(|group| !group.made_up).flat_map(|group| &group.entries);
    let others = entries().filter(|entry| entry.kind != ModelKind::Chat).count();
    if others > 0 {
        text.push_str(&format!("; {} for embeddings, rerank or audio", count(others, "model")));
    }
    text
}

/// A line for each address: the key that goes there, and whether it is outside of this network.
fn servers(models: &Models, variable: Variable<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let is_outside = |upstream: &&ImportedUpstream| match &upstream.url {
        SettingText::Literal(url) => config::host_outside(url).is_some(),
        SettingText::Environment(_) => false,
    };
    let own = || models.upstreams.iter().filter(|upstream| upstream.again.is_none());
    // Every server outside of this network has a line.
    let outside = own().filter(is_outside);
    let mut inside = own().filter(|upstream| !is_outside(upstream));
    for upstream in outside.chain(inside.by_ref().take(SERVERS_MAX)) {
        let (url, host) = match &upstream.url {
            SettingText::Literal(url) => (url.clone(), config::host(url)),
            SettingText::Environment(name) => {
                let is_unset = models.unset.iter().any(|unset| unset.variable == *name);
                (format!("the address in {name}{}", if is_unset { " (not set here)" } else { "" }), "")
            }
        };
        let is_set = |name: &str| {
            models.environment.iter().any(|(known, _)| known == name)
                || variable(name).is_some_and(|value| !value.is_empty())
        };
        let mut key = key_words(upstream.key.as_deref(), upstream.key_was_literal);
        if upstream.key.as_deref().is_some_and(|name| !is_set(name)) {
            key.push_str(" (not set here)");
        }
        let mut line = format!("{}: {url}, {key}", upstream.name);
        if is_outside(&upstream) {
            line.push_str(&format!(": {OUTSIDE}"));
        } else if is_of_docker(host) {
            line.push_str(&format!(
                "; {host} looks like a name inside Docker: outside of it write localhost or an address"
            ));
        }
        lines.push(line);
    }
    let more = inside.count();
    if more > 0 {
        lines.push(format!("and {more} more of this network"));
    }
    lines
}

/// The words for the key that a server gets: the variable that holds it, and whether the file held it itself.
pub(super) fn key_words(variable: Option<&str>, was_literal: bool) -> String {
    match variable {
        Some(variable) if was_literal => format!("gets its key of the file (in the Lua: {variable})"),
        Some(variable) => format!("gets the key in {variable}"),
        None => "no key".to_owned(),
    }
}

/// The first lost settings of another program's file, each with its note.
pub(super) fn first_losses(report: &[Line]) -> impl Iterator<Item = String> {
    let mut lost: Vec<&Line> = report.iter().filter(|line| line.verdict == Unsupported).collect();
    // A lost rule sends requests to another model, so it comes before a lost setting.
    lost.sort_by_key(|line| !RULES.iter().any(|rule| line.key.starts_with(rule)));
    let more = lost.len().saturating_sub(LOST_MAX);
    let rest = (more > 0).then(|| format!("lost: {more} more settings: --verbose shows them"));
    lost.truncate(LOST_MAX);
    let lines: Vec<String> =
        lost.into_iter().map(|line| format!("lost: {}: {}", line.key, line.note)).chain(rest).collect();
    lines.into_iter()
}

/// True for a host that only Docker's own name server is likely to know: `host.docker.internal`, or a service that is
/// called like its program.
fn is_of_docker(host: &str) -> bool {
    const PROGRAMS: [&str; 9] =
        ["ollama", "vllm", "llama", "localai", "sglang", "tgi", "litellm", "tabby", "open-webui"];
    let is_service = !host.contains('.') && PROGRAMS.iter().any(|program| host.starts_with(program));
    is_service || host.ends_with(".docker.internal") || host.ends_with(".containers.internal")
}

/// The kinds of losses, by importance, each with an example.
fn losses(models: &Models, report: &[Line]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (path, name, why) in models.left_out.iter().take(2) {
        let name = if name.is_empty() { "without a name" } else { name };
        lines.push(format!("left out: {path} ({name}): {why}"));
    }
    let left_out = models.left_out.len().saturating_sub(lines.len());
    if left_out > 0 {
        lines.push(format!("left out: {left_out} more entries"));
    }
    let is_below = |key: &str, path: &str| {
        key.strip_prefix(path).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let is_entry = |line: &Line| models.left_out.iter().any(|(path, _, _)| is_below(&line.key, path));
    let keyless = |line: &Line| Some((line.key.clone(), line.note.split_once(WITHOUT_KEY)?.1.to_owned()));
    let mut keyless = report.iter().filter_map(keyless);
    if let Some((key, rest)) = keyless.next() {
        let more = match keyless.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        lines.push(format!("{key}{more}: {WITHOUT_KEY}{rest}"));
    }
    let is_unset = |line: &&Line| line.note.starts_with(UNSET_VALUE);
    let unset = report.iter().filter(is_unset);
    lines.extend(unset.clone().take(UNSET_MAX).map(|line| format!("lost: {}: {}", line.key, line.note)));
    if unset.clone().count() > UNSET_MAX {
        lines.push(format!("lost: {} more values of variables that are not set", unset.count() - UNSET_MAX));
    }
    let mut kinds: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    let is_other = |line: &&Line| line.verdict == Unsupported && !is_entry(line) && !is_unset(line);
    for line in report.iter().filter(is_other) {
        kinds.entry(&line.note).or_insert((0, &line.key)).0 += 1;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    let rank =
        |note: &str| IMPORTANCE.iter().position(|start| note.starts_with(start)).unwrap_or(IMPORTANCE.len());
    kinds.sort_by_key(|(note, (count, key))| (rank(note), std::cmp::Reverse(*count), *key));
    for (note, (count, key)) in kinds.iter().take(LOSSES_MAX) {
        let more = if *count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        lines.push(format!("lost: {key}{more}: {note}"));
    }
    if kinds.len() > LOSSES_MAX {
        lines.push(format!("and {} more kinds of settings that have no effect", kinds.len() - LOSSES_MAX));
    }
    lines
}
