-- Runs once in every VM, before the owner's files: takes away what a hook must not have, and gives views
-- their metamethods. Its argument: whether the full library stays.
local unsafe_hooks = ...

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
