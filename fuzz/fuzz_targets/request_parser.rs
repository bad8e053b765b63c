//! Any bytes of a client become either an error that names the mistake, or for every flavour of upstream
//! a chat completion that is JSON, keeps the order of calls and results, and is the same for the same bytes.
//!
//! Input: one byte for the owner's settings; the rest is the body.

#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sparkgap::anthropic::MessagesRequest;
use sparkgap::dialect::ServerKind;
use sparkgap::error::Error;
use sparkgap::json::{self, Document};
use sparkgap::settings::{Settings, SystemMessages, ThinkingMode};
use sparkgap::translate::{Lessons, Target, chat_request};

use support::replay::REQUEST_ID;

fuzz_target!(|input: &[u8]| {
    let Some((options, body)) = input.split_first() else { return };
    let settings = settings(*options);
    for (flavour, _) in ServerKind::NAMES {
        let window = (options & 1 == 1).then_some(9000);
        let target =
            Target { model: "qwen3", flavour, window, lessons: Lessons::default(), settings: &settings };
        let chat = translated(body, &target);
        assert_eq!(chat, translated(body, &target), "{flavour:?}: not the same twice");
        match chat {
            Ok(chat) => check_chat(&chat, flavour),
            Err(error) => return check_error(&error),
        }
    }
});

fn settings(options: u8) -> Settings {
    let is = |bit: u8| options >> bit & 1 == 1;
    Settings {
        max_tokens: is(0).then_some(4096),
        thinking: [ThinkingMode::Auto, ThinkingMode::On, ThinkingMode::Off, ThinkingMode::Auto]
            [usize::from(options >> 1 & 3)],
        vision: !is(3),
        system_messages: if is(4) { SystemMessages::Keep } else { SystemMessages::Fold },
        thinking_in_text: is(5),
        thinking_budget: Some(is(6)),
        think_tags: is(7),
        user_id: is(6),
        preserve_thinking: !is(7),
        ..Settings::default()
    }
}

fn translated(bytes: &[u8], target: &Target<'_>) -> Result<String, Error> {
    let mut document = Document::from(bytes.to_vec());
    let body = document.parse().map_err(|error| Error::invalid(error.to_string()))?;
    assert_eq!(Ok(&body), json::parse(&mut bytes.to_vec()).as_ref(), "another tree in an arena");
    let request = MessagesRequest::read(&body)?;
    let chat = chat_request(&request, target)?;
    assert!(chat.plan.asked.prompt_tokens > 0 && chat.plan.asked.max_tokens > 0);
    let mut out = Vec::new();
    chat.body.write(&mut out);
    Ok(String::from_utf8(out).expect("JSON is UTF-8"))
}

fn check_error(error: &Error) {
    let mut body = Vec::new();
    error.body(REQUEST_ID, &mut body);
    let body: Value = serde_json::from_slice(&body).expect("an error is JSON");
    assert_eq!(error.kind.status(), 400);
    assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
}

fn check_chat(chat: &str, flavour: ServerKind) {
    let mut reader = serde_json::Deserializer::from_str(chat);
    reader.disable_recursion_limit();
    let chat: Value =
        serde::Deserialize::deserialize(&mut reader).unwrap_or_else(|error| panic!("{error}: {chat}"));
    assert_eq!(chat["stream"], true);
    check_messages(chat["messages"].as_array().expect("messages"));
    let names: Vec<&str> = match chat.get("tools") {
        Some(tools) => {
            let tools = tools.as_array().expect("tools");
            assert!(!tools.is_empty());
            tools.iter().map(|tool| tool["function"]["name"].as_str().expect("a name")).collect()
        }
        None => {
            assert!(chat.get("tool_choice").is_none() && chat.get("parallel_tool_calls").is_none());
            Vec::new()
        }
    };
    if let Some(name) = chat["tool_choice"]["function"]["name"].as_str() {
        assert!(names.contains(&name), "{name} of {names:?} for {flavour:?}");
    }
}

/// Checks that an answer's calls are followed by their results, one each and in their order, and that there are no
/// other results.
fn check_messages(messages: &[Value]) {
    let mut open = Vec::new().into_iter();
    for message in messages {
        let role = message["role"].as_str().expect("a role");
        if role == "tool" {
            assert_eq!(open.next(), Some(message["tool_call_id"].clone()), "in {messages:?}");
            assert!(message["content"].is_string());
            continue;
        }
        assert_eq!(open.next(), None, "a call without a result in {messages:?}");
        let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
        assert!(calls.is_empty() || role == "assistant");
        for call in &calls {
            let arguments = call["function"]["arguments"].as_str().expect("arguments");
            let arguments: Value = serde_json::from_str(arguments).expect("arguments are JSON");
            assert!(arguments.is_object());
        }
        open = calls.iter().map(|call| call["id"].clone()).collect::<Vec<_>>().into_iter();
        let content = &message["content"];
        assert!(
            content.is_string() || content.is_array() || (content.is_null() && role == "assistant"),
            "{message}"
        );
    }
    assert_eq!(open.next(), None, "a call without a result in {messages:?}");
}
