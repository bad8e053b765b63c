//! A pattern of Lua on a text: `find`, `match`, `gmatch` and `gsub` end, and do the same twice.
//!
//! Input: one byte for the length of the pattern, then the pattern; the rest is the text.

#![no_main]

use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sparkgap::config::UpstreamConfig;
use sparkgap::hooks::{HookLimits, HookRequest, Hooks, LoadOptions};
use sparkgap::json::Value;

const LUA: &str = r#"return {
    on_upstream_request = function(body)
        local text, pattern = body.text, body.pattern
        local function told(...) return json.encode(table.pack(...).n) .. tostring((...)) end
        body.find = told(pcall(string.find, text, pattern)) .. told(pcall(string.find, text, pattern, 2, true))
        body.match = told(pcall(string.match, text, pattern, -3))
        body.gsub = told(pcall(string.gsub, text, pattern, "<%0>"))
        body.gmatch = told(pcall(function() for _ in text:gmatch(pattern) do end end))
    end,
}"#;

fuzz_target!(|input: &[u8]| {
    let Some((length, rest)) = input.split_first() else { return };
    let Some((pattern, text)) = rest.split_at_checked(usize::from(*length).min(rest.len())) else { return };
    let matched = || {
        let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut body = Value::object([("text", text_of(text).into()), ("pattern", text_of(pattern).into())]);
        let called = hooks().on_upstream_request(&mut body, &mut HookRequest::default());
        assert_eq!(called, Ok(()), "its policy is open");
        body.to_json()
    };
    assert_eq!(matched(), matched());
});

fn hooks() -> &'static Hooks {
    static HOOKS: OnceLock<Hooks> = OnceLock::new();
    HOOKS.get_or_init(|| {
        let upstream = UpstreamConfig::new("main", "http://127.0.0.1:1/v1".to_owned());
        let texts = vec![("fuzz.lua".to_owned(), LUA.to_owned())];
        // On a busy machine the usual limit ends one of two equal calls.
        let call = Duration::from_secs(10);
        let limits = HookLimits { call, ..HookLimits::default() };
        let options = LoadOptions { texts, limits, ..LoadOptions::default() };
        Hooks::load(&[], vec![upstream], options).expect("the file has no mistake").hooks
    })
}
