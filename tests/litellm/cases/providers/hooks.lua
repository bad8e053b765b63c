-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

return {
  api = 1,

  upstreams = {
    ["spark:8000"] = { url = "http://spark:8000/v1", api_key = env "SPARK_KEY", flavour = "vllm" },
    localhost = { url = "http://localhost:11434/v1", flavour = "ollama" },
    ["192.168.1.20:11434"] = { url = "http://192.168.1.20:11434/v1", flavour = "ollama" },
    ["desk.lan"] = { url = "http://desk.lan:1234/v1", flavour = "lmstudio" },
    ["api.openai.com"] = { url = "https://api.openai.com/v1", api_key = env "OPENAI_API_KEY", flavour = "openai" },
    ["spark:8001"] = { url = "http://spark:8001/v1" },
    box_url = { url = env "BOX_URL" },
  },

  aliases = {
    { "vllm", upstream = "spark:8000", model = "Qwen/Qwen3-32B" },
    { "ollama", upstream = "localhost", model = "qwen3:8b" },
    { "ollama-chat", upstream = "192.168.1.20:11434", model = "qwen3:32b" },
    { "lm-studio", upstream = "desk.lan", model = "qwen3-8b" },
    { "openai-itself", upstream = "api.openai.com", model = "gpt-4o" },
    { "bare", upstream = "api.openai.com", model = "gpt-4o-mini" },
    { "custom", upstream = "spark:8001", model = "Qwen/Qwen3-8B" },
    { "no-prefix", upstream = "spark:8001", model = "Intel/Qwen3-8B" },
    { "same-box-other-prefix", upstream = "spark:8001", model = "third" },
    { "from-the-environment", upstream = "box_url", model = "x" },
  },
}
