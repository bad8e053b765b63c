//! The Lua code of the hooks: pieces of text that are combined as needed.

use super::needs::Needs;

const GROUP_OF_NAME: &str = r"-- The group of the name that the client asked for.
local function group_of(req)
  return groups[req.model]
end

";

const GROUP_OF_PATTERN: &str = r"-- The group of the name that the client asked for, and what each * stands for in it.
local function group_of(req)
  if groups[req.model] then
    return groups[req.model], {}
  end
  for _, pattern in ipairs(patterns) do
    local parts = { req.model:match(pattern[1]) }
    if parts[1] then
      return pattern[2], parts
    end
  end
end

";

const MODEL_OF: &str = r#"-- The model that an entry asks for: the parts go into its * in order. More parts than *: the client's name as it is.
local function model_of(entry, req)
  local _, parts = group_of(req)
  local _, stars = entry.model:gsub("%*", "")
  if stars == 0 or not parts then
    return entry.model
  elseif #parts > stars then
    return req.model
  end
  local i = 0
  return (entry.model:gsub("%*", function()
    i = i + 1
    return parts[i]
  end))
end

"#;

const DRAWN: &str = r#"-- The entries of a group with the one in front that this client's session draws by weight. LiteLLM draws one for each
-- request; here a conversation keeps its upstream, whose prefix cache knows it already.
local function drawn(group, req)
  local total, first = 0, 1
  for _, entry in ipairs(group) do
    total = total + (entry.weight or 1)
  end
  local point = hash(req.session or req.client_ip or "") / 0x100000000 * total
  for i, entry in ipairs(group) do
    point = point - (entry.weight or 1)
    if point < 0 then
      first = i
      break
    end
  end
  local order = { group[first] }
  for i, entry in ipairs(group) do
    if i ~= first then
      order[#order + 1] = entry
    end
  end
  return order
end

"#;

const ORDER_DRAWN: &str = r"-- The entries to try, in order.
local function order_of(req)
  local group = group_of(req)
  return group and drawn(group, req) or {}
end

";

/// A template: code replaces `LISTS` and `ENTRIES`.
const ORDER_FALLBACKS: &str = r"-- The entries to try, in order: those of the group, then those of its fallbacks.
local function order_of(req)
  local order, group = {}, group_of(req)
  local function add(more)
    for _, entry in ipairs(ENTRIES) do
      order[#order + 1] = entry
    end
  end
  if group then
    LISTS
  end
  return order
end

";

const LIST_GENERAL: &str = r"add(group)
    for _, name in ipairs(group.fallbacks or {}) do
      add(groups[name])
    end";

const LIST_OVERFLOW: &str = r"local names = group.fallbacks
    if req.ctx.too_long then
      names = group.context_window_fallbacks
    else
      add(group)
    end
    for _, name in ipairs(names or {}) do
      add(groups[name])
    end";

const CURRENT: &str = r"-- The entry that is being tried.
local function current(req)
  return order_of(req)[req.ctx.attempt or 1]
end

";

const ONLY: &str = r"-- The entry that serves a request.
local function current(req)
  return (group_of(req) or {})[1]
end

";

const ON_REQUEST: &str = r"
  on_request = function(req)
    local entry = current(req)
    if entry then
      return { upstream = entry.upstream, model = MODEL }
    end
  end,
";

/// A template: code replaces `BODY`.
const ON_UPSTREAM_REQUEST: &str = r"
  on_upstream_request = function(body, req)
    local entry = current(req)
BODY  end,
";

const SET_MODEL: &str = r"    if entry then
      body.model = MODEL
    end
";

const SET_TWEAKS: &str = r"    if entry and entry.tweak then
      entry.tweak(body)
    end
";

const SET_BOTH: &str = r"    if entry then
      body.model = MODEL
      if entry.tweak then
        entry.tweak(body)
      end
    end
";

/// A template: code replaces `WRONG`.
const ON_ERROR: &str = r"
  -- The next entry is tried, unless the request is wrong in itself.
  on_error = function(err, req)
    local attempt = (req.ctx.attempt or 1) + 1
WRONG
    local entry = order_of(req)[attempt]
    if entry then
      req.ctx.attempt = attempt
      return { upstream = entry.upstream }
    end
  end,
";

const WRONG_PLAIN: &str = r#"    local too_long = err.message:find("prompt is too long", 1, true)
    if (err.status == 400 or err.status == 413) and not too_long then
      return
    end"#;

const WRONG_OVERFLOW: &str = r#"    if err.message:find("prompt is too long", 1, true) then
      local group = group_of(req)
      if group and group.context_window_fallbacks and not req.ctx.too_long then
        req.ctx.too_long, attempt = true, 1
      end
    elseif err.status == 400 or err.status == 413 then
      return
    end"#;

/// The functions that the hooks call.
pub(super) fn functions(needs: Needs) -> String {
    let mut out = String::from(if needs.patterns { GROUP_OF_PATTERN } else { GROUP_OF_NAME });
    if needs.fill {
        out.push_str(MODEL_OF);
    }
    if needs.balance {
        out.push_str(DRAWN);
    }
    if needs.fallbacks || needs.overflow {
        let entries = if needs.balance { "drawn(more, req)" } else { "more" };
        let lists = if needs.overflow { LIST_OVERFLOW } else { LIST_GENERAL };
        out.push_str(&ORDER_FALLBACKS.replace("ENTRIES", entries).replace("LISTS", lists));
    } else if needs.balance {
        out.push_str(ORDER_DRAWN);
    }
    out.push_str(if needs.fails_over() { CURRENT } else { ONLY });
    out
}

/// The hooks in the table that the file returns.
pub(super) fn hooks(needs: Needs) -> String {
    let mut out = String::new();
    let model = if needs.fill { "model_of(entry, req)" } else { "entry.model" };
    if needs.balance || needs.fill {
        out.push_str(&ON_REQUEST.replace("MODEL", model));
    }
    let body = match (needs.fails_over(), needs.tweaks) {
        (true, true) => SET_BOTH,
        (true, false) => SET_MODEL,
        (false, true) => SET_TWEAKS,
        (false, false) => "",
    };
    if !body.is_empty() {
        out.push_str(&ON_UPSTREAM_REQUEST.replace("BODY", body).replace("MODEL", model));
    }
    if needs.fails_over() {
        let wrong = if needs.overflow { WRONG_OVERFLOW } else { WRONG_PLAIN };
        out.push_str(&ON_ERROR.replace("WRONG", wrong));
    }
    out
}

impl Needs {
    fn fails_over(self) -> bool {
        self.balance || self.fallbacks || self.overflow
    }
}
