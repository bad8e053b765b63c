-- The configuration that sparkgap uses without --hooks. This file is the defaults, the reference and a tutorial in one.
--
-- Copy it to a folder, change it, and start sparkgap with --hooks FOLDER. Files are read in name order, and each returns
-- one table. SIGHUP reloads them; if a file has a mistake, the reload fails, the previous hooks keep running, and the
-- log names file, line and reason. `sparkgap check` explains a set of files before you use it.

return {
  -- The hook API that this file was written for. Any other version is refused.
  api = 1,

  -- The servers. The default upstream is the first --upstream on the command line, otherwise the one that the alias "*"
  -- names, otherwise the first by name.
  upstreams = {
    -- spark = {
    --   url = "http://192.168.68.155:8888/v1",  -- required
    --   api_key = env "SPARK_KEY",              -- nil or "none": no key is sent
    --   headers = { ["x-team"] = "blue" },      -- further headers of every request; default: none
    --   http_proxy = "http://10.0.0.1:3128",    -- a proxy that allows CONNECT to this server; default: none
    --   ca_file = "/etc/sparkgap/ca.pem",       -- the authority of its certificate; default: that of --ca-file
    --   tls_verify = true,                      -- false: its certificate is not checked
    --   model = "Intel/Qwen3.6-35B-A3B-int4-AutoRound",  -- used if an alias names no model; default: the server's first
    --   max_tokens = 8192,                      -- a cap on what clients ask for
    --   window = 131072,                        -- the context window in tokens, if the server does not tell it
    --   protocol = "messages",                  -- it speaks the Messages API itself; default: "chat", OpenAI's
    --   auth = "client",                        -- it gets each client's own key; default: "key", api_key
    --   flavour = "vllm",                       -- vllm, llama.cpp, sglang, ollama, lmstudio, openai, unknown; default: detected
    --   thinking = "auto",                      -- "off", "on"; "auto": as the client asks
    --   vision = true,                          -- false: images are replaced by a line of text
    --   system_messages = "fold",               -- "keep": leave system messages where they stand in the conversation
    --   preserve_thinking = true,               -- keep earlier reasoning in the history, for the prefix cache
    --   thinking_in_text = false,               -- true: send earlier reasoning inside the text (Qwen3.5 on vLLM)
    --   thinking_budget = false,                -- true: pass budget_tokens on; default: to llama.cpp only
    --   think_tags = false,                     -- true: no reasoning parser, answers begin with reasoning up to </think>
    --   coerce_arguments = true,                -- give tool arguments the type that the tool's schema wants
    --   rescue_tool_calls = true,               -- take calls at the end of a text for tool calls, if the server saw none
    --   loops = "warn",                         -- a model that repeats itself: "off", "warn" or "break"
    --   never_empty = false,                    -- true: add a block of empty text to an answer without content
    --   late_tools = "declare",                 -- "text": tools that come late stand in the conversation (vLLM)
    --   user_id = false,                        -- true: pass metadata.user_id on as `user`; it may name an account
    --   allow_extra = { "priority" },           -- further members that clients may pass on; default: none
    --   image_schemes = { "https", "data" },    -- addresses of images that clients may have the server fetch
    --   timeout = 600,                          -- seconds of silence before and within an answer
    --   max_in_flight = 8,                      -- requests beyond this number wait
    --   drain = true,                           -- no new conversations: before maintenance
    --   wake = "aa:bb:cc:dd:ee:ff",             -- its network card: a request that finds it out wakes it
    --   cluster = "llm-d",                      -- smg, dynamo, production-stack: the gateway of a cluster; default: none
    --   auto_mode = false,                      -- do not offer Claude Code's auto mode; default: by window and speed
    -- },
  },

  -- Model names. The first match wins; * matches any run of characters. If `upstream` is left out, the upstream that
  -- lists the model is used, otherwise the default one. If `model` is left out, the upstream's own model is used.
  -- A list shares the requests, and a backup is asked while none of its upstreams can answer:
  -- { "claude-*opus*", upstream = { "spark1", "spark2" }, backup = "small" }
  aliases = {
    -- { "claude-*haiku*", upstream = "small", model = "Intel/Qwen3.5-27B-int4-AutoRound" },
    { "*" },
  },
  -- price = { input = 0.5, cached = 0.05, output = 2 } in an alias: money for a million tokens, for `sparkgap usage`.

  -- Limits of clients, by the owner's name in the file of keys. All are optional; a day is one of UTC.
  -- keys = {
  --   anna = {
  --     max_in_flight = 3,                         -- requests at a time
  --     requests_per_minute = 60,
  --     tokens_per_day = 5000000,                  -- of prompts and answers
  --     models = { "claude-*" },                   -- the names that it may ask for; default: all
  --     lane = 1,                                  -- 0: a person waits, 1: an agent, 2: nobody; default: by Claude Code's headers
  --   },
  -- },

  -- Requests that an upstream never gets, whatever aliases and hooks say.
  -- never_to = { cloud = { paths = { "/srv/secret" }, match = { "PRIVATE KEY" }, keys = { "intern-*" } } },

  -- The search engine for web searches: a SearXNG whose settings.yml has json in search.formats (docs/search.md).
  -- search = { searxng = "http://192.168.68.155:8080" },

  -- The hooks. All are optional; a hook that is not defined costs nothing. README.md is the manual.
  --
  -- on_load = function(cfg) end,                     once per VM; error() refuses the load
  -- on_request = function(req) end,                  may return { model =, upstream =, lane =, record = }, { reject =, message = },
  --                                                  { respond = }
  -- on_upstream_request = function(body, req) end,   body is what will be sent: body.temperature = 0.7
  -- on_event = function(ev, req) end,                may change ev; false drops it
  -- on_event_types = { "text" },                     the types of events that on_event gets; default: all types
  -- on_tool_call = function(call, req) end,          may change call.name and call.input
  -- on_search = function(query, req) end,            may return another query, { results = { { title =, url =, snippet = } } },
  --                                                  { error = "reason" }: the search is refused
  -- on_error = function(err, req) end,               may return { retry = "other" }, { model =, upstream = },
  --                                                  { status =, message = }
  -- on_log = function(rec, req) end,                 after the end of every request
  -- on_upstream_state = function(name, state, why) end,   once for each change: well, full, out
  --
  -- policy = "closed" in this table: a hook that fails refuses the request, or ends the answer at the event where it
  -- failed. Default: "open", the request goes on.
  -- For one hook alone: on_request = { policy = "closed", run = function(req) end }
}
