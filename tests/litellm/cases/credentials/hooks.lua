-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.
-- Left out: model_list[5] (not-there): line 14, column 30: its litellm_credential_name is "gone", which credential_list does not have: add it there, or add api_base: http://HOST:PORT/v1.

return {
  api = 1,

  upstreams = {
    ["127.0.0.1:24417"] = { url = "http://127.0.0.1:24417/v1" },
    ["127.0.0.1:24417-2"] = { url = "http://127.0.0.1:24417/v1", api_key = env "KEY_127_0_0_1_24417_2" }, -- the key was in the YAML: put it into this variable
    ["lab-2"] = { url = "http://lab-2:8000/v1", api_key = env "LAB_2_KEY", flavour = "vllm" }, -- the key was in the YAML: put it into this variable
    lab = { url = env "LAB", api_key = env "LAB_2_KEY", flavour = "vllm" }, -- the key was in the YAML: put it into this variable
    ["lab-3"] = { url = "http://lab-3:8000/v1" },
  },

  aliases = {
    { "all-from-it", upstream = "127.0.0.1:24417", model = "local-model" },
    { "own-key", upstream = "127.0.0.1:24417-2", model = "m" },
    { "own-address", upstream = "lab-2", model = "openai/m" },
    { "provider", upstream = "lab", model = "qwen" },
    { "not-there-but-not-needed", upstream = "lab-3", model = "m" },
  },
}
