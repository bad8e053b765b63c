-- One box, one model, two names for it: "quick" answers without thinking.
-- Two upstreams may share an address; each has settings of its own.
local url = "http://192.168.68.155:8888/v1"

return {
  api = 1,
  upstreams = {
    spark = { url = url },
    quick = { url = url, thinking = "off" },
  },
  aliases = {
    { "claude-*haiku*", upstream = "quick" },
    { "quick", upstream = "quick" },
    { "*", upstream = "spark" },
  },
}
