-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

return {
  api = 1,

  upstreams = {
    router = { url = "http://router:4000/v1" },
    ["spark:8000"] = { url = "http://spark:8000/v1" },
    ["spark:8001"] = { url = "http://spark:8001/v1" },
    ["spark:8000-2"] = { url = "http://spark:8000/v1" }, -- spark:8000 again, for another of its models
  },

  -- The upstreams of a list share the requests; a backup is asked while none of them can answer. Each of them
  -- gets 8 requests at a time, unless its max_in_flight says otherwise.
  aliases = {
    { "sonnet", upstream = "spark:8000", backup = { { "spark:8000-2", model = "big" } }, model = "qwen" },
    { "best", upstream = "spark:8000", model = "big" },
    { "other.name", upstream = "router", model = "something-else" },
    { "a b", upstream = "spark:8000", model = "big" },
    { "gpt-4o", upstream = "spark:8000", model = "big" },
    { "claude-sonnet-4", upstream = "spark:8000", backup = { { "spark:8000-2", model = "big" } }, model = "qwen" },
    { "claude-*-haiku-*", upstream = "spark:8001", model = "small" },
    { "claude-*", upstream = "spark:8000", model = "qwen" },
    { "*", upstream = "router", model = "*" },
  },
}
