-- Tool calls need precision: while tools are offered, the temperature is at most 0.3.
-- A lower temperature that the client asks for is kept.
return {
  api = 1,
  on_upstream_request = function(body, req)
    if req.has_tools then
      body.temperature = math.min(body.temperature or 1, 0.3)
    end
  end,
}
