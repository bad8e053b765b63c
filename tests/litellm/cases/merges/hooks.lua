-- Made from a LiteLLM configuration by `sparkgap import`; its report says what became of each key.
-- It is yours now: change it as you like. `sparkgap check` tells what it means.

-- What serves each model name, and which names follow it when all of that fails.
local groups = {
  ["a"] = {
    { upstream = "spark", model = "a", tweak = function(body)
      if body.temperature == nil then body.temperature = 0.7 end
    end },
  },
  ["b"] = {
    { upstream = "spark", model = "b", tweak = function(body)
      if body.temperature == nil then body.temperature = 1 end
    end },
  },
}

-- The group of the name that the client asked for.
local function group_of(req)
  return groups[req.model]
end

-- The entry that serves a request.
local function current(req)
  return (group_of(req) or {})[1]
end

return {
  api = 1,

  upstreams = {
    spark = { url = "http://spark:8000/v1" },
  },

  aliases = {
    { "a", upstream = "spark", model = "a" },
    { "b", upstream = "spark", model = "b" },
  },

  on_upstream_request = function(body, req)
    local entry = current(req)
    if entry and entry.tweak then
      entry.tweak(body)
    end
  end,
}
