-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

-- The parameters that entries of model_list set.
local parameters = {
  [1] = function(body)
    if body.temperature == nil then body.temperature = 0.7 end
    if body.top_p == nil then body.top_p = 0.8 end
    if body.top_k == nil then body.top_k = 20 end
    if body.min_p == nil then body.min_p = 0 end
    if body.max_tokens == nil then body.max_tokens = 8192 end
    if body.seed == nil then body.seed = 7 end
    if body.presence_penalty == nil then body.presence_penalty = 1.5 end
    if body.stop == nil then body.stop = { "</end>", "a\"b" } end
    if body.logit_bias == nil then body.logit_bias = { ["15"] = -100 } end
    body.chat_template_kwargs = body.chat_template_kwargs or {}
    body.chat_template_kwargs.enable_thinking = false
    body.guided_json = { type = "object", required = json.array(), nothing = json.null }
    body["end"] = true
    body.priority = 1
    body.cache_salt = env "SALT" or body.cache_salt
  end,
}

-- For each name the parameters for each of its upstreams.
local rules = {
  ["claude-sonnet"] = { parameters = { spark = parameters[1] } },
}

-- The rule for a name. The mark for a large window does not belong to it.
local function rule_of(name)
  return rules[name] or rules[name:gsub("%[1m%]$", "")] or {}
end

return {
  api = 1,

  upstreams = {
    spark = { url = "http://spark:8000/v1", flavour = "vllm" },
  },

  aliases = {
    { "claude-sonnet", upstream = "spark", model = "qwen" },
    { "claude-haiku", upstream = "spark", model = "qwen" },
  },

  on_upstream_request = function(body, req)
    local set = (rule_of(req.model).parameters or {})[req.upstream]
    if set then
      set(body)
    end
  end,
}
