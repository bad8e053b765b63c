-- Tool calls want precision: a lower temperature while tools are offered.
-- What the client asks for still holds where it is lower.
return {
  api = 1,
  on_upstream_request = function(body, req)
    if req.has_tools then
      body.temperature = math.min(body.temperature or 1, 0.3)
    end
  end,
}
