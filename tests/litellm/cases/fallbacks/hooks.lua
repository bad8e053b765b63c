-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

-- What serves each model name, and which names follow it when all of that fails.
local groups = {
  ["big"] = {
    { upstream = "one", model = "big" },
    fallbacks = { "middle", "small" },
    context_window_fallbacks = { "wide" },
  },
  ["middle"] = {
    { upstream = "two", model = "middle" },
    fallbacks = { "small" },
  },
  ["small"] = {
    { upstream = "three", model = "small", tweak = function(body)
      if body.top_p == nil then body.top_p = 0.9 end
    end },
  },
  ["wide"] = {
    { upstream = "four", model = "wide" },
    fallbacks = { "small" },
  },
}

-- The group of the name that the client asked for.
local function group_of(req)
  return groups[req.model]
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
    local names = group.fallbacks
    if req.ctx.too_long then
      names = group.context_window_fallbacks
    else
      add(group)
    end
    for _, name in ipairs(names or {}) do
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
    one = { url = "http://one:8000/v1" },
    two = { url = "http://two:8000/v1" },
    three = { url = "http://three:8000/v1" },
    four = { url = "http://four:8000/v1" },
  },

  aliases = {
    { "big", upstream = "one", model = "big" },
    { "middle", upstream = "two", model = "middle" },
    { "small", upstream = "three", model = "small" },
    { "wide", upstream = "four", model = "wide" },
  },

  on_upstream_request = function(body, req)
    local entry = current(req)
    if entry then
      body.model = entry.model
      if entry.tweak then
        entry.tweak(body)
      end
    end
  end,

  -- The next entry is tried, unless the request is wrong in itself.
  on_error = function(err, req)
    local attempt = (req.ctx.attempt or 1) + 1
    if err.message:find("prompt is too long", 1, true) then
      local group = group_of(req)
      if group and group.context_window_fallbacks and not req.ctx.too_long then
        req.ctx.too_long, attempt = true, 1
      end
    elseif err.status == 400 or err.status == 413 then
      return
    end
    local entry = order_of(req)[attempt]
    if entry then
      req.ctx.attempt = attempt
      return { upstream = entry.upstream }
    end
  end,
}
