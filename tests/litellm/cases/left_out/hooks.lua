-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.
-- Left out: model_list[1] (azure): line 9, column 30: azure/ has an API of its own: write model: openai/NAME with api_base: its OpenAI-compatible address, if it has one.
-- Left out: model_list[2] (no-address): line 11, column 30: hosted_vllm/ without an api_base: add api_base: http://HOST:PORT/v1.
-- Left out: model_list[3] (hidden): line 13, column 30: the model's name comes from the environment variable MODEL, which is not set; set it, or write the name here.

-- The parameters that entries of model_list set.
local parameters = {
  [1] = function(body)
    if body.temperature == nil then body.temperature = 0.3 end
  end,
}

-- For each name the parameters for each of its upstreams.
local rules = {
  ["claude-opus-4"] = { parameters = { ["api.anthropic.com"] = parameters[1] } },
  ["local"] = { parameters = { ["api.anthropic.com"] = parameters[1] } },
}

-- The rule for a name. The mark for a large window does not belong to it.
local function rule_of(name)
  return rules[name] or rules[name:gsub("%[1m%]$", "")] or {}
end

return {
  api = 1,

  upstreams = {
    ["api.anthropic.com"] = { url = "https://api.anthropic.com", api_key = env "ANTHROPIC_API_KEY", protocol = "messages" },
    ["box:1"] = { url = "http://box:1/v1" },
    ["box:8000"] = { url = "http://box:8000/v1" },
  },

  -- The upstreams of a list share the requests; a backup is asked while none of them can answer. Each of them
  -- gets 8 requests at a time, unless its max_in_flight says otherwise.
  aliases = {
    { "claude-opus-4", upstream = "api.anthropic.com", backup = { { "box:8000", model = "x" } }, model = "claude-opus-4-20250514" },
    { "two words", upstream = "box:1", model = "x" },
    { "local", upstream = "box:8000", backup = { { "api.anthropic.com", model = "claude-opus-4-20250514" } }, model = "x" },
  },

  on_upstream_request = function(body, req)
    local set = (rule_of(req.model).parameters or {})[req.upstream]
    if set then
      set(body)
    end
  end,
}
