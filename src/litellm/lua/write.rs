//! The text of the Lua file.

use super::hooks;
use super::needs::{Needs, needs};
use super::syntax::{self, key, quote, value};
use crate::litellm::models::{Group, ImportedModel, Models};
use crate::litellm::router::Routes;
use crate::litellm::upstream::{ImportedUpstream, SettingText};

/// Fields of the body in which sparkgap has entries of its own: an `extra_body` adds to them.
const MERGED: [&str; 2] = ["chat_template_kwargs", "stream_options"];

/// The whole text of the Lua file.
pub(in crate::litellm) fn write(models: &Models, routes: &Routes) -> String {
    let members = members(models, routes);
    let needs = needs(models, routes, &members);
    let mut out = String::from(
        "-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.\n\
         -- It is yours now: change it as you like. `sparkgap check` tells what it means.\n",
    );
    for (path, name, why) in &models.left_out {
        out.push_str(&format!("-- Left out: {} ({}): {}.\n", comment(path), comment(name), comment(why)));
    }
    out.push('\n');
    if !members.is_empty() {
        write_groups(models, routes, &members, &mut out);
        out.push_str(&hooks::functions(needs));
    }
    out.push_str("return {\n  api = 1,\n\n");
    write_upstreams(&models.upstreams, &mut out);
    write_aliases(models, routes, needs, &mut out);
    out.push_str(&hooks::hooks(needs));
    out.push_str("}\n");
    out
}

/// The groups that aliases alone cannot serve, with those that follow them. If one of them is a pattern, these are all
/// groups, since a name must not reach the pattern if another group precedes it.
fn members(models: &Models, routes: &Routes) -> Vec<usize> {
    let all = || 0..models.groups.len();
    let special = |i: &usize| {
        models.groups.get(*i).is_some_and(|group| {
            group.entries.len() > 1
                || group.entries.iter().any(|entry| !entry.tweaks.is_empty() || entry.model.contains('*'))
        }) || routes.after(*i).next().is_some()
    };
    let mut members: Vec<usize> = all().filter(special).collect();
    let followers: Vec<usize> = members.iter().flat_map(|i| routes.after(*i)).collect();
    members = all().filter(|i| members.contains(i) || followers.contains(i)).collect();
    if members.iter().any(|i| models.groups.get(*i).is_some_and(Group::is_pattern)) {
        members = all().collect();
    }
    members
}

fn write_groups(models: &Models, routes: &Routes, members: &[usize], out: &mut String) {
    out.push_str("-- What serves each model name, and which names follow it when all of that fails.\nlocal groups = {\n");
    for &i in members {
        let Some(group) = models.groups.get(i) else { continue };
        out.push_str(&format!("  [{}] = {{\n", quote(&group.name)));
        let weighed = group.entries.iter().any(|entry| !is_one(entry.weight));
        for entry in &group.entries {
            write_entry(entry, weighed, &models.upstreams, out);
        }
        for (name, lists) in
            [("fallbacks", &routes.fallbacks), ("context_window_fallbacks", &routes.overflow)]
        {
            let names: Vec<String> = lists
                .get(i)
                .into_iter()
                .flatten()
                .filter_map(|to| models.groups.get(*to))
                .map(|to| quote(&to.name))
                .collect();
            if !names.is_empty() {
                out.push_str(&format!("    {name} = {{ {} }},\n", names.join(", ")));
            }
        }
        out.push_str("  },\n");
    }
    out.push_str("}\n");
    for (alias, group) in routes.aliases.iter().filter(|(_, group)| members.contains(group)) {
        if let Some(group) = models.groups.get(*group) {
            out.push_str(&format!("groups[{}] = groups[{}]\n", quote(alias), quote(&group.name)));
        }
    }
    out.push('\n');
    let patterns: Vec<&Group> =
        models.patterns().filter(|i| members.contains(i)).filter_map(|i| models.groups.get(i)).collect();
    if !patterns.is_empty() {
        out.push_str(
            "-- The names with a *, as Lua patterns; the most specific first.\nlocal patterns = {\n",
        );
        for group in patterns {
            let pattern = quote(&syntax::pattern(&group.name));
            out.push_str(&format!("  {{ {pattern}, groups[{}] }},\n", quote(&group.name)));
        }
        out.push_str("}\n\n");
    }
}

fn is_one(weight: f64) -> bool {
    (weight - 1.0).abs() < f64::EPSILON
}

fn write_entry(entry: &ImportedModel, weighed: bool, upstreams: &[ImportedUpstream], out: &mut String) {
    let upstream = upstreams.get(entry.upstream).map_or("", |upstream| upstream.name.as_str());
    out.push_str(&format!("    {{ upstream = {}, model = {}", quote(upstream), quote(&entry.model)));
    if weighed {
        out.push_str(&format!(", weight = {}", entry.weight));
    }
    if entry.tweaks.is_empty() {
        out.push_str(" },\n");
        return;
    }
    out.push_str(", tweak = function(body)\n");
    for tweak in &entry.tweaks {
        let field = syntax::index("body", &tweak.field);
        let parts = tweak.value.entries();
        if tweak.force && MERGED.contains(&tweak.field.as_str()) && !parts.is_empty() {
            out.push_str(&format!("      {field} = {field} or {{}}\n"));
            for (name, part) in parts {
                out.push_str(&format!("      {} = {}\n", syntax::index(&field, name), value(part)));
            }
        } else if tweak.force {
            out.push_str(&format!("      {field} = {}\n", value(&tweak.value)));
        } else {
            out.push_str(&format!("      if {field} == nil then {field} = {} end\n", value(&tweak.value)));
        }
    }
    out.push_str("    end },\n");
}

fn write_upstreams(upstreams: &[ImportedUpstream], out: &mut String) {
    out.push_str("  upstreams = {\n");
    for upstream in upstreams {
        let url = match &upstream.url {
            SettingText::Literal(url) => quote(url),
            SettingText::Environment(name) => format!("env {}", quote(name)),
        };
        out.push_str(&format!("    {} = {{ url = {url}", key(&upstream.name)));
        if let Some(key) = &upstream.key {
            out.push_str(&format!(", api_key = env {}", quote(key)));
        }
        if let Some(flavour) = upstream.flavour {
            out.push_str(&format!(", flavour = {}", quote(flavour)));
        }
        out.push_str(" },");
        if upstream.key_was_literal {
            out.push_str(" -- the key was in the YAML: put it into this variable");
        }
        out.push('\n');
    }
    out.push_str("  },\n\n");
}

fn write_aliases(models: &Models, routes: &Routes, needs: Needs, out: &mut String) {
    let exact = models
        .groups
        .iter()
        .filter(|group| !group.is_pattern() && !group.made_up)
        .map(|group| (group.name.as_str(), group));
    let others =
        routes.aliases.iter().filter_map(|(alias, i)| Some((alias.as_str(), models.groups.get(*i)?)));
    let patterns = models.patterns().filter_map(|i| models.groups.get(i)).map(|g| (g.name.as_str(), g));
    if needs.balance || needs.fill {
        out.push_str(
            "  -- Where a name has several entries or a model that follows the name, on_request chooses.\n",
        );
    }
    out.push_str("  aliases = {\n");
    for (name, group) in others.chain(exact).chain(patterns) {
        let Some(entry) = group.entries.first() else { continue };
        let upstream = models.upstreams.get(entry.upstream).map_or("", |upstream| upstream.name.as_str());
        out.push_str(&format!("    {{ {}, upstream = {}", quote(name), quote(upstream)));
        if !entry.model.contains('*') {
            out.push_str(&format!(", model = {}", quote(&entry.model)));
        }
        out.push_str(" },\n");
    }
    out.push_str("  },\n");
}

/// Text of the YAML in one line, for a Lua comment.
fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
