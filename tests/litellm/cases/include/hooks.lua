-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.
-- Left out: model_list[2] (c): /etc/more/router.yaml: line 5, column 50: api_base: "desk:8000" does not begin with http:// or https://; expected http://HOST:PORT/v1.

return {
  api = 1,

  upstreams = {
    spark = { url = "http://spark:8000/v1" },
    desk = { url = "http://desk:8000/v1" },
  },

  -- The upstreams of a list share the requests; a backup is asked while none of them can answer. Each of them
  -- gets 8 requests at a time, unless its max_in_flight says otherwise.
  aliases = {
    { "a", upstream = "spark", backup = { { "desk", model = "b" } }, model = "a" },
    { "b", upstream = "desk", model = "b" },
  },
}
