//! `on_event`: the changes to an event that it may make. `on_request`: the blocks of an answer that it gives.

use super::*;

/// An event of each type.
fn event(kind: &'static str) -> Value<'static> {
    let (key, value) = match kind {
        "tool_use" => ("name", "Bash"),
        "end" => ("stop_reason", "end_turn"),
        _ => ("text", "said"),
    };
    Value::object([("type", kind.into()), (key, value.into())])
}

/// The bodies of hooks that break the rules, for pieces of text and for the events that are only looked at.
const WRONG: [&str; 12] = [
    "return { nonsense = 1 }",
    "return 5",
    "return true",
    "return 'text'",
    "return { 1, 2 }",
    "return { f = print }",
    "return { type = 'other', text = 'x', name = 'x' }",
    "ev.type = 'other'",
    "ev.type = 5",
    "ev.text = 'kept?' error('on purpose')",
    "ev.text = 'kept?' return 5",
    "ev.text = 'kept?' ev.type = 'end?'",
];
const WRONG_FOR_TEXT: [&str; 5] =
    ["ev.text = 5", "ev.text = nil", "ev.text = json.null", "ev.text = { 'a' }", "return { type = ev.type }"];
const WRONG_FOR_OTHERS: [&str; 3] = [
    "return false",
    "ev.name = 'Other' ev.stop_reason = 'other'",
    "return { type = ev.type, name = 'Other', stop_reason = 'other' }",
];

#[test]
fn a_wrong_event_is_a_failure_and_leaves_no_trace() {
    for kind in ["text", "thinking", "tool_use", "end"] {
        let is_text = matches!(kind, "text" | "thinking");
        let more: &[&str] = if is_text { &WRONG_FOR_TEXT } else { &WRONG_FOR_OTHERS };
        for lua in WRONG.iter().chain(more) {
            let run = |policy: &str| {
                let hooks =
                    hooks(&format!("return {{ policy = '{policy}', on_event = function(ev) {lua} end }}"));
                let mut seen = event(kind);
                let outcome = hooks.on_event(&mut seen, &mut request());
                assert_eq!(hooks.failures(Hook::Event), 1, "{kind}: {lua}");
                (outcome, seen)
            };
            let (outcome, seen) = run("open");
            assert_eq!((outcome, seen), (Ok(true), event(kind)), "{kind}: {lua}");
            let (outcome, seen) = run("closed");
            assert_eq!(outcome.unwrap_err().kind, Kind::Permission, "{kind}: {lua}");
            assert_eq!(seen, event(kind), "{kind}: {lua}");
        }
    }
}

#[test]
fn an_event_may_be_looked_at_changed_and_replaced() {
    let run = |kind: &'static str, lua: &str| {
        let hooks = hooks(&format!("return {{ policy = 'closed', on_event = function(ev) {lua} end }}"));
        let mut seen = event(kind);
        (hooks.on_event(&mut seen, &mut request()).unwrap(), seen)
    };
    for kind in ["text", "thinking", "tool_use", "end"] {
        for lua in ["", "return ev", "local name = ev.name", "ev.note = 1 ev.note = nil"] {
            assert_eq!(run(kind, lua), (true, event(kind)), "{kind}: {lua}");
        }
    }
    let mut changed = event("text");
    changed.as_object_mut().unwrap().set("text", "new");
    assert_eq!(run("text", "ev.text = 'new'"), (true, changed));
    assert!(!run("thinking", "return false").0);
}

#[test]
fn no_file_hides_an_event_from_the_next_one() {
    let second = "return { policy = 'closed', on_event_types = { 'text' }, \
        on_event = function(ev) if ev.text == 'secret' then error('on purpose') end end }";
    for first in ["return { text = 'secret' }", "ev.type = nil ev.text = 'secret'", "ev.text = 'secret'"] {
        let first = format!("return {{ on_event = function(ev) {first} end }}");
        let loaded = load_files(&[("10-first.lua", &first), ("20-second.lua", second)]).unwrap();
        let outcome = loaded.hooks.on_event(&mut event("text"), &mut request());
        assert_eq!(outcome.unwrap_err().kind, Kind::Permission, "{first}");
    }
}

#[test]
fn an_answer_of_blocks_that_cannot_be_shown_is_a_failure() {
    let run = |blocks: &str| {
        let lua = format!(
            "return {{ policy = 'closed', on_request = function() return {{ respond = {{ content = {blocks} }} }} end }}"
        );
        decide(&hooks(&lua), "{}")
    };
    for blocks in [
        "{ 5 }",
        "{ { type = 'image' } }",
        "{ { type = 'text' } }",
        "{ { type = 'text', text = 5 } }",
        "{ 'a', { type = 'thinking', thinking = 'b' } }",
        "{ { type = 'tool_use', input = {} } }",
        "{ { type = 'tool_use', name = '', input = {} } }",
        "{ { type = 'tool_use', name = 5 } }",
        "{ { type = 'tool_use', name = 'Bash', input = 'rm' } }",
        "{ { type = 'tool_use', name = 'Bash', input = { 1 } } }",
    ] {
        assert_eq!(run(blocks).unwrap_err().kind, Kind::Permission, "{blocks}");
    }
    for blocks in [
        "'a'",
        "json.array({})",
        "{ 'a', { type = 'text', text = 'b' } }",
        "{ { type = 'tool_use', name = 'Bash' } }",
        "{ { type = 'tool_use', id = 'x', name = 'Bash', input = { command = 'ls' } } }",
    ] {
        assert!(matches!(run(blocks), Ok(Decision::Respond(_))), "{blocks}");
    }
}
