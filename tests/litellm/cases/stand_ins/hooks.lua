-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.
-- Left out: model_list[0] (opus): line 3, column 50: bedrock/ has an API of its own: write model: openai/NAME with api_base: its OpenAI-compatible address, if it has one.
-- Left out: model_list[1] (sonnet): line 4, column 52: azure/ has an API of its own: write model: openai/NAME with api_base: its OpenAI-compatible address, if it has one.
-- Left out: model_list[2] (haiku): line 5, column 51: vertex_ai/ has an API of its own: write model: openai/NAME with api_base: its OpenAI-compatible address, if it has one.

return {
  api = 1,

  upstreams = {
    spark = { url = "http://spark:8000/v1" },
    desk = { url = "http://desk:8000/v1" },
  },

  -- The upstreams of a list share the requests; a backup is asked while none of them can answer. Each of them
  -- gets 8 requests at a time, unless its max_in_flight says otherwise.
  aliases = {
    { "opus", upstream = "spark", backup = { { "desk", model = "small" } }, model = "big" },
    { "sonnet", upstream = "desk", model = "small" },
    { "big", upstream = "spark", backup = { { "desk", model = "small" } }, model = "big" },
    { "small", upstream = "desk", model = "small" },
  },
}
