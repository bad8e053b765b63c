-- Small windows: behind its first 20 messages a conversation keeps the tools that it has used in them, and the basic ones.
-- Only these messages are read, so the tools change once. That turn reads the whole prompt anew; each later turn has
-- room for some thousand tokens more, as does the conversation before it must be compacted.
local BASIC = { Bash = true, Read = true, Edit = true, Write = true, Grep = true, Glob = true, TodoWrite = true }
local READ = 20

return {
  api = 1,
  on_request = function(req)
    local body = req.body
    if not body.tools or not body.messages or #body.messages <= READ then
      return
    end
    local used = {}
    if body.tool_choice and body.tool_choice.name then
      used[body.tool_choice.name] = true
    end
    for i = 1, READ do
      local content = body.messages[i].content
      for _, block in ipairs(type(content) ~= "string" and content or {}) do
        if block.type == "tool_use" then
          used[block.name] = true
        end
      end
    end
    for i = #body.tools, 1, -1 do
      local name = body.tools[i].name
      if not BASIC[name] and not used[name] then
        table.remove(body.tools, i)
      end
    end
  end,
}
