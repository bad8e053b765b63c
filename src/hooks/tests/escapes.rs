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
    "with { __name = ('x'):rep(1 << 20) }",
    "with { __pairs = function() return next, many(100000) end }",
    "late { __close = function() while true do end end }",
    "late { __gc = function() while true do end end }",
    "late { __mode = 'k' }",
    "chain(2000)",
];

/// Functions that the values use.
const HELPERS: &str = "
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
            (0..3).map(|_| time_of(&code)).take_while(|time| *time > 3 * CALL_MAX).collect();
        if times.len() == 3 {
            slow.push(format!("{times:?}\n{code}"));
        }
    }
    assert!(slow.is_empty(), "{}", slow.join("\n"));
}
