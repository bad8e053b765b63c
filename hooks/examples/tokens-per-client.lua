-- How many tokens each client has had in the last hour, in the log after every request.
local HOUR = 3600

return {
  api = 1,
  on_log = function(rec, req)
    local output = rec.output_tokens or 0
    local total = shared.incr("tokens " .. req.client_ip, output, HOUR)
    log.info(req.client_ip, "has had", total, "output tokens in this hour")
  end,
}
