-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.
-- Left out: model_list[7] (os.environ/UNSET_NAME): line 17, column 17: its model_name comes from the environment variable UNSET_NAME, which is not set; set it, or write the name here.

return {
  api = 1,

  upstreams = {
    ["127.0.0.1:24404"] = { url = "http://127.0.0.1:24404/v1" },
    base = { url = env "BASE" },
    openai_base_url = { url = env "OPENAI_BASE_URL", api_key = env "OPENAI_API_KEY" },
    hosted_vllm_api_base = { url = env "HOSTED_VLLM_API_BASE", api_key = env "HOSTED_VLLM_API_KEY", flavour = "vllm" },
    ["spark:8000"] = { url = "http://spark:8000/v1", api_key = env "HOSTED_VLLM_API_KEY", flavour = "vllm" },
    ["spark:8001"] = { url = "http://spark:8001/v1" },
    public = { url = env "PUBLIC" },
  },

  aliases = {
    { "haiku", upstream = "127.0.0.1:24404", model = "m" },
    { "claude-haiku-4-5", upstream = "127.0.0.1:24404", model = "m" },
    { "active", upstream = "base", model = "qwen" },
    { "both-are-set", upstream = "openai_base_url", model = "local-model" },
    { "the-box-of-a-provider", upstream = "hosted_vllm_api_base", model = "m" },
    { "a-key-of-a-provider", upstream = "spark:8000", model = "m" },
    { "the-key-of-openai", upstream = "spark:8001", model = "m" },
    { "public", upstream = "public", model = "m" },
  },
}
