-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

-- The parameters that entries of model_list set.
local parameters = {
  [1] = function(body)
    if body.temperature == nil then body.temperature = 0.7 end
  end,
  [2] = function(body)
    if body.temperature == nil then body.temperature = 1 end
  end,
}

-- For each name the parameters for each of its upstreams.
local rules = {
  ["a"] = { parameters = { spark = parameters[1] } },
  ["b"] = { parameters = { spark = parameters[2] } },
}

-- The rule for a name. The mark for a large window does not belong to it.
local function rule_of(name)
  return rules[name] or rules[name:gsub("%[1m%]$", "")] or {}
end

return {
  api = 1,

  upstreams = {
    spark = { url = "http://spark:8000/v1" },
  },

  aliases = {
    { "a", upstream = "spark", model = "a" },
    { "b", upstream = "spark", model = "b" },
  },

  on_upstream_request = function(body, req)
    local set = (rule_of(req.model).parameters or {})[req.upstream]
    if set then
      set(body)
    end
  end,
}
