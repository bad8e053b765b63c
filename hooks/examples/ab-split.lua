-- Half of the clients try the new model. By the address, so that each stays where it is: a conversation that changes
-- its upstream loses the prefix cache. The choice is in ctx for on_log.
local NEW_PERCENT = 50

return {
  api = 1,
  upstreams = {
    old = { url = "http://192.168.68.155:8888/v1" },
    new = { url = "http://192.168.68.156:8000/v1" },
  },
  aliases = { { "*", upstream = "old" } },

  on_request = function(req)
    req.ctx.group = hash(req.client_ip) % 100 < NEW_PERCENT and "new" or "old"
    return { upstream = req.ctx.group }
  end,

  on_log = function(rec, req)
    log.info("group", req.ctx.group, "took", rec.total_ms, "ms")
  end,
}
