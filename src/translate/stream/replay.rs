//! Turns a whole message that did not come from an upstream into the events of an answer.

use crate::json::Value;

use super::{AnswerSink, Emit, MessageStream};

impl MessageStream {
    /// Emits a message that a hook returned, or the results of a search: its `content`, a string or an array of text and
    /// tool_use blocks and of those of a web search, and its `stop_reason`.
    pub fn replay(&mut self, message: &Value<'_>, emit: &mut Emit<'_>) {
        self.marks.switch_off();
        self.told.finish(match message.get("stop_reason").and_then(Value::as_str) {
            Some("max_tokens") => "length",
            Some("refusal") => "content_filter",
            _ => "stop",
        });
        let MessageStream { told, tokens, content, .. } = self;
        let sink = &mut AnswerSink { told, tokens, emit };
        content.start(sink);
        let blocks = message.get("content").unwrap_or(&Value::Null);
        for block in blocks.as_array().unwrap_or(std::slice::from_ref(blocks)) {
            // Nothing follows a call that was cut.
            if content.has_cut_call() {
                break;
            }
            let field = |key: &str| block.get(key).and_then(Value::as_str);
            if let Some("server_tool_use" | "web_search_tool_result") = field("type") {
                content.server_block(block, sink);
            } else if let Some(text) = block.as_str().or_else(|| field("text")) {
                content.text(text, sink);
            } else if let (Some("tool_use"), Some(name)) = (field("type"), field("name")) {
                let input = block.get("input").map_or_else(|| "{}".to_string(), Value::to_json);
                content.whole_call((field("id").unwrap_or_default(), name), &input, sink);
            }
        }
        // The finish reason is set, so this cannot fail.
        let _ = self.end(emit);
    }
}
