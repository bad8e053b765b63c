-- The Providers and the Router of a claude-code-router config.json; `sparkgap import config.json` fills them in.
local upstreams = {
  spark = { url = "http://192.168.68.155:8888/v1" },
  small = { url = "http://192.168.68.156:8000/v1" },
}
local router = {
  default = { "spark", "qwen3-coder" },
  background = { "small", "qwen3:8b" },
  think = { "spark", "qwen3-thinking" },
  longContext = { "spark", "qwen3-1m" }, longContextThreshold = 60000,
  image = { "small", "qwen3-vl" },
}
-- The rules, in the order of claude-code-router. A text such as "spark,qwen3-coder" names a provider and its model.
local function named(text)
  local provider, model = (text or ""):match("^%s*([^,/]+)[,/]%s*(.-)%s*$")
  for name in pairs(provider and upstreams or {}) do
    if name:lower() == provider:lower() then return { name, model } end
  end
end
local TAG = "<CCR%-SUBAGENT%-MODEL>(.-)</CCR%-SUBAGENT%-MODEL>"
local function find(list, matches) -- in a list of blocks or tools; a plain text has none
  for _, item in ipairs(json.is_array(list) and list or {}) do
    if matches(item) then return item end
  end
end
local function is_image(block) return block.type == "image" or block.type == "tool_result" and find(block.content, is_image) end
local function is_tagged(block) return (block.text or ""):find(TAG) end
local function is_search(tool) return (tool.type or ""):find("^web_search") end
local function on_request(req)
  local body, name = req.body, req.model
  local block = find(body.system, is_tagged) or find(body.messages[1].content, is_tagged)
  local tag = block and block.text:match(TAG)
  if block then block.text = block.text:gsub(TAG, "", 1) end
  local to = find(body.messages[#body.messages].content, is_image) and router.image or named(name)
    or req.tokens_est > (router.longContextThreshold or 60000) and router.longContext or named(tag)
    or name:find("claude.*haiku") and router.background or find(body.tools, is_search) and router.webSearch
    or body.thinking and body.thinking.type ~= "disabled" and router.think or router.default
  return { upstream = to[1], model = to[2] }
end
return { api = 1, upstreams = upstreams, aliases = { { "*", upstream = router.default[1], model = router.default[2] } }, on_request = on_request }
