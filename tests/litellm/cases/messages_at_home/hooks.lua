-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.
-- Left out: model_list[2] (cloud): anthropic/ is not an OpenAI-compatible server; point that client's ANTHROPIC_BASE_URL at Anthropic itself, or use a local model.
-- Left out: model_list[3] (unknown): anthropic/ is not an OpenAI-compatible server; point that client's ANTHROPIC_BASE_URL at Anthropic itself, or use a local model.

return {
  api = 1,

  upstreams = {
    ["127.0.0.1:24414"] = { url = "http://127.0.0.1:24414/v1", api_key = env "KEY_127_0_0_1_24414" }, -- the key was in the YAML: put it into this variable
    ["spark.lan"] = { url = "http://spark.lan:8000/v1" },
  },

  aliases = {
    { "whole", upstream = "spark.lan", model = "local" },
    { "*", upstream = "127.0.0.1:24414", model = "local" },
  },
}
