-- Refuses some clients and some models. policy = "closed": if this hook ever fails, the request is refused as well,
-- because a rule must also hold when its code breaks.
local CLIENTS = { ["192.168.68.99"] = true }
local MODELS = { "^gpt%-", "opus" }

return {
  api = 1,
  policy = "closed",
  on_request = function(req)
    if CLIENTS[req.client_ip] then
      return { reject = 403, message = "this machine may not use the box" }
    end
    for _, pattern in ipairs(MODELS) do
      if req.model:find(pattern) then
        return { reject = 404, message = "model: " .. req.model .. " is not served here" }
      end
    end
  end,
}
