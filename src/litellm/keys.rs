//! The keys that always get the same verdict, and the notes on features that sparkgap has no setting for yet.
//!
//! When sparkgap gets one of these features, change its row here.

use super::KeyVerdict::{self, BuiltIn, Ignored, Unsupported};

/// The note on an unknown key.
pub(super) const UNKNOWN: &str =
    "not a key that this importer knows; if it matters, do it in a hook (hooks/README.md)";

/// The note on top-level values that other parts of the file refer to by name.
pub(super) const ANCHORED: &str = "counts where *name puts it";

const UNKNOWN_PARAMETER: &str = "not known here; if the upstream is to get it, put it under extra_body";

/// The note on time limits: a short one would end every long prefill in an error.
const TIME_LIMIT: &str = "not taken over: for the same effect start sparkgap serve with --first-byte-timeout SECONDS --idle-timeout SECONDS (1800 and 300 if they are left out)";

/// The note on the time limit of an entry that is not a number. `facts` reports the others.
const WRONG_TIME_LIMIT: &str = "not a number of seconds from 1 to 86400, so it sets no limit";

/// The note on settings for further tries.
const RETRIES: &str = "sparkgap's own rule: a failed request goes to the next upstream of its name; with one upstream it is tried again there if no model has begun it; no option changes that";

const HEADERS: &str =
    "a key belongs in api_key; for others write headers = { [\"x-name\"] = \"VALUE\" } on the upstream";

const LOG_LEVEL: &str = "the log has one line per request; for more see sparkgap serve --help";

const JSON_LOGS: &str = "sparkgap serve --log-format json writes one object a line";

const RATES: &str = "no limits of an entry by the minute: max_parallel_requests bounds its requests at a time, and requests_per_minute under keys those of each client (docs/usage.md)";

const ONE_STRATEGY: &str = "one strategy: of those that share a name, the upstream that answers soonest gets the request (docs/pool.md)";

const PARALLEL: &str = "set max_in_flight on each upstream";

const TAGS: &str = "no routing by tags; on_request may choose an upstream";

const COOLDOWN: &str = "sparkgap's own rule: an upstream that shares a name or has a backup is out after a refused connection or three failures in a row, and is tried again after 1 s, then 2, 4 … 30 s";

const COSTS: &str = "not taken over: write price = { input = …, output = … } for a million tokens on the alias; sparkgap usage adds the costs up (docs/usage.md)";

const CALLBACKS: &str = "no callbacks: Prometheus reads /metrics (docs/metrics.md), on_log gets the record of each request, and code of your own becomes a hook (hooks/README.md)";

const BUDGETS: &str = "no budgets in money: keys = { NAME = { tokens_per_day = … } } limits a client, and sparkgap usage shows the costs of aliases with a price (docs/usage.md)";

const GUARDRAILS: &str =
    "no guardrails: on_request may refuse a request, and on_tool_call a call (hooks/examples/deny-list.lua)";

const PASSED: &str =
    "a field that an upstream refuses is left out of the next requests to it (docs/repairs.md)";

const CERTIFICATES: &str =
    "not taken over: name your own authority in ca_file on the upstream, or write tls_verify = false there";

const CACHE: &str = "answers are not cached; the upstream's prefix cache is what saves time";

const FALLBACK_KIND: &str =
    "fallbacks are for upstreams that fail and for prompts that are too long; answers are not judged";

const WINDOW: &str = "the window is asked of the upstream; override it with window = on the upstream";

const DATABASE: &str = "no virtual keys: sparkgap key new NAME makes a key for each person, --api-key-file lets them in, and keys = { NAME = { … } } limits each of them (docs/usage.md)";

/// Each row: a path (every index as `[]`), the verdict, the note. A row also covers the paths below it that have no
/// row.
const TABLE: &[(&str, KeyVerdict, &str)] = &[
    ("model_list[].litellm_params", Unsupported, UNKNOWN_PARAMETER),
    ("model_list[].litellm_params.timeout", Unsupported, WRONG_TIME_LIMIT),
    ("model_list[].litellm_params.stream_timeout", Unsupported, WRONG_TIME_LIMIT),
    ("model_list[].litellm_params.max_retries", Ignored, RETRIES),
    ("model_list[].litellm_params.num_retries", Ignored, RETRIES),
    ("model_list[].litellm_params.extra_headers", Unsupported, HEADERS),
    ("model_list[].litellm_params.headers", Unsupported, HEADERS),
    ("model_list[].litellm_params.rpm", Unsupported, RATES),
    ("model_list[].litellm_params.tpm", Unsupported, RATES),
    ("model_list[].litellm_params.drop_params", BuiltIn, PASSED),
    (
        "model_list[].litellm_params.additional_drop_params",
        Unsupported,
        "set body.FIELD = nil in on_upstream_request",
    ),
    ("model_list[].litellm_params.stream", BuiltIn, "the client decides; the upstream always streams"),
    ("model_list[].litellm_params.input_cost_per_token", Ignored, COSTS),
    ("model_list[].litellm_params.output_cost_per_token", Ignored, COSTS),
    ("model_list[].litellm_params.tags", Unsupported, TAGS),
    ("model_list[].litellm_params.organization", Unsupported, HEADERS),
    ("model_list[].litellm_params.ssl_verify", Unsupported, CERTIFICATES),
    ("litellm_settings.ssl_verify", Unsupported, CERTIFICATES),
    ("model_list[].litellm_params.max_budget", Unsupported, BUDGETS),
    ("model_list[].litellm_params.budget_duration", Unsupported, BUDGETS),
    ("litellm_settings.max_budget", Unsupported, BUDGETS),
    ("litellm_settings.budget_duration", Unsupported, BUDGETS),
    ("litellm_settings.max_user_budget", Unsupported, BUDGETS),
    ("litellm_settings.max_end_user_budget", Unsupported, BUDGETS),
    ("litellm_settings.max_internal_user_budget", Unsupported, BUDGETS),
    ("litellm_settings.default_internal_user_params", Unsupported, DATABASE),
    ("litellm_settings.default_team_settings", Unsupported, DATABASE),
    ("litellm_settings.default_key_generate_params", Unsupported, DATABASE),
    ("router_settings.provider_budget_config", Unsupported, BUDGETS),
    ("guardrails", Unsupported, GUARDRAILS),
    ("litellm_settings.guardrails", Unsupported, GUARDRAILS),
    ("mcp_servers", Unsupported, "clients connect to MCP servers themselves"),
    ("litellm_settings.cache_responses", Ignored, CACHE),
    ("router_settings.cache_responses", Ignored, CACHE),
    ("router_settings.redis_url", Ignored, "one process needs no Redis"),
    ("router_settings.model_group_retry_policy", Ignored, RETRIES),
    ("router_settings.max_retries", Ignored, RETRIES),
    ("litellm_settings.max_retries", Ignored, RETRIES),
    ("litellm_settings.retry_policy", Ignored, RETRIES),
    ("litellm_settings.cooldown_time", Ignored, COOLDOWN),
    ("litellm_settings.timeout", Unsupported, TIME_LIMIT),
    ("litellm_settings.stream_timeout", Unsupported, TIME_LIMIT),
    ("model_list[].litellm_params.cooldown_time", Ignored, COOLDOWN),
    ("model_list[].litellm_params.allowed_fails", Ignored, COOLDOWN),
    ("general_settings.database_type", Unsupported, DATABASE),
    ("general_settings.database_connection_pool_limit", Unsupported, DATABASE),
    ("general_settings.database_connection_timeout", Unsupported, DATABASE),
    ("general_settings.allow_requests_on_db_unavailable", Ignored, DATABASE),
    ("general_settings.store_prompts_in_spend_logs", Unsupported, CALLBACKS),
    (
        "general_settings.custom_auth",
        Unsupported,
        "keys are in the file of --api-key-file; on_request may refuse a request by its headers",
    ),
    ("general_settings.ui_access_mode", Unsupported, DATABASE),
    ("general_settings.proxy_batch_write_at", Ignored, DATABASE),
    ("general_settings.disable_error_logs", BuiltIn, "errors are in the log only"),
    (
        "general_settings.completion_model",
        Unsupported,
        "a name goes where the file says; for one upstream for all names, add an entry called *",
    ),
    (
        "model_list[].litellm_params.merge_reasoning_content_in_choices",
        Ignored,
        "reasoning goes to the client as thinking blocks",
    ),
    ("model_list[].litellm_params.n", Ignored, "a message has one answer"),
    ("model_list[].model_info", Ignored, "not read: models and windows are asked of the upstream"),
    ("model_list[].model_info.max_tokens", Ignored, WINDOW),
    ("model_list[].model_info.max_input_tokens", Ignored, WINDOW),
    ("model_list[].model_info.max_output_tokens", Ignored, "for a cap set max_tokens on the upstream"),
    ("model_list[].model_info.input_cost_per_token", Ignored, COSTS),
    ("model_list[].model_info.output_cost_per_token", Ignored, COSTS),
    (
        "model_list[].model_info.supports_vision",
        Ignored,
        "images are sent until the upstream refuses them; vision = false on the upstream leaves them out at once",
    ),
    ("model_list[].model_info.mode", Ignored, "empty: a chat model, like every entry without a mode"),
    ("model_list[].model_info.id", Ignored, "entries have no ids"),
    ("litellm_settings.drop_params", BuiltIn, PASSED),
    ("litellm_settings.modify_params", BuiltIn, "histories are repaired where an upstream needs it"),
    ("litellm_settings.request_timeout", Unsupported, TIME_LIMIT),
    ("litellm_settings.num_retries", Ignored, RETRIES),
    ("litellm_settings.num_retries_per_request", Ignored, RETRIES),
    ("litellm_settings.set_verbose", Ignored, LOG_LEVEL),
    ("litellm_settings.json_logs", Unsupported, JSON_LOGS),
    ("litellm_settings.telemetry", BuiltIn, "sparkgap sends none"),
    ("litellm_settings.allowed_fails", Ignored, COOLDOWN),
    ("litellm_settings.content_policy_fallbacks", Unsupported, FALLBACK_KIND),
    ("litellm_settings.callbacks", Unsupported, CALLBACKS),
    ("litellm_settings.success_callback", Unsupported, CALLBACKS),
    ("litellm_settings.failure_callback", Unsupported, CALLBACKS),
    ("litellm_settings.service_callbacks", Unsupported, CALLBACKS),
    ("litellm_settings.turn_off_message_logging", BuiltIn, "messages are logged at level trace only"),
    ("litellm_settings.redact_user_api_key_info", BuiltIn, "keys are never logged"),
    ("litellm_settings.cache", Ignored, CACHE),
    ("litellm_settings.cache_params", Ignored, CACHE),
    (
        "litellm_settings.use_chat_completions_url_for_anthropic_messages",
        BuiltIn,
        "chat completions are what is spoken",
    ),
    ("router_settings.num_retries", Ignored, RETRIES),
    ("router_settings.retry_policy", Ignored, RETRIES),
    ("router_settings.retry_after", Ignored, RETRIES),
    ("router_settings.timeout", Unsupported, TIME_LIMIT),
    ("router_settings.stream_timeout", Unsupported, TIME_LIMIT),
    ("router_settings.routing_strategy", Ignored, ONE_STRATEGY),
    ("router_settings.routing_strategy_args", Ignored, ONE_STRATEGY),
    ("router_settings.enable_tag_filtering", Unsupported, TAGS),
    ("router_settings.allowed_fails", Ignored, COOLDOWN),
    ("router_settings.allowed_fails_policy", Ignored, COOLDOWN),
    ("router_settings.cooldown_time", Ignored, COOLDOWN),
    ("router_settings.disable_cooldowns", Ignored, COOLDOWN),
    ("router_settings.default_max_parallel_requests", Unsupported, PARALLEL),
    ("router_settings.enable_pre_call_checks", Ignored, "the window is checked by the upstream's own error"),
    ("router_settings.content_policy_fallbacks", Unsupported, FALLBACK_KIND),
    ("router_settings.redis_host", Ignored, "one process needs no Redis"),
    ("router_settings.redis_port", Ignored, "one process needs no Redis"),
    ("router_settings.redis_password", Ignored, "one process needs no Redis"),
    ("router_settings.set_verbose", Ignored, LOG_LEVEL),
    ("general_settings.database_url", Unsupported, DATABASE),
    ("general_settings.store_model_in_db", Unsupported, DATABASE),
    ("general_settings.disable_spend_logs", Ignored, "without a state folder (--state) nothing is kept"),
    ("general_settings.max_parallel_requests", Unsupported, PARALLEL),
    ("general_settings.global_max_parallel_requests", Unsupported, PARALLEL),
    ("general_settings.health_check_interval", Unsupported, "sparkgap doctor asks the upstreams"),
    ("general_settings.background_health_checks", Unsupported, "sparkgap doctor asks the upstreams"),
    ("general_settings.alerting", Unsupported, CALLBACKS),
    ("general_settings.alerting_threshold", Unsupported, CALLBACKS),
    ("callback_settings", Unsupported, CALLBACKS),
];

/// The verdict on a path, in which every index is written `[]`; `None` if the table has no row for it.
pub(super) fn find(path: &str) -> Option<(KeyVerdict, &'static str)> {
    TABLE.iter().find(|(key, _, _)| *key == path).map(|(_, verdict, note)| (*verdict, *note))
}

/// Default parameters that LiteLLM sends if the client sends none, as the chat completions API of one of the supported
/// upstreams names them.
pub(super) const PARAMETERS: [&str; 27] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "max_completion_tokens",
    "min_tokens",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "repeat_penalty",
    "length_penalty",
    "logit_bias",
    "typical_p",
    "tfs_z",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "num_ctx",
    "keep_alive",
    "parallel_tool_calls",
    "tool_choice",
    "reasoning_effort",
    "service_tier",
    "user",
];

/// Parameters that only Ollama's own API has. LiteLLM asks by that API; Ollama's chat completions ignore them
/// (`ChatCompletionRequest` in its `openai/openai.go`).
pub(super) const OF_OLLAMA_ALONE: [&str; 12] = [
    "num_ctx",
    "keep_alive",
    "num_gpu",
    "num_thread",
    "num_predict",
    "top_k",
    "min_p",
    "repeat_penalty",
    "repeat_last_n",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
];

/// The note on these.
pub(super) const OLLAMA: &str = "has no effect in Ollama's chat completions: put it into a Modelfile (PARAMETER num_ctx 65536), or set OLLAMA_CONTEXT_LENGTH and OLLAMA_KEEP_ALIVE where Ollama runs";
