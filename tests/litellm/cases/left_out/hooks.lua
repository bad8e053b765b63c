-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.
-- Left out: model_list[0] (claude-opus-4): anthropic/ is not an OpenAI-compatible server; point that client's ANTHROPIC_BASE_URL at Anthropic itself, or use a local model.
-- Left out: model_list[1] (azure): azure/ has an API of its own: write model: openai/NAME with api_base: its OpenAI-compatible address, if it has one.
-- Left out: model_list[2] (no-address): hosted_vllm/ without an api_base: add api_base: http://HOST:PORT/v1.
-- Left out: model_list[3] (hidden): line 13, column 30: the model's name comes from the environment variable MODEL, which is not set; set it, or write the name here.

return {
  api = 1,

  upstreams = {
    ["box:1"] = { url = "http://box:1/v1" },
    ["box:8000"] = { url = "http://box:8000/v1" },
  },

  aliases = {
    { "claude-opus-4", upstream = "box:8000", model = "x" },
    { "two words", upstream = "box:1", model = "x" },
    { "local", upstream = "box:8000", model = "x" },
  },
}
