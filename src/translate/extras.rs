//! The members beyond the API's own that clients may pass on to the server, and the addresses that it may be made to
//! fetch.
//!
//! A server trusts sparkgap, not sparkgap's clients. So what acts on the server rather than on the answer is passed on
//! only if the owner has named it (`allow_extra`, `image_schemes`).

use crate::anthropic::{Block, Message, MessagesRequest};
use crate::error::Error;
use crate::json::{Object, Value};
use crate::settings::Settings;
use crate::shown::cut;

use super::blocks;
use super::plan::Target;

/// Extensions that vLLM's clients send beside the API's own fields. They are passed on unchanged. They change only how
/// tokens are chosen; `cache_salt` keeps the client's cache apart from others.
const EXTRAS: [&str; 7] = [
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "cache_salt",
    "logit_bias",
];

/// Extensions of vLLM and SGLang that act on the server rather than on the answer: they are dropped, with a warning,
/// unless the owner allows them (`allow_extra`).
const PRIVILEGED_EXTRAS: [&str; 6] = [
    "priority",
    "vllm_xargs",
    "kv_transfer_params",
    "chat_template",
    "mm_processor_kwargs",
    "media_io_kwargs",
];

/// The members of `chat_template_kwargs` that clients may set: those with which the usual templates switch thinking. The
/// others go to the tokenizer's own function (`chat_template`, `tokenize`), or to whatever a template makes of them.
const TEMPLATE_ARGUMENTS: [&str; 8] = [
    "enable_thinking",
    "preserve_thinking",
    "clear_thinking",
    "truncate_history_thinking",
    "thinking",
    "thinking_budget",
    "reasoning_effort",
    "low_effort",
];

/// How many members that are not allowed are reported for one request, and how many bytes of each.
const REPORTED_MAX: usize = 16;
const REPORTED_SIZE_MAX: usize = 64;

/// Adds the usual extensions.
pub(super) fn add_usual<'r>(body: &mut Object<'r>, request: &MessagesRequest<'r>) {
    for key in EXTRAS {
        if let Some(value) = request.body.get(key) {
            body.push(key, value.reborrow());
        }
    }
}

/// Adds the members that the owner allows. A member that sparkgap sets itself stays as it is.
pub(super) fn add_allowed<'r>(body: &mut Object<'r>, request: &MessagesRequest<'r>, settings: &Settings) {
    for key in &settings.allow_extra {
        if let Some(value) = request.body.get(key).filter(|_| body.get(key).is_none()) {
            body.set(key.clone(), value.reborrow());
        }
    }
}

/// The arguments of the client for the model's template that may go there.
pub(super) fn template_arguments<'r>(
    request: &MessagesRequest<'r>,
    settings: &Settings,
) -> impl Iterator<Item = (&'r str, &'r Value<'r>)> {
    sent_arguments(request).filter(|(key, _)| takes_argument(settings, key))
}

fn sent_arguments<'r>(
    request: &MessagesRequest<'r>,
) -> impl Iterator<Item = (&'r str, &'r Value<'r>)> + use<'r> {
    let sent = request.body.get("chat_template_kwargs").and_then(Value::as_object);
    sent.into_iter().flat_map(|sent| sent.iter())
}

fn takes_argument(settings: &Settings, key: &str) -> bool {
    TEMPLATE_ARGUMENTS.contains(&key) || allows(settings, key)
}

fn allows(settings: &Settings, key: &str) -> bool {
    settings.allow_extra.iter().any(|allowed| allowed == key)
}

/// The members that were not passed on although their client expects it, each once. Names that are the client's own
/// words are cut, and only the first ones are reported.
pub(super) fn not_allowed(request: &MessagesRequest<'_>, settings: &Settings) -> Vec<String> {
    let members = PRIVILEGED_EXTRAS.into_iter();
    let members = members.filter(|key| request.body.get(key).is_some() && !allows(settings, key));
    let arguments = sent_arguments(request).map(|(key, _)| key).filter(|key| !takes_argument(settings, key));
    let arguments = arguments.map(|key| format!("chat_template_kwargs.{}", cut(key, REPORTED_SIZE_MAX)));
    let mut names = Vec::new();
    for name in members.map(str::to_owned).chain(arguments.take(REPORTED_MAX)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Checks the addresses of images that the server would fetch.
///
/// # Errors
/// 400: an address has a scheme that the owner does not allow.
pub(super) fn check_images(messages: &[Message<'_>], target: &Target<'_>) -> Result<(), Error> {
    // Without these, a line of text stands in the place of each address.
    if !target.settings.vision || !target.flavour.dialect().takes_image_addresses {
        return Ok(());
    }
    for (message, content) in messages.iter().map(|message| &message.content).enumerate() {
        for (block, source) in content
            .iter()
            .enumerate()
            .flat_map(|(at, block)| sources(block).into_iter().map(move |source| (at, source)))
        {
            if !takes_address(source, target.settings) {
                let schemes = target.settings.image_schemes.join(" or ");
                return Err(Error::invalid(format!(
                    "messages.{message}.content.{block}: images are fetched only from addresses that begin with {schemes}; send the image as base64"
                )));
            }
        }
    }
    Ok(())
}

/// The sources of the images in a block.
fn sources<'b>(block: &'b Block<'b>) -> Vec<&'b Value<'b>> {
    match block {
        Block::Image(source) => vec![source],
        Block::ToolResult(result) => result.content.iter().flat_map(sources).collect(),
        Block::Other { kind: "document", body } => blocks::images(body).collect(),
        Block::Text(_) | Block::ToolUse { .. } | Block::Thinking { .. } | Block::Other { .. } => Vec::new(),
    }
}

fn takes_address(source: &Value<'_>, settings: &Settings) -> bool {
    let text = |key: &str| source.get(key).and_then(Value::as_str);
    if text("type") != Some("url") {
        return true;
    }
    let scheme = text("url").and_then(|url| url.split_once(':')).map_or("", |(scheme, _)| scheme);
    settings.image_schemes.iter().any(|allowed| allowed.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn only_https_and_data_are_fetched_unless_allowed() {
        let mut settings = Settings::default();
        for (url, by_default, with_http) in [
            ("https://h/x.png", true, false),
            ("HTTPS://h/x.png", true, false),
            ("data:image/png;base64,AA==", true, false),
            ("http://169.254.0.1/latest", false, true),
            ("file:///etc/passwd", false, false),
            (" https://h/x.png", false, false),
            ("//h/x.png", false, false),
            ("ftp://h/x", false, false),
            ("https", false, false),
            ("", false, false),
        ] {
            let mut bytes = format!(r#"{{"type":"url","url":"{url}"}}"#).into_bytes();
            let source = json::parse(&mut bytes).unwrap();
            settings.image_schemes = Settings::default().image_schemes;
            assert_eq!(takes_address(&source, &settings), by_default, "{url}");
            settings.image_schemes = vec!["http".into()];
            assert_eq!(takes_address(&source, &settings), with_http, "{url}");
        }
        let mut bytes = br#"{"type":"base64","media_type":"image/png","data":"AA=="}"#.to_vec();
        assert!(takes_address(&json::parse(&mut bytes).unwrap(), &Settings::default()));
    }
}
