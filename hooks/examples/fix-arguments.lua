-- A model that calls Read with "path" where the tool wants "file_path", and gives offset as text.
return {
  api = 1,
  on_tool_call = function(call)
    if call.name ~= "Read" then
      return
    end
    local input = call.input
    if input.path and not input.file_path then
      input.file_path = input.path
      input.path = nil
    end
    input.offset = math.tointeger(tonumber(input.offset)) or input.offset
  end,
}
