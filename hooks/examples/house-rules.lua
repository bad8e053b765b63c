-- House rules at the end of the system prompt, once. At its end, so that the prefix before them stays in the
-- upstream's cache; and always the same text, for the same reason: no date, no counter.
local RULES = "House rules: answer in British English. Never push to main."

return {
  api = 1,
  on_request = function(req)
    local system = req.body.system
    if system == nil then
      req.body.system = RULES
    elseif type(system) == "string" then
      if not system:find(RULES, 1, true) then
        req.body.system = system .. "\n\n" .. RULES
      end
    else
      for _, block in ipairs(system) do
        if block.text == RULES then
          return
        end
      end
      table.insert(system, { type = "text", text = RULES })
    end
  end,
}
