//! The string patterns compared with Lua's own: every pattern on every text, with the same answers and the same errors.
//! One difference is intended: an unfinished capture such as `(a` is an error even if no match uses it.

use mlua::{Lua, Table};

use super::super::globals;
use super::super::guard::Guard;
use super::*;

const PATTERNS: &[&str] = &[
    "",
    "a",
    "^a",
    "a$",
    "^a$",
    "^",
    "$",
    ".",
    ".*",
    ".+",
    ".-",
    ".?",
    "a*",
    "a+b",
    "a-b",
    "a?b",
    "(a)(b)",
    "(a*(.)%w(%s*))",
    "()a()",
    "%a+",
    "%A",
    "%d",
    "%D+",
    "%s",
    "%S+",
    "%w+",
    "%W",
    "%l",
    "%u",
    "%p",
    "%c",
    "%x+",
    "%g",
    "[abc]",
    "[^abc]",
    "[a-c]+",
    "[%a_][%w_]*",
    "[]]",
    "[^]]",
    "[a-]",
    "[]-a]",
    "[%]]",
    "%b()",
    "%f[%w]%w+",
    "%f[%z]",
    "%f[\0]",
    "(.)%1",
    "(a)%1",
    "^%s*(.-)%s*$",
    "%%",
    "%.",
    "x*",
    "()",
    "(%w+) = (%w+)",
    "\n",
    "[^\n]+",
    "é",
    "-",
    "a-",
    "-*",
    "*",
    "a**",
    "[a",
    "[",
    "[^",
    "%",
    "a)",
    "%1",
    "(a)%2",
    "%b",
    "%bx",
    "%f",
    "%fa",
    "[%",
    "[a-%z]",
    "^^",
    "a^",
    "$a",
];

const TEXTS: &[&str] = &[
    "",
    "a",
    "b",
    "ab",
    "aab",
    "aaab b",
    "hello world",
    "key = value",
    "(a(b)c)",
    " trim me ",
    "a]b-c",
    "x^y$z",
    "aa bb cc",
    "line\nline2\n",
    "été",
    "100% sure",
    "THE (quick) fox_1",
    "\t\u{b}x\u{0}y",
    "[]",
    "^a",
    "abcabc",
];

const COMPARE: &str = r##"
    local patterns, texts, native = ...
    local failures = {}
    local function say(...)
      local out = {}
      for i = 1, select("#", ...) do
        local value = select(i, ...)
        out[i] = type(value) == "table" and table.concat(value, ";") or tostring(value)
      end
      return table.concat(out, "|")
    end
    local function outcome(f, ...)
      local results = table.pack(pcall(f, ...))
      return results[1] and say(table.unpack(results, 1, results.n)) or "error"
    end
    local function all(gmatch)
      return function(text, pattern)
        local list = {}
        for a, b in gmatch(text, pattern) do
          list[#list + 1] = tostring(a) .. "," .. tostring(b)
          if #list > 100 then break end
        end
        return list
      end
    end
    local runs = {
      find = function(s, t, p) return s.find(t, p) end,
      find2 = function(s, t, p) return s.find(t, p, 2) end,
      findback = function(s, t, p) return s.find(t, p, -2) end,
      findbeyond = function(s, t, p) return s.find(t, p, 30) end,
      match = function(s, t, p) return s.match(t, p) end,
      gmatch = function(s, t, p) return all(s.gmatch)(t, p) end,
      gsub = function(s, t, p) return s.gsub(t, p, "<%0%1>") end,
      gsub2 = function(s, t, p) return s.gsub(t, p, "<%0%%>", 2) end,
      gsub0 = function(s, t, p) return s.gsub(t, p, "-", 0) end,
      gsubf = function(s, t, p) return s.gsub(t, p, function(a, b) if a ~= "a" then return say(a, b) end end) end,
      gsubt = function(s, t, p) return s.gsub(t, p, { a = "A", b = 5, c = false }) end,
      gsubbad = function(s, t, p) return s.gsub(t, p, "%2") end,
    }
    local count = 0
    for name, run in pairs(runs) do
      for _, pattern in ipairs(patterns) do
        for _, text in ipairs(texts) do
          local ours, theirs = outcome(run, string, text, pattern), outcome(run, native, text, pattern)
          count = count + 1
          if ours ~= theirs then
            failures[#failures + 1] = ("%s %q %q: ours %s, Lua's %s"):format(name, text, pattern, ours, theirs)
          end
        end
      end
    end
    return table.concat(failures, "\n"), count
"##;

#[test]
fn patterns_match_as_in_lua() {
    let lua = Lua::new();
    let guard = Guard::install(&lua).unwrap();
    guard.start(Duration::from_secs(60));
    let native: Table =
        lua.load("local t = {} for k, v in pairs(string) do t[k] = v end return t").eval().unwrap();
    super::super::convert::create_array_marker(&lua).unwrap();
    globals::install(&lua, &guard, &LoadOptions::default()).unwrap();
    let search = globals::search_function(&lua, &guard).unwrap();
    let expand = globals::expand_function(&lua).unwrap();
    lua.load(include_str!("../prelude.lua")).call::<()>((true, search, expand)).unwrap();
    let (failures, count): (mlua::LuaString, usize) =
        lua.load(COMPARE).call((PATTERNS, TEXTS, native)).unwrap();
    let failures = failures.to_string_lossy();
    let first: Vec<&str> = failures.lines().take(20).collect();
    assert!(first.is_empty(), "{}", first.join("\n"));
    assert_eq!(count, 12 * PATTERNS.len() * TEXTS.len());
}
