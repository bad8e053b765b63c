//! Reads `messages`: roles, contents and their blocks.

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

/// The id of a call and of a result in the history that have a blank one; so they still belong together. Nine letters
/// and digits, because Mistral's templates take no other ids.
const BLANK_CALL_ID: &str = "call00000";

/// The numbers read so far of the items that are limited over the whole request.
#[derive(Default)]
struct ElementCounts {
    blocks: usize,
    images: usize,
}

/// Reads the messages; there must be at least one.
pub(super) fn read<'r>(body: &'r Object<'r>) -> Read<Vec<Message<'r>>> {
    let at = At::Top("messages");
    let items = list(required(body, "messages", &at)?, &at, MESSAGES_MAX)?;
    if items.is_empty() {
        return Err(at.error("at least one message is required"));
    }
    let mut counts = ElementCounts::default();
    let read = |(i, message)| read_message(message, &At::Index(&at, i), &mut counts);
    let messages = items.iter().enumerate().map(read).collect::<Read<Vec<Message<'r>>>>()?;
    if counts.images > IMAGES_MAX {
        // Claude Code recognizes this text, and sends its conversation again without the images.
        let what = format!("too many images and documents: {} + 0 > {IMAGES_MAX}", counts.images);
        return Err(at.error(&what));
    }
    Ok(messages)
}

fn read_message<'r>(value: &'r Value<'r>, at: &At<'_>, counts: &mut ElementCounts) -> Read<Message<'r>> {
    let message = object(value, at)?;
    let at_role = At::Key(at, "role");
    let role = match string(required(message, "role", &at_role)?, &at_role)? {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => return Err(at_role.error("Input should be 'user' or 'assistant'")),
    };
    let config = message.get("output_config");
    let effort = config.and_then(|config| config.get("effort")).and_then(Value::as_str);
    let at_content = At::Key(at, "content");
    let content = match message.get("content") {
        // A system message may have an effort and no content.
        None | Some(Value::Null) if role == Role::System => Vec::new(),
        None => return Err(at_content.error(REQUIRED)),
        Some(content) => read_content(content, &at_content, counts)?,
    };
    let until_next_user = message.get("clear_at").and_then(Value::as_str) == Some("next_user_message");
    Ok(Message { role, content, until_next_user, effort })
}

fn read_content<'r>(value: &'r Value<'r>, at: &At<'_>, counts: &mut ElementCounts) -> Read<Vec<Block<'r>>> {
    if let Some(text) = value.as_str() {
        return Ok(vec![Block::Text(text)]);
    }
    let items = value.as_array().ok_or_else(|| at.error(NOT_TEXT_OR_BLOCKS))?;
    counts.blocks += items.len();
    if counts.blocks > CONTENT_BLOCKS_MAX {
        return Err(at.error(&format!("A request should have at most {CONTENT_BLOCKS_MAX} content blocks")));
    }
    items.iter().enumerate().map(|(i, block)| read_block(block, &At::Index(at, i), counts)).collect()
}

fn read_block<'r>(value: &'r Value<'r>, at: &At<'_>, counts: &mut ElementCounts) -> Read<Block<'r>> {
    let block = object(value, at)?;
    let text_at = |key: &'static str| -> Read<&'r str> {
        let at = At::Key(at, key);
        string(required(block, key, &at)?, &at)
    };
    Ok(match text_at("type")? {
        "text" => Block::Text(text_at("text")?),
        "image" => Block::Image(read_image(block, at, counts)?),
        "tool_use" => Block::ToolUse {
            id: or_if_blank(text_at("id")?, BLANK_CALL_ID),
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
            id: or_if_blank(text_at("tool_use_id")?, BLANK_CALL_ID),
            content: match member(block, "content") {
                Some(content) => read_content(content, &At::Key(at, "content"), counts)?,
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
                check_document(block, at, counts)?;
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
fn check_document<'r>(block: &'r Object<'r>, at: &At<'_>, counts: &mut ElementCounts) -> Read<()> {
    let at = At::Key(at, "source");
    let Some(source) = block.get("source").and_then(Value::as_object) else { return Ok(()) };
    if source.get("type").and_then(Value::as_str) == Some("file") {
        return Err(at.error(NO_FILES));
    }
    let at = At::Key(&at, "content");
    let items = source.get("content").and_then(Value::as_array).unwrap_or_default();
    for (i, item) in items.iter().enumerate() {
        if let (Some("image"), Some(item)) = (item.get("type").and_then(Value::as_str), item.as_object()) {
            read_image(item, &At::Index(&at, i), counts)?;
        }
    }
    Ok(())
}

/// The checked source of an image.
fn read_image<'r>(block: &'r Object<'r>, at: &At<'_>, counts: &mut ElementCounts) -> Read<&'r Value<'r>> {
    let at = At::Key(at, "source");
    let source = required(block, "source", &at)?;
    check_image_source(object(source, &at)?, &at)?;
    counts.images += 1;
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
