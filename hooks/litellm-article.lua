-- This LiteLLM configuration, rewritten for sparkgap:
--
--   model_list:
--     - model_name: claude-sonnet-4-20250514
--       litellm_params: { model: openai/Intel/Qwen3.6-35B-A3B-int4-AutoRound, api_base: http://192.168.68.155:8888/v1, api_key: none }
--     - model_name: claude-3-5-sonnet-20241022
--       litellm_params: { model: openai/Intel/Qwen3.6-35B-A3B-int4-AutoRound, api_base: http://192.168.68.155:8888/v1, api_key: none }
--     - model_name: claude-3-opus-20240229
--       litellm_params: { model: openai/Intel/Qwen3.5-27B-int4-AutoRound, api_base: http://192.168.68.155:8888/v1, api_key: none }
--   litellm_settings: { drop_params: true, set_verbose: false }
--
-- drop_params is what sparkgap always does: a field that the upstream does not take is not sent.
-- set_verbose is the log level: sparkgap serve --log-level debug.

-- Both models behind one address, as in the article. Give each its own here if they have one.
local moe_url = "http://192.168.68.155:8888/v1"
local dense_url = moe_url

return {
  api = 1,
  upstreams = {
    moe = { url = moe_url, api_key = "none", model = "Intel/Qwen3.6-35B-A3B-int4-AutoRound" },
    dense = { url = dense_url, api_key = "none", model = "Intel/Qwen3.5-27B-int4-AutoRound" },
  },
  aliases = {
    { "claude-sonnet-4-20250514", upstream = "moe", model = "Intel/Qwen3.6-35B-A3B-int4-AutoRound" },
    { "claude-3-5-sonnet-20241022", upstream = "moe", model = "Intel/Qwen3.6-35B-A3B-int4-AutoRound" },
    { "claude-3-opus-20240229", upstream = "dense", model = "Intel/Qwen3.5-27B-int4-AutoRound" },
    -- Any other name, such as the small model of Claude Code's helper calls, goes to the fast one.
    { "*", upstream = "moe" },
  },
}
