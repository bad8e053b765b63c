//! Reads `tools`, and the changes that system messages make to them during the conversation.

use std::collections::{HashMap, HashSet};

use crate::json::{Object, Value};

use super::super::search::is_web_search;
use super::{At, EMPTY, NOT_AN_INTEGER, REQUIRED, Read, TOOLS_MAX, Tool, list, member, object, string};

/// The tools in effect at the end of the conversation, because a chat completion has only one list of them.
pub(super) fn read<'r>(body: &'r Object<'r>) -> Read<Vec<Tool<'r>>> {
    let mut tools = InEffect { tools: declared(body)?, ..InEffect::default() };
    let at = At::Top("messages");
    let messages = body.get("messages").and_then(Value::as_array).unwrap_or_default();
    for (i, message) in messages.iter().enumerate() {
        let content = message.get("content").and_then(Value::as_array).unwrap_or_default();
        for (j, block) in content.iter().enumerate() {
            let at = At::Index(&at, i);
            let at = At::Key(&at, "content");
            let at = At::Index(&at, j);
            tools.change(block, &at)?;
            // A summary contains the changes of the messages that it replaces.
            let brought = block.get("tool_changes").and_then(Value::as_array).unwrap_or_default();
            let at = At::Key(&at, "tool_changes");
            for (k, brought) in brought.iter().enumerate() {
                tools.change(brought, &At::Index(&at, k))?;
            }
        }
    }
    let InEffect { mut tools, removed, .. } = tools;
    if !removed.is_empty() {
        tools.retain(|tool| !removed.contains(tool.name));
    }
    Ok(tools)
}

/// The tools, while the messages that change them are read in order.
#[derive(Default)]
struct InEffect<'r> {
    tools: Vec<Tool<'r>>,
    /// The first index in `tools` of each name. It is made at the first change, since most conversations have none.
    places: Option<HashMap<&'r str, usize>>,
    removed: HashSet<&'r str>,
}

impl<'r> InEffect<'r> {
    /// Applies a `tool_addition` or a `tool_removal`. Other blocks, and references to tools that are not in the list,
    /// change nothing.
    fn change(&mut self, block: &'r Value<'r>, at: &At<'_>) -> Read<()> {
        let kind = block.get("type").and_then(Value::as_str);
        let (Some(kind @ ("tool_addition" | "tool_removal")), Some(tool)) = (kind, block.get("tool")) else {
            return Ok(());
        };
        if let Some(definition) = tool.get("definition") {
            let at = At::Key(at, "tool");
            let at = At::Key(&at, "definition");
            self.define(read_tool(definition, &at)?, &at)?;
        } else if let Some(name) = referred(tool) {
            if kind == "tool_removal" {
                self.removed.insert(name);
            } else {
                self.removed.remove(name);
            }
        }
        Ok(())
    }

    /// Replaces the tool of the same name by a definition, or appends it.
    fn define(&mut self, defined: Tool<'r>, at: &At<'_>) -> Read<()> {
        self.removed.remove(defined.name);
        let InEffect { tools, places, .. } = self;
        let places = places.get_or_insert_with(|| {
            // From the last to the first, so that the first of several tools with one name keeps its index.
            tools.iter().enumerate().rev().map(|(place, tool)| (tool.name, place)).collect()
        });
        let place = *places.entry(defined.name).or_insert(tools.len());
        let is_full = tools.len() >= TOOLS_MAX;
        match tools.get_mut(place) {
            Some(tool) => *tool = defined,
            None if is_full => {
                return Err(at.error(&format!("A request should have at most {TOOLS_MAX} tools")));
            }
            None => tools.push(defined),
        }
        Ok(())
    }
}

/// The name in a reference to one of the client's tools. Tools of MCP servers are not in the list.
fn referred<'r>(tool: &'r Value<'r>) -> Option<&'r str> {
    tool.get("type").and_then(Value::as_str).filter(|kind| *kind == "tool_reference")?;
    tool.get("name")?.as_str()
}

fn declared<'r>(body: &'r Object<'r>) -> Read<Vec<Tool<'r>>> {
    let at = At::Top("tools");
    let Some(value) = member(body, "tools") else { return Ok(Vec::new()) };
    list(value, &at, TOOLS_MAX)?
        .iter()
        .enumerate()
        .map(|(i, tool)| read_tool(tool, &At::Index(&at, i)))
        .collect()
}

fn read_tool<'r>(value: &'r Value<'r>, at: &At<'_>) -> Read<Tool<'r>> {
    let tool = object(value, at)?;
    let kind = match member(tool, "type") {
        Some(value) => Some(string(value, &At::Key(at, "type"))?).filter(|kind| *kind != "custom"),
        None => None,
    };
    let at_name = At::Key(at, "name");
    let name = match (member(tool, "name"), kind) {
        (Some(value), _) => string(value, &at_name)?,
        (None, Some(kind)) => kind, // toolsets such as mcp_toolset have no name
        (None, None) => return Err(at_name.error(REQUIRED)),
    };
    if name.trim().is_empty() {
        return Err(at_name.error(EMPTY));
    }
    let at_schema = At::Key(at, "input_schema");
    let schema = member(tool, "input_schema");
    match schema {
        Some(schema) => _ = object(schema, &at_schema)?,
        None if kind.is_none() => return Err(at_schema.error(REQUIRED)),
        None => {}
    }
    if kind.is_some_and(is_web_search) && schema.is_none() {
        check_search(tool, at)?;
    }
    let description = match member(tool, "description") {
        Some(value) => Some(string(value, &At::Key(at, "description"))?),
        None => None,
    };
    let examples = tool.get("input_examples").and_then(Value::as_array).unwrap_or_default();
    let strict = tool.get("strict").and_then(Value::as_bool);
    let deferred = tool.get("defer_loading").and_then(Value::as_bool).unwrap_or(false);
    Ok(Tool { kind, name, description, schema, strict, examples, deferred, body: value })
}

/// Refuses limits of a web search that cannot be read: without them, the search would have none.
fn check_search(tool: &Object<'_>, at: &At<'_>) -> Read<()> {
    for key in ["allowed_domains", "blocked_domains"] {
        let Some(value) = member(tool, key) else { continue };
        let at = At::Key(at, key);
        for (i, domain) in list(value, &at, usize::MAX)?.iter().enumerate() {
            string(domain, &At::Index(&at, i))?;
        }
    }
    match member(tool, "max_uses").map(Value::as_u64) {
        Some(None) => Err(At::Key(at, "max_uses").error(NOT_AN_INTEGER)),
        Some(Some(_)) | None => Ok(()),
    }
}
