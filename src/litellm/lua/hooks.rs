//! The hooks: the parameters that entries set, and the models that follow if a prompt is too long. All else is the alias
//! table's.

use std::collections::BTreeSet;

use super::syntax::{self, quote, value};
use crate::litellm::models::{ImportedModel, Models, Tweak};
use crate::litellm::pools::{ImportedAlias, ImportedMember};
use crate::litellm::yaml::Node;

/// Fields of the body in which sparkgap has entries of its own: an `extra_body` adds to them.
const MERGED: [&str; 2] = ["chat_template_kwargs", "stream_options"];

const LIST: &str = r#"-- A list without the values of variables that are not set.
local function list(...)
  local items = {}
  for i = 1, select('#', ...) do
    items[#items + 1] = (select(i, ...))
  end
  return json.array(items)
end

"#;

const RULE_OF_NAME: &str = r#"-- The rule for a name. The mark for a large window does not belong to it.
local function rule_of(name)
  return rules[name] or rules[name:gsub("%[1m%]$", "")] or {}
end

"#;

const RULE_OF_PATTERN: &str = r#"-- The rule for a name. The mark for a large window does not belong to it.
local function rule_of(name)
  local plain = name:gsub("%[1m%]$", "")
  local rule = rules[name] or rules[plain]
  for _, pattern in ipairs(patterns) do
    rule = rule or plain:find(pattern[1]) and rules[pattern[2]]
  end
  return rule or {}
end

"#;

/// A template: code replaces `NAME`.
const ON_UPSTREAM_REQUEST: &str = r"
  on_upstream_request = function(body, req)
    local set = (rule_of(NAME).parameters or {})[req.upstream]
    if set then
      set(body)
    end
  end,
";

const ON_ERROR: &str = r#"
  -- The next model gets a prompt that is too long for the one before.
  on_error = function(err, req)
    local names = rule_of(req.model).wider or {}
    local next = (req.ctx.next or 0) + 1
    if names[next] and err.message:find("prompt is too long", 1, true) then
      req.ctx.next, req.ctx.wider = next, names[next]
      return { model = names[next] }
    end
  end,
"#;

/// The rules of the names that aliases alone cannot serve.
pub(super) struct Rules<'a> {
    models: &'a Models,
    aliases: Vec<&'a ImportedAlias>,
    /// The entries that set parameters, sorted.
    entries: Vec<(usize, usize)>,
    has_wider: bool,
}

impl<'a> Rules<'a> {
    pub(super) fn new(models: &'a Models, aliases: &'a [ImportedAlias]) -> Self {
        let set =
            |member: &&ImportedMember| entry(models, member.entry).is_some_and(|it| !it.tweaks.is_empty());
        let has_rule =
            |alias: &ImportedAlias| !alias.wider.is_empty() || alias.upstreams().any(|it| set(&it));
        // A name must not reach the rule of a pattern if another alias precedes the pattern.
        let all = aliases.iter().any(|alias| alias.is_pattern() && has_rule(alias));
        let aliases: Vec<_> = aliases.iter().filter(|alias| all || has_rule(alias)).collect();
        let upstreams = aliases.iter().flat_map(|alias| alias.upstreams());
        let entries: BTreeSet<_> = upstreams.filter(set).map(|member| member.entry).collect();
        let has_wider = aliases.iter().any(|alias| !alias.wider.is_empty());
        Rules { models, aliases, entries: entries.into_iter().collect(), has_wider }
    }

    /// The locals that the hooks use.
    pub(super) fn write_locals(&self, out: &mut String) {
        if self.aliases.is_empty() {
            return;
        }
        self.write_parameters(out);
        self.write_rules(out);
        let patterns: Vec<_> = self.aliases.iter().filter(|alias| alias.is_pattern()).collect();
        if patterns.is_empty() {
            out.push_str(RULE_OF_NAME);
            return;
        }
        out.push_str("-- The names with a *, as Lua patterns; the first match wins.\nlocal patterns = {\n");
        for alias in patterns {
            let pattern = quote(&syntax::pattern(&alias.name));
            out.push_str(&format!("  {{ {pattern}, {} }},\n", quote(&alias.name)));
        }
        out.push_str("}\n\n");
        out.push_str(RULE_OF_PATTERN);
    }

    /// The hooks in the table that the file returns.
    pub(super) fn write_hooks(&self, out: &mut String) {
        if !self.entries.is_empty() {
            let name = if self.has_wider { "req.ctx.wider or req.model" } else { "req.model" };
            out.push_str(&ON_UPSTREAM_REQUEST.replace("NAME", name));
        }
        if self.has_wider {
            out.push_str(ON_ERROR);
        }
    }

    fn write_parameters(&self, out: &mut String) {
        if self.entries.is_empty() {
            return;
        }
        let entries = self.entries.iter().filter_map(|place| entry(self.models, *place));
        if entries.flat_map(|entry| &entry.tweaks).any(|tweak| syntax::needs_list(&tweak.value)) {
            out.push_str(LIST);
        }
        out.push_str("-- The parameters that entries of model_list set.\nlocal parameters = {\n");
        for (i, place) in self.entries.iter().enumerate() {
            let Some(entry) = entry(self.models, *place) else { continue };
            out.push_str(&format!("  [{}] = function(body)\n", i + 1));
            entry.tweaks.iter().for_each(|tweak| write_tweak(tweak, out));
            out.push_str("  end,\n");
        }
        out.push_str("}\n\n");
    }

    fn write_rules(&self, out: &mut String) {
        let what = match (self.entries.is_empty(), self.has_wider) {
            (false, true) => {
                "the parameters for each of its upstreams, and the models for a prompt that is too long"
            }
            (false, false) => "the parameters for each of its upstreams",
            (true, _) => "the models for a prompt that is too long",
        };
        out.push_str(&format!("-- For each name {what}.\nlocal rules = {{\n"));
        for alias in &self.aliases {
            let mut parts = Vec::new();
            let set = alias.upstreams().filter_map(|member| {
                let number = self.entries.binary_search(&member.entry).ok()? + 1;
                let upstream = self.models.upstreams.get(member.upstream)?;
                Some(format!("{} = parameters[{number}]", syntax::key(&upstream.name)))
            });
            let set: Vec<String> = set.collect();
            if !set.is_empty() {
                parts.push(format!("parameters = {{ {} }}", set.join(", ")));
            }
            if !alias.wider.is_empty() {
                let names: Vec<String> = alias.wider.iter().map(|name| quote(name)).collect();
                parts.push(format!("wider = {{ {} }}", names.join(", ")));
            }
            let parts = if parts.is_empty() { String::new() } else { format!(" {} ", parts.join(", ")) };
            out.push_str(&format!("  [{}] = {{{parts}}},\n", quote(&alias.name)));
        }
        out.push_str("}\n\n");
    }
}

fn entry(models: &Models, (group, entry): (usize, usize)) -> Option<&ImportedModel> {
    models.groups.get(group)?.entries.get(entry)
}

fn write_tweak(tweak: &Tweak, out: &mut String) {
    let field = syntax::index("body", &tweak.field);
    let parts = tweak.value.entries();
    if tweak.force && MERGED.contains(&tweak.field.as_str()) && !parts.is_empty() {
        out.push_str(&format!("    {field} = {field} or {{}}\n"));
        for (name, part) in parts {
            let field = syntax::index(&field, name);
            out.push_str(&format!("    {field} = {}\n", forced(&field, part)));
        }
    } else if tweak.force {
        out.push_str(&format!("    {field} = {}\n", forced(&field, &tweak.value)));
    } else {
        out.push_str(&format!("    if {field} == nil then {field} = {} end\n", value(&tweak.value)));
    }
}

/// The value that a field gets whatever the client sent. A variable that is not set changes nothing.
fn forced(field: &str, node: &Node) -> String {
    match syntax::is_reference(node) {
        true => format!("{} or {field}", value(node)),
        false => value(node),
    }
}
