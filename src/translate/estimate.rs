//! Estimates the number of tokens of a text.
//!
//! The estimate is used when the upstream gives no count: in the first event of a stream, for the room left for an
//! answer, and for a token count that no server can make. [`Estimator`](super::Estimator) adjusts it to what was
//! learned of a model.

use crate::json::{Object, Value};

use super::image;

/// Bytes per token of English and code (docs/translation.md, F).
const BYTES_PER_TOKEN: f64 = 3.6;
/// Bytes per token of JSON schemas.
const SCHEMA_BYTES_PER_TOKEN: f64 = 3.2;
/// Tokens per Chinese, Japanese or Korean character, which takes three bytes.
const TOKENS_PER_WIDE_CHARACTER: f64 = 1.2;
const TOKENS_PER_MESSAGE: f64 = 4.0;
const TOKENS_PER_TOOL: f64 = 8.0;
/// Tokens of an image whose size is not known.
const TOKENS_PER_IMAGE: f64 = 1600.0;
/// The side, in pixels, of the patches that Qwen's vision models split an image into, and the most patches of one
/// image. (The API's w * h / 750 gives the same to a few percent.)
const IMAGE_PATCH_SIZE: u64 = 28;
const IMAGE_PATCHES_MAX: u64 = 16_384;

/// The length in bytes of the parts in which wide characters are counted: a `u8` must hold the count of one part.
const COUNTED_MAX: usize = 240;

/// The tokens of the text of an answer.
pub fn text_tokens(text: &str) -> f64 {
    // From U+3000 on, where CJK begins, the first byte of a character is 0xe3 or larger. The count is kept in a byte,
    // because the compiler adds sixteen bytes at a time, and the parts are too short for the count to overflow.
    let count = |part: &[u8]| part.iter().map(|byte| u8::from(*byte >= 0xe3)).sum::<u8>();
    let wide: usize = text.as_bytes().chunks(COUNTED_MAX).map(|part| usize::from(count(part))).sum();
    let rest = text.len().saturating_sub(3 * wide);
    size_as_float(wide) * TOKENS_PER_WIDE_CHARACTER + size_as_float(rest) / BYTES_PER_TOKEN
}

/// The tokens of a prompt by rule of thumb, before the estimate is adjusted to a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Tokens of all text: messages and tools.
    pub text: u64,
    /// Tokens of all images.
    pub images: u64,
}

/// The tokens of a chat completion's prompt: its `messages` and `tools`.
pub fn prompt(chat: &Value<'_>) -> Prompt {
    let messages = chat.get("messages").and_then(Value::as_array).unwrap_or_default();
    let tools = chat.get("tools").and_then(Value::as_array).unwrap_or_default();
    let mut images = 0.0;
    let messages: f64 =
        messages.iter().map(|message| TOKENS_PER_MESSAGE + value_tokens(message, &mut images)).sum();
    let tools: f64 = tools.iter().map(tool_tokens).sum();
    Prompt { text: whole(messages + tools), images: whole(images) }
}

/// The tokens of a prompt as one number, at least 1. For a caller that knows nothing of the model.
pub fn prompt_tokens(chat: &Value<'_>) -> u64 {
    let Prompt { text, images } = prompt(chat);
    text.saturating_add(images).max(1)
}

/// The tokens of the beginning of a request that other conversations share: its `system` and `tools`.
pub fn head_tokens(request: &Value<'_>) -> u64 {
    let mut images = 0.0;
    let system = request.get("system").map_or(0.0, |system| value_tokens(system, &mut images));
    let tools = request.get("tools").and_then(Value::as_array).unwrap_or_default();
    whole(system + tools.iter().map(tool_tokens).sum::<f64>())
}

/// The tokens of a tool's declaration.
fn tool_tokens(tool: &Value<'_>) -> f64 {
    TOKENS_PER_TOOL + size_as_float(size(tool)) / SCHEMA_BYTES_PER_TOKEN
}

/// Rounds up to a whole number.
pub fn whole(tokens: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, far below 2^53"
    )]
    {
        tokens.ceil() as u64
    }
}

/// The tokens of the text in a value. The tokens of its images are added to `images`.
fn value_tokens(value: &Value<'_>, images: &mut f64) -> f64 {
    match value {
        Value::String(text) => text_tokens(text),
        Value::Array(items) => items.iter().map(|item| value_tokens(item, images)).sum(),
        Value::Object(object) if object.get("image_url").is_some() => {
            let url = object.get("image_url").and_then(|image| image.get("url")?.as_str());
            *images += image_tokens(url.unwrap_or(""));
            0.0
        }
        Value::Object(object) => object.iter().map(|(_, value)| value_tokens(value, images)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInteger(_) => 0.0,
    }
}

fn image_tokens(url: &str) -> f64 {
    let size = url.split_once(";base64,").and_then(|(_, data)| image::size(data));
    size.map_or(TOKENS_PER_IMAGE, |(width, height)| {
        let patches = width.div_ceil(IMAGE_PATCH_SIZE) * height.div_ceil(IMAGE_PATCH_SIZE);
        float(patches.clamp(1, IMAGE_PATCHES_MAX))
    })
}

/// The approximate size of a value as JSON, in bytes.
#[inline] // so that only containers cost a call
fn size(value: &Value<'_>) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items_size(items),
        Value::Object(object) => entries_size(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::BigInteger(_) => 4,
    }
}

fn items_size(items: &[Value<'_>]) -> usize {
    items.iter().map(|item| size(item) + 1).sum::<usize>() + 2
}

fn entries_size(object: &Object<'_>) -> usize {
    object.iter().map(|(key, value)| key.len() + size(value) + 4).sum::<usize>() + 2
}

fn size_as_float(n: usize) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "sizes in memory are far below 2^53")]
    {
        n as f64
    }
}

/// Converts a number of tokens to a float, for arithmetic.
pub(super) fn float(tokens: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "token counts are far below 2^53")]
    {
        tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn english_chinese_and_images() {
        assert_eq!(whole(text_tokens(&"a".repeat(3600))), 1000);
        assert_eq!(whole(text_tokens(&"字".repeat(1000))), 1200);
        let mut bytes = br#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:x"}}]}]}"#.to_vec();
        let tokens = prompt_tokens(&crate::json::parse(&mut bytes).unwrap());
        assert!((1600..1700).contains(&tokens), "{tokens}");
    }

    #[test]
    fn nothing_is_one_token() {
        assert_eq!(prompt_tokens(&Value::Null), 1);
    }
}
