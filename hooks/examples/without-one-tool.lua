-- The box has no way to the web: the model need not know of WebSearch.
local UNWANTED = { WebSearch = true }

return {
  api = 1,
  on_request = function(req)
    local tools = req.body.tools
    if not tools then
      return
    end
    -- From the end: removing an element moves those after it.
    for i = #tools, 1, -1 do
      if UNWANTED[tools[i].name] then
        table.remove(tools, i)
      end
    end
    if #tools == 0 then
      req.body.tools = nil
    end
  end,
}
