//! Views: they read, write and iterate like tables, keep the order of keys, and are invalid after their request.

use super::*;

const BODY: &str = r#"{"z":1,"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":[{"type":"text","text":"yo"}]}],"a":null,"t":true,"f":0.5,"e":[]}"#;

/// Runs Lua on [`BODY`], which must not fail, and returns the body.
fn on(lua: &str) -> String {
    let hooks = on_body(lua);
    let body = edit(&hooks, BODY);
    assert_eq!(hooks.failures(Hook::UpstreamRequest), 0, "{lua}");
    body
}

/// Runs Lua on [`BODY`] and checks that it changes `from` to `to` and nothing else.
fn changes(lua: &str, from: &str, to: &str) {
    assert!(BODY.contains(from), "{from}");
    assert_eq!(on(lua), BODY.replace(from, to), "{lua}");
}

#[test]
fn reading_changes_nothing() {
    let lua = r#"
        assert(body.z == 1 and math.type(body.z) == "integer" and body.f == 0.5)
        assert(body.a == json.null and body.a ~= nil and body.t == true and body.nope == nil)
        assert(#body.messages == 2 and #body.e == 0 and body.e[1] == nil and body.messages[3] == nil)
        assert(body.messages[2].content[1].text == "yo" and body.messages[0] == nil and body.messages[1.0].role == "user")
        assert(body.messages == body.messages and body.messages[1] ~= body.messages[2])
        assert(body.messages.x == nil and body[1] == nil)
        local n = 0
        for i, message in ipairs(body.messages) do n = n + i assert(message.role) end
        assert(n == 3)
        local keys = {}
        for key, value in pairs(body) do keys[#keys + 1] = key assert(value ~= nil) end
        assert(table.concat(keys, " ") == "z messages a t f e")
        local indices = 0
        for i, message in pairs(body.messages) do indices = indices + i assert(message.role) end
        assert(indices == 3)
        assert(json.encode(body.messages[1]) == '{"role":"user","content":"hi"}')
        assert(json.encode({ body.messages[1].role, body.e }) == '["user",[]]')
        assert(type(body) == "table" and getmetatable(body) == false)
        assert(type(json.null) == "userdata" and type(nil) == "nil" and not pcall(type))
        assert(next(body) == "z" and next(body.messages) == 1 and next(body.e) == nil and next({}) == nil)
        assert(not pcall(next, body, "z"))
        assert(json.is_array(body.messages) and not json.is_object(body.messages) and json.is_array(body.e))
        assert(json.is_object(body) and not json.is_array(body) and json.is_object(body.messages[1]))
        assert(json.is_array({ 1, 2 }) and json.is_array(json.array()) and json.is_object({}) and json.is_object({ a = 1 }))
        assert(json.is_object({ 1, a = 2 }) and not json.is_array("x") and not json.is_object(nil) and not json.is_object(json.null))
    "#;
    assert_eq!(on(lua), BODY);
}

#[test]
fn writes_change_the_body() {
    for (lua, from, to) in [
        ("body.z = 2", "\"z\":1", "\"z\":2"),
        ("body.z = -2.5", "\"z\":1", "\"z\":-2.5"),
        ("body.z = 2.0", "\"z\":1", "\"z\":2.0"),
        ("body.z = nil", "\"z\":1,", ""),
        ("body.nope = nil", "", ""),
        ("body.z = json.null", "\"z\":1", "\"z\":null"),
        ("body.a = 'ü\"'", "\"a\":null", "\"a\":\"ü\\\"\""),
        ("body.a = {}", "\"a\":null", "\"a\":{}"),
        ("body.e = {}", "", ""),
        ("body.messages[2].content = {}", r#"[{"type":"text","text":"yo"}]"#, "[]"),
        ("body.messages[1].content = {}", "\"hi\"", "[]"),
        ("body.z = {}", "\"z\":1", "\"z\":{}"),
        ("body.a = json.array()", "\"a\":null", "\"a\":[]"),
        ("body.a = json.array({ 1 })", "\"a\":null", "\"a\":[1]"),
        (
            "body.a = { y = { 1, { 2 } }, b = {}, x = json.null }",
            "\"a\":null",
            "\"a\":{\"b\":{},\"x\":null,\"y\":[1,[2]]}",
        ),
        ("body.a = json.decode('{\"q\":[],\"p\":{}}')", "\"a\":null", "\"a\":{\"p\":{},\"q\":[]}"),
        ("body.e[1] = 'x' body.e[#body.e + 1] = 'y'", "\"e\":[]", "\"e\":[\"x\",\"y\"]"),
        ("table.insert(body.e, 'x') table.insert(body.e, 1, 'w')", "\"e\":[]", "\"e\":[\"w\",\"x\"]"),
        ("body.messages[1].content = 'x'", "\"hi\"", "\"x\""),
        (
            "body.messages[2] = nil",
            ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"yo\"}]}",
            "",
        ),
        ("table.remove(body.messages, 1)", "{\"role\":\"user\",\"content\":\"hi\"},", ""),
        (
            "local m = table.remove(body.messages) body.a = 1",
            ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"yo\"}]}],\"a\":null",
            "],\"a\":1",
        ),
        ("body.a = body.messages[2].content", "\"a\":null", "\"a\":[{\"type\":\"text\",\"text\":\"yo\"}]"),
        (
            "body.a = { body.messages[1], x = nil }",
            "\"a\":null",
            "\"a\":[{\"role\":\"user\",\"content\":\"hi\"}]",
        ),
        (
            "for key in pairs(body) do if key ~= 'messages' then body[key] = nil end end",
            BODY,
            r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":[{"type":"text","text":"yo"}]}]}"#,
        ),
        ("return { x = body.messages[1], l = 1 }", BODY, r#"{"l":1,"x":{"role":"user","content":"hi"}}"#),
        ("body.z = 2 return body", "\"z\":1", "\"z\":2"),
    ] {
        changes(lua, from, to);
    }
}

#[test]
fn a_new_key_goes_to_the_end() {
    assert_eq!(on("body.new = 1"), BODY.replace("\"e\":[]}", "\"e\":[],\"new\":1}"));
}

#[test]
fn an_impossible_write_fails_and_leaves_no_trace() {
    for (lua, message) in [
        ("body.messages[4] = 1", "has 2 elements"),
        ("body.messages[1] = nil", "table.remove(array, 1)"),
        ("body.messages.x = 1", "whole number"),
        ("body[1] = 1", "key is a string"),
        ("body.a = function() end", "a function has no JSON form"),
        ("body.a = 0/0", "no JSON form"),
        ("body.a = 1/0", "no JSON form"),
        ("body.a = '\\xff'", "UTF-8"),
        ("body.a = { 1, nil, 3 }", "no holes"),
        ("body.a = { 1, x = 2 }", "not both"),
        ("body.a = { [true] = 1 }", "string keys"),
        ("local t = {} t.t = t body.a = t", " deep"),
        ("for _ = 1, 200 do body.a = { body.a } end", " deep"),
        ("local m = body.messages[2] table.remove(body.messages) return m.role", "not there any more"),
        ("body.a = req", "own JSON"),
        ("req.model = 'x'", "read-only"),
        ("req.headers.x = 'x'", "read-only"),
        ("return req.headers['x-api-key']", "is not shown to hooks"),
        ("return req.headers['Cookie']", "is not shown to hooks"),
        ("return req.headers.AUTHORIZATION", "req.user names the owner"),
        ("return req.body", "on_request only"),
        ("return req.modle", "did you mean 'model'"),
        ("req.ctx.f = print", "plain data"),
        ("local s = ('x'):rep(8 << 20) for i = 1, 20 do body['k' .. i] = s end", "64 MiB written"),
    ] {
        // Every kind of change comes before the failure: all of it must be undone.
        let before = "body.z = 7 body.t = nil body.new = { 1 } body.messages[3] = 'x' body.messages[3] = 'y'
            table.remove(body.messages, 3) body.messages[1].content = nil body.messages[1].content = 'again'
            body.f = nil body.f = 9 table.remove(body.messages[2].content) table.insert(body.e, 5) req.ctx.x = 1
            table.remove(body.messages, 1) table.insert(body.messages, 1, { role = 'user' })\n";
        let text = format!("{before} {lua}");
        let hooks = hooks(&format!(
            "return {{ on_upstream_request = {{ policy = 'closed', run = function(body, req)\n{text}\nend }} }}"
        ));
        let mut bytes = BODY.as_bytes().to_vec();
        let mut body = json::parse(&mut bytes).unwrap();
        let mut request = request();
        let error = hooks.on_upstream_request(&mut body, &mut request).expect_err(lua);
        assert!(error.source.as_deref().unwrap().contains(message), "{lua}: {error}");
        assert_eq!(body.to_json(), BODY, "{lua}");
        assert_eq!(request.context.0.to_json(), "{}");
    }
}

#[test]
fn removed_keys_come_back_at_their_places() {
    let keys: Vec<String> = (0..3000).map(|i| format!("\"k{i}\":{i}")).collect();
    let text = format!("{{{}}}", keys.join(","));
    let hooks = on_body(
        "for i = 0, 2999, 2 do body['k' .. i] = nil end
        for i = 2999, 1501, -2 do body['k' .. i] = nil end
        body.k2 = 'at the end'
        error('undone')",
    );
    assert!(edit(&hooks, &text) == text);
    assert_eq!(hooks.failures(Hook::UpstreamRequest), 1);
}

#[test]
fn a_view_is_invalid_after_its_request() {
    let hooks = on_body(
        "body.n = 1 if kept then body.error = tostring(select(2, pcall(function() return kept.z end))) end kept = body.messages shared.set('late', true)",
    );
    // Both VMs of the pool run, more than once each.
    let bodies: Vec<String> = (0..4).map(|_| edit(&hooks, BODY)).collect();
    assert!(bodies.iter().any(|body| body.contains("this request has ended")), "{bodies:?}");
}

#[test]
fn a_view_kept_from_one_call_fails_in_the_next() {
    let hooks = hooks(
        "local kept return { on_request = function(req) if kept then return { model = kept.model } end kept = req.body end }",
    );
    assert_eq!(decide(&hooks, BODY), Ok(Decision::Continue));
    assert_eq!(decide(&hooks, BODY), Ok(Decision::Continue));
    assert_eq!(hooks.failures(Hook::Request), 1);
}

#[test]
fn a_body_with_a_repeated_key_stays_as_it_is() {
    let hooks = on_body("body.b = 2");
    assert_eq!(edit(&hooks, r#"{"a":1,"a":2}"#), r#"{"a":1,"a":2,"b":2}"#);
}
