-- The Providers and the Router of a claude-code-router config.json; `sparkgap import config.json` fills them in.
local upstreams = {
  spark = { url = "http://192.168.68.155:8888/v1" },
  small = { url = "http://192.168.68.156:8000/v1" },
}
local router = {
  default = { "spark", "qwen3-coder" }, background = { "small", "qwen3:8b" },
  think = { "spark", "qwen3-thinking" },
  longContext = { "spark", "qwen3-1m" }, longContextThreshold = 60000,
  image = { "small", "qwen3-vl" },
}
-- The rules, in the order of claude-code-router. A text such as "spark,qwen3-coder" names a provider and its model.
local function named(text)
  local provider, model = (text or ""):match("^%s*([^,/]+)[,/]%s*(.-)%s*$")
  for name in pairs(provider and upstreams or {}) do if name:lower() == provider:lower() then return { name, model } end end
end
local TAG = "<CCR%-SUBAGENT%-MODEL>(.-)</CCR%-SUBAGENT%-MODEL>"
local function object(value) return json.is_object(value) and value or {} end -- other paths of OpenAI have no messages
local function list(value) return json.is_array(value) and value or {} end
local function has_image(content)
  for _, block in ipairs(list(content)) do
    if object(block).type == "image" or object(block).type == "tool_result" and has_image(block.content) then return true end
  end
end
local function take_tag(holder, key) -- from a plain text or a list of blocks
  local tag = type(holder[key]) == "string" and holder[key]:match(TAG)
  if tag then holder[key] = holder[key]:gsub(TAG, "", 1) end
  for _, block in ipairs(list(holder[key])) do tag = tag or take_tag(object(block), "text") end
  return tag
end
local function on_request(req)
  local body, name, messages = req.body, req.model, list(req.body.messages)
  local tag = take_tag(body, "system") or take_tag(object(messages[1]), "content")
  local to = has_image(object(messages[#messages]).content) and router.image or named(name)
    or req.tokens_est > (router.longContextThreshold or 60000) and router.longContext or named(tag)
    or name:find("claude.*haiku") and router.background
    or (object(body.thinking).type or "disabled") ~= "disabled" and router.think or router.default
  return { upstream = to[1], model = to[2] }
end
return { api = 1, upstreams = upstreams, aliases = { { "*", upstream = router.default[1], model = router.default[2] } }, on_request = on_request }
