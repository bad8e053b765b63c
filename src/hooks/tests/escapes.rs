//! The time limit holds whatever the Lua: random programs of every function and operator that a hook can reach, with
//! arguments that are meant to escape it.
//!
//! The functions are found by walking the globals of the sandbox, so that a new one cannot be forgotten. The processor
//! time of the calling thread is measured, which other programs on a busy machine do not change. `SPARKGAP_SEED` runs
//! other programs.

use super::faults::{CALL_MAX, used};
use super::*;

/// Values that have done harm somewhere, as Lua expressions.
const VALUES: &[&str] = &[
    "nil",
    "true",
    "0",
    "1",
    "-1",
    "3",
    "2^53",
    "1e308",
    "math.huge",
    "math.maxinteger",
    "math.mininteger",
    "1 << 20",
    "200000",
    "''",
    "'a'",
    "'k'",
    "'%99.99f'",
    "'%s%q'",
    "'.-.-.-b'",
    "'%f[%w]'",
    "'(a*)%1'",
    "'^(.-)$'",
    "'!16i16z'",
    "'c90000000'",
    "'%c'",
    "('a'):rep(1 << 24)",
    "('1'):rep(1 << 23)",
    "('\\x80'):rep(1 << 20)",
    "('ab'):rep(100000) .. 'c'",
    "('%s'):rep(30000)",
    "'[' .. ('ab'):rep(500000) .. ']-y'",
    "('['):rep(1 << 20)",
    "'[' .. ('1,'):rep(200000) .. '1]'",
    "{}",
    "{ 3, 1, 2 }",
    "many(100000)",
    "many(10000, 'x')",
    "{ table.unpack({}, 1, 200000) }",
    "json.array()",
    "json.null",
    "body",
    "body.list",
    "req",
    "req.headers",
    "function() while true do end end",
    "function(...) return ... end",
    "function() error(setmetatable({}, { __tostring = function() while true do end end })) end",
    "function() return true end",
    "function() return 1, 2, 3, setmetatable({}, { __call = print }) end",
    "print",
    "pcall",
    "error",
    "next",
    "type",
    "setmetatable",
    "string.rep",
    "with { __index = function() while true do end end }",
    "with { __index = function() return '' end, __len = function() return 1 << 50 end }",
    "with { __index = type, __len = function() return 1 << 30 end }",
    "with { __newindex = function() end, __len = grows() }",
    "with { __len = grows(), __index = function() return 1 end }",
    "with { __lt = function() while true do end end, __le = function() return true end }",
    "with { __concat = function(a) return a end, __eq = function() return false end }",
    "with { __call = function() while true do end end }",
    "with { __tostring = function() return ('x'):rep(1 << 22) end }",
    "with { __name = ('x'):rep(200) }",
    "BLANKS",
    "DIGITS",
    "('\\0'):rep(9000000)",
    "('\\r'):rep(7000000)",
    "('%d'):rep(999)",
    "('%f'):rep(999)",
    "('%.0s'):rep(999)",
    "'%q'",
    "('j'):rep(1000)",
    "many(7, ('\\0'):rep(5000000))",
    "{ year = BLANKS, month = BLANKS, day = BLANKS, hour = BLANKS, min = BLANKS, sec = BLANKS }",
    "with { __pairs = function() return next, many(100000) end }",
    "late { __close = function() while true do end end }",
    "late { __gc = function() while true do end end }",
    "late { __mode = 'k' }",
    "chain(2000)",
];

/// Functions that the values use.
const HELPERS: &str = "
    -- Texts that count as a number and take long to convert. Made once: the VM has room for a few of them.
    local BLANKS, DIGITS = (' '):rep(1 << 23) .. '65', '0x' .. ('f'):rep(1 << 22)
    local function many(n, value)
        local t = {}
        for i = 1, n do t[i] = value or {} end
        return t
    end
    local function with(metatable) return setmetatable({}, metatable) end
    local function late(events)
        local metatable = {}
        local t = setmetatable({}, metatable)
        for name, value in pairs(events) do metatable[name] = value end
        pcall(function() for name, value in pairs(events) do getmetatable(t)[name] = value end end)
        pcall(function() for name, value in pairs(events) do rawset(getmetatable(t), name, value) end end)
        return t
    end
    local function grows()
        local n = 0
        return function() n = n + 1 return n > 1 and 1 << 50 or 0 end
    end
    local function chain(n)
        local t = { 'x', 'y', 'z' }
        for _ = 1, n do t = setmetatable({}, { __index = t }) end
        return t
    end";

/// Statements with places for a function and for values. Each place gets another one.
const STATEMENTS: &[&str] = &[
    "pcall(F, V)",
    "pcall(F, V, V)",
    "pcall(F, V, V, V)",
    "pcall(F, V, V, V, V)",
    "pcall(F, V, V, V, V, V)",
    "pcall(F, table.unpack({ V, V }, 1, 2000))",
    "pcall(F, table.unpack(many(900, V)))",
    "pcall(F, V, table.unpack(many(900, BLANKS)))",
    "pcall(function() local a, b = V, V for _ = 1, 100 do F(a, b) end end)",
    "pcall(function() local a, b = V, V while true do pcall(F, a, b) end end)",
    "pcall(function() local a, b = V, V while true do local c = a .. b end end)",
    "pcall(function() local a, b = V, V while true do local c = a < b end end)",
    "pcall(function() local a, b = V, V while true do local c = a == b, a // b end end)",
    "pcall(function() local a, b = V, V while true do local c = a + b, a & b end end)",
    "pcall(function() local a, b = V, V while true do local c = #a, a[b] end end)",
    "pcall(function() local a, b, c = V, V, V while true do a[b] = c end end)",
    "pcall(function() local a, b = V, V local x <close> = a return F(b) end)",
    "pcall(function() for a, b in V, V, V, V do F(a, b) end end)",
    "pcall(function() for a, b in F(V, V) do F(a, b) end end)",
    "pcall(function() for a, b in pairs(V) do pcall(F, a, b) end end)",
    "xpcall(F, V, V, V)",
    "pcall(setmetatable, V, { __index = F, __len = F, __call = F, __close = nil })",
    "repeat until pcall(error, V)",
    "keep[#keep + 1] = select(2, pcall(F, V, V))",
];

/// A small generator of numbers: the same programs in every run.
struct Dice(u64);

impl Dice {
    fn pick<'v, T: ?Sized>(&mut self, values: &[&'v T]) -> &'v T {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        values[usize::try_from(self.0 >> 33).unwrap() % values.len()]
    }
}

/// The path of every function that the globals of the sandbox lead to, as Lua expressions.
fn reachable_functions() -> Vec<String> {
    let hooks = on_body(
        "local found, seen = {}, {}
        local function walk(path, value)
            if type(value) == 'function' then found[#found + 1] = path end
            if type(value) ~= 'table' or seen[value] then return end
            seen[value] = true
            for key, inner in pairs(value) do
                if type(key) == 'string' then walk(path .. '[\"' .. key .. '\"]', inner) end
            end
        end
        walk('_G', _G)
        table.sort(found)
        body.found = json.array(found)",
    );
    let found: serde_json::Value = serde_json::from_str(&edit(&hooks, "{}")).unwrap();
    found["found"].as_array().unwrap().iter().map(|path| path.as_str().unwrap().to_owned()).collect()
}

fn statement(dice: &mut Dice, function: &str, functions: &[&str]) -> String {
    let mut text = String::new();
    // The first function is the given one: each is called for certain.
    let mut function = Some(function);
    for c in dice.pick(STATEMENTS).chars() {
        match c {
            'F' => text.push_str(function.take().unwrap_or_else(|| dice.pick(functions))),
            'V' => {
                text.push('(');
                text.push_str(dice.pick(VALUES));
                text.push(')');
            }
            c => text.push(c),
        }
    }
    text
}

fn program(dice: &mut Dice, function: &str, functions: &[&str]) -> String {
    let statements: Vec<String> = (0..4).map(|_| statement(dice, function, functions)).collect();
    let statements = statements.join("\n        ");
    // Some programs go on as long as they may, some call once.
    let (begin, end) = dice.pick(&[&("while true do", "end"), &("do", "end"), &("pcall(function()", "end)")]);
    format!("local keep = {{}}\n    {begin}\n        {statements}\n    {end}")
}

/// The time after which a call counts as one that never ends.
const ENDLESS: Duration = Duration::from_secs(60);

/// The processor time of one call of a hook with this code.
fn time_of(code: &str) -> Duration {
    let (sender, measured) = std::sync::mpsc::channel();
    let owned = code.to_owned();
    std::thread::spawn(move || sender.send(measure(&owned)).unwrap());
    measured.recv_timeout(ENDLESS).unwrap_or_else(|_| panic!("never ends, or panics:\n{code}"))
}

fn measure(code: &str) -> Duration {
    let text = format!("return {{ on_upstream_request = function(body, req)\n{HELPERS}\n    {code}\nend }}");
    let limits = HookLimits { call: CALL_MAX, ..HookLimits::default() };
    let folder = Folder::new(&[("10-test.lua", &text)]);
    let options = LoadOptions { limits, ..options() };
    let loaded = Hooks::load(std::slice::from_ref(&folder.0), vec![upstream("main")], options);
    let hooks = loaded.unwrap_or_else(|error| panic!("{code}: {error}")).hooks;
    let begun = used();
    edit(&hooks, r#"{"list":[1,2,3],"text":"x"}"#);
    used() - begun
}

/// Calls of functions in C that took seconds: each converts, measures or escapes every argument, and Lua's debug hook
/// does not run in between.
const LONG_CALLS: &[&str] = &[
    "string.char(table.unpack(many(7000, BLANKS)))",
    "string.char(table.unpack(many(3000, DIGITS)))",
    "utf8.char(table.unpack(many(7000, BLANKS)))",
    "math.max(table.unpack(many(7000, BLANKS)))",
    "math.min(1, 2, 3, table.unpack(many(7000, DIGITS)))",
    "math.fmod(BLANKS, BLANKS)",
    "math.floor(BLANKS)",
    "string.format(('%d'):rep(999), table.unpack(many(999, BLANKS)))",
    "string.format(('%f'):rep(999), table.unpack(many(999, DIGITS)))",
    "string.format(('%.0s'):rep(999), table.unpack(many(999, BLANKS)))",
    "string.format('%q', ('\\r'):rep(7000000))",
    "string.format(('%.0s'):rep(999), table.unpack(many(999, with { __name = ('x'):rep(1 << 22) })))",
    "string.pack(('j'):rep(1000), table.unpack(many(1000, BLANKS)))",
    "os.time { year = BLANKS, month = BLANKS, day = BLANKS, hour = BLANKS, min = BLANKS, sec = BLANKS }",
    "('x'):rep(BLANKS)",
    "('x'):sub(BLANKS, BLANKS)",
    "select(BLANKS, 1)",
    "return BLANKS + DIGITS",
    "json.encode(('\\0'):rep(4000000))",
];

#[test]
fn a_call_that_would_read_many_long_texts_is_refused() {
    let mut wrong = Vec::new();
    for call in LONG_CALLS {
        let code = format!(
            "{HELPERS}
            local is_done, message = pcall(function() {call} end)
            body.done, body.message = is_done, tostring(message)"
        );
        let changed: serde_json::Value = serde_json::from_str(&edit(&on_body(&code), "{}")).unwrap();
        let message = changed["message"].as_str().unwrap_or("the hook failed").to_owned();
        if changed["done"] != false || !(message.contains("more than") || message.contains("MiB")) {
            wrong.push(format!("{call}\n  {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn short_arguments_mean_what_they_mean_in_lua() {
    for (code, expected) in [
        ("return string.char(72, '105', 33.0)", "Hi!"),
        ("return math.max(1, 7, 3, 4, 5)", "7"),
        ("return math.floor('2.5') + ('10' + 1)", "13"),
        ("return 1 / math.abs(-0.0) .. ' ' .. 1 / math.fmod(-0.0, 1)", "inf -inf"),
        ("return select('#', math.modf(3.5)) .. select(-1, 'a', 'b') .. select('2', 'a', 'b')", "2bb"),
        ("return ('hello'):sub('2', -2) .. ('hello'):byte(-1) .. #{ ('hello'):byte(1, 3) }", "ell1113"),
        ("return math.tointeger('8') .. math.type(1) .. tostring(math.type('1'))", "8integernil"),
        ("return tostring(tonumber('ff', 16)) .. tostring(tonumber('x')) .. tonumber('0x10')", "255nil16"),
        ("return tostring(tonumber((' '):rep(200) .. '1')) .. (' '):rep(199) + 1", ""),
        (
            "local t = { year = 2020, month = 14, day = '1' } return os.time(t) // 1e9 .. t.year .. t.month",
            "1.020212",
        ),
        ("return string.format('%d %s %q', '3', 'x', 'y')", "3 x \"y\""),
        ("return #string.pack('jz', 1, 'ab') .. string.unpack('z', 'xab\\0', 2)", "11ab"),
        ("return table.concat({ 1, 2, 3 }, '-', '2') .. table.unpack({ 5, 6 }, '2')", "2-36"),
        ("return ('ab'):rep('2', '-') .. ('aXa'):find('a', '2', true)", "ab-ab3"),
        (
            "return utf8.char(228, '246') .. utf8.len('äö') .. utf8.codepoint('ö', '1') .. utf8.offset('äö', 2)",
            "äö22463",
        ),
    ] {
        let code =
            format!("local ok, text = pcall(function() {code} end) body.text = ok and tostring(text) or ''");
        let changed: serde_json::Value = serde_json::from_str(&edit(&on_body(&code), "{}")).unwrap();
        assert_eq!(changed["text"], expected, "{code}");
    }
}

#[test]
fn no_function_and_no_metamethod_outlives_three_times_the_limit() {
    let seed = std::env::var("SPARKGAP_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut dice = Dice(seed);
    let functions = reachable_functions();
    for expected in ["_G[\"string\"][\"find\"]", "_G[\"json\"][\"decode\"]", "_G[\"setmetatable\"]"] {
        assert!(functions.iter().any(|path| path == expected), "{expected} was not found");
    }
    let functions: Vec<&str> = functions.iter().map(String::as_str).collect();
    let mut slow = Vec::new();
    for function in &functions {
        let code = program(&mut dice, function, &functions);
        if std::env::var("SHOW").is_ok() {
            eprintln!("{code}");
        }
        // A call may be unlucky once, by page faults that others cause, say; an escape is slow every time.
        let times: Vec<Duration> =
            (0..3).map(|_| time_of(&code)).take_while(|time| *time > 20 * CALL_MAX).collect();
        if times.len() == 3 {
            slow.push(format!("{times:?}\n{code}"));
        }
    }
    assert!(slow.is_empty(), "{}", slow.join("\n"));
}
