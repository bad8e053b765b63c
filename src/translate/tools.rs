//! Tools: the client's declarations -> functions, and `tool_choice`.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::anthropic::{MessagesRequest, Tool, ToolChoice, WEB_SEARCH, WebSearchTool};
use crate::dialect::ServerKind;
use crate::error::Error;
use crate::hash::Fnv;
use crate::json::{Object, Value};

use super::plan::Target;

/// The longest name that a strict OpenAI API accepts, and how much of a longer name is kept: a digest replaces the
/// rest.
pub(super) const NAME_SIZE_MAX: usize = 64;
const NAME_SIZE_KEPT: usize = 47;

/// Claude Code lists this tool to say that it can load tools later. It must never be called.
const PLACEHOLDER: &str = "DeferredToolPlaceholder";

/// Tools that the API defines and the client runs, with their input schemas: the API's model knows them without being
/// told, but other models do not. They are found by the beginning of the type; a version follows it.
const CLIENT_TOOLS: [(&str, &str, &str); 4] = [
    (
        "bash_",
        "Run a command in a persistent bash session.",
        r#"{"type":"object","properties":{"command":{"type":"string","description":"The command to run."},"restart":{"type":"boolean","description":"Restart the session instead."}}}"#,
    ),
    (
        "text_editor_",
        "View, create and edit text files.",
        r#"{"type":"object","properties":{"command":{"type":"string","enum":["view","create","str_replace","insert","undo_edit"]},"path":{"type":"string","description":"Absolute path of the file or directory."},"file_text":{"type":"string","description":"The content, for create."},"old_str":{"type":"string","description":"The text to replace, for str_replace."},"new_str":{"type":"string","description":"The new text, for str_replace and insert."},"insert_line":{"type":"integer","description":"The line after which to insert."},"insert_text":{"type":"string","description":"The text to insert."},"view_range":{"type":"array","items":{"type":"integer"},"description":"First and last line to view."}},"required":["command","path"]}"#,
    ),
    (
        "memory_",
        "Keep notes in files below /memories.",
        r#"{"type":"object","properties":{"command":{"type":"string","enum":["view","create","str_replace","insert","delete","rename"]},"path":{"type":"string"},"view_range":{"type":"array","items":{"type":"integer"}},"file_text":{"type":"string"},"old_str":{"type":"string"},"new_str":{"type":"string"},"insert_line":{"type":"integer"},"insert_text":{"type":"string"},"old_path":{"type":"string"},"new_path":{"type":"string"}},"required":["command"]}"#,
    ),
    (
        "computer_",
        "Use a computer by its screen, mouse and keyboard.",
        r#"{"type":"object","properties":{"action":{"type":"string","description":"screenshot, left_click, right_click, middle_click, double_click, triple_click, mouse_move, left_click_drag, left_mouse_down, left_mouse_up, cursor_position, type, key, hold_key, scroll, wait or zoom"},"coordinate":{"type":"array","items":{"type":"integer"},"description":"x and y in pixels"},"start_coordinate":{"type":"array","items":{"type":"integer"}},"text":{"type":"string"},"scroll_direction":{"type":"string","enum":["up","down","left","right"]},"scroll_amount":{"type":"integer"},"duration":{"type":"number"},"region":{"type":"array","items":{"type":"integer"}}},"required":["action"]}"#,
    ),
];

/// The schemas of [`CLIENT_TOOLS`] as trees, which all requests share, because a copy of one takes several KB. All of
/// them parse: a test reads them.
static CLIENT_TOOL_SCHEMAS: LazyLock<Vec<Value<'static>>> = LazyLock::new(|| {
    let tree = |(_, _, schema): &(&str, &str, &'static str)| {
        crate::json::parse(&mut schema.as_bytes().to_vec()).map(Value::into_owned).unwrap_or_default()
    };
    CLIENT_TOOLS.iter().map(tree).collect()
});

/// The function that stands for the API's web search, whose calls sparkgap answers itself.
const SEARCH_DESCRIPTION: &str = "Search the web. Returns titles, addresses and short texts of pages.";
static SEARCH_SCHEMA: LazyLock<Value<'static>> = LazyLock::new(|| {
    let query = Value::object([("type", "string".into()), ("description", "The search query.".into())]);
    Value::object([
        ("type", "object".into()),
        ("properties", Value::object([("query", query)])),
        ("required", vec!["query".into()].into()),
    ])
});

/// How many tools of the API's own types one request may declare. The API itself accepts one of each type; a
/// declaration of 30 bytes becomes a schema of 1.1 KB for the upstream.
const CLIENT_TOOLS_MAX: usize = 16;

/// The type of the tools of an MCP server that only the API could ask. A request without them is an ordinary one, unlike
/// a request for nothing but a web search.
const MCP_TOOLSET: &str = "mcp_toolset";

/// Part of the type `computer_toolset_…`, which begins like a client tool but is run by the API's server.
const SERVER_TOOLSET: &str = "toolset";

/// The translation of the request's tools.
#[derive(Debug, Default)]
pub(super) struct Tools<'r> {
    /// `tools`; none are sent if it is empty.
    pub(super) functions: Vec<Value<'r>>,
    /// `tool_choice`, if any.
    pub(super) choice: Option<Value<'r>>,
    /// Whether the choice forces a call.
    pub(super) forced: bool,
    /// The tools that the model may call, late ones included.
    pub(super) declared: Vec<&'r Tool<'r>>,
    /// Server tools that were dropped: index and type.
    pub(super) dropped: Vec<(usize, &'r str)>,
    /// The rules for web searches, if the model is offered them.
    pub(super) search: Option<Box<WebSearchTool>>,
    /// True if no web search is offered because a tool of the client has its name.
    pub(super) has_search_clash: bool,
}

/// Translates the tools and the choice for an upstream. A web search is offered as a function if the settings say that it
/// can be made. A tool for whose name `stands_as_text` is true may be called, but is not sent: its definition stands in the
/// conversation. `choice` stands for the request's own.
///
/// # Errors
/// 400: the choice names a tool that is not declared, or all of the request's tools are ones that the API's server
/// would run, such as a web search.
pub(super) fn tools<'r>(
    request: &'r MessagesRequest<'r>,
    target: &Target<'_>,
    choice: Option<ToolChoice<'r>>,
    stands_as_text: &dyn Fn(&str) -> bool,
) -> Result<Tools<'r>, Error> {
    let mut tools = Tools::default();
    let (flavour, searches) = (target.flavour, target.settings.web_search);
    let mut client_tools = 0;
    for (i, tool) in request.tools.iter().enumerate() {
        client_tools += usize::from(tool.schema.is_none() && tool.kind.and_then(client_tool).is_some());
        if client_tools > CLIENT_TOOLS_MAX {
            let what = format!("tools: at most {CLIENT_TOOLS_MAX} tools of the API's own types are allowed");
            return Err(Error::invalid(format!("{what}; declare each of them once")));
        }
        match function(tool, flavour) {
            _ if tool.name == PLACEHOLDER => {}
            // The answer may call it, so its schema is needed.
            Some(_) if stands_as_text(tool.name) => tools.declared.push(tool),
            Some(function) => {
                tools.functions.push(function);
                tools.declared.push(tool);
            }
            None if searches && tools.offer_search(tool, request) => {}
            None => {
                let kind = tool.kind.unwrap_or(tool.name);
                if choice == Some(ToolChoice::Tool(tool.name)) {
                    return Err(server_tool_error(i, kind));
                }
                tools.dropped.push((i, kind));
            }
        }
    }
    // Claude Code's web search is a separate request with this one tool: an answer in plain text would pass for search
    // results.
    let wanted = tools.dropped.iter().find(|(_, kind)| *kind != MCP_TOOLSET);
    if let (true, Some((i, kind))) = (tools.functions.is_empty(), wanted) {
        return Err(server_tool_error(*i, kind));
    }
    choose(&mut tools, choice, flavour)?;
    Ok(tools)
}

impl<'r> Tools<'r> {
    /// Offers a web search as a function, once, unless the client has a tool of that name. Returns false if the tool is not a
    /// web search.
    fn offer_search(&mut self, tool: &'r Tool<'r>, request: &MessagesRequest<'_>) -> bool {
        let Some(rules) = WebSearchTool::read(tool.body).filter(|_| tool.name == WEB_SEARCH) else {
            return false;
        };
        if self.search.is_none() && !self.has_search_clash {
            self.has_search_clash =
                request.tools.iter().any(|other| other.name == WEB_SEARCH && is_sent(other));
            if !self.has_search_clash {
                let function = Value::object([
                    ("name", WEB_SEARCH.into()),
                    ("description", SEARCH_DESCRIPTION.into()),
                    ("parameters", SEARCH_SCHEMA.reborrow()),
                ]);
                let kind = ("type", "function".into());
                self.functions.push(Value::object([kind, ("function", function)]));
                self.declared.push(tool);
                self.search = Some(Box::new(rules));
            }
        }
        true
    }
}

fn server_tool_error(index: usize, kind: &str) -> Error {
    Error::invalid(format!("tools.{index}: server tool {kind} is not supported by this gateway"))
}

fn choose<'r>(
    tools: &mut Tools<'r>,
    choice: Option<ToolChoice<'r>>,
    flavour: ServerKind,
) -> Result<(), Error> {
    let Some(choice) = choice else { return Ok(()) };
    if let ToolChoice::Tool(name) = choice {
        let Some(at) = tools.declared.iter().position(|tool| tool.name == name) else {
            return Err(Error::invalid(format!(
                "tool_choice.name: tool '{name}' not found in provided tools"
            )));
        };
        tools.forced = true;
        if !flavour.dialect().takes_named_choice {
            // With a single tool, "required" means the same.
            tools.functions = vec![tools.functions.swap_remove(at)];
            tools.declared = vec![tools.declared.swap_remove(at)];
            tools.choice = Some("required".into());
        } else {
            let function = Value::object([("name", sent_name(name, flavour).into_owned().into())]);
            tools.choice = Some(Value::object([("type", "function".into()), ("function", function)]));
        }
        return Ok(());
    }
    if tools.functions.is_empty() {
        // vLLM refuses a choice without tools. A call cannot be forced without a tool to call.
        if choice == ToolChoice::Any {
            return Err(Error::invalid("tool_choice: 'any' needs at least one tool"));
        }
        return Ok(());
    }
    if choice == ToolChoice::None && !flavour.dialect().takes_no_choice {
        // Without tools the model cannot call any.
        tools.functions.clear();
        return Ok(());
    }
    tools.forced = choice == ToolChoice::Any;
    tools.choice = Some(match choice {
        ToolChoice::Any => "required".into(),
        ToolChoice::None => "none".into(),
        ToolChoice::Auto | ToolChoice::Tool(_) => "auto".into(),
    });
    Ok(())
}

/// True if a tool becomes a function.
pub(super) fn is_sent(tool: &Tool<'_>) -> bool {
    tool.name != PLACEHOLDER
        && (tool.schema.is_some() || tool.kind.is_none_or(|kind| client_tool(kind).is_some()))
}

/// The function for a tool that stands as text in the conversation. Only servers that take all names have such tools.
pub(super) fn late_function<'r>(tool: &'r Tool<'r>) -> Option<Value<'r>> {
    function(tool, ServerKind::Unknown)
}

/// The function for a tool. `None` if the API's server would run the tool.
fn function<'r>(tool: &'r Tool<'r>, flavour: ServerKind) -> Option<Value<'r>> {
    let known = tool.kind.and_then(client_tool);
    let parameters = match (tool.kind, tool.schema, known) {
        // A tool with a schema is run by the client, whatever its type: a server tool has no schema.
        (_, Some(schema), _) => parameters(schema),
        (None, None, _) => empty_schema(),
        (Some(_), None, Some((_, schema))) => schema.reborrow(),
        (Some(_), None, None) => return None,
    };
    let description = tool.description.or(known.map(|(text, _)| text));
    let mut function = Object::new();
    function.push("name", sent_name(tool.name, flavour));
    if let Some(description) = with_examples(description, tool.examples) {
        function.push("description", description);
    }
    function.push("parameters", parameters);
    if let Some(strict) = tool.strict {
        function.push("strict", strict);
    }
    Some(Value::object([("type", "function".into()), ("function", function.into())]))
}

/// The description, followed by the inputs that the client gives as examples: no server has a field for them.
fn with_examples<'r>(description: Option<&'r str>, examples: &'r [Value<'r>]) -> Option<Cow<'r, str>> {
    if examples.is_empty() {
        return description.map(Cow::Borrowed);
    }
    let lines: Vec<String> = examples.iter().map(Value::to_json).collect();
    let examples = format!("Examples of input:\n{}", lines.join("\n"));
    Some(Cow::Owned(description.map_or(examples.clone(), |text| format!("{text}\n\n{examples}"))))
}

/// The name under which a tool is sent. Only a strict API needs another name.
pub(super) fn sent_name(name: &str, flavour: ServerKind) -> Cow<'_, str> {
    if flavour.dialect().is_strict_on_names { strict_name(name) } else { Cow::Borrowed(name) }
}

/// The name of a tool at a server that accepts at most 64 characters of a small set; borrowed if it is the same. The
/// same name always gives the same result, so that the calls of a conversation keep their names.
pub(super) fn strict_name(name: &str) -> Cow<'_, str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.len() <= NAME_SIZE_MAX && name.chars().all(allowed) {
        return Cow::Borrowed(name);
    }
    let kept = name.chars().map(|c| if allowed(c) { c } else { '_' }).take(NAME_SIZE_KEPT);
    Cow::Owned(format!("{}_{}", kept.collect::<String>(), Fnv::EMPTY.push(name.as_bytes()).hex()))
}

/// The description and the schema of a tool that the API defines and the client runs.
fn client_tool(kind: &str) -> Option<(&'static str, &'static Value<'static>)> {
    let known = |(prefix, ..): &(&str, &str, &str)| kind.starts_with(prefix);
    let at = CLIENT_TOOLS.iter().position(known).filter(|_| !kind.contains(SERVER_TOOLSET))?;
    Some((CLIENT_TOOLS.get(at)?.1, CLIENT_TOOL_SCHEMAS.get(at)?))
}

/// The schema unchanged, except that a missing `type` and `properties`, which servers insist on, are added.
fn parameters<'r>(schema: &'r Value<'r>) -> Value<'r> {
    let mut schema = schema.reborrow();
    if let Some(object) = schema.as_object_mut() {
        if object.get("type").is_none() {
            object.push("type", "object");
        }
        if object.get("properties").is_none() {
            object.push("properties", Object::new());
        }
    }
    schema
}

fn empty_schema() -> Value<'static> {
    Value::object([("type", "object".into()), ("properties", Object::new().into())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constant_schemas_are_json() {
        for (prefix, text, schema) in CLIENT_TOOLS {
            let (description, tree) = client_tool(prefix).unwrap();
            assert_eq!((description, tree.to_json().as_str()), (text, schema), "{prefix}");
        }
    }

    #[test]
    fn server_tools_are_told_from_client_tools() {
        assert!(client_tool("bash_20250124").is_some());
        assert!(client_tool("text_editor_20250728").is_some());
        assert!(client_tool("computer_20250124").is_some());
        for kind in
            ["computer_toolset_20260801", "web_search_20250305", "code_execution_20250522", "mcp_toolset"]
        {
            assert!(client_tool(kind).is_none(), "{kind}");
        }
    }
}
