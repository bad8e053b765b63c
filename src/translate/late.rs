//! Tools that the client declares in the course of a conversation, and that stay out of `tools`.
//!
//! Templates render `tools` before the conversation, so a tool that is added there changes the beginning of the prompt,
//! and the server reads everything behind it again. A client with tool search (Claude Code) marks such a tool with
//! `defer_loading`, and the result of its search refers to it. With `late_tools = "text"` the definition stands as text
//! where the conversation refers to the tool first, as in the API itself, and `tools` stays as it was. All of this is
//! found from the request alone, so every replica finds the same.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::anthropic::{Block, MessagesRequest, Tool, ToolChoice};
use crate::json::{Object, Value};
use crate::settings::LateTools;

use super::plan::Target;
use super::tools::{is_sent, late_function};

/// The type of the block that refers to a tool.
const REFERENCE: &str = "tool_reference";

/// The late tools of a request. Empty unless the operator wants them as text.
#[derive(Debug, Default)]
pub(super) struct Late<'r> {
    /// By name: the tool, and whether its definition stands in the conversation already.
    tools: HashMap<&'r str, (&'r Tool<'r>, bool)>,
}

impl<'r> Late<'r> {
    /// Finds the late tools: deferred ones that the conversation refers to. Finds nothing if a call may be forced,
    /// since servers force only calls of `tools`, or if nothing else would be left in `tools`, without which servers do
    /// not look for calls.
    pub(super) fn of(request: &'r MessagesRequest<'r>, target: &Target<'_>) -> Self {
        let is_forced = matches!(request.tool_choice, Some(ToolChoice::Any | ToolChoice::Tool(_)));
        let is_wanted = target.settings.late_tools == LateTools::Text;
        if !is_wanted || is_forced || !target.flavour.dialect().passes_undeclared_calls {
            return Late::default();
        }
        let deferred = request.tools.iter().filter(|tool| tool.deferred && tool.schema.is_some());
        let mut deferred: HashMap<&str, &Tool<'_>> =
            deferred.filter(|tool| is_sent(tool)).map(|tool| (tool.name, tool)).collect();
        let blocks = request.messages.iter().flat_map(|message| &message.content);
        let mut tools = HashMap::new();
        for block in blocks {
            let inner = if let Block::ToolResult(result) = block { result.content.as_slice() } else { &[] };
            for name in std::iter::once(block).chain(inner).filter_map(referred) {
                if let Some((name, tool)) = deferred.remove_entry(name) {
                    tools.insert(name, (tool, false));
                }
            }
        }
        let stays = |tool: &Tool<'_>| is_sent(tool) && !tools.contains_key(tool.name);
        if request.tools.iter().any(stays) { Late { tools } } else { Late::default() }
    }

    /// True if the definition of this tool stands in the conversation, so that the tool stays out of `tools`.
    pub(super) fn has_told(&self, name: &str) -> bool {
        self.tools.get(name).is_some_and(|(_, is_told)| *is_told)
    }

    /// The text for a block that refers to a late tool for the first time. `None`: any other block.
    pub(super) fn tell(&mut self, kind: &str, body: &Object<'_>) -> Option<Cow<'static, str>> {
        let name = name_in(kind, body)?;
        let (tool, is_told) = self.tools.get_mut(name)?;
        if std::mem::replace(is_told, true) {
            return None;
        }
        let definition = late_function(tool)?.to_json();
        Some(Cow::Owned(format!(
            "Tool \"{name}\" is now available. Call it as you call the other tools.\n<tools>\n{definition}\n</tools>"
        )))
    }
}

fn referred<'b>(block: &'b Block<'_>) -> Option<&'b str> {
    if let Block::Other { kind, body } = block { name_in(kind, body) } else { None }
}

fn name_in<'b>(kind: &str, body: &'b Object<'_>) -> Option<&'b str> {
    if kind == REFERENCE { body.get("tool_name").and_then(Value::as_str) } else { None }
}
