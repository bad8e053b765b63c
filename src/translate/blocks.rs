//! Turns content blocks that chat completions do not support into text: documents, search results, and the blocks that
//! another provider's server tools left in the history.

use std::borrow::Cow;

use crate::base64_text::decode_base64;
use crate::json::{Object, Value};

const DOCUMENT_OMITTED: &str = "[document omitted]";
/// Replaces a PDF. Extractors inflate a PDF's streams without a limit, and 4 KB of them can be 2 GB, so the server does
/// not run one. A model that runs commands can do it, in a process of its own.
const PDF_OMITTED: &str = "[PDF document omitted: the gateway passes on text and images only. If the file is at hand, \
     `pdftotext FILE -` prints its text]";
const NOT_BASE64: &str = "[document omitted: its data is not valid base64]";

/// The media type of a PDF.
const PDF_TYPE: &str = "application/pdf";

/// The ends of media types that are text, beside all of `text/`: `application/x-yaml` and `application/ld+json` too.
const TEXT_TYPES: [&str; 15] = [
    "json",
    "jsonl",
    "ndjson",
    "xml",
    "yaml",
    "toml",
    "csv",
    "markdown",
    "html",
    "javascript",
    "ecmascript",
    "typescript",
    "sql",
    "graphql",
    "sh",
];

/// Types without text that no model misses. Dropping any other type is worth a warning to the operator.
const MEANINGLESS: [&str; 6] = [
    "redacted_thinking",
    "container_upload",
    "fallback",
    "mcp_tool_listing",
    "tool_addition",
    "tool_removal",
];

/// True if a block of type `kind` is dropped although it may have meant something.
pub(super) fn is_lost(kind: &str, body: &Object<'_>) -> bool {
    !MEANINGLESS.contains(&kind) && text(kind, body).is_none()
}

/// The text of a block of type `kind`. `None` if it has no text; such a block is dropped.
pub(super) fn text<'r>(kind: &str, body: &'r Object<'r>) -> Option<Cow<'r, str>> {
    match kind {
        "document" => Some(document(body)),
        "search_result" => Some(search_result(body)),
        "tool_reference" => {
            let name = string(body, "tool_name")?;
            Some(Cow::Owned(format!("Tool \"{name}\" is now available.")))
        }
        "server_tool_use" | "mcp_tool_use" => Some(server_tool_use(body)),
        "compaction" => {
            let content = body.get("content").and_then(Value::as_str)?;
            Some(Cow::Owned(format!("Summary of the earlier conversation:\n{content}")))
        }
        "redacted_thinking" | "container_upload" | "fallback" | "mcp_tool_listing" => None,
        kind if kind.ends_with("_tool_result") => Some(server_tool_result(kind, body)),
        _ => string(body, "text").map(Cow::Borrowed),
    }
}

/// The sources of the images in a document of blocks.
pub(super) fn images<'r>(document: &'r Object<'r>) -> impl Iterator<Item = &'r Value<'r>> {
    let content = document.get("source").and_then(|source| source.get("content")?.as_array());
    let is_image = |item: &&Value<'_>| item.get("type").and_then(Value::as_str) == Some("image");
    content.unwrap_or_default().iter().filter(is_image).filter_map(|item| item.get("source"))
}

fn string<'r>(body: &'r Object<'r>, key: &str) -> Option<&'r str> {
    body.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The document's title and context, then the text of its source.
fn document<'r>(body: &'r Object<'r>) -> Cow<'r, str> {
    let source = body.get("source").and_then(Value::as_object);
    let text = match source.and_then(|source| string(source, "type")) {
        Some("text") => source.and_then(|source| string(source, "data")).map(Cow::Borrowed),
        Some("content") => source.and_then(|source| source.get("content")).map(texts),
        Some("base64") => match unread_type(body) {
            Some(kind) if kind.eq_ignore_ascii_case(PDF_TYPE) => Some(Cow::Borrowed(PDF_OMITTED)),
            Some(_) => None,
            None => source.map(encoded),
        },
        // The address is all that is known of the document, and the model may have a tool that fetches it.
        Some("url") => source
            .and_then(|source| string(source, "url"))
            .map(|url| Cow::Owned(format!("[document at {url}, which the gateway does not fetch]"))),
        _ => None,
    };
    let text = text.unwrap_or(Cow::Borrowed(DOCUMENT_OMITTED));
    let head: Vec<&str> = ["title", "context"].iter().filter_map(|key| string(body, key)).collect();
    if head.is_empty() { text } else { Cow::Owned(format!("{}\n{text}", head.join("\n"))) }
}

/// The media type of a document in base64 that is not text: the model gets a placeholder for it.
pub(super) fn unread_type<'r>(document: &'r Object<'r>) -> Option<&'r str> {
    let source = document.get("source").and_then(Value::as_object)?;
    // A parameter, such as the character set, does not matter.
    let kind =
        string(source, "media_type").and_then(|kind| kind.split(';').next()).unwrap_or("unknown").trim();
    (source.get("type").and_then(Value::as_str) == Some("base64") && !is_text_type(kind)).then_some(kind)
}

/// True if a document of this media type without parameters is text. Upper case means the same.
fn is_text_type(media_type: &str) -> bool {
    let name = media_type.to_ascii_lowercase();
    let is_named = |kind: &str| name.rsplit(['/', '+', '-']).next() == Some(kind);
    name.starts_with("text/") || TEXT_TYPES.iter().any(|kind| is_named(kind))
}

/// The text of a source in base64.
fn encoded<'r>(source: &'r Object<'r>) -> Cow<'r, str> {
    let data = string(source, "data").unwrap_or_default();
    match decode_base64(data).map(String::from_utf8) {
        Some(Ok(text)) => Cow::Owned(text),
        // Another encoding than UTF-8: the letters of English are right all the same.
        Some(Err(error)) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        None => Cow::Borrowed(NOT_BASE64),
    }
}

fn search_result<'r>(body: &'r Object<'r>) -> Cow<'r, str> {
    let head = ["title", "source"].iter().filter_map(|key| string(body, key));
    let mut lines: Vec<Cow<'r, str>> = head.map(Cow::Borrowed).collect();
    lines.extend(body.get("content").map(texts));
    Cow::Owned(lines.join("\n"))
}

fn server_tool_use<'r>(body: &'r Object<'r>) -> Cow<'r, str> {
    let name = string(body, "name").unwrap_or("tool");
    let input = body.get("input");
    let query = input.and_then(|input| input.get("query")).and_then(Value::as_str).map(str::to_string);
    let input = query.or(input.map(Value::to_json)).unwrap_or_default();
    Cow::Owned(format!("[{name}: {input}]"))
}

/// `results: title - url` for search results, otherwise all texts that the result holds.
fn server_tool_result<'r>(kind: &str, body: &'r Object<'r>) -> Cow<'r, str> {
    let Some(content) = body.get("content") else { return Cow::Owned(format!("[{kind}]")) };
    let line = |item: &'r Value<'r>| {
        let field = |key: &str| item.get(key).and_then(Value::as_str);
        match (field("title"), field("url")) {
            (Some(title), Some(url)) => Some(format!("{title} - {url}")),
            _ => field("text").map(str::to_string),
        }
    };
    let lines: Vec<String> = content.as_array().unwrap_or_default().iter().filter_map(line).collect();
    let text = match (lines.is_empty(), content) {
        (false, _) => lines.join("\n"),
        (true, Value::String(text)) => text.to_string(),
        (true, other) => other.to_json(),
    };
    Cow::Owned(format!("results:\n{text}"))
}

/// The text of a string, or the texts of an array of blocks.
fn texts<'r>(content: &'r Value<'r>) -> Cow<'r, str> {
    if let Some(text) = content.as_str() {
        return Cow::Borrowed(text);
    }
    let items = content.as_array().unwrap_or_default();
    let texts: Vec<&str> = items.iter().filter_map(|item| item.get("text")?.as_str()).collect();
    Cow::Owned(texts.join("\n"))
}
