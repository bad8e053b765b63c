-- Runs once in every VM, before the owner's files: takes away what a hook must not have, replaces the C functions that
-- the time limit could not stop, and gives views their metamethods. Its arguments: whether the full library stays, and
-- functions in Rust (globals.rs).
local unsafe_hooks, search, expand, find_plain, rep, attach, bytes_of, is_native = ...

-- The longest text that a C function walks in one go, in bytes: about 20 ms.
local TEXT_BYTES_MAX = 16 * 1024 * 1024
-- The longest format of `string.format`. The most values for it, and for each function that takes any number of them: one
-- value of `%99.99f` takes 3 microseconds.
local FORMAT_BYTES_MAX, FORMAT_VALUES_MAX = 64 * 1024, 1000
-- The most bytes of all arguments together, for a function that reads each of them: 1 MiB. A numeric text in
-- `string.format` is read up to six times, and `%q` writes five bytes for one.
local ARGUMENT_BYTES_MAX = 1024 * 1024
-- The longest text that counts as a number, in bytes: as long as Lua's own `L_MAXLENNUM`. C functions convert numeric
-- texts, and read all of a text's leading blanks or hexadecimal digits for it.
local NUMBER_BYTES_MAX = 200
-- The longest format of the functions where one character of it may stand for much work.
local SHORT_FORMAT_BYTES_MAX = 1024
-- The elements that `table.concat` joins in one go.
local ELEMENTS_PER_PIECE = 10000

-- The longest `__name` of a metatable. `string.format` makes a text of it for each value.
local NAME_BYTES_MAX = 200

local get_metatable, raw_get, kind, next, select, error = getmetatable, rawget, type, next, select, error
local sub, tostring = string.sub, tostring
local concat, sort, pack, unpack = table.concat, table.sort, table.pack, table.unpack

-- Numbers in texts.

local function check_number_text(value)
  if kind(value) == "string" and #value > NUMBER_BYTES_MAX then
    error("a text of more than " .. NUMBER_BYTES_MAX .. " bytes is not a number", 4)
  end
end

-- Arithmetic on strings. From here on `x - 0` is a cheap check of a number, which the C functions below rely on: one
-- instruction for a number, and an error for a text that takes long to convert. `x + 0` would change -0.0.
local string_events = get_metatable("")
for name, original in next, string_events do
  if kind(original) == "function" then
    string_events[name] = function(a, b)
      check_number_text(a)
      check_number_text(b)
      return original(a, b)
    end
  end
end

local convert = tonumber
local function tonumber(value, base)
  if kind(value) == "string" and #value > NUMBER_BYTES_MAX then
    return nil
  elseif base == nil then
    return convert(value)
  end
  return convert(value, base - 0)
end
_G.tonumber = tonumber

local function check_kind(name, position, value, expected, is_right)
  if not is_right then
    error("bad argument #" .. position .. " to '" .. name .. "' (" .. expected .. " expected, got " .. kind(value) .. ")", 3)
  end
end

-- Metatables. A table gets a copy of the metatable, with the events below and no others, and Lua code cannot reach the
-- copy: `__gc` runs with debug hooks off, so that no time limit would reach it, and so does a `__close` that runs while
-- mlua unwinds an error of the debug hook. With `__mode` a garbage collection can take time in proportion to the square
-- of the memory. All of these could be set after a check of the metatable itself.
local EVENTS = {
  __index = true, __newindex = true, __call = true, __tostring = true, __name = true, __len = true, __pairs = true,
  __eq = true, __lt = true, __le = true, __concat = true, __unm = true, __add = true, __sub = true, __mul = true,
  __div = true, __idiv = true, __mod = true, __pow = true, __band = true, __bor = true, __bxor = true, __bnot = true,
  __shl = true, __shr = true,
}

function setmetatable(t, metatable)
  check_kind("setmetatable", 1, t, "table", kind(t) == "table")
  check_kind("setmetatable", 2, metatable, "nil or table", metatable == nil or kind(metatable) == "table")
  if metatable == nil then
    attach(t, nil, false)
    return t
  end
  local copy = {}
  for key, value in next, metatable do
    if key == "__name" and kind(value) == "string" and #value > NAME_BYTES_MAX then
      error("__name: a text of more than " .. NAME_BYTES_MAX .. " bytes", 2)
    elseif EVENTS[key] then
      copy[key] = value
    elseif key == "__gc" or key == "__close" or key == "__mode" then
      error(key .. " is not available in hooks", 2)
    end
  end
  -- `getmetatable` returns this field: the table that the hook gave.
  local protected = raw_get(metatable, "__metatable")
  if protected == nil then
    copy.__metatable = metatable
  else
    copy.__metatable = protected
  end
  attach(t, copy, protected ~= nil)
  return t
end

-- All strings share one metatable, so it stays as it is.
get_metatable("").__metatable = false

-- True if C code may walk this value's elements: they are in memory. With a metatable, a C function could call others
-- or look up each element in a long chain of tables, and do so without end. Views have one as well.
local function is_plain(t)
  return kind(t) == "table" and get_metatable(t) == nil
end

-- A message handler runs where the error was raised. Where that is the debug hook itself (the time limit), debug hooks
-- are off, and a handler that loops would never end: so here it runs once the stack is unwound.
local protected_call = pcall
function xpcall(f, handler, ...)
  local results = pack(protected_call(f, ...))
  if results[1] then
    return unpack(results, 1, results.n)
  end
  return false, handler(results[2])
end

-- The functions on tables: in Lua, where the time limit reaches every step.
local function check_table(name, t)
  if kind(t) ~= "table" and kind(t) ~= "userdata" then
    error("bad argument #1 to '" .. name .. "' (table expected, got " .. kind(t) .. ")", 3)
  end
end

function table.insert(t, ...)
  check_table("insert", t)
  local count, free = select("#", ...), #t + 1
  if count == 1 then
    t[free] = (...)
    return
  elseif count ~= 2 then
    error("wrong number of arguments to 'insert'", 2)
  end
  local at, value = ...
  at = tonumber(at)
  if not at or at < 1 or at > free then
    error("bad argument #2 to 'insert' (position out of bounds)", 2)
  end
  for i = free, at + 1, -1 do
    t[i] = t[i - 1]
  end
  t[at] = value
end

function table.remove(t, at)
  check_table("remove", t)
  local length = #t
  at = at == nil and length or tonumber(at)
  if not at or at ~= length and (at < 1 or at > length + 1) then
    error("bad argument #2 to 'remove' (position out of bounds)", 2)
  end
  local value = t[at]
  for i = at, length - 1 do
    t[i] = t[i + 1]
  end
  if at <= length then
    at = length
  end
  if t[at] ~= nil then
    t[at] = nil
  end
  return value
end

function table.move(from, first, last, to, into)
  check_table("move", from)
  first, last, to = tonumber(first), tonumber(last), tonumber(to)
  if not first or not last or not to then
    error("bad argument to 'move' (number expected)", 2)
  end
  if into == nil then
    into = from
  end
  check_table("move", into)
  if to > last or to <= first or into ~= from then
    for i = 0, last - first do
      into[to + i] = from[first + i]
    end
  else
    for i = last - first, 0, -1 do
      into[to + i] = from[first + i]
    end
  end
  return into
end

-- The elements as a table that C code may walk, and their places in it.
local function plain(t, first, last)
  first, last = first or 1, last or #t
  if is_plain(t) then
    return t, first, last
  end
  local copy, count = {}, 0
  for i = first, last do
    count = count + 1
    copy[count] = t[i]
  end
  return copy, 1, count
end

function table.concat(t, separator, first, last)
  check_table("concat", t)
  t, first, last = plain(t, first and first - 0, last and last - 0)
  if last - first < ELEMENTS_PER_PIECE then
    return concat(t, separator, first, last)
  end
  local pieces, count = {}, 0
  for begin = first, last, ELEMENTS_PER_PIECE do
    local rest = last - begin
    count = count + 1
    pieces[count] = concat(t, separator, begin, rest < ELEMENTS_PER_PIECE and last or begin + ELEMENTS_PER_PIECE - 1)
  end
  return concat(pieces, separator)
end

function table.unpack(t, first, last)
  check_table("unpack", t)
  return unpack(plain(t, first and first - 0, last and last - 0))
end

-- With a comparison in Lua, the time limit reaches each of them.
local function less(a, b)
  return a < b
end
function table.sort(t, comparison)
  check_table("sort", t)
  return sort(t, comparison or less)
end

-- C functions that walk a whole text, which is their first argument. The numbers after it are positions.
local function bounded(library, library_name, name, bytes_max)
  local original = library[name]
  library[name] = function(text, first, last, lax)
    if kind(text) == "string" and #text > bytes_max then
      error(library_name .. "." .. name .. ": a text of more than " .. bytes_max .. " bytes", 2)
    end
    return original(text, first and first - 0, last and last - 0, lax)
  end
end
for _, name in next, { "lower", "reverse", "upper" } do
  bounded(string, "string", name, TEXT_BYTES_MAX)
end
for _, name in next, { "codepoint", "len", "offset" } do
  bounded(utf8, "utf8", name, TEXT_BYTES_MAX)
end

-- C functions that read all of their arguments, of which there may be any number.
local function summed(original, name, format_bytes_max)
  return function(...)
    local format = ...
    local values = select("#", ...)
    if values > FORMAT_VALUES_MAX + 1 then
      error(name .. ": more than " .. FORMAT_VALUES_MAX .. " values", 2)
    end
    local bytes = bytes_of(...)
    if bytes > NUMBER_BYTES_MAX then
      if format_bytes_max and kind(format) == "string" and #format > format_bytes_max then
        error(name .. ": a text of more than " .. format_bytes_max .. " bytes", 2)
      elseif bytes > ARGUMENT_BYTES_MAX then
        error(name .. ": arguments of more than " .. ARGUMENT_BYTES_MAX .. " bytes together", 2)
      end
    end
    return original(...)
  end
end
string.format = summed(string.format, "string.format", FORMAT_BYTES_MAX)
string.pack = summed(string.pack, "string.pack", SHORT_FORMAT_BYTES_MAX)
string.packsize = summed(string.packsize, "string.packsize", SHORT_FORMAT_BYTES_MAX)
os.date = summed(os.date, "os.date", SHORT_FORMAT_BYTES_MAX)

local unpack_text = string.unpack
function string.unpack(format, text, position)
  if kind(format) == "string" and #format > SHORT_FORMAT_BYTES_MAX then
    error("string.unpack: a text of more than " .. SHORT_FORMAT_BYTES_MAX .. " bytes", 2)
  end
  return unpack_text(format, text, position and position - 0)
end

-- C functions of numbers only. They stop at the first nil, so the rest is of no interest after one.
local function numeric(original, name)
  return function(...)
    local a, b, c, more = ...
    if a then
      local _ = a - 0
    end
    if b then
      local _ = b - 0
    end
    if c then
      local _ = c - 0
    end
    if more ~= nil and bytes_of(...) > ARGUMENT_BYTES_MAX then
      error(name .. ": arguments of more than " .. ARGUMENT_BYTES_MAX .. " bytes together", 2)
    end
    return original(...)
  end
end
local math_type, to_integer = math.type, math.tointeger
for name, original in next, math do
  if kind(original) == "function" then
    math[name] = numeric(original, "math." .. name)
  end
end
math.type = math_type
function math.tointeger(value)
  if kind(value) == "string" then
    value = tonumber(value)
  end
  return to_integer(value)
end
string.char = numeric(string.char, "string.char")
utf8.char = numeric(utf8.char, "utf8.char")

function _G.select(n, ...)
  return select(n == "#" and n or n - 0, ...)
end

function string.sub(text, first, last)
  return sub(text, first and first - 0, last and last - 0)
end

local byte = string.byte
function string.byte(text, first, last)
  return byte(text, first and first - 0, last and last - 0)
end

function string.rep(text, count, separator)
  return rep(text, count and count - 0, separator)
end

-- The fields of a date are read once each, here: `os.time` would convert the text that each of them may be.
local DATE_FIELDS = { "year", "month", "day", "hour", "min", "sec", "isdst" }
local time = os.time
function os.time(date)
  if date == nil then
    return time()
  end
  check_kind("time", 1, date, "table", kind(date) == "table")
  local fields = {}
  for _, name in next, DATE_FIELDS do
    local value = date[name]
    check_number_text(value)
    fields[name] = value
  end
  local seconds = time(fields)
  for name, value in next, fields do
    date[name] = value
  end
  return seconds
end

local increment, store = shared.incr, shared.set
function shared.incr(key, by, ttl)
  return increment(key, by and by - 0, ttl and ttl - 0)
end
function shared.set(key, value, ttl)
  return store(key, value, ttl and ttl - 0)
end

-- Patterns: the same as Lua's, on a matcher that knows the time limit.

local function captures_or_whole(text, first, last, ...)
  if first == nil then
    return nil
  elseif select("#", ...) == 0 then
    return sub(text, first, last)
  end
  return ...
end

function string.find(text, pattern, init, plain)
  if plain then
    return find_plain(text, pattern, init and init - 0)
  end
  return search("find", text, pattern, init and init - 0, true)
end

function string.match(text, pattern, init)
  return captures_or_whole(text, search("match", text, pattern, init and init - 0, true))
end

function string.gmatch(text, pattern, init)
  local position, last_end = init and init - 0, nil
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

local join = table.concat
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
  return join(pieces), count
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

-- Views are tables to Lua code: `type` says so, and `next` tells an empty one from another. `json.null` is the only other
-- userdata, a light one without a metatable of its own.
local function is_view(value)
  return kind(value) == "userdata" and get_metatable(value) ~= nil
end

function type(...)
  local name = kind(...)
  if name == "userdata" and is_view((...)) then
    return "table"
  end
  return name
end

function _G.next(t, key)
  if not is_view(t) then
    return next(t, key)
  elseif key ~= nil then
    error("next: a view is walked with pairs", 2)
  end
  local keys = access(KEYS, t)
  if keys then
    key = keys[1]
  else
    key = 1
  end
  local value
  if key ~= nil then
    value = access(GET, t, key)
  end
  if value ~= nil then
    return key, value
  end
end

-- True if the value becomes an array in JSON.
function json.is_array(value)
  if is_view(value) then
    return access(KEYS, value) == nil
  elseif kind(value) ~= "table" then
    return false
  elseif getmetatable(value) == "json.array" then
    return true
  end
  local count = 0
  for _ in next, value do
    count = count + 1
    if raw_get(value, count) == nil then
      return false
    end
  end
  return count > 0
end

-- True if the value becomes an object in JSON.
function json.is_object(value)
  return (kind(value) == "table" or is_view(value)) and not json.is_array(value)
end

-- The functions in C or Rust that stay as they are: they read no more than a bounded part of their arguments, or one
-- argument once, or they watch the limits themselves.
local HARMLESS = {}
for _, f in next, {
  assert, error, getmetatable, ipairs, next, pairs, pcall, rawequal, rawget, rawlen, rawset, tostring, type, string.len,
  table.pack, utf8.codes, math_type, os.clock, print, log.info, log.warn, log.error, env, hash, _G.time, json.array,
  json.decode, shared.get,
} do
  HARMLESS[f] = true
end
-- A function that nobody has thought about is bounded by what it gets.
if not unsafe_hooks then
  local libraries = { [""] = _G, ["string."] = string, ["table."] = table, ["utf8."] = utf8, ["math."] = math,
    ["os."] = os, ["json."] = json, ["shared."] = shared, ["log."] = log }
  for prefix, library in next, libraries do
    for name, f in next, library do
      if kind(f) == "function" and is_native(f) and not HARMLESS[f] then
        library[name] = summed(f, prefix .. name)
      end
    end
  end
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
