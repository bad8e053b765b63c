-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

return {
  api = 1,

  upstreams = {
    ["127.0.0.1:24403"] = { url = "http://127.0.0.1:24403/v1", api_key = env "OPENAI_API_KEY" },
    spark = { url = "http://spark:8000/v1", api_key = env "HOSTED_VLLM_API_KEY", flavour = "vllm" },
    ["10.0.0.9:8000"] = { url = "http://10.0.0.9:8000/v1", api_key = env "OPENAI_API_KEY" },
    desk_url = { url = env "DESK_URL", api_key = env "KEY_OF_THE_DESK", flavour = "lmstudio" },
    ["box.lan"] = { url = "http://box.lan:9000/v1" },
    localhost = { url = "http://localhost:11434/v1", flavour = "ollama" },
  },

  aliases = {
    { "openai", upstream = "127.0.0.1:24403", model = "local-model" },
    { "vllm", upstream = "spark", model = "qwen" },
    { "own-address", upstream = "10.0.0.9:8000", model = "m" },
    { "referred-to", upstream = "desk_url", model = "m" },
    { "by-a-name-of-its-own", upstream = "box.lan", model = "m" },
    { "ollama", upstream = "localhost", model = "qwen3" },
  },
}
