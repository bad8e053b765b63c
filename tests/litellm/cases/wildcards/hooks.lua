-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

-- What serves each model name, and which names follow it when all of that fails.
local groups = {
  ["*"] = {
    { upstream = "router", model = "*" },
  },
  ["claude-*"] = {
    { upstream = "spark:8000", model = "qwen" },
  },
  ["claude-*-haiku-*"] = {
    { upstream = "spark:8001", model = "small" },
  },
  ["gpt-4o"] = {
    { upstream = "spark:8000", model = "big" },
  },
  ["claude-sonnet-4"] = {
    { upstream = "spark:8000", model = "qwen" },
    fallbacks = { "gpt-4o" },
  },
  ["something-else"] = {
    { upstream = "router", model = "something-else" },
  },
}
groups["sonnet"] = groups["claude-sonnet-4"]
groups["best"] = groups["gpt-4o"]
groups["other.name"] = groups["something-else"]

-- The names with a *, as Lua patterns; the most specific first.
local patterns = {
  { "^claude%-(.*)%-haiku%-(.*)$", groups["claude-*-haiku-*"] },
  { "^claude%-(.*)$", groups["claude-*"] },
  { "^(.*)$", groups["*"] },
}

-- The group of the name that the client asked for, and what each * stands for in it.
local function group_of(req)
  if groups[req.model] then
    return groups[req.model], {}
  end
  for _, pattern in ipairs(patterns) do
    local parts = { req.model:match(pattern[1]) }
    if parts[1] then
      return pattern[2], parts
    end
  end
end

-- The model that an entry asks for: the parts go into its * in order. More parts than *: the client's name as it is.
local function model_of(entry, req)
  local _, parts = group_of(req)
  local _, stars = entry.model:gsub("%*", "")
  if stars == 0 or not parts then
    return entry.model
  elseif #parts > stars then
    return req.model
  end
  local i = 0
  return (entry.model:gsub("%*", function()
    i = i + 1
    return parts[i]
  end))
end

-- The entries to try, in order: those of the group, then those of its fallbacks.
local function order_of(req)
  local order, group = {}, group_of(req)
  local function add(more)
    for _, entry in ipairs(more) do
      order[#order + 1] = entry
    end
  end
  if group then
    add(group)
    for _, name in ipairs(group.fallbacks or {}) do
      add(groups[name])
    end
  end
  return order
end

-- The entry that is being tried.
local function current(req)
  return order_of(req)[req.ctx.attempt or 1]
end

return {
  api = 1,

  upstreams = {
    router = { url = "http://router:4000/v1" },
    ["spark:8000"] = { url = "http://spark:8000/v1" },
    ["spark:8001"] = { url = "http://spark:8001/v1" },
  },

  -- Where a name has several entries or a model that follows the name, on_request chooses.
  aliases = {
    { "sonnet", upstream = "spark:8000", model = "qwen" },
    { "best", upstream = "spark:8000", model = "big" },
    { "other.name", upstream = "router", model = "something-else" },
    { "gpt-4o", upstream = "spark:8000", model = "big" },
    { "claude-*-haiku-*", upstream = "spark:8001", model = "small" },
    { "claude-*", upstream = "spark:8000", model = "qwen" },
    { "*", upstream = "router" },
  },

  on_request = function(req)
    local entry = current(req)
    if entry then
      return { upstream = entry.upstream, model = model_of(entry, req) }
    end
  end,

  on_upstream_request = function(body, req)
    local entry = current(req)
    if entry then
      body.model = model_of(entry, req)
    end
  end,

  -- The next entry is tried, unless the request is wrong in itself.
  on_error = function(err, req)
    local attempt = (req.ctx.attempt or 1) + 1
    local too_long = err.message:find("prompt is too long", 1, true)
    if (err.status == 400 or err.status == 413) and not too_long then
      return
    end
    local entry = order_of(req)[attempt]
    if entry then
      req.ctx.attempt = attempt
      return { upstream = entry.upstream }
    end
  end,
}
