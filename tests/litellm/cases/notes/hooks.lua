-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

return {
  api = 1,

  upstreams = {
    spark = { url = "http://spark:8000/v1", window = 8192, timeout = 60 },
  },

  aliases = {
    { "x", upstream = "spark", model = "m" },
  },
}
