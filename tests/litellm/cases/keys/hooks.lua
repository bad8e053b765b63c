-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

return {
  api = 1,

  upstreams = {
    ["10.0.0.5:8000"] = { url = "http://10.0.0.5:8000/v1", api_key = env "KEY_10_0_0_5_8000" }, -- the key was in the YAML: put it into this variable
    ["10.0.0.5:8000-2"] = { url = "http://10.0.0.5:8000/v1", api_key = env "OTHER_KEY" },
    ["10.0.0.6:8000"] = { url = "http://10.0.0.6:8000/v1", api_key = env "KEY_10_0_0_5_8000" }, -- the key was in the YAML: put it into this variable
    ["box.lan"] = { url = "http://box.lan:8000/v1", api_key = env "BOX_LAN_KEY" }, -- the key was in the YAML: put it into this variable
    ["10.0.0.5:8000-3"] = { url = "http://10.0.0.5:8000/v1" },
  },

  aliases = {
    { "a", upstream = "10.0.0.5:8000", model = "m" },
    { "b", upstream = "10.0.0.5:8000-2", model = "m" },
    { "c", upstream = "10.0.0.6:8000", model = "m" },
    { "d", upstream = "box.lan", model = "m" },
    { "e", upstream = "10.0.0.5:8000-3", model = "m" },
  },
}
