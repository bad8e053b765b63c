-- Runs once in every VM, before the owner's files: takes away what a hook must not have, and gives views
-- their metamethods. Its arguments: whether the full library
-- stays, and the two functions under the string patterns.
local unsafe_hooks, search, expand = ...

-- How many elements a C function may walk in one go: the time limit cannot stop it in between.
local ELEMENTS_MAX = 100000

local set_metatable, raw_get, kind, ipairs = setmetatable, rawget, type, ipairs

-- Finalisers run with debug hooks off, so that no time limit would reach them; and so does a __close that is called
-- while mlua unwinds an error of the debug hook.
function setmetatable(t, metatable)
  if kind(metatable) == "table" then
    for _, name in ipairs { "__gc", "__close" } do
      if raw_get(metatable, name) ~= nil then
        error(name .. " is not available in hooks", 2)
      end
    end
  end
  return set_metatable(t, metatable)
end

-- A message handler runs where the error was raised. Where that is the debug hook itself (the time limit), debug hooks
-- are off, and a handler that loops would never end: so here it runs once the stack is unwound.
local protected_call, pack, unpack = pcall, table.pack, table.unpack
function xpcall(f, handler, ...)
  local results = pack(protected_call(f, ...))
  if results[1] then
    return unpack(results, 1, results.n)
  end
  return false, handler(results[2])
end

local function bounded(name, length_of)
  local original = table[name]
  table[name] = function(t, ...)
    if length_of(t, ...) > ELEMENTS_MAX then
      error("table." .. name .. ": more than " .. ELEMENTS_MAX .. " elements", 2)
    end
    return original(t, ...)
  end
end

local function length(t)
  return #t
end
bounded("insert", length)
bounded("remove", length)
bounded("sort", length)
bounded("move", function(_, first, last)
  return last - first
end)

-- In C, repeating nothing a great many times takes a great while.
local rep = string.rep
function string.rep(text, n, separator)
  if #text == 0 and (separator == nil or separator == "") then
    return ""
  end
  return rep(text, n, separator)
end

-- Patterns: the same as Lua's, on a matcher that knows the time limit.
local find, sub, select, tostring, concat = string.find, string.sub, select, tostring, table.concat

local function captures_or_whole(text, first, last, ...)
  if first == nil then
    return nil
  elseif select("#", ...) == 0 then
    return sub(text, first, last)
  end
  return ...
end

function string.find(text, pattern, init, plain)
  -- As Lua does: a pattern without anything special is looked for as it is.
  if plain or not find(pattern, "[%^%$%*%+%?%.%(%[%%%-]") then
    return find(text, pattern, init, true)
  end
  return search("find", text, pattern, init, true)
end

function string.match(text, pattern, init)
  return captures_or_whole(text, search("match", text, pattern, init, true))
end

function string.gmatch(text, pattern, init)
  local position, last_end = init, nil
  local function step(first, last, ...)
    if first == nil then
      position = #text + 2
      return nil
    end
    position, last_end = last + 1, last + 1
    return captures_or_whole(text, first, last, ...)
  end
  return function()
    return step(search("gmatch", text, pattern, position, false, last_end))
  end
end

local function replacement(text, repl, first, last, ...)
  local whole = sub(text, first, last)
  local how = kind(repl)
  if how == "string" or how == "number" then
    return expand(repl, whole, ...)
  end
  local value
  if how == "table" then
    value = repl[(captures_or_whole(text, first, last, ...))]
  else
    value = repl(captures_or_whole(text, first, last, ...))
  end
  if not value then
    return whole
  elseif kind(value) ~= "string" and kind(value) ~= "number" then
    error("invalid replacement value (a " .. kind(value) .. ")", 3)
  end
  return tostring(value)
end

local REPLACES = { string = true, number = true, table = true, ["function"] = true }

function string.gsub(text, pattern, repl, limit)
  if not REPLACES[kind(repl)] then
    error("bad argument #3 to 'gsub' (string/function/table expected, got " .. kind(repl) .. ")", 2)
  end
  text = tostring(text)
  local pieces, n, count, copied, last_end = {}, 0, 0, 1, nil
  local anchored = sub(pattern, 1, 1) == "^"
  while not limit or count < limit do
    local found = pack(search("gsub", text, pattern, copied, true, last_end))
    local first, last = found[1], found[2]
    if first == nil then
      break
    end
    count = count + 1
    pieces[n + 1] = sub(text, copied, first - 1)
    pieces[n + 2] = replacement(text, repl, unpack(found, 1, found.n))
    n = n + 2
    copied, last_end = last + 1, last + 1
    if anchored then
      break
    end
  end
  pieces[n + 1] = sub(text, copied)
  return concat(pieces), count
end

string.dump = nil
if not unsafe_hooks then
  os = { time = os.time, date = os.date, clock = os.clock }
  load, loadfile, dofile, collectgarbage, warn = nil, nil, nil, nil, nil
end

-- Views. `access` is the one function that reaches the tree of the request at hand; between requests it fails.
local GET, SET, LENGTH, KEYS, SAME, ENCODE = 1, 2, 3, 4, 5, 6
local function ended()
  error("this request has ended: a view of it was kept in a global or an upvalue", 2)
end
local access = ended

local encode = json.encode
function json.encode(value)
  if access == ended then
    return encode(value)
  end
  return access(ENCODE, nil, value)
end

return {
  use = function(f)
    access = f or ended
  end,
  index = function(view, key)
    return access(GET, view, key)
  end,
  newindex = function(view, key, value)
    return access(SET, view, key, value)
  end,
  len = function(view)
    return access(LENGTH, view)
  end,
  eq = function(a, b)
    return access(SAME, a, b)
  end,
  pairs = function(view)
    -- The keys as they are now: entries may be removed while walking, as in a table.
    local keys = access(KEYS, view)
    local i = 0
    return function()
      while true do
        i = i + 1
        local key = i
        if keys then
          key = keys[i]
        end
        if key == nil then
          return nil
        end
        local value = access(GET, view, key)
        if value ~= nil then
          return key, value
        elseif not keys then
          return nil
        end
      end
    end
  end,
}
