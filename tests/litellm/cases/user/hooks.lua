-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

return {
  api = 1,

  upstreams = {
    ["192.168.68.155:8888"] = { url = "http://192.168.68.155:8888/v1" },
  },

  aliases = {
    { "claude-sonnet-4-20250514", upstream = "192.168.68.155:8888", model = "Intel/Qwen3.6-35B-A3B-int4-AutoRound" },
    { "claude-3-5-sonnet-20241022", upstream = "192.168.68.155:8888", model = "Intel/Qwen3.6-35B-A3B-int4-AutoRound" },
    { "claude-3-opus-20240229", upstream = "192.168.68.155:8888", model = "Intel/Qwen3.5-27B-int4-AutoRound" },
  },
}
