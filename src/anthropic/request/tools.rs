//! `tools`, and the changes that system messages make to them on the way.

use crate::json::{Object, Value};

use super::{At, REQUIRED, Read, Tool, list, member, object, string};

/// The tools in effect at the end of the conversation: a chat completion has one list of them.
pub(super) fn read<'r>(body: &'r Object<'r>) -> Read<Vec<Tool<'r>>> {
    let mut tools = declared(body)?;
    let at = At::Top("messages");
    let messages = body.get("messages").and_then(Value::as_array).unwrap_or_default();
    let mut removed: Vec<&str> = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let content = message.get("content").and_then(Value::as_array).unwrap_or_default();
        for (j, block) in content.iter().enumerate() {
            let at = At::Index(&at, i);
            let at = At::Key(&at, "content");
            let at = At::Index(&at, j);
            change(block, &at, &mut tools, &mut removed)?;
            // A summary brings the changes of the messages that it stands for.
            let brought = block.get("tool_changes").and_then(Value::as_array).unwrap_or_default();
            let at = At::Key(&at, "tool_changes");
            for (k, brought) in brought.iter().enumerate() {
                change(brought, &At::Index(&at, k), &mut tools, &mut removed)?;
            }
        }
    }
    tools.retain(|tool| !removed.contains(&tool.name));
    Ok(tools)
}

/// A `tool_addition` or `tool_removal`. Other blocks, and references to tools that are not there, change nothing.
fn change<'r>(
    block: &'r Value<'r>,
    at: &At<'_>,
    tools: &mut Vec<Tool<'r>>,
    removed: &mut Vec<&'r str>,
) -> Read<()> {
    let kind = block.get("type").and_then(Value::as_str);
    let (Some(kind @ ("tool_addition" | "tool_removal")), Some(tool)) = (kind, block.get("tool")) else {
        return Ok(());
    };
    if let Some(definition) = tool.get("definition") {
        let at = At::Key(at, "tool");
        let defined = read_tool(definition, &At::Key(&at, "definition"))?;
        removed.retain(|name| *name != defined.name);
        match tools.iter_mut().find(|tool| tool.name == defined.name) {
            Some(tool) => *tool = defined,
            None => tools.push(defined),
        }
    } else if let Some(name) = referred(tool) {
        removed.retain(|other| *other != name);
        if kind == "tool_removal" {
            removed.push(name);
        }
    }
    Ok(())
}

/// The name in a reference to one of the client's tools; those of MCP servers are not here.
fn referred<'r>(tool: &'r Value<'r>) -> Option<&'r str> {
    tool.get("type").and_then(Value::as_str).filter(|kind| *kind == "tool_reference")?;
    tool.get("name")?.as_str()
}

fn declared<'r>(body: &'r Object<'r>) -> Read<Vec<Tool<'r>>> {
    let at = At::Top("tools");
    let Some(value) = member(body, "tools") else { return Ok(Vec::new()) };
    list(value, &at)?.iter().enumerate().map(|(i, tool)| read_tool(tool, &At::Index(&at, i))).collect()
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
    let at_schema = At::Key(at, "input_schema");
    let schema = member(tool, "input_schema");
    match schema {
        Some(schema) => _ = object(schema, &at_schema)?,
        None if kind.is_none() => return Err(at_schema.error(REQUIRED)),
        None => {}
    }
    let description = match member(tool, "description") {
        Some(value) => Some(string(value, &At::Key(at, "description"))?),
        None => None,
    };
    let examples = tool.get("input_examples").and_then(Value::as_array).unwrap_or_default();
    let strict = tool.get("strict").and_then(Value::as_bool);
    Ok(Tool { kind, name, description, schema, strict, examples })
}
