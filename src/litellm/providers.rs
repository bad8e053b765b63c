//! LiteLLM's provider prefixes and addresses.
//!
//! Knows which prefixes mean an OpenAI-compatible server, and where LiteLLM looks for it; does not know `model_list`.

use super::ImportError;
use super::upstream::SettingText;
use super::yaml::Node;
use crate::config;

/// A provider prefix that means an OpenAI-compatible server.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) prefix: &'static str,
    pub(super) flavour: Option<&'static str>,
    /// The variables in which LiteLLM looks for an address if there is no `api_base`, in its order.
    pub(super) addresses: &'static [&'static str],
    /// The address that LiteLLM uses if none of these variables is set.
    pub(super) url: Option<&'static str>,
    /// The variable in which LiteLLM looks for a key if there is no `api_key`.
    pub(super) key: Option<&'static str>,
}

/// The variable that may hold a key of the real OpenAI.
pub(super) const OPENAI_KEY: &str = "OPENAI_API_KEY";

/// The variables that all OpenAI clients share.
const OPENAI_ADDRESSES: &[&str] = &["OPENAI_BASE_URL", "OPENAI_API_BASE"];

const OLLAMA: Provider = Provider {
    prefix: "ollama",
    flavour: Some("ollama"),
    addresses: &["OLLAMA_API_BASE"],
    url: Some("http://localhost:11434"),
    key: Some("OLLAMA_API_KEY"),
};

const PROVIDERS: [Provider; 9] = [
    Provider {
        prefix: "openai",
        flavour: None,
        addresses: OPENAI_ADDRESSES,
        url: Some("https://api.openai.com/v1"),
        key: Some(OPENAI_KEY),
    },
    Provider {
        prefix: "hosted_vllm",
        flavour: Some("vllm"),
        addresses: &["HOSTED_VLLM_API_BASE"],
        url: None,
        key: Some("HOSTED_VLLM_API_KEY"),
    },
    OLLAMA,
    Provider { prefix: "ollama_chat", ..OLLAMA },
    Provider {
        prefix: "lm_studio",
        flavour: Some("lmstudio"),
        addresses: &["LM_STUDIO_API_BASE"],
        url: None,
        key: Some("LM_STUDIO_API_KEY"),
    },
    Provider {
        prefix: "llamafile",
        flavour: Some("llama.cpp"),
        addresses: &["LLAMAFILE_API_BASE"],
        url: Some("http://127.0.0.1:8080/v1"),
        key: Some("LLAMAFILE_API_KEY"),
    },
    Provider {
        prefix: "custom_openai",
        flavour: None,
        addresses: OPENAI_ADDRESSES,
        url: None,
        key: Some(OPENAI_KEY),
    },
    Provider {
        prefix: "openai_like",
        flavour: None,
        addresses: &["OPENAI_LIKE_API_BASE"],
        url: None,
        key: Some("OPENAI_LIKE_API_KEY"),
    },
    Provider {
        prefix: "litellm_proxy",
        flavour: None,
        addresses: &["LITELLM_PROXY_API_BASE"],
        url: None,
        key: Some("LITELLM_PROXY_API_KEY"),
    },
];

/// `anthropic/` with an address in the file. llama.cpp, vLLM, SGLang and LM Studio have chat completions beside the
/// Messages API, and sparkgap uses those. The provider's key variable is not used: it may hold a key for the real
/// Anthropic.
pub(super) const MESSAGES: Provider = Provider {
    prefix: "anthropic",
    flavour: None,
    // ANTHROPIC_BASE_URL is not used: it may be the address of sparkgap itself.
    addresses: &[],
    url: None,
    key: None,
};

/// Providers that LiteLLM calls through APIs of their own. Any prefix that is unknown is taken for a part of the
/// model's name (`Intel/…`).
const FOREIGN: [&str; 28] = [
    "anthropic",
    "azure",
    "azure_ai",
    "bedrock",
    "vertex_ai",
    "vertex_ai_beta",
    "gemini",
    "groq",
    "mistral",
    "deepseek",
    "openrouter",
    "together_ai",
    "fireworks_ai",
    "cohere",
    "cohere_chat",
    "huggingface",
    "replicate",
    "sagemaker",
    "watsonx",
    "xai",
    "perplexity",
    "nvidia_nim",
    "cerebras",
    "databricks",
    "github",
    "vllm",
    "text-completion-openai",
    "anthropic_text",
];

/// Words that people write as a key if the server needs no key but a client insists on one.
pub(super) const NO_KEY: [&str; 13] = [
    "",
    "none",
    "null",
    "empty",
    "dummy",
    "fake",
    "fake-key",
    "no-key",
    "not-needed",
    "sk-no-key-required",
    "anything",
    "lm-studio",
    "ollama",
];

/// The provider, the model's name without its prefix, and a note for the report; or the reason why the model cannot be
/// served.
pub(super) fn split_model(
    model: &str,
    custom: Option<&str>,
    has_base: bool,
) -> Result<(&'static Provider, String, String), String> {
    let find = |prefix: &str| PROVIDERS.iter().find(|provider| provider.prefix == prefix);
    let (prefix, rest) = match custom {
        Some(prefix) => {
            (prefix, model.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')).unwrap_or(model))
        }
        None => model.split_once('/').unwrap_or(("", model)),
    };
    if let Some(provider) = find(prefix) {
        if rest.is_empty() {
            return Err(format!("no model after {prefix}/; write its name at the upstream"));
        }
        return Ok((provider, rest.to_owned(), format!("the upstream is asked for {rest}")));
    }
    if prefix == MESSAGES.prefix && !rest.is_empty() {
        let note = format!(
            "chat completions of the same server instead of its Messages API: it is asked for {rest}"
        );
        return Ok((&MESSAGES, rest.to_owned(), note));
    }
    if custom.is_some() || FOREIGN.contains(&prefix) {
        return Err(format!(
            "{prefix}/ has an API of its own; use its OpenAI-compatible address if it has one: model: openai/NAME with api_base"
        ));
    }
    let openai = find("openai")
        .filter(|_| has_base || ["gpt-", "o1", "o3", "o4"].iter().any(|p| model.starts_with(p)));
    match openai {
        Some(provider) => Ok((provider, model.to_owned(), format!("no provider's prefix: the upstream is asked for {model}"))),
        None => Err("no provider's prefix and no api_base: write model: openai/NAME and api_base: http://HOST:PORT/v1".to_owned()),
    }
}

pub(super) fn read_url(node: &Node, provider: &Provider) -> Result<SettingText, ImportError> {
    let Some(text) = node.text() else {
        return Err(node.error("api_base must be text: expected http://HOST:PORT/v1"));
    };
    match SettingText::read(text) {
        SettingText::Environment(name) => Ok(SettingText::Environment(name)),
        SettingText::Literal(url) => {
            if let Err(why) = config::base_url(&url) {
                return Err(node.error(format!("api_base: {why}; expected http://HOST:PORT/v1")));
            }
            Ok(SettingText::Literal(provider.base_of(&url)))
        }
    }
}

impl Provider {
    /// Turns an address as people write it for this provider into the base URL of chat completions.
    pub(super) fn base_of(&self, url: &str) -> String {
        let url = url.trim_end_matches('/').trim_end_matches("/chat/completions");
        let url = match self.flavour {
            // Ollama's own API is at the root; chat completions are below /v1.
            Some("ollama") => url.trim_end_matches("/api"),
            _ if self.prefix == MESSAGES.prefix => url.trim_end_matches("/messages"),
            _ => url,
        };
        with_v1(url)
    }
}

/// Adds `/v1` to an address without a path: these servers have their API there.
pub(super) fn with_v1(url: &str) -> String {
    match url.split_once("://") {
        Some((_, rest)) if !rest.contains('/') => format!("{url}/v1"),
        _ => url.to_owned(),
    }
}
