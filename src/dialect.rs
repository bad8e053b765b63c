//! The kinds of OpenAI-compatible servers, and how they differ: one row each.
//!
//! A new kind of server is a new row here (and a name in [`ServerKind`]); no other file asks which kind a server is.
//!
//! Pure.

/// The kind of a server. Found from `owned_by` in `/v1/models`, or set by the owner (`flavour` in a Lua file).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerKind {
    /// vLLM.
    Vllm,
    /// llama.cpp's `llama-server`.
    LlamaCpp,
    /// SGLang.
    Sglang,
    /// Ollama.
    Ollama,
    /// LM Studio.
    LmStudio,
    /// An unknown kind. It is sent the fields that the five above accept or ignore.
    #[default]
    Unknown,
    /// A strict OpenAI API: only standard fields are sent.
    OpenAi,
}

/// How to ask a server for the number of tokens of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenCount {
    /// The server cannot count.
    None,
    /// `POST /tokenize` with the members that shape the prompt; the answer holds `count`. The paths are tried in order,
    /// each beside (`true`) or below (`false`) the base URL's `/v1`.
    Tokenize(&'static [(bool, &'static str)]),
    /// `POST` the chat completion to this path below the base URL; the answer holds `input_tokens`.
    InputTokens(&'static str),
}

/// The format of a page with a server's figures about its own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadFormat {
    /// `GET /metrics`: Prometheus text.
    Metrics,
    /// `GET /slots`: a list of JSON objects.
    Slots,
}

/// The values that a server accepts in `reasoning_effort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Efforts {
    /// Any effort that the client asks for.
    Any,
    /// Any effort, and `none` to switch thinking off, because the server has no other switch.
    AnyOrNone,
    /// At most `high`. The server accepts no token budget for thinking, so a budget is sent as the nearest effort.
    UpToHigh,
}

/// The advice of `doctor` for one kind of server. `{parser}` stands for the name of a parser and `{window}` for a good
/// window in tokens.
#[derive(Clone, Copy, Debug)]
pub struct Fixes {
    /// Turns on the parsing of tool calls.
    pub tool_parser: &'static str,
    /// Turns on the parsing of reasoning.
    pub reasoning_parser: &'static str,
    /// Makes the window larger.
    pub window: &'static str,
    /// Makes the server report cached tokens; `None`: it always does, or never can.
    pub cached_tokens: Option<&'static str>,
    /// Turns the prefix cache on.
    pub prefix_cache: &'static str,
}

/// Stands for the name of a parser where none is known.
pub const OWN_PARSER: &str = "NAME";

impl Fixes {
    /// The advice to start the server with this parser of tool calls; [`OWN_PARSER`]: the operator must know it.
    pub fn with_tool_parser(&self, parser: &str) -> String {
        with_parser(self.tool_parser, parser)
    }

    /// The same for a parser of reasoning.
    pub fn with_reasoning_parser(&self, parser: &str) -> String {
        with_parser(self.reasoning_parser, parser)
    }
}

fn with_parser(fix: &str, parser: &str) -> String {
    let what = match parser {
        OWN_PARSER => " with the parser of your model for NAME",
        _ if parser.ends_with("FILE") => {
            " with the file of that parser, which comes with the model, for FILE"
        }
        _ => "",
    };
    fix.replace("{parser}", &format!("{parser}{what}"))
}

/// The properties of one kind of server: its name, the fields that it accepts and refuses, and the advice for it.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// The kind that the row describes.
    pub kind: ServerKind,
    /// Its name in configuration and logs.
    pub name: &'static str,
    /// The values of `owned_by` in `/v1/models` that identify it.
    pub owners: &'static [&'static str],
    /// The beginning of its `server` header, which identifies it if `owned_by` does not.
    pub server_header: Option<&'static str>,
    /// The members that limit the answer's tokens, in the order in which they are sent.
    pub max_tokens_keys: &'static [&'static str],
    /// It accepts members beyond OpenAI's: `top_k`, `min_p`, `seed` and others.
    pub takes_extensions: bool,
    /// It accepts `chat_template_kwargs`.
    pub takes_template_arguments: bool,
    /// Its answer names the stop string that it met. If it does not, stop strings are not sent, and sparkgap looks for
    /// them.
    pub tells_stop_string: bool,
    /// It can continue an answer that the client began.
    pub takes_prefill: bool,
    /// It needs `continue_final_message` to do so; without that member it continues and repeats the beginning.
    pub wants_continue_flag: bool,
    /// The member for a token budget of thinking, if there is one, and whether it is sent unless the owner forbids it.
    /// vLLM refuses a budget if it was started without a reasoning config, so for vLLM only the owner can allow it.
    pub thinking_budget: Option<(&'static str, bool)>,
    /// The efforts that it accepts.
    pub efforts: Efforts,
    /// The members that send earlier reasoning back to it.
    pub reasoning_keys: &'static [&'static str],
    /// The content of an answer that has only calls must be a string, because its templates test it for truth.
    pub wants_content: bool,
    /// It accepts the addresses of images, not only their bytes.
    pub takes_image_addresses: bool,
    /// It accepts a `tool_choice` that names a function. If it does not, only that function is sent, with `required`.
    pub takes_named_choice: bool,
    /// It obeys `tool_choice: "none"`. If it does not, no tools are sent.
    pub takes_no_choice: bool,
    /// With `tool_choice: "none"` it keeps the tools in the prompt, and shows the model's calls as text.
    pub shows_calls_as_text: bool,
    /// It passes on the model's calls of tools that are not among `tools`. If it does not, it drops them or its grammar
    /// prevents them.
    pub passes_undeclared_calls: bool,
    /// It accepts only tool names of at most 64 letters, digits, `_` and `-`.
    pub is_strict_on_names: bool,
    /// The member of `stream_options` that requests counts with every chunk, so that the first chunk has the prompt's
    /// count.
    pub usage_option: Option<&'static str>,
    /// The member that requests progress reports while a prompt is processed.
    pub progress_key: Option<&'static str>,
    /// It silently cuts a prompt that is too long for its window; only its count shows that.
    pub cuts_prompts: bool,
    /// `created` in its listing is the time at which the model was made; the others list the time of the question.
    pub lists_creation: bool,
    /// It accepts `ignore_eos`, so that an answer has exactly the requested number of tokens.
    pub takes_ignore_eos: bool,
    /// It answers 500 to requests for features that it was not started with.
    pub refuses_with_500: bool,
    /// The member for the urgency of a request, of which a smaller number goes first. Nothing is sent for 0, its default.
    pub lane_key: Option<&'static str>,
    /// The way it counts a prompt.
    pub token_count: TokenCount,
    /// The page with the figures about its own work, beside the base URL's `/v1`; `None`: it has no such page.
    pub load_format: Option<LoadFormat>,
    /// The advice for changing the server's options.
    pub fixes: Fixes,
}

const MAX_TOKENS: &[&str] = &["max_tokens"];
const BOTH_MAX_TOKENS: &[&str] = &["max_completion_tokens", "max_tokens"];

/// The base of the other rows: a server about which nothing is known.
const UNKNOWN: Dialect = Dialect {
    kind: ServerKind::Unknown,
    name: "unknown",
    owners: &[],
    server_header: None,
    max_tokens_keys: MAX_TOKENS,
    takes_extensions: true,
    takes_template_arguments: true,
    tells_stop_string: true,
    takes_prefill: true,
    wants_continue_flag: true,
    thinking_budget: None,
    efforts: Efforts::Any,
    reasoning_keys: &["reasoning", "reasoning_content"],
    wants_content: false,
    takes_image_addresses: true,
    takes_named_choice: true,
    takes_no_choice: true,
    shows_calls_as_text: false,
    passes_undeclared_calls: false,
    is_strict_on_names: false,
    usage_option: None,
    progress_key: None,
    cuts_prompts: false,
    lists_creation: false,
    takes_ignore_eos: false,
    refuses_with_500: false,
    lane_key: None,
    token_count: TokenCount::None,
    // It may be one of those that have it, behind a relay that hides its kind.
    load_format: Some(LoadFormat::Metrics),
    fixes: Fixes {
        tool_parser: "turn tool calling on at the server, or choose a model that has it",
        reasoning_parser: "turn reasoning parsing on at the server; or set think_tags = true for this upstream in a Lua file",
        window: "load the model with a larger context",
        cached_tokens: None,
        prefix_cache: "turn prefix caching on at the server",
    },
};

/// All rows, in the order of [`ServerKind`].
static DIALECTS: [Dialect; 7] = [
    Dialect {
        kind: ServerKind::Vllm,
        name: "vllm",
        owners: &["vllm"],
        max_tokens_keys: BOTH_MAX_TOKENS,
        thinking_budget: Some(("thinking_token_budget", false)),
        reasoning_keys: &["reasoning"],
        usage_option: Some("continuous_usage_stats"),
        takes_ignore_eos: true,
        lane_key: Some("priority"),
        token_count: TokenCount::Tokenize(&[(true, "/tokenize")]),
        fixes: Fixes {
            tool_parser: "start vLLM with --enable-auto-tool-choice --tool-call-parser {parser}",
            reasoning_parser: "start vLLM with --reasoning-parser {parser}",
            window: "start vLLM with --max-model-len {window}, or as much as fits: --kv-cache-dtype fp8 halves the memory of the cache, and --max-num-seqs 8 is enough for a few people",
            cached_tokens: Some("start vLLM with --enable-prompt-tokens-details"),
            prefix_cache: "start vLLM without --no-enable-prefix-caching",
        },
        shows_calls_as_text: true,
        passes_undeclared_calls: true,
        ..UNKNOWN
    },
    Dialect {
        kind: ServerKind::LlamaCpp,
        name: "llama.cpp",
        owners: &["llamacpp"],
        server_header: Some("llama.cpp"),
        tells_stop_string: false,
        wants_continue_flag: false,
        thinking_budget: Some(("thinking_budget_tokens", true)),
        reasoning_keys: &["reasoning_content"],
        wants_content: true,
        // It reads the choice as a string, and treats an object as "auto".
        takes_named_choice: false,
        // With `none` it shows the call as text, in the model's own markup.
        takes_no_choice: false,
        progress_key: Some("return_progress"),
        refuses_with_500: true,
        token_count: TokenCount::InputTokens("/chat/completions/input_tokens"),
        load_format: Some(LoadFormat::Slots),
        fixes: Fixes {
            tool_parser: "start llama-server with --jinja, without --skip-chat-parsing, and with a GGUF whose chat template has tools",
            reasoning_parser: "start llama-server with --jinja --reasoning-format deepseek, without --skip-chat-parsing",
            window: "start llama-server with -c {window} -np 1: its -c is shared among its -np slots",
            cached_tokens: None,
            prefix_cache: "start llama-server without --no-cache-prompt",
        },
        ..UNKNOWN
    },
    Dialect {
        kind: ServerKind::Sglang,
        name: "sglang",
        owners: &["sglang"],
        reasoning_keys: &["reasoning_content"],
        usage_option: Some("continuous_usage_stats"),
        takes_ignore_eos: true,
        // Its version decides which of the two paths it has.
        token_count: TokenCount::Tokenize(&[(false, "/tokenize"), (true, "/tokenize")]),
        fixes: Fixes {
            tool_parser: "start SGLang with --tool-call-parser {parser}",
            reasoning_parser: "start SGLang with --reasoning-parser {parser}",
            window: "start SGLang with --context-length {window}, or as much as fits",
            cached_tokens: Some("start SGLang with --enable-cache-report"),
            prefix_cache: "start SGLang without --disable-radix-cache",
        },
        ..UNKNOWN
    },
    Dialect {
        kind: ServerKind::Ollama,
        name: "ollama",
        owners: &["library"],
        takes_template_arguments: false,
        tells_stop_string: false,
        takes_prefill: false,
        efforts: Efforts::AnyOrNone,
        takes_image_addresses: false,
        takes_no_choice: false,
        cuts_prompts: true,
        lists_creation: true,
        load_format: None,
        fixes: Fixes {
            tool_parser: "pull a model that ollama.com tags with \"tools\"",
            window: "start Ollama with OLLAMA_CONTEXT_LENGTH={window}, or as much as fits",
            ..UNKNOWN.fixes
        },
        ..UNKNOWN
    },
    Dialect {
        kind: ServerKind::LmStudio,
        name: "lmstudio",
        owners: &["organization_owner", "organization-owner"],
        tells_stop_string: false,
        takes_prefill: false,
        reasoning_keys: &["reasoning_content"],
        load_format: None,
        ..UNKNOWN
    },
    UNKNOWN,
    Dialect {
        kind: ServerKind::OpenAi,
        name: "openai",
        owners: &["openai", "system", "openai-internal"],
        max_tokens_keys: &["max_completion_tokens"],
        takes_extensions: false,
        takes_template_arguments: false,
        tells_stop_string: false,
        takes_prefill: false,
        load_format: None,
        efforts: Efforts::UpToHigh,
        reasoning_keys: &[],
        is_strict_on_names: true,
        ..UNKNOWN
    },
];

impl ServerKind {
    /// Every kind with its name in configuration and logs.
    pub const NAMES: [(ServerKind, &'static str); 7] = [
        (ServerKind::Vllm, "vllm"),
        (ServerKind::LlamaCpp, "llama.cpp"),
        (ServerKind::Sglang, "sglang"),
        (ServerKind::Ollama, "ollama"),
        (ServerKind::LmStudio, "lmstudio"),
        (ServerKind::Unknown, "unknown"),
        (ServerKind::OpenAi, "openai"),
    ];

    /// The row of this kind.
    pub fn dialect(self) -> &'static Dialect {
        DIALECTS.get(self as usize).unwrap_or(&UNKNOWN)
    }

    /// Its name in configuration and logs.
    pub fn name(self) -> &'static str {
        self.dialect().name
    }

    /// The name that a server of this kind has for the parser of a model's reasoning, by a part of the model's name;
    /// [`OWN_PARSER`] for other models. The names are those of vLLM 0.32 (`vllm serve --help=reasoning-parser`) and of SGLang's
    /// `ReasoningParser`.
    pub fn reasoning_parser_of(self, model: &str) -> &'static str {
        const PARSERS: [(&str, &str, &str); 8] = [
            ("qwen", "qwen3", "qwen3"),
            ("glm", "glm45", "glm45"),
            ("gpt-oss", "openai_gptoss", "gpt-oss"),
            ("deepseek-r1", "deepseek_r1", "deepseek-r1"),
            ("deepseek-v3", "deepseek_v3", "deepseek-v3"),
            ("kimi-k2", "kimi_k2", "kimi_k2"),
            ("minimax-m2", "minimax_m2", "minimax"),
            ("nemotron-3", "nemotron_v3", "nemotron_3"),
        ];
        let model = model.to_ascii_lowercase();
        let found = PARSERS.iter().find(|(part, ..)| model.contains(part));
        found.map_or(OWN_PARSER, |(_, vllm, sglang)| if self == ServerKind::Sglang { sglang } else { vllm })
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<ServerKind> {
        DIALECTS.iter().find(|dialect| dialect.name == name).map(|dialect| dialect.kind)
    }

    /// The kind that `owned_by` in a `/v1/models` entry identifies; `Unknown` for other values.
    pub fn from_owned_by(owned_by: &str) -> ServerKind {
        let row = DIALECTS.iter().find(|dialect| dialect.owners.contains(&owned_by));
        row.map_or(ServerKind::Unknown, |dialect| dialect.kind)
    }

    /// The kind that a response's `server` header identifies; `Unknown` for other values.
    pub fn from_server_header(server: &str) -> ServerKind {
        let begins =
            |dialect: &&Dialect| dialect.server_header.is_some_and(|start| server.starts_with(start));
        DIALECTS.iter().find(begins).map_or(ServerKind::Unknown, |dialect| dialect.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_stands_in_the_place_of_its_kind() {
        for ((kind, name), row) in ServerKind::NAMES.into_iter().zip(&DIALECTS) {
            assert_eq!((row.kind, row.name), (kind, name));
            assert_eq!(kind.dialect().kind, kind);
            assert_eq!(ServerKind::from_name(name), Some(kind));
        }
        assert_eq!(ServerKind::from_name("other"), None);
    }
}
