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
  ["sonnet"] = { parameters = { ["spark-2"] = parameters[1] } },
  ["claude-sonnet"] = { parameters = { ["spark-2"] = parameters[1] } },
  ["claude-opus"] = { parameters = { ["spark-2"] = parameters[1] } },
}

-- The rule for a name. The mark for a large window does not belong to it.
local function rule_of(name)
  return rules[name] or rules[name:gsub("%[1m%]$", "")] or {}
end

return {
  api = 1,

  upstreams = {
    ["spark-1"] = { url = "http://spark-1:8000/v1", flavour = "vllm", max_in_flight = 4 },
    ["spark-2"] = { url = "http://spark-2:8000/v1", flavour = "vllm" },
    ["spark-3"] = { url = "http://spark-3:8000/v1", flavour = "vllm" },
    desk = { url = "http://desk:11434/v1", flavour = "ollama", max_in_flight = 6 },
    ["desk-2"] = { url = "http://desk:11434/v1", flavour = "ollama", max_in_flight = 6 }, -- desk again, for another of its models
  },

  -- The upstreams of a list share the requests; a backup is asked while none of them can answer. Each of them
  -- gets 8 requests at a time, unless its max_in_flight says otherwise.
  aliases = {
    { "sonnet", upstream = { "spark-2", "spark-3" }, backup = { "spark-1", { "desk", model = "small" }, { "desk-2", model = "smaller" } }, model = "qwen" },
    { "claude-sonnet", upstream = { "spark-2", "spark-3" }, backup = { "spark-1", { "desk", model = "small" }, { "desk-2", model = "smaller" } }, model = "qwen" },
    { "claude-haiku", upstream = "desk", model = "small" },
    { "claude-opus", upstream = "spark-1", backup = { "spark-2", "spark-3", { "desk", model = "small" }, { "desk-2", model = "smaller" } }, model = "qwen" },
  },

  on_upstream_request = function(body, req)
    local set = (rule_of(req.model).parameters or {})[req.upstream]
    if set then
      set(body)
    end
  end,
}
