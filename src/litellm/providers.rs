//! LiteLLM's provider prefixes and addresses.
//!
//! Knows which prefixes mean an OpenAI-compatible server, and where LiteLLM looks for it; does not know `model_list`.

use super::ImportError;
use super::upstream::SettingText;
use super::yaml::Node;
use crate::config;

/// A provider prefix that means an OpenAI-compatible server.
#[derive(Clone, Debug)]
pub(super) struct Provider {
    pub(super) prefix: &'static str,
    pub(super) flavour: Option<&'static str>,
    /// The variables in which LiteLLM looks for an address if there is no `api_base`, in its order.
    pub(super) addresses: Vec<&'static str>,
    /// The address that LiteLLM uses if none of these variables is set.
    pub(super) url: Option<&'static str>,
    /// The variables in which LiteLLM looks for a key if there is no `api_key`, in its order.
    pub(super) keys: Vec<&'static str>,
    /// True for `anthropic/`: the server has the Messages API.
    pub(super) speaks_messages: bool,
}

/// The variable that may hold a key of the real OpenAI.
pub(super) const OPENAI_KEY: &str = "OPENAI_API_KEY";

/// The variable that may hold a key of the real Anthropic.
const ANTHROPIC_KEY: &str = "ANTHROPIC_API_KEY";

/// Keys of clouds that must not go to a server which is only compatible with them, unless the file says so.
pub(super) const CLOUD_KEYS: [&str; 2] = [OPENAI_KEY, ANTHROPIC_KEY];

/// One provider a line: its prefix, its address, the variables with its key, those with its address, and its server kind.
/// `-` stands for "no address" and "no variable"; an address without a path has no row, since upstreams have theirs below
/// a path. Made from LiteLLM 1.110.2, each row by asking its `get_llm_provider`.
const PROVIDERS: &str = include_str!("providers.txt");

/// The prefix of servers with the Messages API.
const MESSAGES: &str = "anthropic";

/// The provider of a prefix.
fn find(prefix: &str) -> Option<Provider> {
    if prefix == MESSAGES {
        // ANTHROPIC_BASE_URL is not used: it may be the address of sparkgap itself.
        return Some(Provider {
            prefix: MESSAGES,
            flavour: None,
            addresses: Vec::new(),
            url: Some("https://api.anthropic.com"),
            keys: vec![ANTHROPIC_KEY],
            speaks_messages: true,
        });
    }
    let mut words =
        PROVIDERS.lines().map(str::split_whitespace).find(|words| words.clone().next() == Some(prefix))?;
    let list = |word: Option<&'static str>| -> Vec<&'static str> {
        word.into_iter().flat_map(|word| word.split(',')).filter(|word| *word != "-").collect()
    };
    let prefix = words.next()?;
    let url = words.next().filter(|url| *url != "-");
    let (keys, addresses) = (list(words.next()), list(words.next()));
    Some(Provider { prefix, flavour: words.next(), addresses, url, keys, speaks_messages: false })
}

/// Providers that LiteLLM calls through APIs of their own. Any prefix that is unknown is taken for a part of the
/// model's name (`Intel/…`).
const FOREIGN: &str = "azure azure_ai azure_text bedrock bedrock_mantle sagemaker sagemaker_chat vertex_ai vertex_ai_beta \
cohere cohere_chat huggingface replicate watsonx watsonx_text databricks vllm text-completion-openai \
text-completion-codestral anthropic_text github_copilot chatgpt ai21 petals nlp_cloud cloudflare predibase triton \
snowflake oci voyage jina_ai deepgram elevenlabs ragflow maritalk gigachat bytez aleph_alpha palm custom auto_router";

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
) -> Result<(Provider, String, String), String> {
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
        // Fireworks calls its own models by a path, which LiteLLM adds.
        let is_short = prefix == "fireworks_ai" && !rest.starts_with("accounts/");
        let rest = if is_short { &format!("accounts/fireworks/models/{rest}") } else { rest };
        let instead = match prefix {
            "gemini" => "chat completions of Gemini instead of its own API: it is asked for ",
            _ => "the upstream is asked for ",
        };
        return Ok((provider, rest.to_owned(), format!("{instead}{rest}")));
    }
    if custom.is_some() || FOREIGN.split(' ').any(|foreign| foreign == prefix) {
        let address = match prefix {
            "vllm" => "http://HOST:8000/v1 of vllm serve",
            _ => "its OpenAI-compatible address, if it has one",
        };
        return Err(format!(
            "{prefix}/ has an API of its own: write model: openai/NAME with api_base: {address}"
        ));
    }
    let is_openai = ["gpt-", "o1", "o3", "o4"].iter().any(|p| model.starts_with(p));
    match find("openai").filter(|_| has_base || is_openai) {
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
    /// Turns an address as people write it for this provider into the base URL of its upstream.
    pub(super) fn base_of(&self, url: &str) -> String {
        let url = url.trim_end_matches('/').trim_end_matches("/chat/completions");
        let url = match self.flavour {
            // Ollama's own API is at the root; chat completions are below /v1.
            Some("ollama") => url.trim_end_matches("/api"),
            _ if self.speaks_messages => url.trim_end_matches("/messages"),
            _ => url,
        };
        match self.prefix {
            _ if self.speaks_messages => url.trim_end_matches("/v1").to_owned(),
            // Docker's runner has its API below /engines or /engines/NAME.
            "docker_model_runner" if !url.ends_with("/v1") => format!("{url}/v1"),
            _ => with_v1(url),
        }
    }
}

/// Adds `/v1` to an address without a path: these servers have their API there.
fn with_v1(url: &str) -> String {
    match url.split_once("://") {
        Some((_, rest)) if !rest.contains('/') => format!("{url}/v1"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_a_provider_with_a_valid_address() {
        let mut before = "";
        for line in PROVIDERS.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            assert!((4..=5).contains(&words.len()) && before < words[0], "{line}");
            before = words[0];
            let provider = find(words[0]).unwrap();
            assert!(provider.url.is_none_or(|url| config::base_url(url).is_ok()), "{line}");
            assert!(!FOREIGN.split(' ').any(|foreign| foreign == provider.prefix), "{line}");
            let kind = provider.flavour.map(crate::dialect::ServerKind::from_name);
            assert!(kind != Some(None), "{line}");
        }
        assert!(find("nobody").is_none() && find("").is_none());
    }

    #[test]
    fn models_lose_their_provider_and_nothing_else() {
        for (model, custom, expected) in [
            ("openai/openai/gpt-oss-120b", None, "openai/gpt-oss-120b"),
            ("openrouter/qwen/qwen3-coder", None, "qwen/qwen3-coder"),
            ("Intel/Qwen3", None, "Intel/Qwen3"),
            ("org/m", Some("hosted_vllm"), "org/m"),
            ("hosted_vllm/m", Some("hosted_vllm"), "m"),
            ("fireworks_ai/deepseek-v3", None, "accounts/fireworks/models/deepseek-v3"),
            ("fireworks_ai/accounts/me/models/x", None, "accounts/me/models/x"),
        ] {
            assert_eq!(split_model(model, custom, true).unwrap().1, expected);
        }
        for (model, custom) in [("openai/", None), ("bedrock/x", None), ("m", Some("azure")), ("x", None)] {
            assert!(split_model(model, custom, false).is_err(), "{model}");
        }
    }

    #[test]
    fn addresses_are_completed_where_the_provider_does_so() {
        for (prefix, url, expected) in [
            ("ollama", "http://box:11434/api/", "http://box:11434/v1"),
            ("openai", "http://box:8000", "http://box:8000/v1"),
            ("openai", "http://box:8000/v1/chat/completions", "http://box:8000/v1"),
            ("anthropic", "http://box:8000/v1/messages", "http://box:8000"),
            (
                "docker_model_runner",
                "http://box:12434/engines/llama.cpp",
                "http://box:12434/engines/llama.cpp/v1",
            ),
            ("docker_model_runner", "http://box:12434/engines/v1", "http://box:12434/engines/v1"),
            ("lemonade", "http://box:8000/api/v1", "http://box:8000/api/v1"),
        ] {
            assert_eq!(find(prefix).unwrap().base_of(url), expected, "{prefix}");
        }
    }
}
