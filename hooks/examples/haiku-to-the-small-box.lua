-- Claude Code's helper calls (titles, summaries, file searches) name a haiku model: the small box is enough.
return {
  api = 1,
  upstreams = {
    big = { url = "http://192.168.68.155:8888/v1" },
    small = { url = "http://192.168.68.156:8000/v1", max_tokens = 8192, thinking = "off" },
  },
  aliases = {
    { "claude-*haiku*", upstream = "small" },
    { "*", upstream = "big" },
  },
}
