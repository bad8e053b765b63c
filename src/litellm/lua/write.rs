//! The text of the Lua file.

use super::hooks::Rules;
use super::syntax::{key, quote};
use crate::litellm::models::Models;
use crate::litellm::pools::{ImportedAlias, ImportedMember};
use crate::litellm::upstream::{ImportedUpstream, SettingText};

/// The whole text of the Lua file.
pub(in crate::litellm) fn write(models: &Models, aliases: &[ImportedAlias]) -> String {
    let rules = Rules::new(models, aliases);
    let mut out = String::from(
        "-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.\n\
         -- It is yours now: change it as you like. `sparkgap check` tells what it means.\n",
    );
    for (path, name, why) in &models.left_out {
        out.push_str(&format!("-- Left out: {} ({}): {}.\n", comment(path), comment(name), comment(why)));
    }
    out.push('\n');
    rules.write_locals(&mut out);
    out.push_str("return {\n  api = 1,\n\n");
    write_upstreams(&models.upstreams, &mut out);
    write_aliases(&models.upstreams, aliases, &mut out);
    rules.write_hooks(&mut out);
    out.push_str("}\n");
    out
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
        if upstream.speaks_messages {
            out.push_str(", protocol = \"messages\"");
        }
        if let Some(window) = upstream.window {
            out.push_str(&format!(", window = {window}"));
        }
        if let Some(seconds) = upstream.timeout {
            out.push_str(&format!(", timeout = {seconds}"));
        }
        if let Some(max) = upstream.max_in_flight {
            out.push_str(&format!(", max_in_flight = {max}"));
        }
        out.push_str(" },");
        if let Some((server, _)) = upstream.again {
            let first = upstreams.get(server).map_or("", |first| first.name.as_str());
            out.push_str(&format!(" -- {} again, for another of its models", comment(first)));
        } else if upstream.key_was_literal {
            out.push_str(" -- the key was in the YAML: put it into this variable");
        }
        out.push('\n');
    }
    out.push_str("  },\n\n");
}

fn write_aliases(upstreams: &[ImportedUpstream], aliases: &[ImportedAlias], out: &mut String) {
    if aliases.iter().any(|alias| alias.upstreams().count() > 1) {
        out.push_str(
            "  -- The upstreams of a list share the requests; a backup is asked while none of them can answer. Each of them\n  \
             -- gets 8 requests at a time, unless its max_in_flight says otherwise.\n",
        );
    }
    out.push_str("  aliases = {\n");
    for alias in aliases {
        let name_of = |member: &ImportedMember| {
            quote(upstreams.get(member.upstream).map_or("", |upstream| upstream.name.as_str()))
        };
        let model = alias.members.first().map_or("", |member| member.model.as_str());
        let passes = |member: Option<&ImportedMember>| {
            member.and_then(|member| upstreams.get(member.upstream)).is_some_and(|it| it.speaks_messages)
        };
        // The alias's model is for the upstreams of one protocol only.
        let has_own = |member: &ImportedMember| {
            member.model != model || passes(Some(member)) != passes(alias.members.first())
        };
        let one = |member: &ImportedMember| match !has_own(member) {
            true => name_of(member),
            false => format!("{{ {}, model = {} }}", name_of(member), quote(&member.model)),
        };
        let list = |members: &[ImportedMember]| {
            let items: Vec<String> = members.iter().map(one).collect();
            match members {
                [only] if !has_own(only) => items.concat(),
                _ => format!("{{ {} }}", items.join(", ")),
            }
        };
        out.push_str(&format!("    {{ {}, upstream = {}", quote(&alias.name), list(&alias.members)));
        if !alias.backup.is_empty() {
            out.push_str(&format!(", backup = {}", list(&alias.backup)));
        }
        out.push_str(&format!(", model = {} }},\n", quote(model)));
    }
    out.push_str("  },\n");
}

/// Text of the YAML in one line, for a Lua comment.
fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
