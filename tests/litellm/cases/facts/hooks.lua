-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

return {
  api = 1,

  upstreams = {
    spark = { url = "http://spark:8000/v1", window = 131072, timeout = 900 },
    ["host.docker.internal"] = { url = "http://host.docker.internal:8001/v1" },
    whisper = { url = "http://whisper:8001/v1" },
  },

  aliases = {
    { "one", upstream = "spark", model = "one" },
    { "two", upstream = "spark", model = "two" },
    { "embed", upstream = "host.docker.internal", model = "bge-m3" },
    { "rank", upstream = "host.docker.internal", model = "reranker" },
    { "hear", upstream = "whisper", model = "whisper" },
    { "draw", upstream = "whisper", model = "flux" },
  },
}
