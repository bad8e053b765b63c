-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

return {
  api = 1,

  upstreams = {
    spark = { url = "http://spark:8001/v1" },
  },

  aliases = {
    { "a", upstream = "spark", model = "a" },
  },
}
