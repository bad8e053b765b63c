//! Tests of the hooks as a whole: loading, views, faults and limits.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use std::time::{Duration, Instant};

use super::*;
use crate::config::UpstreamConfig;
use crate::error::{Error, Kind, Retry};
use crate::json;
use crate::json::Value;

mod escapes;
mod events;
mod faults;
mod mistakes;
mod patterns;
mod shipped;
mod views;

/// A folder of one test's files, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Folder {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sparkgap-hooks-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        for (name, text) in files {
            std::fs::write(path.join(name), text).unwrap();
        }
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Time and memory limits that a test on a busy machine does not reach by accident.
fn options() -> LoadOptions {
    let limits =
        HookLimits { call: Duration::from_secs(20), load: Duration::from_secs(2), ..HookLimits::default() };
    LoadOptions { limits, ..LoadOptions::default() }
}

fn upstream(name: &str) -> UpstreamConfig {
    UpstreamConfig::new(name, format!("http://127.0.0.1:1/{name}"))
}

/// Loads one file of this text beside an upstream `main`.
fn load(text: &str) -> Result<Loaded, LoadError> {
    load_files(&[("10-test.lua", text)])
}

fn load_files(files: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let folder = Folder::new(files);
    Hooks::load(std::slice::from_ref(&folder.0), vec![upstream("main")], options())
}

fn hooks(text: &str) -> Hooks {
    load(text).unwrap_or_else(|error| panic!("{error}")).hooks
}

/// Hooks whose `on_upstream_request` has this Lua body.
fn on_body(lua: &str) -> Hooks {
    hooks(&format!("return {{ on_upstream_request = function(body, req)\n{lua}\nend }}"))
}

/// Runs `on_upstream_request` on a body and returns the changed body.
fn edit(hooks: &Hooks, body: &str) -> String {
    let mut bytes = body.as_bytes().to_vec();
    let mut body = json::parse(&mut bytes).unwrap();
    hooks.on_upstream_request(&mut body, &mut HookRequest::default()).unwrap();
    body.to_json()
}

/// Runs `on_request` on a body.
fn decide(hooks: &Hooks, body: &str) -> Result<Decision, Error> {
    let mut bytes = body.as_bytes().to_vec();
    let mut body = json::parse(&mut bytes).unwrap();
    hooks.on_request(&mut request(), &mut body, &|model| model)
}

fn request() -> HookRequest {
    HookRequest {
        model: "claude-x".to_owned(),
        path: "/v1/messages".to_owned(),
        method: "POST".to_owned(),
        headers: [("X-Team", "red"), ("x-team", "blue")].map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec(),
        client_ip: "192.168.68.20".to_owned(),
        user: Some("anna".to_owned()),
        tokens_est: 1000,
        tool_names: vec!["Bash".to_owned()],
        has_tools: true,
        ..HookRequest::default()
    }
}

fn crate_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn hooks_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Hooks>();
}

#[test]
fn an_undefined_hook_is_reported_as_undefined() {
    let hooks = hooks("return { on_log = function() end }");
    assert!(hooks.defines(Hook::Log));
    assert!(!hooks.defines(Hook::Request));
    assert_eq!(decide(&hooks, "{}"), Ok(Decision::Continue));
    assert!(!hooks.wants_event("text"));
}

#[test]
fn on_request_sees_the_request_and_routes() {
    let hooks = hooks(
        r#"return { on_request = function(req)
            assert(req.model == "claude-x" and req.stream == false and req.max_tokens == nil)
            assert(req.path == "/v1/messages" and req.method == "POST" and req.client_ip == "192.168.68.20")
            assert(req.user == "anna")
            assert(req.headers["x-TEAM"] == "red" and req.headers.nope == nil)
            assert(req.tokens_est == 1000 and req.has_tools and not req.has_images and not req.thinking)
            assert(req.tool_names()[1] == "Bash" and #req.tool_names() == 1)
            assert(req.session == nil and req.agent == nil and req.upstream == nil)
            local seen = {}
            for key, value in pairs(req) do seen[key] = value end
            assert(seen.model == "claude-x" and seen.body and seen.headers["x-team"])
            return { model = req.body.model .. "!", upstream = "main" }
        end }"#,
    );
    let route = Decision::Route {
        model: Some("m!".to_owned()),
        upstreams: vec!["main".to_owned()],
        lane: None,
        record: None,
    };
    assert_eq!(decide(&hooks, r#"{"model":"m"}"#), Ok(route));
    assert_eq!(hooks.failures(Hook::Request), 0);
}

#[test]
fn a_later_hook_sees_the_model_that_an_earlier_one_has_chosen() {
    const SEES: &str = r#"return { on_request = function(req) log.info(req.model) return { message = req.model, reject = 404 } end }"#;
    for (first, seen) in [
        ("", "claude-x"),
        ("return { model = 'other' }", "other"),
        ("return { model = 'anthropic/other' }", "other"),
        ("req.body.model = 'anthropic/edited'", "edited"),
        ("req.body.model = 'edited'", "edited"),
        ("req.body.model = 'edited' return { model = 'other' }", "other"),
        ("req.body.x = 1 return { upstream = 'main' }", "claude-x"),
        ("req.body.model = 'undone' error('x')", "claude-x"),
    ] {
        let first = format!("return {{ on_request = function(req) {first} end }}");
        let hooks = load_files(&[("1.lua", first.as_str()), ("2.lua", SEES)]).unwrap().hooks;
        let mut request = request();
        let mut bytes = br#"{"model":"anthropic/claude-x"}"#.to_vec();
        let looked_up: &dyn Fn(&str) -> &str = &|model| model.strip_prefix("anthropic/").unwrap_or(model);
        let decided = hooks.on_request(&mut request, &mut json::parse(&mut bytes).unwrap(), looked_up);
        let Ok(Decision::Reject(error)) = decided else { panic!("{decided:?}") };
        assert_eq!(error.message, seen, "{first}");
        assert_eq!(request.model, "claude-x", "the other hooks go by what the client wants");
    }
}

#[test]
fn an_upstream_that_is_not_there_is_a_failure() {
    let open = hooks("return { on_request = function() return { upstream = 'mian' } end }");
    assert_eq!(decide(&open, "{}"), Ok(Decision::Continue));
    assert_eq!(open.failures(Hook::Request), 1);
    let closed =
        hooks("return { policy = 'closed', on_request = function() return { upstream = 'mian' } end }");
    let error = decide(&closed, "{}").unwrap_err();
    assert_eq!(error.kind, Kind::Permission);
    assert!(format!("{error:?}").contains("did you mean 'main'?"), "{error:?}");
}

#[test]
fn on_request_refuses_and_answers() {
    let refuse = hooks(r#"return { on_request = function() return { reject = 403, message = "no" } end }"#);
    let error = Error::new(Kind::Permission, "no").retry(Retry::Never);
    assert_eq!(decide(&refuse, "{}"), Ok(Decision::Reject(error)));
    let odd = hooks("return { on_request = function() return { reject = 418 } end }");
    let Ok(Decision::Reject(error)) = decide(&odd, "{}") else { panic!("no rejection") };
    assert_eq!((error.status(), error.kind), (418, Kind::InvalidRequest));
    for (respond, expected) in [
        (r#""hi""#, r#"{"content":[{"text":"hi","type":"text"}]}"#),
        (r#"{ content = "hi" }"#, r#"{"content":[{"text":"hi","type":"text"}]}"#),
        (
            r#"{ content = { { type = "text", text = "hi" } }, stop_reason = "refusal" }"#,
            r#"{"content":[{"text":"hi","type":"text"}],"stop_reason":"refusal"}"#,
        ),
    ] {
        let hooks =
            hooks(&format!("return {{ on_request = function() return {{ respond = {respond} }} end }}"));
        let Ok(Decision::Respond(message)) = decide(&hooks, "{}") else { panic!("{respond}") };
        let mut sorted = message.to_json();
        // Blocks made in Rust have their type first; the keys of those from Lua are sorted.
        sorted = sorted.replace(r#"{"type":"text","text":"hi"}"#, r#"{"text":"hi","type":"text"}"#);
        assert_eq!(sorted, expected);
    }
}

#[test]
fn the_hooks_of_all_files_run_in_their_order() {
    let file = |letter: &str, tail: &str| {
        format!(
            "return {{ on_request = function(req) req.body.seen = (req.body.seen or '') .. '{letter}' {tail} end }}"
        )
    };
    let a = file("a", "return { model = 'first', upstream = 'main' }");
    let b = file("b", "return { model = 'second' }");
    let loaded = load_files(&[("20-b.lua", &b), ("10-a.lua", &a), ("30.txt", "no Lua")]).unwrap();
    let mut body = Value::object([]);
    let decision = loaded.hooks.on_request(&mut request(), &mut body, &|model| model).unwrap();
    assert_eq!(body.to_json(), r#"{"seen":"ab"}"#);
    let expected = Decision::Route {
        model: Some("second".into()),
        upstreams: vec!["main".into()],
        lane: None,
        record: None,
    };
    assert_eq!(decision, expected);
    let places: Vec<_> = loaded.hooks.places().iter().map(|p| (p.hook, p.line)).collect();
    assert_eq!(places, [(Hook::Request, Some(1)), (Hook::Request, Some(1))]);
}

#[test]
fn ctx_goes_from_hook_to_hook() {
    let hooks = hooks(
        r#"return {
            on_request = function(req) req.ctx.list = { 1, { a = json.null } } req.ctx.n = 1 end,
            on_upstream_request = function(body, req)
                assert(req.ctx.list[2].a == json.null)
                req.ctx.n = req.ctx.n + 1
                body.n = req.ctx.n
            end,
            on_log = function(rec, req) log.info(req.ctx.n, rec.status) assert(req.ctx.n == 2 and rec.status == 200 and rec.error == nil) end,
        }"#,
    );
    let mut request = request();
    let mut body = Value::object([]);
    hooks.on_request(&mut request, &mut Value::object([]), &|model| model).unwrap();
    hooks.on_upstream_request(&mut body, &mut request).unwrap();
    let mut record = Value::object([("status", 200u64.into()), ("error", Value::Null)]);
    hooks.on_log(&mut record, &mut request);
    assert_eq!(body.to_json(), r#"{"n":2}"#);
    assert_eq!(hooks.failures(Hook::UpstreamRequest) + hooks.failures(Hook::Log), 0);
}

#[test]
fn events_are_changed_dropped_and_chosen_by_type() {
    let hooks = hooks(
        r#"return { on_event_types = { "text" }, on_event = function(ev)
            if ev.text == "secret" then return false end
            if ev.text == "new" then return { type = "text", text = "replaced" } end
            ev.text = ev.text:upper()
            return ev
        end }"#,
    );
    assert!(hooks.wants_event("text") && !hooks.wants_event("thinking"));
    let run = |kind: &'static str, text: &'static str| {
        let mut event = Value::object([("type", kind.into()), ("text", text.into())]);
        let sent = hooks.on_event(&mut event, &mut request()).unwrap();
        (sent, event.get("text").unwrap().as_str().unwrap().to_owned())
    };
    assert_eq!(run("text", "a"), (true, "A".to_owned()));
    assert_eq!(run("text", "new"), (true, "replaced".to_owned()));
    assert!(!run("text", "secret").0);
    assert_eq!(run("thinking", "a"), (true, "a".to_owned()));
}

#[test]
fn tool_calls_are_changed() {
    let run = |lua: &str| {
        let hooks = hooks(&format!("return {{ on_tool_call = function(call) {lua} end }}"));
        let input = Value::object([("z", 1u64.into()), ("a", 2u64.into())]);
        let mut call = Value::object([("id", "t1".into()), ("name", "Bash".into()), ("input", input)]);
        hooks.on_tool_call(&mut call, &mut request()).unwrap();
        (call.to_json(), hooks.failures(Hook::ToolCall))
    };
    let unchanged = r#"{"id":"t1","name":"Bash","input":{"z":1,"a":2}}"#.to_owned();
    assert_eq!(run(""), (unchanged.clone(), 0));
    assert_eq!(run("return call"), (unchanged.clone(), 0));
    assert_eq!(run("call.input.z = '1'").0, r#"{"id":"t1","name":"Bash","input":{"z":"1","a":2}}"#);
    assert_eq!(run("return { name = 'X', input = {} }").0, r#"{"id":"t1","name":"X","input":{}}"#);
    for garbage in
        ["call.name = 5", "return { name = '' }", "call.input = nil", "return { input = { 1 } }", "return 5"]
    {
        assert_eq!(run(garbage), (unchanged.clone(), 1), "{garbage}");
    }
}

#[test]
fn errors_are_reworded_and_sent_elsewhere() {
    let run = |lua: &str| {
        let hooks = hooks(&format!("return {{ on_error = function(err, req) {lua} end }}"));
        let error = Error::new(Kind::BadGateway, "refused");
        hooks.on_error(&error, "spark", &mut request()).unwrap()
    };
    assert_eq!(run(""), ErrorDecision::Continue);
    assert_eq!(run("return { retry = 'other' }"), ErrorDecision::RetryOther);
    assert_eq!(
        run("if err.upstream == 'spark' then return { upstream = 'main' } end"),
        ErrorDecision::Route { model: None, upstream: Some("main".into()) }
    );
    assert_eq!(
        run("return { model = 'wide' }"),
        ErrorDecision::Route { model: Some("wide".into()), upstream: None }
    );
    assert_eq!(run("return { model = 5 }"), ErrorDecision::Continue);
    assert_eq!(
        run("if err.status == 502 then return { status = 529, message = 'Box? ' .. err.message } end"),
        ErrorDecision::Replace(Error::new(Kind::Overloaded, "Box? refused"))
    );
    assert_eq!(run("return { retry = 'yes' }"), ErrorDecision::Continue);
    assert_eq!(run("return { upstream = 'nowhere' }"), ErrorDecision::Continue);
    assert_eq!(
        run("return { status = 451 }"),
        ErrorDecision::Replace(Error::new(Kind::Api, "refused").with_status(451))
    );
    assert_eq!(run("return { status = 200 }"), ErrorDecision::Continue);
}

#[test]
fn shared_is_one_for_all_vms_and_survives_a_reload() {
    let options = options();
    let folder = Folder::new(&[(
        "a.lua",
        r#"return { on_upstream_request = function(body) body.n = shared.incr("n") shared.set("t", { 1, x = nil }) assert(shared.get("t")[1] == 1) end }"#,
    )]);
    let load = || {
        Hooks::load(std::slice::from_ref(&folder.0), vec![upstream("main")], options.clone()).unwrap().hooks
    };
    let hooks = load();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| drop(edit(&hooks, "{}"))));
        }
    });
    assert_eq!(edit(&load(), "{}"), r#"{"n":201}"#);
}

#[test]
fn the_hash_differs_between_sets() {
    let hash = |text: &str| hooks(text).hash().to_owned();
    assert_eq!(hash("return {}").len(), 16);
    assert_ne!(hash("return {}"), hash("return { }"));
}

#[test]
fn unsafe_hooks_keep_the_library() {
    let folder = Folder::new(&[("a.lua", "assert(io and os.execute and coroutine and load) return {}")]);
    let path = std::slice::from_ref(&folder.0);
    assert!(Hooks::load(path, vec![upstream("main")], options()).is_err());
    let options = LoadOptions { unsafe_hooks: true, ..options() };
    assert!(Hooks::load(path, vec![upstream("main")], options).is_ok());
}

/// Run it by hand: `cargo test --release hooks -- --ignored --nocapture cost`.
#[test]
#[ignore = "a measurement, not a check"]
fn the_cost_of_a_call() {
    let message = format!(r#"{{"role":"user","content":[{{"type":"text","text":"{}"}}]}}"#, "x".repeat(2400));
    let text = format!(r#"{{"model":"m","messages":[{}]}}"#, vec![message; 200].join(","));
    println!("body of {} bytes", text.len());
    let measure = |name: &str, lua: &str| {
        let hooks = hooks(lua);
        let mut bytes = text.clone().into_bytes();
        let mut body = json::parse(&mut bytes).unwrap();
        let mut request = request();
        const CALLS: u32 = 20_000;
        let begun = Instant::now();
        for _ in 0..CALLS {
            hooks.on_upstream_request(&mut body, &mut request).unwrap();
        }
        assert_eq!(hooks.failures(Hook::UpstreamRequest), 0);
        println!("{name}: {:?}", begun.elapsed() / CALLS);
    };
    measure("undefined", "return { on_request = print }");
    measure("empty", "return { on_upstream_request = function() end }");
    measure("sets one field", "return { on_upstream_request = function(body) body.temperature = 0.7 end }");
    measure(
        "reads a deep field",
        "return { on_upstream_request = function(body) return body.messages[150].content[1].type == 1 and {} or nil end }",
    );
    measure(
        "walks 200 messages",
        "return { on_upstream_request = function(body) for _, m in ipairs(body.messages) do local r = m.role end end }",
    );
    measure("ctx", "return { on_upstream_request = function(_, req) req.ctx.n = (req.ctx.n or 0) + 1 end }");
}
