---@meta
-- For the Lua language server: it may lie beside your hooks, sparkgap does not load it.
-- `req.body`, `body`, `ev`, `call`, `err` and `rec` are views of the JSON. They are used like tables, and type(view) is
-- "table"; only `next` and the raw functions tell the difference. json.is_array and json.is_object tell lists from objects.

---@alias Json string|number|boolean|table|lightuserdata

---@class Request
---@field model string the name that the alias table looks up; req.body.model is the client's own
---@field stream boolean
---@field max_tokens integer?
---@field path string
---@field method string
---@field headers table<string, string> names in any case; without those that carry keys
---@field client_ip string
---@field user string? the owner of the client's key
---@field session string? Claude Code's session, the same for all its requests until it is cleared
---@field agent string? the sub-agent within the session; nil for the main conversation
---@field tokens_est integer
---@field has_tools boolean
---@field has_images boolean
---@field thinking boolean
---@field upstream string? once routed
---@field ctx table plain data that all hooks of this request see
---@field body table the Messages request; in on_request only
---@field tool_names fun(): string[]

---@class Upstream
---@field url string
---@field api_key string?
---@field headers table<string, string>? further headers of every request
---@field http_proxy string? "http://10.0.0.1:3128"
---@field ca_file string? a PEM file
---@field tls_verify boolean?
---@field model string?
---@field max_tokens integer?
---@field window integer?
---@field protocol "chat"|"messages"|nil
---@field auth "key"|"client"|nil
---@field flavour "vllm"|"llama.cpp"|"sglang"|"ollama"|"lmstudio"|"openai"|"unknown"|nil
---@field thinking "off"|"on"|"auto"|nil
---@field vision boolean?
---@field system_messages "fold"|"keep"|nil
---@field preserve_thinking boolean?
---@field thinking_budget boolean?
---@field coerce_arguments boolean?
---@field rescue_tool_calls boolean?
---@field loops "off"|"warn"|"break"|nil
---@field think_tags boolean?
---@field thinking_in_text boolean?
---@field never_empty boolean?
---@field late_tools "declare"|"text"|nil
---@field user_id boolean?
---@field allow_extra string[]?
---@field image_schemes string[]?
---@field timeout integer? The longest silence in seconds before and within an answer.
---@field max_in_flight integer?
---@field drain boolean?
---@field wake string? the hardware address of its network card
---@field cluster "llm-d"|"smg"|"dynamo"|"production-stack"|nil
---@field auto_mode boolean?

---@class Alias
---@field [1] string the pattern
---@field upstream string|(string|AliasMember)[]|nil
---@field backup string|(string|AliasMember)[]|nil
---@field model string?
---@field price Price?

---@class Price
---@field input number? of a million tokens of prompts
---@field cached number? of those of them that a cache served
---@field output number? of a million tokens of answers

---@class ClientLimits
---@field max_in_flight integer?
---@field requests_per_minute integer?
---@field tokens_per_day integer?
---@field models string[]?
---@field lane 0|1|2|nil

---@class AliasMember
---@field [1] string the name of an upstream
---@field model string?

---@class NeverTo
---@field paths string[]?
---@field match (string|{ pattern: string })[]?
---@field keys string[]?
---@field header table<string, string>?

---@class ToolCall
---@field id string
---@field name string
---@field input table

---@class UpstreamError
---@field status integer
---@field type string
---@field message string
---@field upstream string

---@class Decision
---@field model string?
---@field upstream string?
---@field record boolean?
---@field reject integer?
---@field message string?
---@field respond string|table|nil

---@class ErrorDecision
---@field retry "other"|nil
---@field model string?
---@field upstream string?
---@field status integer?
---@field message string?

---@class SearchHit
---@field title string?
---@field url string
---@field snippet string?
---@field page_age string?

---@class SearchDecision
---@field query string?
---@field results SearchHit[]?
---@field error string|false|nil a code of the API, or any reason, which means "unavailable"

---@class SearchEngine
---@field searxng string the base URL of a SearXNG

---@class Hooks
---@field api integer?
---@field upstreams table<string, Upstream>?
---@field aliases Alias[]?
---@field keys table<string, ClientLimits>?
---@field never_to table<string, NeverTo>?
---@field search SearchEngine?
---@field policy "open"|"closed"|nil
---@field on_event_types string[]?
---@field on_load fun(cfg: table)?
---@field on_request (fun(req: Request): Decision?)?
---@field on_upstream_request (fun(body: table, req: Request): table?)?
---@field on_event (fun(ev: table, req: Request): table|false|nil)?
---@field on_tool_call (fun(call: ToolCall, req: Request): table?)?
---@field on_search (fun(query: string, req: Request): string|SearchDecision|nil, string?)?
---@field on_error (fun(err: UpstreamError, req: Request): ErrorDecision?)?
---@field on_log fun(rec: table, req: Request)?
---@field on_upstream_state fun(name: string, state: "well"|"full"|"out", why: string)?

---@class log
log = {}
---@param ... any
function log.info(...) end
---@param ... any
function log.warn(...) end
---@param ... any
function log.error(...) end

---@class shared
shared = {}
---@param key string
---@return Json?
function shared.get(key) end
---@param key string
---@param value Json?
---@param ttl number? seconds
function shared.set(key, value, ttl) end
---@param key string
---@param by number? 1
---@param ttl number? seconds, from the first call
---@return number
function shared.incr(key, by, ttl) end

---@class json
---@field null lightuserdata
json = {}
---@param value Json
---@return string
function json.encode(value) end
---@param text string
---@return Json
function json.decode(text) end
---@param list table?
---@return table
function json.array(list) end
---@param value any
---@return boolean true for a list: a view of an array, json.array(), a table 1..n that is not empty
function json.is_array(value) end
---@param value any
---@return boolean true for a view or a table that is not a list; {} is an object
function json.is_object(value) end

---@param name string
---@return string?
function env(name) end

---@param text string
---@return integer from 0 to 4294967295, the same for the same text on every machine
function hash(text) end

---@return number seconds since 1970
function time() end
