-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.
-- Left out: model_list[2] (no-scheme): line 8, column 50: api_base: "spark:8000" does not begin with http:// or https://; expected http://HOST:PORT/v1.
-- Left out: model_list[3] (): line 9, column 5: it has no model_name, the name that clients ask for.
-- Left out: model_list[4] (no-parameters): line 10, column 5: it has no litellm_params; model: openai/NAME and api_base: URL go there.
-- Left out: model_list[5] (no-model): line 12, column 21: its litellm_params have no model, such as openai/NAME.
-- Left out: model_list[6] (map-as-a-key): line 14, column 80: model_list[6].litellm_params.api_key must be text; write none, a key or os.environ/NAME.
-- Left out: model_list[8] (): line 17, column 5: it has no model_name, the name that clients ask for.
-- Left out: model_list[9] (): line 18, column 5: it has no model_name, the name that clients ask for.
-- Left out: model_list[10] (): line 19, column 5: it has no model_name, the name that clients ask for.
-- Left out: model_list[12] ( edge): line 23, column 30: its model_name is empty, has control characters, or a blank at an end; rename it.

return {
  api = 1,

  upstreams = {
    spark = { url = "http://spark:8000/v1" },
    desk = { url = "http://desk:8000/v1" },
  },

  -- The upstreams of a list share the requests; a backup is asked while none of them can answer. Each of them
  -- gets 8 requests at a time, unless its max_in_flight says otherwise.
  aliases = {
    { "Big One", upstream = { "spark", "desk" }, model = "a" },
    { "heavy", upstream = { "spark", "desk" }, model = "a" },
    { "list-as-a-body", upstream = "spark", model = "b" },
    { "Qwen 3 (large)", upstream = "spark", model = "a" },
  },
}
