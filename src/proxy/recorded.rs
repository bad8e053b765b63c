//! The facts of a request that its recording needs, so that its answer can be translated again: written here, and read here.

use std::time::Instant;

use crate::activity::{Record, Recording, StepKind, Tap, hide_keys};
use crate::dialect::ServerKind;
use crate::error::{Error, Kind};
use crate::fleet::Resolved;
use crate::http::{Request, SECRET_HEADERS};
use crate::json::{Object, Value};
use crate::settings::{LateTools, LoopMode, Settings, SystemMessages, ThinkingMode};
use crate::state::RecordingRow;
use crate::translate::Asked;
use crate::translate::estimate::Prompt;

use super::keep::{millis, now};
use super::state::Proxy;

/// The headers of a client whose values are kept. Of the others only the names are.
const KEPT_HEADERS: [&str; 12] = [
    "accept",
    "accept-encoding",
    "anthropic-beta",
    "anthropic-version",
    "content-length",
    "content-type",
    "host",
    "user-agent",
    "x-app",
    "x-claude-code-agent-id",
    "x-claude-code-session-id",
    "x-claude-code-request-class",
];

const THINKING: [(ThinkingMode, &str); 3] =
    [(ThinkingMode::Auto, "auto"), (ThinkingMode::On, "on"), (ThinkingMode::Off, "off")];
const SYSTEM_MESSAGES: [(SystemMessages, &str); 2] =
    [(SystemMessages::Fold, "fold"), (SystemMessages::Keep, "keep")];
const LOOPS: [(LoopMode, &str); 3] =
    [(LoopMode::Warn, "warn"), (LoopMode::Off, "off"), (LoopMode::Break, "break")];
const LATE_TOOLS: [(LateTools, &str); 2] = [(LateTools::Declare, "declare"), (LateTools::Text, "text")];

/// The model that was asked, as far as the translation of its answer depends on it.
#[derive(Clone, Debug)]
pub(super) struct RecordedTarget {
    pub(super) model: String,
    pub(super) flavour: ServerKind,
    pub(super) window: Option<u64>,
    pub(super) settings: Settings,
    pub(super) context_window_beta: bool,
}

/// The keys that a request brings.
pub(super) fn keys_of(request: &Request) -> Vec<String> {
    let mut keys = Vec::new();
    for name in SECRET_HEADERS {
        for value in request.headers.values(name).filter_map(|value| std::str::from_utf8(value).ok()) {
            keys.push(value.rsplit_once(' ').map_or(value, |(_, key)| key).to_owned());
        }
    }
    keys
}

/// Notes the head of the client's request, and its keys.
pub(super) fn note_head(tap: &Tap, request: &Request) {
    tap.with(|recording| {
        keys_of(request).iter().for_each(|key| note_secret(recording, key));
        let header = |(name, value): (&str, &str)| {
            let value = if KEPT_HEADERS.contains(&name) { value } else { "***" };
            Value::object([("name", name.to_owned().into()), ("value", value.to_owned().into())])
        };
        let headers: Vec<Value<'_>> = request.headers.iter().map(header).collect();
        let head = Value::object([
            ("method", request.method.as_str().into()),
            ("path", request.path.as_str().into()),
            ("headers", headers.into()),
        ]);
        recording.head = head.to_json();
    });
}

/// Notes a key that must not be written.
pub(super) fn note_secret(recording: &mut Recording, key: &str) {
    if !recording.secrets.iter().any(|known| known == key) {
        recording.secrets.push(key.to_owned());
    }
}

/// Does what `on_request` said of the recording, and notes the body if the hook has changed it. `body` makes the bytes that the
/// hook has left.
pub(super) fn note_hooked(
    proxy: &Proxy,
    tap: &Tap,
    (request, body): (&Request, &dyn Fn() -> Vec<u8>),
    (decision, began): (Option<bool>, Instant),
) {
    if decision == Some(true) && proxy.store.get().is_none() {
        proxy
            .gateway()
            .warn_once("a hook asks for recordings, but there is no folder to write to", "add --state DIR");
    } else if let Some(is_wanted) = decision {
        let is_new = !tap.is_on();
        proxy.recorder.follow(tap, is_wanted, began);
        if is_new && is_wanted {
            note_head(tap, request);
            tap.with(|recording| recording.add(StepKind::Request, &body(), String::new()));
            return;
        }
    }
    tap.with(|recording| {
        let body = body();
        if recording.places.first().is_some_and(|client| *client != body) {
            recording.add(StepKind::Hooked, &body, String::new());
        }
    });
}

/// Notes the upstream that is asked next for an answer that is translated.
pub(super) fn note_target(tap: &Tap, resolved: &Resolved, context_window_beta: bool) {
    note_upstream(tap, resolved, || vec![("context_window_beta", context_window_beta.into())]);
}

/// Notes the upstream that is asked next, its keys, and more facts about it.
pub(super) fn note_upstream(
    tap: &Tap,
    resolved: &Resolved,
    more: impl FnOnce() -> Vec<(&'static str, Value<'static>)>,
) {
    let config = resolved.served.upstream().config();
    tap.with(|recording| {
        let keys = config.connection.headers.iter().map(|(_, value)| value).chain(&config.api_key);
        keys.for_each(|key| note_secret(recording, key.expose()));
    });
    tap.note(StepKind::Target, b"", || {
        let target = resolved.target();
        let window = target.window.map_or(Value::Null, Value::from);
        let mut facts = Object::new();
        facts.push("upstream", resolved.served.name());
        facts.push("url", config.url.as_str());
        facts.push("model", target.model);
        facts.push("flavour", target.flavour.name());
        facts.push("window", window);
        more().into_iter().for_each(|(name, value)| facts.push(name, value));
        facts.push("settings", settings_value(target.settings));
        Value::from(facts).to_json()
    });
}

/// The facts of [`StepKind::Expect`] and [`StepKind::Limits`]. `id`: the message's id, if a new message begins.
pub(super) fn asked_facts(asked: &Asked, id: Option<&str>, is_streamed: bool) -> String {
    let number = |number: Option<u64>| number.map_or(Value::Null, Value::from);
    let facts = Value::object([
        ("id", id.map_or(Value::Null, Value::from)),
        ("stream", is_streamed.into()),
        ("model", asked.model.as_str().into()),
        ("text", asked.estimate.text.into()),
        ("images", asked.estimate.images.into()),
        ("prompt_tokens", asked.prompt_tokens.into()),
        ("wanted_tokens", asked.wanted_tokens.into()),
        ("max_tokens", asked.max_tokens.into()),
        ("clamped", asked.is_clamped_to_window.into()),
        ("window", number(asked.window)),
    ]);
    facts.to_json()
}

/// Reads what [`asked_facts`] has written.
pub(super) fn read_asked(facts: &Value<'_>) -> Asked {
    let number = |name: &str| facts.get(name).and_then(Value::as_u64);
    let count = |name: &str| number(name).unwrap_or_default();
    Asked {
        model: facts.get("model").and_then(Value::as_str).unwrap_or_default().to_owned(),
        estimate: Prompt { text: count("text"), images: count("images") },
        prompt_tokens: count("prompt_tokens"),
        wanted_tokens: count("wanted_tokens"),
        max_tokens: count("max_tokens"),
        is_clamped_to_window: facts.get("clamped").and_then(Value::as_bool).unwrap_or_default(),
        window: number("window"),
    }
}

/// The facts of [`StepKind::Refusal`].
pub(super) fn refusal_facts(status: u16, retry_after: Option<u32>) -> String {
    let retry_after = retry_after.map_or(Value::Null, |seconds| u64::from(seconds).into());
    Value::object([("status", u64::from(status).into()), ("retry_after", retry_after)]).to_json()
}

/// The facts of [`StepKind::Failed`]. `is_event`: the client gets the error as an event.
pub(super) fn error_facts(error: &Error, is_event: bool) -> String {
    let facts = Value::object([
        ("status", u64::from(error.status()).into()),
        ("message", error.message.as_str().into()),
        ("event", is_event.into()),
        ("relayed", error.relayed_answer().is_some().into()),
    ]);
    facts.to_json()
}

/// Notes the body of an HTTP error as the client's bytes.
pub(super) fn note_error(tap: &Tap, error: &Error, request_id: &str) {
    tap.with(|recording| {
        let mut body = Vec::new();
        match error.relayed_answer() {
            Some(answer) => body.extend_from_slice(&answer.body),
            None => error.body(request_id, &mut body),
        }
        recording.add(StepKind::Answer, &body, String::new());
    });
}

/// Reads what [`error_facts`] has written: the error, and whether it is an event.
pub(super) fn read_error(facts: &Value<'_>) -> (Error, bool) {
    let status = facts.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let message = facts.get("message").and_then(Value::as_str).unwrap_or_default();
    let error = Error::new(Kind::Api, message).with_status(status.unwrap_or(500));
    (error, facts.get("event").and_then(Value::as_bool).unwrap_or_default())
}

/// Every setting, so that a new one is not forgotten.
fn settings_value(settings: &Settings) -> Value<'static> {
    let Settings {
        flavour: _,
        window,
        max_tokens,
        thinking,
        vision,
        system_messages,
        preserve_thinking,
        thinking_in_text,
        thinking_budget,
        coerce_arguments,
        rescue_tool_calls,
        loops,
        think_tags,
        never_empty,
        late_tools,
        user_id,
        allow_extra,
        image_schemes,
        foreign_thinking,
        web_search,
    } = settings;
    let number = |number: &Option<u64>| number.map_or(Value::Null, Value::from);
    let words = |words: &[String]| -> Value<'static> {
        words.iter().map(|word| Value::from(word.clone())).collect::<Vec<_>>().into()
    };
    Value::object([
        ("window", number(window)),
        ("max_tokens", number(max_tokens)),
        ("thinking", name_of(&THINKING, *thinking)),
        ("vision", (*vision).into()),
        ("system_messages", name_of(&SYSTEM_MESSAGES, *system_messages)),
        ("preserve_thinking", (*preserve_thinking).into()),
        ("thinking_in_text", (*thinking_in_text).into()),
        ("thinking_budget", thinking_budget.map_or(Value::Null, Value::from)),
        ("coerce_arguments", (*coerce_arguments).into()),
        ("rescue_tool_calls", (*rescue_tool_calls).into()),
        ("loops", name_of(&LOOPS, *loops)),
        ("think_tags", (*think_tags).into()),
        ("never_empty", (*never_empty).into()),
        ("late_tools", name_of(&LATE_TOOLS, *late_tools)),
        ("user_id", (*user_id).into()),
        ("allow_extra", words(allow_extra)),
        ("image_schemes", words(image_schemes)),
        ("foreign_thinking", (*foreign_thinking).into()),
        ("web_search", (*web_search).into()),
    ])
}

/// The settings that are not the usual ones, each as a line of a golden case. The window and the kind of the server have lines of
/// their own.
pub(super) fn settings_lines(settings: &Settings) -> Vec<(&'static str, String)> {
    let (mut told, usual) = (settings_value(settings), settings_value(&Settings::default()));
    let Some(members) = told.as_object_mut() else { return Vec::new() };
    let line = |name: &'static str| {
        let value = members.get(name)?;
        let text = match (value.as_str(), value.as_array()) {
            (Some(text), _) => text.to_owned(),
            (_, Some(words)) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            _ => value.to_json(),
        };
        (usual.get(name) != Some(value)).then_some((name, text))
    };
    CASE_SETTINGS.into_iter().filter_map(line).collect()
}

/// The settings that a golden case can have.
const CASE_SETTINGS: [&str; 18] = [
    "max_tokens",
    "thinking",
    "vision",
    "system_messages",
    "preserve_thinking",
    "thinking_in_text",
    "thinking_budget",
    "coerce_arguments",
    "rescue_tool_calls",
    "loops",
    "think_tags",
    "never_empty",
    "late_tools",
    "user_id",
    "allow_extra",
    "image_schemes",
    "foreign_thinking",
    "web_search",
];

fn name_of<T: Copy + PartialEq>(names: &[(T, &'static str)], value: T) -> Value<'static> {
    names.iter().find(|(known, _)| *known == value).map_or(Value::Null, |(_, name)| (*name).into())
}

fn read_settings(facts: &Value<'_>) -> Settings {
    let default = Settings::default();
    let flag = |name: &str| facts.get(name).and_then(Value::as_bool);
    let number = |name: &str| facts.get(name).and_then(Value::as_u64);
    let words = |name: &str| -> Option<Vec<String>> {
        let words = facts.get(name)?.as_array()?;
        Some(words.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    };
    Settings {
        flavour: None,
        window: number("window"),
        max_tokens: number("max_tokens"),
        thinking: choice(facts, "thinking", &THINKING).unwrap_or_default(),
        vision: flag("vision").unwrap_or(default.vision),
        system_messages: choice(facts, "system_messages", &SYSTEM_MESSAGES).unwrap_or_default(),
        preserve_thinking: flag("preserve_thinking").unwrap_or(default.preserve_thinking),
        thinking_in_text: flag("thinking_in_text").unwrap_or(default.thinking_in_text),
        thinking_budget: flag("thinking_budget"),
        coerce_arguments: flag("coerce_arguments").unwrap_or(default.coerce_arguments),
        rescue_tool_calls: flag("rescue_tool_calls").unwrap_or(default.rescue_tool_calls),
        loops: choice(facts, "loops", &LOOPS).unwrap_or_default(),
        think_tags: flag("think_tags").unwrap_or(default.think_tags),
        never_empty: flag("never_empty").unwrap_or(default.never_empty),
        late_tools: choice(facts, "late_tools", &LATE_TOOLS).unwrap_or_default(),
        user_id: flag("user_id").unwrap_or(default.user_id),
        allow_extra: words("allow_extra").unwrap_or(default.allow_extra),
        image_schemes: words("image_schemes").unwrap_or(default.image_schemes),
        foreign_thinking: flag("foreign_thinking").unwrap_or(default.foreign_thinking),
        web_search: flag("web_search").unwrap_or(default.web_search),
    }
}

fn choice<T: Copy>(facts: &Value<'_>, key: &str, names: &[(T, &'static str)]) -> Option<T> {
    let told = facts.get(key)?.as_str()?;
    names.iter().find(|(_, name)| *name == told).map(|(value, _)| *value)
}

/// Reads what [`note_target`] has written. `None`: another version has written it.
pub(super) fn read_target(facts: &Value<'_>) -> Option<RecordedTarget> {
    Some(RecordedTarget {
        model: facts.get("model")?.as_str()?.to_owned(),
        flavour: ServerKind::from_name(facts.get("flavour")?.as_str()?)?,
        window: facts.get("window").and_then(Value::as_u64),
        settings: read_settings(facts.get("settings")?),
        context_window_beta: facts.get("context_window_beta").and_then(Value::as_bool).unwrap_or_default(),
    })
}

/// Ends the recording of a request, and hands it to the state folder if it is to be kept. Returns whether it is.
// `inline(never)`: keep this frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget).
#[inline(never)]
pub(super) fn keep_recording(proxy: &Proxy, tap: &Tap, record: &Record) -> bool {
    let Some(store) = proxy.store.get() else { return false };
    let Some(clean) = proxy.recorder.end(tap, record.is_failed()) else { return false };
    let mut head = Object::new();
    head.push("record", record.to_value());
    let mut head = Value::from(head).to_json().into_bytes();
    hide_keys(&mut head, &clean.known);
    // The head of the client's request is JSON already; it is missing if the request had no valid one.
    let mut head = String::from_utf8_lossy(&head).into_owned();
    if head.pop().is_some() && !clean.head.is_empty() {
        head.push_str(",\"request\":");
        head.push_str(&clean.head);
    }
    head.push('}');
    let row = RecordingRow {
        id: record.request_id.clone(),
        session: record.details.session.as_deref().unwrap_or_default().to_owned(),
        ended_ms: millis(now()),
        head,
        steps: clean.steps,
        places: clean.places,
        is_cut: clean.is_cut,
    };
    let size_max = u64::try_from(proxy.recorder.options().size_max).unwrap_or(u64::MAX);
    store.add_recording(row, size_max);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn settings_come_back() {
        let settings = Settings {
            max_tokens: Some(7),
            thinking: ThinkingMode::Off,
            vision: false,
            system_messages: SystemMessages::Keep,
            preserve_thinking: false,
            thinking_in_text: true,
            thinking_budget: Some(true),
            coerce_arguments: false,
            rescue_tool_calls: false,
            loops: LoopMode::Break,
            think_tags: true,
            never_empty: true,
            late_tools: LateTools::Text,
            user_id: true,
            allow_extra: vec!["x".to_owned()],
            image_schemes: Vec::new(),
            foreign_thinking: false,
            web_search: true,
            window: Some(9),
            flavour: None,
        };
        let mut text = settings_value(&settings).to_json().into_bytes();
        assert_eq!(read_settings(&json::parse(&mut text).unwrap()), settings);
        assert_eq!(read_settings(&Value::Null), Settings::default());
        assert!(read_target(&Value::Null).is_none());
    }

    #[test]
    fn every_setting_but_the_window_can_stand_in_a_case() {
        let value = settings_value(&Settings::default());
        let names: Vec<&str> = value.as_object().unwrap().iter().map(|(name, _)| name).collect();
        assert_eq!(names[0], "window");
        assert_eq!(names[1..], CASE_SETTINGS);
        assert_eq!(settings_lines(&Settings::default()), []);
        let settings = Settings {
            loops: LoopMode::Break,
            vision: false,
            allow_extra: Vec::new(),
            ..Settings::default()
        };
        let lines = settings_lines(&settings);
        assert!(
            lines.contains(&("loops", "break".to_owned())) && lines.contains(&("vision", "false".to_owned()))
        );
    }

    #[test]
    fn limits_and_errors_come_back() {
        let asked = Asked {
            model: "m\"".to_owned(),
            estimate: Prompt { text: 1, images: 2 },
            prompt_tokens: 3,
            wanted_tokens: 4,
            max_tokens: 5,
            is_clamped_to_window: true,
            window: Some(6),
        };
        let mut text = asked_facts(&asked, Some("msg_1"), true).into_bytes();
        assert_eq!(format!("{:?}", read_asked(&json::parse(&mut text).unwrap())), format!("{asked:?}"));
        let error = Error::new(Kind::BadGateway, "x");
        let mut text = error_facts(&error, true).into_bytes();
        assert_eq!(read_error(&json::parse(&mut text).unwrap()), (error, true));
    }
}
