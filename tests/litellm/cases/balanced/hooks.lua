-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

-- What serves each model name, and which names follow it when all of that fails.
local groups = {
  ["claude-sonnet"] = {
    { upstream = "spark-1", model = "qwen", weight = 3 },
    { upstream = "spark-2", model = "qwen", weight = 1, tweak = function(body)
      if body.temperature == nil then body.temperature = 0.6 end
    end },
    { upstream = "spark-3", model = "qwen-old", weight = 0 },
  },
}

-- The group of the name that the client asked for.
local function group_of(req)
  return groups[req.model]
end

-- The entries of a group with the one in front that this client's session draws by weight. LiteLLM draws one for each
-- request; here a conversation keeps its upstream, whose prefix cache knows it already.
local function drawn(group, req)
  local total, first = 0, 1
  for _, entry in ipairs(group) do
    total = total + (entry.weight or 1)
  end
  local point = hash(req.session or req.client_ip or "") / 0x100000000 * total
  for i, entry in ipairs(group) do
    point = point - (entry.weight or 1)
    if point < 0 then
      first = i
      break
    end
  end
  local order = { group[first] }
  for i, entry in ipairs(group) do
    if i ~= first then
      order[#order + 1] = entry
    end
  end
  return order
end

-- The entries to try, in order.
local function order_of(req)
  local group = group_of(req)
  return group and drawn(group, req) or {}
end

-- The entry that is being tried.
local function current(req)
  return order_of(req)[req.ctx.attempt or 1]
end

return {
  api = 1,

  upstreams = {
    ["spark-1"] = { url = "http://spark-1:8000/v1" },
    ["spark-2"] = { url = "http://spark-2:8000/v1" },
    ["spark-3"] = { url = "http://spark-3:8000/v1" },
  },

  -- Where a name has several entries or a model that follows the name, on_request chooses.
  aliases = {
    { "claude-sonnet", upstream = "spark-1", model = "qwen" },
    { "claude-haiku", upstream = "spark-3", model = "small" },
  },

  on_request = function(req)
    local entry = current(req)
    if entry then
      return { upstream = entry.upstream, model = entry.model }
    end
  end,

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
