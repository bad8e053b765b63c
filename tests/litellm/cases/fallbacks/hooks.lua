-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

-- The parameters that entries of model_list set.
local parameters = {
  [1] = function(body)
    if body.top_p == nil then body.top_p = 0.9 end
  end,
}

-- For each name the parameters for each of its upstreams, and the models for a prompt that is too long.
local rules = {
  ["big"] = { parameters = { three = parameters[1] }, wider = { "wide" } },
  ["middle"] = { parameters = { three = parameters[1] } },
  ["small"] = { parameters = { three = parameters[1] } },
  ["wide"] = { parameters = { three = parameters[1] } },
}

-- The rule for a name. The mark for a large window does not belong to it.
local function rule_of(name)
  return rules[name] or rules[name:gsub("%[1m%]$", "")] or {}
end

return {
  api = 1,

  upstreams = {
    one = { url = "http://one:8000/v1" },
    two = { url = "http://two:8000/v1" },
    three = { url = "http://three:8000/v1" },
    four = { url = "http://four:8000/v1" },
  },

  -- The upstreams of a list share the requests; a backup is asked while none of them can answer. Each of them
  -- gets 8 requests at a time, unless its max_in_flight says otherwise.
  aliases = {
    { "big", upstream = "one", backup = { { "two", model = "middle" }, { "three", model = "small" } }, model = "big" },
    { "middle", upstream = "two", backup = { { "three", model = "small" } }, model = "middle" },
    { "small", upstream = "three", model = "small" },
    { "wide", upstream = "four", backup = { { "three", model = "small" } }, model = "wide" },
  },

  on_upstream_request = function(body, req)
    local set = (rule_of(req.ctx.wider or req.model).parameters or {})[req.upstream]
    if set then
      set(body)
    end
  end,

  -- The next model gets a prompt that is too long for the one before.
  on_error = function(err, req)
    local names = rule_of(req.model).wider or {}
    local next = (req.ctx.next or 0) + 1
    if names[next] and err.message:find("prompt is too long", 1, true) then
      req.ctx.next, req.ctx.wider = next, names[next]
      return { model = names[next] }
    end
  end,
}
