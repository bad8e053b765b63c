//! Reads `messages`: roles, contents and their blocks.

use std::borrow::Cow;

use crate::json::{Object, Value};

use super::{
    At, Block, CONTENT_BLOCKS_MAX, IMAGES_MAX, MESSAGES_MAX, Message, REQUIRED, Read, Role, ToolResult,
    boolean, list, member, object, required, string,
};

const NOT_TEXT_OR_BLOCKS: &str = "Input should be a valid string or a list of blocks";
const NO_FILES: &str = "files api not supported";

/// The name of a call in the history that has a blank one. No server takes a call without a name, and the client
/// would send such a call with every later request of its conversation.
const UNNAMED_TOOL: &str = "unnamed_tool";

/// The number of calls and results in the history that have a blank id. Each call gets an id with its number, and the
/// results behind an answer get those of its calls, in order, so that they still belong together.
#[derive(Default)]
struct BlankIds {
    calls: usize,
    results: usize,
}

impl BlankIds {
    /// The id, or one made of the number. Nine letters and digits, because Mistral's templates take no other ids.
    fn id_or_next<'r>(id: &'r str, number: &mut usize) -> Cow<'r, str> {
        if !id.trim().is_empty() {
            return Cow::Borrowed(id);
        }
        let made = format!("call{number:05}");
        *number += 1;
        Cow::Owned(made)
    }

    /// Begins an answer: a result from now on belongs to one of its calls, even if earlier ones have no result.
    fn begin_answer(&mut self) {
        self.results = self.calls;
    }
}

/// The facts about the messages read so far that the next ones need.
#[derive(Default)]
struct ReadState {
    /// The blocks and images, whose numbers are limited over the whole request.
    blocks: usize,
    images: usize,
    blank_ids: BlankIds,
    role: Option<Role>,
}

/// Reads the messages; there must be at least one.
pub(super) fn read<'r>(body: &'r Object<'r>) -> Read<Vec<Message<'r>>> {
    let at = At::Top("messages");
    let items = list(required(body, "messages", &at)?, &at, MESSAGES_MAX)?;
    if items.is_empty() {
        return Err(at.error("at least one message is required"));
    }
    let mut state = ReadState::default();
    let read = |(i, message)| read_message(message, &At::Index(&at, i), &mut state);
    let messages = items.iter().enumerate().map(read).collect::<Read<Vec<Message<'r>>>>()?;
    if state.images > IMAGES_MAX {
        // Claude Code recognizes this text, and sends its conversation again without the images.
        let what = format!("too many images and documents: {} + 0 > {IMAGES_MAX}", state.images);
        return Err(at.error(&what));
    }
    Ok(messages)
}

fn read_message<'r>(value: &'r Value<'r>, at: &At<'_>, state: &mut ReadState) -> Read<Message<'r>> {
    let message = object(value, at)?;
    let at_role = At::Key(at, "role");
    let role = match string(required(message, "role", &at_role)?, &at_role)? {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => return Err(at_role.error("Input should be 'user' or 'assistant'")),
    };
    if role == Role::Assistant && state.role != Some(Role::Assistant) {
        state.blank_ids.begin_answer();
    }
    state.role = Some(role);
    let config = message.get("output_config");
    let effort = config.and_then(|config| config.get("effort")).and_then(Value::as_str);
    let at_content = At::Key(at, "content");
    let content = match message.get("content") {
        // A system message may have an effort and no content.
        None | Some(Value::Null) if role == Role::System => Vec::new(),
        None => return Err(at_content.error(REQUIRED)),
        Some(content) => read_content(content, &at_content, state, read_block)?,
    };
    let until_next_user = message.get("clear_at").and_then(Value::as_str) == Some("next_user_message");
    Ok(Message { role, content, until_next_user, effort })
}

/// Reads one block of a message or of a result.
type ReadBlock<'r> = fn(&'r Value<'r>, &At<'_>, &mut ReadState) -> Read<Block<'r>>;

fn read_content<'r>(
    value: &'r Value<'r>,
    at: &At<'_>,
    state: &mut ReadState,
    read: ReadBlock<'r>,
) -> Read<Vec<Block<'r>>> {
    if let Some(text) = value.as_str() {
        return Ok(vec![Block::Text(text)]);
    }
    let items = value.as_array().ok_or_else(|| at.error(NOT_TEXT_OR_BLOCKS))?;
    state.blocks += items.len();
    if state.blocks > CONTENT_BLOCKS_MAX {
        return Err(at.error(&format!("A request should have at most {CONTENT_BLOCKS_MAX} content blocks")));
    }
    items.iter().enumerate().map(|(i, block)| read(block, &At::Index(at, i), state)).collect()
}

/// Reads a block of a tool's result. A block that means something in a message only is part of the tool's output here.
fn read_result_block<'r>(value: &'r Value<'r>, at: &At<'_>, state: &mut ReadState) -> Read<Block<'r>> {
    let body = object(value, at)?;
    match body.get("type").and_then(Value::as_str) {
        Some(kind @ ("tool_use" | "tool_result" | "thinking")) => Ok(Block::Other { kind, body }),
        _ => read_block(value, at, state),
    }
}

fn read_block<'r>(value: &'r Value<'r>, at: &At<'_>, state: &mut ReadState) -> Read<Block<'r>> {
    let block = object(value, at)?;
    let text_at = |key: &'static str| -> Read<&'r str> {
        let at = At::Key(at, key);
        string(required(block, key, &at)?, &at)
    };
    Ok(match text_at("type")? {
        "text" => Block::Text(text_at("text")?),
        "image" => Block::Image(read_image(block, at, state)?),
        "tool_use" => Block::ToolUse {
            id: BlankIds::id_or_next(text_at("id")?, &mut state.blank_ids.calls),
            name: or_if_blank(text_at("name")?, UNNAMED_TOOL),
            input: match member(block, "input") {
                Some(input) => {
                    object(input, &At::Key(at, "input"))?;
                    Some(input)
                }
                None => None,
            },
        },
        "tool_result" => Block::ToolResult(ToolResult {
            id: BlankIds::id_or_next(text_at("tool_use_id")?, &mut state.blank_ids.results),
            content: match member(block, "content") {
                Some(content) => read_content(content, &At::Key(at, "content"), state, read_result_block)?,
                None => Vec::new(),
            },
            is_error: boolean(block, "is_error", &At::Key(at, "is_error"))?,
        }),
        "thinking" => Block::Thinking {
            text: text_at("thinking")?,
            signature: block.get("signature").and_then(Value::as_str).unwrap_or(""),
        },
        kind => {
            if kind == "document" {
                check_document(block, at, state)?;
            }
            Block::Other { kind, body: block }
        }
    })
}

fn or_if_blank<'r>(text: &'r str, substitute: &'static str) -> &'r str {
    if text.trim().is_empty() { substitute } else { text }
}

/// Checks the parts of a document that would fail further on: a reference to an uploaded file, which the model would
/// never see, and images. Other sources, known or not, become text.
fn check_document<'r>(block: &'r Object<'r>, at: &At<'_>, state: &mut ReadState) -> Read<()> {
    let at = At::Key(at, "source");
    let Some(source) = block.get("source").and_then(Value::as_object) else { return Ok(()) };
    if source.get("type").and_then(Value::as_str) == Some("file") {
        return Err(at.error(NO_FILES));
    }
    let at = At::Key(&at, "content");
    let items = source.get("content").and_then(Value::as_array).unwrap_or_default();
    for (i, item) in items.iter().enumerate() {
        if let (Some("image"), Some(item)) = (item.get("type").and_then(Value::as_str), item.as_object()) {
            read_image(item, &At::Index(&at, i), state)?;
        }
    }
    Ok(())
}

/// The checked source of an image.
fn read_image<'r>(block: &'r Object<'r>, at: &At<'_>, state: &mut ReadState) -> Read<&'r Value<'r>> {
    let at = At::Key(at, "source");
    let source = required(block, "source", &at)?;
    check_image_source(object(source, &at)?, &at)?;
    state.images += 1;
    Ok(source)
}

fn check_image_source(source: &Object<'_>, at: &At<'_>) -> Read<()> {
    let text = |key: &'static str| -> Read<()> {
        let at = At::Key(at, key);
        string(required(source, key, &at)?, &at).map(|_| ())
    };
    text("type")?;
    match source.get("type").and_then(Value::as_str) {
        Some("base64") => text("media_type").and_then(|()| text("data")),
        Some("url") => text("url"),
        Some("file") => Err(at.error(NO_FILES)),
        _ => Err(At::Key(at, "type").error("Input should be 'base64' or 'url'")),
    }
}
