//! Estimates the memory for everything that the translation makes beside the texts of a request: messages, blocks,
//! tools, and the members around them.
//!
//! Used for the bound on a request's memory. Each size is measured with the largest item of its kind
//! (`tests/memory.rs`).

use crate::json::{Object, Value};

const MESSAGE_SIZE: usize = 300;
const BLOCK_SIZE: usize = 136;
/// An image, and the line that says which call returned it.
const IMAGE_SIZE: usize = 1200;
/// A call, and the result that takes the place of a missing one.
const CALL_SIZE: usize = 580;
const MISSING_RESULT_SIZE: usize = 320;
const RESULT_SIZE: usize = 320;
const TOOL_SIZE: usize = 960;
/// A member of an object that is copied so that another member can be added behind it. The list is moved while it
/// grows.
const MEMBER_SIZE: usize = 170;

/// The approximate number of bytes that the translation of a request takes for its parts.
pub fn parts_size(body: &Value<'_>) -> usize {
    let list = |key: &str| body.get(key).and_then(Value::as_array).unwrap_or_default();
    let copied = members(Some(body)) + members(body.get("chat_template_kwargs"));
    let tools = list("tools").iter().map(tool_size);
    let mut calls = Calls::default();
    let messages = list("messages").iter().map(|message| MESSAGE_SIZE + content(message, &mut calls));
    let system = list("system").len() * BLOCK_SIZE;
    let size = messages.sum::<usize>() + tools.sum::<usize>() + system + copied * MEMBER_SIZE;
    size + calls.made.saturating_sub(calls.answered) * MISSING_RESULT_SIZE
}

fn members(value: Option<&Value<'_>>) -> usize {
    value.and_then(Value::as_object).map_or(0, Object::len)
}

fn tool_size(tool: &Value<'_>) -> usize {
    TOOL_SIZE + members(tool.get("input_schema")) * MEMBER_SIZE
}

#[derive(Default)]
struct Calls {
    made: usize,
    answered: usize,
}

fn content(of: &Value<'_>, calls: &mut Calls) -> usize {
    let blocks = of.get("content").and_then(Value::as_array).unwrap_or_default();
    blocks.iter().map(|block| block_size(block, calls)).sum()
}

fn block_size(block: &Value<'_>, calls: &mut Calls) -> usize {
    match block.get("type").and_then(Value::as_str) {
        Some("image") => IMAGE_SIZE,
        Some("tool_use") => {
            calls.made += 1;
            CALL_SIZE
        }
        Some("tool_result") => {
            calls.answered += 1;
            RESULT_SIZE + content(block, calls)
        }
        Some("tool_addition") => {
            let tool = block.get("tool").and_then(|tool| tool.get("definition"));
            tool.map_or(BLOCK_SIZE, tool_size)
        }
        Some("document") => {
            let images = block.get("source").and_then(|source| source.get("content")?.as_array());
            BLOCK_SIZE + images.unwrap_or_default().len() * IMAGE_SIZE
        }
        _ => {
            let brought = block.get("tool_changes").and_then(Value::as_array).unwrap_or_default();
            let brought = brought.iter().filter_map(|change| change.get("tool")?.get("definition"));
            BLOCK_SIZE + brought.map(tool_size).sum::<usize>()
        }
    }
}
