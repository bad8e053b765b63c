//! Hooks that loop, fill the memory, recurse and return nonsense. Each time the request goes on (or is refused), the
//! failure is counted, the VM is replaced, and the next request is served normally.

use super::*;

/// Every known way to fail, as the body of a function that has `body` and `req`, and a part of the log message for it.
const FAULTS: &[(&str, &str)] = &[
    ("while true do end", "time limit"),
    ("local function f() while true do end end while true do pcall(f) end", "time limit"),
    ("local function f() while true do end end while true do pcall(pcall, pcall, f) end", "time limit"),
    (
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        "time limit",
    ),
    ("local function f() pcall(f) pcall(f) end f()", "time limit"),
    ("local function f() f() pcall(f) return f() end while true do pcall(f) end", "time limit"),
    ("repeat until not pcall(error)", ""),
    ("for _ = 1, 1e12 do ('x'):rep(10) end", "time limit"),
    ("goto a ::a:: goto a", "time limit"),
    ("setmetatable({}, { __gc = function() while true do end end })", "__gc is not available"),
    (
        "local x <close> = setmetatable({}, { __close = function() while true do end end }) while true do end",
        "__close is not available",
    ),
    (
        "local t = {} for i = 1, 100000 do t[i] = i end while true do table.sort(t, function() return true end) end",
        "",
    ),
    ("local function f() return 1 + f() end return f()", ""),
    ("local function f() return (('x'):gsub('x', f)) end return f()", ""),
    ("local function f() return select(2, pcall(f)) end return 1 + f()", ""),
    (
        "local t = setmetatable({}, { __index = function(s, k) return s[k] end }) return t.x",
        "stack overflow",
    ),
    (
        "local t = setmetatable({}, { __tostring = function(s) return tostring(s) end }) return tostring(t)",
        "stack overflow",
    ),
    (
        "local t = {} table.sort({ 1, 2, 3 }, function() table.sort({ 1, 2 }, function() return t() end) end)",
        "attempt to call",
    ),
    ("local function f() table.sort({ 1, 2 }, f) end f()", "stack overflow"),
    ("local s = 'x' while true do s = s .. s end", "not enough memory"),
    ("return ('x'):rep(1 << 40)", "too large"),
    ("return ('x'):rep(math.maxinteger)", "resulting string too large"),
    ("local n = ('').rep('', math.maxinteger) return #n", "got a integer"),
    ("local t = {} while true do t[#t + 1] = {} end", ""),
    ("local t = {} for i = 1, math.huge do t[i] = ('x'):rep(1000) .. i end", ""),
    ("while true do pcall(string.rep, 'x', 1 << 40) end", "time limit"),
    ("table.move({}, 1, math.maxinteger - 1, 2)", "time limit"),
    ("table.insert(setmetatable({}, { __len = function() return 1 << 50 end }), 1, 1)", "time limit"),
    (
        "local n = 0 local t = setmetatable({}, { __len = function() n = n + 1 return n > 1 and 1 << 50 or 0 end })
        table.insert(t, 1, nil) table.insert(t, 1, nil)",
        "time limit",
    ),
    ("table.concat(setmetatable({}, { __index = function() return '' end }), '', 1, 1 << 50)", "time limit"),
    ("local t = setmetatable({}, { __len = function() return 1 << 30 end }) table.sort(t, print)", ""),
    (
        "local m = {} local t = setmetatable({}, m) m.__close = function() while true do end end
        local x <close> = t while true do end",
        "got a non-closable value",
    ),
    (
        "local m = {} local t = setmetatable({}, m) m.__gc = function() while true do end end setmetatable(t, m)",
        "__gc is not available",
    ),
    ("setmetatable({}, { __mode = 'k' })", "__mode is not available"),
    ("local _, e = pcall(json.decode, '{') getmetatable(e).__gc = print", "attempt to index a boolean value"),
    ("getmetatable(body).__gc = print", "attempt to index a boolean value"),
    ("getmetatable('').__close = print", "attempt to index a boolean value"),
    ("getmetatable(json.array()).__gc = print", "attempt to index a string value"),
    ("for _ in next, {}, nil, setmetatable({}, { __index = print }) do end", "non-closable value"),
    ("local a = ('a'):rep(1 << 20) a = a .. a while true do a:find(a .. 'b', 1, true) end", "time limit"),
    ("local p = '[' .. ('ab'):rep(500000) .. ']-y' while true do ('x'):rep(100000):find(p) end", "time limit"),
    ("local p = '%f[' .. ('ab'):rep(500000) .. ']y' while true do ('x'):rep(100000):find(p) end", "time limit"),
    ("return (('x'):rep(1 << 20) .. 'y'):find('^(x+)%1%1%1%1-z')", ""),
    ("local a = ('x'):rep(1 << 24) while true do local b = a .. 1 end", "time limit"),
    ("local a, b = ('x'):rep(1 << 24), ('x'):rep(1 << 24) while true do local c = a < b end", "time limit"),
    ("local t = {} for i = 1, 2e5 do t[i] = {} end local s = ('x'):rep(50000) while true do s = s .. 1 end", ""),
    ("local function f(...) while true do local t = { ... } end end f(table.unpack({}, 1, 200000))", "time limit"),
    ("return ('%99.99f'):rep(2000):format(table.unpack({}, 1, 2000))", "more than 1000 values"),
    ("return string.pack(('i16'):rep(1000))", "a text of more than 1024 bytes"),
    ("local s = ('\\0'):rep(9000000) return json.encode({ s, s, s, s, s })", "more than 64 MiB written"),
    ("return string.format('%q', ('\\r'):rep((1 << 20) - 10)) and nil + 1", "arithmetic on a nil value"),
    ("return (' '):rep(1 << 23) + 1", "a text of more than 200 bytes is not a number"),
    ("return utf8.len(('x'):rep(1 << 24) .. 'y')", "a text of more than 16777216 bytes"),
    ("return os.date(('%c'):rep(1000))", "a text of more than 1024 bytes"),
    ("return json.decode(('[],'):rep(1000000))", "1048576 is the most"),
    ("return req[('x'):rep(2000000)]", "req has no field 'xxx"),
    ("error(('x'):rep(10000000))", "xxx"),
    ("local t = table.pack(table.unpack({}, 1, 1000)) for i = 1, 1000 do t[i] = ('x'):rep(50000) end
        while true do print(table.unpack(t)) end", "time limit"),
    ("return ('a'):rep(1e5):find('.-.-.-.-b')", "time limit"),
    ("while true do pcall(string.gsub, ('a'):rep(1e5), '.-.-.-.-b', '') end", "time limit"),
    ("for _ in ('a'):rep(1e5):gmatch('a*a*a*a*b') do end", "time limit"),
    ("return ('x'):find(('('):rep(40))", "too many captures"),
    ("return ('a'):find('(a')", "unfinished capture"),
    ("return ('x'):rep(300):match(('x?'):rep(300))", ""),
    ("return table.unpack({}, 1, 1e8)", "too many results to unpack"),
    ("error({ code = 5 })", "table: 0x"),
    ("error(nil)", "nil"),
    ("error(true)", "true"),
    ("error(setmetatable({}, { __tostring = function() return 'mine' end }))", "mine"),
    ("error(setmetatable({}, { __tostring = function() error('again') end }))", ""),
    ("error(body)", ""),
    ("error('no traceback', 0)", "no traceback"),
    ("local t = setmetatable({}, { __index = function() error('in index') end }) return t.x", "in index"),
    ("local t = setmetatable({}, { __index = function() while true do end end }) return t.x", "time limit"),
    (
        "coroutine.wrap(function() while true do end end)()",
        "attempt to index a nil value (global 'coroutine')",
    ),
    ("io.open('/etc/passwd')", "attempt to index a nil value (global 'io')"),
    ("os.execute('true')", "attempt to call a nil value (field 'execute')"),
    ("os.exit()", "attempt to call a nil value (field 'exit')"),
    ("require 'x'", "attempt to call a nil value (global 'require')"),
    ("load('return 1')", "attempt to call a nil value (global 'load')"),
    ("debug.sethook()", "attempt to index a nil value (global 'debug')"),
    ("string.dump(function() end)", "attempt to call a nil value (field 'dump')"),
    ("collectgarbage('stop')", "attempt to call a nil value (global 'collectgarbage')"),
    ("return 5", "got a integer"),
    ("return true", "got a boolean"),
    ("return print", "got a function"),
    ("return 'x'", "got a string"),
    ("return { 1, 2 }", "got a list"),
    ("return req", ""),
    ("return setmetatable({}, { __index = body }), 5, 6", ""),
    ("return { x = function() end }", "the returned value: a function has no JSON form"),
    ("local t = {} t.t = t return t", " deep"),
    ("body.x.y = 1", "attempt to index a nil value (field 'x')"),
    ("body()", "attempt to call"),
    ("return #req.ctx.nope", "attempt to get length"),
    ("json.decode('{')", "json.decode: "),
    ("json.decode(('['):rep(1000) .. (']'):rep(1000))", "deeper than 128"),
    ("shared.set('k', ('x'):rep(100000))", "65536 is the most"),
    ("shared.set('k', body)", "got a view"),
    // Each look-up goes through all keys, and so does undoing each write: the time limit bounds both.
    ("for i = 1, math.huge do body['k' .. i] = i end", "time limit"),
    ("for i = 1, 2000 do body['k' .. i] = i end while true do for _, v in pairs(body) do end end", "time limit"),
    ("shared.incr({})", ""),
    ("local s = ('x'):rep({})", "10-test.lua:4: string.rep: attempt to perform arithmetic on a table value"),
    ("return string.upper({})", "string.upper: bad argument #1 (string expected, got table)"),
    ("log.info(setmetatable({}, { __tostring = function() error('loud') end }))", "loud"),
];

/// Code that looks like a fault but ends well.
const HARMLESS: [&str; 4] = [
    "repeat until not pcall(error)",
    "local function f() return select(2, pcall(f)) end return 1 + f()",
    "return setmetatable({}, { __index = body }), 5, 6",
    "local n = ('').rep('', math.maxinteger) return #n",
];

pub(super) const CALL_MAX: Duration = Duration::from_millis(50);

fn faulty(policy: &str, fault: &str) -> Hooks {
    let text = format!(
        "return {{ policy = '{policy}', on_upstream_request = function(body, req)
            if not body.bad then body.ok = true return end
            body.edited = true
            {fault}
        end }}"
    );
    let folder = Folder::new(&[("10-test.lua", &text)]);
    let limits = HookLimits { call: CALL_MAX, ..HookLimits::default() };
    let options = LoadOptions { limits, ..options() };
    let loaded = Hooks::load(std::slice::from_ref(&folder.0), vec![upstream("main")], options);
    loaded.unwrap_or_else(|error| panic!("{fault}: {error}")).hooks
}

fn body(text: &str) -> Value<'static> {
    json::parse(&mut text.as_bytes().to_vec()).unwrap().into_owned()
}

/// The processor time that this thread has used. On a busy machine the wall clock would measure the others as well.
pub(super) fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

fn time_of(fault: &str) -> Duration {
    let hooks = faulty("open", fault);
    let begun = used();
    edit(&hooks, "{\"bad\":1}");
    used() - begun
}

#[test]
fn a_failed_hook_is_undone_and_counted_and_leaves_no_trace() {
    let mut failures = Vec::new();
    for (fault, expected) in FAULTS {
        if HARMLESS.contains(fault) {
            continue;
        }
        if std::env::var("SHOW").is_ok() {
            eprintln!("{fault}");
        }
        let hooks = faulty("closed", fault);
        let mut bad = body("{\"bad\":1}");
        let begun = used();
        let outcome = hooks.on_upstream_request(&mut bad, &mut request());
        let took = used() - begun;
        let text = outcome.as_ref().err().and_then(|e| e.source.clone()).unwrap_or_default();
        let message = outcome.as_ref().err().map(|error| error.message.clone()).unwrap_or_default();
        let mut next = body("{}");
        let next_is_fine = hooks.on_upstream_request(&mut next, &mut request()).is_ok();
        let good = outcome.is_err_and(|error| error.kind == Kind::Permission)
            && message == "refused: the hook on_upstream_request failed and its policy is closed"
            // On a busy machine the time limit may be hit before any other limit.
            && (text.contains(expected) || text.contains("time limit"))
            && bad.to_json() == "{\"bad\":1}"
            && hooks.failures(Hook::UpstreamRequest) == 1
            && next_is_fine
            && next.to_json() == "{\"ok\":true}";
        if !good {
            failures.push(format!(
                "{fault}\n  said: {text}\n  left: {}, then {}",
                bad.to_json(),
                next.to_json()
            ));
        }
        // A call that nothing bounds takes seconds. Three times the limit holds on a quiet machine; beside other work the
        // same instructions took up to ten times as much processor time, most of it for new pages of memory.
        if took > 20 * CALL_MAX && (0..5).all(|_| time_of(fault) > 20 * CALL_MAX) {
            failures.push(format!("{fault}\n  took {took:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn policy_open_lets_the_request_go_on() {
    for fault in ["while true do end", "error({})", "return 5", "local s = 'x' while true do s = s .. s end"]
    {
        let hooks = faulty("open", fault);
        for n in 1..=5 {
            assert_eq!(edit(&hooks, "{\"bad\":1}"), "{\"bad\":1}");
            assert_eq!(hooks.failures(Hook::UpstreamRequest), n);
            assert_eq!(edit(&hooks, "{}"), "{\"ok\":true}");
        }
    }
}

#[test]
fn the_other_hooks_run_when_one_has_failed() {
    let loaded = load_files(&[
        ("1.lua", "return { on_upstream_request = function(body) body.a = 1 error('x') end }"),
        ("2.lua", "return { on_upstream_request = function(body) body.b = 1 end }"),
    ])
    .unwrap();
    assert_eq!(edit(&loaded.hooks, "{}"), "{\"b\":1}");
}

#[test]
fn a_policy_is_set_for_one_hook_or_for_all() {
    let closed = |text: &str| hooks(text).places().iter().map(|place| place.closed).collect::<Vec<_>>();
    assert_eq!(closed("return { on_request = print, on_log = print }"), [false, false]);
    assert_eq!(closed("return { policy = 'closed', on_request = print, on_log = print }"), [true, true]);
    assert_eq!(
        closed("return { policy = 'closed', on_request = print, on_log = { policy = 'open', run = print } }"),
        [true, false]
    );
}

/// The stack of a connection's thread, in bytes. The proxy's own frames take up to 48 KiB of it.
const STACK_BYTES: usize = 256 * 1024;
const PROXY_BYTES: usize = 48 * 1024;

#[inline(never)]
fn below_the_proxy<T>(f: impl FnOnce() -> T) -> T {
    let frames = [0u8; PROXY_BYTES];
    std::hint::black_box(&frames);
    let result = f();
    std::hint::black_box(&frames);
    result
}

fn on_a_small_stack<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
        builder.spawn_scoped(scope, || below_the_proxy(f)).unwrap().join().unwrap()
    })
}

#[test]
fn no_fault_overflows_a_small_stack() {
    for (fault, _) in FAULTS {
        let hooks = faulty("open", fault);
        on_a_small_stack(|| {
            edit(&hooks, "{\"bad\":1}");
            // The VM may have been thrown away; then this call makes a new one, on the small stack.
            assert_eq!(edit(&hooks, "{}"), "{\"ok\":true}", "{fault}");
        });
    }
}

#[test]
fn a_file_that_nests_too_deep_does_not_overflow_a_small_stack() {
    for (open, close) in
        [("(", ")"), ("{", "}"), ("function() return ", " end"), ("-", ""), ("a[", "]"), ("f(", ")")]
    {
        for depth in [100, 180, 190, 195, 198, 1000] {
            let text = format!("return {}1{}", open.repeat(depth), close.repeat(depth));
            on_a_small_stack(|| drop(load(&text)));
        }
    }
    for depth in [150, 190, 1000] {
        let text = format!("{} {} return {{}}", "do ".repeat(depth), "end ".repeat(depth));
        on_a_small_stack(|| drop(load(&text)));
        let text = format!(
            "local x = {}1{} return {{}}",
            "{ a = function() if 1 then return ".repeat(depth),
            " end end }".repeat(depth)
        );
        on_a_small_stack(|| drop(load(&text)));
    }
}

#[test]
fn values_nested_to_the_limit_cross_on_a_small_stack() {
    let hooks = on_body(
        "local t = {} for _ = 1, 120 do t = { t } end body.t = t body.u = body.t req.ctx.t = t body.s = json.encode(t)",
    );
    on_a_small_stack(|| {
        edit(&hooks, "{}");
    });
    let text = format!("{}{}", "[".repeat(127), "]".repeat(127));
    let hooks = on_body(
        "local n = 0 local v = body while v do v = v.a or v[1] n = n + 1 end body.n = n body.c = body.a",
    );
    on_a_small_stack(|| {
        edit(&hooks, &format!("{{\"a\":{text}}}"));
    });
}

#[test]
fn hooks_that_fail_at_once_on_many_threads_leave_the_pool_whole() {
    let hooks = faulty("open", "while true do end");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let hooks = &hooks;
            scope.spawn(move || {
                for _ in 0..3 {
                    let text = if n % 2 == 0 { "{\"bad\":1}" } else { "{}" };
                    edit(hooks, text);
                }
            });
        }
    });
    assert_eq!(hooks.failures(Hook::UpstreamRequest), 12);
    assert_eq!(edit(&hooks, "{}"), "{\"ok\":true}");
}

#[test]
fn a_hook_of_a_change_gets_three_strings_and_its_failures_are_only_counted() {
    let hooks = hooks(
        "return { policy = 'closed', on_upstream_state = function(...)
            assert(select('#', ...) == 3)
            local name, state, why = ...
            assert(name == 'spark' and state == 'out')
        end }",
    );
    hooks.on_upstream_state("spark", "out", "connection refused");
    assert_eq!(hooks.failures(Hook::UpstreamState), 0);
    hooks.on_upstream_state("spark", "well", "");
    assert_eq!(hooks.failures(Hook::UpstreamState), 1);
}
