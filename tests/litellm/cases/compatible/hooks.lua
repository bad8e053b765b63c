-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.
-- Left out: model_list[9] (cloudy): line 12, column 53: azure/ has an API of its own: write model: openai/NAME with api_base: its OpenAI-compatible address, if it has one.
-- Left out: model_list[11] (library): line 14, column 53: vllm/ has an API of its own: write model: openai/NAME with api_base: http://HOST:8000/v1 of vllm serve.

return {
  api = 1,

  upstreams = {
    ["localhost:12434"] = { url = "http://localhost:12434/engines/llama.cpp/v1" },
    ["localhost:8000"] = { url = "http://localhost:8000/api/v1" },
    ["box:1"] = { url = "http://box:1/v1" },
    ["api.groq.com"] = { url = "https://api.groq.com/openai/v1", api_key = env "GROQ_API_KEY" },
    ["openrouter.ai"] = { url = "https://openrouter.ai/api/v1", api_key = env "OPENROUTER_API_KEY" },
    ["box:2"] = { url = "http://box:2/v1", api_key = env "NVIDIA_NIM_API_KEY" },
    together_ai_api_base = { url = env "TOGETHER_AI_API_BASE", api_key = env "TOGETHERAI_API_KEY" },
    ["generativelanguage.googleapis.com"] = { url = "https://generativelanguage.googleapis.com/v1beta/openai", api_key = env "GEMINI_API_KEY" },
  },

  aliases = {
    { "docker", upstream = "localhost:12434", model = "ai/qwen3" },
    { "lemonade", upstream = "localhost:8000", model = "Qwen3-Coder" },
    { "kimi", upstream = "box:1", model = "kimi-k2" },
    { "xinference", upstream = "box:1", model = "qwen3" },
    { "groq", upstream = "api.groq.com", model = "llama-3.3-70b-versatile" },
    { "router", upstream = "openrouter.ai", model = "qwen/qwen3-coder" },
    { "deepseek", upstream = "box:1", model = "deepseek-chat" },
    { "nim", upstream = "box:2", model = "meta/llama" },
    { "moved", upstream = "together_ai_api_base", model = "m" },
    { "gemini", upstream = "generativelanguage.googleapis.com", model = "gemini-2.5-pro" },
  },
}
