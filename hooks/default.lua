-- The hooks that sparkgap runs when it is given none: defaults, reference and tutorial in one file.
--
-- Copy it to a folder of yours, change it, and start sparkgap with --hooks FOLDER. Files run in name order, and
-- each returns one table. SIGHUP loads them again; a mistake keeps the old set and says file, line and reason.
-- `sparkgap check` tells what a set means before you use it.

return {
  -- The hook API this file was written for. Another one is refused.
  api = 1,

  -- The servers. The first --upstream on the command line is the default; without one it is the upstream of the
  -- alias "*", else the first by name.
  upstreams = {
    -- spark = {
    --   url = "http://192.168.68.155:8888/v1",  -- required
    --   api_key = env "SPARK_KEY",              -- nil or "none": no key is sent
    --   model = "Intel/Qwen3.6-35B-A3B-int4-AutoRound",  -- where an alias names none; else the server's first
    --   max_tokens = 8192,                      -- a cap on what clients ask for
    --   window = 131072,                        -- the context window, if the server does not tell
    --   flavour = "vllm",                       -- vllm, llama.cpp, sglang, ollama, lmstudio, openai; else found out
    --   thinking = "auto",                      -- "off", "on", "auto": as the client asks
    --   vision = true,                          -- false: images become a line of text
    --   system_messages = "fold",               -- "keep": leave them where they stand
    --   preserve_thinking = true,               -- keep earlier reasoning in place, for the prefix cache
    --   thinking_budget = false,                -- true: pass budget_tokens on; llama.cpp gets it in any case, but for false
    --   coerce_arguments = true,                -- repair tool arguments of the wrong type
    --   never_empty = false,                    -- true: an answer without anything gets a block of empty text
    --   max_in_flight = 8,                      -- more requests than this wait
    -- },
  },

  -- Model names. The first match wins, * matches any run of characters. No upstream: one that lists the model, else the
  -- default one. No model: the upstream's own.
  aliases = {
    -- { "claude-*haiku*", upstream = "small", model = "Intel/Qwen3.5-27B-int4-AutoRound" },
    { "*" },
  },

  -- The hooks. Each is optional, and one that is not there costs nothing. README.md tells all about them.
  --
  -- on_load = function(cfg) end,                     once per VM; error() refuses the load
  -- on_request = function(req) end,                  may return { model =, upstream = }, { reject =, message = },
  --                                                  { respond = }
  -- on_upstream_request = function(body, req) end,   body is what goes out: body.temperature = 0.7
  -- on_event = function(ev, req) end,                may change ev; false drops it
  -- on_tool_call = function(call, req) end,          may change call.name and call.input
  -- on_error = function(err, req) end,               may return { retry = "other" }, { upstream = },
  --                                                  { status =, message = }
  -- on_log = function(rec, req) end,                 after the end, always
  --
  -- policy = "closed" beside them: a hook that fails refuses the request, or ends the answer at the event where it
  -- failed. Without it the request goes on.
  -- For one hook alone: on_request = { policy = "closed", run = function(req) end }
}
