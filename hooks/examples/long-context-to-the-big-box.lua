-- A long conversation goes where the context window is large, whatever model it names.
local LONG_TOKENS = 100000

return {
  api = 1,
  upstreams = {
    fast = { url = "http://192.168.68.155:8888/v1", window = 131072 },
    large = { url = "http://192.168.68.156:8000/v1", window = 262144 },
  },
  aliases = { { "*", upstream = "fast" } },

  on_request = function(req)
    if req.tokens_est > LONG_TOKENS then
      return { upstream = "large" }
    end
  end,
}
