-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

return {
  api = 1,

  upstreams = {
    ["127.0.0.1:24414"] = { url = "http://127.0.0.1:24414", api_key = env "KEY_127_0_0_1_24414", protocol = "messages" }, -- the key was in the YAML: put it into this variable
    ["spark.lan"] = { url = "http://spark.lan:8000", protocol = "messages" },
    ["api.anthropic.com"] = { url = "https://api.anthropic.com", protocol = "messages" },
    not_set = { url = env "NOT_SET", protocol = "messages" },
  },

  aliases = {
    { "whole", upstream = "spark.lan", model = "local" },
    { "cloud", upstream = "api.anthropic.com", model = "claude" },
    { "unknown", upstream = "not_set", model = "claude" },
    { "*", upstream = "127.0.0.1:24414", model = "local" },
  },
}
