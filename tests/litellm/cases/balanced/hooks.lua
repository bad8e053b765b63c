-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

-- The parameters that entries of model_list set.
local parameters = {
  [1] = function(body)
    if body.temperature == nil then body.temperature = 0.6 end
  end,
}

-- For each name the parameters for each of its upstreams.
local rules = {
  ["claude-sonnet"] = { parameters = { ["spark-2"] = parameters[1] } },
}

-- The rule for a name. The mark for a large window does not belong to it.
local function rule_of(name)
  return rules[name] or rules[name:gsub("%[1m%]$", "")] or {}
end

return {
  api = 1,

  upstreams = {
    ["spark-1"] = { url = "http://spark-1:8000/v1" },
    ["spark-2"] = { url = "http://spark-2:8000/v1" },
    ["spark-3"] = { url = "http://spark-3:8000/v1" },
  },

  -- The upstreams of a list share the requests; a backup is asked while none of them can answer. Each of them
  -- gets 8 requests at a time, unless its max_in_flight says otherwise.
  aliases = {
    { "claude-sonnet", upstream = { "spark-1", "spark-2" }, backup = { { "spark-3", model = "qwen-old" } }, model = "qwen" },
    { "claude-haiku", upstream = "spark-3", model = "small" },
  },

  on_upstream_request = function(body, req)
    local set = (rule_of(req.model).parameters or {})[req.upstream]
    if set then
      set(body)
    end
  end,
}
