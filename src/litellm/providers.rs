//! LiteLLM's provider prefixes and addresses.
//!
//! Knows which of them mean an OpenAI-compatible server, and where LiteLLM looks for it; knows no `model_list`.

use super::error::ImportError;
use super::upstream::Text;
use super::yaml::Node;
use crate::config;

/// A provider prefix that means an OpenAI-compatible server.
pub(super) struct Provider {
    pub(super) prefix: &'static str,
    pub(super) flavour: Option<&'static str>,
    /// Where LiteLLM looks without an `api_base`.
    pub(super) url: Option<&'static str>,
    /// The variable in which LiteLLM looks for a key if it looks there.
    pub(super) key: Option<&'static str>,
}

const fn provider(
    prefix: &'static str,
    flavour: Option<&'static str>,
    url: Option<&'static str>,
) -> Provider {
    Provider { prefix, flavour, url, key: None }
}

const PROVIDERS: [Provider; 9] = [
    Provider {
        prefix: "openai",
        flavour: None,
        url: Some("https://api.openai.com/v1"),
        key: Some("OPENAI_API_KEY"),
    },
    provider("hosted_vllm", Some("vllm"), None),
    provider("ollama", Some("ollama"), Some("http://localhost:11434")),
    provider("ollama_chat", Some("ollama"), Some("http://localhost:11434")),
    provider("lm_studio", Some("lmstudio"), None),
    provider("llamafile", Some("llama.cpp"), None),
    provider("custom_openai", None, None),
    provider("openai_like", None, None),
    provider("litellm_proxy", None, None),
];

/// Providers whose own API LiteLLM speaks. Any other prefix is taken for a part of the model's name (`Intel/…`).
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

/// Words that people write where a client insists on a key and the server wants none.
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

/// The provider, the model's name without its prefix, and a note for the report; or why it cannot be served.
pub(super) fn split_model(
    model: &str,
    custom: Option<&Node>,
    has_base: bool,
) -> Result<(&'static Provider, String, String), String> {
    let find = |prefix: &str| PROVIDERS.iter().find(|provider| provider.prefix == prefix);
    let custom = custom.and_then(Node::text);
    let (prefix, rest) = match custom {
        Some(prefix) => {
            (prefix, model.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')).unwrap_or(model))
        }
        None => model.split_once('/').unwrap_or(("", model)),
    };
    if model.starts_with("os.environ/") {
        return Err(
            "the model's name comes from the environment; write it here, such as openai/NAME".to_owned()
        );
    }
    if let Some(provider) = find(prefix) {
        if rest.is_empty() {
            return Err(format!("no model after {prefix}/; write its name at the upstream"));
        }
        return Ok((provider, rest.to_owned(), format!("the upstream is asked for {rest}")));
    }
    if prefix == "anthropic" {
        return Err("anthropic/ is no OpenAI-compatible server; point that client's ANTHROPIC_BASE_URL at Anthropic itself, or use a local model".to_owned());
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

pub(super) fn read_url(node: &Node, provider: &Provider) -> Result<Text, ImportError> {
    let Some(text) = node.text() else {
        return Err(node.error("api_base is no text; expected http://HOST:PORT/v1"));
    };
    match Text::read(text) {
        Text::Environment(name) => Ok(Text::Environment(name)),
        Text::Literal(url) => {
            if let Err(why) = config::base_url(&url) {
                return Err(node.error(format!("api_base: {why}; expected http://HOST:PORT/v1")));
            }
            let url = url.trim_end_matches('/').trim_end_matches("/chat/completions");
            // Ollama's own API is at the root; the one that we speak is below /v1.
            let url = if provider.flavour == Some("ollama") { url.trim_end_matches("/api") } else { url };
            Ok(Text::Literal(with_v1(url)))
        }
    }
}

/// An address without a path means the one where these servers have their API.
pub(super) fn with_v1(url: &str) -> String {
    match url.split_once("://") {
        Some((_, rest)) if !rest.contains('/') => format!("{url}/v1"),
        _ => url.to_owned(),
    }
}
